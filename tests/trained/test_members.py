import json
import numpy as np, pandas as pd, pytest, torch
from cxr_fastai.cohort.leaks import LeakError
from cxr_fastai.cohort.sampling import each_fold
from cxr_fastai.data.loaders import RadiographDataLoaders
from cxr_fastai.models.backbone import create_backbone
from cxr_fastai.models.learner import fusion_learner, image_learner, metadata_learner
from cxr_fastai.stats.operating import tempered
from cxr_fastai.trained.bundle import ensemble_of, load_bundle, read_card, save_bundle
from cxr_fastai.trained.card import BundleError
from cxr_fastai.trained.explain import explain
from cxr_fastai.trained.hub import model_card
from cxr_fastai.trained.onnx import _inputs, export_onnx, OnnxModel
from cxr_fastai.trained.predict import predict_patients
from cxr_fastai.trained.tensors import sha256_of
from cxr_fastai.trained.validate import validate
from conftest import make_rows, SIDE

MAKE = dict(image=image_learner, metadata=metadata_learner, both=fusion_learner)

@pytest.fixture(scope="module")
def folds(rows): return each_fold(rows, 3)

@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    "Other patients' films."
    rows = make_rows(tmp_path_factory.mktemp("elsewhere"), 9, seed=5)
    return rows.assign(patient_id=rows["patient_id"] + 10**6)

def make(rows, path, use="both", arch="test_resnet", size=SIDE, seed=0, **kwargs):
    dls = RadiographDataLoaders.from_df(rows, path, size=size, bs=8, use=use, tfms=[], seed=seed)
    return MAKE[use](dls, **({} if use == "metadata" else dict(arch=arch, weights="none", precision="fp32") | kwargs))

@pytest.fixture(scope="module")
def models(folds, tmp_path_factory):
    "A model of each fold."
    found = [make(o, tmp_path_factory.mktemp("fold")) for o in folds.values()]
    for o in found:
        with o.no_bar(), o.no_logging(): o.fit(1, 3e-3)
    return found

@pytest.fixture(scope="module")
def bundle(models, tmp_path_factory):
    return save_bundle(ensemble_of(models), tmp_path_factory.mktemp("b")/"all.safetensors")

def said(learn, rows):
    with learn.no_bar(): return learn.get_preds(dl=learn.dls.test_dl(rows))[0].double().numpy()

def mean(models, rows): return np.mean([said(o, rows) for o in models], 0)

def apart(a, b): return np.abs(np.asarray(a) - np.asarray(b)).max()

def test_one_file_gives_the_mean_of_its_members_at_every_door(models, bundle, elsewhere, tmp_path):
    learn, wanted = load_bundle(bundle), mean(models, elsewhere)
    assert np.ptp([said(o, elsewhere)[:, 1] for o in models], 0).max() > .01
    assert len({str(o.dls.metadata.stats) for o in models}) > 1 # each encodes as its own rows were
    assert apart(said(learn, elsewhere), wanted) < 1e-6
    assert [o.name for o in bundle.parent.iterdir()] == ["all.safetensors"]
    elsewhere.to_csv(tmp_path/"n.csv", index=False)
    table = pd.read_csv(predict_patients(bundle, tmp_path/"n.csv", tmp_path/"o.csv"))
    assert apart(table["probability"], wanted[:, 1]) < 1e-6
    assert float(learn.predict(elsewhere.iloc[0])[2][1]) == pytest.approx(wanted[0, 1], abs=1e-6)
    found = explain(learn, elsewhere, max_figures=1)
    assert apart(found.table["probability"], wanted[:, 1]) < 1e-6
    assert apart(found.table["log_odds"], np.log(wanted[:, 1]/wanted[:, 0])) < 1e-4
    assert found.heat.shape == explain(models[0], elsewhere).heat.shape
    assert {"from_image", "from_metadata", "knowing_age", "border_heat"} <= {*found.table}
    validated = validate(learn, elsewhere, n=20)
    assert apart(validated.predictions["probability"], wanted[:, 1]) < 1e-6
    text = model_card(bundle)
    assert "members: 3 models, whose mean it is" in text and "of one member, on average" in text

def test_onnx_gives_it_too(models, elsewhere, tmp_path):
    learn = ensemble_of(models[:2])
    net = OnnxModel(export_onnx(learn, tmp_path/"m.onnx", elsewhere))
    assert apart(net(*[o.numpy() for o in _inputs(learn, elsewhere)]), mean(models[:2], elsewhere)) < 1e-6
    assert net.card["members"] == learn.card["members"] and net.card["threshold"] == .5

@pytest.mark.parametrize("kwargs", [
    dict(use="image"), dict(use="metadata"), dict(fusion="gated", precision="bf16"),
    dict(precision="bf16", arch="test_vit", fusion="attention")], ids=str)
def test_members_of_every_shape(folds, elsewhere, tmp_path, kwargs):
    models = [make(folds[i], tmp_path, seed=i, **kwargs) for i in (0, 1)]
    learn = load_bundle(save_bundle(ensemble_of(models), tmp_path/"b"))
    assert apart(said(learn, elsewhere), mean(models, elsewhere)) < 1e-6
    assert apart(explain(learn, elsewhere.head(3)).table["probability"], mean(models, elsewhere.head(3))[:, 1]) < 1e-6
    again = save_bundle(learn, tmp_path/"again")
    assert read_card(again) == read_card(tmp_path/"b")

def test_one_member_and_members_from_files(models, elsewhere, tmp_path):
    one = ensemble_of([save_bundle(models[1], tmp_path/"one")])
    assert apart(said(load_bundle(save_bundle(one, tmp_path/"b")), elsewhere), said(models[1], elsewhere)) < 1e-6
    both = ensemble_of([tmp_path/"one", models[0]])
    assert apart(said(both, elsewhere), mean(models[:2], elsewhere)) < 1e-6

def test_a_members_own_temperature_counts_and_so_does_the_bundles(models, elsewhere, tmp_path):
    models[0].temperature = 3.
    try: learn, wanted = ensemble_of(models), mean(models, elsewhere)
    finally: models[0].temperature = 1.
    assert apart(said(learn, elsewhere), wanted) < 1e-6
    learn.temperature = 2.
    again = load_bundle(save_bundle(learn, tmp_path/"b", .4))
    assert apart(said(again, elsewhere)[:, 1], tempered(wanted[:, 1], 2)) < 1e-6 and again.threshold == .4

def test_a_backbone_that_all_have_is_kept_once(rows, elsewhere, tmp_path):
    body = create_backbone("test_resnet", "none", SIDE)
    models = [make(rows, tmp_path, arch=body, seed=i) for i in (0, 1)]
    for o in models: o.settings |= dict(arch="test_resnet")
    file = save_bundle(learn := ensemble_of(models), tmp_path/"b.safetensors")
    one = save_bundle(models[0], tmp_path/"a.safetensors")
    assert file.stat().st_size < 1.2*one.stat().st_size and learn.card["backbones"] == 1
    assert apart(said(load_bundle(file), elsewhere), mean(models, elsewhere)) < 1e-6
    again = create_backbone("test_resnet", str(file), SIDE).state_dict()
    assert all(torch.equal(again[k], o) for k, o in body.state_dict().items())

def test_backbones_of_several_are_no_first_weights(bundle):
    with pytest.raises(ValueError, match="holds 3 such networks"): create_backbone("test_resnet", str(bundle), SIDE)

def test_whoever_any_member_was_trained_on_is_refused(models, bundle, folds):
    learn, seen = load_bundle(bundle), set()
    for o in folds.values():
        train = o[o["split"] == "train"].drop(columns="split")
        seen |= set(train["image"])
        with pytest.raises(LeakError, match="was trained on"): validate(learn, train.head(9))
        assert learn.seen.hits(train.drop(columns="patient_id"), models[0].dls.hashes(train)).all() # by film, too
    assert len(seen) > (folds[0]["split"] == "train").sum() # than one model's
    assert [*learn.seen.hits(folds[0])] == [*folds[0]["image"].isin(seen)]

def test_nothing_is_chosen_on_the_members_test_rows(rows, tmp_path):
    models = [make(rows, tmp_path, "metadata", seed=i) for i in (0, 1)]
    for o in models:
        with o.no_bar(), o.no_logging(): o.fit(1)
    learn, side = ensemble_of(models), {o: rows[rows["split"] == o] for o in ("train", "valid", "test")}
    for o in side["test"], side["test"].assign(split="valid"), side["train"].assign(split="valid"), rows:
        for how in dict(threshold="specificity=.9"), dict(calibrate="temperature"):
            with pytest.raises(LeakError): save_bundle(learn, tmp_path/"no", valid=o, **how)
    card = read_card(save_bundle(learn, tmp_path/"b", "specificity=.9", valid=side["valid"]))
    assert card["chosen"]["rows"] == len(side["valid"]) and "side" not in card["chosen"]
    assert not (tmp_path/"no").exists()

@pytest.mark.parametrize("other, why", [
    (dict(size=40), "size of images must be one, and is 48, 40"), (dict(use="image"), "inputs must be one"),
    (dict(arch="resnet10t"), "backbone must be one, and is test_resnet, resnet10t"),
    (dict(fusion="film"), "fusion must be one"), (dict(precision="bf16"), "precision must be one")])
def test_members_that_differ_are_refused_in_one_sentence(models, rows, tmp_path, other, why):
    with pytest.raises(BundleError, match=why) as e: ensemble_of([models[0], make(rows, tmp_path, **other)])
    assert "\n" not in str(e.value)

def test_what_makes_no_bundle_is_refused(models, bundle, tmp_path):
    with pytest.raises(BundleError, match="1 to 100 members, and 0 were given"): ensemble_of([])
    with pytest.raises(BundleError, match="bundle of several itself"): ensemble_of([bundle, models[0]])
    models[0].threshold = .3
    try:
        with pytest.raises(ValueError, match="thresholds differ .0.3, 0.5."): ensemble_of(models)
        assert ensemble_of(models, .4).threshold == .4
    finally: models[0].threshold = .5
    with pytest.raises(ValueError, match="has no training rows"): load_bundle(bundle).fit(1)

@pytest.mark.parametrize("change, why", [
    (lambda c: c["members"][1].pop("metadata"), "member 1 of the card lacks 'metadata'"),
    (lambda c: c["members"][1].update(normalisation=dict(mean=.4, std=.2, range=[-2, 3])), "normalisation isn't"),
    (lambda c: c["members"][2].update(temperature=0), "member 2 of the card: temperature is 0"),
    (lambda c: c["members"][0].update(arch="resnet50"), "unknown arch"), (lambda c: c.update(members=[]), "members is"),
    (lambda c: c.update(members=[1]), "member 0 of the card is 1"),
    (lambda c: c.update(backbones=2), "2 backbones for 3"), (lambda c: c.update(backbones=1), "doesn't fit"),
    (lambda c: c.pop("backbones"), "lacks 'backbones'"),
    (lambda c: c.pop("members"), "unknown backbones"), (lambda c: c["members"].pop(), "3 backbones for 2"),
    (lambda c: c["members"][0]["metadata"].update(cat_names=["sex"]), "member 0 of the card: metadata is"),
    (lambda c: c["metadata"]["stats"].pop("sex"), "metadata is")])
def test_a_card_of_other_members_is_refused(models, tmp_path, change, why):
    folder = save_bundle(ensemble_of(models), tmp_path/"b")
    from safetensors.torch import load_file
    card = read_card(folder)
    change(card)
    card["sha256"] = sha256_of(card, load_file(folder/"model.safetensors"))
    (folder/"bundle.json").write_text(json.dumps(card))
    with pytest.raises(BundleError, match=why): load_bundle(folder)
