import numpy as np, pandas as pd, pytest
from scipy.stats import norm
from cxr_fastai.report.figures import plot_groups
from cxr_fastai.stats.draws import resample
from cxr_fastai.stats.scoring import weighted_metrics
from cxr_fastai.stats.subgroups import group_scores, group_words, interactions, small_groups, subgroups

def drawn(seed=0, n=240, seeds=2, gain=0., where="M"):
    "Two arms; the second gains `gain` in the group `where` alone. Some patients have two films."
    rng, parts = np.random.default_rng(seed), []
    rows = pd.DataFrame(dict(image=[f"{i:03}" for i in range(n)], sex=rng.choice(["F", "M"], n), view="PA"))
    label, hard = (rng.random(n) < .4).astype(int), rng.normal(size=n)
    about = pd.DataFrame(dict(backbone="net", side="test", image=rows.image, patient_id=np.arange(n)*4//5, label=label,
                              synthetic=False))
    for arm, more in ("real", 0), ("real-meta", gain):
        for s in range(seeds):
            score = (1 + more*(rows.sex == where))*label + hard + .5*rng.normal(size=n) - .6
            parts.append(about.assign(arm=arm, seed=s, probability=norm.cdf(score)))
    return pd.concat(parts, ignore_index=True), rows

@pytest.fixture(scope="module")
def study(): return drawn()

def test_a_groups_figures_and_their_difference_are_those_of_its_rows(study):
    predictions, rows = study
    found = group_scores(predictions, rows).set_index(["arm", "column", "group", "metric"])
    own = predictions[predictions.arm == "real"].merge(rows)
    of = lambda part, k: np.mean(
        [weighted_metrics(o.label, o.probability, calibration=False)[k][0] for _, o in part.groupby("seed")])
    inside, outside = own[own.sex == "M"], own[own.sex == "F"]
    for k in "recall", "specificity", "rocauc":
        line = found.loc[("real", "sex", "M", k)]
        assert line.value == pytest.approx(of(inside, k))
        assert line["rest"] == pytest.approx(of(inside, k) - of(outside, k))
        assert line.low < line.value < line.high and line.rest_low < line["rest"] < line.rest_high
        assert line.holm >= line.p
        assert np.isnan(found.loc[("real", "view", "PA", k), "rest"]) # there is no rest

def test_a_difference_has_the_spread_of_a_bootstrap_of_patients():
    predictions, rows = drawn(seeds=1)
    own = predictions[predictions.arm == "real"]
    draws, at = resample(own.patient_id, own.label, 800), (rows.sex == "M").to_numpy()
    of = lambda rows: weighted_metrics(own.label, own.probability, draws*rows, calibration=False)
    inside, outside = of(at), of(~at)
    found = group_scores(predictions, rows).set_index(["arm", "column", "group", "metric"])
    for k in "recall", "specificity", "rocauc":
        line = found.loc[("real", "sex", "M", k)]
        assert (line.rest_high - line.rest_low)/3.92 == pytest.approx(np.nanstd(inside[k] - outside[k]), rel=.1)

def test_few_patients_of_a_class_are_counted_and_no_more(study):
    predictions, rows = study
    ill = predictions[predictions.label == 1].image.unique()
    few = rows.assign(sex=np.where(rows.image.isin(ill[:9]), "X", "F"))
    table = subgroups(predictions, few, ["sex"]).set_index(["arm", "group"])
    line = table.loc[("Real", "X")]
    assert (line.n, line.positives, line.recall, line["recall to the rest"], line.rocauc) == (9, 9, "-", "-", "-")
    assert table.loc[("Real", "F"), "recall"].startswith("0.") and interactions(predictions, few, ["sex"]).empty

def test_a_gain_of_one_group_alone_is_an_interaction():
    found = interactions(*drawn(gain=2.5, n=400)).set_index(["group", "metric"])
    line = found.loc[("M", "rocauc")]
    assert line.group_gain > .1 > abs(line.rest_gain) and line.more == pytest.approx(line.group_gain - line.rest_gain)
    assert line.holm < .05 and line.more_low > 0 and found.loc[("F", "rocauc"), "more"] == pytest.approx(-line.more)
    assert found.holm.ge(found.p).all()

@pytest.mark.slow
def test_alike_groups_raise_few_alarms():
    p = [interactions(*drawn(seed=o, n=160), names=["sex"]).set_index(["group", "metric"]).loc[("M", "rocauc"), "p"]
         for o in range(12)]
    assert np.mean(np.array(p) < .05) <= .25

def test_all_found_in_a_group_is_no_certainty(study):
    predictions, rows = study
    male = predictions.image.map(rows.set_index("image").sex) == "M"
    sure = predictions.assign(probability=predictions.probability.mask(male, .9))
    line = group_scores(sure, rows).set_index(["arm", "group", "metric"]).loc[("real", "M", "recall")]
    assert line.value == 1 and .8 < line.low < 1 and line.rest_high - line["rest"] > 1 - line.low
    none = interactions(sure, rows).set_index(["group", "metric"]).loc[("M", "recall")]
    assert none.group_gain == 0 and np.isnan([none.p, none.more_low]).all()

def test_the_figure_draws_the_tables_numbers(study):
    found = group_scores(*study).set_index(["arm", "group", "metric"])
    negatives, positives = plot_groups(*study).axes
    real = positives.containers[0]
    line = found.loc[("real", "F", "recall")]
    ends = real.lines[2][0].get_segments()[0][:, 0]
    assert real.lines[0].get_xdata()[0] == line.value and ends == pytest.approx((line.low, line.high))
    assert negatives.containers[0].lines[0].get_xdata()[0] == 1 - found.loc[("real", "F", "specificity"), "value"]

def test_any_column_makes_groups_and_numbers_of_sites_are_not_cut(study):
    predictions, rows = study
    n = len(rows)
    rows = rows.assign(site=np.arange(n) % 3 + 1, kilos=np.arange(n) % 90, part=np.arange(n) % 7/10,
                       ok=np.arange(n) % 2 == 0, far=np.where(np.arange(n) % 2, 7, 1007))
    words = group_words(rows, rows.image, ["site", "kilos", "part", "ok", "far"])
    assert set(words.site) == {"1", "2", "3"} and set(words.ok) == {"True", "False"} and set(words.part) == {"0-19"}
    assert set(words.kilos) == {"0-19", "20-39", "40-59", "60-79", "80-99"} and set(words.far) == {"0-19", "1000-1019"}
    table = subgroups(predictions, rows, ["site", "ok"])
    found = {("site", "1"), ("site", "2"), ("site", "3"), ("ok", "True"), ("ok", "False")}
    assert set(zip(table.column, table.group)) == found
    assert set(interactions(predictions, rows, ["site"]).group) == {"1", "2", "3"}

def test_groups_that_are_too_small_are_said():
    label = pd.Categorical.from_codes((np.arange(90) % 3 == 0)*1, ["well", "ill"], ordered=True)
    rows = pd.DataFrame(dict(image=[f"{i}" for i in range(90)], patient_id=range(90), split="test", label=label,
                             site=["A"]*45 + ["B"]*40 + [None]*5, sex="F", half=["x", "y"]*45))
    assert small_groups(rows, ["site", "sex", "half", "none"]) == [
        "site: counts alone, as there are fewer than 10 test patients of a class, in 1 of 3 groups: missing.",
        "sex: all test rows are of one group, F."]
    assert small_groups(rows[:0], ["site"]) == [] and small_groups(rows, []) == []
