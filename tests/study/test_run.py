import json
from pathlib import Path
import numpy as np, pandas as pd, pytest
from cxr_fastai.arms import ARMS
from cxr_fastai.cli import main
from cxr_fastai.stats.audit import audit_table
from cxr_fastai.study.cell import CellError
from cxr_fastai.stats.compare import compare_arms
from cxr_fastai.settings import plan_of
from cxr_fastai.study.grid import Study
from cxr_fastai.stats.ledger import looks, read_plan
from cxr_fastai.study.run import _table1, run_study, save_study
from cxr_fastai.stats.shortcuts import SHORTCUTS
from cxr_fastai.stats.tables import GAINS, score_table, table1

pytestmark = pytest.mark.usefixtures("small_gan")
TINY = dict(backbones="test_resnet", size=32, epochs=1, bs=16, weights="none", normals=60, gan_epochs=1)

@pytest.fixture(scope="module")
def out(tmp_path_factory): return tmp_path_factory.mktemp("runs")

@pytest.fixture(scope="module")
def run(out): return run_study(**TINY, arms=",".join(ARMS), seeds="0,1", out=str(out))

def stamps(folder): return {o: o.stat().st_mtime_ns for o in folder.rglob("*") if o.is_file() and "lock" not in o.name}

def test_a_study_leaves_what_the_readme_says(run, out):
    names = {o.name for o in run.iterdir()}
    assert names >= {"settings.json", "flow.csv", "rows.csv", "cells.csv", "predictions.csv", "scores.csv",
                     "scores_by_seed.csv", "shortcuts.csv", "shortcut_scores.csv", "against_shortcuts.csv",
                     "label_noise.csv"} and "relabel.csv" not in names
    plan = read_plan(out/"plan.json")
    assert plan == read_plan(run/"plan.json") and plan["seeds"] == [0, 1] and plan["arms"] == list(ARMS)
    assert plan["finished_before"] == 0
    assert plan["time"] < min(pd.Timestamp(o.stat().st_mtime, unit="s", tz="UTC").isoformat()
                              for o in out.glob("cells/*/scores.json"))
    assert names >= {f"{o}.{form}" for o in ("table1", "metrics", "comparisons", "subgroups", "shortcut_table",
                                      "noise_table")
                     for form in ("csv", "md", "txt", "tex")}
    settings = json.loads((run/"settings.json").read_text())
    assert settings["protocol"] == "clean" and settings["epoch_rule"] == "last" and settings["positive"] == "Pneumonia"
    assert settings["seeds"] == [0, 1] and settings["data"] == "phantom (drawn)" and settings["versions"]["torch"]
    cells = pd.read_csv(run/"cells.csv")
    assert len(cells) == 10 and all((out/o/"history.csv").exists() for o in cells.folder)
    assert all((out/o).exists() for o in cells.gan.dropna())
    assert cells.gan.notna().sum() == 4 and cells.error.isna().all()

def test_the_tables_carry_what_they_rest_on(run):
    for name in "table1", "metrics":
        table = pd.read_csv(run/f"{name}.csv")
        assert {"n", "positives", "seeds", "epoch", "weights", "protocol"} <= set(table) and (table.seeds == 2).all()
    assert "Gain Real-Meta to Ensemble" in pd.read_csv(run/"table1.csv")
    compared = pd.read_csv(run/"comparisons.csv")
    assert compared.primary.tolist() == ["yes", "no", "no", "no"]
    assert set(compared.exploratory) == set(compared.interim) == {"no"}
    assert compared.holm_verdict.notna().tolist() == [True, False, False, False] and set(compared.protocol) == {"clean"}
    groups = pd.read_csv(run/"subgroups.csv")
    assert set(groups.column) == {"sex", "view", "age"} and "Meta" in set(groups.arm)

def test_our_own_epoch_tables_pass_the_audit(run, out):
    for o in pd.read_csv(run/"cells.csv").folder: assert audit_table(out/o/"history.csv").rows.fits.all()

def test_a_finished_study_is_read_back_not_made_again(run, out, capsys):
    before, looked = stamps(out), looks(out, read_plan(out/"plan.json")["test_rows"])
    assert run_study(**TINY, arms=",".join(ARMS), seeds="0,1", out=str(out)) == run
    assert stamps(out) == before
    said = capsys.readouterr().out
    assert "Table 1" in said and "16 x 16 thumbnail" in said.split("Test rows")[0]
    assert "can't be said: 2 of the 3 seeds that are needed" in said
    assert "An arm beats a shortcut where" in said.split("that are needed")[1] # under the verdict
    assert f"knows of: {looked}." in said and looks(out, read_plan(out/"plan.json")["test_rows"]) == looked
    assert str(run) in said and "MISSING" not in said and "train_loss" not in said

def test_a_larger_study_is_another_folder_and_keeps_the_cells(run, out):
    before = stamps(out/"cells")
    other = run_study(**TINY, arms="real,meta", seeds="0,1,2", out=str(out))
    assert other != run and {k: v for k, v in stamps(out/"cells").items() if k in before} == before
    assert len(list((out/"cells").glob("*-2-*"))) == 2
    assert set(pd.read_csv(other/"table1.csv").exploratory) == {"seed 2 added"}
    assert len(pd.read_csv(out/"ledger.csv")) == 2
    assert read_plan(out/"plan.json")["seeds"] == [0, 1]

def test_one_run_prints_its_epoch_tables(out, capsys):
    run_study(**TINY, arms="real,meta", seeds="7", out=str(out))
    said = capsys.readouterr().out
    head = "train_loss  valid_loss  accuracy    precision   recall      rocauc"
    assert said.count(head) == 2
    assert f"\ntest_resnet, Real, seed 7\n{head}" in said and f"\nMeta, seed 7\n{head}" in said
    assert "one seed" not in said
    assert "2 cells; protocol 'clean', scored at the last epoch" in said
    assert "Test rows, seed 7 [95% interval of these models]" in said
    assert "These films are drawn" in said and "leaky" not in said

def test_without_synthesis_the_verdict_is_of_the_metadata(out, tmp_path, capsys):
    run_study(**TINY, arms="real,real-meta", seeds="7", out=str(tmp_path))
    said = capsys.readouterr().out
    assert read_plan(tmp_path/"plan.json")["primary"] == ["real", "real-meta"]
    assert "a gain from Real to Real-Meta can't be said: 1 of the 3 seeds" in said and "No verdict" not in said
    assert "\n\n\n" not in said

def test_cells_that_failed_are_named_and_no_table_counts_them(out, capsys, broken_resnet10t):
    folder = run_study(**TINY | dict(backbones="resnet10t,test_resnet"), arms="real,meta", seeds="0", out=str(out))
    said = capsys.readouterr().out
    assert "FAILED" in said and "MISSING resnet10t-real-0" in said
    assert len(pd.read_csv(folder/"metrics.csv")) == 3 # both backbones' Meta, and one Real
    with pytest.raises(CellError, match="No cell is finished: resnet10t-real-0"):
        run_study(**TINY | dict(backbones="resnet10t"), arms="real", seeds="0", out=str(out))

def test_shortcuts_are_judged_on_the_rows_of_the_arms(run):
    said, table = (pd.read_csv(run/f"{o}.csv") for o in ("predictions", "shortcuts"))
    test = lambda o: set(o.image[o.side == "test"])
    assert test(table) == test(said) and set(table.arm) == set(SHORTCUTS)
    against = pd.read_csv(run/"against_shortcuts.csv")
    assert len(against) == 5*6 - 1 and set(against.beats) <= {"yes", "no", "-"} # Meta is metadata alone

def test_groups_and_films_to_read_again_are_made_when_asked_for(run, out, capsys):
    pytest.importorskip("cleanlab")
    asked = TINY | dict(arms="meta", seeds="0", out=str(out))
    with pytest.raises(ValueError, match="--groups: 'nowhere' is no column that makes groups; there are"):
        run_study(**asked, groups="follow_up,nowhere")
    before = run_study(**asked)
    folder = run_study(**asked, groups="follow_up", relabel=True)
    assert folder == before and "films to read again" in capsys.readouterr().out
    assert "follow_up" in set(pd.read_csv(folder/"subgroups.csv").column) and (folder/"relabel.csv").exists()
    assert json.loads((folder/"settings.json").read_text())["groups"] == ["follow_up"]
    assert main(["rerun", str(folder)]) == 0 and folder.stat() and (folder/"relabel.csv").exists()
    run_study(**asked)
    assert not (folder/"relabel.csv").exists() and "follow_up" not in set(pd.read_csv(folder/"subgroups.csv").column)

def test_a_damaged_cell_is_named_and_the_tables_are_made_anew_without_it(tmp_path, capsys):
    before = run_study(**TINY, arms="real,meta", seeds="0,1", out=str(tmp_path), prevalence=.01)
    assert (before/"prevalence.csv").exists() and "At a prevalence" in capsys.readouterr().out
    cell = next((tmp_path/"cells").glob("test_resnet-real-1-*"))
    (cell/"predictions.csv").write_text((cell/"predictions.csv").read_text() + "test,x.png,1,1,.5,False\n")
    folder = run_study(**TINY, arms="real,meta", seeds="0,1", out=str(tmp_path))
    said = capsys.readouterr().out
    assert "is damaged (predictions.csv isn't what was written): delete it" in said
    assert "At a prevalence" not in said and not [*folder.glob("prevalence.*")] # which was of both cells
    table = pd.read_csv(folder/"metrics.csv").set_index("arm")
    assert table.seeds["Real"] == 1 and table.seeds["Meta"] == 2
    assert pd.read_csv(folder/"table1.csv").seeds[0] == 1 # of the seed that both have

def test_the_papers_protocol_is_labelled_and_counts_synthetic_positives(tmp_path, capsys):
    folder = run_study(**TINY | dict(normals=150), arms="real-meta,real-synth-meta", protocol="paper",
                       out=str(tmp_path))
    said, table = capsys.readouterr().out, pd.read_csv(folder/"scores.csv").set_index(["arm", "metric"])["mean"]
    assert "leaky on purpose" in said and "CycleGAN saw every row" in said
    assert "patients are on several sides" not in said # first visits
    assert "protocol 'paper'" in said and "recall_with_synthetic" in said and "positives_synthetic" in said
    assert table["real-synth-meta", "positives_synthetic"] > 5 and table["real-meta", "positives_synthetic"] == 0
    for o in "table1 metrics comparisons subgroups flow cells predictions scores scores_by_seed".split():
        assert set(pd.read_csv(folder/f"{o}.csv").protocol) == {"paper"}, o
    assert set(pd.read_csv(folder/"rows.csv").split) == {"train", "valid", "test"}

def test_flags_name_arms(tmp_path):
    folder = run_study(**TINY | dict(normals=150), arms="real-meta", rivals="focal", doses="0,1/2", policies="donor",
                       fusions="film",
                       synthetic=9, metadata="source", out=str(tmp_path))
    cells = pd.read_csv(folder/"cells.csv")
    assert list(cells.arm) == ["real-meta", "real+focal", "real-meta+focal", "real-synth-meta+1/2",
                               "real-synth-meta+donor", "real-meta+film"]
    assert {Path(o).name for o in cells.gan.dropna()} == {
        "a2b-9-donor", f"a2b-{next(tmp_path.glob('*/a2b-*-source')).name.split('-')[1]}-source"}

def test_bad_flags_get_one_sentence(tmp_path):
    for wrong, why in ((dict(arms="raal"), "'raal' is not known"), (dict(rivals="focus"), "'focus' is no rival"),
                       (dict(seeds="a"), "--seeds: a is no whole number"),
                       (dict(protocol="mine"), "use clean or paper"), (dict(data="/nowhere"), "no such file")):
        with pytest.raises((ValueError, FileNotFoundError), match=why): run_study(**TINY | wrong, out=str(tmp_path))

def test_own_tables_and_columns_make_a_study(rows, tmp_path):
    own = rows.rename(columns=dict(sex="smoker", age="weight")).drop(columns="view")
    plan = plan_of(backbones="test_resnet", arms="meta,real-meta", size=32, epochs=1, bs=16, weights="none",
                   cat_names="smoker", cont_names="weight")
    study = Study(own, plan, tmp_path, data="own").run()
    folder = save_study(study)
    assert set(pd.read_csv(folder/"subgroups.csv").column) == {"smoker", "weight"}
    assert json.loads((folder/"settings.json").read_text())["cat_names"] == ["smoker"]

def test_a_gain_in_table_1_is_over_the_seeds_of_its_recalls():
    rng, parts = np.random.default_rng(0), []
    label = np.tile([0, 0, 1], 20)
    for arm, seeds in (("real", (0, 1, 2)), ("real-meta", (0, 2))): # a cell failed
        for seed, side in ((s, o) for s in seeds for o in ("valid", "test")):
            parts.append(pd.DataFrame(dict(backbone="net", arm=arm, seed=seed, side=side,
                                           image=[f"{side}{i}" for i in range(60)],
                                           patient_id=np.arange(60), label=label,
                                           probability=(rng.random(60) + label)/2, synthetic=False)))
    predictions = pd.concat(parts, ignore_index=True)
    cells = pd.DataFrame([dict(backbone="net", arm=a, seed=s, weights="none", train_prior=.3, prior=.3)
                          for a in ("real", "real-meta") for s in range(3)])
    about = lambda o: o.arm + o.seed.astype(str)
    score = lambda lines: score_table(lines, cells[about(cells).isin(about(lines))], n=20)
    scored, compared = score(predictions), compare_arms(predictions, GAINS, n=20)
    found = _table1(predictions, scored, compared, score).iloc[0]
    recall = [float(found[o].split()[0]) for o in ("Real", "Real-Meta")]
    assert float(found["Gain Real to Real-Meta"].split("%")[0])/100 == pytest.approx(recall[1]/recall[0] - 1, abs=1e-3)
    assert table1(scored.assign(seeds=np.where(scored.arm == "real", 3, 2)),
                  compared)["Gain Real to Real-Meta"][0] == "-"
