import subprocess, sys
from fractions import Fraction
import numpy as np, pandas as pd, pytest
from cxr_fastai.tables import *

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
    assert s["recall"] == 0 and s["specificity"] == pytest.approx(2/3)
    assert (s["recall_low"], s["recall_high"]) == (0, 1) and not recwarn.list

# the paper's Table 1 and its intervals; Real and Real-Meta are k/30, Ensemble k/84
@pytest.mark.parametrize("k,n,low,high", [(17, 30, .39, .73), (22, 30, .56, .86), (69, 84, .73, .89),
                                          (12, 30, .25, .58), (19, 30, .46, .78), (66, 84, .69, .86),
                                          (18, 30, .42, .75), (26, 30, .70, .95)])
def test_wilson_gives_the_intervals_of_the_papers_recalls(k, n, low, high):
    assert tuple(round(o, 2) for o in wilson(k, n)) == (low, high)

def test_wilson_by_its_formula_and_at_its_ends():
    z, p, n = 1.959963984540054, 7/20, 20
    mid, half = (p + z*z/(2*n)) / (1 + z*z/n), z * (p*(1 - p)/n + z*z/(4*n*n))**.5 / (1 + z*z/n)
    assert wilson(7, 20) == pytest.approx((mid - half, mid + half))
    assert wilson(0, 10)[0] == 0 and wilson(10, 10)[1] == 1 and wilson(0, 0) == (0, 1)
    assert wilson(7, 20, .99)[0] < wilson(7, 20)[0]

def test_gain_is_the_papers():
    assert round(gain(22/30, 69/84), 2) == .12 and round(gain(19/30, 66/84), 2) == .24
    assert gain(26/30, 66/84) < 0 and np.isnan(gain(0, .5))
    assert gain(Fraction(1, 2), Fraction(3, 4)) == Fraction(1, 2)

def arm(tp, n): return scores([1] * n + [0] * 2, [1.] * tp + [0.] * (n - tp) + [0., 1.])

def predictions(tp, n):
    "Of n positives of n patients, the first `tp` found; and two negatives of one more."
    return pd.DataFrame(dict(patient_id=[*range(n), n, n], label=[1]*n + [0]*2, probability=[1.]*tp + [0.]*(n - tp) + [0., 1.]))

def test_table1_row():
    arms = {"real": arm(17, 30), "meta": arm(3, 30), "real-meta": arm(22, 30), "real-synth-meta": arm(22, 30)}
    row = table1_row("resnet50", arms, {"real": predictions(17, 30), "real-meta": predictions(22, 30),
                                        "real-synth-meta": predictions(22, 30)}, seed=3, weights="none")
    cells = row.to_dict("records")[0]
    assert cells.pop("Gain Real to Real-Meta").startswith("+29.4% [+") and cells == {
        "Model": "resnet50", "Real": "0.5667 [0.39, 0.73]", "Meta": "0.1000 [0.03, 0.26]",
        "Real-Meta": "0.7333 [0.56, 0.86]", "Ensemble": "0.7333 [0.56, 0.86]",
        "Gain Real-Meta to Ensemble": "+0.0% [+0%, +0%]", "n": 32, "positives": 30, "seed": 3, "weights": "none"}

def test_table1_row_without_one_of_the_two_arms_has_no_gain():
    assert "Gain Real to Real-Meta" not in table1_row("vgg16", {"real": arm(1, 2)}, {})
    assert list(table1_row("vgg16", {"other": arm(1, 2)}, {})) == ["Model", "other", "n", "positives"]

def test_a_gain_from_nothing_is_undefined_and_its_interval_open():
    arms = {"real": arm(0, 9), "real-meta": arm(3, 9)}
    row = table1_row("vgg16", arms, {"real": predictions(0, 9), "real-meta": predictions(3, 9)})
    assert row["Gain Real to Real-Meta"][0] == "undefined [+0%, +inf]" or row["Gain Real to Real-Meta"][0] == "undefined [+inf, +inf]"

def test_gain_interval_against_a_plain_bootstrap():
    rng = np.random.default_rng(1)
    n = 60
    label, patients = rng.integers(0, 2, n), rng.integers(0, 25, n)
    before, after = rng.random(n), np.clip(rng.random(n) + .2*label, 0, 1)
    found = gain_interval(label, before, after, patients, n=4000)
    recall = lambda p, at: (p[at][label[at] == 1] > .5).mean()
    everyone = np.arange(n)
    assert found["difference"][0] == pytest.approx(recall(after, everyone) - recall(before, everyone))
    assert found["gain"][0] == pytest.approx(gain(recall(before, everyone), recall(after, everyone)))
    who, diffs, gains = [np.flatnonzero(patients == o) for o in np.unique(patients)], [], []
    for _ in range(3000):
        at = np.concatenate([who[i] for i in rng.integers(0, len(who), len(who))])
        diffs.append(recall(after, at) - recall(before, at))
        gains.append(diffs[-1] / recall(before, at))
    assert found["difference"][1:] == pytest.approx(np.quantile(diffs, [.025, .975]), abs=.04)
    assert found["gain"][1:] == pytest.approx(np.quantile(gains, [.025, .975]), rel=.15, abs=.05)
    assert gain_interval(label, before, after, patients) == gain_interval(label, before, after, patients)
    assert gain_interval(label, before, after, patients, seed=1) != gain_interval(label, before, after, patients)

def test_gain_interval_draws_patients_not_images():
    "Ten images of one patient count as one: the interval is as wide as with one image each."
    label, before, after = np.ones(20, int), np.zeros(20), np.tile([1., 0.], 10)
    one, ten = (gain_interval(*(np.repeat(o, k) for o in (label, before, after, np.arange(20)))) for k in (1, 10))
    assert one["difference"] == ten["difference"] and one["difference"][1] < .4 < .6 < one["difference"][2]

def test_markdown_by_hand():
    table = pd.DataFrame({"Model": ["resnet50", "vgg16"], "recall": [.5, 1/3], "n": [7, 1234]})
    assert to_markdown(table) == ("| Model    | recall   | n    |\n"
                                  "| -------- | -------- | ---- |\n"
                                  "| resnet50 | 0.500000 | 7    |\n"
                                  "| vgg16    | 0.333333 | 1234 |")

def test_markdown_of_missing_cells_and_mixed_columns():
    table = pd.DataFrame({"a": ["x", None], "b": [np.nan, 1], "c": [.25, "z"]})
    assert [o.split() for o in to_markdown(table).split("\n")[2:]] == [["|", "x", "|", "nan", "|", "0.250000", "|"],
                                                                       ["|", "nan", "|", "1.000000", "|", "z", "|"]]

def test_markdown_of_no_rows_is_its_head():
    assert to_markdown(pd.DataFrame({"a": [], "bc": []})) == "| a | bc |\n| - | -- |"

def test_needs_no_torch():
    code = "import sys, cxr_fastai.tables; assert not {'torch', 'fastai', 'timm'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
