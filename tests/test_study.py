import json, shutil, signal, subprocess, sys, time
from pathlib import Path
import matplotlib.pyplot as plt
import pandas as pd, pytest, torch
from sklearn.metrics import roc_auc_score
from cxr_fastai import study
from cxr_fastai.audit import audit_table
from cxr_fastai.cohort import ARMS
from cxr_fastai.report import plot_roc, plot_run
from cxr_fastai.study import load_cohort, run_backbone
from cxr_fastai.tables import scores

ROOT = Path(__file__).parents[1]
TINY = dict(size=32, epochs=1, bs=16, weights="none", normals=60)
CODE = "from cxr_fastai.all import *; run_backbone('test_resnet', {data!r}, out={out!r}, **{tiny!r})"

@pytest.fixture(scope="module")
def nih(tmp_path_factory):
    "A folder in NIH's layout: the demo set's csv and images."
    folder = tmp_path_factory.mktemp("nih")
    shutil.copytree(ROOT/"data"/"phantom", folder, dirs_exist_ok=True)
    return folder

@pytest.fixture(scope="module")
def run(nih, tmp_path_factory): return run_backbone("test_resnet", str(nih), out=str(tmp_path_factory.mktemp("runs")), **TINY)

def test_a_run_leaves_what_the_readme_says(run):
    assert {o.name for o in run.iterdir()} >= {"settings.json", "table1.csv", "real", "meta", "real-meta"}
    for arm in ARMS:
        assert {o.name for o in (run/arm).iterdir()} == {"history.csv", "test_predictions.csv", "scores.json", "model.pkl"}
    settings = json.loads((run/"settings.json").read_text())
    assert settings["versions"]["torch"] == torch.__version__.split("+")[0] and settings["protocol"] == "clean"

def test_scores_are_those_of_the_predictions(run):
    for arm in ARMS:
        saved, table = json.loads((run/arm/"scores.json").read_text()), pd.read_csv(run/arm/"test_predictions.csv")
        again = scores(table.label == "Pneumonia", table.probability)
        assert {k: saved[k] for k in again} == pytest.approx(again, abs=1e-5)
        assert saved["n"] == len(table) and saved["weights"] == "none"

def test_every_arm_is_tested_on_the_same_rows(run):
    tables = [pd.read_csv(run/arm/"test_predictions.csv") for arm in ARMS]
    for o in tables[1:]: pd.testing.assert_frame_equal(o.drop(columns="probability"), tables[0].drop(columns="probability"))
    assert not tables[0].probability.equals(tables[1].probability)

def test_our_own_tables_pass_the_audit(run):
    for arm in ARMS: assert audit_table(run/arm/"history.csv").rows.fits.all()

def test_a_finished_run_is_read_back_not_trained(run, nih, capsys):
    before = {o: o.stat().st_mtime_ns for o in run.glob("*/*")}
    assert run_backbone("test_resnet", str(nih), out=str(run.parent), **TINY) == run
    assert {o: o.stat().st_mtime_ns for o in run.glob("*/*")} == before
    out = capsys.readouterr().out
    assert "train_loss" not in out and "Table 1" in out and str(run) in out

def test_another_setting_or_split_is_another_folder(run, nih):
    for change in dict(epochs=2), dict(seed=1), dict(lr=1e-4):
        settings = dict(arch="test_resnet", data=str(nih), arms="meta") | TINY | change
        assert run_backbone(**settings, out=str(run.parent)) != run

def test_a_killed_run_goes_on_at_the_arm_where_it_was(run, nih, tmp_path):
    code = CODE.format(data=str(nih), out=str(tmp_path), tiny=TINY)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    while process.poll() is None and not list(tmp_path.glob("*/real/scores.json")): time.sleep(.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = next(tmp_path.glob("*/real/scores.json"))
    assert not (done.parents[1]/"real-meta"/"scores.json").exists()
    before = done.stat().st_mtime_ns
    folder = run_backbone("test_resnet", str(nih), out=str(tmp_path), **TINY)
    assert done.stat().st_mtime_ns == before
    for arm in ARMS: # and gives the bits of the unbroken run
        assert (folder/arm/"test_predictions.csv").read_bytes() == (run/arm/"test_predictions.csv").read_bytes()

def test_fewer_normals_than_asked_for_are_said_aloud(nih, capsys):
    rows = load_cohort(str(nih), n_normal=10_000)
    found = (rows.label == "Normal").sum()
    assert 0 < found < 10_000 and f"{found} Normal at the first visit" in capsys.readouterr().out

def test_without_a_checkout_the_demo_set_is_drawn_the_same(tmp_path, monkeypatch):
    here = load_cohort()
    monkeypatch.setattr(study, "__file__", str(tmp_path/"site-packages"/"cxr_fastai"/"study.py"))
    monkeypatch.setenv("CXR_FASTAI_CACHE", str(tmp_path/"cache"))
    drawn = load_cohort()
    assert drawn.file[0].startswith(str(tmp_path/"cache"))
    pd.testing.assert_frame_equal(drawn.drop(columns="file"), here.drop(columns="file"))

def test_bad_arguments_get_one_sentence(nih, tmp_path):
    with pytest.raises(ValueError, match="--arms: raal is not known; there are real, meta, real-meta"):
        run_backbone("test_resnet", str(nih), arms="raal", out=str(tmp_path))
    with pytest.raises(FileNotFoundError, match="holds no Data_Entry"): load_cohort(str(tmp_path))

def test_figures_are_drawn_from_the_files(run):
    plot_run(run)
    assert all((run/arm/"curves.png").stat().st_size > 5000 for arm in ARMS)
    assert plt.imread(run/"roc.png").shape[0] > 300

def test_roc_figure_names_arms_and_areas(run):
    tables = {arm: pd.read_csv(run/arm/"test_predictions.csv") for arm in ARMS}
    legend = [o.get_text() for o in plot_roc(tables, "Pneumonia").axes[0].get_legend().get_texts()]
    area = roc_auc_score(tables["real"].label == "Pneumonia", tables["real"].probability)
    assert any(o.startswith("real (") and f"{area:.2f}" in o for o in legend)
