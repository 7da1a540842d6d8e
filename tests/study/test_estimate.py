import pandas as pd, pytest
from cxr_fastai.cli import main
from cxr_fastai.gan.pipeline import gan_each_way, gan_folder, synthetic_minority
from cxr_fastai.settings import Gan, plan_of
from cxr_fastai.study.estimate import cells_table, estimate, gan_estimate, gigabytes, jobs_text, whole
from cxr_fastai.study.grid import Study
from cxr_fastai.study.run import run_study
from cxr_fastai.study.speed import Undecoded
from cxr_fastai.study.tune import tuned_plan

pytestmark = pytest.mark.usefixtures("small_gan")
TINY = dict(backbones="test_resnet", size=32, epochs=1, bs=16, weights="none", gan_epochs=1)

def by_job(table): return table.set_index("job")

@pytest.fixture(scope="module")
def begun(rows, tmp_path_factory):
    "A study of which the metadata's cells are done."
    out = tmp_path_factory.mktemp("runs")
    Study(rows, plan_of(**TINY, arms="meta", seeds="0,1"), out).run()
    return Study(rows, plan_of(**TINY, arms="real,meta,real-synth-meta", seeds="0,1"), out)

@pytest.fixture(scope="module")
def table(begun):
    before = sorted(begun.out.rglob("*"))
    found = estimate(begun)
    assert sorted(begun.out.rglob("*")) == before # nothing was written there
    return by_job(found)

def test_jobs_are_counted_done_and_to_do(table):
    assert list(table.index) == ["CycleGANs", "cells of test_resnet", "cells of metadata", "tables and report"]
    assert table.number.tolist() == [2, 4, 2, 1] and table.to_do.tolist() == [2, 4, 0, 1]
    assert (table.number == table.done + table.to_do).all() and table.seconds["cells of metadata"] == 0
    assert (table.seconds[table.to_do > 0] > 0).all() and table.memory_gb["CycleGANs"] > .1
    assert table.disk_gb["CycleGANs"] > 0 and table.disk_gb["cells of test_resnet"] > .001 # 350,000 weights

def test_twice_the_epochs_are_nearly_twice_the_steps(begun, table):
    "Reckoned up from one measurement each: noise apart, a hundred epochs are far more than one."
    plan = plan_of(**TINY | dict(epochs=100, gan_epochs=100), arms="real,real-synth-meta", seeds="0,1")
    more = by_job(estimate(Study(begun.rows, plan, begun.out)))
    assert (more.seconds[:2] > 4*table.seconds[:2]).all()

def test_all_of_it_by_hand():
    table = pd.DataFrame(dict(job=["CycleGANs", "cells of a", "tables and report"], to_do=[1, 5, 1],
                              seconds=[100., 10., 7.], memory_gb=[2., 1., 0.], disk_gb=[.5, .1, 0.]))
    assert whole(table) == dict(seconds=157., memory_gb=2., disk_gb=1.)
    assert whole(table, workers=2) == dict(seconds=100 + 3*10 + 7., memory_gb=4., disk_gb=1.)

def test_numbers_have_the_digits_that_are_of_use():
    assert [gigabytes(o) for o in (0, .00156, 1.234, 12)] == ["-", "0.0016", "1.23", "12.00"]
    table = pd.DataFrame(dict(job=["a", "b", "c"], to_do=[3, 0, 1], seconds=[.44, 0., 400]))
    assert jobs_text(table) == "a 3 x 0.4 s, c 1 x 7 min"

def test_cells_are_listed_by_backbone_and_arm(begun):
    found = cells_table(begun).set_index("arm")
    assert found.seeds_done.to_dict() == dict(Real="-", Meta="0, 1", Ensemble="-")
    assert found.seeds_to_do.to_dict() == dict(Real="0, 1", Meta="-", Ensemble="0, 1")

def test_a_seed_is_done_with_all_of_its_folds(rows, tmp_path):
    study = Undecoded(rows, plan_of(**TINY, arms="meta", folds=3), tmp_path)
    first = study.cells["test_resnet", "meta", 0, 0].folder
    first.mkdir(parents=True)
    (first/"scores.json").touch()
    assert cells_table(study).seeds_to_do.tolist() == ["0"] and cells_table(study).seeds_done.tolist() == ["-"]

def test_a_study_that_is_not_decoded_is_estimated_too(rows, tmp_path):
    study = Undecoded(rows, plan_of(**TINY, arms="real-meta"), tmp_path/"out")
    assert by_job(estimate(study)).to_do["cells of test_resnet"] == 1 and not (tmp_path/"out").exists()

def test_a_dry_run_says_it_and_writes_nothing(tmp_path, capsys):
    flags = TINY | dict(normals=60, arms="real,real-meta", seeds="0,1", out=str(tmp_path/"out"))
    assert run_study(**flags, dry_run=True) is None
    said = capsys.readouterr().out
    assert "| test_resnet | Real-Meta | -          | 0, 1        |" in said and "| cells of test_resnet | 4 " in said
    assert "GB of memory" in said and "Nothing was written there." in said and not (tmp_path/"out").exists()

def test_a_probes_features_have_a_line_of_their_own(rows, tmp_path):
    plan = plan_of(**TINY, arms="real,meta", seeds="0,1", mode="probe")
    table = by_job(estimate(Study(rows, plan, tmp_path)))
    jobs = ["features by test_resnet", "cells of test_resnet", "cells of metadata", "tables and report"]
    assert list(table.index) == jobs
    assert table.to_do["features by test_resnet"] == 1 and table.seconds["features by test_resnet"] > 0
    Study(rows, plan, tmp_path).run()
    assert by_job(estimate(Study(rows, plan, tmp_path))).to_do.tolist() == [0, 0, 0, 1]

def test_a_search_has_a_line_a_backbone_until_it_is_done(rows, tmp_path):
    pytest.importorskip("optuna")
    plan = plan_of(**TINY | dict(size=40), arms="real", mode="probe", tune=2) # not the films of the test above
    table = estimate(Study(rows, plan, tmp_path))
    assert by_job(table).to_do["trials of test_resnet"] == 2 and not (tmp_path/"tune").exists()
    assert whole(table, workers=2)["seconds"] > 2*by_job(table).seconds["trials of test_resnet"] > 0
    found = tuned_plan(plan, rows, tmp_path)
    assert tuned_plan(plan.replace(tune=3), rows, tmp_path, search=False).training.tuned is None
    for o in found, tuned_plan(plan, rows, tmp_path, search=False):
        assert by_job(estimate(Study(rows, o, tmp_path))).to_do["trials of test_resnet"] == 0

GAN = Gan(size=32, epochs=2, weights="none")

def test_a_translator_alone_is_estimated_before_and_after_it_is_there(rows, tmp_path):
    "As many films as are then made; what is there is not to do, and nothing is written."
    before = by_job(gan_estimate(rows, tmp_path, GAN))
    assert not list(tmp_path.iterdir()) and (before.seconds > 0).all() and before.memory_gb.max() > .1
    assert list(before.index) == ["epochs of the CycleGAN", "films of Pneumonia", "films of Normal",
                                  "begun, saved and judged"]
    assert before.to_do.tolist() == before.number.tolist() and before.number.iloc[0] == 2
    made = synthetic_minority(rows, tmp_path, GAN)
    assert len(made) == before.number["films of Pneumonia"]
    half, folder = by_job(gan_estimate(rows, tmp_path, GAN)), gan_folder(rows, tmp_path, GAN)
    assert half.to_do.tolist() == [0, 0, before.number["films of Normal"], 1]
    for o in sorted(folder.glob("checkpoints/*"))[1:] + list(folder.glob("a2b-*")): o.rename(tmp_path/o.name)
    assert by_job(gan_estimate(rows, tmp_path, GAN)).to_do["epochs of the CycleGAN"] == 1 # goes on after the first

def test_a_translator_of_one_way_makes_one_class(rows):
    (way, (gan, name)), = gan_each_way(rows, GAN.replace(gan="cut", synthetic=3)).items()
    assert (way, gan.synthetic, name) == ("a2b", 3, "a2b-3-matched")

def test_the_verb_gan_says_it_and_makes_nothing(tmp_path, capsys):
    flags = "--size 32 --epochs 1 --weights none --normals 60 --dry-run --track tensorboard --out".split()
    assert main(["gan", *flags, str(tmp_path/"runs")]) == 0
    said = capsys.readouterr().out
    assert "films of Pneumonia" in said and "GB of memory" in said and said.endswith("Nothing was written there.\n")
    assert not (tmp_path/"runs").exists()
