import numpy as np, pytest
from cxr_fastai.stats.scoring import scores, wilson

LABEL = [1, 1, 1, 0, 0, 0, 0, 0]
PROB  = [.9, .55, .2, .6, .4, .3, .1, .0] # at .5: tp 2, fn 1, fp 1, tn 4

def test_scores_by_hand():
    s = scores(LABEL, PROB)
    assert (s["n"], s["positives"], s["tp"], s["fn"], s["fp"], s["tn"]) == (8, 3, 2, 1, 1, 4)
    assert s["accuracy"] == 6/8 and s["precision"] == pytest.approx(2/3) and s["recall"] == pytest.approx(2/3)
    assert s["specificity"] == 4/5 and s["f1"] == pytest.approx(2/3)
    assert s["balanced_accuracy"] == pytest.approx((2/3 + 4/5) / 2)
    assert s["rocauc"] == pytest.approx((5 + 4 + 2) / 15)      # normals below .9, below .55, below .2
    assert s["pr_auc"] == pytest.approx((1/1 + 2/3 + 3/6) / 3) # precision at each positive, by falling probability
    assert s["brier"] == pytest.approx((.01 + .2025 + .64 + .36 + .16 + .09 + .01 + 0) / 8)
    assert (s["recall_low"], s["recall_high"]) == wilson(2, 3)

def test_a_half_is_not_above_a_half(): assert scores([1, 0], [.5, .5])["recall"] == 0

def test_scores_take_arrays_and_return_plain_numbers():
    s = scores(np.array(LABEL, bool), np.array(PROB, np.float32))
    assert s["tp"] == 2 and all(type(o) in (int, float) for o in s.values())

def test_scores_of_one_class_say_nan_where_undefined(recwarn):
    s = scores([0, 0, 0], [.1, .2, .7])
    assert np.isnan(s["rocauc"]) and np.isnan(s["pr_auc"])
    assert np.isnan(s["recall"]) and s["f1"] == 0 and s["specificity"] == pytest.approx(2/3)
    assert (s["recall_low"], s["recall_high"]) == (0, 1) and not recwarn.list

# the paper's Table 1 and its intervals; Real and Real-Meta are k/30, Ensemble k/84
@pytest.mark.parametrize("k,n,low,high", [
    (17, 30, .39, .73), (22, 30, .56, .86), (69, 84, .73, .89), (12, 30, .25, .58), (19, 30, .46, .78),
    (66, 84, .69, .86), (18, 30, .42, .75), (26, 30, .70, .95)])
def test_wilson_gives_the_intervals_of_the_papers_recalls(k, n, low, high):
    assert tuple(round(o, 2) for o in wilson(k, n)) == (low, high)

def test_wilson_by_its_formula_and_at_its_ends():
    z, p, n = 1.959963984540054, 7/20, 20
    mid, half = (p + z*z/(2*n)) / (1 + z*z/n), z * (p*(1 - p)/n + z*z/(4*n*n))**.5 / (1 + z*z/n)
    assert wilson(7, 20) == pytest.approx((mid - half, mid + half))
    assert wilson(0, 10)[0] == 0 and wilson(10, 10)[1] == 1 and wilson(0, 0) == (0, 1)
    assert wilson(7, 20, .99)[0] < wilson(7, 20)[0]
