import numpy as np, pytest, timm, torch
from cxr_fastai.trained.bundle import load_bundle, save_bundle
from cxr_fastai.trained.card import BundleError
from cxr_fastai.data.loaders import RadiographDataLoaders
from cxr_fastai.models.fusion import FUSIONS
from cxr_fastai.trained import onnx as room
from cxr_fastai.models.learner import fusion_learner, image_learner, metadata_learner
from cxr_fastai.trained.onnx import export_onnx, OnnxModel
from conftest import SIDE

onnx, _ = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
MAKE = dict(image=image_learner, metadata=metadata_learner, both=fusion_learner)

def make(rows, path, use="both", arch="test_resnet", **kwargs):
    dls = RadiographDataLoaders.from_df(rows, path, size=SIDE, bs=8, use=use)
    return MAKE[use](dls, **({} if use == "metadata" else dict(arch=arch, weights="none", precision="fp32") | kwargs))

def held_out(rows): return rows[rows["split"] == "test"]

def agrees(learn, file, rows):
    inputs = [o.numpy() for o in room._inputs(learn, rows)]
    with learn.no_bar(): prob = learn.get_preds(dl=learn.dls.test_dl(rows))[0].numpy()
    return np.abs(OnnxModel(file)(*inputs) - prob).max()

@pytest.mark.parametrize("use", MAKE)
def test_a_file_says_what_the_trained_learner_says(rows, tmp_path, use):
    learn = make(rows, tmp_path, use)
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    learn.temperature = 1.7
    file = export_onnx(learn, tmp_path/"m.onnx", held_out(rows))
    assert OnnxModel(file).card["temperature"] == 1.7
    assert agrees(learn, file, held_out(rows)) < 1e-5
    again = load_bundle(save_bundle(learn, tmp_path/"b", threshold=.3))
    card = OnnxModel(export_onnx(again, tmp_path/"n.onnx")).card
    assert card == again.card and card["threshold"] == .3
    held = [o.numpy() for o in room._inputs(learn, held_out(rows))]
    at = float(OnnxModel(file)(*held)[3, 1])
    learn.model.train()
    # its mode isn't changed
    assert export_onnx(learn, tmp_path/"n.onnx", threshold=at) == tmp_path/"n.onnx" and learn.model.training
    net = OnnxModel(tmp_path/"n.onnx")
    assert net.card["threshold"] == at
    assert net.decide(*held) == ["Normal Pneumonia".split()[int(p > at)] for p in net(*held)[:, 1].astype(float)]
    one = [o[:1].numpy() for o in room._inputs(learn, held_out(rows))] # any number of rows
    assert OnnxModel(file)(*one).shape == (1, 2)

def test_what_the_weights_want_of_an_image_is_in_the_file(rows, tmp_path):
    torch.save(timm.create_model("test_resnet", num_classes=18).state_dict(), tmp_path/"a.pth")
    learn = make(rows, tmp_path, "image", weights=f"xrv:{tmp_path/'a.pth'}")
    file = export_onnx(learn, tmp_path/"m.onnx", held_out(rows)) # which takes 0..1
    assert agrees(learn, file, held_out(rows)) < 1e-4
    assert OnnxModel(file).card["normalisation"]["range"] == [-1024, 1024]

@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_fusion_is_exported_and_bf16_becomes_fp32(rows, tmp_path, fusion):
    learn = make(rows, tmp_path, fusion=fusion, precision="bf16")
    file = export_onnx(learn, tmp_path/"m.onnx", held_out(rows))
    assert agrees(learn, file, held_out(rows)) < 2e-2 and learn.model.precision == "bf16"

@pytest.mark.parametrize("arch", ["resnet50", "densenet121", "vgg16"])
def test_the_papers_backbones_are_exported(rows, tmp_path, arch):
    learn = make(rows, tmp_path, arch=arch)
    assert agrees(learn, export_onnx(learn, tmp_path/"m.onnx"), held_out(rows)[:4]) < 1e-4

def test_a_file_that_differs_is_not_kept(rows, tmp_path, monkeypatch):
    write = room._write
    def spoilt(model, *args):
        with torch.no_grad(): model.model.head.head[1].bias[0] += .1
        write(model, *args)
        with torch.no_grad(): model.model.head.head[1].bias[0] -= .1
    monkeypatch.setattr(room, "_write", spoilt)
    with pytest.raises(ValueError, match="probabilities are up to 0.0.*was not kept"):
        export_onnx(make(rows, tmp_path), tmp_path/"o"/"m.onnx")
    assert not list((tmp_path/"o").iterdir())

def test_a_file_without_a_card_is_refused(rows, tmp_path):
    proto = onnx.load(export_onnx(make(rows, tmp_path, "metadata"), tmp_path/"m.onnx"))
    del proto.metadata_props[:]
    onnx.save(proto, tmp_path/"m.onnx")
    with pytest.raises(BundleError, match="m.onnx: the card is no table"): OnnxModel(tmp_path/"m.onnx")

def test_without_the_extra_it_is_said(rows, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(ImportError, match="ONNX needs onnxscript: pip install 'cxr_fastai\\[onnx\\]'"):
        export_onnx(make(rows, tmp_path, "metadata"), tmp_path/"m.onnx")
