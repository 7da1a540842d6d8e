"""Two arms over folds: differences fold by fold, with the t test that knows that trainings share patients. No torch.

Every fold of a cross-validation trains on patients whom the others train on too, so that its figures aren't
independent. Nadeau and Bengio (2003, Machine Learning 52:239, section 3.1) add to the 1/J of a mean of J figures the
share of test films to those of training; Bouckaert and Frank (2004) take it for repeated folds."""
import numpy as np
import pandas as pd
from scipy.stats import t as student

from .areas import auc_interval, delong
from .calibration import threshold_at
from .predictions import each_backbone, Side
from .scoring import compared_metrics, METRICS

__all__ = ["corrected_t", "each_fold_of", "fold_difference", "fold_differences", "fold_table"]

def corrected_t(
    values:np.ndarray, # a difference of each fold and seed, `[J]`; nan: undefined there
    ratio:float,       # films of a fold's test to those of its training
    level:float=.95,   # confidence
    most:float=1.,     # the largest that a difference can be
) -> dict:             # value, low, high, p; nan for fewer than two values, or where none differs from another
    "Nadeau and Bengio's corrected resampled t: the variance of J values counts 1/J + ratio times, J - 1 degrees."
    values = np.asarray(values, float)[~np.isnan(values)]
    nothing, J = dict(value=np.nan, low=np.nan, high=np.nan, p=np.nan), len(values)
    if not J: return nothing
    mean = float(values.mean())
    se = np.sqrt((1/J + ratio)*values.var(ddof=1)) if J > 1 else 0.
    if not se > 1e-12: return nothing | dict(value=mean) | (dict(p=1.) if J > 1 and not values.any() else {})
    half = student.ppf((1 + level)/2, J - 1)*se
    return dict(value=mean, low=max(mean - half, -most), high=min(mean + half, most),
                p=float(2*student.sf(abs(mean)/se, J - 1)))

def _ratio(test, valid, films):
    "Films of a fold's test to those that its models were trained on; both sides are of all folds."
    k = len(test.parts())
    return (len(test.label)/k)/(films - len(test.label)/k - len(valid.label)/k)

def each_fold_of(
    name:str,  # of a metric
    side:Side, # what an arm said
) -> np.ndarray: # `[F,S]`
    "A figure of every fold and seed."
    metric, said = METRICS[name], side.read("probabilities") # within a fold, they order films as its ranks do
    return np.array([[metric(side.label[o], p[o]) for p in said] for o in side.parts()])

def _at_90(side, valid):
    "Recall at the threshold that each model has for 90% specificity on its own valid rows, `[F,S]`."
    res = []
    for own, theirs in zip(side.parts(), valid.parts()):
        t, v = side.at(own), valid.at(theirs)
        res.append([np.mean(p[t.label] > threshold_at(v.label, q)) for p, q in zip(t.prob, v.prob)])
    return np.array(res)

def _gain(before, after, ratio):
    "The relative gain of recall; its interval is one of the mean's logarithm, undefined from or to nothing."
    a, b = before.mean(), after.mean()
    found = dict(value=(b - a)/a if a else np.nan, low=np.nan, high=np.nan)
    if not a*b: return found
    log = corrected_t((after/b - before/a).ravel(), ratio, most=np.inf) # to first order, about the mean's logarithm
    half, at = (log["high"] - log["low"])/2, np.log(b/a)
    return found | dict(low=np.expm1(at - half), high=np.expm1(at + half))

def fold_difference(
    name:str,   # of a metric
    a:Side,     # what one arm's folds and seeds said of their test films
    b:Side,     # another's of the same
    valid:Side, # valid films of either
) -> dict:      # `value low high p`
    "The difference b minus a of one figure: its mean over folds, repeats and seeds with `corrected_t`."
    ratio = _ratio(a, valid, len(set(a.image)))
    return corrected_t((each_fold_of(name, b) - each_fold_of(name, a)).ravel(), ratio)

def fold_differences(
    a:Side,       # what one arm's folds and seeds said of their test films
    b:Side,       # another's of the same
    valid_a:Side, # of their valid films
    valid_b:Side, # likewise
) -> dict:        # metric -> `value low high p`; `recall_at_90`, `gain`, and `pooled`, which is of `areas.delong`
    """Differences b minus a: means over folds, repeats and seeds with `corrected_t`. `pooled` is the area over all
    films out of fold, each ranked among those of its fold, by DeLong with patients as clusters."""
    ratio = _ratio(a, valid_a, len(set(a.image)))
    res = {k: fold_difference(k, a, b, valid_a) for k in compared_metrics()}
    res["recall_at_90"] = corrected_t((_at_90(b, valid_b) - _at_90(a, valid_a)).ravel(), ratio)
    res["gain"] = _gain(each_fold_of("recall", a), each_fold_of("recall", b), ratio)
    return res | dict(pooled=delong(a.label, a.rank, b.rank, a.patients))

def fold_table(
    predictions:pd.DataFrame, # long, with `fold`
) -> pd.DataFrame:            # a line a backbone and arm: `folds seeds pooled low high mean sd least most`
    """The area under the ROC curve over all films out of fold (each ranked within its fold; DeLong, patients as
    clusters), and that of single folds, mean over seeds: what one split alone would have said."""
    lines = []
    for backbone, test, _ in each_backbone(predictions):
        for arm, side in test.items():
            by_fold = each_fold_of("rocauc", side).mean(1)
            pooled = np.mean([METRICS["rocauc"](side.label, o) for o in side.rank])
            low, high = auc_interval(side.label, side.rank, side.patients)
            lines.append(dict(backbone=backbone, arm=arm, folds=len(by_fold), seeds=len(side.seeds), pooled=pooled,
                              low=low, high=high, mean=by_fold.mean(), sd=by_fold.std(ddof=1), least=by_fold.min(),
                              most=by_fold.max()))
    return pd.DataFrame(lines)
