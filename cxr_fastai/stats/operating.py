"""What is settled on valid rows before a model is used: a temperature, a threshold, and what they promise. No torch.

`label` is 0/1, `[n]`; `prob` the probability of the positive class, `[n]`."""
from numbers import Real

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit
from scipy.stats import beta

from .calibration import logits, threshold_at
from .predictions import check_scores
from .scoring import called, wilson

__all__ = ["fit_temperature", "promised", "specificity_of", "tempered", "threshold_by"]

HOTTEST = 100. # temperatures are looked for from its inverse to it; at an end there is none

def tempered(
    prob:np.ndarray,   # of the positive class
    temperature:float, # above 0; 1 changes nothing
) -> np.ndarray:
    "Probabilities whose log odds are divided by a temperature: their order stays."
    return expit(logits(prob)/temperature)

def fit_temperature(
    label:np.ndarray, # of rows that are neither the test's nor the training's
    prob:np.ndarray,  # of the same, as the model says them
) -> float:
    """The temperature with the least log loss (Guo et al. 2017, arXiv:1706.04599). ValueError where there is none: it
    would be endless, or 0."""
    label, prob = check_scores(label, prob)
    z = logits(prob)*np.where(label, 1, -1)
    loss = lambda log_t: np.logaddexp(0, -z/np.exp(log_t)).mean()
    end = np.log(HOTTEST)
    best = minimize_scalar(loss, bounds=(-end, end), method="bounded", options=dict(xatol=1e-8)).x
    if abs(best) > .99*end:
        why = ("none is better than even odds, as where a model ranks by chance or is far off in level" if best > 0 else
               "the model tells them apart without a fault")
        raise ValueError(f"There is no temperature for these {len(z):,} rows: {why}.")
    return float(np.exp(best))

def specificity_of(
    rule:str|float, # 'specificity=.9', 'youden' or a number
) -> float:         # the specificity that is asked for; None by another rule
    "What a rule asks for. ValueError for what is no rule, and for a number that is no threshold."
    if isinstance(rule, Real) and not isinstance(rule, bool):
        if not 0 <= rule <= 1: raise ValueError(f"threshold is {rule} and must be from 0 to 1.")
        return None
    name, _, share = str(rule).replace(" ", "").partition("=")
    try: wanted = float(share) if name == "specificity" else None
    except ValueError: wanted = np.nan
    if rule != "youden" and (wanted is None or not 0 < wanted <= 1):
        raise ValueError(f"threshold={rule!r} is neither a number from 0 to 1 nor 'youden' nor 'specificity=.9'.")
    return wanted

def _youden(label, prob):
    "The lowest threshold with the most recall + specificity."
    if label.all() or not label.any(): raise ValueError("youden needs rows of both classes.")
    at = np.unique(prob)
    recall, specificity = (1 - np.searchsorted(np.sort(prob[label]), at, "right")/label.sum(),
                           np.searchsorted(np.sort(prob[~label]), at, "right")/(~label).sum())
    return float(at[(recall + specificity).argmax()])

def threshold_by(
    rule:str,         # 'specificity=.9': the lowest with at least this one; 'youden': the most recall + specificity
    label:np.ndarray, # of rows that are not the test's
    prob:np.ndarray,  # of the same
) -> float:           # what is above it is called positive
    "A threshold by a rule. ValueError for what is no rule, and for rows without the classes that it needs."
    wanted = specificity_of(rule)
    label, prob = check_scores(label, prob)
    return _youden(label, prob.astype(float)) if wanted is None else threshold_at(label, prob, wanted)

def promised(
    label:np.ndarray, # of the rows that the threshold was chosen on
    prob:np.ndarray,  # of the same
    threshold:float,  # above it is positive
    patients=None,    # whose rows they are; None: each row is another's
    level:float=.95,  # confidence
) -> dict:            # recall, specificity, and `_low _high` of each
    """What a threshold has on the rows that it was chosen on, with an interval of what it has elsewhere in the same
    population. It is an order statistic of the negatives, so that its specificity there is of a beta distribution
    (David and Nagaraja 2003, 2.2), with as many negatives as patients; the recall's interval is Wilson's. By 'youden',
    which looks at both, values and intervals flatter."""
    label, prob = check_scores(label, prob, patients)
    hit, who = called(prob, threshold), np.arange(len(label)) if patients is None else np.asarray(patients)
    ill, well = (len(np.unique(who[o])) for o in (label, ~label))
    recall, specificity = hit[label].mean() if ill else np.nan, (~hit)[~label].mean() if well else np.nan
    res = dict(recall=float(recall), specificity=float(specificity))
    res |= dict(zip(("recall_low", "recall_high"), wilson(recall*ill, ill, level) if ill else (0., 1.)))
    ends = beta.ppf([(1 - level)/2, (1 + level)/2], specificity*well, well*(1 - specificity) + 1) if well else (0., 1.)
    low, high = np.nan_to_num(ends, nan=0.) # below all negatives nothing is promised
    return res | dict(specificity_low=float(low), specificity_high=float(high))
