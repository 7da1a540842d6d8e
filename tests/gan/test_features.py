import sys
from urllib.error import URLError
import numpy as np, pytest, timm, torch
from torch import nn
from PIL import Image
from cxr_fastai.models.backbone import create_backbone
from cxr_fastai.models.fusion import ImageModel
from cxr_fastai.gan.features import features_by, inception, radiograph_features
from cxr_fastai.gan.quality import FEWEST, quality
from .test_quality import altered, figure, noise

def test_features_of_a_timm_name_are_those_of_its_pooled_backbone(rows):
    x, name = radiograph_features(rows[:5], "resnet10t", "none", 48, bs=2)
    assert x.shape == (5, 512) and x.dtype == np.float64 and name == "resnet10t, untrained"
    again, _ = radiograph_features(rows[:5], "resnet10t", "none", 48, bs=5)
    other, _ = radiograph_features(rows[:5], "resnet10t", "none", 48, seed=1)
    assert np.allclose(x, again, atol=1e-5) and not np.allclose(x, other, atol=1e-2)

def test_features_of_a_local_weights_file_carry_its_name(rows, tmp_path):
    torch.save(create_backbone("resnet10t", "none", 48).body.state_dict(), tmp_path/"own.pth")
    state = torch.load(tmp_path/"own.pth", weights_only=True)
    full = timm.create_model("resnet10t").state_dict() | state
    full["conv1.0.weight"] = full["conv1.0.weight"].repeat(1, 3, 1, 1) / 3
    torch.save(full, tmp_path/"own.pth")
    assert radiograph_features(rows[:2], "resnet10t", str(tmp_path/"own.pth"), 48)[1] == "resnet10t, own.pth"

def test_features_of_a_classifier_are_its_backbones(rows):
    model = ImageModel(create_backbone("resnet10t", "none", 48), 2, .5, False)
    x, name = radiograph_features(rows[:3], model, size=48)
    pixels = torch.from_numpy(np.stack([np.asarray(Image.open(o)) for o in rows["file"][:3]]))[:, None]/255
    assert np.allclose(x, model.eval().backbone(pixels).mean((2, 3)).detach(), atol=1e-4) and "classifier" in name

@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    "Weights of torch-fidelity's own network, drawn so that activations keep their size."
    fidelity = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    class Drawn(fidelity.FeatureExtractorInceptionV3):
        def load_state_dict(self, state): pass                           # it insists on a file; this one is empty
    folder = tmp_path_factory.mktemp("inception")
    torch.save({}, folder/"empty.pth")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = Drawn("drawn", ["2048"], feature_extractor_weights_path=str(folder/"empty.pth"))
    for o in net.modules():
        if isinstance(o, nn.Conv2d): o.weight.data *= 6**.5
    torch.save(net.state_dict(), folder/"drawn.pth")
    return str(folder/"drawn.pth")

def test_inception_figures_alone_are_called_fid_and_kid(rows, inception_file, tmp_path):
    few = rows.drop_duplicates("patient_id")[:FEWEST]
    table = quality(few, altered(few, tmp_path/"n", noise(60)), "inception", inception_file, size=48, repeats=1)
    assert list(table["figure"]) == ["FID", "KID", "precision", "recall", "density", "coverage", "Inception Score"]
    assert (table["features"] == "Inception-v3").all() and table[["value", "floor"]].notna().all().all()
    assert figure(table)["Inception Score"] >= 1 and figure(table)["FID"] > figure(table, "floor")["FID"] > 0

def test_inception_reads_three_equal_channels_of_bytes(inception_file):
    x = torch.rand(1, 1, 32, 32)
    fidelity = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    net = fidelity.FeatureExtractorInceptionV3("own", ["2048"], feature_extractor_weights_path=inception_file)
    assert torch.equal(inception(inception_file)(x), net((x*255).round().byte().repeat(1, 3, 1, 1))[0])

def test_without_a_hub_the_error_says_where_weights_go(monkeypatch):
    fidelity = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    def offline(*args, **kwargs): raise URLError("no route")
    monkeypatch.setattr(fidelity, "load_state_dict_from_url", offline)
    with pytest.raises(OSError, match="no route.*give weights=FILE"): inception()

def test_without_the_extra_the_error_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(ImportError, match=r"needs torch-fidelity: pip install 'cxr_fastai\[quality\]'"): inception()

def test_what_was_asked_for_before_is_not_computed_again(rows):
    calls = []
    def net(x):
        calls.append(len(x))
        return x.mean((2, 3))
    features, some = features_by(net), rows.iloc[:5]
    first = features.of(some, size=32)
    assert calls == [5] and features.of(some.copy(), size=32) is first and calls == [5]
    assert features_by(features) is features and features.of(rows.iloc[:4], size=32).shape == (4, 1) and calls == [5, 4]
    assert np.array_equal(radiograph_features(some, features, size=32)[0], first) and features.name == "net"
