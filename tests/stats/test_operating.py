import numpy as np, pytest
from scipy.special import expit
from scipy.stats import norm
from cxr_fastai.stats.calibration import logits, recalibration
from cxr_fastai.stats.operating import fit_temperature, promised, specificity_of, tempered, threshold_by

def drawn(rng, n, share=.3, gap=1.5, times=2.):
    "Labels, what a model says whose log odds are `times` too large, and the score that both rest on."
    label = rng.random(n) < share
    score = rng.normal(gap*label, 1)
    return label, expit(times*(gap*score - gap**2/2 + np.log(share/(1 - share)))), score

@pytest.fixture(scope="module")
def simulations():
    "200 valid sets of 300 rows: slope on fresh rows before and after, the true specificity, and what was promised."
    rng, lines = np.random.default_rng(0), []
    for _ in range(200):
        label, prob, score = drawn(rng, 300)
        t = fit_temperature(label, prob)
        calm = tempered(prob, t)
        at = threshold_by("specificity=.9", label, calm)
        there = norm.cdf(score[np.abs(calm - at).argmin()])
        fresh, said, _ = drawn(rng, 2000)
        before, after = (recalibration(fresh, o)[0][0] for o in (said, tempered(said, t)))
        lines.append((before, after, there, promised(label, calm, at)))
    return lines

def test_after_a_temperature_the_slope_on_fresh_rows_is_one(simulations):
    before, after, *_ = map(np.array, zip(*simulations))
    assert abs(before.mean() - .5) < .03 and .95 <= after.mean() <= 1.05

def test_the_specificity_elsewhere_is_within_what_was_promised(simulations):
    inside = [o["specificity_low"] <= there <= o["specificity_high"] for *_, there, o in simulations]
    wanted = [o["specificity_low"] <= .9 <= o["specificity_high"] for *_, o in simulations]
    width = [o["specificity_high"] - o["specificity_low"] for *_, o in simulations]
    assert np.mean(inside) >= .93 and np.mean(wanted) >= .93 and np.mean(width) < .1

def test_a_temperature_has_the_least_log_loss_and_keeps_the_order():
    label, prob, _ = drawn(np.random.default_rng(1), 200, times=3)
    t = fit_temperature(label, prob)
    loss = lambda o: -np.log(np.where(label, tempered(prob, o), 1 - tempered(prob, o))).mean()
    assert all(loss(t) < loss(t*o) for o in (.8, .99, 1.01, 1.2)) and loss(t) < loss(1)
    assert (np.argsort(prob) == np.argsort(tempered(prob, t))).all()
    np.testing.assert_allclose(tempered(prob, 1), prob, atol=1e-9)
    np.testing.assert_allclose(logits(tempered(prob, 4.)), logits(prob)/4)
    assert fit_temperature(label, tempered(prob, t)) == pytest.approx(1, abs=1e-3)

@pytest.mark.parametrize("prob, why", [([.9, .8, .2, .1], "without a fault"), ([.1, .2, .8, .9], "by chance")])
def test_rows_that_give_no_temperature_are_refused(prob, why):
    with pytest.raises(ValueError, match=why): fit_temperature([1, 1, 0, 0], prob)

def test_rules():
    label, prob = np.array([0]*10 + [1]*4), np.r_[np.arange(10)/10, .35, .75, .85, .95]
    assert threshold_by("specificity=.9", label, prob) == threshold_by("specificity = 0.90", label, prob) == .8
    assert threshold_by("specificity=1", label, prob) == .9
    at, best = threshold_by("youden", label, prob), max(
        (prob[label == 1] > o).mean() + (prob[label == 0] <= o).mean() for o in prob)
    assert (prob[label == 1] > at).mean() + (prob[label == 0] <= at).mean() == best
    assert specificity_of("youden") is None and specificity_of(.3) is None and specificity_of("specificity=.95") == .95
    for o in "specificity", "specificity=x", "specificity=0", "specificity=1.1", "specificity=nan", "yuden", True, 2:
        with pytest.raises(ValueError, match="threshold"): specificity_of(o)
    for o in [0]*14, [1]*14:
        with pytest.raises(ValueError): threshold_by("youden", o, prob)

def test_what_is_promised_counts_patients():
    label, prob, _ = drawn(np.random.default_rng(2), 300)
    at = threshold_by("specificity=.9", label, prob)
    alone, pairs = promised(label, prob, at), promised(label, prob, at, np.arange(300)//2)
    assert alone["specificity"] == pairs["specificity"] == (prob[~label] <= at).mean()
    assert pairs["specificity_low"] < alone["specificity_low"] < .9
    assert .9 < alone["specificity_high"] < pairs["specificity_high"]
    assert pairs["recall_low"] < alone["recall_low"] < alone["recall"] < alone["recall_high"] < pairs["recall_high"]
    for o in 0., 1.:
        found = promised(label, prob, o)
        assert all(np.isfinite(v) and 0 <= v <= 1 for v in found.values()) and found["specificity"] == o
