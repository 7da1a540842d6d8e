"""Probabilities that mean what they say: the shift of priors, thresholds fixed on valid rows, calibration. No torch.

`label` is 0/1, `[n]`; `prob` the probability of the positive class, `[n]`. `weights` `[b,n]` weigh rows, one line a
resample: everything is computed for all of them at once."""
import numpy as np
from scipy.special import expit

__all__ = ["calibration_error", "logits", "prior_shift", "recalibration", "threshold_at"]

def logits(
    prob:np.ndarray, # 0 to 1
) -> np.ndarray:
    "Log odds; what is 0 or 1 in print is taken to be 1e-9 away from it."
    prob = np.clip(np.asarray(prob, float), 1e-9, 1 - 1e-9)
    return np.log(prob) - np.log1p(-prob)

def prior_shift(
    prob:np.ndarray, # probabilities of a model
    before:float,    # share of positives that its training saw
    after:float,     # share where it is used
) -> np.ndarray:
    "Probabilities for another share of positives: the log odds move by the difference (Saerens et al. 2002, eq. 2.4)."
    return expit(logits(prob) + logits(after) - logits(before))

def threshold_at(
    label:np.ndarray,     # of rows that are not the test's
    prob:np.ndarray,      # of the same
    specificity:float=.9, # that is wanted on them
) -> float:               # what is above it is called positive
    "The lowest threshold with at least this specificity. ValueError without a negative row."
    negatives = np.sort(np.asarray(prob, float)[np.asarray(label) == 0])
    if not len(negatives): raise ValueError("There is no negative row to fix a threshold on.")
    return float(negatives[int(np.ceil(specificity*len(negatives) - 1e-9)) - 1])

def _newton(x, y, w, a, b, slope):
    "Intercept and slope `[b]` of a weighted logistic regression on one number; nan where none is finite."
    a, b = (np.repeat(o, len(w)) for o in (a, b))
    with np.errstate(all="ignore"): return _climb(x, y, w, a, b, slope) # separated classes overflow: nan at the end

def _climb(x, y, w, a, b, slope):
    one_x = np.stack([np.ones_like(x), x, x*x], 1)
    for _ in range(25): # a handful do, where there is an optimum
        p = expit(a[:, None] + b[:, None]*x)
        (ga, gb), (haa, hab, hbb) = ((w*(y - p)) @ one_x[:, :2]).T, ((w*p*(1 - p)) @ one_x).T
        if slope:
            det = haa*hbb - hab*hab
            da, db = (hbb*ga - hab*gb)/det, (haa*gb - hab*ga)/det
        else: da, db = ga/haa, 0*ga
        step = np.minimum(1, 5/np.maximum(np.abs(da) + np.abs(db), 1e-12)) # far from the optimum, no leap
        a, b = a + step*da, b + step*db
        if not (np.abs(da) + np.abs(db) > 1e-7).any(): break # the step after would be of 1e-14
    lost = ~(np.abs(da) + np.abs(db) < 1e-6) | (np.abs(b) > 1e3) | (np.abs(a) > 1e3)
    return np.where(lost, np.nan, a), np.where(lost, np.nan, b)

def recalibration(
    label:np.ndarray, # 0/1, `[n]`
    prob:np.ndarray,  # `[n]`
    weights=None,     # `[b,n]`; None: one line of ones
) -> tuple:           # slope `[b]` and intercept `[b]`
    """Cox's (1958) calibration: the slope of a logistic regression of the label on the log odds, 1 at best, and the
    intercept with that slope held at 1, 0 at best; nan where the classes are separated or there is one only."""
    x, y = logits(prob), np.asarray(label, float)
    ones = np.ones((1, len(x)))
    start = [np.nan_to_num(o, nan=d) for o, d in zip(_newton(x, y, ones, 0., 1., True), (0., 1.))]
    _, slope = _newton(x, y, ones if weights is None else weights, *start, True)
    first = np.nan_to_num(_newton(x, y, ones, 0., 1., False)[0])
    intercept, _ = _newton(x, y, ones if weights is None else weights, first, 1., False)
    return slope, intercept

def calibration_error(
    label:np.ndarray, # 0/1, `[n]`
    prob:np.ndarray,  # `[n]`
    weights=None,     # `[b,n]`; None: one line of ones
    bins:int=10,      # of as many rows each, by probability
) -> np.ndarray:      # `[b]`, 0 at best
    "Expected calibration error: how far the share of positives is from the mean probability, a bin, by its weight."
    label, prob = np.asarray(label, float), np.asarray(prob, float)
    weights = np.ones((1, len(prob))) if weights is None else weights
    off = np.zeros((len(prob), bins))
    for i, at in enumerate(np.array_split(np.argsort(prob, kind="stable"), bins)): off[at, i] = (label - prob)[at]
    return np.abs(weights @ off).sum(1) / weights.sum(1)
