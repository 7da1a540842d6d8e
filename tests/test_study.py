import json, shutil, signal, subprocess, sys, time
from pathlib import Path
import matplotlib.pyplot as plt
import numpy as np, pandas as pd, pytest, torch
from sklearn.metrics import roc_auc_score
from cxr_fastai import study
from cxr_fastai.audit import audit_table
from cxr_fastai.cohort import ARMS
from cxr_fastai.readers import read_rows
from cxr_fastai.report import plot_gan, plot_roc, plot_run
from cxr_fastai.study import load_cohort, run_backbone, run_gan, train_gan
from cxr_fastai.synthesis import read_manifest, resynthesise
from cxr_fastai.scoring import scores

ROOT = Path(__file__).parents[1]
TINY = dict(size=32, epochs=1, bs=16, weights="none", normals=60, arms=",".join(ARMS), gan_epochs=1)
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
    assert {o.name for o in run.iterdir()} >= {"settings.json", "table1.csv", *ARMS}
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
    assert "train_loss" not in out and "Table 1" in out and str(run) in out and "| precision" in out

def test_another_setting_or_split_is_another_folder(run, nih):
    for change in dict(epochs=2), dict(seed=1), dict(lr=1e-4):
        settings = dict(arch="test_resnet", data=str(nih)) | TINY | dict(arms="meta") | change
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

@pytest.fixture(scope="module")
def gan(run): return next(run.parent.glob("cyclegan-*"))

def test_the_gan_is_trained_once_and_shared_between_backbones(run, gan, nih):
    before = {o: o.stat().st_mtime_ns for o in gan.rglob("*.p*")}
    settings = TINY | dict(arms="real-synth", epochs=2)
    other = run_backbone("resnet10t", str(nih), out=str(run.parent), **settings)
    assert (other/"real-synth"/"scores.json").exists() and len(list(run.parent.glob("cyclegan-*"))) == 1
    assert before and {o: o.stat().st_mtime_ns for o in gan.rglob("*.p*")} == before

def test_half_the_majority_is_synthesised_from_training_rows_alone(run, gan):
    rows, synth = read_rows(gan/"rows.csv"), read_manifest(next(gan.glob("a2b-*")))
    train = rows[rows.split == "train"]
    assert len(synth) == (train.label == "Normal").sum() // 2 and set(synth.source_image) <= set(train.image)
    assert set(synth.label) == {"Pneumonia"} and set(synth.split) == {"train"}
    seen = json.loads((next(gan.glob("a2b-*"))/"generator.json").read_text())["seen"]
    assert set(seen) == set(train.patient_id.astype(str))

def test_each_png_is_made_again_from_its_line_by_the_gan_of_its_folder(run, gan):
    settings = json.loads((gan/"settings.json").read_text())
    learn, folder = train_gan(read_rows(gan/"rows.csv"), run.parent, size=settings["size"], epochs=settings["epochs"])
    synth = read_manifest(next(gan.glob("a2b-*"))).sample(7, random_state=0)
    assert folder == gan
    for made, file in zip(resynthesise(learn, synth), synth.file): assert np.array_equal(made, np.rint(plt.imread(file)*255))

def test_the_ensemble_trains_on_more_rows_and_the_others_do_not(run, nih, monkeypatch, tmp_path):
    used = {}
    original = study.run_arm
    def spy(arm, rows, *args, **kwargs):
        used[arm] = rows
        return original(arm, rows, *args, **kwargs)
    monkeypatch.setattr(study, "run_arm", spy)
    run_backbone("test_resnet", str(nih), out=str(run.parent), **TINY)
    more = len(used["real-synth-meta"]) - len(used["real-meta"])
    assert more == len(read_manifest(next(run.parent.glob("cyclegan-*/a2b-*"))))
    for o in ("test", "valid"): assert (used["real-synth"].split == o).sum() == (used["real"].split == o).sum()

def test_quality_and_gains_are_printed(run, nih, capsys):
    run_backbone("test_resnet", str(nih), out=str(run.parent), **TINY)
    out = capsys.readouterr().out
    assert "Gain Real-Meta to Ensemble" in out and "Synthetic against real Pneumonia that the GAN never saw" in out
    assert "told apart" in out and "floor" in out
    row = pd.read_csv(run/"table1.csv").iloc[0]
    assert "[" in row["Gain Real-Meta to Ensemble"] and "[" in row["Ensemble"]

def test_the_number_of_synthetic_rows_and_their_metadata_are_flags(run, nih):
    settings = TINY | dict(arms="real-synth-meta", synthetic=9, metadata="image-only")
    run_backbone("test_resnet", str(nih), out=str(run.parent), **settings)
    synth = read_manifest(next(run.parent.glob("cyclegan-*/a2b-9-image-only")))
    assert len(synth) == 9 and set(synth.metadata_policy) == {"image-only"}

def test_too_few_synthetic_rows_to_judge_are_said_and_used(run, nih, capsys):
    run_backbone("test_resnet", str(nih), out=str(run.parent), **TINY | dict(arms="real-synth-meta", synthetic=7))
    assert "are too few to judge by" in capsys.readouterr().out

def test_run_gan_makes_both_classes_and_figures(run, nih):
    folder = run_gan(str(nih), size=32, epochs=1, normals=60, weights="none", out=str(run.parent))
    assert folder == next(run.parent.glob("cyclegan-*")) # the backbones' own
    assert set(read_manifest(next(folder.glob("b2a-*"))).label) == {"Normal"}
    plot_gan(folder)
    assert all(o.stat().st_size > 5000 for o in (folder/"fig2.png", *folder.glob("*/memorised.png")))
    assert {o.parent.name[:3] for o in folder.glob("*/memorised.png")} == {"a2b", "b2a"}

def test_a_gan_killed_goes_on_and_gives_the_same_bits(nih, tmp_path):
    code = f"from cxr_fastai.all import *; run_gan({str(nih)!r}, size=32, epochs=4, normals=60, weights='none', out={{!r}})"
    start = lambda out: subprocess.Popen([sys.executable, "-c", code.format(str(out))], stdout=subprocess.PIPE, text=True)
    process = start(tmp_path/"killed")
    while process.poll() is None and not list(tmp_path.glob("killed/*/checkpoints/checkpoint-000002.pt")): time.sleep(.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(tmp_path.glob("killed/*/a2b-*"))
    assert "going on after epoch" in start(tmp_path/"killed").communicate()[0]
    start(tmp_path/"whole").communicate()
    names = sorted(o.relative_to(tmp_path/"whole") for o in tmp_path.glob("whole/*/*2*/*.png"))
    assert len(names) > 20
    for o in names: assert (tmp_path/"whole"/o).read_bytes() == (tmp_path/"killed"/o).read_bytes()
    a, b = (next(tmp_path.glob(f"{o}/*/history.csv")).read_bytes() for o in ("whole", "killed"))
    assert a == b

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
    with pytest.raises(ValueError, match="--arms: raal is not known; there are real, meta, real-meta, real-synth, real-synth-meta"):
        run_backbone("test_resnet", str(nih), arms="raal", out=str(tmp_path))
    with pytest.raises(FileNotFoundError, match="holds no Data_Entry"): load_cohort(str(tmp_path))
    with pytest.raises(ValueError, match="gan='big' is not known; use fast or reference"):
        run_gan(str(nih), gan="big", normals=60, out=str(tmp_path))

def test_figures_are_drawn_from_the_files(run):
    plot_run(run)
    assert all((run/arm/"curves.png").stat().st_size > 5000 for arm in ARMS)
    assert plt.imread(run/"roc.png").shape[0] > 300

def test_roc_figure_names_arms_and_areas(run):
    tables = {arm: pd.read_csv(run/arm/"test_predictions.csv") for arm in ARMS}
    legend = [o.get_text() for o in plot_roc(tables, "Pneumonia").axes[0].get_legend().get_texts()]
    area = roc_auc_score(tables["real"].label == "Pneumonia", tables["real"].probability)
    assert any(o.startswith("real (") and f"{area:.2f}" in o for o in legend)
