"""A study's tables: the paper's Table 1, every metric of every arm, subgroups. No torch.

They are made of `predictions`, a line a test or valid row of each cell, and `cells`, a line a cell, as
`grid.Study.collect` gives them."""
import numpy as np
import pandas as pd
from .arms import ARMS, arm_title
from .calibration import *
from .intervals import *
from .scoring import wilson

__all__ = ["metrics_table", "score_table", "subgroups", "table1"]

GAINS = ("real", "real-meta"), ("real-meta", "real-synth-meta") # of the paper's Table 1: one source more at a time
RESTS_ON = ["n", "positives", "seeds", "epoch", "weights", "protocol"] # what stands beside every result

def _in_words(mean, low, high, sd=float("nan")):
    "A value, its 95% interval and its sd over seeds."
    if np.isnan(mean): return "-"
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]" + ("" if np.isnan(sd) else f" sd {sd:.3f}")

def _with_wilson(table, label):
    "A ratio of counts that no resample changes (all found, or none) has no percentile interval: Wilson's stands in."
    for name, n in ("recall", label.sum()), ("specificity", (1 - label).sum()):
        o = table.loc[name]
        if o["low"] == o["high"]: table.loc[name, ["low", "high"]] = wilson(round(o["mean"]*n), int(n))
    return table

def _at_valid(valid, test, label, draws, specificity):
    "Recall at the threshold that has this specificity on valid, and the specificity it has on test."
    thresholds = [threshold_at(o["label"], o["probability"], specificity) for o in valid]
    found = spread(label, test, draws, thresholds, calibration=False)
    name = f"at_{specificity:.0%}".rstrip("%")
    return found.loc[["recall", "specificity"]].rename(index=lambda o: f"{o}_{name}")

def _paper_counts(own):
    "By the 'paper' protocol: recall over all positives, synthetic ones too, and how many of them are."
    test = own[own["side"] == "test"]
    hit = test[test["label"] == 1]
    each = hit.groupby("seed")["probability"].apply(lambda o: (o > .5).mean())
    value = lambda v, sd=np.nan: dict(mean=v, low=np.nan, high=np.nan, sd=sd)
    made = hit.groupby("seed")["synthetic"].sum().mean()
    return pd.DataFrame([value(each.mean(), each.std(ddof=1)), value(hit.groupby("seed").size().mean()), value(made)],
                        index=["recall_with_synthetic", "positives_with_synthetic", "positives_synthetic"])

def _score(own, cells, draws, protocol):
    "Every metric of one backbone and arm: its real test rows, as trained and after the prior shift."
    real = own[~own["synthetic"]]
    valid, test = (list(dict(list(real[real["side"] == o].groupby("seed"))).values()) for o in ("valid", "test"))
    label, prob = test[0]["label"].to_numpy(), np.stack([o["probability"] for o in test])
    draws = draws(test[0]["patient_id"].to_numpy(), label)
    parts = [_with_wilson(spread(label, prob, draws), label)]
    parts += [_at_valid(valid, prob, label, draws, o) for o in (.9, .95)]
    shifts = cells.set_index("seed")[["train_prior", "prior"]].loc[[o["seed"].iloc[0] for o in test]].to_numpy()
    moved = np.stack([prior_shift(p, *shift) for p, shift in zip(prob, shifts)])
    corrected = _with_wilson(spread(label, moved, draws), label).drop(index=["rocauc", "pr_auc"])
    parts.append(corrected.rename(index=lambda o: f"{o}_corrected"))
    if protocol == "paper": parts.append(_paper_counts(own))
    return pd.concat(parts), len(label), int(label.sum())

def score_table(
    predictions:pd.DataFrame, # long: `backbone arm seed side patient_id label probability synthetic`
    cells:pd.DataFrame,       # a line a cell: `backbone arm seed weights train_prior prior`
    epoch_rule:str="last",    # for the record
    protocol:str="clean",     # for the record, and 'paper' counts synthetic positives too
    n:int=2000,               # resamples
    seed:int=0,               # of them
) -> pd.DataFrame:            # a line a backbone, arm and metric: `mean low high sd`, and what it rests on
    """Every metric of every arm on the real test rows, its 95% interval (patients) and its sd over seeds; `_at_90` and
    `_at_95` at the threshold fixed on valid for that specificity; `_corrected` after the prior shift to the real
    training rows' share of positives; AUCs don't change by it."""
    rows, known = [], {}
    def draws(patients, label):
        "Of the same rows, the same: every arm is drawn alike."
        key = hash((patients.tobytes() if patients.dtype != object else tuple(patients), label.tobytes()))
        if key not in known: known[key] = resample(patients, label, n, seed)
        return known[key]
    done = cells[cells["train_prior"].notna()]
    for (backbone, arm), own in predictions.groupby(["backbone", "arm"], sort=False):
        about = done[(done["backbone"] == backbone) & (done["arm"] == arm)]
        table, count, positives = _score(own, about, draws, protocol)
        weights = ", ".join(dict.fromkeys(about["weights"]))
        rows.append(table.rename_axis("metric").reset_index().assign(
            backbone=backbone, arm=arm, n=count, positives=positives, seeds=len(about), epoch=epoch_rule,
            weights=weights, protocol=protocol))
    table = pd.concat(rows, ignore_index=True)
    return table[["backbone", "arm", *table.columns.drop(["backbone", "arm"])]]

def metrics_table(
    table:pd.DataFrame, # of `score_table`
) -> pd.DataFrame:      # a line a backbone and arm, a column a metric
    "The same in words: mean [95% interval] sd over seeds."
    words = [_in_words(*o) for o in table[["mean", "low", "high", "sd"]].itertuples(index=False)]
    wide = table.assign(words=words, arm=table["arm"].map(arm_title)).pivot_table(
        index=["backbone", "arm"], columns="metric", values="words", aggfunc="first", sort=False)
    rest = table.assign(arm=table["arm"].map(arm_title)).groupby(["backbone", "arm"], sort=False)[RESTS_ON].first()
    return wide.join(rest).reset_index().fillna("-")

def table1(
    table:pd.DataFrame,       # of `score_table`
    comparisons:pd.DataFrame, # of `compare.compare_arms`, for the gains
) -> pd.DataFrame:            # a line a backbone
    """The paper's Table 1: recall at .5 by its arms, mean over seeds with its interval, and the relative gains, with
    what they rest on. A gain from a recall of 0 is undefined."""
    recall, lines = table[(table["metric"] == "recall") & table["arm"].isin(ARMS)], []
    for backbone, own in recall.groupby("backbone", sort=False):
        line = {"Model": backbone} | {arm_title(o["arm"]): _recall(o) for o in own.to_dict("records")}
        for o in comparisons[comparisons["backbone"] == backbone].itertuples():
            if (o.before, o.after) not in GAINS: continue
            line[f"Gain {arm_title(o.before)} to {arm_title(o.after)}"] = _gain(o.gain, o.gain_low, o.gain_high)
        several = {k: ", ".join(map(str, dict.fromkeys(own[k]))) for k in RESTS_ON}
        used = [o for o in dict.fromkeys(own["weights"][own["arm"] != "meta"])]
        lines.append(line | several | dict(weights=", ".join(used) or "none"))
    return pd.DataFrame(lines)

def _recall(o):
    "As the paper prints it, with an interval, and the sd over seeds where there are several."
    sd = "" if np.isnan(o["sd"]) else f" sd {o['sd']:.2f}"
    return f"{o['mean']:.4f} [{o['low']:.2f}, {o['high']:.2f}]{sd}"

def _gain(value, low, high):
    text = f"{value:+.1%}" if np.isfinite(value) else "undefined"
    return f"{text} [{low:+.0%}, {high:+.0%}]".replace("inf%", "inf").replace("nan%", "-")

def _bands(numbers, width=20):
    "Numbers in bands, as words: '20-39'."
    low = (pd.to_numeric(numbers) // width * width)
    return low.map(lambda o: f"{o:.0f}-{o + width - 1:.0f}", na_action="ignore")

def subgroups(
    predictions:pd.DataFrame, # as for `score_table`
    rows:pd.DataFrame,        # the study's table, for the metadata
    names=("sex", "view", "age"), # columns; numbers in bands of twenty
    n:int=1000,               # resamples
    seed:int=0,               # of them
) -> pd.DataFrame:            # a line a backbone, arm, column and group
    """Recall, specificity and AUC by group, mean over seeds with their intervals, and how many there are: where a
    group's share of positives decides, as with AP films, an arm of metadata alone shows it too. '-' where a class is
    missing."""
    names = [o for o in names if o in rows]
    about = rows.drop_duplicates("image").assign(image=rows["image"].astype(str)).set_index("image")[names]
    numbers = [o for o in names if pd.api.types.is_numeric_dtype(about[o])]
    words = about.assign(**{o: _bands(about[o]) for o in numbers}).fillna("missing")
    test, lines = predictions[(predictions["side"] == "test") & ~predictions["synthetic"]], []
    for (backbone, arm), own in test.groupby(["backbone", "arm"], sort=False):
        by_seed = [o for _, o in own.groupby("seed")]
        first, prob = by_seed[0], np.stack([o["probability"] for o in by_seed])
        groups = words.loc[first["image"].astype(str)]
        for name in names:
            for group in sorted(groups[name].unique()):
                at = (groups[name] == group).to_numpy()
                lines.append(dict(backbone=backbone, arm=arm_title(arm), column=name, group=group)
                             | _of_group(first[at], prob[:, at], n, seed))
    return pd.DataFrame(lines)

def _of_group(rows, prob, n, seed):
    label = rows["label"].to_numpy()
    counts = dict(n=len(label), positives=int(label.sum()))
    if not 0 < label.sum() < len(label): return counts | dict.fromkeys(("recall", "specificity", "rocauc"), "-")
    draws = resample(rows["patient_id"], label, n, seed)
    found = _with_wilson(spread(label, prob, draws, calibration=False), label)
    return counts | {o: _in_words(*found.loc[o, ["mean", "low", "high"]]) for o in ("recall", "specificity", "rocauc")}
