"""Means over seeds and what they are worth: the interval of these models (patients), and that of the procedure
(patients and training). No torch.

An interval of no width is none: where no resample changes a ratio, Wilson's by patients stands in, and where nothing
honest does, nan."""
import numpy as np
import pandas as pd
from scipy.special import expit, logit
from scipy.stats import t as student

from .areas import auc_interval, mean_area
from .calibration import gaps_of, recalibration, smooth_curve
from .draws import resample
from .predictions import check_scores
from .scoring import Counts, METRICS, metrics_of, wilson

__all__ = ["procedure", "spread"]

CALIBRATION = 400 # resamples behind an interval of a calibration metric, which takes longest
GAPS = "ici", "e50", "e90" # of calibration, 0 to 1
RATES = "recall", "specificity" # what all metrics of decisions follow from, with the share of positives
NOTHING = 1e-9 # a width below it is none, but for rounding

def percentiles(
    values,         # of resamples, `[b]`; nan: undefined in that one
    level:float=.95,# confidence
) -> tuple:         # low, high; nan where none is defined
    "A percentile interval of values that occur: infinities have no mean."
    values = np.sort(values[~np.isnan(values)])
    if not len(values): return np.nan, np.nan
    return tuple(values[np.ceil(len(values)*np.array([(1 - level)/2, (1 + level)/2])).astype(int) - 1].tolist())

def procedure(
    each:np.ndarray, # a figure of every seed, `[S]`; nan: undefined there
    variance:float,  # of their mean over patients
    level:float=.95, # confidence
    unit:bool=False, # it lies between 0 and 1: its log odds are taken
) -> tuple:          # low, high; nan for one seed
    """An interval of what the procedure gives on average over patients and trainings: the variance over patients, and
    that over seeds by their number, with Satterthwaite's degrees of freedom of Student's t."""
    each = np.asarray(each, float)[~np.isnan(each)]
    if len(each) < 2: return np.nan, np.nan
    mean, luck = each.mean(), each.var(ddof=1)/len(each)
    total = luck + variance
    if not total > 1e-18: return np.nan, np.nan
    half = student.ppf((1 + level)/2, (len(each) - 1)*total**2/luck**2 if luck > 1e-18 else np.inf)*np.sqrt(total)
    if not unit: return mean - half, mean + half
    if not 0 < mean < 1: return np.nan, np.nan
    return tuple(expit(logit(mean) + np.array([-half, half])/(mean*(1 - mean))).tolist())

def _mean(values, axis=0):
    "Over what is defined; nan where nothing is."
    known = ~np.isnan(values)
    with np.errstate(all="ignore"): return np.where(known, values, 0).sum(axis)/known.sum(axis)

def _clusters(draws):
    "Whose rows are whose: those of a patient are drawn alike in every resample."
    return pd.factorize(np.array([o.tobytes() for o in np.ascontiguousarray(draws.T)], object))[0]

def _alike(values):
    "Whether every seed has all, or every seed none."
    return bool((values == 0).all() or (values == 1).all())

def _mover(value, parts):
    """Of a weighted sum of independent ratios, by their intervals: (weight, ratio, low, high) each.
    Zou and Donner (2008) call it the recovery of variance estimates."""
    down = np.sqrt(sum((w*(o - low))**2 for w, o, low, _ in parts))
    up = np.sqrt(sum((w*(high - o))**2 for w, o, _, high in parts))
    return value - down, value + up

def _all_or_none(values, patients):
    "Wilson's interval of a share of so many patients, where every seed has all or none alike; else nan."
    return wilson(values[0]*patients, patients) if patients and _alike(values) else (np.nan, np.nan)

def _at_rates(metric, share, recalls, specificities):
    "From the least to the most of a metric of decisions between two pairs of rates: it rises, or falls, with both."
    r, s = np.array(recalls), np.array(specificities)
    with np.errstate(all="ignore"):
        values = metric.formula(Counts(share*r, (1 - share)*(1 - s), share*(1 - r), (1 - share)*s))
    return values.min(), values.max()

def _width(ends, each, label, called, patients):
    """Replace intervals of no width, `ends` {metric: (low, high)}: by Wilson's of patients where every seed is
    all-or-none alike, and of what follows from recall and specificity by theirs; nan where nothing honest is there."""
    decided = {k: METRICS[k] for k in each if k in METRICS and METRICS[k].reads == "decisions"}
    points = {k for k in decided if ends[k][1] - ends[k][0] < NOTHING}
    if not points: return ends
    count, share = lambda rows: len(np.unique(patients[rows])), label.mean()
    moved = points & set(RATES)
    for k in moved: ends[k] = _all_or_none(each[k], count(label == METRICS[k].share_of))
    if "precision" in points:
        known = ~np.isnan(each["precision"])
        ends["precision"] = _all_or_none(each["precision"][known], min(map(count, called[known]), default=0))
        if not np.isnan(ends["precision"][0]): points.remove("precision")
    rates, means = [ends[k] for k in RATES], [each[k].mean() for k in RATES]
    for k in decided.keys() - RATES:
        if METRICS[k].mix and (moved or k in points):
            ends[k] = _mover(_mean(each[k]), list(zip(METRICS[k].mix(share), means, *zip(*rates))))
        elif k in points: ends[k] = _at_rates(METRICS[k], share, *rates)
    return ends

def _on_odds(name):
    "Whether a figure lies between 0 and 1 and is best at 1: its log odds are taken. What is best at 0 is cut there."
    return name in METRICS and METRICS[name].ends == (0, 1) and METRICS[name].better == "higher"

def _range(name):
    "The least and the most that a figure can be."
    if name in METRICS: return METRICS[name].ends
    return (0, 1) if name in GAPS else (-np.inf, np.inf)

def _gap_ends(value, drawn, null, level):
    """Of a calibration gap, which is never negative and so is drawn too large: from the lower to the upper end of the
    percentile and of the reflected interval; from 0 where the curve's own noise is as large."""
    low, high = percentiles(drawn, level)
    ends = min(low, 2*value - high), max(high, 2*value - low)
    return (0. if not value > percentiles(null, level)[1] else max(0., ends[0])), min(1., ends[1])

def calibrated(
    label:np.ndarray, # bool, `[n]`
    prob:np.ndarray,  # `[S,n]`
    draws:np.ndarray, # unstratified ones, `[b,n]`: the share of positives is part of calibration
    before=None,      # what this gave before log odds moved by one number a seed: so do intercepts, and slopes stay
) -> tuple:           # metric -> `[S]`; metric -> `[S,b]`, and `_noise` of the gaps, which is the curve's alone
    "Slope, intercept and gaps of every seed, as it is and in every resample."
    once, drawn = [], []
    for i, p in enumerate(prob):
        at, curve, share = smooth_curve(label, p)
        _, curves, shares = smooth_curve(label, p, draws)
        noise = {f"{k}_noise": v for k, v in gaps_of(curves - curve, shares).items()}
        once.append(_cox(label, p) | gaps_of(curve - at, share))
        cox = _cox(label, p, draws) if before is None else _moved(before, once[-1], i)
        drawn.append(cox | gaps_of(curves - at, shares) | noise)
    once = {k: np.array([o[k][0] for o in once]) for k in once[0]}
    return once, {k: np.stack([o[k] for o in drawn]) for k in drawn[0]}

def _moved(before, now, i):
    "Slope and intercept of every resample after the log odds of seed `i` have moved."
    once, drawn = before
    return {k: drawn[k][i] + now[k][0] - once[k][i] for k in ("calibration_slope", "calibration_intercept")}

def _cox(label, prob, weights=None):
    return dict(zip(("calibration_slope", "calibration_intercept"), recalibration(label, prob, weights)))

def measured(
    label:np.ndarray, # bool, `[n]`
    prob:np.ndarray,  # `[S,n]`
    draws:np.ndarray, # `[b,n]`
    thresholds=.5,    # one, or one a seed
    ranked:bool=True, # the two areas, too
    rank=None,        # what orders the rows, `[S,n]`; None: the probabilities
) -> tuple:           # metric -> `[S]`; metric -> `[S,b]`
    "Every metric but calibration's of every seed, as it is and in every resample."
    thresholds, rank = np.broadcast_to(thresholds, len(prob)), prob if rank is None else rank
    of = lambda w: [metrics_of(label, p, w, t, ranked, r) for p, t, r in zip(prob, thresholds, rank)]
    both = of(np.ones((1, len(label)))), of(draws)
    once, drawn = ({k: np.stack([o[k] for o in part]) for k in part[0]} for part in both)
    return {k: v[:, 0] for k, v in once.items()}, drawn

def summary(
    once:dict,           # metric -> `[S]`
    drawn:dict,          # metric -> `[S,b]`
    label:np.ndarray,    # bool, `[n]`
    rank:np.ndarray,     # what orders the rows, `[S,n]`
    called:np.ndarray,   # positive, bool, `[S,n]`
    patients:np.ndarray, # numbers of them, `[n]`
    level:float=.95,     # confidence
) -> pd.DataFrame:       # a line a metric: `mean low high sd proc_low proc_high`
    "Means over seeds with both intervals, from what `measured` and `calibrated` give."
    means = {k: _mean(v) for k, v in drawn.items()}
    ends = {k: percentiles(means[k], level) for k in once}
    variance = {k: np.nanvar(v) if not np.isnan(v).all() else np.nan for k, v in means.items()}
    if "rocauc" in once:
        ends["rocauc"] = auc_interval(label, rank, patients, level)
        variance["rocauc"] = mean_area(label, rank, patients)[1]
    for k in set(GAPS) & set(once): ends[k] = _gap_ends(_mean(once[k]), means[k], means[f"{k}_noise"], level)
    if "recall" in once: ends = _width(ends, once, label, called, patients)
    lines = {}
    for k, each in once.items():
        low, high = ends[k] if ends[k][1] - ends[k][0] > NOTHING and not np.isnan(each).all() else (np.nan, np.nan)
        proc = procedure(each, variance[k], level, unit=_on_odds(k))
        proc = np.clip(proc, *_range(k))
        if len(each) > 1 and not np.isnan(low): proc = np.fmin(proc[0], low), np.fmax(proc[1], high)
        known = each[~np.isnan(each)]
        lines[k] = [_mean(each), low, high, known.std(ddof=1) if len(known) > 1 else np.nan, *proc]
    return pd.DataFrame.from_dict(lines, orient="index", columns=["mean", "low", "high", "sd", "proc_low", "proc_high"])

def spread(
    label:np.ndarray, # 0/1, `[n]`
    prob:np.ndarray,  # `[n]`, or `[seeds, n]`
    draws:np.ndarray, # of `resample`, for the same rows
    thresholds=.5,    # one, or one a seed
    level:float=.95,  # confidence
    calibration:bool=True, # its metrics too, in 400 unstratified resamples
    patients=None,    # whose rows they are; None: rows that are always drawn together are one patient's
    seed:int=0,       # of the resamples for calibration
    rank=None,        # what orders the rows, as `prob`; None: the probabilities
) -> pd.DataFrame:    # a line a metric: `mean low high sd proc_low proc_high`
    """The mean over seeds of every metric, over those where it is defined; two intervals; and the standard deviation
    over seeds (the luck of training; nan for one). `low high` cover the luck of the test patients, for these trained
    models: logit-DeLong or Newcombe for the area, else percentiles of `draws`. `proc_low proc_high` cover patients and
    training, and are nan for one seed."""
    label, prob = check_scores(label, prob, patients)
    prob = np.atleast_2d(prob).astype(float)
    patients = _clusters(draws) if patients is None else pd.factorize(np.asarray(patients))[0]
    rank = prob if rank is None else np.atleast_2d(rank)
    once, drawn = measured(label, prob, draws, thresholds, rank=rank)
    if calibration:
        more = calibrated(label, prob, resample(patients, label, CALIBRATION, seed=seed, stratified=False))
        once, drawn = once | more[0], drawn | more[1]
    called = prob > np.broadcast_to(thresholds, len(prob))[:, None]
    return summary(once, drawn, label, rank, called, patients, level)
