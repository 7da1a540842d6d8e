import json
import pandas as pd, pytest
from cxr_fastai.settings import check_primary
from cxr_fastai.stats.ledger import (declare_plan, last_look, look_at, looks, mark_plan, mark_scores, read_plan,
    rows_digest)

ABOUT = dict(backbones=["net"], arms=["real-meta", "real-synth-meta"], seeds=[0, 1, 2], protocol="clean", epochs=3,
             size=64,
             weights_of=dict(net="none"), data_digest="d")

@pytest.fixture
def test_rows(): return pd.DataFrame(dict(image=["a.png", "b.png"], patient_id=[7, 8]))

def compared(**columns):
    return pd.DataFrame([dict(backbone="net", before="real-meta", after="real-synth-meta", of_seeds="0, 1, 2",
                              rocauc=.1) | columns])

def test_a_plan_is_written_once_with_a_digest_and_a_time(tmp_path, test_rows):
    plan = declare_plan(tmp_path, ABOUT, test_rows)
    assert plan == read_plan(tmp_path/"plan.json") == json.loads((tmp_path/"plan.json").read_text())
    assert plan["seeds"] == [0, 1, 2] and plan["primary"] == ["real-meta", "real-synth-meta"] and plan["alpha"] == .05
    assert plan["time"] and plan["digest"] and "a.png" not in (tmp_path/"plan.json").read_text()
    more = ABOUT | dict(seeds=[0, 1, 2, 3])
    assert declare_plan(tmp_path, more, test_rows, primary=("real", "meta"), alpha=.01) == plan

def test_other_test_rows_have_a_plan_of_their_own(tmp_path, test_rows):
    first, other = declare_plan(tmp_path, ABOUT, test_rows), test_rows.assign(patient_id=[7, 9])
    second = declare_plan(tmp_path, ABOUT | dict(seeds=[5]), other)
    assert second["seeds"] == [5] and (tmp_path/f"plan-{rows_digest(other)}.json").exists()
    assert declare_plan(tmp_path, ABOUT, test_rows) == first and declare_plan(tmp_path, ABOUT, other) == second

def test_a_plan_that_was_edited_is_refused(tmp_path, test_rows):
    file = tmp_path/"plan.json"
    declare_plan(tmp_path, ABOUT, test_rows)
    file.write_text(file.read_text().replace('"alpha": 0.05', '"alpha": 0.2'))
    with pytest.raises(ValueError, match="plan.json isn't as it was written"): declare_plan(tmp_path, ABOUT, test_rows)
    file.write_text("[]")
    with pytest.raises(ValueError, match="isn't as it was written"): read_plan(file)

def test_what_is_as_planned_is_marked_no(tmp_path, test_rows):
    plan = declare_plan(tmp_path, ABOUT, test_rows)
    o = mark_plan(compared(), plan, ABOUT).iloc[0]
    assert (o.primary, o.exploratory, o.interim, o.alpha, o.protocol) == ("yes", "no", "no", .05, "clean")

@pytest.mark.parametrize("line, about, kwargs, says", [
    (dict(of_seeds="0, 1, 2, 3, 4"), {}, {}, "seed 3, 4 added"),
    (dict(backbone="vgg16"), {}, {}, "backbone vgg16 added"),
    (dict(before="real"), {}, dict(primary=("real", "real-synth-meta")),
     "arm real added, the primary comparison wasn't planned"),
    ({}, dict(epochs=9), {}, "epochs 9, planned 3"), ({}, dict(data_digest="e"), {}, "data_digest e, planned d"),
    ({}, dict(weights_of=dict(net="w.pth")), {}, "weights of net w.pth, planned none"),
    ({}, {}, dict(alpha=.1), "alpha 0.1, planned 0.05")])
def test_what_was_not_planned_is_exploratory(tmp_path, test_rows, line, about, kwargs, says):
    plan = declare_plan(tmp_path, ABOUT, test_rows)
    o = mark_plan(compared(**line), plan, ABOUT | about, **kwargs).iloc[0]
    assert o.exploratory == says and o.primary == "yes"

def test_fewer_seeds_than_planned_are_interim(tmp_path, test_rows):
    plan = declare_plan(tmp_path, ABOUT, test_rows)
    o = mark_plan(compared(of_seeds="0"), plan, ABOUT | dict(seeds=[0])).iloc[0]
    assert o.interim == "seed 1, 2 missing" and o.exploratory == "no"

def test_a_plan_that_came_late_makes_nothing_confirmatory(tmp_path, test_rows):
    plan = declare_plan(tmp_path, ABOUT, test_rows, finished=4)
    assert mark_plan(compared(), plan, ABOUT).exploratory[0] == "the plan was written when 4 cells were finished"
    (tmp_path/"plan.json").unlink()
    look_at(tmp_path, test_rows, study="study-1", settings="s", results="r")
    again = declare_plan(tmp_path, ABOUT, test_rows)
    assert mark_plan(compared(), again, ABOUT).exploratory[0] == "the plan was written after 1 looks at these test rows"

def test_scores_say_what_was_added(tmp_path, test_rows):
    plan = declare_plan(tmp_path, ABOUT, test_rows)
    predictions = pd.DataFrame(dict(backbone="net", arm=["real", "real-meta", "real-meta"], seed=[0, 0, 1]))
    scored = pd.DataFrame(dict(backbone="net", arm=["real", "real-meta"], mean=.5))
    assert mark_scores(scored, predictions, plan, ABOUT).exploratory.tolist() == ["arm real added", "no"]

def test_a_look_is_a_line_and_the_same_results_are_no_new_look(tmp_path, test_rows):
    look = lambda results, rows=test_rows: look_at(tmp_path, rows, study="study-1", settings="s", results=results)
    assert look("r1") == 1 and look("r1") == 1 and look("r2") == 2
    assert look("r1", test_rows.assign(patient_id=[1, 2])) == 1 and looks(tmp_path, rows_digest(test_rows)) == 2
    ledger = pd.read_csv(tmp_path/"ledger.csv")
    assert list(ledger) == ["time", "test_rows", "test_images", "study", "settings", "results"] and len(ledger) == 3

def test_rows_are_known_in_any_order_and_type(test_rows):
    digest, other = rows_digest(test_rows), rows_digest(test_rows.assign(image=["a", "c"]))
    assert digest == rows_digest(test_rows[::-1].astype(str)) != other

@pytest.mark.parametrize("primary, alpha, says",
                         [(("real", "real"), None, "must be before,after: two of the arms"),
                          (("real", "meta"), None, "two of the arms real, real-meta"),
                          (("real",), None, "before,after"), (None, 1.5, "alpha=1.5 must be above 0")])
def test_a_primary_comparison_is_of_two_arms(primary, alpha, says):
    with pytest.raises(ValueError, match=says): check_primary(primary, alpha, ["real", "real-meta"])

def test_the_last_look_of_a_study_has_its_time(tmp_path, test_rows):
    assert last_look(tmp_path, "study-1") is None
    for results in "a", "b": look_at(tmp_path, test_rows, study="study-1", settings="s", results=results)
    assert last_look(tmp_path, "study-2") is None
    assert last_look(tmp_path, "study-1") == pd.read_csv(tmp_path/"ledger.csv")["time"].iloc[-1]
