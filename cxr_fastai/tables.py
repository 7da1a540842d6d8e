"""Metrics, intervals and tables in the paper's form (Table 1, Figs 3-5; recall is eq. 3). No torch.

Every metric takes `label` (0/1, `[n]`) and `prob` (probability of the positive class, `[n]`); above
.5 is called positive."""
import numpy as np
import pandas as pd
from scipy.stats import binomtest
from sklearn import metrics as skm

__all__ = ["PAPER_METRICS", "METRICS", "scores", "wilson", "gain", "table1_row", "arms_table", "to_markdown"]

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
    label, # 0/1, `[n]`
    prob,  # probability of the positive class, `[n]`
) -> dict: # every metric of `METRICS`, the counts n, positives, tp, fp, tn, fn, and the recall's interval
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

def gain(
    before:float, # recall without
    after:float,  # recall with
) -> float:       # relative change, .12 = 12% more; nan when `before` is 0
    "The paper's gain: the relative change in recall from one arm to another (Table 1)."
    return (after - before) / before if before else float("nan")

ARM_TITLES = {"real": "Real", "meta": "Meta", "real-meta": "Real-Meta"} # the paper's column heads; Meta is its MLP-meta

def _recall(s): return f"{s['recall']:.4f} [{s['recall_low']:.2f}, {s['recall_high']:.2f}]"

def table1_row(
    model:str,       # backbone, as the row's name
    arms:dict,       # arm -> its `scores`
    **about,         # what else must stand beside a result: seed, weights, epoch rule, protocol
) -> pd.DataFrame:   # one row
    "One row of the paper's Table 1, recall with its 95% Wilson interval by arm, and what it rests on."
    row = {"Model": model} | {ARM_TITLES.get(k, k): _recall(s) for k, s in arms.items()}
    if {"real", "real-meta"} <= set(arms):
        more = gain(arms["real"]["recall"], arms["real-meta"]["recall"])
        row["Gain Real to Real-Meta"] = "undefined" if np.isnan(more) else f"{more:+.1%}"
    first = next(iter(arms.values()))
    return pd.DataFrame([row | dict(n=first["n"], positives=first["positives"]) | about])

def arms_table(
    arms:dict, # arm -> its `scores`
) -> pd.DataFrame:
    "Every metric of every arm on the same test rows, at the paper's threshold of .5."
    return pd.DataFrame([{"arm": ARM_TITLES.get(k, k)} | {m: s[m] for m in METRICS} for k, s in arms.items()])

def to_markdown(
    table:pd.DataFrame, # any table
) -> str:
    "The table as aligned markdown text, floats with six decimals."
    text = {c: [f"{o:.6f}" if isinstance(o, float) else str(o) for o in table[c]] for c in table}
    width = {c: max(map(len, [str(c), *text[c]])) for c in text}
    line = lambda cells: "| " + " | ".join(f"{o:<{n}}" for o, n in zip(cells, width.values())) + " |"
    return "\n".join(map(line, [map(str, text), ["-" * n for n in width.values()], *zip(*text.values())]))
