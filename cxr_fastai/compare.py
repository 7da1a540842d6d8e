"""Two arms on the same test rows: paired intervals, McNemar's and DeLong's tests, Holm's correction, a plain verdict.

With seeds, what is compared is the mean over the seeds that both arms have. No torch."""
import numpy as np
import pandas as pd
from .areas import delong
from .arms import arm_title
from .calibration import threshold_at
from .intervals import *
from .intervals import percentiles
from .predictions import each_backbone

__all__ = ["compare_arms", "mcnemar", "verdict"]

COMPARED = "recall", "specificity", "rocauc", "pr_auc", "brier" # and recall at 90% specificity, and the gain

def mcnemar(
    label:np.ndarray, # 0/1, `[n]`
    a:np.ndarray,     # probabilities of one arm, `[n]` or `[seeds, n]`
    b:np.ndarray,     # of another
) -> float: # exact, two-sided
    """McNemar's test of recall: the decisions at .5 about the positives, by the mean probability over seeds. It takes
    every positive image for a patient of its own."""
    from statsmodels.stats.contingency_tables import mcnemar
    hit = np.asarray(label).astype(bool)
    x, y = (np.atleast_2d(o).mean(0)[hit] > .5 for o in (a, b))
    return float(mcnemar([[(x & y).sum(), (x & ~y).sum()], [(~x & y).sum(), (~x & ~y).sum()]], exact=True).pvalue)

def _at_specificity(label, prob, valid, draws, specificity=.9):
    "Recall of each seed `[b]` at its own threshold, fixed on its valid rows."
    return [weighted_metrics(label, p, draws, threshold_at(valid.label, q, specificity),
                             calibration=False)["recall"]
            for p, q in zip(prob, valid.prob)]

def _drawn(label, prob, valid, draws):
    "Metrics `[seeds, b]` of every resample."
    each = [weighted_metrics(label, p, draws, calibration=False) for p in prob]
    return {k: np.stack([o[k] for o in each]) for k in COMPARED} | dict(
        recall_at_90=np.stack(_at_specificity(label, prob, valid, draws)))

def _mean_over(values, chosen):
    "Mean over the seeds `[b, seeds]` that each resample has drawn of `values` `[seeds, b]`."
    return values[chosen.T, np.arange(values.shape[1])].mean(0)

def _gain(before, after):
    with np.errstate(all="ignore"): return np.where(before == after, 0, (after - before)/before)

def _compare(label, patients, a, b, valid_a, valid_b, n, seed):
    draws = resample(patients, label, n, seed)
    many, rng = len(a), np.random.default_rng([seed, 1])
    chosen = rng.integers(0, many, (n, many)) # both patients and seeds are drawn (Owen 2007); one seed is itself
    ones = np.ones((1, len(label)))
    now, drawn = ([_drawn(label, p, v, w) for p, v in ((a, valid_a), (b, valid_b))] for w in (ones, draws))
    row = {}
    for k in now[0]:
        row[k] = float((now[1][k] - now[0][k]).mean())
        row[f"{k}_low"], row[f"{k}_high"] = percentiles(_mean_over(drawn[1][k] - drawn[0][k], chosen))
    row["gain"] = float(_gain(*(o["recall"].mean() for o in now)))
    row["gain_low"], row["gain_high"] = percentiles(_gain(*(_mean_over(o["recall"], chosen) for o in drawn)))
    test = delong(label, a, b, patients)
    row |= dict(rocauc_low=test["low"], rocauc_high=test["high"])
    return row | dict(p_delong=test["p"], p_mcnemar=mcnemar(label, a, b))

def _holm(table):
    "Both tests of every line are one family."
    from statsmodels.stats.multitest import multipletests
    p = table[["p_delong", "p_mcnemar"]].to_numpy()
    fixed, known = p.copy(), ~np.isnan(p)
    if known.any(): fixed[known] = multipletests(p[known], method="holm")[1]
    return table.assign(holm_delong=fixed[:, 0], holm_mcnemar=fixed[:, 1])

def compare_arms(
    predictions:pd.DataFrame, # long: `backbone arm seed side patient_id label probability synthetic`
    pairs:list,               # (before, after), as `arms.comparisons_of` gives them
    n:int=2000,               # resamples
    seed:int=0,               # of them
) -> pd.DataFrame:            # a line a backbone and pair; differences are after minus before
    """Differences of recall, specificity, areas, Brier score and recall at 90% specificity (each arm's and seed's
    threshold fixed on its valid rows), and the relative gain of recall, with 95% intervals: DeLong's for the AUC, else
    of a paired bootstrap of patients and, where there are several, of seeds. Real test rows alone; `holm_*` are
    corrected over the table."""
    rows = []
    for backbone, test, valid in each_backbone(predictions):
        for before, after in pairs:
            if not {before, after} <= set(test): continue
            seeds = [o for o in test[before].seeds if o in test[after].seeds]
            if not seeds: continue
            of = lambda side, arm: side[arm]._replace(prob=side[arm].prob[[side[arm].seeds.index(o) for o in seeds]])
            a, b = (of(test, o) for o in (before, after))
            rests_on = dict(n=len(a.label), positives=int(a.label.sum()), seeds=len(seeds))
            rows.append(dict(backbone=backbone, before=before, after=after) | rests_on
                        | _compare(a.label, a.patients, a.prob, b.prob, of(valid, before), of(valid, after), n, seed))
    return _holm(pd.DataFrame(rows)) if rows else pd.DataFrame(columns=["backbone", "before", "after"])

def verdict(
    comparisons:pd.DataFrame,      # of `compare_arms`
    before:str="real-meta",        # the comparison that was declared before the run:
    after:str="real-synth-meta",   # from this arm to that
) -> str: # a sentence a backbone
    """Whether the data support a gain: the ranking of patients must improve (AUC, DeLong, two-sided 5%). Recall at .5
    stands beside it with specificity, as both move with the threshold."""
    said = []
    for o in comparisons[(comparisons["before"] == before) & (comparisons["after"] == after)].itertuples():
        better = o.p_delong < .05 and o.rocauc > 0
        worse = o.p_delong < .05 and o.rocauc < 0
        what = "support a gain" if better else "show a loss" if worse else "do not support a gain"
        luck = "" if o.seeds > 1 else "; one seed, so that the luck of training isn't covered"
        change = lambda k: f"{getattr(o, k):+.3f} [{getattr(o, f'{k}_low'):+.3f}, {getattr(o, f'{k}_high'):+.3f}]"
        said.append(f"{o.backbone}: the data {what} from {arm_title(before)} to {arm_title(after)}: AUC "
                    f"{change('rocauc')}, p = {o.p_delong:.2g} (DeLong); recall at .5 {change('recall')} with "
                    f"specificity {change('specificity')}{luck}.")
    return "\n".join(said)
