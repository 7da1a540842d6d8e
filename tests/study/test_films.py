import re
import numpy as np, pandas as pd, pytest
from PIL import Image
from cxr_fastai.arms import comparisons_of
from cxr_fastai.cohort.leaks import LeakError
from cxr_fastai.core.csvs import read_csv
from cxr_fastai.core.files import read_json
from cxr_fastai.report.checklist import checklist
from cxr_fastai.report.notes import generator_notes, sources_mark
from cxr_fastai.settings import plan_from, plan_of, study_flags
from cxr_fastai.stats.compare import compare_arms
from cxr_fastai.stats.power import Setting, simulated, skill
from cxr_fastai.study.cell import arm_rows
from cxr_fastai.study.estimate import estimate
from cxr_fastai.study.grid import Study
from cxr_fastai.study.run import print_study, save_study
from conftest import draw

pytestmark = pytest.mark.usefixtures("small_gan")

TINY = dict(backbones="test_resnet", size=32, epochs=1, bs=8, weights="none", gan_epochs=1)
ARMS = ("real-meta,real-synth-meta,real-synth-meta@a,real-synth-meta@b,real-meta+duplicate,real-meta+pretrain,"
        "real-meta+pretrain@a,real-meta+pretrain-duplicate")

@pytest.fixture(scope="module")
def films(tmp_path_factory):
    "Films by two generators: 8 of each class by a, with a table, 10 of each by b."
    root, rng = tmp_path_factory.mktemp("films"), np.random.default_rng(9)
    for name, n in ("a", 16), ("b", 20):
        for i in range(n):
            place = root/name/["Normal", "Pneumonia"][i % 2]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw(i % 2, rng)).save(place/f"{i}.png")
    return root

def grid(rows, out, films, arms=ARMS, names="ab", **kwargs):
    given = [f"{o}={films/o}" for o in names]
    return Study(rows, plan_of(arms=arms, synthetic_from=given, **TINY | kwargs), out)

@pytest.fixture(scope="module")
def done(rows, films, tmp_path_factory): return grid(rows, tmp_path_factory.mktemp("runs"), films).run()

@pytest.fixture(scope="module")
def folder(done): return save_study(done)

def cell(study, arm): return next(c for c in study.cells.values() if c.name == arm)

def test_every_arm_has_as_many_films(done, rows):
    assert done.errors == {} and {c.settings["n"] for c in done.cells.values() if c.arm.more} == {8}
    assert {c.settings["n_negative"] for c in done.cells.values() if c.arm.pretraining} == {8}
    for arm in "real-synth-meta", "real-synth-meta@a", "real-synth-meta@b", "real-meta+duplicate":
        assert len(arm_rows(cell(done, arm))) == len(rows) + 8

def test_pretraining_and_its_control_take_equal_steps_on_films_of_both_classes(done):
    told = {o: read_json(cell(done, f"real-meta+{o}").folder/"scores.json") for o in
            ("pretrain", "pretrain@a", "pretrain-duplicate")}
    assert {(o["pretraining_films"], o["pretraining_steps"]) for o in told.values()} == {(16, 2)}
    table = done.collect()[1].set_index("arm")
    assert table.pretraining_steps.dropna().eq(2).all() and table.pretraining_steps.notna().sum() == 3
    plain, first = (pd.read_csv(cell(done, o).folder/"history.csv") for o in ("real-meta", "real-meta+pretrain"))
    assert len(first) == 2*len(plain) # then the whole real schedule

def test_ours_and_two_generators_are_in_one_table_1_and_are_tested_in_pairs(folder):
    line = read_csv(folder/"table1.csv").iloc[0]
    assert {"Ensemble", "Ensemble @a", "Ensemble @b", "Gain Real-Meta to Ensemble @a"} <= {*line.index}
    pairs = {*read_csv(folder/"comparisons.csv")[["before", "after"]].itertuples(index=False, name=None)}
    assert {("real-meta", "real-synth-meta@a"), ("real-synth-meta", "real-synth-meta@b"),
            ("real-synth-meta@a", "real-synth-meta@b"), ("real-meta+duplicate", "real-synth-meta@a"),
            ("real-meta+pretrain-duplicate", "real-meta+pretrain"), ("real-synth-meta@a", "real-meta+pretrain@a"),
            ("real-meta+pretrain-duplicate", "real-meta+pretrain@a")} <= pairs

def test_every_table_says_that_sources_are_unknown(folder, capsys):
    for name in "scores", "scores_by_seed", "metrics", "comparisons", "subgroups", "cells", "predictions", "table1":
        table = read_csv(folder/f"{name}.csv").fillna("")
        said = table["sources"].str.contains("no copies by hash")
        arms = [o for o in ("arm", "before", "after") if o in table]
        hit = table[arms].agg(" ".join, axis=1).str.contains("@") if arms else True
        assert (said == hit).all() and said.any(), name
    print_study(folder)
    assert "What the films of @a, @b were made from" in capsys.readouterr().out

def test_the_report_says_whose_films_they_are_and_what_comes_first(done, folder):
    about = read_json(folder/"settings.json")
    assert re.match("@a: films of Normal 8, Pneumonia 8 in .*of 0 it is known", generator_notes(about)[0])
    items = checklist(about, done.split_rows, read_csv(folder/"flow.csv"), done.collect()[1]).answer
    for said in ("the generators @a, @b were fitted on isn't known", "the control for as many steps",
                 "@b: films of Normal 10, Pneumonia 10"): assert items.str.contains(said, regex=False).any(), said

def test_sources_that_are_known_are_not_marked(rows, films, tmp_path):
    names, train = [f"{o.parent.name}/{o.name}" for o in sorted((films/"a").glob("*/*"))], rows[rows.split == "train"]
    (films/"a"/"films.csv").write_text("file,label,source\n" + "\n".join(
        f"{o},{o.split('/')[0]},{s}" for o, s in zip(names, train.image)))
    known = grid(rows, tmp_path, films, "real-meta,real-synth-meta@a", "a")
    (films/"a"/"films.csv").unlink()
    assert sources_mark(known.about, pd.DataFrame(dict(arm=["real-synth-meta@a"]))) is None
    assert known.about["generators"]["a"] == dict(films=dict(Normal=8, Pneumonia=8), sources=16)

def test_other_films_are_another_cell_and_names_and_places_are_none(rows, films, done, tmp_path):
    before = cell(done, "real-synth-meta@a").folder.name
    for o in (films/"a").glob("*/*"):
        (tmp_path/"moved"/o.parent.name).mkdir(parents=True, exist_ok=True)
        (tmp_path/"moved"/o.parent.name/o.name).write_bytes(o.read_bytes())
    plan = plan_of(arms="real-synth-meta@c", synthetic_from=[f"c={tmp_path/'moved'}"], **TINY)
    other = lambda: cell(Study(rows, plan, done.out), "real-synth-meta@c").folder.name
    assert other() == before
    Image.fromarray(draw(1, np.random.default_rng(1))).save(tmp_path/"moved"/"Pneumonia"/"1.png")
    assert other() != before

def test_cells_without_other_generators_are_named_as_before(rows, films, done, tmp_path):
    arms = "real-meta,real-synth-meta,real-meta+duplicate"
    plain = Study(rows, plan_of(arms=arms, synthetic=8, **TINY), tmp_path)
    for o in arms.split(","): assert cell(plain, o).folder.name == cell(done, o).folder.name

def test_settings_give_the_same_study_again(done, folder):
    settings = read_json(folder/"settings.json")
    assert plan_from(settings) == done.plan and "generators" not in study_flags(settings | dict(cohort={}))

def test_a_planted_copy_stops_the_study_before_its_first_cell(rows, films, tmp_path):
    for i, o in enumerate([*rows.file[rows.split == "test"][:3], *rows.file[rows.split == "train"][:4]]):
        Image.open(o).resize((70, 70)).save(tmp_path/f"{i}.png")
    study = Study(rows, plan_of(arms="real,real-synth@c", synthetic_from=f"c={tmp_path}", **TINY), tmp_path/"runs")
    with pytest.raises(LeakError, match="3 of 7 films of @c are copies"): study.run()
    assert not list((tmp_path/"runs").glob("cells/*/scores.json"))

@pytest.mark.parametrize("arms, names, more, said", [
    ("real-synth@a", "", {}, "a: an arm has films of it"),
    ("real-synth@a", "aa", {}, "name each generator once"), ("real-synth@a", "a", dict(synthetic=9), "a has 8: give"),
    ("real-synth@a+1", "a", {}, "a has 8"), ("real-synth@a", "a", dict(protocol="paper"), "take 'clean'"),
    ("real+pretrain", "", dict(protocol="paper"), "without pretraining"),
    ("real-synth-meta@a+source", "a", {}, "16 of 16 it isn't known"),
    ("real+pretrain", "", dict(gan="cut"), "a CUT makes the minority's alone"),
    ("real-meta+pretrain", "", dict(mode="probe"), "nothing to prepare")])
def test_what_can_not_be_asked_for_is_one_sentence(rows, films, tmp_path, arms, names, more, said):
    with pytest.raises(ValueError, match=re.escape(said) if "(" in said else said):
        grid(rows, tmp_path, films, arms, names, **more)

def test_a_class_that_pretraining_needs_and_films_lack(rows, films, tmp_path):
    given = f"c={films/'a'/'Pneumonia'}"
    with pytest.raises(ValueError, match="holds no film of Normal, which an arm of @c needs"):
        Study(rows, plan_of(arms="real+pretrain@c", synthetic_from=given, **TINY), tmp_path)

def test_a_generator_that_no_arm_names_joins_as_two(films):
    assert plan_of(arms="real", synthetic_from=f"a={films}").arms == ("real", "real-synth@a", "real-synth-meta@a")
    assert plan_of(arms="real-synth@a", synthetic_from=f"a={films}").arms == ("real-synth@a",)

def test_its_time_is_estimated(rows, films, tmp_path):
    table = estimate(grid(rows, tmp_path, films, "real-meta+pretrain@a", "a"))
    assert table.set_index("job").to_do["cells of test_resnet"] == 1 and not list(tmp_path.iterdir())

def test_a_planted_null_and_a_planted_gain_are_told_apart():
    "At the simulator's large size, by the test of a verdict."
    large = Setting(320, 1050, seeds=9)
    assert (simulated(large, .8, 0, studies=60)["says"] == "none").mean() >= .95
    assert (simulated(large, .8, .05, studies=40, seed=1)["says"] == "gain").mean() >= .8

def test_of_three_generators_the_one_that_helps_is_found():
    "By the tables of a study: what was planted for each stands in its line."
    arms, parts = ["real-meta", "real-synth-meta@null", "real-synth-meta@good"], []
    setting = Setting(320, 1050, seeds=3)
    d = np.repeat(skill(np.array([.8, .8, .88]))[:, None], 3, 1)
    for side, (label, who, prob) in zip(("test", "valid"), setting.draw(np.random.default_rng(5), d)):
        about = pd.DataFrame(dict(backbone="net", side=side, image=[f"{side}{i}" for i in range(len(who))],
                                  patient_id=who + (side == "valid")*10_000, label=label, synthetic=False))
        parts += [about.assign(arm=a, seed=s, probability=prob[i, s]) for i, a in enumerate(arms) for s in range(3)]
    table = compare_arms(pd.concat(parts), comparisons_of(arms), n=50).set_index(["before", "after"])
    assert table.p_verdict["real-meta", arms[1]] > .05 > table.p_verdict["real-meta", arms[2]]
