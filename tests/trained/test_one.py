import base64, io, re
import numpy as np, pandas as pd, pytest
from PIL import Image
from cxr_fastai.data.loaders import RadiographDataLoaders
from cxr_fastai.models.learner import fusion_learner, image_learner, metadata_learner
from cxr_fastai.trained.bundle import load_bundle, save_bundle
from cxr_fastai.trained.explain import explain
from cxr_fastai.trained.one import OnePatient
from conftest import SIDE

pytest.importorskip("captum")

@pytest.fixture(scope="module")
def learn(rows, tmp_path_factory):
    dls = RadiographDataLoaders.from_df(rows, tmp_path_factory.mktemp("one"), size=SIDE, bs=8)
    return fusion_learner(dls, "test_resnet", weights="none", precision="fp32")

@pytest.fixture(scope="module")
def loaded(learn, tmp_path_factory):
    return load_bundle(save_bundle(learn, tmp_path_factory.mktemp("bundle")/"b", threshold=.4), "cpu")

ASKED = dict(age=61, sex="F", view="AP")

def shown(html): return re.sub(r"<style>.*?</style>", "", html, flags=re.S)

def test_it_says_what_predict_says_and_its_parts_make_the_whole(loaded, rows):
    found = loaded.explain_one(image=rows.file[0], **ASKED)
    label, _, prob = loaded.predict(image=rows.file[0], **ASKED)
    assert found.probability == prob[1].item() and found.decision == label and found.threshold == .4
    parts = dict(found.adds)
    film, metadata = parts.pop("the film, with no metadata"), parts.pop("all metadata")
    assert film + metadata == pytest.approx(found.log_odds) and set(parts) == {"sex F", "view AP", "age 61"}
    assert film == pytest.approx(loaded.explain_one(rows.file[0]).log_odds, abs=1e-6)
    assert parts["age 61"] == pytest.approx(
        found.log_odds - loaded.explain_one(image=rows.file[0], sex="F", view="AP").log_odds, abs=1e-6)

def test_its_parts_are_those_that_explain_finds_among_others(loaded, rows):
    some = rows[rows["split"] == "test"].head(5).drop(columns="split")
    table, row = explain(loaded, some).table, dict(some.iloc[2])
    found = loaded.explain_one(row)
    assert found.log_odds == pytest.approx(table.log_odds[2], abs=1e-5)
    assert found.adds[f"sex {row['sex']}"] == pytest.approx(table.knowing_sex[2], abs=1e-5)

def test_film_and_heat_are_of_this_patient(loaded, rows):
    found = loaded.explain_one(Image.open(rows.file[3]))
    assert np.allclose(found.film*255, np.asarray(Image.open(rows.file[3])), atol=.5)
    assert found.heat.shape == (SIDE, SIDE) and found.name == "" and np.isfinite(found.heat).all()
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)"', found._repr_html_())
    film, heat = (np.asarray(Image.open(io.BytesIO(base64.b64decode(o)))) for o in pictures)
    assert np.array_equal(film, np.asarray(Image.open(rows.file[3]))) and heat.shape == (SIDE, SIDE, 3)

@pytest.mark.parametrize("use, parts", [("image", {"the film"}),
                                        ("metadata", {"no metadata", "all metadata", "age 50"})])
def test_each_kind_of_learner_shows_itself(rows, tmp_path, use, parts):
    dls = RadiographDataLoaders.from_df(rows, tmp_path, size=SIDE, bs=8, use=use)
    learn = metadata_learner(dls) if use == "metadata" else image_learner(dls, "test_resnet", weights="none")
    found = learn.explain_one(age=50) if use == "metadata" else learn.explain_one(rows.file[0])
    assert set(found.adds) == parts and (found.film is None) == (use == "metadata")
    html = shown(found._repr_html_())
    assert html.count("<img") == 2*(use == "image") and "Not a medical device" in html and "Look twice" not in html
    assert f"{found.probability:.3f}" in html and f"{found.probability:.3f}" in repr(found)

def test_what_no_training_row_had_is_flagged(loaded, rows, tmp_path):
    Image.fromarray(np.full((SIDE, SIDE), 200, np.uint8)).save(tmp_path/"gray.png")
    with pytest.warns(UserWarning): found = loaded.explain_one(image=tmp_path/"gray.png", age=99, sex="odd")
    for o in ("sex 'odd' is none of F, M", "age 99 is outside of", "almost of one gray"): assert o in found.flag
    assert "Look twice" in found._repr_html_() and found.flag in repr(found)
    assert loaded.explain_one(image=rows.file[0], **ASKED).flag == ""

def test_no_name_is_html():
    odd = '<img src=x onerror="y">&'
    found = OnePatient(classes=("a", odd), probability=.5, threshold=.4, log_odds=0, words={}, adds={odd: -1., "b": 0.},
                       film=None, heat=None, flag=odd, name=odd)
    html = shown(found._repr_html_())
    assert "<img" not in html and html.count("&lt;img src=x") >= 6 and "NaN" not in html

@pytest.mark.parametrize("asked, match", [
    (dict(), "needs image=FILE"), (dict(image="x.png"), "x.png does not exist"),
    (dict(image="x.png", weight=3), "doesn't know weight"), (dict(row=["a.png", "b.png"]), "takes one row")])
def test_what_predict_refuses_is_refused(loaded, asked, match):
    with pytest.raises(ValueError, match=match): loaded.explain_one(**asked)

def test_a_model_without_a_number_has_no_explanation(learn, rows, monkeypatch):
    monkeypatch.setattr("cxr_fastai.trained.one.np.isfinite", lambda _: False)
    with pytest.raises(ValueError, match="No decision: the model gives no number"): learn.explain_one(rows.file[0])

def test_a_row_of_a_table_keeps_its_name(loaded, rows):
    row = pd.Series(dict(image="ward/<7>.png", file=rows.file[0], age=40.))
    assert "ward/&lt;7&gt;.png" in loaded.explain_one(row)._repr_html_()
