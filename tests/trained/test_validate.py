import numpy as np, pandas as pd, pytest
from PIL import Image
from cxr_fastai.cli import main
from cxr_fastai.cohort.leaks import LeakError
from cxr_fastai.data.loaders import RadiographDataLoaders
from cxr_fastai.models.learner import image_learner
from cxr_fastai.stats.scoring import scores
from cxr_fastai.trained.bundle import load_bundle, save_bundle
from cxr_fastai.trained.validate import validate
from conftest import make_rows

@pytest.fixture(scope="module")
def bundle(rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("bundle")
    dls = RadiographDataLoaders.from_df(rows, path, size=32, bs=8, use="image", tfms=[])
    learn = image_learner(dls, "test_resnet", weights="none", precision="fp32")
    with learn.no_bar(), learn.no_logging(): learn.fit_one_cycle(10, 1e-2)
    return save_bundle(learn, path/"b", threshold="specificity=.8")

@pytest.fixture
def learn(bundle): return load_bundle(bundle)

@pytest.fixture(scope="module")
def others(tmp_path_factory):
    "120 patients of two sites, whom no model has seen."
    table = make_rows(tmp_path_factory.mktemp("others"), 120, seed=5)
    return table.assign(patient_id=table.patient_id + 1000, site=np.array(["é", "B"])[table.patient_id % 2])

def names(found): return {o.split(":")[0] for o in found.findings}

def test_figures_are_scores_at_the_frozen_threshold(learn, others, tmp_path):
    found = validate(learn, others, "site", n=100)
    table, said = found.figures.set_index("figure"), found.predictions
    with learn.no_bar(): prob = learn.get_preds(dl=learn.dls.test_dl(others))[0][:, 1].numpy()
    assert (said.probability == prob).all() and table["value"]["threshold"] == learn.threshold
    own = scores(said.label == "Pneumonia", prob, said.patient_id, learn.threshold)
    assert all(table["value"][k] == own[k] for k in own if k in table.index) and own["rocauc"] > .9
    assert table["value"]["specificity_wanted"] == .8 and table["value"]["share_unlike"] < .1
    at = found.sites.set_index(["site", "figure"])["value"]
    for s in "é", "B":
        here = said[said.site == s]
        assert at[s, "recall"] == scores(here.label == "Pneumonia", here.probability, None, learn.threshold)["recall"]
    assert not {"Prior shift", "Brightness shift", "Flipped labels", "Unlike films"} & names(found)
    page = found.save(tmp_path/"v").read_text()
    assert all(o in page for o in ("What is wrong", "Sites", "random effects", "Probabilities"))
    assert len(pd.read_csv(tmp_path/"v"/"predictions.csv")) == len(others)
    assert (tmp_path/"v"/"figures"/"histogram.png").exists()
    again = validate(learn, others, n=50)
    again.save(tmp_path/"v")
    assert not (tmp_path/"v"/"sites.csv").exists() and again.sites is None

def test_a_planted_prior_shift_is_named(learn, others):
    ill = (others.label == "Pneumonia").to_numpy()
    few = others[~ill | (np.cumsum(ill) <= 5)]
    assert "Prior shift" in names(validate(learn, others[ill | (np.cumsum(~ill) <= 12)], n=20))
    assert "Prior shift" in names(validate(learn, few, n=20)) and "Few patients" in names(validate(learn, few, n=20))

def test_planted_flipped_labels_are_named(learn, others):
    label = others.label.cat
    flipped = others.assign(label=pd.Categorical.from_codes(1 - label.codes, label.categories, ordered=True))
    found = validate(learn, flipped, n=20)
    assert "Flipped labels" in names(found) and "Prior shift" not in names(found)

@pytest.mark.parametrize("change, word", [(lambda o: o + 70, "brighter"), (lambda o: o*.5, "darker")])
def test_a_planted_brightness_shift_is_named(learn, others, tmp_path, change, word):
    some = others.head(80).copy()
    for i, row in some.iterrows():
        pixels = np.asarray(Image.open(row.file)).astype(float)
        Image.fromarray(change(pixels).clip(0, 255).astype(np.uint8)).save(tmp_path/row.image)
        some.loc[i, "file"] = str(tmp_path/row.image)
    found = validate(learn, some, n=20)
    assert "Brightness shift" in names(found) and word in " ".join(found.findings)

def test_patients_and_films_of_training_are_refused_or_left_out(learn, rows, others, tmp_path, capsys):
    train = rows[rows.split == "train"].head(4)
    other_ids = train.assign(patient_id=np.arange(4) + 99) # the same films under other ids
    for planted in train, train.drop(columns="split"), other_ids, train.drop(columns="patient_id"):
        mixed = pd.concat([others.head(60), planted], ignore_index=True)
        with pytest.raises(LeakError, match="was trained on 4 of these 6. films"): validate(learn, mixed)
        found = validate(learn, mixed, leave_out=True, n=20)
        assert len(found.predictions) == 60 and "4 of 64 films are left out" in capsys.readouterr().out
    with pytest.raises(ValueError, match="No row with a label is left"): validate(learn, train, leave_out=True)

def test_what_cannot_be_validated_is_one_sentence(learn, rows, others, tiny_learner):
    with pytest.raises(ValueError, match="takes the learner of a bundle"): validate(tiny_learner(), others)
    with pytest.raises(ValueError, match="have no labels"): validate(learn, others.drop(columns="label"))
    with pytest.raises(ValueError, match="'ward' is no column"): validate(learn, others, "ward")
    with pytest.raises(ValueError, match="No row with a label"): validate(learn, others.iloc[:0])
    with pytest.raises(ValueError, match="--site: 'ward' is no column"): validate(learn, others, "ward")
    one = validate(learn, others[others.label == "Normal"], n=20)
    assert "One class" in names(one) and "recall_refitted" not in set(one.figures.figure)

def test_metadata_that_most_rows_lack_is_named(rows, others, tmp_path):
    from cxr_fastai.models.learner import metadata_learner
    learn = metadata_learner(RadiographDataLoaders.from_df(rows, tmp_path, bs=8, use="metadata"))
    learn = load_bundle(save_bundle(learn, tmp_path/"b"))
    assert not any("Missing" in o for o in validate(learn, others, n=20).findings)
    lacking = validate(learn, others.drop(columns="view").assign(age=np.nan), n=20)
    assert lacking.findings[0].endswith("have no view, age.") and lacking.figures.set_index("figure").index.is_unique

def test_the_verb_takes_any_table_and_writes_a_page(bundle, others, rows, tmp_path, capsys):
    table = others.assign(tb=(others.label == "Pneumonia")*1).drop(columns="label")
    table.to_csv(tmp_path/"theirs.csv", index=False)
    words = ["validate", str(bundle), "--data", str(tmp_path/"theirs.csv"), "--image", "file", "--patient",
             "patient_id", "--label", "tb", "--positive", "1", "--site", "site", "--out", str(tmp_path/"out")]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "at the carried threshold" in said and "is taken for Pneumonia" in said and "validation.html" in said
    assert (tmp_path/"out"/"validation.html").exists()
    assert set(pd.read_csv(tmp_path/"out"/"sites.csv").site) > {"é", "B"}
    assert main(["validate", str(bundle)]) == 1 and "--data names the rows" in capsys.readouterr().err
    assert main([*words[:-4], "--site", "ward"]) == 1 and "'ward'" in capsys.readouterr().err
    rows.to_csv(tmp_path/"mine.csv", index=False)
    words = ["validate", str(bundle), "--data", str(tmp_path/"mine.csv"), "--image", "file", "--label", "label"]
    assert main([*words, "--patient", "patient_id", "--positive", "Pneumonia"]) == 1
    assert "was trained on" in capsys.readouterr().err
