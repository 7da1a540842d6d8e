import json, os, resource, shutil, time
import numpy as np, pandas as pd, pytest, torch
from fastai.torch_core import default_device
from filelock import FileLock
from PIL import Image
from cxr_fastai.study import cell as room
from cxr_fastai.models.predictions import predict_rows
from cxr_fastai.study.cell import CellError, arm_rows, read_cell, run_cell
from cxr_fastai.study.grid import Study
from cxr_fastai.stats.scoring import scores
from cxr_fastai.settings import plan_of
from conftest import start_python

TINY = dict(size=32, epochs=1, bs=16, weights="none", gan_epochs=1)

def one(rows, out, arm="real-meta", **kwargs):
    "A study's only cell."
    study = Study(rows, plan_of(backbones="test_resnet", arms=arm, **TINY | kwargs), out)
    return next(iter(study.cells.values()))

@pytest.fixture(scope="module")
def done(rows, tmp_path_factory):
    cell = one(rows, tmp_path_factory.mktemp("runs"))
    assert run_cell(cell) == dict(status="done")
    return cell

@pytest.fixture
def own(rows, tmp_path):
    "Rows whose images may be changed."
    files = []
    for o in rows.file:
        files.append(str(tmp_path/os.path.basename(o)))
        Image.open(o).save(files[-1])
    return rows.assign(file=files)

def test_a_cell_leaves_all_that_tells_what_it_is_and_found(done):
    assert {o.name for o in done.folder.iterdir()} - {".lock"} == {
        "settings.json", "history.csv", "predictions.csv", "bundle", "log.txt", "scores.json"}
    settings, found = (json.loads((done.folder/f"{o}.json").read_text()) for o in ("settings", "scores"))
    assert settings["arch"] == "test_resnet" and settings["data"]
    assert {"torch", "cxr_fastai"} <= set(settings["versions"])
    assert found["weights"] == "none" and found["seconds"] >= found["training"] > 0 and found["threads"] >= 1
    assert "rocauc" in (done.folder/"log.txt").read_text() and len(pd.read_csv(done.folder/"history.csv")) == 1

def test_predictions_are_of_valid_and_test_and_the_scores_are_theirs(done, rows):
    found, table = read_cell(done)
    for side in "valid", "test": assert list(table.image[table.side == side]) == list(rows.image[rows.split == side])
    assert not table.synthetic.any()
    assert table.patient_id.dtype == object or str(table.patient_id.dtype).startswith("str")
    test = table[table.side == "test"]
    assert {k: found[k] for k in ("recall", "rocauc", "n", "positives")} == pytest.approx(
        {k: v for k, v in scores(test.label, test.probability).items() if k in ("recall", "rocauc", "n", "positives")})
    assert (test.label == (rows.label[rows.split == "test"] == "Pneumonia").to_numpy()).all()

def test_a_finished_cell_is_not_run_again(done):
    before = {o: o.stat().st_mtime_ns for o in done.folder.iterdir() if o.name != ".lock"}
    assert run_cell(done) == dict(status="done")
    assert {o: o.stat().st_mtime_ns for o in before} == before

def test_the_same_cell_elsewhere_has_the_same_bits(done, rows, tmp_path):
    other = one(rows, tmp_path)
    run_cell(other)
    assert other.folder.name == done.folder.name
    assert (other.folder/"predictions.csv").read_bytes() == (done.folder/"predictions.csv").read_bytes()

def test_a_cell_that_another_process_holds_is_left_to_it(rows, tmp_path):
    cell = one(rows, tmp_path)
    cell.folder.mkdir(parents=True)
    with FileLock(cell.folder/".lock"): assert run_cell(cell) == dict(status="busy")
    assert run_cell(cell) == dict(status="done")

@pytest.mark.parametrize("spoil, why", [
    (lambda o: (o/"predictions.csv").write_text((o/"predictions.csv").read_text().replace(",0.", ",0.9", 1)),
     "predictions.csv isn't what was written"),
    (lambda o: (o/"history.csv").unlink(), "history.csv is missing"),
    (lambda o: (o/"scores.json").write_text("{"), "scores.json can't be read")])
def test_a_damaged_cell_is_refused_and_a_deleted_one_runs_again(rows, tmp_path, spoil, why):
    cell = one(rows, tmp_path, "meta")
    run_cell(cell)
    before = read_cell(cell)[1]
    spoil(cell.folder)
    with pytest.raises(CellError, match=f"{cell.folder.name} is damaged .{why}.*delete it"): read_cell(cell)
    shutil.rmtree(cell.folder)
    run_cell(cell)
    pd.testing.assert_frame_equal(read_cell(cell)[1], before)

def test_radiographs_that_change_while_a_cell_trains_fail_it(own, tmp_path, monkeypatch):
    cell = one(own, tmp_path/"runs", "real")
    def meddle(learn, rows):
        Image.fromarray(np.full((48, 48), 77, np.uint8)).save(own.file[0])
        return predict_rows(learn, rows)
    with monkeypatch.context() as patch:
        patch.setattr(room, "predict_rows", meddle)
        found = run_cell(cell)
    assert found["status"] == "failed" and "its radiographs changed while it was trained" in found["error"]
    assert "\n" not in found["error"] and not (cell.folder/"scores.json").exists()
    assert one(own, tmp_path/"runs", "real").folder != cell.folder # the changed data's own cell

@pytest.mark.parametrize("change", [
    dict(age=lambda o: o.age.where(o.index != 3, 21.)), dict(split=lambda o: o.split.replace("valid", "test"))])
def test_another_table_is_another_cell(rows, tmp_path, change):
    same, changed = one(rows, tmp_path).folder, one(rows.assign(**change), tmp_path).folder
    assert changed != same == one(rows.copy(), tmp_path).folder

CODE = """
import resource, signal
import pandas as pd
from cxr_fastai.settings import plan_of
from cxr_fastai.study.cell import run_cell
from cxr_fastai.study.grid import Study
rows = pd.read_pickle({rows!r})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
plan = plan_of(backbones="test_resnet", arms="real-meta", size=32, epochs={epochs}, bs=16, weights="none")
cell, = Study(rows, plan, {out!r}).cells.values()
print(run_cell(cell))
"""

def script(rows, tmp_path, limit=resource.RLIM_INFINITY, epochs=1):
    rows.to_pickle(tmp_path/"rows.pkl")
    code = CODE.format(rows=str(tmp_path/"rows.pkl"), out=str(tmp_path/"runs"), limit=limit, epochs=epochs)
    return start_python(code)

def test_a_full_disk_fails_the_cell_in_one_sentence_and_leaves_no_result(rows, tmp_path):
    out = script(rows, tmp_path, limit=300_000).communicate()[0].splitlines()[-1]
    found = eval(out)
    assert found["status"] == "failed" and "model.safetensors can't be written; is the disk full?" in found["error"]
    assert "\n" not in found["error"]
    cell = one(rows, tmp_path/"runs")
    assert not (cell.folder/"scores.json").exists() and not list(cell.folder.rglob(".model*"))
    assert run_cell(cell) == dict(status="done")

def test_a_killed_cell_begins_anew_and_gives_the_bits_of_the_unbroken_one(rows, tmp_path):
    process = script(rows, tmp_path, epochs=400)
    cell = one(rows, tmp_path/"runs", epochs=400)
    while process.poll() is None and not (cell.folder/"history.csv").exists(): time.sleep(.02)
    process.kill()
    process.wait()
    assert not (cell.folder/"scores.json").exists()
    (cell.folder/".history.99.csv").write_text("half a ") # what a kill can leave
    cell.plan = cell.plan.replace(training=cell.plan.training.replace(epochs=1)) # as long as the other
    assert run_cell(cell) == dict(status="done")
    whole = one(rows, tmp_path/"whole")
    run_cell(whole)
    assert (cell.folder/"predictions.csv").read_bytes() == (whole.folder/"predictions.csv").read_bytes()
    assert not list(cell.folder.glob(".history*"))

def test_the_best_epoch_is_the_one_that_is_scored(rows, tmp_path):
    cell = one(rows, tmp_path, "real", epochs=6, epoch_rule="best", lr=3e-2)
    run_cell(cell)
    found, table = read_cell(cell)
    valid = table[table.side == "valid"]
    history = pd.read_csv(cell.folder/"history.csv").rocauc
    assert scores(valid.label, valid.probability)["rocauc"] == pytest.approx(history.max(), abs=1e-6)
    assert history.iloc[-1] != history.max() and not (cell.folder/"models").exists()

def test_arms_get_the_rows_they_name(rows, tmp_path):
    train = rows[rows.split == "train"]
    neg, pos = ((train.label == o).sum() for o in ("Normal", "Pneumonia"))
    for arm, more in dict(real=0, **{"real+duplicate": neg // 2, "real+duplicate+1/2": round((neg - pos)/2)}).items():
        assert len(arm_rows(one(rows, tmp_path, arm))) == len(rows) + more

def test_a_name_holds_what_a_precision_came_to_and_on_what_kind_of_device(rows, tmp_path, monkeypatch):
    auto, fp32, bf16 = (one(rows, tmp_path, precision=o) for o in ("auto", "fp32", "bf16"))
    assert auto.folder in (fp32.folder, bf16.folder) and fp32.folder != bf16.folder
    assert fp32.settings["precision"] == "fp32" and fp32.settings["device"] == default_device().type
    monkeypatch.setattr("cxr_fastai.fit.precision.default_device", lambda: torch.device("cuda"))
    assert one(rows, tmp_path, precision="fp32").folder != fp32.folder
    assert one(rows, tmp_path, "meta", precision="fp32").settings["device"] == "cuda"
