import numpy as np, pytest
from scipy.stats import multivariate_normal, norm
from cxr_fastai.stats.expected import _shared, expected_power, smallest_gain
from cxr_fastai.stats.power import Setting, simulated, skill

PAPER = Setting(52, 210), Setting(174, 700, folds=5) # one split's test, and five folds
TRIED = [*((o, .8, .8) for o in PAPER), (PAPER[0], .8, .4), (Setting(20, 60), .7, .8),
         (Setting(60, 60, luck=0), .9, .6),
         (Setting(64, 210, seeds=5, luck=.2), .8, .8), (Setting(90, 200, seeds=1, folds=5), .75, .8)]

@pytest.mark.parametrize("setting, auc, power", TRIED, ids=repr)
def test_it_is_near_the_simulation(setting, auc, power):
    "Within .05, and what 150 simulated studies leave open (.08)."
    gain = smallest_gain(setting, auc, power)
    assert expected_power(setting, auc, gain) == pytest.approx(power, abs=1e-6)
    found = (simulated(setting, auc, gain, studies=150, seed=7)["says"] == "gain").mean()
    assert found == pytest.approx(power, abs=.13)

@pytest.mark.parametrize("one, two, r", [(1.2, 1.2, 1), (1.2, 1.5, .5), (.3, 2., .7), (0, 0, 1)])
def test_what_placements_share_is_of_the_bivariate_normal(one, two, r):
    h, k = np.array([one, two])/2**.5
    known = multivariate_normal([0, 0], [[1, r/2], [r/2, 1]]).cdf([h, k]) - norm.cdf(h)*norm.cdf(k)
    assert _shared(one, two, r) == pytest.approx(known, abs=1e-6)

def test_of_one_model_it_is_the_variance_of_placements():
    at = norm.cdf(np.random.default_rng(0).normal(skill(.8), 1, 200_000))
    assert _shared(skill(.8), skill(.8), 1) == pytest.approx(at.var(), rel=.02)

def test_more_patients_trainings_and_less_luck_show_smaller_gains():
    first = smallest_gain(Setting())
    for o in Setting(128, 420), Setting(seeds=9), Setting(luck=.05): assert smallest_gain(o) < first
    assert smallest_gain(Setting(), backbones=3) > first > smallest_gain(Setting(), power=.5)
    assert smallest_gain(Setting(), alpha=.1) < first

def test_where_no_gain_is_large_enough_it_is_nan():
    assert np.isnan(smallest_gain(Setting(64, 210, luck=.5), .8)) and np.isnan(smallest_gain(Setting(), .9995))

def test_without_a_gain_it_is_half_an_error_rate_or_less():
    assert all(0 < expected_power(o, .8, 0.) < .026 for o in (*PAPER, Setting(seeds=30)))

def test_a_study_too_small_for_a_verdict_is_refused():
    with pytest.raises(ValueError, match="9 of the 10 negative test patients"): smallest_gain(Setting(50, 9))
