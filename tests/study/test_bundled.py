import shutil
import numpy as np, pandas as pd, pytest
from cxr_fastai.cli import main
from cxr_fastai.cohort.leaks import LeakError
from cxr_fastai.settings import plan_of
from cxr_fastai.stats.calibration import threshold_at
from cxr_fastai.stats.scoring import scores
from cxr_fastai.study.bundled import bundle_arm, recorded_cells
from cxr_fastai.study.cell import CellError, read_cell
from cxr_fastai.study.grid import Study
from cxr_fastai.study.run import save_study
from cxr_fastai.trained.bundle import load_bundle, read_card
from cxr_fastai.trained.hub import model_card
from conftest import make_rows

TINY = dict(size=32, epochs=1, bs=16, weights="none", backbones="test_resnet")

def run(rows, out, **kwargs): return Study(rows, plan_of(**TINY | kwargs), out).run()

@pytest.fixture(scope="module")
def study(rows, tmp_path_factory): return run(rows, tmp_path_factory.mktemp("folds"), arms="meta,real-meta", folds=3)

@pytest.fixture(scope="module")
def folder(study): return save_study(study)

@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    rows = make_rows(tmp_path_factory.mktemp("elsewhere"), 9, seed=5)
    return rows.assign(patient_id=rows["patient_id"] + 10**6)

def said(learn, rows):
    with learn.no_bar(): return learn.get_preds(dl=learn.dls.test_dl(rows))[0][:, 1].numpy()

def cells(study, arm): return [o for key, o in study.cells.items() if key[1] == arm]

def out_of_fold(own): return pd.concat([(t := read_cell(o)[1])[t["side"] == "test"] for o in own])

@pytest.mark.parametrize("arm", ["meta", "real-meta"])
def test_a_studys_arm_is_one_file_with_the_mean_of_its_folds(study, folder, elsewhere, tmp_path, arm):
    file = bundle_arm(study, tmp_path/"b.safetensors", arm, threshold="specificity=.9")
    learn, own = load_bundle(file), cells(study, arm)
    mean = np.mean([said(load_bundle(o.bundle()), elsewhere) for o in own], 0)
    assert np.abs(said(learn, elsewhere) - mean).max() < 1e-6 and len(learn.card["members"]) == len(own) == 3
    table = out_of_fold(own)
    assert sorted(table["image"]) == sorted(study.rows["image"])
    assert learn.threshold == threshold_at(table["label"], table["probability"])
    assert learn.card["chosen"]["side"] == "out of fold" and learn.card["chosen"]["rows"] == len(table)
    found = scores(table["label"], table["probability"], table["patient_id"])
    assert learn.card["summary"]["test"]["rocauc"] == pytest.approx(found["rocauc"])
    assert read_card(bundle_arm(folder, tmp_path/"again.safetensors", arm, threshold="specificity=.9")) == learn.card
    train = {i for o in own for i in o.rows["image"][o.rows["split"] == "train"]}
    assert [*learn.seen.hits(study.rows)] == [*study.rows["image"].isin(train)]
    alone, quoted = model_card(file), model_card(file, folder)
    assert "out of fold" in alone and "has no film of its own left" in alone and "folds: 3" in alone
    assert "The study's line" in quoted and "this file is the mean of 3 models" in quoted

def test_the_verb_makes_it_and_what_is_wrong_is_one_sentence(study, folder, tmp_path, capsys):
    out = str(tmp_path/"b.safetensors")
    def bundle(*words): return main(["bundle", *words, "--out", out])
    assert bundle(str(folder), "--arm", "meta", "--threshold", ".4") == 0
    assert "The mean of 3 models; above 0.4 it says Pneumonia" in capsys.readouterr().out
    assert read_card(out)["threshold"] == .4 and "chosen" not in read_card(out)
    for words, why in (([str(folder)], "The study has meta, real-meta: give one, as in --arm meta"),
                       ([str(folder), "--arm", "real-mta"], "did you mean real-meta"),
                       ([str(folder), "--arm", "meta", "--seeds", "7"], "has no seed 7, only 0"),
                       ([str(folder), "--arm", "real-meta", "--backbone", "x"], "backbone='x' is not known"),
                       ([str(folder), "--arm", "meta", "--threshold", "best"], "neither a number"),
                       ([str(tmp_path)], "is no study: it holds no settings.json")):
        assert bundle(*words) in (1, 2)
        told = capsys.readouterr().err.strip()
        assert why in told and "\n" not in told

def test_a_fold_that_was_not_run_is_named(study, folder, tmp_path):
    lost = cells(study, "meta")[1]
    lost.folder.rename(tmp_path/"away")
    try:
        for o in study, folder:
            with pytest.raises(CellError, match="1 of the 3 models of meta.*seed 0 fold 1.*run the study again"):
                bundle_arm(o, tmp_path/"b", "meta")
    finally: (tmp_path/"away").rename(lost.folder)
    assert not (tmp_path/"b").exists()

def test_a_model_that_saw_its_test_rows_is_refused(study, folder, tmp_path):
    a, b, _ = cells(study, "meta")
    shutil.copytree(a.folder/"bundle", tmp_path/"own")
    shutil.rmtree(a.folder/"bundle")
    shutil.copytree(b.folder/"bundle", a.folder/"bundle") # another fold's
    try:
        with pytest.raises(LeakError, match="was trained on .* of its .* test rows"):
            bundle_arm(study, tmp_path/"b", "meta", threshold="youden")
    finally:
        shutil.rmtree(a.folder/"bundle")
        shutil.move(tmp_path/"own", a.folder/"bundle")

def test_seeds_of_one_split_choose_on_valid_rows(rows, elsewhere, tmp_path):
    study = run(rows, tmp_path, arms="meta", seeds="0,1,2")
    learn = load_bundle(bundle_arm(study, tmp_path/"b", threshold="youden", seeds="0,2"))
    mean = np.mean([said(load_bundle(o.bundle()), elsewhere) for o in cells(study, "meta")[::2]], 0)
    assert np.abs(said(learn, elsewhere) - mean).max() < 1e-6
    assert learn.card["chosen"]["rows"] == (rows["split"] == "valid").sum() and "side" not in learn.card["chosen"]
    assert learn.card["summary"]["test"]["n"] == (rows["split"] == "test").sum()
    assert "of the mean of 2 models, on one split" in model_card(tmp_path/"b")

def test_probes_share_one_backbone(rows, elsewhere, tmp_path):
    study = run(rows, tmp_path/"runs", arms="real-meta", folds=3, mode="probe", precision="fp32")
    folder = save_study(study, groups=["age"])
    file = bundle_arm(folder, tmp_path/"b.safetensors", calibrate=None, threshold="specificity=.9")
    learn, own = load_bundle(file), cells(study, "real-meta")
    assert not any((o.folder/"bundle").exists() for o in own) and learn.card["backbones"] == 1
    mean = np.mean([said(load_bundle(o.bundle()), elsewhere) for o in own], 0)
    assert np.abs(said(learn, elsewhere) - mean).max() < 1e-6
    assert file.stat().st_size < 1.3*(own[0].folder/"bundle"/"model.safetensors").stat().st_size
    train = own[0].rows[own[0].rows["split"] == "train"]
    assert learn.seen.hits(train).all() and load_bundle(own[0].bundle()).seen.hits(train).all()

def test_recorded_cells_are_the_studys(study, folder):
    found = recorded_cells(folder)
    assert {k: o.folder for k, o in found.items()} == {k: o.folder for k, o in study.cells.items()}
    for k, o in found.items(): pd.testing.assert_series_equal(o.rows["split"], study.cells[k].rows["split"])
