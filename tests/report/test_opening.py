from types import SimpleNamespace
import numpy as np, pandas as pd, pytest
from cxr_fastai.report.html import Page
from cxr_fastai.report.opening import _ends, about_study, opening, study_title

SETTINGS = dict(positive="Tuberculosis", negative="<No>", data="path/to/mine.csv", arms=["real", "meta"],
                backbones=["net"], seeds=[0], cat_names=["sex"], cont_names=["age"])

def study_of(rows, folder, prob, arms=("real", "meta"), **settings):
    "A study's files: what each arm says of the test films is `prob`, and a little more an arm."
    test = rows[rows["split"] == "test"].head(len(prob))
    about = pd.DataFrame(dict(backbone="net", seed=0, side="test", image=test["image"].array, synthetic=False,
                              label=(test["label"] == "Pneumonia").astype(int).array))
    said = pd.concat([about.assign(arm=o, probability=np.array(prob) + .01*i) for i, o in enumerate(arms)])
    titles = {"real": "Real", "meta": "Meta"}
    metrics = pd.DataFrame([dict(backbone="net", arm=titles[o], rocauc="0.700 [0.600, 0.800] sd 0.010",
                                 recall="-", specificity="0.9 [-]") for o in arms])
    table1 = pd.DataFrame([{"Model": "net"} | {k: w for o in arms for k, w in (
        (titles[o], "0.5000 [0.40, 0.60]"), (f"{titles[o]} procedure", "[-]"))}])
    return SimpleNamespace(folder=folder/"study-1", out=folder, settings=SETTINGS | settings, rows=rows, plan=None,
                           predictions=said, metrics=metrics, table1=table1, table=lambda name: None,
                           comparisons=pd.DataFrame(columns=["backbone", "before", "after"]),
                           cells=pd.DataFrame(dict(error=[None, "x"])))

def opened(study):
    page = Page(study.folder/"figures")
    opening(study, page)
    return {o["anchor"]: o["parts"] for o in page.sections}

def test_what_it_is_about(rows, tmp_path):
    study = study_of(rows, tmp_path, [.5])
    assert study_title(study.settings) == "Tuberculosis against <No>"
    data, asked = about_study(study)
    test = rows[rows["split"] == "test"]
    who = test["patient_id"].nunique()
    assert data == f"mine.csv: 80 films of 64 patients; in test {len(test)} films of {who} patients"
    assert asked == "2 arms, 1 backbone, 1 seed" # no time is known
    study.plan = dict(time="2026-03-01T10:00:00+00:00", primary=None)
    assert about_study(study)[1].endswith("; planned on 1 March 2026")
    pd.DataFrame(dict(time=["2026-03-02T10:00:00+00:00", "2026-03-09T10:00:00+00:00"],
                      study=["study-1", "other"])).to_csv(tmp_path/"ledger.csv", index=False)
    assert about_study(study)[1].endswith("; results of 2 March 2026")
    assert about_study(study_of(rows, tmp_path, [.5], data="", folds=5))[0].startswith("a table: 80 films")

def test_films_are_the_middle_ones_of_each_case(rows, tmp_path):
    test = rows[rows["split"] == "test"]
    ill = np.flatnonzero(test["label"] == "Pneumonia")[:3]
    prob = np.full(len(test), .2)
    prob[ill] = .6, .9, .7
    study = study_of(rows, tmp_path, prob, arms=("real",))
    text, films = opened(study)["four-films"]
    titles = [o["title"] for o in films["films"]]
    assert len(titles) == 4 and titles[0] == "Tuberculosis, found" and titles[-1] == "<No>, cleared"
    assert "<No>, called wrongly" not in titles # there is none
    assert len({o["source"] for o in films["films"]}) == 4
    assert films["films"][0]["caption"].startswith(test["image"].iloc[ill[2]]) and "sex" in films["films"][0]["caption"]
    assert films["films"][0]["panel"]["groups"][0]["rows"][0]["words"] == "0.700"
    assert "mean over seeds" not in text["text"] and "a dot a backbone" not in text["text"]

def test_a_film_that_has_gone_is_said(rows, tmp_path):
    lost = rows.assign(file=[str(tmp_path/o) for o in rows["image"]])
    first, *others = opened(study_of(lost, tmp_path, np.full(5, .9), arms=("real",)))["four-films"]
    assert others and all(o["shape"] == "text" and "can't be shown: " in o["text"] for o in others)

def test_without_differences_or_probes_there_are_areas(rows, tmp_path):
    parts = opened(study_of(rows, tmp_path, np.full(5, .9)))
    panel, = parts["roc-auc-by-arm"][0]["panels"]
    assert [o["label"] for o in panel["groups"][0]["rows"]] == ["Real", "Meta"]
    assert parts["verdict"][-1]["text"].startswith("1 cell of 2 failed")
    heads = parts["table-1"][0]["heads"]
    assert heads == ["arm", "recall", "procedure", "gain", "ROC-AUC", "specificity"]

@pytest.mark.parametrize("words, ends", [
    ("0.846 [0.770, 0.899] sd 0.005", (.846, .77, .899)), ("-0.1 [-]", (-.1, np.nan, np.nan)), ("-", (np.nan,)*3)])
def test_a_value_in_words_is_read_with_its_ends(words, ends):
    assert _ends(words) == pytest.approx(ends, nan_ok=True)
