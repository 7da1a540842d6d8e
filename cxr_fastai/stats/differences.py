"""How far two arms' figures differ on the same test rows: each difference with its interval and p-value. No torch.

A figure is a function of how much each row weighs. Its `slopes` in these weights, summed over each patient's rows,
give the variance that the draw of patients brings, within the two strata that `draws.resample` draws from. To it comes
the variance over seeds, over how many there are, less what of it is the draw of patients again; Student's t has
Satterthwaite's (1946) degrees of freedom."""
from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy.stats import t as student

from .draws import at_specificity_draws, resample
from .predictions import check_scores
from .scoring import METRICS, compared_metrics

__all__ = ["DIFFERENCES", "differences"]

DIFFERENCES = *(o for o in compared_metrics() if o != "rocauc"), "recall_at_90", "gain" # the area has DeLong's test
UNKNOWN = dict.fromkeys(("value", "low", "high", "p"), np.nan)

class _Rows:
    "Rows of one side: their labels, whose they are, and two strata: patients with a positive film, and the others."
    def __init__(self, label, patients):
        self.label, self.patients = label, patients
        self.who, names = pd.factorize(np.asarray(patients))
        ill = np.bincount(self.who, label, len(names)) > 0
        self.strata = [o for o in (np.flatnonzero(ill), np.flatnonzero(~ill)) if len(o)]

    def count(self, of): return len(np.unique(self.who[of]))

    def variance(self, slopes):
        "Of a figure of these slopes `[n]`, a stratum a line: (variance, its square over its degrees of freedom)."
        sums, res = np.bincount(self.who, slopes), []
        for own in (sums[o] for o in self.strata):
            k = len(own)
            v = k*own.var(ddof=1) if k > 1 else np.nan if own.any() else 0. # one patient doesn't vary: not known
            res.append((v, v*v/max(k - 1, 1)))
        return res

    def again(self, slopes):
        "Variance `[S]` of how far each seed is from their mean, by the draw of patients."
        return [sum(v for v, _ in self.variance(o - slopes.mean(0))) for o in slopes]

def _with_luck(parts, by_seed, again):
    """To the variance by the draw of patients, what the draw of seeds adds to a mean over them `[S]`; of one seed,
    nothing is known. `again` `[S]` is what patients do to the seeds' deviations: it is in `parts` already."""
    many = len(by_seed)
    if many < 2: return parts
    seen = by_seed.var(ddof=1)/many
    added = max(0., seen - np.mean(again)/(many - 1))
    total = added + sum(v for v, _ in parts)
    return [*parts, (added, min(seen, total)**2/(many - 1))] # never fewer degrees of freedom than the seeds alone have

def _at_least(parts, k, seeds, scale=1):
    """Where the arms hardly differ in any of `k` patients, the variance of one more of them found by either arm alone
    (as Bonett & Price 2012), over seeds: what wasn't seen in a few patients may be there in others."""
    least = 2/(k + 2)**2/seeds*scale
    return [(least, least**2/max(k - 1, 1))] if sum(v for v, _ in parts) < least else parts

def _interval(value, parts, level):
    "Low, high and p of a value with this variance; nan where there is none."
    total = sum(v for v, _ in parts)
    if not total > 0: return np.nan, np.nan, np.nan
    df = total**2/sum(o for _, o in parts)
    half = student.ppf((1 + level)/2, df)*total**.5
    return value - half, value + half, 2*student.sf(abs(value)/total**.5, df)

def _said(value, parts, level):
    low, high, p = _interval(value, parts, level)
    return dict(value=value, low=np.maximum(low, -1), high=np.minimum(high, 1), p=p)

def _figure(name, test, a, b, level):
    "One of `METRICS` that has slopes."
    (before, slopes_before), (after, slopes_after) = (METRICS[name].slopes(test.label, o) for o in (a, b))
    slopes, by_seed, among = slopes_after - slopes_before, after - before, METRICS[name].share_of
    parts = test.variance(slopes.mean(0))
    if among is not None: parts = _at_least(parts, test.count(test.label == among), len(a))
    return _said(by_seed.mean(), _with_luck(parts, by_seed, test.again(slopes)), level)

def _gain(test, a, b, level):
    "The relative gain of recall; its interval is one of the logarithm."
    (each_before, slopes_before), (each_after, slopes_after) = (METRICS["recall"].slopes(test.label, o) for o in (a, b))
    before, after = each_before.mean(), each_after.mean()
    value = (after - before)/before if before else np.nan
    if not before*after: return dict(value=value, low=np.nan, high=np.nan, p=np.nan)
    slopes, by_seed = slopes_after/after - slopes_before/before, each_after/after - each_before/before
    parts = _at_least(test.variance(slopes.mean(0)), test.count(test.label), len(a), 1/(before*after))
    low, high, p = _interval(np.log(after/before), _with_luck(parts, by_seed, test.again(slopes)), level)
    return dict(value=value, low=np.expm1(low), high=np.expm1(high), p=p)

def _at_90(test, a, b, valid, *, n, seed, level):
    """Recall at 90% specificity on valid. A threshold has no slopes: patients of both sides are drawn, and every
    resample finds its own."""
    label, patients, *probs = valid
    (label, valid_a), (_, valid_b) = (check_scores(label, np.atleast_2d(o), patients) for o in probs)
    if label.all(): return dict(UNKNOWN) # no threshold is to be had
    drawn = [resample(who, own, n, seed=[seed, side])
             for side, (who, own) in enumerate([(test.patients, test.label), (patients, label)])]
    once = [np.ones((1, len(o))) for o in (test.label, label)]
    def recall(prob, valid_prob, weights):
        return at_specificity_draws(test.label, prob, weights[0], label, valid_prob, weights[1])["recall"]
    by_seed, moved = (recall(b, valid_b, o) - recall(a, valid_a, o) for o in (once, drawn))
    by_seed, ill = by_seed[:, 0], test.count(test.label)
    variance = np.nanvar(moved.mean(0), ddof=1)*ill/max(ill - 1, 1)
    parts = _at_least([(variance, variance**2/max(ill - 1, 1))], ill, len(by_seed))
    again = np.nanvar(moved - moved.mean(0), axis=1, ddof=1)
    return _said(by_seed.mean(), _with_luck(parts, by_seed, again), level)

def differences(
    label:np.ndarray,  # of the test rows, 0/1, `[n]`
    patients:Iterable, # whose they are, `[n]`
    a:np.ndarray,      # probabilities of one arm, `[seeds, n]`
    b:np.ndarray,      # of another, by the same seeds
    valid:tuple=None,  # the same four of the valid rows: label, patients, a, b; None: no recall at their threshold
    *,
    n:int=2000,        # resamples, for `recall_at_90`
    seed:int=0,        # of them
    level:float=.95,   # confidence
) -> dict:             # of recall, specificity, pr_auc, brier, recall_at_90 and gain: `value low high p`
    """Differences b minus a of means over seeds, and the relative gain of recall. What nothing is known of is nan: no
    interval is a point. The luck of training is covered from two seeds on."""
    (label, a), (_, b) = (check_scores(label, np.atleast_2d(o), patients) for o in (a, b))
    if label.all() or not label.any(): return {o: dict(UNKNOWN) for o in DIFFERENCES}
    test = _Rows(label, patients)
    figures = [o for o in compared_metrics() if o != "rocauc"]
    res = {k: _figure(k, test, a, b, level) for k in figures} | dict(gain=_gain(test, a, b, level))
    return res | dict(recall_at_90=_at_90(test, a, b, valid, n=n, seed=seed, level=level) if valid else dict(UNKNOWN))
