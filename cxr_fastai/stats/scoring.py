"""The metrics of the paper's Figs 3-5 and Table 1 (recall is eq. 3), and those that go beyond. No torch.

Every metric takes `label` (0/1, `[n]`) and `prob` (probability of the positive class, `[n]`); above
.5 is called positive."""
import numpy as np
from scipy.stats import norm
from sklearn import metrics as skm

from .predictions import check_scores

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

def _balanced(label, prob):
    "The mean of recall and specificity; nan where one of them is."
    return (METRICS["recall"](label, prob) + METRICS["specificity"](label, prob))/2

PAPER_METRICS = { # the columns of the paper's Figs 3-5
    "accuracy" : _decided(skm.accuracy_score),
    "precision": _decided(skm.precision_score, zero_division=np.nan),
    "recall"   : _decided(skm.recall_score, zero_division=np.nan),
    "rocauc"   : _ranked(skm.roc_auc_score),
}
METRICS = PAPER_METRICS | { # and those that go beyond
    "specificity"      : _decided(skm.recall_score, pos_label=0, zero_division=np.nan),
    "pr_auc"           : _ranked(skm.average_precision_score),
    "balanced_accuracy": _balanced,
    "f1"               : _decided(skm.f1_score, zero_division=np.nan),
    "brier"            : lambda label, prob: skm.brier_score_loss(label, prob, pos_label=1),
}

def scores(
    label:np.ndarray, # 0/1, `[n]`
    prob:np.ndarray,  # probability of the positive class, `[n]`
    patients=None,    # whose rows they are, for the recall's interval; None: each row is another's
) -> dict:            # every metric of `METRICS`, the counts n, positives, tp, fp, tn, fn, and the recall's interval
    """All metrics of one set of predictions, at the paper's threshold of .5. What is undefined is nan: precision where
    nothing is called positive, recall without positives. F1 is 0 where nothing is called: 2TP/(2TP + FP + FN) is."""
    label, prob = check_scores(label, prob, patients)
    label = label.astype(int)
    tn, fp, fn, tp = (int(o) for o in skm.confusion_matrix(label, prob > .5, labels=[0, 1]).ravel())
    counts = dict(n=len(label), positives=tp + fn, tp=tp, fp=fp, tn=tn, fn=fn)
    ill = tp + fn if patients is None else len(set(np.asarray(patients)[label == 1]))
    low, high = wilson(tp/max(tp + fn, 1)*ill, ill)
    return {k: float(f(label, prob)) for k, f in METRICS.items()} | counts | dict(recall_low=low, recall_high=high)

def wilson(
    k:float,        # successes; a share of patients needn't be a whole number of them
    n:float,        # trials, or as many as clustered ones are worth
    level:float=.95 # confidence
) -> tuple[float, float]: # lower and upper bound, in 0..1; (0, 1) when there were no trials
    "Wilson's score interval of a ratio of counts (Wilson 1927)."
    if not 0 <= k <= n: raise ValueError(f"{k} successes of {n} trials are none: they must be from 0 to the trials.")
    if n == 0: return 0., 1.
    z, p = norm.ppf((1 + level)/2), k/n
    mid, half = (p + z*z/(2*n))/(1 + z*z/n), z*np.sqrt(p*(1 - p)/n + z*z/(4*n*n))/(1 + z*z/n)
    return (0. if p <= 0 else float(mid - half)), (1. if p >= 1 else float(mid + half))
