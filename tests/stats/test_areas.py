import numpy as np, pytest
from scipy.stats import norm
from cxr_fastai.stats.areas import auc_interval, delong, newcombe

def drawn(positives, negatives, area, rng, seeds=1):
    label = np.repeat([1, 0], (positives, negatives))
    return label, norm.cdf(rng.normal(size=(seeds, len(label))) + 2**.5*norm.ppf(area)*label)

def test_one_positive_patient_is_no_evidence():
    rng = np.random.default_rng(0)
    for patients in (None, [0, 0, 0] + list(range(1, 31))):
        label, a = drawn(1 if patients is None else 3, 30, .5, rng)
        found = delong(label, a, drawn(len(label) - 30, 30, .5, rng)[1], patients)
        assert np.isnan([found[o] for o in ("se", "low", "high", "p")]).all() and np.isfinite(found["difference"])

def test_where_nothing_varies_classes_are_shuffled_among_patients():
    label, same, perfect = np.array([1, 1, 0, 0]), np.full(4, .5), np.array([.9, .8, .2, .1])
    found = delong(label, same, perfect)
    # of 6, two are as far from .5
    assert found["p"] == pytest.approx(2/6) and np.isnan(found["low"]) and found["difference"] == .5
    assert delong(label, perfect)["p"] == pytest.approx(2/6) and np.isnan(delong(label, perfect)["low"])
    twelve = np.repeat([1, 0], 12), np.full(24, .3), np.repeat([.9, .1], 12)
    # 2 of 2,704,156: none was drawn
    assert delong(*twelve)["p"] == pytest.approx(1/5001) == delong(*twelve, seed=1)["p"]
    assert delong(label, perfect, perfect**2)["p"] == 1 and delong(label, perfect, perfect[[1, 0, 3, 2]])["p"] == 1
    assert delong(label, perfect, perfect**2)["p"] == delong(label, same)["p"] == 1
    assert np.isnan(delong(label, same)["low"])

def test_films_of_a_patient_are_shuffled_together():
    "Two ill patients and two well ones, five films each: 6 assignments, not 184,756."
    label, who = np.repeat([1, 1, 0, 0], 5), np.repeat(range(4), 5)
    assert delong(label, np.full(20, .5), label*.5 + .2, who)["p"] == pytest.approx(2/6)

def test_rounding_is_no_variance():
    label = np.repeat([1, 0], (30, 70))
    perfect = np.where(label == 1, .7, .1) + np.random.default_rng(0).random((3, 100))*.1
    found = delong(label, np.full((3, 100), .5), perfect)
    assert found["se"] == 0 and 0 < found["p"] < .01 and np.isnan(found["high"])

def test_tiny_classes_do_not_raise_false_alarms():
    rng, wrong = np.random.default_rng(1), 0
    for _ in range(200):
        label, a = drawn(3, 20, .5, rng)
        wrong += delong(label, a)["p"] < .05
    assert wrong <= 16 # 5%, and two and a half of its standard errors more

def test_one_class_has_no_area(): assert all(np.isnan(o) for o in delong([1, 1], [.2, .3]).values())

def test_newcombe_by_its_equation():
    "Both ends solve (area - end)^2 = z^2 variance(end)."
    for area, m, n in (.95, 5, 40), (.7, 20, 30), (1., 5, 40), (0., 9, 9):
        rest = (m + n)/2 - 1
        for end in newcombe(area, m, n):
            variance = end*(1 - end)*(1 + rest*(1 - end)/(2 - end) + rest*end/(1 + end))/(m*n)
            assert (area - end)**2 == pytest.approx(norm.ppf(.975)**2*variance, abs=1e-9)
    low, high = newcombe(1., 5, 40)
    assert .7 < low < .85 and high == 1 and np.isnan(newcombe(.5, 0, 3)).all()

def test_an_area_of_one_has_an_interval_by_patients():
    label, prob = np.repeat([1, 0], 50), np.repeat([.9, .1], 50)
    by_film, by_patient = auc_interval(label, prob), auc_interval(label, prob, np.arange(100)//10)
    assert by_film[1] == by_patient[1] == 1 and by_patient == newcombe(1., 5, 5) and by_patient[0] < by_film[0] < 1

def test_logit_delong_by_hand():
    label, prob = drawn(40, 60, .8, np.random.default_rng(2), seeds=2)
    found, area, se = auc_interval(label, prob), None, None
    each = [delong(label, p) for p in prob]
    assert found[0] < np.mean([o["auc_a"] for o in each]) < found[1]
    area, se, z = each[0]["auc_a"], each[0]["se"], norm.ppf(.975)
    odds = np.log(area/(1 - area)) + np.array([-z, z])*se/(area*(1 - area))
    assert auc_interval(label, prob[0]) == pytest.approx(1/(1 + np.exp(-odds)))

@pytest.mark.parametrize("positives, negatives", [(5, 40), (23, 60)])
def test_intervals_of_high_areas_hold_them(positives, negatives):
    "Percentile intervals do so in 75% and 88%."
    rng, held = np.random.default_rng(3), 0
    for _ in range(300):
        low, high = auc_interval(*drawn(positives, negatives, .95, rng))
        held += low <= .95 <= high
    assert held/300 > .92

def test_a_verdict_counts_the_luck_of_few_seeds_twice():
    "Of three seeds that vary as much as patients do, Satterthwaite's t is too eager where Holm looks; not so of one."
    rng = np.random.default_rng(0)
    label = np.arange(80) < 40
    def p(seeds, luck): # all of a class move together: an area's variance over seeds
        moved = lambda: rng.normal(size=(seeds, 80))*.2 + .8*label*(1 + luck*rng.normal(size=(seeds, 1)))
        a, b = (1/(1 + np.exp(-moved())) for _ in "ab")
        return delong(label, a, b)
    one = p(1, 0)
    assert one["p_verdict"] == one["p"]
    found = [p(3, .1) for _ in range(5)]
    assert all(o["p_verdict"] >= o["p"] for o in found) and any(o["p_verdict"] > 1.01*o["p"] for o in found)
