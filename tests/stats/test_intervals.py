import numpy as np, pytest
from scipy.stats import norm, t as student
from sklearn import metrics as skm
from cxr_fastai.stats.draws import resample
from cxr_fastai.stats.intervals import calibrated, percentiles, procedure, spread, summary
from cxr_fastai.stats.areas import auc_interval, mean_area
from cxr_fastai.stats.scoring import METRICS, scores, weighted_metrics, wilson

def two_images_each():
    "Probabilities with ties, two images of some patients."
    rng = np.random.default_rng(0)
    label = (rng.random(200) < .3).astype(int)
    prob = (1/(1 + np.exp(-(rng.normal(size=200) + label - .6)))).round(2)
    return label, prob, np.arange(200) // 2

@pytest.fixture
def drawn(): return two_images_each()

def test_unweighted_they_are_the_metrics_of_scores(drawn):
    label, prob, _ = drawn
    found, expected = weighted_metrics(label, prob), scores(label, prob)
    for k in METRICS: assert found[k] == pytest.approx([expected[k]], abs=1e-12)

def test_weighted_they_are_sklearns(drawn):
    label, prob, patients = drawn
    weights = resample(patients, label, 30)
    found = weighted_metrics(label, prob, weights, threshold=.4)
    called = prob > .4
    for i, w in enumerate(weights):
        kwargs = dict(sample_weight=w)
        expected = dict(
            accuracy=skm.accuracy_score(label, called, **kwargs), recall=skm.recall_score(label, called, **kwargs),
            specificity=skm.recall_score(label, called, pos_label=0, **kwargs),
                        f1=skm.f1_score(label, called, **kwargs),
            precision=skm.precision_score(label, called, **kwargs), rocauc=skm.roc_auc_score(label, prob, **kwargs),
            balanced_accuracy=skm.balanced_accuracy_score(label, called, **kwargs),
            pr_auc=skm.average_precision_score(label, prob, **kwargs),
                        brier=skm.brier_score_loss(label, prob, **kwargs))
        for k, v in expected.items(): assert found[k][i] == pytest.approx(v, abs=1e-9), k

def test_what_is_undefined_is_nan_and_no_nought():
    found = weighted_metrics([0, 1, 0], [.1, .2, .3], [[1, 1, 1], [1, 0, 1], [0, 1, 0]], calibration=False)
    assert np.isnan(found["precision"]).all() and found["recall"][0] == found["f1"][0] == 0
    assert found["specificity"][0] == 1
    assert np.isnan([found[o][1] for o in ("recall", "rocauc", "pr_auc", "balanced_accuracy", "f1")]).all()
    assert np.isnan(found["specificity"][2])
    label, prob = np.repeat([1, 0], (12, 30)), np.random.default_rng(0).random((2, 42))
    mean = spread(label, np.stack([prob[0], prob[1]*.4]), resample(range(42), label, 50), calibration=False)["mean"]
    # of the seed that has one
    assert mean["precision"] == weighted_metrics(label, prob[0], calibration=False)["precision"]

def test_blocks_change_nothing(drawn, monkeypatch):
    label, prob, patients = drawn
    weights = resample(patients, label, 50)
    whole = weighted_metrics(label, prob, weights)
    monkeypatch.setattr("cxr_fastai.stats.scoring.BLOCK", 7*200)
    for k, v in weighted_metrics(label, prob, weights).items():
        assert v == pytest.approx(whole[k], abs=1e-9, nan_ok=True)

@pytest.mark.slow
def test_one_cells_interval_is_that_of_a_plain_bootstrap(drawn):
    label, prob, patients = drawn
    found = spread(label, prob, resample(patients, label, 4000))
    rng, ill = np.random.default_rng(5), np.maximum(label[::2], label[1::2]).astype(bool)
    aucs = []
    for _ in range(2000):
        who = np.concatenate([rng.choice(np.flatnonzero(o), o.sum()) for o in (ill, ~ill)])
        at = np.concatenate([2*who, 2*who + 1])
        aucs.append(skm.roc_auc_score(label[at], prob[at]))
    assert found.loc["rocauc", ["low", "high"]].tolist() == pytest.approx(np.quantile(aucs, [.025, .975]), abs=.012)
    assert np.isnan(found.loc["rocauc", "sd"])

def test_seeds_give_the_mean_the_sd_and_one_interval_for_the_mean(drawn):
    label, prob, patients = drawn
    both, draws = np.stack([prob, np.random.default_rng(1).random(200)]), resample(patients, label, 500)
    found, each = spread(label, both, draws), [spread(label, p, draws) for p in both]
    assert found["mean"]["rocauc"] == pytest.approx(np.mean([o["mean"]["rocauc"] for o in each]))
    assert found["sd"]["rocauc"] == pytest.approx(np.std([o["mean"]["rocauc"] for o in each], ddof=1))
    assert found["low"]["rocauc"] < found["mean"]["rocauc"] < found["high"]["rocauc"]
    width = lambda o: o["high"]["rocauc"] - o["low"]["rocauc"]
    assert width(found) < max(map(width, each))

def test_each_seed_may_have_a_threshold_of_its_own(drawn):
    label, prob, patients = drawn
    found = spread(label, np.stack([prob, prob]), resample(patients, label, 10), [.2, .8])
    expected = [(prob[label == 1] > t).mean() for t in (.2, .8)]
    assert found["mean"]["recall"] == pytest.approx(np.mean(expected)) and found["sd"]["recall"] > 0

def test_percentiles_leave_out_what_is_undefined():
    assert percentiles(np.r_[np.nan, np.arange(1, 101)],.9) == (5, 95)
    assert percentiles(np.r_[0., np.inf, np.inf]) == (0, np.inf)
    assert np.isnan(percentiles(np.array([np.nan]))).all()

def test_a_test_set_as_large_as_nihs_fits_in_memory():
    import tracemalloc
    rng = np.random.default_rng(0)
    label = (rng.random(30_000) < .02).astype(int)
    draws = resample(np.arange(30_000), label, 200)
    tracemalloc.start()
    weighted_metrics(label, rng.random(30_000), draws)
    assert tracemalloc.get_traced_memory()[1] < 600e6
    tracemalloc.stop()

def spans(label, prob, who=None, **kwargs):
    who = range(len(label)) if who is None else who
    return spread(label, prob, resample(who, label, 200), calibration=False, **kwargs)[["low", "high"]]

def test_all_or_none_has_wilsons_interval_by_patients():
    label, who = np.repeat([1, 0], (50, 20)), np.repeat(range(7), 10)
    found = spans(label, label*.8 + .1, who)
    assert tuple(found.loc["recall"]) == wilson(5, 5) and found.low["recall"] == pytest.approx(.566, abs=1e-3)
    assert tuple(found.loc["specificity"]) == wilson(2, 2) and found.low["precision"] == wilson(5, 5)[0]
    assert tuple(spans(label, label*.8 + .1, who, patients=range(70)).loc["recall"]) == wilson(50, 50)

def test_no_interval_is_a_point():
    label = np.repeat([1, 0], (30, 78))
    for prob in np.full(108, .1), np.full(108,
                                          .9), label*.8 + .1, .9 - label*.8, np.random.default_rng(0).random((2, 108)):
        found = spread(label, prob, resample(range(108), label, 100))
        assert ((found.high - found.low > 1e-6) | found.low.isna()).all()
        assert (found.low.isna() == found.high.isna()).all()
        assert ((found.low <= found["mean"] + 1e-9) & (found["mean"] <= found.high + 1e-9) | found.low.isna()).all()
    none = spans(label, np.full(108, .1))
    assert .6 < none.low["accuracy"] < .723 < none.high["accuracy"] < .8 # what no resample of 30 + 78 changes

def test_seeds_that_contradict_one_another_have_no_interval_of_these_models():
    label = np.repeat([1, 0], 20)
    found = spread(label, np.stack([np.full(40, .9), np.full(40, .1)]), resample(range(40), label, 100),
                   calibration=False)
    assert found["mean"]["recall"] == .5 and np.isnan(found.low["recall"])
    assert (found.proc_low["recall"], found.proc_high["recall"]) == pytest.approx((0, 1), abs=.01)

def test_the_interval_of_the_procedure_is_satterthwaites():
    each, variance = np.array([.6, .7, .75]), .0009
    luck = each.var(ddof=1)/3
    df = 2*(luck + variance)**2/luck**2
    half = student.ppf(.975, df)*(luck + variance)**.5
    assert procedure(each, variance) == pytest.approx((each.mean() - half, each.mean() + half))
    low, high = procedure(each, variance, unit=True)
    assert 0 < low < each.mean() < high < 1 and np.isnan(procedure(each[:1], variance)).all()

def test_no_interval_of_a_brier_score_is_below_nought():
    label = np.arange(40) % 2
    found = spread(label, np.array([np.full(40, .3), np.full(40, .9)]), np.ones((9, 40)), calibration=False)
    assert found.loc["brier", "proc_low"] == 0 and found.loc["brier", "proc_high"] == 1

def test_the_procedures_interval_holds_what_training_gives_on_average():
    "Luck of .3 in the skill of a model: the models' own interval holds it in about 72%."
    rng, held, own = np.random.default_rng(0), 0, 0
    truth = norm.cdf(1.2/(2 + .3**2)**.5)
    for _ in range(200):
        label, hard = np.repeat([1, 0], (40, 100)), rng.normal(size=140)*.7
        skill = 1.2 + .3*rng.normal(size=(3, 1))
        prob = norm.cdf(skill*label + hard + .51**.5*rng.normal(size=(3, 140)) - .6)
        area, variance, _ = mean_area(label, prob)
        low, high = procedure([mean_area(label, p)[0] for p in prob], variance, unit=True)
        held += low <= truth <= high
        own += np.subtract(*auc_interval(label, prob)[::-1]) < high - low
    assert held >= 180 and own > 190

def test_gaps_of_calibration_hold_their_truth():
    "Where predictions are right, and where they are too extreme; as the expected calibration error never did."
    rng, held = np.random.default_rng(1), np.zeros(2)
    for _ in range(60):
        x = rng.normal(-.8, 1.2, 200)
        for i, slope in enumerate((1, .6)):
            prob, right = 1/(1 + np.exp(-x)), 1/(1 + np.exp(-slope*x))
            label = (rng.random(200) < right).astype(int)
            once, drawn = calibrated(label == 1, prob[None], resample(range(200), label, 100, stratified=False))
            o = summary(once, drawn, label == 1, prob[None], prob[None] > .5, np.arange(200)).loc["ici"]
            held[i] += o.low <= (0 if i == 0 else .0735) <= o.high
    assert (held >= 53).all()
