"""What a model is worth where the illness is as common as it is: predictive values and net benefit at a stated share of
positives, and what the cohort's own share is made of. No torch.

Recall and specificity are taken to be the same there (Saerens et al. 2002); probabilities move by `prior_shift`."""
import numpy as np
import pandas as pd

from .calibration import shifted
from .draws import at_valid, resample
from .intervals import percentiles
from .predictions import check_scores, each_backbone

__all__ = ["check_prevalence", "net_benefit", "predictive_values", "prevalence_table", "sampling_note"]

TIMES = 1, 2, 5 # the prevalence: threshold probabilities that net benefit is told at

def check_prevalence(
    prevalence:float, # any number
) -> float:           # the same
    "ValueError for what is no share of positives."
    if 0 < prevalence < 1: return float(prevalence)
    raise ValueError(f"prevalence={prevalence} is no share of positives: write 0.01 for one in a hundred.")

def predictive_values(
    recall:np.ndarray, # of the ill, number or array
    specificity:np.ndarray, # of the others
    prevalence:float, # share of positives where the model is used
) -> tuple:           # ppv and npv; nan where nobody is called so
    "The share of ill among those called positive, and of well among the others: Bayes' rule."
    ill, well = prevalence*np.asarray(recall, float), (1 - prevalence)*np.asarray(specificity, float)
    with np.errstate(invalid="ignore"):
        return ill/(ill + 1 - prevalence - well), well/(well + prevalence - ill)

def net_benefit(
    label:np.ndarray,     # 0/1, `[n]`
    prob:np.ndarray,      # `[n]`
    thresholds:np.ndarray, # threshold probabilities `[t]`, below 1: above them is treated
    prevalence:float=None,# None: that of the rows
    weights=None,         # `[b,n]`; None: one line of ones
) -> np.ndarray:          # `[b,t]`
    """True positives less false ones at the price that the threshold sets, a patient: recall p - (1 - specificity)
    (1 - p) t/(1 - t) (Vickers and Elkin 2006, Medical Decision Making 26:565; p as in the package dcurves)."""
    label, prob = check_scores(label, prob)
    at = np.atleast_1d(np.asarray(thresholds, float))
    weights = np.ones((1, len(label))) if weights is None else np.asarray(weights, float)
    called = (prob[:, None] > at).astype(float)
    with np.errstate(invalid="ignore"):
        recall, alarms = (weights[:, o] @ called[o]/weights[:, o].sum(1, keepdims=True) for o in (label, ~label))
        share = prevalence or weights[:, label].sum(1, keepdims=True)/weights.sum(1, keepdims=True)
    return recall*share - alarms*(1 - share)*at/(1 - at)

def _lines(test, valid, cells, prevalence, draws, valid_draws):
    "A line a rule: its ppv, npv and net benefit, `[1 + b]` each, means over seeds."
    label, weights = test.label, np.concatenate([np.ones((1, len(test.label))), draws])
    rate = lambda called, of: np.stack([weights[:, of] @ o[of]/weights[:, of].sum(1) for o in called.astype(float)])
    values = lambda called: predictive_values(rate(called, label), 1 - rate(called, ~label), prevalence)
    yield "above .5 as trained", *values(test.prob > .5), None, None
    (hit, drawn), = at_valid(test, valid, draws, valid_draws)
    now = rate(hit, label)[:, :1], 1 - rate(hit, ~label)[:, :1]
    both = [np.concatenate([o, drawn[k]], axis=1) for o, k in zip(now, ("recall", "specificity"))]
    yield "90% specificity on valid", *predictive_values(*both, prevalence), None, None
    moved = shifted(test, cells, prevalence)
    for t in (o*prevalence for o in TIMES if o*prevalence < 1):
        gain = np.stack([net_benefit(label, p, t, prevalence, weights)[:, 0] for p in moved])
        everyone = prevalence - (1 - prevalence)*t/(1 - t)
        yield f"probability there above {t:.3g}", *values(moved > t), gain, everyone

def prevalence_table(
    predictions:pd.DataFrame, # as for `score_table`
    cells:pd.DataFrame,       # a line a cell: `backbone arm seed train_prior`
    prevalence:float,         # share of positives where the model would be used
    *,
    n:int=1000,               # resamples
    seed:int=0,               # of them
) -> pd.DataFrame:            # a line a backbone, arm and rule: `ppv npv net_benefit` with `_low _high`; `treat_all`
    """Predictive values of the decisions, and net benefit at threshold probabilities of one, two and five times the
    prevalence beside that of treating everyone (nobody: 0), means over seeds with 95% intervals of these models
    (patients). What is undefined, as a ppv where nobody is called, is nan."""
    check_prevalence(prevalence)
    known, rows = {}, []
    for backbone, test, valid in each_backbone(predictions):
        for arm, o in test.items():
            key = tuple(o.patients)
            if key not in known:
                v = valid[arm]
                known[key] = (resample(o.patients, o.label, n, seed=seed),
                              resample(v.patients, v.label, n, seed=[seed, 1]))
            own = cells[(cells["backbone"] == backbone) & (cells["arm"] == arm)]
            for rule, ppv, npv, gain, everyone in _lines(o, valid[arm], own, prevalence, *known[key]):
                line = dict(backbone=backbone, arm=arm, rule=rule, prevalence=prevalence, seeds=len(o.seeds))
                for k, v in dict(ppv=ppv, npv=npv, net_benefit=gain).items(): line |= _ends(k, v)
                rows.append(line | dict(treat_all=np.nan if everyone is None else everyone))
    return pd.DataFrame(rows)

def _ends(name, values):
    "A mean over seeds and its interval; no interval of no width."
    if values is None: return dict.fromkeys((name, f"{name}_low", f"{name}_high"), np.nan)
    mean = pd.DataFrame(values).mean().to_numpy() # over the seeds where it is defined
    low, high = percentiles(mean[1:])
    if np.isnan(mean[0]) or not high - low > 1e-12: low = high = np.nan
    return {name: mean[0], f"{name}_low": low, f"{name}_high": high}

def sampling_note(
    flow:pd.DataFrame, # of `flow_table`
) -> str: # sentences on what the share of positives is, from what was read
    "That the cohort's share of positives is made by its sampling, and whom its negatives leave out."
    drawn, said = flow[~flow["step"].str.fullmatch("train|valid|test|fold [0-9]+")].iloc[-1], []
    share = drawn["positives"]/drawn["rows"]
    read = drawn.get("of_all", np.nan)
    if np.isnan(read):
        return (f"{share:.1%} of these rows are positive: whether that is the share where a model would be used is for "
                "the author to say; a stated prevalence gives predictive values there.")
    before = flow[flow["of_all"] == read].iloc[-2]
    natural, others = before["positives"]/read, before["with_others"]/max(before["positives"], 1)
    visits = " of first visits" if "first" in before["step"] else ""
    which = f"the {read:,.0f} films that were read{visits}"
    if drawn["rows"] == read: said.append(f"{share:.1%} of the films are positive; of {which} none was left out.")
    else: said.append(f"The cohort's share of positives is made by sampling: {share:.1%} of the films drawn, against "
                      f"{natural:.2%} of {which}.")
    every = flow.iloc[1] # both classes, before a visit was chosen
    if lost := 1 - every["rows"]/every["of_all"]:
        said.append(f"Negatives are films without any finding: {lost:.0%} of all films, which show other findings "
                    "only, are left out.")
    if others: said.append(f"{others:.0%} of positives carry another finding, too.")
    said.append("Precision, predictive values and probabilities are of this mixture; a clinic's may be another.")
    return " ".join(said)
