import json
import numpy as np, pandas as pd, pytest
from cxr_fastai.cli import main
from cxr_fastai.cohort.leaks import LeakError
from cxr_fastai.cohort.rows import save_rows
from cxr_fastai.report.page import report
from cxr_fastai.stats.scoring import scores
from cxr_fastai.study.run import run_study
from conftest import make_rows

TINY = dict(backbones="test_resnet", size=32, epochs=1, bs=16, weights="none", split_seed=0)

@pytest.fixture(scope="module")
def place(tmp_path_factory): return tmp_path_factory.mktemp("é place")

@pytest.fixture(scope="module")
def mine(place):
    (place/"mine").mkdir()
    save_rows(make_rows(place/"mine", 90), place/"mine.csv")
    return str(place/"mine.csv")

@pytest.fixture(scope="module")
def others(place):
    (place/"theirs").mkdir()
    table = make_rows(place/"theirs", 80, seed=5)
    return table.assign(patient_id=table.patient_id + 1000, image="x" + table.image,
                        ward=np.array(["A", "B"])[table.patient_id % 2])

@pytest.fixture(scope="module")
def theirs(place, others):
    save_rows(others, place/"theirs.csv")
    return str(place/"theirs.csv")

@pytest.fixture(scope="module")
def lacking(place, others):
    save_rows(others.drop(columns=["view", "age"]).assign(sex="F"), place/"lacking.csv")
    return str(place/"lacking.csv")

@pytest.fixture(scope="module")
def asked(place, mine): return dict(**TINY, arms="real,real-meta", seeds="0,1", data=mine, out=str(place/"runs"))

@pytest.fixture(scope="module")
def study(asked, theirs, lacking): return run_study(**asked, external=f"rural={theirs},b={lacking}", groups="sex")

def test_the_studys_tables_are_made_of_rows_from_elsewhere(study, others):
    folder = study/"external"/"rural"
    said, table = pd.read_csv(folder/"predictions.csv"), pd.read_csv(folder/"scores.csv")
    assert len(said) == 4*len(others) and set(said.image) == set(others.image)
    means = table.set_index(["arm", "metric"])["mean"]
    for arm, own in said.groupby("arm"):
        each = [scores(o.label, o.probability, o.patient_id) for _, o in own.groupby("seed")]
        for k in "recall", "specificity", "rocauc", "brier":
            assert means[arm, k] == pytest.approx(np.mean([o[k] for o in each]), abs=1e-9)
    both, inside = (pd.read_csv(o) for o in (folder/"inside_outside.csv", study/"scores.csv"))
    both, inside = both.set_index(["arm", "metric"]), inside.set_index(["arm", "metric"])["mean"]
    assert both["inside"]["real", "rocauc"] == pytest.approx(inside["real", "rocauc"])
    assert both["outside"]["real", "recall_at_90"] == pytest.approx(means["real", "recall_at_90"])
    valid = pd.read_csv(study/"predictions.csv").query("side == 'valid' and arm == 'real' and label == 0")
    at = {s: np.sort(o.probability)[int(np.ceil(.9*len(o) - 1e-9)) - 1] for s, o in valid.groupby("seed")} # frozen
    ill = said[(said.arm == "real") & (said.label == 1)]
    assert means["real", "recall_at_90"] == pytest.approx(np.mean([(o.probability > at[s]).mean()
                                                                  for s, o in ill.groupby("seed")]))
    assert both["outside"].notna()["real-meta", "recall_refitted"] and (folder/"comparisons.md").exists()
    probes = pd.read_csv(folder/"shortcuts.csv").set_index("shortcut")
    assert probes["outside"].notna()["16 x 16 thumbnail"] and probes["inside"].notna()["metadata alone"]

def test_it_is_said_reported_and_run_again_by_its_settings(study, theirs, lacking, capsys):
    assert json.loads((study/"settings.json").read_text())["external"] == [f"rural={theirs}", f"b={lacking}"]
    page = report(study).read_text()
    assert all(o in page for o in ("Elsewhere: rural", "Elsewhere: b", "best inside test_resnet",
                                         "AUC of probes that see no disease"))
    assert (study/"figures"/"external-rural-test_resnet-real.png").exists()
    before = (study/"external"/"rural"/"scores.csv").stat().st_mtime_ns
    assert main(["rerun", str(study)]) == 0 and "rural, elsewhere: best inside" in capsys.readouterr().out
    assert (study/"external"/"rural"/"scores.csv").stat().st_mtime_ns == before

def test_sites_are_columns_of_groups_and_without_external_nothing_stays(study, asked):
    sites = pd.read_csv(study/"external"/"rural"/"sites.csv")
    assert set(sites.site) == {"F", "M", "all, random effects"} and set(sites.column) == {"sex"}
    assert not (run_study(**asked)/"external").exists()

def test_folds_are_asked_too(place, mine, theirs, others):
    folder = run_study(**TINY, arms="meta", seeds="0", folds=3, data=mine, out=str(place/"folds"),
                       external=f"rural={theirs}")
    said = pd.read_csv(folder/"external"/"rural"/"predictions.csv")
    assert len(said) == 3*len(others) and set(said.fold) == {0, 1, 2}
    table = pd.read_csv(folder/"external"/"rural"/"scores.csv").set_index("metric")
    assert table["n"]["rocauc"] == len(others) and 0 <= table["mean"]["rocauc"] <= 1

@pytest.mark.parametrize("given, why", [
    ("rural", "write NAME=TABLE"), ("=x.csv", "write NAME=TABLE"), ("a/b=x.csv", "write NAME=TABLE"),
    ("a={theirs},a={theirs}", "names a twice"), ("a=nowhere.csv", "nowhere.csv"), ("a={mine}", "in the study itself")])
def test_what_is_wrong_is_said_before_the_first_cell(tmp_path, mine, theirs, given, why):
    with pytest.raises((ValueError, FileNotFoundError), match=why):
        run_study(**TINY, arms="meta", seeds="0", data=mine, out=str(tmp_path), external=given.format(**locals()))
    assert not list(tmp_path.glob("cells/*"))

def test_the_same_films_under_other_ids_are_refused(tmp_path, mine, place, others):
    own = pd.read_csv(mine)
    planted = others.copy()
    planted.loc[0, "file"] = own.file[3]
    save_rows(planted, place/"planted.csv")
    with pytest.raises(LeakError, match=f"1 of its {len(others)} films"):
        run_study(**TINY, arms="real", seeds="0", data=mine, out=str(tmp_path), external=f"a={place/'planted.csv'}")
    twice = pd.concat([others, others.head(1)], ignore_index=True)
    save_rows(twice, place/"twice.csv")
    with pytest.raises(ValueError, match="stands twice"):
        run_study(**TINY, arms="real", seeds="0", data=mine, out=str(tmp_path), external=f"a={place/'twice.csv'}")
