import os, resource, sys, threading, time
import numpy as np, pandas as pd, pytest
from filelock import FileLock
from PIL import Image
from cxr_fastai.arms import RIVALS, arm_title, expand_arms
from cxr_fastai.models.predictions import predict_rows
from cxr_fastai.trained.bundle import load_bundle, read_card
from cxr_fastai.settings import PAPER_ARMS, plan_of
from cxr_fastai.report.page import report
from cxr_fastai.stats.ledger import read_plan
from cxr_fastai.study.cell import CellError, read_cell
from cxr_fastai.study.grid import Study
from cxr_fastai.study.run import save_study
from cxr_fastai.trained.hub import model_card
from cxr_fastai.stats.tables import score_table
from cxr_fastai.cohort.synthetic import read_manifest
from conftest import SMALL_GAN, start_python

pytestmark = pytest.mark.usefixtures("small_gan")

TINY = dict(size=32, epochs=1, bs=16, weights="none", gan_epochs=1)

def grid(rows, out, backbones=("test_resnet",), arms=PAPER_ARMS, seeds=(0, 1), **kwargs):
    own = {o: kwargs.pop(o) for o in ("data", "track") if o in kwargs}
    return Study(rows, plan_of(backbones=backbones, arms=arms, seeds=seeds, **TINY | kwargs), out, **own)

def finished(study): return {c.folder for c in study.cells.values() if (c.folder/"scores.json").exists()}
def stamps(study):
    return {o: o.stat().st_mtime_ns for o in study.out.rglob("*") if o.is_file() and "lock" not in o.name}

@pytest.fixture(scope="module")
def done(rows, tmp_path_factory): return grid(rows, tmp_path_factory.mktemp("runs")).run()

def test_the_grid_is_backbones_times_arms_times_seeds(done, capsys):
    predictions, cells = done.collect()
    assert len(done.cells) == len(cells) == 8 and cells.error.isna().all()
    assert [tuple(o) for o in cells[["backbone", "arm", "seed"]].to_numpy()] == list(done.cells)
    assert len(predictions) == 8 * (predictions.arm.eq("real") & predictions.seed.eq(0)).sum()

def test_all_cells_are_scored_on_the_same_real_rows(done, rows):
    predictions, _ = done.collect()
    assert not predictions.synthetic.any()
    for _, o in predictions.groupby(["arm", "seed"]):
        assert list(o.image[o.side == "test"]) == list(rows.image[rows.split == "test"])
    assert len(predictions.groupby(["arm", "seed"]).probability.apply(tuple).unique()) == 8 # and no two say the same

def test_one_gan_a_seed_whatever_the_arms(done):
    folders = list(done.out.glob("cyclegan-*"))
    assert len(folders) == 2 and {len(list(o.glob("a2b-*"))) for o in folders} == {1}
    neg = (done.rows.label[done.rows.split == "train"] == "Normal").sum()
    assert all(len(read_manifest(next(o.glob("a2b-*")))) == neg // 2 for o in folders)

def test_a_finished_grid_is_only_read(done, rows, capsys):
    before, again = stamps(done), grid(rows, done.out).run()
    assert stamps(again) == before and capsys.readouterr().out == ""
    pd.testing.assert_frame_equal(again.collect()[0], done.collect()[0])

def test_more_seeds_arms_and_backbones_add_cells_and_run_only_those(done, rows):
    before = stamps(done)
    more = grid(rows, done.out, ["test_resnet", "resnet10t"], ["real", "meta"], [0, 2])
    assert len(finished(more)) == 2 # real and meta of seed 0; meta is the same cell for both backbones
    more.run()
    assert {k: v for k, v in stamps(more).items() if k in before} == before
    assert len(finished(more)) == 2*2 + 2
    assert more.cells["test_resnet", "meta", 2].folder == more.cells["resnet10t", "meta", 2].folder

@pytest.mark.parametrize("change", [
    dict(epochs=2), dict(lr=1e-4), dict(bs=8), dict(size=40), dict(epoch_rule="best"), dict(fusion="film"),
    dict(protocol="paper"), dict(precision="fp32")])
def test_a_changed_setting_is_a_new_cell(done, rows, change):
    own = lambda s: s.cells["test_resnet", "real-meta", 0].folder
    assert own(grid(rows, done.out, **change)) != own(done) == own(grid(rows, done.out))

def test_what_an_arm_does_not_use_does_not_name_it(done, rows):
    own = lambda s, arm: s.cells["test_resnet", arm, 0].folder
    other = grid(rows, done.out, gan_epochs=9, size=40, fusion="film", synthetic=5)
    assert own(other, "meta") == own(done, "meta")
    other = grid(rows, done.out, gan_epochs=9, fusion="film", synthetic=5)
    assert own(other, "real") == own(done, "real") and own(other, "real-synth-meta") != own(done, "real-synth-meta")

def test_an_arm_that_spells_out_a_default_is_the_same_cell(rows, tmp_path):
    study = grid(rows, tmp_path, arms=["real-meta", "real-meta+concat", "real-synth-meta", "real-synth-meta+matched"],
                 seeds=[0])
    assert len({c.folder for c in study.cells.values()}) == 2

def test_a_weights_file_names_a_cell_by_its_content(rows, tmp_path):
    folders = []
    for content in b"one", b"two", b"one":
        (tmp_path/"w.pth").write_bytes(content)
        study = grid(rows, tmp_path, [f"test_resnet={tmp_path}/w.pth", "resnet10t"], ["real"], [0])
        folders.append(study.cells["test_resnet", "real", 0].folder)
        assert study.cells["resnet10t", "real", 0].settings["weights"] == "none"
    assert folders[0] == folders[2] != folders[1]

def test_every_rival_dose_policy_and_fusion_runs(rows, tmp_path):
    arms = expand_arms(["real", "real-meta", "real-synth"], RIVALS, ["0", "1/8", "1/4", "1/2", "1"],
                       ["matched", "source", "donor", "missing", "image-only"],
                       ["concat", "logits", "gated", "film", "attention"])
    study = grid(rows, tmp_path, arms=arms, seeds=[0]).run()
    predictions, cells = study.collect()
    assert cells.error.isna().all() and len(cells) == 3 + 14 + 4 + 5 + 5
    train = rows[rows.split == "train"]
    gap = (train.label == "Normal").sum() - (train.label == "Pneumonia").sum()
    made = {o.name for o in tmp_path.glob("cyclegan-*/a2b-*")}
    assert {f"a2b-{round(gap*o)}-matched" for o in (1/8, 1/4, 1/2, 1)} <= made
    prior = cells.set_index("arm").train_prior
    assert prior["real-synth-meta+1"] == prior["real+oversample"] == .5 and prior["real+focal"] == prior["real"] < .4
    assert prior["real+duplicate"] == prior["real-synth"] # the control for mere size

def test_a_bundle_carries_its_cells_name_and_its_card_quotes_that_line(rows, tmp_path):
    arms = ["real-meta", "real-meta+film", "meta", "real-synth-meta+1/8", "real-synth-meta+donor"]
    study = grid(rows, tmp_path, arms=arms, seeds=[0]).run()
    predictions, cells = study.collect()
    scored = score_table(predictions, cells, n=20)
    def card(arm, arms):
        "Of an arm's bundle, in a study of these arms."
        cells[cells["arm"].isin(arms)].to_csv(tmp_path/"cells.csv", index=False)
        scored[scored["arm"].isin(arms)].to_csv(tmp_path/"scores.csv", index=False)
        return model_card(study.cells["test_resnet", arm, 0].folder/"bundle", tmp_path)
    aucs = scored[scored["metric"] == "rocauc"].set_index("arm")["mean"]
    assert aucs.nunique() > 3
    for arm in arms:
        folder = study.cells["test_resnet", arm, 0].folder
        assert read_card(folder/"bundle")["summary"]["cell"] == dict(
            folder=folder.name, backbone=None if arm == "meta" else "test_resnet", arm=arm, seed=0, protocol="clean")
        for of in arms, [arm]:
            text = card(arm, of)
            assert f"- arm: {arm_title(arm)} ({arm})" in text
            assert f"| area under the ROC curve | {aucs[arm]:.3f} |" in text

def test_an_arms_words_name_no_cell_beyond_what_they_set(rows, tmp_path):
    one = grid(rows, tmp_path, arms=["real-meta+film"], seeds=[0]).cells["test_resnet", "real-meta+film", 0]
    two = grid(rows, tmp_path, arms=["real-meta"], seeds=[0], fusion="film").cells["test_resnet", "real-meta", 0]
    assert one.folder == two.folder and one.settings == two.settings and one.settings["arm"] == "real-meta"
    assert (one.about["arm"], two.about["arm"]) == ("real-meta+film", "real-meta") and one.arm.fusion == "film"

def test_names_that_no_cell_could_do_with_are_refused_before_the_first(rows, tmp_path):
    "With the nearest ones; a file that doesn't fit, when the study is to run and nothing is written yet."
    for given, why in ((dict(backbones=["tset_resnet"]), "no model 'tset_resnet'.*test_resnet"),
                       (dict(weights="imagnet"), "did you mean imagenet"),
                       (dict(backbones=["test_resnet=gone.pth"]), "'gone.pth' is neither a file nor"),
                       (dict(cat_names=["sexx"]), "No metadata column sexx.*did you mean sex[?]")):
        with pytest.raises((ValueError, FileNotFoundError), match=why): grid(rows, tmp_path, seeds=[0], **given)
    (tmp_path/"a.pth").write_text("no weights")
    for given, why in ((dict(weights=str(tmp_path/"a.pth")), "it is text, which begins 'no weights'"),
                       (dict(backbones=["test_vit"], size=40), "patches of 16 pixels")):
        study = grid(rows, tmp_path/"out", arms=["real"], seeds=[0], **given)
        with pytest.raises(ValueError, match=why): study.run()
    assert not (tmp_path/"out"/"cells").exists()
    assert grid(rows, tmp_path, ["nowhere"], ["meta"], [0]).cells # which no cell reads

def test_a_cell_that_fails_is_said_and_the_others_go_on(rows, tmp_path, capsys, broken_resnet10t):
    study = grid(rows, tmp_path, ["resnet10t", "test_resnet"], ["real", "meta"], [0]).run()
    out, (predictions, cells) = capsys.readouterr().out, study.collect()
    assert out.count("FAILED") == 1 and "resnet10t-real-0" in out
    error = cells.set_index(["backbone", "arm"]).error
    assert error.notna().sum() == 1 and "resnet10t" in error["resnet10t", "real"]
    assert "\n" not in error["resnet10t", "real"]
    assert len(predictions.groupby(["backbone", "arm"])) == 3
    assert (study.cells["resnet10t", "real", 0].folder/"error.txt").read_text().startswith("Traceback")

def test_a_gan_that_fails_costs_the_arms_that_need_it(rows, tmp_path):
    few = rows.groupby(["split", "label"], observed=True).cumcount() < 2
    few = rows[(rows.split != "train") | (rows.label == "Normal") | few]
    study = grid(few.reset_index(drop=True), tmp_path, seeds=[0], gan_size=26).run() # no multiple of 4
    error = study.collect()[1].set_index("arm").error
    assert error.notna().sum() == 1
    assert "not run, as the CycleGAN of seed 0: ValueError: size=26" in error["real-synth-meta"]

def test_cells_that_were_not_run_and_damaged_ones_are_named(done, rows, tmp_path):
    study = grid(rows, tmp_path, arms=["real", "meta"], seeds=[0])
    predictions, cells = study.collect()
    assert predictions is None and cells.error.str.contains("was not run").all()
    study.run()
    (study.cells["test_resnet", "real", 0].folder/"predictions.csv").write_text("image\n")
    predictions, cells = study.collect()
    assert set(predictions.arm) == {"meta"} and "is damaged" in cells.set_index("arm").error["real"]

def test_changed_pixels_are_new_cells_beside_the_old(rows, tmp_path):
    files = []
    for o in rows.file:
        files.append(str(tmp_path/os.path.basename(o)))
        Image.open(o).save(files[-1])
    own = rows.assign(file=files)
    old = grid(own, tmp_path/"runs", arms=["real", "meta"], seeds=[0]).run()
    Image.fromarray(np.full((48, 48), 99, np.uint8)).save(files[0])
    new = grid(own, tmp_path/"runs", arms=["real", "meta"], seeds=[0])
    assert new.cells["test_resnet", "real", 0].folder != old.cells["test_resnet", "real", 0].folder
    assert new.cells["test_resnet", "meta", 0].folder == old.cells["test_resnet", "meta", 0].folder # it sees no pixel

def test_a_folder_that_cannot_be_written_is_said(rows, tmp_path):
    (tmp_path/"runs").mkdir()
    (tmp_path/"runs"/"cells").write_text("a file where a folder should be")
    study = grid(rows, tmp_path/"runs", arms=["meta"], seeds=[0]).run()
    error = study.collect()[1].error[0]
    assert "metadata-meta-0" in error and "\n" not in error

CODE = """
import resource, signal, sys, pandas as pd
from cxr_fastai.settings import plan_of
from cxr_fastai.report.page import report
from cxr_fastai.stats.ledger import read_plan
from cxr_fastai.study.cell import CellError, read_cell
from cxr_fastai.study.grid import Study
from cxr_fastai.study.run import save_study
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
plan = plan_of(backbones="test_resnet", arms={arms!r}, seeds="0,1", size=32, epochs=3, bs=16, weights="none",
               gan_epochs=3)
Study(pd.read_pickle({rows!r}), plan, {out!r}).run({run})
print("over")
"""

def script(rows, folder, arms=("real", "real-synth-meta"), run="", limit=resource.RLIM_INFINITY):
    rows.to_pickle(folder/"rows.pkl")
    code = CODE.format(rows=str(folder/"rows.pkl"), out=str(folder/"runs"), arms=list(arms), run=run, limit=limit)
    return start_python(code if limit > 0 else SMALL_GAN + code) # that of a full disk is as large as by default

def same_bits(a, b):
    names = sorted(o.relative_to(a.out) for o in a.out.glob("*/*/predictions.csv"))
    assert len(names) == len(a.cells)
    for o in names: assert (a.out/o).read_bytes() == (b.out/o).read_bytes(), o

def test_two_processes_share_a_grid_and_no_cell_is_run_twice(rows, tmp_path):
    both = [script(rows, tmp_path) for _ in range(2)]
    out = [o.communicate()[0] for o in both]
    assert all(o.endswith("over\n") for o in out), [o.stderr for o in both]
    study = grid(rows, tmp_path/"runs", arms=["real", "real-synth-meta"], epochs=3, gan_epochs=3)
    assert len(finished(study)) == 4
    for c in study.cells.values(): assert (c.folder/"log.txt").read_text().count("train_loss") == 1
    assert len(list(study.out.glob("cyclegan-*"))) == 2

def test_killed_in_the_gan_and_in_a_cell_it_goes_on_with_the_same_bits(rows, tmp_path):
    study = grid(rows, tmp_path/"runs", arms=["real", "real-synth-meta"], epochs=3, gan_epochs=3)
    (tmp_path/"whole").mkdir()
    for seen in "cyclegan-*/checkpoints/*.pt", "cells/*real-synth-meta*/history.csv":
        process = script(rows, tmp_path)
        while process.poll() is None and not list(study.out.glob(seen)): time.sleep(.01)
        process.kill()
        process.wait()
        assert len(finished(study)) < 4
    assert script(rows, tmp_path).communicate()[0].endswith("over\n")
    assert script(rows, tmp_path/"whole").communicate()[0].endswith("over\n")
    same_bits(grid(rows, tmp_path/"whole"/"runs", arms=["real", "real-synth-meta"], epochs=3, gan_epochs=3), study)

def test_a_disk_that_is_full_when_the_gan_is_written_fails_what_needs_it(rows, tmp_path):
    out = script(rows, tmp_path, limit=9_000_000).communicate()[0] # room for a classifier, not for a checkpoint
    assert out.count("FAILED CycleGAN of seed") == 2
    assert out.count("checkpoint-000001.pt can't be written; is the disk full?") == 2
    study = grid(rows, tmp_path/"runs", arms=["real", "real-synth-meta"], epochs=3, gan_epochs=3)
    assert {c.settings["arm"] for c in study.cells.values() if c.folder in finished(study)} == {"real"}
    assert not list(study.out.glob("cyclegan-*/checkpoints/*"))

def test_two_workers_give_the_bits_of_one(rows, tmp_path):
    for name, run in ("one", ""), ("two", "workers=2"):
        (tmp_path/name).mkdir()
        assert script(rows, tmp_path/name, ["real", "meta", "real-meta"], run).communicate()[0].endswith("over\n")
    a, b = (grid(rows, tmp_path/o/"runs", arms=["real", "meta", "real-meta"], epochs=3) for o in ("one", "two"))
    same_bits(a, b)

def test_on_ray_a_machine_that_dies_while_it_works_loses_nothing(rows, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    import ray
    from ray.cluster_utils import Cluster
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    watchful = dict(health_check_initial_delay_ms=0, health_check_period_ms=500, health_check_failure_threshold=2)
    cluster = Cluster(initialize_head=True, head_node_args=dict(
        num_cpus=0, object_store_memory=80_000_000, _system_config=watchful))
    nodes = [cluster.add_node(num_cpus=1, object_store_memory=80_000_000) for _ in range(2)]
    study = grid(rows, tmp_path/"ray", arms=["real", "meta"], epochs=8)
    def kill():
        while len(list(study.out.glob("cells/*/history.csv"))) < 2: time.sleep(.01)
        cluster.remove_node(nodes[0], allow_graceful=False)
    killer = threading.Thread(target=kill)
    try:
        killer.start()
        study.run(ray=cluster.address)
        killer.join()
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert not study.errors and len(finished(study)) == 4
    same_bits(study, grid(rows, tmp_path/"here", arms=["real", "meta"], epochs=8).run())

def test_bad_arguments_get_one_sentence(rows, tmp_path):
    for wrong, why in ((dict(protocol="mine"), "protocol='mine' is not known; use clean or paper"),
                       (dict(epoch_rule="first"), "use last or best"),
                       (dict(fusion="sum"), "use concat or logits"), (dict(arms=["reel"]), "'reel' is not known"),
                       (dict(seeds=[]), "at least a backbone, an arm and a seed"),
                       (dict(gan="big"), "gan='big' is not known"),
                       (dict(arms=["real-synth-meta+1/100"]), "is no row"),
                       (dict(arms=["real", "meta"], bs=999), "bs=999 is more than the [0-9]+ training rows"),
                       (dict(arms=["meta"], bs=999, folds=3), "choose bs <= [0-9]+")):
        with pytest.raises(ValueError, match=why): grid(rows, tmp_path, **wrong)

def test_the_papers_protocol_scores_synthetic_rows_and_says_which(rows, tmp_path, capsys):
    study = grid(rows, tmp_path, protocol="paper", seeds=[0]).run()
    predictions, cells = study.collect()
    assert cells.error.isna().all()
    test = predictions[predictions.side == "test"]
    real = test[~test.synthetic]
    images = real.groupby("arm").image.apply(list)
    assert all(o == images["real"] for o in images) # paired on the real rows
    assert set(test.arm[test.synthetic]) == {"real-synth-meta"} and (test.label[test.synthetic] == 1).all()
    assert len(real) // len(images) == (len(rows) - len(rows)//5) // 5
    gan, = tmp_path.glob("cyclegan-*")
    seen = pd.read_csv(gan/"rows.csv")
    assert len(seen) == len(rows) and set(seen.split) == {"train"} # its CycleGAN saw the rows that are scored

def test_what_another_process_synthesises_is_left_to_it_and_ready_cells_are_taken(rows, tmp_path, capsys):
    study, held = grid(rows, tmp_path, arms=["meta", "real-synth-meta"], seeds=[0]), []
    place = next(c.settings["gan"] for c in study.cells.values() if c.gan)
    (tmp_path/place).mkdir()
    lock, took = FileLock(tmp_path/place/".lock"), study._outcomes
    def outcomes(engine, jobs, left):
        for job, outcome in took(engine, jobs, left):
            held.append((str(job), outcome["status"]))
            yield job, outcome
        lock.release()
    study._outcomes = outcomes
    with lock.acquire(): study.run()
    assert [status for _, status in held] == ["busy", "done", "done", "done"] and "metadata-meta" in held[1][0]
    assert study.collect()[1].error.isna().all() and "epoch 1 of 1" in capsys.readouterr().out

# Folds

FOLDS = dict(arms=("real", "real-meta"), seeds=(0,), folds=3, repeats=2)

@pytest.fixture(scope="module")
def folded(rows, tmp_path_factory): return grid(rows, tmp_path_factory.mktemp("folds"), **FOLDS).run()

def test_every_patient_is_in_test_once_a_repeat(folded, rows):
    predictions, cells = folded.collect()
    assert len(cells) == 3*2*2 == len({*cells["folder"]}) and cells["error"].isna().all()
    for (arm, repeat), own in predictions[predictions["side"] == "test"].groupby(["arm", predictions["fold"] // 3]):
        assert sorted(own["image"]) == sorted(rows["image"]), (arm, repeat)
    sides = {o: {*own.loc[own["split"] == "test", "image"]} for o, own in folded.splits.items()}
    assert sides[0] | sides[1] | sides[2] == {*rows["image"]} and sides[0] not in (sides[3], sides[4], sides[5])

def test_the_firewall_holds_in_every_fold(folded):
    for own in folded.splits.values():
        assert (own.groupby("patient_id")["split"].nunique() == 1).all() and own["split"].nunique() == 3

def test_a_seed_counts_with_all_of_its_folds(folded, rows):
    again = grid(rows, folded.out, **FOLDS)
    lost = again.cells["test_resnet", "real", 0, 4].folder
    (lost/"scores.json").rename(lost/"away")
    try: predictions, cells = again.collect()
    finally: (lost/"away").rename(lost/"scores.json")
    assert set(predictions["arm"]) == {"real-meta"} and cells["error"].notna().sum() == 1

def test_rows_of_folds_say_in_which_they_are_tested(folded):
    table = folded.rows
    assert "split" not in table and set(table["fold"]) == {0, 1, 2} and set(table["fold_2"]) == {3, 4, 5}
    for o, own in folded.splits.items():
        assert ((table["fold" if o < 3 else "fold_2"] == o) == (own["split"] == "test")).all()
    assert folded.about["split"]["folds"] == 3 and folded.about["split"]["repeats"] == 2

def test_each_fold_has_its_own_cyclegan_and_number(rows, tmp_path):
    study = grid(rows, tmp_path, arms=("real-synth", "real-synth+1/2"), seeds=(0,), folds=3)
    assert len({c.settings["gan"] for c in study.cells.values()}) == 3
    jobs = study._syntheses(list(study.cells.values()), loud=False)
    assert [o.fold for o in jobs] == [0, 1, 2] and len({o.log for o in jobs}) == 3
    for c in study.cells.values():
        train = c.rows[c.rows["split"] == "train"]
        assert c.settings["n"] < (train["label"] == "Normal").sum()

def test_cells_of_one_split_are_named_as_before(rows, tmp_path):
    assert [*grid(rows, tmp_path).cells] == [*grid(rows, tmp_path, folds=None, repeats=1).cells]
    first = next(iter(grid(rows, tmp_path).cells.values()))
    assert first.fold is None and "fold" not in first.settings and "fold" not in first.about

@pytest.mark.parametrize("flags, said", [(dict(folds=2), "3 or more"), (dict(folds=0), "3 or more"),
    (dict(repeats=2), "name both"), (dict(folds=5, repeats=0), "1 or more"),
    (dict(folds=5, protocol="paper"), "no folds")])
def test_folds_that_are_none(flags, said):
    with pytest.raises(ValueError, match=said): plan_of(**flags)

def test_a_class_too_small_for_the_folds(rows, tmp_path):
    few = pd.concat([rows[rows["label"] == "Normal"], rows[rows["label"] == "Pneumonia"].head(3)])
    with pytest.raises(ValueError, match="5 sides need 5 patients of each class; Pneumonia has [23]"):
        grid(few, tmp_path, folds=5)

def test_the_report_of_folds(folded):
    folder = save_study(folded, .1)
    page = report(folder).read_text()
    assert "Folds" in page and "all films out of fold" in page and "in 3 folds, each in test once" in page
    assert "corrected t over 6 trainings of 6 folds" in page and "fold 2" in page
    table = pd.read_csv(folder/"folds.csv")
    assert table["folds"].tolist() == [6, 6] and (table["least"] <= table["mean"]).all()
    assert read_plan(folder/"plan.json")["test_images"] == len(folded.rows) and not list(folder.glob("*.unfinished"))

def test_folds_of_one_arm_are_reported_without_a_comparison(rows, tmp_path):
    folder = save_study(grid(rows, tmp_path, arms=("meta",), seeds=(0,), folds=3).run())
    page = report(folder).read_text()
    assert "all films out of fold" in page and "Difference of AUC" not in page

# Probes

PROBE = dict(arms=("real", "meta", "real-meta", "real-synth-meta"), seeds=(0,), mode="probe")

@pytest.fixture(scope="module")
def probed(rows, tmp_path_factory): return grid(rows, tmp_path_factory.mktemp("probes"), **PROBE).run()

def test_a_probes_cells_keep_heads_and_give_bundles(probed, rows):
    assert probed.collect()[1]["error"].isna().all()
    for (_, arm, _), c in probed.cells.items():
        assert ((c.folder/"bundle").exists(), (c.folder/"head.safetensors").exists()) == (arm == "meta", arm != "meta")
    c = probed.cells["test_resnet", "real-synth-meta", 0]
    found = predict_rows(load_bundle(c.bundle()), rows)
    said = read_cell(c)[1]
    assert found["image"].tolist() == said["image"].tolist()
    assert np.abs(found["probability"].to_numpy() - said["probability"].to_numpy()).max() < .01 # bf16, head in fp32
    assert read_card(c.bundle())["summary"]["cell"]["arm"] == "real-synth-meta" and c.bundle() == c.folder/"bundle"

def test_training_goes_on_from_a_cell(probed):
    learn = probed.cells["test_resnet", "real-meta", 0].learner()
    with learn.no_bar(), learn.no_logging(): learn.fine_tune(1)
    assert len(learn.recorder.values) == 1

def test_a_full_cells_learner_is_what_was_trained(done, rows):
    c = done.cells["test_resnet", "real-meta", 0]
    found = predict_rows(c.learner(), rows)["probability"]
    assert np.abs(found.to_numpy() - read_cell(c)[1]["probability"].to_numpy()).max() < 1e-6
    assert c.bundle() == c.folder/"bundle"

def test_a_learner_of_a_cell_that_was_not_run(rows, tmp_path):
    with pytest.raises(CellError, match="isn't finished"): next(iter(grid(rows, tmp_path).cells.values())).learner()

def test_a_probe_is_another_cell_and_its_views_another_probe(rows, tmp_path, probed, done):
    folder = lambda **kwargs: grid(rows, tmp_path, **kwargs).cells["test_resnet", "real-meta", 0].folder.name
    assert len({folder(), folder(mode="probe"), folder(mode="probe", views=2)}) == 3
    meta = lambda study: study.cells["test_resnet", "meta", 0].settings
    assert meta(probed) | dict(lr=0) == meta(done) | dict(lr=0)

@pytest.mark.parametrize("flags, said", [(dict(arms=["real-meta+attention"]), "nowhere to look"),
    (dict(arms=["real+augment"]), "views=4"), (dict(fusion="attention", arms=["real-meta"]), "nowhere to look")])
def test_arms_that_a_probe_cannot_train_are_refused_before_the_first_cell(rows, tmp_path, flags, said):
    with pytest.raises(ValueError, match=said): grid(rows, tmp_path, mode="probe", **flags)

@pytest.mark.parametrize("flags, said", [(dict(views=2), "nothing else has views"), (dict(views=0), "once or more"),
                                         (dict(mode="lookup"), "mode")])
def test_modes_that_are_none(flags, said):
    with pytest.raises(ValueError, match=said): plan_of(**flags)
