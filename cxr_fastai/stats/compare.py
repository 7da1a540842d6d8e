"""Two arms on the same test rows: differences with their intervals and tests, and a plain verdict.

With seeds, what is compared is the mean over the seeds that both arms have. No torch."""
import numpy as np
import pandas as pd
from fastcore.meta import delegates

from ..arms import arm_title
from .areas import delong
from .differences import differences
from .folds import fold_differences
from .formats import number, with_ends
from .ledger import ALPHA, PRIMARY
from .predictions import each_backbone, paired
from .scoring import compared_metrics

__all__ = ["FEWEST_PATIENTS", "FEWEST_SEEDS", "claims", "compare_arms", "correct", "holm", "lacking", "outcome",
           "verdict"]

FEWEST_PATIENTS, FEWEST_SEEDS = 10, 3 # of either class, and trainings: of fewer, nothing is concluded
OUTCOMES = dict(gain="support a gain", loss="show a loss", none="do not support a gain")

def _one_split(a, b, valid_a, valid_b, **resamples):
    "Every difference with its interval, and the two p-values of the area."
    valid = valid_a.label, valid_a.patients, valid_a.prob, valid_b.prob
    found = differences(a.label, a.patients, a.prob, b.prob, valid, **resamples)
    area = delong(a.label, a.prob, b.prob, a.patients)
    found["rocauc"] = dict(value=area["difference"], low=area["low"], high=area["high"])
    return found, dict(p_delong=area["p"], p_verdict=area["p_verdict"])

def _of_folds(*sides, **_):
    "The same of folds, whose own figures say how much they vary: nothing is resampled."
    found = fold_differences(*sides)
    area = found["pooled"]
    found["pooled_rocauc"] = dict(value=area["difference"], low=area["low"], high=area["high"])
    return found, dict(p_delong=area["p"], p_verdict=found["rocauc"]["p"])

def _compare(a, b, valid_a, valid_b, **resamples):
    "A line: every difference with its interval, and the two tests."
    found, p = (_one_split if a.fold is None else _of_folds)(a, b, valid_a, valid_b, **resamples)
    row = {}
    for k in [*compared_metrics(), "recall_at_90", "gain", *({"pooled_rocauc"} & set(found))]:
        row |= {k: found[k]["value"], f"{k}_low": found[k]["low"], f"{k}_high": found[k]["high"]}
    return row | p | dict(p_recall=found["recall"]["p"])

def holm(
    p:np.ndarray,  # p-values of a family, `[n]`; nan: not known
    family:int=0,  # how many were planned; those that aren't there count as not significant
) -> np.ndarray:   # corrected (Holm 1979), nan where nan
    "One error rate for all of a family. Written out, as statsmodels' collects garbage, tenths of a second each time."
    p = np.asarray(p, float)
    every = np.r_[np.where(np.isnan(p), 1, p), np.ones(max(0, family - len(p)))]
    order = np.argsort(every, kind="stable")
    every[order] = np.minimum(1, np.maximum.accumulate(every[order]*np.arange(len(every), 0, -1)))
    return np.where(np.isnan(p), np.nan, every[:len(p)])

def compare_arms(
    predictions:pd.DataFrame, # long: `backbone arm seed side image patient_id label probability synthetic`
    pairs:list,               # (before, after), as `arms.comparisons_of` gives them
    *,
    n:int=2000,               # resamples, for recall at 90% specificity
    seed:int=0,               # of them
) -> pd.DataFrame:            # a line a backbone and pair; differences are after minus before
    """Differences of recall, specificity, areas, Brier score and recall at 90% specificity (each arm's and seed's
    threshold fixed on its valid rows), and the relative gain of recall, with 95% intervals of patients and, where there
    are several, of seeds: `areas.delong` for the AUC, else `differences`; of folds, `folds.fold_differences`.
    `p_recall` tests the mean recall at .5 of the seeds, patients being clusters. No p-value is corrected here:
    `correct` does."""
    rows = []
    for backbone, test, valid in each_backbone(predictions):
        for before, after in pairs:
            if (both := paired(test, before, after)) is None: continue
            a, b = both
            valid_a, valid_b = (valid[o].of_seeds(a.seeds) for o in (before, after))
            ill, well = (len(set(a.patients[o])) for o in (a.label, ~a.label))
            about = dict(backbone=backbone, before=before, after=after) | a.counts
            about |= dict(positive_patients=ill, negative_patients=well, seeds=len(a.seeds))
            if a.fold is not None: about |= dict(folds=len(a.parts()))
            about |= dict(of_seeds=", ".join(map(str, a.seeds)))
            rows.append(about | _compare(a, b, valid_a, valid_b, n=n, seed=seed))
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=["backbone", "before", "after"])

def lacking(
    o:tuple, # named: a line of `compare_arms`, or its `positive_patients negative_patients seeds p_verdict` (`folds`)
) -> list:
    "What would be needed before anything can be said; [] where nothing is."
    counts = {"positive test patients": (o.positive_patients, FEWEST_PATIENTS),
              "negative test patients": (o.negative_patients, FEWEST_PATIENTS)}
    if not _folds(o): counts |= {"seeds": (o.seeds, FEWEST_SEEDS)}
    elif (many := _folds(o)*o.seeds) < FEWEST_SEEDS: counts |= {"trainings, a fold and seed each": (many, FEWEST_SEEDS)}
    lacks = [f"{n} of the {least} {what} that are needed" for what, (n, least) in counts.items() if n < least]
    if not lacks and np.isnan(o.p_verdict): return ["the difference of the AUC can't be tested"]
    return lacks

def _folds(o):
    "Of a line of comparisons; 0 where it is of one split."
    folds = getattr(o, "folds", 0)
    return 0 if pd.isna(folds) else int(folds)

def _rule(o):
    "By what the AUC's difference is tested."
    if not (folds := _folds(o)): return "DeLong, with twice the variance over seeds"
    return f"corrected t over {folds*o.seeds} trainings of {folds} folds"

def _change(o, name):
    value, low, high = (getattr(o, f"{name}{end}") for end in ("", "_low", "_high"))
    if np.isnan(value): return "-"
    return f"{number(value, 3, '+')} [-]" if np.isnan(low) else with_ends(value, low, high, "+")

def outcome(
    p:float,          # of the difference of areas, corrected for the family; nan: not known
    difference:float, # of areas
    alpha:float,      # two-sided error rate
) -> str:
    "The rule of a verdict: 'gain', 'loss' or 'none'."
    if not (p < alpha and difference): return "none"
    return "gain" if difference > 0 else "loss"

def _p(value): return "< .001" if value < .001 else f"= {value:.2g}"

def _sentence(o, family, alpha, marks):
    "What is claimed, and what it rests on."
    pair = f"from {arm_title(o.before)} to {arm_title(o.after)}"
    beside = f"recall at .5 {_change(o, 'recall')} with specificity {_change(o, 'specificity')}"
    head = f"{o.backbone}{marks}:"
    if lacks := lacking(o):
        return (f"{head} whether the data support a gain {pair} can't be said",
                f"{', '.join(lacks)}. AUC {_change(o, 'rocauc')}; {beside}.")
    what = OUTCOMES[outcome(o.holm_verdict, o.rocauc, alpha)]
    over = f"; by Holm over {family} backbones p {_p(o.holm_verdict)}" if family > 1 else ""
    level = f"{alpha:.1%}".replace(".0%", "%")
    tested = f"p {_p(o.p_verdict)} ({_rule(o)}{over}; two-sided at {level})"
    return f"{head} the data {what} {pair}", f"AUC {_change(o, 'rocauc')}, {tested}; {beside}, p {_p(o.p_recall)}."

def _marks(o):
    "What keeps a comparison from being the one that was planned."
    marks = []
    if getattr(o, "protocol", "") == "paper": marks.append("protocol 'paper', which is leaky")
    for name in "interim", "exploratory":
        why = str(getattr(o, name, "no"))
        if why != "no": marks.append(f"{name} ({why})")
    return "".join(f", {what}" for what in marks)

def _no_line(plan, comparisons):
    "Which verdicts that were planned can't be given, or why none was."
    if plan is None: return [] if len(comparisons) else ["No verdict: there is no comparison of the primary pair."]
    if not plan["primary"] and comparisons.empty:
        lost = ", ".join(o for o in PRIMARY if o not in plan["arms"])
        return [f"No verdict: no primary comparison was planned ({' to '.join(map(arm_title, PRIMARY))} needs {lost}, "
                f"which {'are' if ',' in lost else 'is'}n't among the arms)."]
    if not plan["primary"]: return []
    pair = " and ".join(map(arm_title, plan["primary"]))
    lost = [o for o in plan["backbones"] if o not in set(comparisons["backbone"])]
    return [f"{o}: no verdict, as {pair} have no finished seed in common." for o in lost]

def correct(
    comparisons:pd.DataFrame, # of `compare_arms`, with the marks of `plan.mark_plan` where there are any
    *,
    before:str=None,          # the pair that is asked about; None: the one that is marked as primary, else Real-Meta
    after:str=None,           # to Ensemble
) -> pd.DataFrame:            # and `family holm_verdict`, nan for other pairs
    """Holm's correction of the primary pair's `p_verdict` (see `areas.delong`) over the backbones that were planned; no
    other p-value is corrected."""
    if comparisons.empty: return comparisons
    at, as_planned = _primary(comparisons, before, after).to_numpy(), _as_planned(comparisons).to_numpy()
    p, planned = comparisons["p_verdict"].to_numpy(float), 0
    if "planned_backbones" in comparisons and at.any(): planned = int(comparisons["planned_backbones"].iloc[0])
    family, fixed = np.full(len(p), np.nan), np.full(len(p), np.nan)
    for own in at, at & as_planned: # what was added later costs the planned ones nothing
        family[own], fixed[own] = max(planned, own.sum()), holm(p[own], planned)
    return comparisons.assign(family=family, holm_verdict=fixed)

def _primary(table, before, after):
    if before is None and "primary" in table: return table["primary"] == "yes"
    return (table["before"] == (before or PRIMARY[0])) & (table["after"] == (after or PRIMARY[1]))

def _as_planned(table):
    return table["exploratory"] == "no" if "exploratory" in table else pd.Series(True, table.index)

def claims(
    comparisons:pd.DataFrame, # of `compare_arms`, or of a study's comparisons.csv
    *,
    before:str=None,          # the comparison that is asked about: from this arm; None: the study's primary one, which
    after:str=None,           # is Real-Meta to Ensemble where nothing else was planned
    plan:dict=None,           # the study's plan.json: what it planned and hasn't is said, too
    alpha:float=None,         # two-sided; None: the plan's, else .05
) -> list: # (claim, what it rests on) a backbone; '' where it rests on nothing
    """Whether the data support a gain: the ranking of patients must improve (AUC, DeLong, Holm's correction over the
    backbones). Recall at .5 stands beside it with specificity, as both move with the threshold. With fewer than ten
    test patients of a class or three seeds nothing is said but what would be needed."""
    at = _primary(comparisons, before, after)
    table = correct(comparisons, before=before, after=after)[at]
    rate = lambda o: alpha or getattr(o, "alpha", ALPHA)
    said = [_sentence(o, int(o.family), rate(o), _marks(o)) for o in table.itertuples()]
    return said + [(o, "") for o in _no_line(plan, table)]

@delegates(claims)
def verdict(
    comparisons:pd.DataFrame, # as for `claims`
    **kwargs,
) -> str: # a sentence a backbone
    "The `claims` and what they rest on, as text."
    return "\n".join(": ".join(filter(None, o)) for o in claims(comparisons, **kwargs))
