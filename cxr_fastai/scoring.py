"""The metrics of the paper's Figs 3-5 and Table 1 (recall is eq. 3), and those that go beyond. No torch.

Every metric takes `label` (0/1, `[n]`) and `prob` (probability of the positive class, `[n]`); above
.5 is called positive."""
import numpy as np
from scipy.stats import binomtest
from sklearn import metrics as skm

__all__ = ["METRICS", "PAPER_METRICS", "called", "scores", "wilson"]

def called(
    prob:np.ndarray,    # probabilities of the positive class, any shape
    threshold:float=.5, # above it is positive; a tie is negative
) -> np.ndarray:        # bool, as `prob`
    "What is called positive: the one rule of every door. In 64 bits, as .4 of 32 bits is above .4."
    return np.asarray(prob, float) > threshold

def _decided(score, **kwargs): return lambda label, prob: score(label, np.asarray(prob) > .5, **kwargs)

def _ranked(score):
    "`score` needs both classes; nan otherwise, as it is undefined then."
    return lambda label, prob: score(label, prob) if len(np.unique(label)) == 2 else float("nan")

PAPER_METRICS = { # the columns of the paper's Figs 3-5
    "accuracy" : _decided(skm.accuracy_score),
    "precision": _decided(skm.precision_score, zero_division=0),
    "recall"   : _decided(skm.recall_score, zero_division=0),
    "rocauc"   : _ranked(skm.roc_auc_score),
}
METRICS = PAPER_METRICS | { # and those that go beyond
    "specificity"      : _decided(skm.recall_score, pos_label=0, zero_division=0),
    "pr_auc"           : _ranked(skm.average_precision_score),
    "balanced_accuracy": _decided(skm.recall_score, average="macro", labels=[0, 1], zero_division=0),
    "f1"               : _decided(skm.f1_score, zero_division=0),
    "brier"            : lambda label, prob: skm.brier_score_loss(label, prob, pos_label=1),
}

def scores(
    label:np.ndarray, # 0/1, `[n]`
    prob:np.ndarray,  # probability of the positive class, `[n]`
) -> dict:            # every metric of `METRICS`, the counts n, positives, tp, fp, tn, fn, and the recall's interval
    "All metrics of one set of predictions, at the paper's threshold of .5."
    label = np.asarray(label).astype(int)
    tn, fp, fn, tp = (int(o) for o in skm.confusion_matrix(label, np.asarray(prob) > .5, labels=[0, 1]).ravel())
    counts = dict(n=len(label), positives=tp + fn, tp=tp, fp=fp, tn=tn, fn=fn)
    low, high = wilson(tp, tp + fn)
    return {k: float(f(label, prob)) for k, f in METRICS.items()} | counts | dict(recall_low=low, recall_high=high)

def wilson(
    k:int,          # successes
    n:int,          # trials
    level:float=.95 # confidence
) -> tuple[float, float]: # lower and upper bound, in 0..1; (0, 1) when there were no trials
    "Wilson's score interval of a ratio of counts (Wilson 1927), by scipy."
    if n == 0: return 0., 1.
    ci = binomtest(k, n).proportion_ci(level, method="wilson")
    return float(ci.low), float(ci.high)
