import json, pickle, struct
import mutants
import pytest, timm, torch
from safetensors.torch import load_file, save_file
from fastai.vision.augment import aug_transforms
from cxr_fastai.trained.bundle import FACTORIES
from cxr_fastai.trained.card import BundleError
from cxr_fastai.data.loaders import RadiographDataLoaders
from cxr_fastai.models.backbone import create_backbone
from cxr_fastai.models.fusion import FUSIONS
from cxr_fastai.models.learner import fusion_learner, image_learner, metadata_learner
from cxr_fastai.trained.explain import explain
from cxr_fastai.trained.bundle import load_bundle, read_card, save_bundle
from cxr_fastai.trained.tensors import sha256_of
from conftest import SIDE, run_python

MAKE = dict(image=image_learner, metadata=metadata_learner, both=fusion_learner)

def make(rows, path, use="both", arch="test_resnet", **kwargs):
    dls = RadiographDataLoaders.from_df(rows, path, size=SIDE, bs=8, use=use, tfms=[])
    if use != "metadata": kwargs = dict(arch=arch, weights="none", precision="fp32") | kwargs
    return MAKE[use](dls, **kwargs)

def said(learn, rows):
    with learn.no_bar(): return learn.get_preds(dl=learn.dls.test_dl(rows))[0]

@pytest.fixture(scope="module")
def learn(rows, tmp_path_factory):
    learn = make(rows, tmp_path_factory.mktemp("learn"))
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    return learn

def test_a_bundle_predicts_and_explains_where_it_is_loaded(learn, rows, tmp_path, device):
    again, test = load_bundle(save_bundle(learn, tmp_path/"b"), device), rows[rows["split"] == "test"]
    assert {o.device.type for o in again.model.parameters()} == {device}
    assert torch.allclose(said(again, test), said(learn, test), atol=1e-4)
    assert again.predict(test.iloc[0])[2].sum() == pytest.approx(1) and len(explain(again, test).table) == len(test)

@pytest.fixture
def saved(learn, tmp_path): return save_bundle(learn, tmp_path/"bundle", summary=dict(recall=.5))

def held_out(rows): return rows[rows["split"] == "test"]

@pytest.mark.parametrize("name", ["bundle", "bundle.safetensors"])
@pytest.mark.parametrize("use", MAKE)
def test_a_loaded_bundle_predicts_the_same_bits(rows, tmp_path, use, name):
    learn = make(rows, tmp_path, use)
    learn.fit(1)
    again = load_bundle(save_bundle(learn, tmp_path/name, .3))
    assert torch.equal(said(learn, held_out(rows)), said(again, held_out(rows)))
    assert again.card["threshold"] == .3 and list(again.dls.vocab) == ["Normal", "Pneumonia"]
    one = dict(image=rows["file"][0], age=50, sex="F", view="PA")
    one = {k: v for k, v in one.items() if (k == "image") != (use == "metadata") or use == "both"}
    assert torch.equal(learn.predict(**one)[2], again.predict(**one)[2])

def test_what_the_weights_want_of_an_image_goes_with_them(rows, tmp_path):
    torch.save(timm.create_model("test_resnet", num_classes=18).state_dict(), tmp_path/"a.pth")
    learn = make(rows, tmp_path, "image", weights=f"xrv:{tmp_path/'a.pth'}")
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    card = read_card(save_bundle(learn, tmp_path/"b"))
    assert card["normalisation"] == dict(mean=.5, std=1/2048, range=[-1024, 1024])
    assert card["weights"].startswith("xrv:a.pth (sha256 ") and "without fc.weight, fc.bias; gray" in card["weights"]
    again = load_bundle(tmp_path/"b")
    assert again.model.backbone.normalisation == card["normalisation"]
    assert torch.equal(said(learn, held_out(rows)), said(again, held_out(rows)))
    other = create_backbone("test_resnet", str(tmp_path/"b"), SIDE) # whose first weights these are
    assert other.normalisation == card["normalisation"]
    harmed = card | dict(normalisation=dict(mean=.4, std=.2, range=[-2, 3]))
    harmed["sha256"] = sha256_of(harmed, load_file(tmp_path/"b"/"model.safetensors"))
    (tmp_path/"b"/"bundle.json").write_text(json.dumps(harmed))
    with pytest.raises(BundleError, match="normalisation isn't that of the weights"): load_bundle(tmp_path/"b")

@pytest.mark.parametrize("fusion, precision", [*((o, "bf16") for o in FUSIONS), ("concat", "fp16")])
def test_every_fusion_and_precision_fits(rows, tmp_path, fusion, precision):
    learn = make(rows, tmp_path, fusion=fusion, precision=precision, n_meta=8, ps=.1)
    again = load_bundle(save_bundle(learn, tmp_path/"b"))
    assert torch.equal(said(learn, held_out(rows)), said(again, held_out(rows))) and again.model.precision == precision
    assert load_bundle(tmp_path/"b", precision="fp32").model.precision == "fp32"

@pytest.mark.parametrize("arch", ["resnet50", "densenet121", "vgg16", "test_vit"])
@pytest.mark.slow
def test_the_papers_backbones_and_a_transformer_fit(rows, tmp_path, arch):
    learn = make(rows, tmp_path, arch=arch)
    few = held_out(rows)[:3]
    assert torch.equal(said(learn, few), said(load_bundle(save_bundle(learn, tmp_path/"b")), few))

def test_the_card_tells_what_was_trained_and_names_nobody(rows, saved):
    card, text = read_card(saved), (saved/"bundle.json").read_text()
    train = rows[rows["split"] == "train"]
    assert card["training"]["rows"] == len(train)
    assert card["training"]["positives"] == (train["label"] == "Pneumonia").sum()
    assert {"train_loss", "recall"} <= card["training"]["last_epoch"].keys() and card["summary"] == dict(recall=.5)
    assert card["metadata"]["stats"]["sex"] == ["F", "M"]
    assert card["versions"]["torch"] == torch.__version__.split("+")[0] and card["typical"]
    for o in [*rows["image"], *rows["patient_id"].astype(str)]: assert o not in text

def test_a_bundle_of_a_bundle_is_the_same_bundle(saved, tmp_path):
    again = save_bundle(load_bundle(saved), tmp_path/"again")
    assert read_card(again) == read_card(saved)

def test_a_loaded_learner_says_that_it_cannot_train(saved):
    with pytest.raises(ValueError, match="has no training rows"): load_bundle(saved).fit(1)

@pytest.mark.slow
def test_it_loads_in_another_process_without_pickle(saved, rows, learn):
    code = """
import pickle, sys
def never(*args, **kwargs): raise SystemExit("a pickle was read")
import torch, pandas as pd
from cxr_fastai.trained.bundle import load_bundle
pickle.load = pickle.loads = pickle.Unpickler = torch.load = never
print(load_bundle(sys.argv[1]).predict(image=sys.argv[2], age=50)[2][1].item())"""
    out = run_python(code, saved, rows["file"][0])
    assert float(out.stdout) == learn.predict(image=rows["file"][0], age=50)[2][1].item(), out.stderr

def test_another_version_is_said(saved):
    change(saved, versions=read_card(saved)["versions"] | dict(torch="1.0"), honest=True)
    with pytest.warns(UserWarning, match="torch 1.0, here"): load_bundle(saved)

def test_weights_that_are_no_numbers_are_not_saved(rows, tmp_path):
    learn = make(rows, tmp_path, "metadata")
    learn.model.mlp.token.data[0] = torch.nan
    with pytest.raises(BundleError, match="mlp.token.*nothing was saved"): save_bundle(learn, tmp_path/"b")
    assert not (tmp_path/"b").exists()

def test_transforms_that_a_bundle_cannot_carry_are_refused(rows, tmp_path):
    for tfms, fits in (aug_transforms(), True), (aug_transforms(size=32), False):
        dls = RadiographDataLoaders.from_df(rows, tmp_path, size=SIDE, bs=8, tfms=tfms)
        learn = fusion_learner(dls, "test_resnet", weights="none")
        if fits: assert torch.equal(said(learn, held_out(rows)),
                                    said(load_bundle(save_bundle(learn, tmp_path/"b")), held_out(rows)))
        else:
            with pytest.raises(BundleError, match="tfms change the images"): save_bundle(learn, tmp_path/"c")

def test_a_full_disk_leaves_the_old_bundle_whole(saved, learn, monkeypatch):
    before = read_card(saved)
    def full(*args): raise OSError(28, "No space left on device")
    monkeypatch.setattr("cxr_fastai.trained.bundle.save_file", full)
    with pytest.raises(OSError): save_bundle(learn, saved, .9)
    assert read_card(saved) == before
    assert sorted(o.name for o in saved.iterdir()) == ["bundle.json", "model.safetensors"]

# hostile files

def change(saved, honest=False, **fields):
    "Edit the card; honest: with its checksum, as a hostile author would."
    from cxr_fastai.trained.tensors import sha256_of as _sha256
    card = json.loads((saved/"bundle.json").read_text()) | fields
    card = {k: v for k, v in card.items() if v is not ...}
    if honest: card["sha256"] = _sha256(card, load_file(saved/"model.safetensors"))
    (saved/"bundle.json").write_text(json.dumps(card))

def refused(saved, match):
    with pytest.raises(BundleError, match=match) as e: load_bundle(saved)
    assert str(saved) in str(e.value) and "\n" not in str(e.value)

METADATA = dict(cat_names=["sex"], cont_names=["age"], stats=dict(sex=["F", "M"], age=[0., 90.]))

@pytest.mark.parametrize("fields, match", [
    (dict(kind="../../x"), "kind is '../../x'"), (dict(kind=["image"]), "kind is"), (dict(kind=...), "kind is None"),
    (dict(arch="../../etc/passwd"), "arch is"), (dict(arch="hf-hub:some/model"), "arch is"),
    (dict(arch="local-dir:/tmp"), "arch is"), (dict(arch=7), "arch is 7"), (dict(arch="x" * 100_000), "arch is"),
    (dict(size=10**9), "size is"), (dict(size=True), "size is"), (dict(size="64"), "size is"),
    (dict(n_meta=10**9), "n_meta is"), (dict(fusion="os.system"), "fusion is"),
    (dict(format=2), "format is 2 and should be 1"), (dict(threshold=7), "threshold is 7"),
    (dict(threshold=None), "threshold is None"), (dict(classes=["a", "a"]), "classes is"),
    (dict(classes="ab"), "classes is"), (dict(training=[]), "training is"), (dict(surprise=1), "unknown surprise"),
    (dict(ps=...), "lacks 'ps'"), (dict(precision=[]), "precision is"),
    (dict(metadata=METADATA | dict(stats=dict(sex=["F"]))), "metadata is"),
    (dict(metadata=METADATA | dict(stats=dict(sex=["F"], age=[90, 0]))), "metadata is"),
    (dict(metadata=METADATA | dict(cat_names=["sex", "sex"])), "metadata is"),
    (dict(metadata=METADATA | dict(cat_names=[{}])), "metadata is"), (dict(metadata=[]), "metadata is"),
    (dict(typical=dict(far=1)), "typical is"), (dict(typical=[1]), "typical is")])
def test_a_card_of_another_shape_is_refused(saved, fields, match):
    change(saved, honest=True, **fields)
    refused(saved, match)

@pytest.mark.parametrize("text, match", [
    (b"", "a card has"), (b"[]", "no table"), (b"{", "json can't be read"), (b"[" * 200_000, "json can't be read"),
    (b'{"threshold": NaN}', "holds NaN"), (b" " * 3_000_001, "a card has"),
    (pickle.dumps(dict(a=1)), "json can't be read"), (b'"' + b"\xff" * 9, "json can't be read"),
    (b'{"kind": 1e999}', "kind is inf")])
def test_a_card_that_is_no_card_is_refused(saved, text, match):
    (saved/"bundle.json").write_bytes(text)
    refused(saved, match)

def test_an_edited_card_or_other_weights_are_told_by_the_checksum(saved):
    change(saved, threshold=.01)
    refused(saved, "aren't those that were saved together")
    change(saved, honest=True)
    state = load_file(saved/"model.safetensors")
    state["mlp.token"][0] += 1
    save_file(state, saved/"model.safetensors")
    refused(saved, "aren't those that were saved together")

class Evil:
    def __reduce__(self): return exec, ("raise SystemExit('it ran')",)

def pickled(file): file.write_bytes(pickle.dumps(Evil()))
def torched(file): torch.save(Evil(), file)
def truncated(file): file.write_bytes(file.read_bytes()[:-1000])
def headless(file): file.write_bytes(file.read_bytes()[:5])
def short_header(file): file.write_bytes(file.read_bytes()[:200])
def oversized(file): file.write_bytes(struct.pack("<Q", 2**62) + file.read_bytes()[8:])
def huge(file): file.write_bytes(struct.pack("<Q", 20_000_000) + b" " * 20_000_000)
def no_json(file): file.write_bytes(struct.pack("<Q", 4) + b"{{{{" + b"0" * 100)
def beyond(file):
    header = json.dumps(dict(a=dict(dtype="F32", shape=[1000], data_offsets=[0, 4000]))).encode()
    file.write_bytes(struct.pack("<Q", len(header)) + header + b"0" * 100)
def listed(file): file.write_bytes(struct.pack("<Q", 2) + b"[]" + b"0" * 100)

@pytest.mark.parametrize("harm", [pickled, torched, truncated, headless, short_header, oversized, huge, no_json, beyond,
                                  listed])
def test_weights_that_are_no_safetensors_are_refused_unread(saved, harm):
    harm(saved/"model.safetensors")
    refused(saved, "")
    assert (saved/"model.safetensors").stat().st_size > 0

@pytest.mark.parametrize("harm", [pickled, torched, truncated, headless, short_header, oversized, huge, no_json, beyond,
                                  listed])
def test_so_is_a_single_file(learn, tmp_path, harm):
    file = save_bundle(learn, tmp_path/"b.safetensors")
    harm(file)
    refused(file, "")

def rewrite(saved, f):
    "Change the weights with an honest checksum."
    state = load_file(saved/"model.safetensors")
    save_file(f(state), saved/"model.safetensors")
    change(saved, honest=True)

def test_nan_weights_are_refused(saved):
    rewrite(saved, lambda s: s | {"mlp.token": torch.full_like(s["mlp.token"], torch.nan)})
    refused(saved, "mlp.token is not a number")

def like(s, name, value): return s | {name: torch.full_like(s[name], value)}
def cast(s, kind, *names):
    return {k: v.to(kind) if v.is_floating_point() and (k in names or not names) else v for k, v in s.items()}
VAR = "backbone.body.bn1.running_var"

@pytest.mark.parametrize("f, match", [
    (lambda s: {k: v for k, v in s.items() if k != "mlp.token"}, "lacks mlp.token"),
    (lambda s: s | {"../../../tmp/x": torch.ones(1)}, "unknown '../../../tmp/x'"),
    (lambda s: s | {"mlp.token": torch.ones(99)}, r"mlp.token is \[99\], not \[32\]"),
    (lambda s: cast(s, torch.float64, "mlp.token"), "mlp.token is of type F64; weights are fp32, bf16 or fp16"),
    (lambda s: cast(s, torch.int32, "mlp.token"), "of type I32"),
    (lambda s: cast(s, torch.float8_e4m3fn), "of type F8"),
    (lambda s: cast(s, torch.float16, "mlp.token"), "of the types F16, F32, and must be of one"),
    (lambda s: s | {"mlp.missing": s["mlp.missing"].byte()}, "mlp.missing is of type U8, not torch.bool"),
    (lambda s: like(s, VAR, -1), "running_var is not positive"),
    (lambda s: like(s, VAR, 0), "running_var is not positive"),
    (lambda s: like(s, "backbone.std", 0), "backbone.std is not positive"),
    (lambda s: like(s, VAR, torch.inf), "infinite"),
    (lambda s: like(s, VAR.replace("running_var", "num_batches_tracked"), -1), "is a number of batches"),
    (lambda s: like(s, "mlp.column", 10**9), "mlp.column isn't what the card's settings give")])
def test_weights_that_do_not_fit_are_named(saved, f, match):
    rewrite(saved, f)
    refused(saved, match)

def test_weights_may_be_written_in_half_precision(saved):
    for kind in torch.bfloat16, torch.float16:
        rewrite(saved, lambda s: cast(s, kind))
        state = load_bundle(saved).model.state_dict()
        assert all(torch.equal(o.to(state[k].dtype), state[k]) for k, o in load_file(saved/"model.safetensors").items())

def test_a_variance_of_zero_is_saved_as_the_least_that_changes_nothing(rows, tmp_path):
    learn = make(rows, tmp_path, "metadata")
    bn = next(o for o in learn.model.modules() if isinstance(o, torch.nn.BatchNorm1d))
    bn.running_var[0] = 0
    assert torch.equal(said(learn, held_out(rows)), said(load_bundle(save_bundle(learn, tmp_path/"b")), held_out(rows)))

@pytest.mark.parametrize("fields, match", [
    (dict(arch="vit_7b_patch16_dinov3"), r"has 6,\d{3},\d{3},\d{3} weights, more than"),
    (dict(arch="vit_giant_patch14_dinov2"), "weights, more than"), (dict(arch="resnet152"), "lacks"),
    (dict(arch="efficientvim_m1"), "can't be built at 48 pixels"),
    (dict(size=2048, bs=513), "a batch of 513 at size 2048 is more"), (dict(arch="test_vit"), "lacks"),
    (dict(n_meta=4096), r"is \[")])
@pytest.mark.slow
def test_what_a_card_names_is_refused_before_a_byte_of_it_is_built(saved, fields, match, monkeypatch):
    change(saved, honest=True, **fields)
    for o in FACTORIES: monkeypatch.setitem(FACTORIES, o, None)
    monkeypatch.setattr("cxr_fastai.trained.tensors.read_weights", None)
    refused(saved, match)

SETTINGS = dict(arm="real-meta", epochs=1)

@pytest.mark.parametrize("fields, match", [
    (dict(summary=dict(settings=[])), "summary is"), (dict(summary=dict(settings=dict(arm="x"))), "summary is"),
    (dict(summary=dict(settings=SETTINGS | dict(lr=[]))), "summary is"),
    (dict(summary=dict(test=dict(recall="high"))), "summary is"),
    (dict(summary=dict(test=dict(recall_low=.1))), "summary is"),
    (dict(summary=dict(a=float("inf"))), "holds Infinity"), (dict(training=dict(rows=-1)), "training is"),
    (dict(training=dict(last_epoch=dict(recall=[]))), "training is"), (dict(versions=dict(torch=2)), "versions is"),
    (dict(licence="\ud800"), "what json can't"),
    (dict(metadata=METADATA | dict(stats=dict(sex=["F", "F"], age=[0, 90]))), "metadata is"),
    (dict(metadata=METADATA | dict(stats=dict(sex=list(map(str, range(5000))), age=[0, 90]))), "metadata is"),
    (dict(summary=json.loads('{"a":' * 30 + "1" + "}" * 30)), "nested too deep")])
def test_a_card_is_checked_as_deep_as_it_is_read(saved, fields, match):
    change(saved, honest=True, **fields)
    refused(saved, match)

def test_a_name_that_stands_twice_is_refused(saved):
    text = (saved/"bundle.json").read_text()
    (saved/"bundle.json").write_text(text.replace("{", '{"threshold": 0.5,', 1))
    refused(saved, "a name twice")

@pytest.mark.slow
def test_mutants_are_refused_by_name_or_are_whole(rows, tmp_path):
    "`python tests/mutants.py 2000` tries more of them."
    found = list(mutants.run(rows, tmp_path/"m", 100))
    assert {o[1] for o in found} == {"refused", "accepted"} and sum(o[1] == "refused" for o in found) > 60
    assert max(o[2] for o in found) < 500 # MB

def test_what_is_no_bundle_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="is no bundle"): load_bundle(tmp_path)
    save_file(dict(a=torch.ones(2)), tmp_path/"a.safetensors")
    with pytest.raises(BundleError, match="holds no card"): load_bundle(tmp_path/"a.safetensors")
    save_file(dict(a=torch.ones(2)), tmp_path/"a.safetensors", dict(cxr_fastai="[" * 3_500_000))
    with pytest.raises(BundleError, match="at most"): load_bundle(tmp_path/"a.safetensors")
