import numpy as np, pytest
from scipy.stats import t as student
from cxr_fastai.stats.differences import differences

def drawn(m=40, n=60, seeds=3, films=1, gap=.4, seed=0):
    "Label, patients and two arms' probabilities."
    rng = np.random.default_rng(seed)
    label = np.repeat(np.r_[np.ones(m, bool), np.zeros(n, bool)], films)
    hard = np.repeat(rng.normal(size=m + n), films)
    arm = lambda d: 1/(1 + np.exp(-(d*label + hard + .7*rng.normal(size=(seeds, len(label))) - 1)))
    return label, np.repeat(np.arange(m + n), films), arm(1.), arm(1. + gap)

def of(label, patients, a, b, **kwargs):
    return differences(label, patients, a, b, (label, patients, a, b), n=200, **kwargs)

def test_one_seed_and_one_film_a_patient_is_the_paired_t_test():
    label, who, a, b = drawn(seeds=1)
    found, hit = of(label, who, a, b)["recall"], ((b > .5).astype(float) - (a > .5))[0, label]
    mean, se = hit.mean(), hit.std(ddof=1)/40**.5
    half = student.ppf(.975, 39)*se
    assert (found["value"], found["low"], found["high"]) == pytest.approx((mean, mean - half, mean + half))
    assert found["p"] == pytest.approx(2*student.sf(abs(mean)/se, 39))

def test_films_of_a_patient_are_not_patients():
    label, who, a, b = drawn(seeds=3)
    more = lambda o, axis=0: np.repeat(o, 4, axis)
    once, often = of(label, who, a, b), of(more(label), more(who), more(a, 1), more(b, 1))
    for k in "recall", "specificity", "pr_auc", "brier", "gain":
        assert [often[k][o]
                for o in ("value", "low", "high")] == pytest.approx([once[k][o] for o in ("value", "low", "high")])

def test_the_luck_of_training_widens_what_three_seeds_say():
    label, who, a, b = drawn()
    lucky = np.stack([b[0], b[1], b[2]**3]) # one training that calls few
    half = lambda o: of(label, who, a, o)["recall"]["high"] - of(label, who, a, o)["recall"]["value"]
    assert half(lucky) > 2*half(b)

def test_no_interval_is_a_point_and_what_is_not_known_is_nan():
    label, who, a, _ = drawn()
    same = of(label, who, a, a)
    for k in "recall", "specificity", "recall_at_90":
        assert same[k]["value"] == 0 and same[k]["low"] < -.01 and same[k]["high"] > .01
    for k in "pr_auc", "brier": assert np.isnan(same[k]["low"]) and np.isnan(same[k]["p"])
    assert same["gain"]["low"] < 0 < same["gain"]["high"]
    none = of(label, who, np.minimum(a, .4), a)["gain"]
    assert np.isnan([none["value"], none["low"]]).all() # a gain from nothing is undefined, not endless
    one = of(label[39:], who[39:], a[:, 39:], a[:, 39:]**2) # one positive patient
    assert np.isnan(one["brier"]["low"]) and one["recall"]["high"] - one["recall"]["low"] > 1
    assert np.isnan(differences(label, who, a, a**2)["recall_at_90"]["value"]) # no valid rows
    assert np.isnan(of(label[:40], who[:40], a[:, :40], a[:, :40])["recall"]["value"]) # one class

def test_null_arms_with_four_films_a_patient_seldom_differ():
    "The recall's test holds its 5%, where one film were taken for one patient: 30%."
    found = [of(*drawn(films=4, gap=0., seed=i, n=40))["recall"]["p"] < .05 for i in range(60)]
    assert np.mean(found) < .12
