"""Probabilities that mean what they say: the shift of priors, thresholds fixed on valid rows, calibration. No torch.

`label` is 0/1, `[n]`; `prob` the probability of the positive class, `[n]`. `weights` `[b,n]` weigh rows, one line a
resample: everything is computed for all of them at once."""
import numpy as np
import pandas as pd
from scipy.special import expit

from .predictions import check_prob, check_scores, Side

__all__ = ["calibration_gaps", "gaps_of", "logits", "prior_shift", "recalibration", "shifted", "smooth_curve",
           "threshold_at"]

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
    return expit(logits(check_prob(prob)) + logits(after) - logits(before))

def shifted(
    side:Side,          # what an arm said
    cells:pd.DataFrame, # its cells, a line a model: `seed train_prior prior`, and `fold` where the side has folds
    after:float=None,   # share of positives where it is used; None: each model's `prior`, of its real training rows
) -> np.ndarray:        # `[S,n]`
    "`prior_shift` of each model from the share that its own training saw."
    res = np.empty(side.prob.shape)
    for at in side.parts():
        own = cells if side.fold is None else cells[cells["fold"] == side.fold[at][0]]
        known = own.set_index("seed")
        for i, seed in enumerate(side.seeds):
            before, now = known.loc[seed, "train_prior"], known.loc[seed, "prior"] if after is None else after
            res[i, at] = prior_shift(side.prob[i, at], before, now)
    return res

def threshold_at(
    label:np.ndarray,     # of rows that are not the test's
    prob:np.ndarray,      # of the same
    specificity:float=.9, # that is wanted on them
) -> float:               # what is above it is called positive
    "The lowest threshold with at least this specificity. ValueError without a negative row."
    label, prob = check_scores(label, prob)
    negatives = np.sort(prob.astype(float)[~label])
    if not len(negatives): raise ValueError("There is no negative row to fix a threshold on.")
    return float(negatives[int(np.ceil(specificity*len(negatives) - 1e-9)) - 1])

def _newton(x, y, w, a, b, slope):
    "Intercept and slope `[b]` of a weighted logistic regression on one number; nan where none is finite."
    a, b = (np.repeat(o, len(w)).astype(w.dtype) for o in (a, b))
    x, y = x.astype(w.dtype), y.astype(w.dtype)
    with np.errstate(all="ignore"): return _climb(x, y, w, a, b, slope) # separated classes overflow: nan at the end

def _climb(x, y, w, a, b, slope):
    one_x = np.stack([np.ones_like(x), x, x*x], 1)
    enough = 1e-7 if len(w) == 1 else 1e-4 # the step after would be its square: of resamples, less does
    for _ in range(25): # a handful do, where there is an optimum
        p = expit(a[:, None] + b[:, None]*x)
        (ga, gb), (haa, hab, hbb) = ((w*(y - p)) @ one_x[:, :2]).T, ((w*p*(1 - p)) @ one_x).T
        if slope:
            det = haa*hbb - hab*hab
            da, db = (hbb*ga - hab*gb)/det, (haa*gb - hab*ga)/det
        else: da, db = ga/haa, 0*ga
        step = np.minimum(1, 5/np.maximum(np.abs(da) + np.abs(db), 1e-12)) # far from the optimum, no leap
        a, b = a + step*da, b + step*db
        if not (np.abs(da) + np.abs(db) > enough).any(): break
    lost = ~(np.abs(da) + np.abs(db) < max(1e-6, enough)) | (np.abs(b) > 1e3) | (np.abs(a) > 1e3)
    return np.where(lost, np.nan, a), np.where(lost, np.nan, b)

def recalibration(
    label:np.ndarray, # 0/1, `[n]`
    prob:np.ndarray,  # `[n]`
    weights=None,     # `[b,n]`; None: one line of ones
) -> tuple:           # slope `[b]` and intercept `[b]`
    """Cox's (1958) calibration: the slope of a logistic regression of the label on the log odds, 1 at best, and the
    intercept with that slope held at 1, 0 at best; nan where the classes are separated or there is one only."""
    label, prob = check_scores(label, prob)
    x, y = logits(prob), label.astype(float)
    ones = np.ones((1, len(x)))
    scale = x.std() or 1.
    u = (x - x.mean())/scale # from no slope at all: from one of 1, an overconfident model's steps leap to and fro
    start = np.nan_to_num(_newton(u, y, ones, 0., 0., True))
    slope = _newton(u, y, ones if weights is None else weights, *start, True)[1]/scale
    first = np.nan_to_num(_newton(x, y, ones, 0., 1., False)[0])
    intercept, _ = _newton(x, y, ones if weights is None else weights, first, 1., False)
    return slope, intercept

def smooth_curve(
    label:np.ndarray, # 0/1, `[n]`
    prob:np.ndarray,  # `[n]`
    weights=None,     # `[b,n]`; None: one line of ones
    span:float=.75,   # share of the rows that each point of the curve looks at
    knots:int=100,    # at most so many: distinct probabilities where they are few, else quantiles
) -> tuple:           # knots `[k]`, curve `[b,k]`, and the weight of the rows nearest to each knot `[b,k]`
    """The share of positives over the predicted probability as lowess draws it (Cleveland 1979; local lines, tricube
    weights, no robustness steps, as the label is 0 or 1), for every line of weights at once; from 0 to 1."""
    label, prob = check_scores(label, prob)
    weights = np.ones((1, len(prob))) if weights is None else weights
    x, w, hit = _gathered(label, prob.astype(float), weights)
    at = np.unique(x)
    if len(at) > knots: at = np.unique(np.quantile(x, (np.arange(knots) + .5)/knots, method="inverted_cdf"))
    apart, k = x - at[:, None], max(0, int(span*len(x) + 1e-10) - 1)
    u = apart/np.maximum(np.partition(np.abs(apart), k, axis=1)[:, k], 1e-12)[:, None] # in windows
    kernel = np.clip(1 - np.abs(u)**3, 0, None)**3
    parts = np.concatenate([kernel, kernel*u, kernel*u*u]).T.astype(w.dtype)
    s0, s1, s2 = np.split(w @ parts, 3, axis=1)
    t0, t1 = np.split(hit @ parts[:, :2*len(at)], 2, axis=1)
    det = s0*s2 - s1*s1
    with np.errstate(all="ignore"): curve = np.where(det > 1e-5*s0*s0, (s2*t0 - s1*t1)/det, t0/s0)
    share = w @ np.eye(len(at), dtype=w.dtype)[np.abs(apart).argmin(0)]
    return at, np.clip(curve, 0, 1), share

def _gathered(label, prob, weights, most=1000):
    "Rows by probability, their weight `[b,m]` and that of the positives; of more rows than `most`, like ones together."
    if len(prob) <= most: return prob, weights, weights*label.astype(weights.dtype)
    order = np.argsort(prob, kind="stable")
    starts = np.arange(most)*len(prob)//most
    w = weights[:, order]
    together = lambda o: np.add.reduceat(o, starts, axis=-1)
    return together(prob[order])/together(np.ones(len(prob))), together(w), together(w*label[order].astype(w.dtype))

def calibration_gaps(
    label:np.ndarray, # 0/1, `[n]`
    prob:np.ndarray,  # `[n]`
    weights=None,     # `[b,n]`; None: one line of ones
) -> dict:            # ici, e50 and e90, `[b]` each, 0 at best
    """How far predicted probabilities are from the smooth curve: the mean over rows (integrated calibration index), the
    median and the 90th percentile (Austin and Steyerberg 2019, Statistics in Medicine 38:4051)."""
    at, curve, share = smooth_curve(label, prob, weights)
    return gaps_of(curve - at, share)

def gaps_of(
    gap:np.ndarray,   # of a curve to another, `[b,k]`
    share:np.ndarray, # the weight of the rows at each knot, `[b,k]`
) -> dict:            # ici, e50 and e90, `[b]` each
    "The mean, the median and the 90th percentile of what lies between two curves."
    gap = np.abs(gap)
    share = np.where(np.isnan(gap), 0, share)
    gap, order = np.nan_to_num(gap), np.argsort(np.nan_to_num(gap), axis=1)
    rising, sums = (np.take_along_axis(o, order, 1) for o in (gap, share))
    sums = sums.cumsum(1)
    with np.errstate(invalid="ignore"): mean = (gap*share).sum(1)/sums[:, -1]
    quantile = lambda q: rising[np.arange(len(gap)), (sums < q*sums[:, -1:] - 1e-6).sum(1)]
    return dict(ici=mean, e50=quantile(.5), e90=quantile(.9))
