import numpy as np, pytest
import statsmodels.api as sm
from cxr_fastai.stats.calibration import (calibration_gaps, logits, prior_shift, recalibration, smooth_curve,
    threshold_at)

@pytest.fixture
def drawn():
    rng = np.random.default_rng(0)
    x = rng.normal(size=400)
    return (rng.random(400) < 1/(1 + np.exp(-(.7*x - 1)))).astype(int), 1/(1 + np.exp(-(1.5*x + .3)))

def test_prior_shift_by_hand_and_back():
    assert prior_shift([.5], .5, .2) == pytest.approx([.2]) and prior_shift([.2], .2, .5) == pytest.approx([.5])
    assert prior_shift([.5], .25, .5) == pytest.approx([.75]) # odds 1, times (1/1)/(1/3)
    prob = np.random.default_rng(0).random(50)
    assert prior_shift(prior_shift(prob, .3, .6), .6, .3) == pytest.approx(prob)
    assert prior_shift(prob, .3, .3) == pytest.approx(prob)

def test_prior_shift_is_bayes_rule():
    "Saerens et al. 2002, eq. 2.4, written out."
    prob, before, after = np.array([.1, .45, .99]), .4, .1
    up, down = prob*after/before, (1 - prob)*(1 - after)/(1 - before)
    assert prior_shift(prob, before, after) == pytest.approx(up/(up + down), abs=1e-9)

def test_a_threshold_leaves_the_wanted_share_of_negatives_below_or_at_it():
    label, prob = np.r_[np.zeros(20, int), 1, 1], np.r_[np.arange(20)/20, .5, .99]
    assert threshold_at(label, prob, .9) == .85 and (prob[:20] <= .85).mean() == .9
    assert threshold_at(label, prob, .95) == .9 and threshold_at(label, prob, 1.) == .95
    with pytest.raises(ValueError, match="no negative row"): threshold_at([1, 1], [.2, .3])

@pytest.mark.parametrize("specificity", [.9, .95])
def test_it_is_the_lowest_such_threshold_with_ties_too(specificity):
    rng = np.random.default_rng(1)
    label, prob = np.zeros(137, int), rng.integers(0, 30, 137)/30
    t = threshold_at(label, prob, specificity)
    assert (prob <= t).mean() >= specificity and (prob < t).mean() < specificity

def test_slope_and_intercept_are_statsmodels(drawn):
    label, prob = drawn
    x = np.log(prob/(1 - prob))
    slope, intercept = recalibration(label, prob)
    assert slope == pytest.approx([sm.Logit(label, sm.add_constant(x)).fit(disp=0).params[1]], abs=1e-6)
    fitted = sm.GLM(label, np.ones(len(x)), family=sm.families.Binomial(), offset=x).fit()
    assert intercept == pytest.approx(fitted.params, abs=1e-6)

def test_weights_are_rows_repeated(drawn):
    label, prob = drawn
    times = np.random.default_rng(2).integers(0, 3, (5, len(label)))
    slope, intercept = recalibration(label, prob, times.astype(float))
    gaps = calibration_gaps(label, prob.round(2), times.astype(float))
    for i, w in enumerate(times):
        a, b = recalibration(np.repeat(label, w), np.repeat(prob, w))
        assert (slope[i], intercept[i]) == pytest.approx((a[0], b[0]), abs=1e-6)
        gap = np.abs(smooth_curve(label, prob.round(2), w[None].astype(float))[1][0] - np.unique(prob.round(2)))
        each = np.sort(gap[np.unique(prob.round(2), return_inverse=True)[1]].repeat(w)) # a row's gap is its knot's
        assert (gaps["ici"][i], gaps["e50"][i], gaps["e90"][i]) == pytest.approx(
            (each.mean(), *np.quantile(each, [.5, .9], method="inverted_cdf")), abs=1e-6)

def test_a_calibrated_model_has_slope_one_and_no_error():
    rng = np.random.default_rng(3)
    prob = rng.beta(2, 4, 100_000)
    label = (rng.random(len(prob)) < prob).astype(int)
    slope, intercept = recalibration(label, prob)
    assert slope == pytest.approx([1], abs=.02) and intercept == pytest.approx([0], abs=.02)
    assert calibration_gaps(label, prob)["ici"] < .01 < .1 < calibration_gaps(label, prob**2)["ici"]
    assert calibration_gaps(label, prob**2)["ici"] == pytest.approx(np.mean(prob - prob**2), abs=.02)

def test_where_classes_are_separated_or_alone_there_is_no_slope():
    assert np.isnan(recalibration([0, 0, 1, 1], [.1, .2, .7, .8])[0])
    assert np.isnan(recalibration([1, 1, 1], [.2, .5, .7])[0])

def test_certain_probabilities_have_finite_logits(): assert np.isfinite(logits([0, 1])).all()

def test_the_smooth_curve_is_statsmodels_lowess(drawn):
    label, prob = drawn
    prob = prob.round(2)
    at, curve, share = smooth_curve(label, prob)
    assert curve[0] == pytest.approx(sm.nonparametric.lowess(label, prob, frac=.75, it=0, delta=0, xvals=at).clip(0, 1),
                                     abs=1e-9)
    assert share.sum() == len(prob) and (share[0] == np.unique(prob, return_counts=True)[1]).all()
    many = smooth_curve(label, prob + np.arange(400)*1e-6, np.ones((2, 400), np.float32))
    assert many[1].shape == (2, 100) and many[2].sum() == 800

def test_one_probability_has_the_share_of_positives_as_its_curve():
    gaps = calibration_gaps([1, 0, 0, 0], [.4]*4)
    assert [gaps[o][0] for o in ("ici", "e50", "e90")] == pytest.approx([.15]*3)

@pytest.mark.parametrize("times", [.1, .5, 2, 4, 8])
def test_the_slope_of_a_model_that_is_too_sure_of_itself_is_found(times):
    from statsmodels.api import GLM, add_constant, families
    rng = np.random.default_rng(0)
    for _ in range(5):
        label = rng.random(500) < .3
        prob = 1/(1 + np.exp(-times*(1.5*rng.normal(1.5*label, 1) - 1.97)))
        fit = GLM(label.astype(float), add_constant(logits(prob)), family=families.Binomial()).fit()
        np.testing.assert_allclose(recalibration(label, prob)[0], fit.params[1], rtol=1e-5)
        slopes = recalibration(label, prob, rng.multinomial(500, np.full(500, 1/500), 50).astype(np.float32))[0]
        assert np.isfinite(slopes).all() and slopes.min() < fit.params[1] < slopes.max()
