import numpy as np, pytest
from sklearn import metrics as skm
from cxr_fastai.calibration import threshold_at
from cxr_fastai.intervals import at_specificity_draws, percentiles, resample, spread, weighted_metrics
from cxr_fastai.scoring import METRICS, scores

@pytest.fixture
def drawn():
    "Probabilities with ties, two images of some patients."
    rng = np.random.default_rng(0)
    label = (rng.random(200) < .3).astype(int)
    prob = (1/(1 + np.exp(-(rng.normal(size=200) + label - .6)))).round(2)
    return label, prob, np.arange(200) // 2

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
            specificity=skm.recall_score(label, called, pos_label=0, **kwargs), f1=skm.f1_score(label, called, **kwargs),
            precision=skm.precision_score(label, called, **kwargs), rocauc=skm.roc_auc_score(label, prob, **kwargs),
            balanced_accuracy=skm.balanced_accuracy_score(label, called, **kwargs),
            pr_auc=skm.average_precision_score(label, prob, **kwargs), brier=skm.brier_score_loss(label, prob, **kwargs))
        for k, v in expected.items(): assert found[k][i] == pytest.approx(v, abs=1e-9), k

def test_nothing_called_positive_is_precision_nought():
    found = weighted_metrics([0, 1, 0], [.1, .2, .3])
    assert found["precision"] == found["recall"] == found["f1"] == 0 and found["specificity"] == 1

def test_blocks_change_nothing(drawn, monkeypatch):
    label, prob, patients = drawn
    weights = resample(patients, label, 50)
    whole = weighted_metrics(label, prob, weights)
    monkeypatch.setattr("cxr_fastai.intervals.BLOCK", 7*200)
    for k, v in weighted_metrics(label, prob, weights).items(): assert v == pytest.approx(whole[k], abs=1e-9, nan_ok=True)

def test_resamples_draw_patients_within_strata(drawn):
    label, _, patients = drawn
    weights = resample(patients, label, 300, seed=1)
    assert weights.shape == (300, 200) and (weights[:, ::2] == weights[:, 1::2]).all() # both images of a patient
    ill = np.repeat(np.maximum(label[::2], label[1::2]), 2).astype(bool)
    assert (weights[:, ill].sum(1) == ill.sum()).all() and (weights[:, ~ill].sum(1) == (~ill).sum()).all()
    assert weights[:, ::2].mean(0) == pytest.approx(1, abs=.3) and weights.max() > 3
    assert (resample(patients, label, 300, seed=1) == weights).all() and (resample(patients, label, 300, seed=2) != weights).any()

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
    assert found["high"]["rocauc"] - found["low"]["rocauc"] < max(o["high"]["rocauc"] - o["low"]["rocauc"] for o in each)

def test_each_seed_may_have_a_threshold_of_its_own(drawn):
    label, prob, patients = drawn
    found = spread(label, np.stack([prob, prob]), resample(patients, label, 10), [.2, .8])
    expected = [(prob[label == 1] > t).mean() for t in (.2, .8)]
    assert found["mean"]["recall"] == pytest.approx(np.mean(expected)) and found["sd"]["recall"] > 0

def test_percentiles_leave_out_what_is_undefined():
    assert percentiles(np.r_[np.nan, np.arange(1, 101)], .9) == (5, 95) and percentiles(np.r_[0., np.inf, np.inf]) == (0, np.inf)
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

def test_thresholds_are_found_anew_in_every_draw(drawn):
    label, prob, patients = drawn
    rng = np.random.default_rng(3)
    (w, v), valid = (resample(patients, label, 40, o) for o in (0, 1)), rng.random((2, 200)).round(2)
    found = at_specificity_draws(label, [prob, prob], w, label, valid, v, .9)
    for s in 0, 1:
        for b in range(40):
            times = v[b].astype(int)
            at = threshold_at(label.repeat(times), valid[s].repeat(times), .9)
            hit, total = (w[b]*(prob > at)*label).sum(), (w[b]*label).sum()
            passed = (w[b]*(prob <= at)*(1 - label)).sum()/(w[b]*(1 - label)).sum()
            assert (found["recall"][s, b], found["specificity"][s, b]) == pytest.approx((hit/total, passed))
    once = at_specificity_draws(label, prob, np.ones((1, 200)), label, prob, np.ones((1, 200)), .95)
    assert once["recall"] == pytest.approx((prob[label == 1] > threshold_at(label, prob, .95)).mean())

def test_a_draw_without_a_class_has_no_value():
    weights = np.array([[1., 1, 0, 0], [1, 1, 1, 1]])
    found = at_specificity_draws([1, 1, 0, 0], [.9, .8, .1, .2], weights, [1, 1, 0, 0], [.9, .8, .1, .2], weights[::-1])
    assert np.isnan(found["specificity"][0, 0]) and np.isnan(found["recall"][0, 1]) and found["recall"][0, 0] == 1
