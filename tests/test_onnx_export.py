import json, sys
from contextlib import nullcontext
import numpy as np, pytest, torch
from PIL import Image
ort = pytest.importorskip("onnxruntime")
from cxr_fastai.bundle import load_bundle, read_card, save_bundle
from cxr_fastai.card import BundleError
from cxr_fastai.data import RadiographDataLoaders
from cxr_fastai.fusion import FUSIONS
from cxr_fastai.learner import *
from cxr_fastai.onnx_export import *
from conftest import SIDE

MAKE = dict(image=image_learner, metadata=metadata_learner, both=fusion_learner)

def make(rows, path, use="both", **kwargs):
    dls = RadiographDataLoaders.from_df(rows, path, size=SIDE, bs=8, use=use, tfms=[])
    if use != "metadata": kwargs = dict(arch="test_resnet", weights="none", precision="fp32") | kwargs
    learn = MAKE[use](dls, **kwargs)
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    return learn

def said(learn, rows):
    with learn.no_bar(): return learn.get_preds(dl=learn.dls.test_dl(rows))[0][:, 1].numpy()

@pytest.fixture(scope="module")
def held_out(rows): return rows[rows["split"] == "test"]

@pytest.fixture(scope="module")
def learn(rows, tmp_path_factory): return make(rows, tmp_path_factory.mktemp("learn"))

@pytest.fixture(scope="module")
def file(learn, tmp_path_factory):
    return export_onnx(learn, tmp_path_factory.mktemp("onnx")/"model.onnx", threshold=.3)

@pytest.mark.parametrize("use, kwargs", [("image", {}), ("metadata", {}), ("both", dict(arch="test_vit"))]
                         + [("both", dict(fusion=o)) for o in FUSIONS if o != "concat"])
def test_onnxruntime_says_what_the_learner_says(rows, held_out, tmp_path, use, kwargs):
    learn = make(rows, tmp_path, use, **kwargs)
    model = OnnxModel(export_onnx(learn, tmp_path/"m.onnx", held_out))
    assert np.abs(model(held_out) - said(learn, held_out)).max() < 1e-5 and np.ptp(model(held_out)) > 1e-3
    assert [o.name for o in model.session.get_inputs()] == dict(image=["image"], metadata=["metadata"], both=["image", "metadata"])[use]

@pytest.mark.parametrize("arch", ["resnet50", "vgg16", "densenet121"])
def test_so_it_does_for_the_papers_backbones(rows, held_out, tmp_path, arch):
    dls = RadiographDataLoaders.from_df(rows, tmp_path, size=32, bs=8, use="image", tfms=[])
    learn = image_learner(dls, arch, weights="none", precision="fp32")
    model = OnnxModel(export_onnx(learn, tmp_path/"m.onnx", held_out[:4]))
    assert np.abs(model(held_out[4:8]) - said(learn, held_out[4:8])).max() < 1e-5

def test_any_number_of_rows_with_any_missing_metadata(learn, file, held_out):
    model, bare = OnnxModel(file), held_out[["image", "file"]]
    for rows in (held_out, held_out[:1], held_out.assign(age=np.nan), held_out.assign(sex=None, view="?"), bare, bare.assign(metadata_policy="image-only")):
        with pytest.warns() if "?" in set(rows.get("view", ())) else nullcontext():
            assert np.abs(model(rows) - said(learn, rows)).max() < 1e-5
    assert np.array_equal(model(bare), model(bare.assign(metadata_policy="image-only")))
    assert model([dict(image=held_out["file"].iloc[0])]).shape == (1,) and model(held_out[:0]).shape == (0,)
    assert np.abs(model(held_out, bs=5) - model(held_out)).max() < 1e-6

def test_the_file_alone_tells_how_to_use_it(learn, file, held_out):
    session = ort.InferenceSession(str(file))
    told = session.get_modelmeta().custom_metadata_map
    card, slots, row = json.loads(told["cxr_fastai"]), json.loads(told["slots"]), held_out.dropna(subset="age").iloc[0]
    assert card["threshold"] == .3 and card["classes"] == ["Normal", "Pneumonia"] and card["metadata"]["stats"]["sex"] == ["F", "M"]
    image, metadata = session.get_inputs()
    assert image.shape[1:] == [1, SIDE, SIDE] and metadata.shape[1:] == [len(slots)] and image.type == "tensor(float)"
    low, high = card["metadata"]["stats"]["age"]
    words = {f"sex is {row['sex']}": 1, f"view is {row['view']}": 1, f"(age - {low}) / {high - low}": (row["age"] - low) / (high - low)}
    assert words.keys() <= set(slots)
    pixels = np.asarray(Image.open(row["file"]), np.float32)[None, None] / 255
    fed = dict(image=pixels, metadata=np.array([[words.get(o, 0) for o in slots]], np.float32))
    prob = session.run(["probability"], fed)[0]
    assert prob.shape == (1, 2) and prob.sum() == pytest.approx(1) and prob[0, 1] == pytest.approx(said(learn, held_out.loc[[row.name]])[0], abs=1e-5)

def test_no_name_of_a_row_or_of_this_machines_files_is_in_it(rows, file):
    content = file.read_bytes()
    for o in (*rows["image"], *rows["patient_id"].astype(str), torch.__path__[0], __file__.rsplit("/", 2)[0]): assert o.encode() not in content

def test_a_bundle_exports_as_its_learner_and_bf16_as_fp32(rows, held_out, tmp_path):
    learn = make(rows, tmp_path, precision="bf16")
    save_bundle(learn, tmp_path/"b.safetensors", .7)
    model = OnnxModel(export_onnx(tmp_path/"b.safetensors", tmp_path/"m.onnx", held_out))
    fp32 = load_bundle(tmp_path/"b.safetensors", precision="fp32")
    assert np.abs(model(held_out) - said(fp32, held_out)).max() < 1e-5 and model.card == read_card(tmp_path/"b.safetensors")
    assert learn.model.bf16

def test_the_learner_trains_on_as_if_nothing_had_been(rows, tmp_path):
    before, after = make(rows, tmp_path), make(rows, tmp_path)
    after.model.train()
    state = torch.random.get_rng_state()
    export_onnx(after, tmp_path/"m.onnx")
    assert after.model.training and torch.equal(state, torch.random.get_rng_state())
    for learn in before, after:
        with learn.no_bar(), learn.no_logging(): learn.fit(1)
    assert all(torch.equal(a, b) for a, b in zip(before.model.state_dict().values(), after.model.state_dict().values()))

def test_what_differs_is_refused_and_leaves_nothing(learn, held_out, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="tolerance=-1; nothing was written"): export_onnx(learn, tmp_path/"m.onnx", tolerance=-1)
    assert not list(tmp_path.iterdir())
    (tmp_path/"m.onnx").write_text("old")
    real = torch.onnx.export
    def wrong(model, *args, **kwargs):
        for o in model.model.head.parameters(): o.data += .1 * torch.arange(o.numel()).view_as(o)
        program = real(model, *args, **kwargs)
        for o in model.model.head.parameters(): o.data -= .1 * torch.arange(o.numel()).view_as(o)
        return program
    monkeypatch.setattr(torch.onnx, "export", wrong)
    with pytest.raises(ValueError, match="differ from the learner's"): export_onnx(learn, tmp_path/"m.onnx", held_out)
    assert [o.name for o in tmp_path.iterdir()] == ["m.onnx"] and (tmp_path/"m.onnx").read_text() == "old"

def test_what_cannot_be_done_is_said(learn, file, held_out, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="rows is empty"): export_onnx(learn, tmp_path/"m.onnx", held_out[:0])
    with pytest.raises(FileNotFoundError): OnnxModel(tmp_path/"none.onnx")
    (tmp_path/"bad.onnx").write_bytes(b"\x80\x04no onnx")
    with pytest.raises(BundleError, match="onnxruntime can't load it"): OnnxModel(tmp_path/"bad.onnx")
    import onnx
    other = onnx.load(file)
    other.metadata_props[:] = []
    onnx.save(other, tmp_path/"bare.onnx")
    with pytest.raises(BundleError, match="the card is no table"): OnnxModel(tmp_path/"bare.onnx")
    for name in "onnx", "onnxscript", "onnxruntime":
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, name, None)
            with pytest.raises(ImportError, match=rf"needs {name}: pip install 'cxr_fastai\[onnx\]'"): export_onnx(learn, tmp_path/"m.onnx")
