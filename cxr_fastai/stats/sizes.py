"""How many patients the validation of a model needs: the four criteria of Riley et al. (2021). No torch.

Riley, Debray, Collins, Archer, Ensor, van Smeden, Snell, "Minimum sample size for external validation of a clinical
prediction model with a binary outcome", Statistics in Medicine 40:4230, doi:10.1002/sim.9025. Each criterion is a
standard error that falls with the root of the patients; a target of it gives their number. Where no more of a model is
known than its area, its log odds are normal in either class with one spread (their section 4.6.3)."""
from math import ceil

import numpy as np
import pandas as pd
from scipy.special import expit, logit
from scipy.stats import norm

from .prevalence import check_prevalence

__all__ = ["area_error", "area_size", "benefit_size", "log_odds", "oe_size", "slope_size", "validation_sizes"]

WIDTHS = dict(oe=.2, slope=.2, auc=.1, benefit=.2) # of 95% intervals, which the paper takes where nobody asks another
LEAST = .505 # of an area that has criteria
Z = norm.ppf(.975)

def oe_size(
    prevalence:float, # share of positives
    se:float,         # wanted, of the logarithm of observed over expected
) -> float:           # patients, not rounded
    "For how many are ill against how many were predicted, of a calibrated model (their equation 5)."
    return (1 - prevalence)/prevalence/se**2

def slope_size(
    values:np.ndarray, # log odds that a model says, `[n]`
    se:float,          # wanted, of the calibration slope
    weights=None,      # how usual each is, `[n]`; None: all alike
) -> float:            # patients, not rounded; endless where the model says the same of all
    "For the calibration slope of a calibrated model: the inverse of logistic regression's information (section 3.2)."
    values = np.asarray(values, float)
    likely = expit(values)*expit(-values)
    weights = likely if weights is None else likely*weights
    middle = np.average(values, weights=weights)
    spread = np.average((values - middle)**2, weights=weights) # of the slope's information, what the intercept leaves
    told = (weights.sum()/(weights/likely).sum())*spread
    return 1/told/se**2 if told > 0 else np.inf

def _placed(auc, prevalence):
    "Of Newcombe's variance: what is over n^2, and how much of it grows with n/2 - 1."
    return auc*(1 - auc)/(prevalence*(1 - prevalence)), (1 - auc)/(2 - auc) + auc/(1 + auc)

def area_error(
    auc:float,        # expected, above 0 and below 1
    prevalence:float, # share of positives
    patients:float,   # of both classes
) -> float:
    "The standard error of an area under the ROC curve by Newcombe (2006), as Riley et al. write it (section 3.3)."
    whole, rest = _placed(auc, prevalence)
    return np.sqrt(whole*(1 + (patients/2 - 1)*rest))/patients

def area_size(
    auc:float,        # expected, above 0 and below 1
    prevalence:float, # share of positives
    se:float,         # wanted, of the area
) -> float:           # patients, not rounded
    "For the area under the ROC curve: `area_error` solved for the patients, which is a quadratic equation."
    whole, rest = _placed(auc, prevalence)
    half = whole*rest/4/se**2
    return half + np.sqrt(half**2 + whole*(1 - rest)/se**2)

def benefit_size(
    recall:float,      # expected at the threshold
    specificity:float, # likewise
    prevalence:float,  # share of positives
    threshold:float,   # probability above which is treated
    se:float,          # wanted, of the standardised net benefit (1: that of a perfect model)
) -> float:            # patients, not rounded
    "For net benefit, over its largest value (section 3.4; the standard error is Marsh's et al. 2020)."
    p, w = prevalence, (1 - prevalence)/prevalence*threshold/(1 - threshold)
    return (recall*(1 - recall)/p + w*w*specificity*(1 - specificity)/(1 - p)
            + w*w*(1 - specificity)**2/(p*(1 - p)))/se**2

def log_odds(
    auc:float,        # of a model, above .5 and below 1
    prevalence:float, # share of positives
) -> tuple:           # mean of the negatives' log odds, and the spread of either class
    """What a calibrated model says, log odds being normal in each class with one variance: 2 (inverse normal of the
    area)^2 is it, and what the means are apart (their equation 10); the mean follows from calibration, by Bayes."""
    variance = 2*norm.ppf(auc)**2
    return logit(prevalence) - variance/2, variance**.5

def _grid(mean, sd, prevalence):
    "Log odds of a model of two normal classes, and how usual they are."
    at = np.linspace(mean - 9*sd, mean + sd*sd + 9*sd, 4001)
    return at, (1 - prevalence)*norm.pdf(at, mean, sd) + prevalence*norm.pdf(at, mean + sd*sd, sd)

def validation_sizes(
    auc:float,         # that the model is expected to have, at least .505 and below 1
    prevalence:float,  # share of positives where it is validated
    threshold:float=.5,# probability above which is treated, for net benefit
    patients:int=None, # that there are; None: not asked
) -> pd.DataFrame:     # a line a criterion: `criterion expected width patients positives`, and `width_here`
    """Patients, and positives among them, for 95% intervals as wide as the paper has them (observed over expected .2,
    slope .2, area .1, standardised net benefit .2) of a calibrated model; and how wide they are with those there are.
    ValueError for an area of a model that says nothing, and for shares that are none."""
    if not LEAST <= auc < 1:
        raise ValueError(f"An AUC of {auc:g} has no validation's size: it must be at least {LEAST} and below 1, as a "
                         "model that tells nobody apart has no slope.")
    check_prevalence(prevalence)
    if patients is not None and patients < 1: raise ValueError(f"patients={patients} must be 1 or more.")
    if not 0 < threshold < 1: raise ValueError(f"threshold={threshold:g} is no probability above 0 and below 1.")
    mean, sd = log_odds(auc, prevalence)
    far = logit(threshold) - mean
    recall, specificity = norm.sf((far - sd*sd)/sd), norm.cdf(far/sd)
    benefit = recall - (1 - specificity)*(1 - prevalence)/prevalence*threshold/(1 - threshold)
    at, usual = _grid(mean, sd, prevalence)
    straight = {k: o/2/Z for k, o in WIDTHS.items()} | dict(oe=np.arcsinh(WIDTHS["oe"]/2)/Z) # of a ratio's logarithm
    sizes = dict(oe=lambda se: oe_size(prevalence, se), slope=lambda se: slope_size(at, se, usual),
                 auc=lambda se: area_size(auc, prevalence, se),
                 benefit=lambda se: benefit_size(recall, specificity, prevalence, threshold, se))
    names = dict(oe="observed / expected", slope="calibration slope", auc="AUC",
                 benefit=f"standardised net benefit at {threshold:g}")
    lines = []
    for (k, size), expected in zip(sizes.items(), (1, 1, auc, benefit)):
        n = ceil(size(straight[k]))
        line = dict(criterion=names[k], expected=expected, width=WIDTHS[k], patients=n, positives=ceil(n*prevalence))
        if patients is not None: # all errors but the area's fall with the root of the patients
            se = area_error(auc, prevalence, patients) if k == "auc" else np.sqrt(size(1.)/patients)
            line |= dict(width_here=_width(k, se))
        lines.append(line)
    return pd.DataFrame(lines)

def _width(name, se):
    "Of a 95% interval."
    with np.errstate(over="ignore"): return 2*np.sinh(Z*se) if name == "oe" else 2*Z*se # endless of too few
