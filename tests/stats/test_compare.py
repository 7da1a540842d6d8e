import numpy as np, pandas as pd, pytest
from statsmodels.stats.multitest import multipletests
from cxr_fastai.stats.areas import delong
from cxr_fastai.stats.compare import compare_arms, correct, holm, verdict
from cxr_fastai.stats.predictions import sides
from cxr_fastai.stats.scoring import scores
from conftest import ordinary_predictions

# DeLong, DeLong & Clarke-Pearson 1988: 49 women with ovarian cancer, of whom 43 have all three tests: albumin, total
# protein, K-G score, and whether surgery helped; as printed with SAS's LOGISTIC procedure
OVARY = np.array("""
3.0 5.8 10 0 3.2 6.3 5 1 3.9 6.8 3 1 2.8 4.8 6 0 3.2 5.8 3 1 0.9 4.0 5 0 2.5 5.7 8 0 1.6 5.6 5 1 3.8 5.7 5 1
3.7 6.7 6 1 3.2 5.4 4 1 3.8 6.6 6 1 4.1 6.6 5 1 3.6 5.7 5 1 4.3 7.0 4 1 3.6 6.7 4 0 2.3 4.4 6 1 4.2 7.6 4 0
4.0 6.6 6 0 3.5 5.8 6 1 3.8 6.8 7 1 3.0 4.7 8 0 4.5 7.4 5 1 3.7 7.4 5 1 3.1 6.6 6 1 4.1 8.2 6 1 4.3 7.0 5 1
4.3 6.5 4 1 3.2 5.1 5 1 2.6 4.7 6 1 3.3 6.8 6 0 1.7 4.0 7 0 3.7 6.1 5 1 3.3 6.3 7 1 4.2 7.7 6 1 3.5 6.2 5 1
2.9 5.7 9 0 2.1 4.8 7 1 2.8 6.2 8 0 4.0 7.0 7 1 3.3 5.7 6 1 3.7 6.9 5 1 3.6 6.6 5 1""".split(), float).reshape(-1, 4)
ALBUMIN, PROTEIN, KG = OVARY[:, 0]/10, OVARY[:, 1]/10, 1 - OVARY[:, 2]/10 # only their order counts
HELPED = OVARY[:, 3].astype(int)

# area, its standard error and 95% interval, by pROC 1.18 for R: roc(), var() and ci.auc() with method="delong"
@pytest.mark.parametrize("test, area, se, low, high", [
    (ALBUMIN, 0.7365591397849462, 0.0926943460524027, 0.5548815599517444, 0.9182367196181479),
    (PROTEIN, 0.647849462365591, 0.100047375583742, 0.451760209473705, 0.843938715257478),
    (KG, 0.725806451612903, 0.102821608980048, 0.524279801179550, 0.927333102046257)])
def test_areas_are_those_of_the_worked_example(test, area, se, low, high):
    found = delong(HELPED, test)
    assert found["auc_a"] == pytest.approx(area, abs=1e-9) and found["se"] == pytest.approx(se, abs=1e-9)
    assert (found["low"] + .5, found["high"] + .5) == pytest.approx((low, high), abs=1e-9)

# K-G against the others: the printed standard errors and p-values, and pROC's digits of roc.test(method="delong")
@pytest.mark.parametrize("test, difference, printed_se, printed_p, p, low, high", [
    (ALBUMIN, .0108, .0953, .9102, 0.910206347201035, -0.176117368734695, 0.197622745078781),
    (PROTEIN, -.0780, .1046, .4561, 0.456139707507474, -0.282988015572399, 0.127074037077776)])
def test_differences_are_those_of_the_worked_example(test, difference, printed_se, printed_p, p, low, high):
    found = delong(HELPED, KG, test)
    assert [round(found[k], 4) for k in ("difference", "se", "p")] == [difference, printed_se, printed_p]
    assert (found["p"], found["low"], found["high"]) == pytest.approx((p, low, high), abs=1e-9)

def drawn(n=120, seeds=1, seed=0, gap=0.):
    rng = np.random.default_rng(seed)
    label, hard = (rng.random(n) < .35).astype(int), rng.normal(size=n)
    arm = lambda d: 1/(1 + np.exp(-(d*label + hard + .7*rng.normal(size=(seeds, n)) - 1)))
    return label, arm(1.), arm(1. + gap)

def test_patients_with_several_images_are_one_patient_each():
    "Every image twice: as if each patient had one; taken for strangers, they would halve the variance."
    label, a, b = drawn()
    once, patients = delong(label, a, b), np.repeat(np.arange(120), 2)
    twice = delong(np.repeat(label, 2), np.repeat(a, 2, 1), np.repeat(b, 2, 1), patients)
    assert twice["se"] == pytest.approx(once["se"], rel=.01)
    assert twice["difference"] == pytest.approx(once["difference"])
    strangers = delong(np.repeat(label, 2), np.repeat(a, 2, 1), np.repeat(b, 2, 1))
    assert strangers["se"] == pytest.approx(once["se"]/2**.5, rel=.01)

def test_a_patient_with_both_labels_joins_both_sums():
    "Obuchowski's (1997) covariance term, by a jackknife over patients."
    rng = np.random.default_rng(4)
    patients = np.repeat(np.arange(150), 2)
    label, shared = np.tile([0, 1], 150), np.repeat(rng.normal(size=150), 2)
    prob = 1/(1 + np.exp(-(label + 2*shared + rng.normal(size=300))))
    from sklearn.metrics import roc_auc_score
    left = [roc_auc_score(label[patients != o], prob[patients != o]) for o in range(150)]
    jackknife = (149/150*np.sum((np.array(left) - np.mean(left))**2))**.5
    assert delong(label, prob, patients=patients)["se"] == pytest.approx(jackknife, rel=.02)
    assert delong(label, prob)["se"] > 1.1*jackknife # the shared part cancels within a patient

def test_seeds_are_averaged_and_their_luck_widens_the_interval():
    label, a, b = drawn(seeds=4, gap=.4)
    found, each = delong(label, a, b), [delong(label, x, y) for x, y in zip(a, b)]
    gaps = np.array([o["difference"] for o in each])
    assert found["difference"] == pytest.approx(gaps.mean())
    assert found["se"]**2 > gaps.var(ddof=1)/4 and found["se"] < np.mean([o["se"] for o in each])
    same = delong(label, np.repeat(a[:1], 3, 0), np.repeat(b[:1], 3, 0))
    assert same["p"] == pytest.approx(each[0]["p"]) # seeds that agree are one

def test_identical_arms_do_not_differ():
    label, a, _ = drawn()
    found = delong(label, a, a)
    assert (found["difference"], found["p"]) == (0, 1) and np.isnan(found["low"]) # a point is no interval

def long(label, arms, seeds=1):
    "A study's predictions: `arms` name -> `[seeds, n]`, one backbone; valid rows are the test rows."
    parts = [pd.DataFrame(dict(backbone="net", arm=arm, seed=s, side=side, image=[f"{i:03}" for i in range(len(label))],
                               patient_id=range(len(label)), label=label,
                               probability=prob[s], synthetic=False))
             for arm, prob in arms.items() for s in range(len(prob)) for side in ("valid", "test")]
    return pd.concat(parts, ignore_index=True)

def test_a_line_a_comparison_with_differences_and_intervals():
    label, a, b = drawn(seeds=2, gap=1.5)
    table = compare_arms(long(label, {"real-meta": a, "real-synth-meta": b}), [("real-meta", "real-synth-meta")], n=300)
    o, = table.to_dict("records")
    assert (o["n"], o["positives"], o["seeds"]) == (120, label.sum(), 2)
    each = lambda p, k: np.mean([scores(label, x)[k] for x in p])
    for k in "recall", "specificity", "rocauc", "pr_auc", "brier":
        assert o[k] == pytest.approx(each(b, k) - each(a, k)) and o[f"{k}_low"] <= o[k] <= o[f"{k}_high"]
    assert o["gain"] == pytest.approx(each(b, "recall")/each(a, "recall") - 1)
    found = delong(label, a, b)
    assert (o["p_delong"], o["rocauc_low"],
            o["rocauc_high"]) == pytest.approx((found["p"], found["low"], found["high"]))
    at_90 = lambda p: np.mean([(x[label == 1] > np.sort(x[label == 0])[int(np.ceil(.9*(label == 0).sum())) - 1]).mean()
                               for x in p])
    assert o["recall_at_90"] == pytest.approx(at_90(b) - at_90(a))

def lines(*p, **columns):
    "Comparisons of as many backbones, which can be spoken of."
    change = {f"{k}{end}": .1 for k in ("rocauc", "recall", "specificity") for end in ("", "_low", "_high")}
    about = dict(before="real-meta", after="real-synth-meta", positive_patients=50, negative_patients=90,
                 seeds=3) | change
    return pd.DataFrame(
        [dict(backbone=f"net{i}", p_delong=o, p_verdict=o, p_recall=.5) | about | columns for i, o in enumerate(p)])

@pytest.mark.slow
def test_holm_is_over_the_backbones_and_counts_those_that_are_missing():
    p = [.02, .3, .011]
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])
    assert holm([.02, np.nan]) == pytest.approx([.04, np.nan], nan_ok=True) and holm([.02], 3)[0] == pytest.approx(.06)
    assert len(holm([])) == 0
    other = lines(.001).assign(before="real", after="real-meta")
    table = correct(pd.concat([lines(*p), other], ignore_index=True))
    # another pair isn't in the family
    assert table.holm_verdict.tolist() == pytest.approx([*holm(p), np.nan], nan_ok=True)
    assert table.family.tolist()[:3] == [3, 3, 3]
    planned = correct(lines(*p).assign(primary="yes", exploratory=["no", "no", "backbone net2 added"],
                                       planned_backbones=2))
    # what is added later costs the planned ones nothing
    assert planned.holm_verdict.tolist() == pytest.approx([.04, .3,.033])

def test_one_backbone_of_three_is_no_gain_by_luck():
    assert "net0: the data support a gain" in verdict(lines(.03)) and "Holm" not in verdict(lines(.03))
    said = verdict(lines(.03, .4, .5)).splitlines()
    assert all("do not support a gain" in o and "by Holm over 3 backbones p = " in o for o in said)

@pytest.mark.parametrize("few, says", [
    (dict(seeds=1), "1 of the 3 seeds that are needed"), (dict(seeds=2), "2 of the 3 seeds that are needed"),
    (dict(positive_patients=9), "9 of the 10 positive test patients that are needed"),
    (dict(negative_patients=4), "4 of the 10 negative test patients that are needed"),
    (dict(p_verdict=np.nan), "the AUC can't be tested")])
def test_too_little_is_no_verdict(few, says):
    said = verdict(lines(1e-9).assign(**few))
    assert "can't be said: " in said and says in said and ": the data" not in said

def test_only_seeds_and_real_rows_that_both_arms_have_are_compared():
    label, a, b = drawn(seeds=3, gap=1.)
    table = long(label, {"real": a, "real-synth": b})
    table = table[~((table.arm == "real-synth") & (table.seed == 1))]
    made = table[(table.arm == "real-synth") & (table.side == "test")].head(9)
    made = made.assign(synthetic=True, probability=1., image="a2b_" + made.image)
    pair = [("real", "real-synth")]
    found, plain = compare_arms(pd.concat([table, made]), pair, n=20), compare_arms(table, pair, n=20)
    pd.testing.assert_frame_equal(found, plain)
    assert found.seeds[0] == 2 and found.rocauc[0] == pytest.approx(delong(label, a[[0, 2]], b[[0, 2]])["difference"])
    assert set(sides(pd.concat([table, made]), "net", "real-synth")[1]) == {0, 2}
    assert not len(compare_arms(table, [("real", "meta")]))

def test_the_same_seed_gives_the_same_intervals():
    label, a, b = drawn(seeds=2)
    table, pair = long(label, {"real": a, "real-meta": b}), [("real", "real-meta")]
    pd.testing.assert_frame_equal(compare_arms(table, pair, n=50, seed=1), compare_arms(table, pair, n=50, seed=1))
    assert not compare_arms(table, pair, n=50, seed=1).equals(compare_arms(table, pair, n=50, seed=5))

@pytest.mark.parametrize("gap, says", [(2.5, "support a gain"), (0., "do not support a gain"), (-2.5, "show a loss")])
def test_the_verdict_is_about_ranking_and_says_what_the_threshold_did(gap, says):
    label, a, b = drawn(n=300, seeds=3, gap=gap)
    table = compare_arms(long(label, {"real-meta": a, "real-synth-meta": b}), [("real-meta", "real-synth-meta")], n=100)
    said = verdict(table)
    assert said.startswith(f"net: the data {says} from Real-Meta to Ensemble: AUC ") and "with specificity" in said
    assert said.count("\n") == 0

def test_a_threshold_that_moves_is_no_gain():
    label, a, _ = drawn(n=300, seeds=3)
    moved = 1/(1 + np.exp(-(np.log(a/(1 - a)) + 1.5)))
    table = compare_arms(long(label, {"real-meta": a, "real-synth-meta": moved}), [("real-meta", "real-synth-meta")],
                         n=100)
    assert table.recall[0] > .15 and table.p_recall[0] < .01 and "do not support a gain" in verdict(table)

def test_without_the_comparison_the_verdict_says_so():
    assert verdict(pd.DataFrame(columns=["before",
                                         "after"])) == "No verdict: there is no comparison of the primary pair."
    plan = dict(primary=None, arms=["real", "real-meta"], backbones=["net"])
    empty = pd.DataFrame(columns=["before", "after"])
    assert "needs real-synth-meta, which isn't among the arms" in verdict(empty, plan=plan)
    planned = verdict(lines(.03), plan=dict(primary=["real-meta", "real-synth-meta"], backbones=["net0", "vgg16"]))
    assert planned.endswith("vgg16: no verdict, as Real-Meta and Ensemble have no finished seed in common.")

def test_a_verdict_says_what_it_rests_on():
    marked = lines(.001).assign(primary="yes", exploratory="seed 4 added", interim="seed 2 missing", protocol="paper",
                                alpha=.01)
    said = verdict(marked)
    assert said.startswith("net0, protocol 'paper', which is leaky, interim (seed 2 missing), "
                           "exploratory (seed 4 added): the data support")
    assert "two-sided at 1%" in said and "do not" in verdict(marked.assign(p_verdict=.02)) and "p = 0.5." in said

def test_ordinary_differences_are_what_they_were():
    "Ties, patients with two films, three seeds: the values of version 0.2.0."
    found = compare_arms(ordinary_predictions(), [("real", "real-synth")], n=20).iloc[0]
    was = dict(recall=0.09629629629629631, specificity=0.04, rocauc=0.06523456790123454,
               rocauc_low=0.020152114991123703,
               rocauc_high=0.11031702081134506, pr_auc=0.08196380877684144, brier=-0.025385405555555574,
               recall_at_90=0.08888888888888889, gain=0.1710526315789474, p_delong=0.005140473494544502)
    assert {k: float(found[k]) for k in was} == pytest.approx(was, abs=1e-12)
    assert (found.positive_patients, found.negative_patients, found.of_seeds) == (40, 60, "0, 1, 2")
