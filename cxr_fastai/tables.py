"""Metrics, intervals and tables in the paper's form (Table 1, Figs 3-5; recall is eq. 3). No torch.

Every metric takes `label` (0/1, `[n]`) and `prob` (probability of the positive class, `[n]`); above
.5 is called positive."""
import numpy as np
import pandas as pd
from scipy.stats import binomtest
from sklearn import metrics as skm

__all__ = ["PAPER_METRICS", "METRICS", "scores", "wilson", "gain", "gain_interval", "table1_row", "arms_table",
           "to_markdown"]

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

def gain_interval(
    label,          # 0/1, `[n]`
    before,         # probability of the positive class without, `[n]`
    after,          # and with, for the same rows
    patients,       # whose rows they are, `[n]`
    n:int=2000,     # resamples
    level:float=.95,# confidence
    seed:int=0,     # of the resamples
) -> dict:          # `difference` of the recalls and `gain`, each (value, low, high); a gain from 0 is nan or inf
    """Recall with against without, on the same rows: percentile intervals of a bootstrap that draws patients. Not in
    the paper, whose arms were scored on different rows. They cover the luck of the test patients, not of seed and
    split."""
    who = pd.factorize(np.asarray(patients))[0]
    label, before, after = (np.asarray(o) for o in (label, before, after))
    hits = np.stack([np.bincount(who, label.astype(bool) & o) for o in (label > 0, before > .5, after > .5)], 1)
    draws = np.random.default_rng(seed).multinomial(len(hits), np.full(len(hits), 1/len(hits)), n)
    ends = [(1 - level)/2, (1 + level)/2]
    def both(counts):
        "Difference and relative change of recall, for counts `[n, (positives, before, after)]`."
        positives, b, a = counts.astype(float).T
        with np.errstate(divide="ignore", invalid="ignore"): return (a - b)/positives, np.where(a == b, 0, (a - b)/b)
    spread = lambda o: np.nanquantile(o, ends, method="inverted_cdf") # a value that occurs: infinities have no mean
    positives, b, a = hits.sum(0)
    values = (a - b)/positives, gain(b/positives, a/positives)
    return {k: (float(v), *spread(o).tolist()) for k, v, o in zip(("difference", "gain"), values, both(draws @ hits))}

ARM_TITLES = {"real": "Real", "meta": "Meta", "real-meta": "Real-Meta", "real-synth": "Real-Synth",
              "real-synth-meta": "Ensemble"} # the paper's column heads; Meta is its MLP-meta, Real-Synth is not in it
STEPS = ("real", "real-meta"), ("real-meta", "real-synth-meta") # what is added, one source at a time

def _recall(s): return f"{s['recall']:.4f} [{s['recall_low']:.2f}, {s['recall_high']:.2f}]"

def _gain(value, low, high):
    text = f"{value:+.1%}" if np.isfinite(value) else "undefined"
    return f"{text} [{low:+.0%}, {high:+.0%}]".replace("inf%", "inf")

def table1_row(
    model:str,         # backbone, as the row's name
    arms:dict,         # arm -> its `scores`
    predictions:dict,  # arm -> DataFrame of `patient_id label probability`, in one order; `label` is 0/1
    **about,           # what else must stand beside a result: seed, weights, epoch rule, protocol
) -> pd.DataFrame:     # one row
    """One row of the paper's Table 1: recall by arm with its 95% Wilson interval, gains with that of a bootstrap over
    patients, and what it rests on. A gain from a recall of 0 is undefined."""
    row = {"Model": model} | {ARM_TITLES.get(k, k): _recall(s) for k, s in arms.items()}
    for before, after in STEPS:
        if not {before, after} <= set(arms): continue
        b, a = predictions[before], predictions[after]
        found = gain_interval(b["label"], b["probability"], a["probability"], b["patient_id"])
        row[f"Gain {ARM_TITLES[before]} to {ARM_TITLES[after]}"] = _gain(*found["gain"])
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
