"""The one table of metrics: those of the paper's Figs 3-5 and Table 1 (recall is eq. 3), and some beyond. No torch.

An entry of `METRICS` holds all that is known of a metric. Its formula is over weighted rows, so that it gives the value
of a model and that in every resample alike; scores, tables with intervals, comparisons, the report's heads and fastai's
metrics read the rest here. Above .5 is called positive, the paper's threshold."""
from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy.stats import norm

from .calibration import calibration_gaps, recalibration
from .predictions import check_scores
from .slopes import area_slopes, average_precision_slopes, brier_slopes, share_slopes

__all__ = ["BinaryMetric", "Counts", "METRICS", "PAPER_METRICS", "WeightedRows", "called", "scores", "compared_metrics",
           "title_of", "weighted_metrics", "wilson"]

READS = "decisions", "order", "probabilities" # of a model; tables have metrics in this order
BLOCK = 2**22 # weights at a time: some 30 MB an array

class Counts(NamedTuple):
    "Rows by label and decision, or their weights or shares: numbers, or `[b]` of as many lines of weights."
    tp:np.ndarray
    fp:np.ndarray
    fn:np.ndarray
    tn:np.ndarray

class WeightedRows:
    "What one model said of its rows, under lines of weights; what is asked of it is worked out once."
    def __init__(self,
        label:np.ndarray,    # bool, `[n]`
        prob:np.ndarray,     # probability of the positive class, float, `[n]`
        weights:np.ndarray,  # `[b,n]`
        threshold:float=.5,  # above it is called positive
        rank:np.ndarray=None, # what orders the rows, `[n]`; None: the probability
    ):
        self.label, self.prob, self.weights, self.threshold = label, prob, weights, threshold
        self.rank = prob if rank is None else rank

    @cached_property
    def counts(self) -> Counts:
        "Of decisions, `[b]` each."
        label, hit = self.label, self.prob > self.threshold
        marks = np.stack([label & hit, ~label & hit, label, np.ones_like(label)], 1)
        tp, fp, positives, total = (self.weights.astype(float) @ marks).T
        return Counts(tp, fp, positives - tp, total - positives - fp)

    @cached_property
    def areas(self) -> tuple:
        "Area under the ROC curve, ties half, and average precision, `[b]` each; nan without both classes."
        order = np.argsort(-self.rank, kind="stable")
        ends = np.r_[np.flatnonzero(np.diff(self.rank[order])), len(order) - 1] # of ties
        hit = self.label[order]
        group = np.searchsorted(ends, np.flatnonzero(hit)) # whose ties each positive is among
        at, first = np.unique(group, return_index=True)
        sums = np.cumsum(self.weights[:, order], axis=1, dtype=float)
        above = sums[:, ends[at]]
        before = np.where(at > 0, sums[:, ends[at - 1]], 0) # for the first group there is none
        pos = np.add.reduceat(self.weights[:, order[hit]].astype(float), first, axis=1) if len(at) else above
        tp = pos.cumsum(1)
        positives = tp[:, -1] if len(at) else 0*sums[:, -1]
        negatives = sums[:, -1] - positives
        beaten = negatives[:, None] - ((above - tp) + (before - (tp - pos)))/2 # negatives below, and half of the tied
        average = np.where(negatives > 0, np.nansum(pos*(tp/above), axis=1)/positives, np.nan)
        return (pos*beaten).sum(1)/(positives*negatives), average

class BinaryMetric(NamedTuple):
    "All that is known of a metric; called with labels and probabilities of one model, it gives the value."
    formula:Callable    # of `Counts`, where it reads decisions, else of `WeightedRows`; `[b]`, nan where undefined
    reads:str           # 'decisions', 'order' or 'probabilities'
    title:str           # in the heads of tables
    words:str           # in a sentence
    about:str           # what it is, and where it is undefined
    better:str="higher" # or 'lower'
    ends:tuple=(0, 1)   # the least and the most that it can be
    slopes:Callable=None # of labels and probabilities `[S,n]`, as in `slopes`: differences of arms are tested by them
    share_of:int=None   # it is a share of the rows of this class, 0 or 1, whose interval is Wilson's where none varies
    mix:Callable=None   # share of positives -> weights of recall and specificity, where it is their weighted sum

    def of(self,
        rows:WeightedRows, # of one model
    ) -> np.ndarray:       # `[b]`
        "The value under every line of weights."
        with np.errstate(all="ignore"): return self.formula(rows.counts if self.reads == "decisions" else rows)

    def __call__(self, label, prob):
        label, prob = np.asarray(label) == 1, np.asarray(prob, float)
        return float(self.of(WeightedRows(label, prob, np.ones((1, len(label)))))[0])

def _accuracy(o): return (o.tp + o.tn)/(o.tp + o.fp + o.fn + o.tn)
def _recall(o): return o.tp/(o.tp + o.fn)
def _specificity(o): return o.tn/(o.tn + o.fp)
def _brier(o):
    weights = o.weights.astype(float)
    return weights @ (o.prob - o.label)**2/weights.sum(1)

METRICS = dict( # the paper's first
    accuracy=BinaryMetric(_accuracy, "decisions", "accuracy", "accuracy at .5", "(TP+TN)/n at .5.",
        mix=lambda share: (share, 1 - share)),
    precision=BinaryMetric(lambda o: o.tp/(o.tp + o.fp), "decisions", "precision", "precision at .5",
        "TP/(TP+FP) at .5; nan where nothing is called positive."),
    recall=BinaryMetric(_recall, "decisions", "recall", "recall (sensitivity) at .5",
        "TP/(TP+FN) at .5 (paper eq. 3), also called sensitivity; nan without positives.", share_of=1,
        slopes=lambda label, prob: share_slopes(prob > .5, label)),
    rocauc=BinaryMetric(lambda o: o.areas[0], "order", "ROC-AUC", "area under the ROC curve",
        "Area under the ROC curve; nan where only one class is present.", slopes=area_slopes),
    specificity=BinaryMetric(_specificity, "decisions", "specificity", "specificity at .5",
        "TN/(TN+FP) at .5.", share_of=0, slopes=lambda label, prob: share_slopes(prob <= .5, ~label)),
    pr_auc=BinaryMetric(lambda o: o.areas[1], "order", "PR-AUC", "average precision",
        "Average precision; nan where only one class is present.", slopes=average_precision_slopes),
    balanced_accuracy=BinaryMetric(lambda o: (_recall(o) + _specificity(o))/2, "decisions", "balanced accuracy",
        "balanced accuracy at .5", "Mean of recall and specificity at .5.", mix=lambda share: (.5, .5)),
    f1=BinaryMetric(lambda o: 2*o.tp/(2*o.tp + o.fp + o.fn), "decisions", "F1", "F1 at .5",
        "2TP/(2TP+FP+FN) at .5: 0 where nothing is called positive, nan where nothing is."),
    brier=BinaryMetric(_brier, "probabilities", "brier", "Brier score",
        "Mean squared error of the positive class's probability; 0 is best.", better="lower", slopes=brier_slopes),
)
PAPER_METRICS = {o: METRICS[o] for o in ("accuracy", "precision", "recall", "rocauc")} # the columns of Figs 3-5

def _in_tables(): return sorted(METRICS, key=lambda o: READS.index(METRICS[o].reads))

def compared_metrics() -> list:
    "Names of the metrics whose difference between arms is tested, in the order of tables."
    return [o for o in _in_tables() if METRICS[o].slopes]

def title_of(
    column:str, # of a table: a metric, maybe with more words behind it, or anything else
) -> str:
    "The head of a column: 'ROC-AUC procedure' for 'rocauc procedure'."
    own = next((o for o in METRICS if column == o or column.startswith((f"{o} ", f"{o}_"))), None)
    return (METRICS[own].title + column[len(own):] if own else column).replace("_", " ")

def called(
    prob:np.ndarray,    # probabilities of the positive class, any shape
    threshold:float=.5, # above it is positive; a tie is negative
) -> np.ndarray:        # bool, as `prob`
    "What is called positive: the one rule of every door. In 64 bits, as .4 of 32 bits is above .4."
    return np.asarray(prob, float) > threshold

def scores(
    label:np.ndarray, # 0/1, `[n]`
    prob:np.ndarray,  # probability of the positive class, `[n]`
    patients=None,    # whose rows they are, for the recall's interval; None: each row is another's
    threshold:float=.5, # above it is called positive
) -> dict:            # every metric of `METRICS`, the counts n, positives, tp, fp, tn, fn, and the recall's interval
    """All metrics of one set of predictions, at the paper's threshold of .5 or another. What is undefined is nan:
    precision where nothing is called positive, recall without positives. F1 is 0 where nothing is called: 2TP/(2TP + FP
    + FN) is."""
    label, prob = check_scores(label, prob, patients)
    rows = WeightedRows(label, prob.astype(float), np.ones((1, len(label))), threshold)
    tp, fp, fn, tn = (int(o[0]) for o in rows.counts)
    counts = dict(n=len(label), positives=tp + fn, tp=tp, fp=fp, tn=tn, fn=fn)
    ill = tp + fn if patients is None else len(set(np.asarray(patients)[label]))
    low, high = wilson(tp/max(tp + fn, 1)*ill, ill)
    return {k: float(o.of(rows)[0]) for k, o in METRICS.items()} | counts | dict(recall_low=low, recall_high=high)

def metrics_of(label, prob, weights, threshold=.5, ranked=True, rank=None):
    "Every metric of one model, checked before, a block of weights at a time; not `ranked`: but those of order."
    names = [o for o in _in_tables() if ranked or METRICS[o].reads != "order"]
    blocks = [WeightedRows(label, prob, o, threshold, rank) for o in np.array_split(weights, 1 + weights.size//BLOCK)]
    parts = [[METRICS[k].of(o) for k in names] for o in blocks]
    return dict(zip(names, map(np.concatenate, zip(*parts))))

def weighted_metrics(
    label:np.ndarray,   # 0/1, `[n]`
    prob:np.ndarray,    # probability of the positive class, `[n]`
    weights=None,       # `[b,n]`; None: one line of ones
    threshold:float=.5, # above it is called positive
    calibration:bool=True, # its slope, intercept and error too, which take longest
) -> dict:              # metric -> `[b]`
    """The metrics of `METRICS`, and of calibration (slope, intercept, `calibration_gaps`), of every line of weights;
    nan where a class has none or nothing is called positive."""
    label, prob = check_scores(label, prob)
    if prob.ndim != 1: raise ValueError("prob must be of one seed, [n]: spread takes several.")
    prob = prob.astype(float)
    weights = np.ones((1, len(label))) if weights is None else np.asarray(weights)
    found = metrics_of(label, prob, weights, threshold)
    if not calibration: return found
    slope, intercept = recalibration(label, prob, weights)
    line = dict(calibration_slope=slope, calibration_intercept=intercept)
    return found | line | calibration_gaps(label, prob, weights)

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
