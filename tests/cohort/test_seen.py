import json
import numpy as np, pandas as pd, pytest, torch
from fastai.learner import load_learner
from cxr_fastai.trained.bundle import load_bundle, save_bundle
from cxr_fastai.cohort.sampling import split_patients
from cxr_fastai.data.loaders import RadiographDataLoaders
from cxr_fastai.models.learner import image_learner
from cxr_fastai.cohort.leaks import LeakError
from cxr_fastai.cohort.seen import Seen, seen_fits

def table(ids): return pd.DataFrame(dict(image=[f"{o}.png" for o in ids], patient_id=ids))

def hashed(n, seed): return np.random.default_rng(seed).integers(0, 2**63, (n, 4)).astype(np.uint64)

def test_patients_and_films_are_known_again_through_a_card():
    seen, films = Seen(), hashed(3, 0)
    seen.add(table(["0013", "B", "C"]), films)
    seen.add(table(["0013", "B", "C"]), films)
    seen.add(table(["D"]))
    again = Seen.from_card(json.loads(json.dumps(seen.card())))
    assert len(again.groups) == 2 and again.known and again.card() == seen.card()
    assert again.hits(table([13, "E", "D", "F"]), np.concatenate([hashed(3, 1), films[:1]])).tolist() == [1, 0, 1, 1]
    assert not Seen().hits(table(["B"])).any() and not Seen.from_card(None).known
    text = json.dumps(seen.card())
    assert "0013" not in text and films[0].tobytes().hex() not in text

@pytest.mark.parametrize("wrong", [
    None, [], dict(known=True), dict(known=1, groups=[]),
                                   dict(known=True, groups=[dict(salt="x", patients="", films="")]),
    dict(known=True, groups=[dict(salt="0"*32, patients="AAAA", films="")]),
    dict(known=True, groups=[dict(salt="0"*32, patients="?", films="")])])
def test_a_damaged_list_is_refused(wrong): assert not seen_fits(wrong)

@pytest.fixture(scope="module")
def trained(rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("seen")
    dls = RadiographDataLoaders.from_df(rows, folder, size=32, bs=16, use="image", tfms=[])
    learn = image_learner(dls, "resnet10t", weights="none", precision="fp32")
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    return learn, folder

def loaders(rows, folder, **kwargs):
    return RadiographDataLoaders.from_df(rows, folder, size=32, bs=16, use="image", tfms=[], **kwargs)

WORDS = "was trained on .* patients that aren't in train"

def test_a_fitted_learner_is_never_scored_on_what_it_saw(trained, rows):
    learn, folder = trained
    other = split_patients(rows, seed=5)
    test = other[other["split"] == "test"]
    with learn.no_bar():
        learn.get_preds(dl=learn.dls.test_dl(rows[rows["split"] == "test"], with_labels=True))
        with pytest.raises(LeakError, match=WORDS): learn.dls.test_dl(test, with_labels=True)
        with pytest.raises(LeakError, match=WORDS):
            learn.get_preds(dl=loaders(other, folder).test_dl(test, with_labels=True))
        renamed = test.assign(patient_id=[f"new {i}" for i in range(len(test))])
        with pytest.raises(LeakError, match=WORDS): learn.get_preds(dl=learn.dls.test_dl(renamed, with_labels=True))
        learn.get_preds(dl=learn.dls.test_dl(test)) # to predict is no score
    own, learn.dls = learn.dls, loaders(other, folder)
    with pytest.raises(LeakError, match=WORDS): learn.fit(1)
    learn.dls = own

def test_an_exported_learner_is_scored_on_others_alone(trained, rows, tmp_path):
    learn, folder = trained
    learn.export(tmp_path/"it.pkl")
    again, other = load_learner(tmp_path/"it.pkl"), split_patients(rows, seed=5)
    with again.no_bar():
        again.get_preds(dl=again.dls.test_dl(rows[rows["split"] == "test"], with_labels=True))
        with pytest.raises(LeakError, match=WORDS):
            again.get_preds(dl=again.dls.test_dl(other[other["split"] == "test"], with_labels=True))

def test_a_bundle_knows_too(trained, rows, tmp_path):
    learn, _ = trained
    again = load_bundle(save_bundle(learn, tmp_path/"b"))
    train = rows[rows["split"] == "train"].drop(columns="split")
    with pytest.raises(LeakError, match=WORDS): again.dls.test_dl(train, with_labels=True)
    renamed = train.assign(patient_id=[f"new {i}" for i in range(len(train))])
    with pytest.raises(LeakError, match=WORDS): again.dls.test_dl(renamed, with_labels=True)
    with again.no_bar(): again.get_preds(dl=again.dls.test_dl(rows[rows["split"] == "test"], with_labels=True))
    assert "seen" not in load_bundle(save_bundle(learn, tmp_path/"c", seen=False)).card

@pytest.mark.parametrize("kind", ["folder", "file", "saved"])
def test_weights_know_too(trained, rows, tmp_path, kind):
    learn, _ = trained
    file = dict(folder=lambda: save_bundle(learn, tmp_path/"b"),
                file=lambda: save_bundle(learn, tmp_path/"b.safetensors"),
                saved=lambda: learn.save(tmp_path/"mine", with_opt=False))[kind]()
    same, other = (loaders(o, tmp_path) for o in (rows, split_patients(rows, seed=5)))
    with pytest.raises(LeakError, match=WORDS): image_learner(other, "resnet10t", weights=str(file), precision="fp32")
    again = image_learner(same, "resnet10t", weights=str(file), precision="fp32")
    assert again.seen.card() == learn.seen.card()
    for name, o in learn.model.backbone.body.state_dict().items():
        assert torch.equal(again.model.backbone.body.state_dict()[name], o), name

def test_weights_of_unknown_making_are_said(trained, rows, tmp_path):
    learn, _ = trained
    file = learn.save(tmp_path/"mine", with_opt=False)
    (tmp_path/"mine.seen.json").unlink()
    with pytest.warns(UserWarning, match="mine.pth: which patients .* isn't known") as said:
        again = image_learner(loaders(rows, tmp_path), "resnet10t", weights=str(file), precision="fp32")
        image_learner(loaders(rows, tmp_path), "resnet10t", weights=str(file), precision="fp32")
    assert sum("isn't known" in str(o.message) for o in said) == 1 # once, whatever asks again
    assert not again.seen.known and not load_bundle(save_bundle(again, tmp_path/"b")).seen.known
