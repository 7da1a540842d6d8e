import json
import numpy as np, pandas as pd, pytest
from sklearn.metrics import roc_auc_score
from cxr_fastai.cli import main
from cxr_fastai.core.files import read_json
from cxr_fastai.core.tuned import choices
from cxr_fastai.models.learner import RadiographLearner
from cxr_fastai.report import page
from cxr_fastai.settings import plan_from, plan_of
from cxr_fastai.stats.ledger import looks, read_plan
from cxr_fastai.study import cell as room
from cxr_fastai.study.cell import CellError
from cxr_fastai.study.grid import Study
from cxr_fastai.study.tune import Search, trials_of, tuned_plan

pytest.importorskip("optuna")
TINY = dict(backbones="test_resnet", arms="real,real-meta", size=40, epochs=1, bs=16, weights="none", mode="probe")
CHOSEN = ["lr", "epochs", "ps", "fusion"]

def plan(n=3, **kwargs): return plan_of(**TINY | dict(tune=n, primary="real-meta,real") | kwargs)

def tried(plan, out): return trials_of(plan, out)[[*CHOSEN, "rocauc"]]

@pytest.fixture(scope="module")
def out(tmp_path_factory): return tmp_path_factory.mktemp("runs")

@pytest.fixture(scope="module")
def tuned(rows, out): return tuned_plan(plan(13), rows, out)

def test_the_best_trial_by_valid_rows_trains_every_arm(tuned, rows, out):
    table, chosen = trials_of(tuned, out), choices(tuned.training.tuned)["test_resnet"]
    best = table.loc[table["rocauc"].idxmax()]
    assert len(table) == 13 and (table["chosen"] == "yes").tolist() == (table.index == best.name).tolist()
    assert set(table["arm"]) == {"real-meta"} and "attention" not in set(table["fusion"])
    assert best[CHOSEN].to_dict() == {o: chosen[o] for o in CHOSEN}
    assert table.loc[0, CHOSEN].tolist() == [3e-3, 1, .5, "concat"] # as they were given
    assert table["lr"].between(3e-4, 3e-2).all() and set(table["epochs"]) == {1, 2} and table["ps"].between(0, .8).all()
    assert table["lr"].nunique() == table["ps"].nunique() == 13
    for c in Study(rows, tuned, out).cells.values():
        assert {o: c.settings[o] for o in CHOSEN if o in c.settings} == {
            o: chosen[o] for o in CHOSEN if o != "fusion" or c.arm.use == "both"}
        assert (c.plan.training.lr, c.plan.training.epochs) == (chosen["lr"], chosen["epochs"])
    assert plan_from(json.loads(json.dumps(tuned.flags()))) == tuned

def test_a_trial_is_what_a_cell_of_its_settings_finds(tuned, rows, out, tmp_path):
    study = Study(rows, tuned.replace(arms=["real-meta"], primary=None), tmp_path).run()
    said = study.collect()[0].query("side == 'valid'")
    best = tried(tuned, out)["rocauc"].max()
    assert roc_auc_score(said["label"], said["probability"]) == pytest.approx(best, abs=1e-9)

def test_no_film_of_test_is_there_to_be_looked_at(tuned, rows, out, tmp_path, monkeypatch):
    "Its files are gone, its labels are others, and whoever asks a model for a row of it is stopped: the same trials."
    test, seen, real = rows["split"] == "test", [], RadiographLearner.get_preds
    def get_preds(learn, *args, dl=None, **kwargs):
        seen.append(dl.dataset.items["split"].unique().tolist() if "split" in dl.dataset.items else ["?"])
        assert not len(learn.dls.test_rows)
        return real(learn, *args, dl=dl, **kwargs)
    def stop(*args, **kwargs): raise AssertionError("test rows were asked for")
    monkeypatch.setattr(RadiographLearner, "get_preds", get_preds)
    monkeypatch.setattr(room, "predict_rows", stop)
    spoilt = rows.assign(file=rows["file"].where(~test, "/nowhere.png"))
    spoilt.loc[test, "label"] = "Normal"
    spoilt.loc[test, "age"] = 1.
    found = tuned_plan(plan(3), spoilt, tmp_path)
    pd.testing.assert_frame_equal(tried(found, tmp_path), tried(tuned, out)[:3])
    assert len(seen) == 3 and not (tmp_path/"cells").exists()
    assert not (tmp_path/"ledger.csv").exists() and not (tmp_path/"plan.json").exists()

def test_a_search_that_was_stopped_goes_on_as_the_unbroken_one(tuned, rows, out, tmp_path, monkeypatch, capsys):
    value, left = Search._auc, [2]
    def dies(*args):
        if not left[0]: raise KeyboardInterrupt
        left[0] -= 1
        return value(*args)
    with monkeypatch.context() as patch:
        patch.setattr(Search, "_auc", dies)
        with pytest.raises(KeyboardInterrupt): tuned_plan(plan(12), rows, tmp_path)
    assert not list(tmp_path.rglob("*.csv")) and capsys.readouterr().out.count("trial ") == 2
    found = tuned_plan(plan(12), rows, tmp_path)
    pd.testing.assert_frame_equal(tried(found, tmp_path), tried(tuned, out)[:12])
    assert capsys.readouterr().out.count("trial ") == 10
    monkeypatch.setattr(Search, "_auc", lambda *args: pytest.fail("searched again"))
    assert tuned_plan(plan(12), rows, tmp_path) == found
    assert len(tried(tuned_plan(plan(5), rows, tmp_path), tmp_path)) == 5

def test_what_was_chosen_elsewhere_is_searched_again_for_other_settings_alone(tuned, rows, tmp_path, monkeypatch):
    monkeypatch.setattr(Search, "run", lambda *args: dict(lr=1., trials=13, search="again"))
    assert tuned_plan(tuned, rows, tmp_path) == tuned
    for other in dict(tune=14), dict(training=tuned.training.replace(bs=8)), dict(seeds=[1]):
        assert "again" in tuned_plan(tuned.replace(**other), rows, tmp_path).training.tuned[0]
    older = rows.assign(age=rows["age"] + (rows["split"] == "valid"))
    assert "again" in tuned_plan(tuned, older, tmp_path).training.tuned[0]
    assert tuned_plan(tuned.replace(seeds=[0]), rows, tmp_path) == tuned

def test_a_study_of_a_search_that_was_not_run_does_not_begin(rows, tmp_path):
    with pytest.raises(ValueError, match="nothing was searched for test_resnet yet: give Study the plan of tuned_plan"):
        Study(rows, plan(), tmp_path).run()
    assert not (tmp_path/"plan.json").exists()

def test_seeds_after_the_second_change_nothing(rows, tmp_path):
    names = {Search(rows, plan(seeds=o), "test_resnet", tmp_path).name for o in ("0,1", "0,1,2", "0,1,5,6")}
    films = plan(seeds="0,1", arms="real-meta,real-synth-meta@other", synthetic_from="other=x.csv", primary=None)
    assert Search(rows, films, "test_resnet", tmp_path).name in names
    assert len(names) == 1 and Search(rows, plan(), "test_resnet", tmp_path).name not in names

def test_numbers_that_are_none_are_trials_that_failed(rows, tmp_path, monkeypatch):
    aucs = iter([np.nan, .7, np.nan, .7])
    monkeypatch.setattr(Search, "_auc", lambda *args: next(aucs))
    found = trials_of(tuned_plan(plan(4), rows, tmp_path), tmp_path)
    assert found["rocauc"].isna().tolist() == [True, False, True, False]
    assert found["chosen"].tolist() == ["no", "yes", "no", "no"] # of equals, the first
    monkeypatch.setattr(Search, "_auc", lambda *args: np.nan)
    with pytest.raises(CellError, match="No trial of test_resnet gave"): tuned_plan(plan(2), rows, tmp_path/"b")

def test_metadata_alone_is_searched_for_what_it_has(rows, tmp_path):
    found = tuned_plan(plan(2, arms="meta", primary=None, mode="full"), rows, tmp_path)
    assert trials_of(found, tmp_path)[["ps", "fusion"]].isna().all(axis=None)
    assert set(choices(found.training.tuned)["test_resnet"]) == {"lr", "epochs", "trials", "search"}

def test_a_damaged_journal_is_named(rows, tmp_path):
    search = Search(rows, plan(), "test_resnet", tmp_path)
    search.folder.mkdir()
    search._file(".log").write_text("half a {\n\n{}\n")
    with pytest.raises(CellError, match=r"\.log is damaged .*delete it"): search.run(1)

@pytest.mark.slow
def test_a_study_by_the_shell_says_what_it_searched_and_is_run_again_without(tmp_path, monkeypatch):
    monkeypatch.setattr(page, "SECTIONS", [o for o in page.SECTIONS if o.__name__ in ("_run", "tuning")]) # quick ones
    flags = "--arms real --size 32 --bs 16 --epochs 1 --weights none --normals 60 --tune 2 --out".split()
    assert main(["train", "test_resnet", *flags, str(tmp_path/"a")]) == 0
    folder = next((tmp_path/"a").glob("study-*"))
    settings, declared = read_json(folder/"settings.json"), read_plan(folder/"plan.json")
    assert settings["tune"] == 2 and settings["tuned"] == declared["settings"]["tuned"]
    assert "2 trials a backbone, with Real alone" in declared["settings"]["tuning"] and declared["looks_before"] == 0
    assert looks(tmp_path/"a", declared["test_rows"]) == 1
    assert pd.read_csv(folder/"tune.csv")["chosen"].eq("yes").sum() == 1
    said = (folder/"report.html").read_text()
    assert "Search of settings" in said and "which flatters the chosen one" in said and "a search chose others" in said
    monkeypatch.setattr(Search, "run", lambda *args: pytest.fail("searched again"))
    assert main(["rerun", str(folder)]) == 0
    assert main(["train", "--config", str(folder/"settings.json"), "--out", str(tmp_path/"b")]) == 0
    other = next((tmp_path/"b").glob("study-*"))
    assert other.name == folder.name and read_json(other/"settings.json") == settings
    assert (other/"predictions.csv").read_bytes() == (folder/"predictions.csv").read_bytes()
