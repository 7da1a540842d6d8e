import json, shutil, signal, time
from pathlib import Path
import matplotlib.pyplot as plt
import numpy as np, pandas as pd, pytest
from PIL import Image
from cxr_fastai.cohort.cache import RadiographCache
from cxr_fastai.cohort.parts import fine_change
from cxr_fastai.gan import judge as room
from cxr_fastai.gan import pipeline
from cxr_fastai.gan.pipeline import gan_folder, run_gan, synthetic_folder, synthetic_minority, train_gan
from cxr_fastai.cohort.rows import read_rows
from cxr_fastai.settings import Gan
from cxr_fastai.report.films import plot_gan
from cxr_fastai.cohort.synthetic import add_synthetic, read_manifest
from cxr_fastai.gan.synthesis import resynthesise
from conftest import ROOT, SMALL_GAN, start_python

pytestmark = pytest.mark.usefixtures("small_gan")

TINY = Gan(size=32, epochs=1, weights="none")

@pytest.fixture(scope="module")
def made(rows, tmp_path_factory):
    "Folder of the runs, and the synthetic rows of its GAN."
    out = tmp_path_factory.mktemp("runs")
    return out, synthetic_minority(rows, out, TINY)

def test_half_the_majority_is_synthesised_from_training_rows_alone(made, rows):
    out, synth = made
    train = rows[rows.split == "train"]
    assert len(synth) == (train.label == "Normal").sum() // 2 and set(synth.source_image) <= set(train.image)
    assert set(synth.label) == {"Pneumonia"} and set(synth.split) == {"train"}
    folder = synthetic_folder(rows, out, TINY)
    assert set(json.loads((folder/"generator.json").read_text())["seen"]) == set(train.patient_id.astype(str))
    assert Path(synth.file.iloc[0]).parent == folder

def test_who_asks_again_is_given_what_is_there(made, rows, capsys):
    out, synth = made
    before = {o: o.stat().st_mtime_ns for o in out.rglob("*.p*")}
    again = synthetic_minority(rows, out, TINY)
    assert {o: o.stat().st_mtime_ns for o in out.rglob("*.p*")} == before and again.equals(synth)
    assert "all 1 epochs" not in capsys.readouterr().out # the network isn't even built

def test_another_number_or_policy_shares_the_gan(made, rows):
    out, _ = made
    more = synthetic_minority(rows, out, TINY.replace(synthetic=3, metadata="donor"))
    assert len(more) == 3 and set(more.metadata_policy) == {"donor"} and len(list(out.glob("cyclegan-*"))) == 1

def test_other_settings_rows_or_pixels_are_another_gan(made, rows):
    own = gan_folder(rows, made[0], TINY)
    assert own.exists()
    for o in dict(epochs=2), dict(size=36), dict(gan="reference"), dict(precision="fp32"):
        assert gan_folder(rows, made[0], TINY.replace(**o)) != own
    assert own not in (gan_folder(rows, made[0], TINY, seed=1), gan_folder(rows.assign(age=50.), made[0], TINY))

def test_each_png_is_made_again_from_its_line_by_the_gan_of_its_folder(made, rows):
    out, synth = made
    learn, folder = train_gan(read_rows(gan_folder(rows, out, TINY)/"rows.csv"), out, TINY)
    assert folder == gan_folder(rows, out, TINY)
    some = synth.sample(7, random_state=0)
    for pixels, file in zip(resynthesise(learn, some), some.file):
        assert np.array_equal(pixels, np.rint(plt.imread(file)*255))

def test_two_that_ask_at_once_train_one(rows, tmp_path):
    code = """
import sys, pandas as pd
from cxr_fastai.gan.pipeline import synthetic_minority
from cxr_fastai.settings import Gan
synthetic_minority(pd.read_pickle(sys.argv[1]), sys.argv[2], Gan(weights="none", size=32, epochs=2))
"""
    rows.to_pickle(tmp_path/"rows.pkl")
    out = [o.communicate()[0]
           for o in [start_python(SMALL_GAN + code, tmp_path/"rows.pkl", tmp_path/"runs") for _ in range(2)]]
    assert sum("are in" in o for o in out) == 1 # one made them, the other was given them

@pytest.fixture(scope="module")
def nih(tmp_path_factory):
    "A folder in NIH's layout: the demo set's csv and images."
    folder = tmp_path_factory.mktemp("nih")
    shutil.copytree(ROOT/"data"/"phantom", folder, dirs_exist_ok=True)
    return folder

def test_run_gan_makes_both_classes_judges_them_and_draws_figures(nih, tmp_path, capsys):
    folder = run_gan(data=str(nih), size=32, epochs=1, normals=60, weights="none", out=str(tmp_path))
    out = capsys.readouterr().out
    assert "Synthetic against real Pneumonia of the valid rows, which the GAN never saw" in out and "told apart" in out
    assert "floor" in out and "called Pneumonia after translation, by thumbnail: share of films" in out # its meaning
    assert set(read_manifest(next(folder.glob("b2a-*"))).label) == {"Normal"}
    plot_gan(folder)
    assert all(o.stat().st_size > 5000 for o in (folder/"fig2.png", *folder.glob("*/memorised.png")))
    for name in "memorised", "changed", "changed_mean":
        assert {o.parent.name[:3] for o in folder.glob(f"*/{name}.png")} == {"a2b", "b2a"}
    for o in folder.glob("*/quality.csv"): assert pd.read_csv(o).meaning.notna().all() # of every figure

def test_synthetic_films_are_judged_on_valid_rows_alone(made, rows, monkeypatch):
    out, synth = made
    asked, folder = [], Path(synth.file[0]).parent
    figure = pd.DataFrame([dict(figure="none", value=1.)])
    monkeypatch.setattr(room, "FEWEST", 2)
    for o in "quality", "told_apart":
        monkeypatch.setattr(room, o, lambda real, *args, **kwargs: asked.append(real) or figure)
    monkeypatch.setattr(room, "memorisation", lambda train, *args, **kwargs: asked.append(train) or pd.DataFrame())
    monkeypatch.setattr(room, "by_heart", lambda near: figure)
    figure.to_csv(folder/"quality.csv") # of an older version, which said nothing of what was changed
    (folder/"SYNTHETIC.txt").write_text("no patient is shown")
    for _ in range(2): synthetic_minority(rows, out, TINY) # judged once
    assert [set(o.split) for o in asked] == [{"train"}, {"valid"}, {"valid"}]
    assert set(pd.read_csv(folder/"quality.csv").judged_on) == {"valid"}
    assert "real patients" in (folder/"SYNTHETIC.txt").read_text()

def test_a_part_of_the_change_is_made_of_the_same_films_by_no_second_training(made, rows, monkeypatch, capsys):
    out, synth = made
    monkeypatch.setattr(pipeline, "train_gan", None)
    part = synthetic_minority(rows, out, TINY, part="local")
    lines = ["source_image", "source_file", "patient_id", "donor_image", "age", "sex", "view", "split", "label"]
    assert part[lines].equals(synth[lines]) and not {*part.image} & {*synth.image}
    source = RadiographCache(synth.source_file.tolist(), 32).get(synth.source_file)
    assert np.array_equal([np.asarray(Image.open(o)) for o in part.file],
                          fine_change(source, np.stack([np.asarray(Image.open(o)) for o in synth.file])))
    assert len(add_synthetic(rows, part)) == len(rows) + len(part)
    before = {o: o.stat().st_mtime_ns for o in out.rglob("*local*/*")}
    assert synthetic_minority(rows, out, TINY, part="local").equals(part)
    assert {o: o.stat().st_mtime_ns for o in out.rglob("*local*/*")} == before # written once
    learn, _ = train_gan(rows, out, TINY)
    with pytest.raises(ValueError, match="These lines are of the generator .*local"): resynthesise(learn, part)

def test_too_few_to_judge_by_are_said_and_kept(rows, made, capsys):
    assert len(synthetic_minority(rows, made[0], TINY.replace(synthetic=7))) == 7
    assert "are too few to judge by" in capsys.readouterr().out

def test_a_gan_killed_goes_on_and_gives_the_same_bits(nih, tmp_path):
    code = """
from cxr_fastai.gan.pipeline import run_gan
run_gan(data={!r}, size=32, epochs=8, normals=60, weights="none", out={!r})"""
    begin = lambda out: start_python(SMALL_GAN + code.format(str(nih), str(out)))
    process = begin(tmp_path/"killed")
    while process.poll() is None and not list(tmp_path.glob("killed/*/checkpoints/checkpoint-00000[2-7].pt")):
        time.sleep(.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(tmp_path.glob("killed/*/a2b-*"))
    assert "going on after epoch" in begin(tmp_path/"killed").communicate()[0]
    begin(tmp_path/"whole").communicate()
    names = sorted(o.relative_to(tmp_path/"whole") for o in tmp_path.glob("whole/*/*2*/*.png"))
    assert len(names) > 20
    for o in names: assert (tmp_path/"whole"/o).read_bytes() == (tmp_path/"killed"/o).read_bytes()
    a, b = (next(tmp_path.glob(f"{o}/*/history.csv")).read_bytes() for o in ("whole", "killed"))
    assert a == b

def test_bad_arguments_get_one_sentence(rows, tmp_path):
    with pytest.raises(ValueError, match="gan='big' is not known; use fast or reference"): Gan(gan="big")
    with pytest.raises(ValueError, match="metadata='made-up' is not known"): Gan(metadata="made-up")
