"""How often a study finds a gain, by a normal approximation to `power.simulated`: at once, for a first look. No torch.

Areas are normal; the variance that a study sees over its trainings is chi-squared, and decides how large a difference
must be. What this misses of the simulation is in `tests/stats/test_expected.py`: at most some 5 of 100 studies."""
import numpy as np
from scipy.optimize import brentq
from scipy.stats import chi2, norm, t as student

from .areas import CAUTION
from .ledger import ALPHA
from .power import check_verdict, OWN, Setting, skill, VIEW

__all__ = ["expected_power", "smallest_gain"]

MOST = .999 # of an area: beyond it nothing is ranked wrongly
LIKELY = (np.arange(64) + .5)/64
TESTED = 1/.8 # films of a fold's test to those of its training, times folds less one: a fifth of the others are valid
NODES, WEIGHTS = np.polynomial.legendre.leggauss(24)

def _shared(one, two, r):
    """Covariance of two models' placements of a film, which is that of normal distribution functions: the integral of
    the bivariate normal density over its correlation, from 0 to half of the scores' own `r` (Plackett 1954, Biometrika
    41:351)."""
    h, k = one/2**.5, two/2**.5
    t = r/4*(NODES + 1)
    return r/4*(WEIGHTS @ (np.exp(-(h*h - 2*h*k*t + k*k)/(2*(1 - t*t)))/np.sqrt(1 - t*t)))/(2*np.pi)

def _variances(setting, a, b):
    """Of the difference of two arms' areas, of skills a and b: by the draw of patients at one training each, what of
    it all trainings share, and by the luck of one training each."""
    m, n = setting.positives, setting.negatives
    each, same = (sum(_shared(o, o, r) for o in (a, b)) - 2*_shared(a, b, OWN) for r in (1, OWN + VIEW))
    slope = sum(norm.pdf(o/2**.5)**2/2 for o in (a, b)) # of an area in its skill, squared
    return each*(1/m + 1/n), same*(1/m + 1/n), slope*setting.luck**2

def _needed(setting, each, same, luck, alpha):
    "How large a difference must be seen, for draws of the variance over trainings that are as likely as each other."
    S, k = setting.seeds, setting.folds
    if k:
        J, shared, own = k*S, same*k, (each - same)*k + luck # seeds of a fold have its patients in common
        parts = np.array([S*shared + own, own]), np.array([k - 1, J - k])
        total, df = parts[0] @ parts[1], (parts[0] @ parts[1])**2/(parts[0]**2 @ parts[1])
        seen = total/(J - 1)*chi2.ppf(LIKELY, df)/df
        return student.ppf(1 - alpha/2, J - 1)*np.sqrt((1/J + TESTED/(k - 1))*seen)
    patient, counted = same + (each - same)/S, CAUTION*(luck + each - same)/S*chi2.ppf(LIKELY, S - 1)/(S - 1)
    return student.ppf(1 - alpha/2, (S - 1)*(patient + counted)**2/counted**2)*np.sqrt(patient + counted)

def expected_power(
    setting:Setting,   # of the study; one film a patient is taken
    auc:float=.8,      # of the arm before
    gain:float=.05,    # of AUC, of the arm after
    *,
    backbones:int=1,   # over which the verdict is Holm's: the first of them is asked at alpha over their number
    alpha:float=ALPHA, # error rate of the verdict, two-sided
) -> float:
    """How often a gain is found, by a normal approximation to `simulated`, at once: areas are normal, the variance that
    a study sees over its trainings is chi-squared. ValueError where no verdict can be given."""
    check_verdict(setting)
    each, same, luck = _variances(setting, skill(auc), skill(auc + gain))
    trainings = np.prod(setting.trainings)
    sd = np.sqrt(same + (each - same)/setting.seeds + luck/trainings)
    return float(norm.sf((_needed(setting, each, same, luck, alpha/backbones) - gain)/sd).mean())

def smallest_gain(
    setting:Setting, # of the study
    auc:float=.8,    # of the arm before
    power:float=.8,  # share of studies that find it
    **kwargs,        # of `expected_power`
) -> float:          # of AUC; nan where no gain up to a perfect ranking is found so often
    "The gain that is found so often, by `expected_power`."
    lacks = lambda gain: expected_power(setting, auc, gain, **kwargs) - power
    most = MOST - auc
    return float(brentq(lacks, 0, most)) if most > 0 and lacks(most) > 0 else float("nan")
