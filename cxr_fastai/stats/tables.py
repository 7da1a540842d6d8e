"""A study's tables: the paper's Table 1, and every metric of every arm. No torch.

They are made of `predictions`, a line a test or valid row of each cell, and `cells`, a line a cell, as
`grid.Study.collect` gives them."""
import numpy as np
import pandas as pd
from fastcore.meta import delegates

from ..arms import arm_title, is_plain, parse_arm
from .calibration import shifted
from .draws import at_valid, resample
from .formats import digits_for, number
from .intervals import calibrated, CALIBRATION, measured, summary
from .predictions import each_backbone
from .scoring import compared_metrics

__all__ = ["GAINS", "gains_of", "in_words", "metrics_table", "score_table", "score_tables", "span", "table1"]

GAINS = ("real", "real-meta"), ("real-meta", "real-synth-meta") # of the paper's Table 1: one source more at a time
RESTS_ON = ["n", "positives", "seeds", "epoch", "weights", "protocol", "exploratory"] # what stands beside a result

def gains_of(
    arms:list, # names
) -> list:     # (before, after)
    "`GAINS`, and those by films of other generators, or of a part of the change."
    before, after = GAINS[-1]
    others = [o for o in dict.fromkeys(arms) if is_plain(o) and o != after and parse_arm(o).base == after]
    return [*GAINS, *((before, o) for o in others)]

def _rests_on(table): return [o for o in RESTS_ON if o in table]

def in_words(
    mean:float,            # of seeds
    low:float,             # of its interval; nan: there is none
    high:float,            # the same
    sd:float=float("nan"), # over seeds
) -> str:
    "A value, its 95% interval and its sd over seeds; '-' for what is undefined."
    if np.isnan(mean): return "-"
    return f"{number(mean, digits_for(low, high))} {span(low, high)}" + ("" if np.isnan(sd) else f" sd {sd:.3f}")

def span(
    low:float,    # nan: there is none
    high:float,   # its other end
    digits:int=3, # after the point; more where its ends would look alike
) -> str:
    "An interval in words; '[-]' where there is none."
    if np.isnan(low): return "[-]"
    digits = digits_for(low, high, digits)
    return f"[{number(low, digits)}, {number(high, digits)}]"

def _paper_counts(own):
    "By the 'paper' protocol: recall over all positives, synthetic ones too, and how many of them are, of every seed."
    seeds = own[(own["side"] == "test") & (own["label"] == 1)].groupby("seed")
    found = dict(recall_with_synthetic=seeds["probability"].apply(lambda o: (o > .5).mean()),
                 positives_with_synthetic=seeds.size(), positives_synthetic=seeds["synthetic"].sum())
    return {k: v.to_numpy(float) for k, v in found.items()}

class _Arm:
    "What an arm's seeds said of the same rows, in resamples that all arms of those rows share; measured once."
    def __init__(self, test, valid, cells, draws, counts):
        self.test, self.rank, self.counts, self.parts = test, test.rank, counts, []
        self.draws, free = draws(test, True), draws(test, False)
        label, prob, moved = test.label, test.prob, shifted(test, cells)
        calibration = calibrated(label, prob, free)
        self._add("{}", prob > .5, measured(label, prob, self.draws, rank=self.rank), calibration)
        self._at_valid(valid, draws(valid, True, 1))
        decided = measured(label, moved, self.draws, ranked=False)
        self._add("{}_corrected", moved > .5, decided, calibrated(label, moved, free, calibration))

    def _add(self, name, called, *found):
        "Metrics that are named so, of these decisions: as they are, and as they are drawn."
        once, drawn = ({k: v for part in parts for k, v in part.items()} for parts in zip(*found))
        self.parts.append((name, called, once, drawn))

    def _at_valid(self, valid, drawn):
        "Recall and specificity at the thresholds that have a specificity on valid, which every draw finds anew."
        label, wanted = self.test.label, (.9, .95)
        for share, (called, found) in zip(wanted, at_valid(self.test, valid, self.draws, drawn, wanted)):
            once = dict(recall=called[:, label].mean(1), specificity=1 - called[:, ~label].mean(1))
            self._add(f"{{}}_at_{share*100:.0f}", called, (once, found))

    def table(self, at=slice(None)):
        "Every metric over the seeds `at`."
        lines, label, rank, who = [], self.test.label, self.rank[at], self.test.who
        for name, called, *found in self.parts:
            once, drawn = ({k: v[at] for k, v in o.items()} for o in found)
            lines.append(summary(once, drawn, label, rank, called[at], who).rename(index=name.format))
        counts = {k: v[at] for k, v in self.counts.items()}
        lines.append(pd.DataFrame([dict(mean=v.mean(), sd=v.std(ddof=1) if len(v) > 1 and "rec" in k else np.nan)
                                   for k, v in counts.items()], index=list(counts)))
        return pd.concat([o for o in lines if len(o)])

def _sharing(n, seed):
    "Resamples by rows: arms of the same rows are drawn alike."
    known = {}
    def draws(o, stratified, stream=0):
        key = tuple(o.patients), o.label.tobytes(), stratified, stream # in their order
        if key not in known:
            many, stem = n if stratified else min(n, CALIBRATION), [seed, stream] if stream else seed
            known[key] = resample(o.patients, o.label, many, seed=stem, stratified=stratified)
        return known[key]
    return draws

def score_tables(
    predictions:pd.DataFrame, # long: `backbone arm seed side image patient_id label probability synthetic`
    cells:pd.DataFrame,       # a line a cell: `backbone arm seed weights train_prior prior`
    *,
    epoch_rule:str="last",    # for the record
    protocol:str="clean",     # for the record, and 'paper' counts synthetic positives too
    n:int=2000,               # resamples
    seed:int=0,               # of them
) -> tuple:                   # `score_table`, and the same of each seed alone with a column `seed`
    "Both tables from one set of resamples and one measurement of every cell."
    done, both, draws = cells[cells["train_prior"].notna()], [[], []], _sharing(n, seed)
    sides = {o: (test, valid) for o, test, valid in each_backbone(predictions)}
    for (backbone, arm), about in done.groupby(["backbone", "arm"], sort=False):
        test, valid = (o.get(arm) for o in sides.get(backbone, ({}, {})))
        if test is None: continue
        about = about[about["seed"].isin(test.seeds)].sort_values("seed")
        seeds = about["seed"].unique().tolist()
        test, valid = (o.of_seeds(seeds) for o in (test, valid))
        counts = {}
        if protocol == "paper":
            own = predictions[(predictions["backbone"] == backbone) & (predictions["arm"] == arm)]
            counts = _paper_counts(own[own["seed"].isin(seeds)])
        found = _Arm(test, valid, about, draws, counts)
        rests_on = dict(backbone=backbone, arm=arm) | test.counts
        also = dict(epoch=epoch_rule, protocol=protocol)
        weights = ", ".join(dict.fromkeys(about["weights"]))
        both[0].append(_lines(found.table(), rests_on | dict(seeds=len(seeds), weights=weights) | also))
        for i, (s, one) in enumerate(about.groupby("seed")["weights"].first().items()):
            both[1].append(_lines(found.table([i]), rests_on | dict(seed=s, weights=one) | also))
    scored, each = (pd.concat(o, ignore_index=True) for o in both)
    return scored, each.drop(columns=["sd", "proc_low", "proc_high"])

def _lines(table, about):
    table = table.rename_axis("metric").reset_index()
    return table.assign(**about)[["backbone", "arm", *table, *(o for o in about if o not in ("backbone", "arm"))]]

@delegates(score_tables)
def score_table(
    predictions:pd.DataFrame, # long, as for `score_tables`
    cells:pd.DataFrame,       # a line a cell, likewise
    **kwargs,
) -> pd.DataFrame:            # a line a backbone, arm and metric: `mean low high sd proc_low proc_high`
    """Every metric of every arm on the real test rows: mean over seeds; `low high`, the 95% interval of these models
    (patients); sd over seeds; `proc_low proc_high`, that of the procedure (patients and seeds; nan for one seed).
    `_at_90` and `_at_95` at the threshold fixed on valid for that specificity, which the interval takes for drawn, too;
    `_corrected` after the prior shift to the real training rows' share of positives; AUCs don't change by it."""
    return score_tables(predictions, cells, **kwargs)[0]

def metrics_table(
    table:pd.DataFrame, # of `score_table`
) -> pd.DataFrame:      # a line a backbone and arm, a column a metric
    """The same in words: mean [95% interval of these models, by patients] sd over seeds; and of some, a column
    `... procedure` with the interval of the procedure, patients and seeds ('[-]' for one seed)."""
    words = [in_words(*o) for o in table[["mean", "low", "high", "sd"]].itertuples(index=False)]
    proc = table[table["metric"].isin([*compared_metrics(), "recall_at_90"])]
    said = proc["metric"] + " procedure", [span(*o) for o in proc[["proc_low", "proc_high"]].itertuples(index=False)]
    table = pd.concat([table.assign(words=words), proc.assign(metric=said[0], words=said[1])])
    wide = table.assign(arm=table["arm"].map(arm_title)).pivot_table(
        index=["backbone", "arm"], columns="metric", values="words", aggfunc="first", sort=False)
    by_arm = table.assign(arm=table["arm"].map(arm_title)).groupby(["backbone", "arm"], sort=False)
    rest = by_arm[_rests_on(table)].first()
    return wide.join(rest).reset_index().fillna("-")

def table1(
    table:pd.DataFrame,       # of `score_table`
    comparisons:pd.DataFrame, # of `compare.compare_arms`, for the gains
) -> pd.DataFrame:            # a line a backbone
    """The paper's Table 1: recall at .5 by its arms, mean over seeds with the interval of these models (patients), and
    beside it that of the procedure (patients and seeds; '[-]' for one seed); the relative gains, with what they rest
    on. A gain from a recall of 0 is undefined, and says so."""
    recall, lines = table[(table["metric"] == "recall") & table["arm"].map(is_plain)], []
    for backbone, own in recall.groupby("backbone", sort=False):
        line = {"Model": backbone}
        for o in own.to_dict("records"):
            line[arm_title(o["arm"])] = _recall(o)
            line[f"{arm_title(o['arm'])} procedure"] = span(o["proc_low"], o["proc_high"], 2)
        for o in comparisons[comparisons["backbone"] == backbone].itertuples():
            if (o.before, o.after) not in gains_of(own["arm"]): continue
            line[f"Gain {arm_title(o.before)} to {arm_title(o.after)}"] = _gain_of(o, own.set_index("arm"))
        several = {k: ", ".join(map(str, dict.fromkeys(own[k]))) for k in _rests_on(own)}
        used = [o for o in dict.fromkeys(own["weights"][own["arm"] != "meta"])]
        lines.append(line | several | dict(weights=", ".join(used) or "none"))
    return pd.DataFrame(lines)

def _recall(o):
    "As the paper prints it, with an interval, and the sd over seeds where there are several."
    sd = "" if np.isnan(o["sd"]) else f" sd {o['sd']:.2f}"
    if np.isnan(o["mean"]): return "-"
    return f"{o['mean']:.4f} {span(o['low'], o['high'], 2)}{sd}"

FAR = 10 # times: a gain beyond it says no more

def _gain_of(o, recall):
    "In words; none where it isn't over the seeds of its recalls. From nothing there is only a difference."
    theirs = recall.loc[[o.before, o.after]]
    if not (theirs["seeds"] == o.seeds).all(): return "-"
    text, mean = _gain(o.gain, o.gain_low, o.gain_high), theirs["mean"]
    return text if mean[o.before] else f"{text}: from 0 to {mean[o.after]:.4f}"

def _gain(value, low, high):
    text = f"{value:+.1%}" if np.isfinite(value) else "undefined"
    if np.isnan(low): return f"{text} [-]"
    high = f"{high:+.0%}" if high < FAR else f">+{FAR:.0%}" # from a recall that may be near 0
    return f"{text} [{low:+.0%}, {high}]".replace("nan%", "-")
