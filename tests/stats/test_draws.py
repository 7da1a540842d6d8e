import numpy as np, pytest
from cxr_fastai.stats.calibration import threshold_at
from cxr_fastai.stats.draws import at_specificity_draws, resample
from .test_intervals import two_images_each

@pytest.fixture
def drawn(): return two_images_each()

def test_resamples_draw_patients_within_strata(drawn):
    label, _, patients = drawn
    weights = resample(patients, label, 300, seed=1)
    assert weights.shape == (300, 200) and (weights[:, ::2] == weights[:, 1::2]).all() # both images of a patient
    ill = np.repeat(np.maximum(label[::2], label[1::2]), 2).astype(bool)
    assert (weights[:, ill].sum(1) == ill.sum()).all() and (weights[:, ~ill].sum(1) == (~ill).sum()).all()
    assert weights[:, ::2].mean(0) == pytest.approx(1, abs=.3) and weights.max() > 3
    assert (resample(patients, label, 300, seed=1) == weights).all()
    assert (resample(patients, label, 300, seed=2) != weights).any()

def test_thresholds_are_found_anew_in_every_draw(drawn):
    label, prob, patients = drawn
    rng = np.random.default_rng(3)
    (w, v), valid = (resample(patients, label, 40, seed=o) for o in (0, 1)), rng.random((2, 200)).round(2)
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
