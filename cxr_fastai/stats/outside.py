"""A model on rows from elsewhere, at the threshold that it came with: what carries over, site by site, and what is
wrong: prior shift, brightness shift, films unlike training's, flipped labels. No torch.

`label` is 0/1, `[n]`; `prob` the probability of the positive class, `[n]`; `who` numbers the patients, `[n]`."""
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.special import expit, logit
from scipy.stats import norm

from .areas import auc_interval, mean_area
from .calibration import threshold_at
from .draws import at_specificity_draws, at_valid, resample
from .intervals import percentiles
from .predictions import each_backbone
from .scoring import called, wilson
from .subgroups import MIN_PATIENTS
from .summary import figures_at

__all__ = ["Inside", "findings", "histogram", "inside_outside", "outside_table", "refitted_recall", "site_table"]

SURE = norm.ppf(.995)    # a shift is named where it is beyond chance at 1% ...
ODDS, GRAY, UNLIKE = 1.5, .5, .05 # ... and matters: by odds, by sd of training films, by share of films
SITED = "recall", "specificity", "rocauc", "calibration_intercept"
POOLED = "all, random effects"

class Inside(NamedTuple):
    "What is known of the rows that a model was trained on; nan or None where a bundle doesn't say."
    share:float            # of positives among its real training rows
    patients:int           # of them
    threshold:float        # that it came with
    specificity:float=None # that its threshold was chosen for
    gray:tuple=None        # mean gray of a training film, its sd, and of how many films
    unlike:float=.01       # share of training films that are flagged as unlike the others

def outside_table(
    label:np.ndarray, # 0/1, `[n]`
    prob:np.ndarray,  # probability of the positive class, `[n]`
    who:np.ndarray,   # numbers of patients, `[n]`
    inside:Inside,    # the training rows
    n:int=1000,       # resamples
    seed:int=0,       # of them
) -> pd.DataFrame:    # a line a figure: `figure value low high`
    """Every figure at the carried threshold, then recall and specificity at one that is fitted anew on these very rows
    for the same specificity: what a threshold of their own would give, flattered."""
    found = figures_at(label, prob, inside.threshold, who, n, seed)
    label = np.asarray(label) == 1
    share, ill = label.mean(), len(np.unique(who[label]))
    every = len(np.unique(who))
    hit = called(prob, inside.threshold).mean()
    lines = [("films", len(label)), ("patients", every), ("positives", label.sum()), ("patients_positive", ill),
             ("share_positive", share, *wilson(share*every, every)), ("share_called", hit, *wilson(hit*every, every)),
             ("threshold", inside.threshold)]
    more = [dict(zip(("figure", "value", "low", "high"), o)) for o in lines]
    if 0 < share < 1: more += _refitted(label, np.asarray(prob, float), who, inside.specificity or .9, n, seed)
    return pd.concat([found, pd.DataFrame(more)], ignore_index=True)

def _refitted(label, prob, who, wanted, n, seed):
    at, draws = threshold_at(label, prob, wanted), resample(who, label, n, seed=seed)
    hit = called(prob, at)
    drawn = at_specificity_draws(label, prob, draws, label, prob, draws, wanted)
    yield dict(figure="threshold_refitted", value=at)
    yield dict(figure="specificity_wanted", value=wanted)
    for name, value in ("recall", hit[label].mean()), ("specificity", (~hit)[~label].mean()):
        low, high = percentiles(drawn[name][0])
        yield dict(figure=f"{name}_refitted", value=value) | (dict(low=low, high=high) if high > low else {})

def refitted_recall(
    predictions:pd.DataFrame, # of test rows, as for `score_table`
    specificity:float=.9,     # that is wanted on them
    n:int=1000,               # resamples
    seed:int=0,               # of them
) -> pd.DataFrame:            # a line a backbone and arm, as of `score_table`
    "Recall where each model's threshold is fitted anew on the very rows that are judged, which flatters."
    lines = []
    for backbone, test, _ in each_backbone(predictions):
        for arm, o in test.items():
            if o.label.all() or not o.label.any(): continue
            draws = resample(o.patients, o.label, n, seed=seed)
            (hit, drawn), = at_valid(o, o, draws, draws, (specificity,))
            low, high = percentiles(drawn["recall"].mean(0))
            about = dict(backbone=backbone, arm=arm, metric="recall_refitted", seeds=len(o.seeds)) | o.counts
            lines.append(about | dict(mean=hit[:, o.label].mean(), low=low, high=high))
    return pd.DataFrame(lines)

TOGETHER = ("rocauc pr_auc recall specificity recall_at_90 recall_refitted specificity_at_90 brier calibration_slope "
            "calibration_intercept").split() # of the metrics, in this order

def inside_outside(
    inside:pd.DataFrame,  # of `score_table`, on a study's test rows
    outside:pd.DataFrame, # the same, on others, with `refitted_recall`
) -> pd.DataFrame:        # a line a backbone, arm and metric: `inside outside`, each with `_low _high`
    "What was found inside a study beside what was found elsewhere, by the same models and thresholds."
    keys, ends = ["backbone", "arm", "metric"], ["mean", "low", "high"]
    sides = {side: table[table["metric"].isin(TOGETHER)][keys + ends].rename(
                columns=dict(mean=side, low=f"{side}_low", high=f"{side}_high"))
             for side, table in (("inside", inside), ("outside", outside))}
    table = sides["outside"].merge(sides["inside"], on=keys, how="left")
    table = table.sort_values("metric", key=lambda o: o.map(TOGETHER.index), kind="stable")
    return table[keys + [f"{side}{end}" for side in ("inside", "outside") for end in ("", "_low", "_high")]]

def histogram(
    label:np.ndarray, # 0/1, `[n]`
    prob:np.ndarray,  # probability of the positive class, `[n]`
    site:np.ndarray=None, # words, `[n]`; None: one site
    bins:int=20,          # of equal width
) -> pd.DataFrame:        # a line a site, class and bin: `site label low high films`
    "How many films have which probability, by class and site."
    ends, lines = np.linspace(0, 1, bins + 1), []
    site = np.full(len(label), "all") if site is None else np.asarray(site, object)
    for s in np.unique(site.astype(str)):
        for k in 0, 1:
            counts, _ = np.histogram(np.asarray(prob)[(site.astype(str) == s) & (np.asarray(label) == k)], ends)
            lines.append(pd.DataFrame(dict(site=s, label=k, low=ends[:-1], high=ends[1:], films=counts)))
    return pd.concat(lines, ignore_index=True)

# Sites

def _effect(figure, line, patients):
    "A figure where it is about normal, and its variance: log odds of shares; patients of a class behind recalls."
    if figure in ("recall", "specificity"):
        p = (line["value"]*patients[figure == "recall"] + .5)/(patients[figure == "recall"] + 1)
        return logit(p), 1/((patients[figure == "recall"] + 1)*p*(1 - p))
    ends = np.array([line["low"], line["value"], line["high"]], float)
    if figure == "rocauc": ends = logit(np.clip(ends, 1e-3, 1 - 1e-3))
    return ends[1], ((ends[2] - ends[0])/(2*norm.ppf(.975)))**2

def _pooled(effects, figure):
    "DerSimonian and Laird's (1986) mean over sites, with how much they differ; nothing of fewer than two."
    from statsmodels.stats.meta_analysis import combine_effects
    effect, variance = np.array(effects).T
    good = np.isfinite(effect) & (variance > 0)
    if good.sum() < 2: return {}
    with np.errstate(all="ignore"): # its variance between sites may be below 0, which is none
        found = combine_effects(effect[good], variance[good], method_re="dl")
    more = found.tau2 > 0
    mean, se = (found.mean_effect_re, found.sd_eff_w_re) if more else (found.mean_effect_fe, found.sd_eff_w_fe)
    ends = mean + np.array([0, -1, 1])*norm.ppf(.975)*se
    if figure != "calibration_intercept": ends = expit(ends)
    return dict(zip(("value", "low", "high"), ends)) | dict(
        sites=int(good.sum()), tau=np.sqrt(found.tau2) if more else 0., i2=1 - (good.sum() - 1)/found.q if more else 0.,
        p_differ=found.test_homogeneity().pvalue)

def site_table(
    label:np.ndarray, # 0/1, `[n]`
    prob:np.ndarray,  # probability of the positive class, `[n]`
    who:np.ndarray,   # numbers of patients, `[n]`
    threshold:float,   # the carried one
    site:np.ndarray,   # words, `[n]`
    n:int=400,         # resamples of a site
    seed:int=0,        # of them
) -> pd.DataFrame:     # a line a site and figure: `site figure n positives value low high sites tau i2 p_differ`
    """Each site's own figures at the carried threshold, and their random-effects mean (DerSimonian and Laird), with the
    spread `tau` between sites (in log odds; of the intercept in its own), the share `i2` of their variance that isn't
    chance, and `p_differ`, Cochran's. A site with fewer than ten patients of a class has counts alone."""
    site, label, lines, effects = np.asarray(site, object).astype(str), np.asarray(label) == 1, [], {}
    prob, who = np.asarray(prob, float), np.asarray(who)
    for s in np.unique(site):
        at = site == s
        patients = [len(np.unique(who[at & o])) for o in (~label, label)]
        about = dict(site=s, n=int(at.sum()), positives=int(label[at].sum()))
        if min(patients) < MIN_PATIENTS:
            lines += [about | dict(figure=k) for k in SITED]
            continue
        own = figures_at(label[at], prob[at], threshold, who[at], n, seed).set_index("figure")
        for k in SITED:
            lines.append(about | dict(figure=k) | own.loc[k].to_dict())
            effects.setdefault(k, []).append(_effect(k, own.loc[k], patients))
    every = dict(site=POOLED, n=len(label), positives=int(label.sum()))
    lines += [every | dict(figure=k) | _pooled(o, k) for k, o in effects.items()]
    columns = "site figure n positives value low high sites tau i2 p_differ".split()
    return pd.DataFrame(lines).reindex(columns=columns)

# What is wrong

def _prior(share, patients, inside):
    "A prior shift in words; '' for none."
    if not (0 < share < 1 and 0 < inside.share < 1): return ""
    apart = logit(share) - logit(inside.share)
    se = np.sqrt(sum(1/(n*p*(1 - p)) for n, p in ((patients, share), (inside.patients, inside.share))))
    if not (abs(apart) > SURE*se and abs(apart) > np.log(ODDS)): return ""
    return (f"Prior shift: {share:.0%} of these films are positive, {inside.share:.0%} of the training films were; "
            "probabilities, precision and the threshold are of that share (prior_shift moves them).")

def _gray(gray, patients, inside):
    "A brightness shift in words; '' for none."
    if gray is None or inside.gray is None: return ""
    mean, sd, films = inside.gray
    apart = (np.mean(gray) - mean)/max(sd, 1e-9)
    if not (abs(apart) > SURE*np.sqrt(1/patients + 1/films) and abs(apart) > GRAY): return ""
    return (f"Brightness shift: these films are {'brighter' if apart > 0 else 'darker'} than the training films, "
            f"{np.mean(gray):.0f} of 255 on average against {mean:.0f}, {abs(apart):.1f} of their sd: other devices, "
            "windowing or inversion?")

def _shape(unlike, patients, inside):
    "A set of other pictures in words; '' for none."
    if unlike is None or not (share := np.mean(unlike)) > UNLIKE: return ""
    low, high = wilson(share*patients, patients)
    if low <= max(UNLIKE/2, inside.unlike): return ""
    return (f"Unlike films: {share:.0%} [{low:.0%}, {high:.0%}] of these films are flagged as unlike the training "
            f"films, of which about {inside.unlike:.0%} would be.")

def findings(
    label:np.ndarray, # 0/1, `[n]`
    prob:np.ndarray,  # probability of the positive class, `[n]`
    who:np.ndarray,   # numbers of patients, `[n]`
    inside:Inside,          # the training rows
    gray:np.ndarray=None,   # mean gray of each film, 0 to 255; None: there are no films
    unlike:np.ndarray=None, # bool: which films are flagged as unlike the training ones; None: not known
    figures:pd.DataFrame=None, # of `outside_table`, for the calibration; None: it isn't looked at
) -> list:                  # sentences, which begin with what they name
    """What is wrong with these rows, or with the model on them, as far as it is beyond chance and matters; at least one
    sentence. Where labels seem flipped, the share of positives is that of the other class."""
    label, prob = np.asarray(label) == 1, np.asarray(prob, float)
    area, _, sizes = mean_area(label, prob, who)
    patients, said = len(np.unique(who)), []
    if np.isnan(area): said.append("One class: these rows hold no other, so that no ranking can be told.")
    elif min(sizes) < MIN_PATIENTS: said.append(f"Few patients: {sizes[0]} are positive and {sizes[1]} negative; "
                                                "nothing is to be concluded from so few.")
    low, high = auc_interval(label, prob, who)
    flipped, words = high < .5, f"AUC {area:.2f} [{low:.2f}, {high:.2f}]"
    if flipped: said.append(f"Flipped labels: positives rank below negatives, {words}: is the positive class the same?")
    elif low <= .5: said.append(f"No ranking: {words}, which may be chance.")
    share = label.mean()
    said += [_prior(1 - share if flipped else share, patients, inside), _gray(gray, patients, inside),
             _shape(unlike, patients, inside)]
    if not flipped and inside.specificity is not None and not label.all():
        said.append(_carried(label, prob, who, inside))
    if not flipped and figures is not None: said.append(_calibration(figures.set_index("figure")))
    said = [o for o in said if o]
    return said or [f"Nothing of it is seen: no prior shift, no brightness shift, no films unlike the training ones, "
                    f"no flipped labels; {words} on {len(label):,} films."]

def _calibration(table):
    "That probabilities are too high or too low, or spread too far; '' where they may be right."
    figures = (table.loc[f"calibration_{o}", ["value", "low", "high"]] for o in ("intercept", "slope"))
    (a, *a_ends), (b, *b_ends) = figures
    said = []
    if a_ends[0] > 0 or a_ends[1] < 0: said.append(f"too {'low' if a > 0 else 'high'} on the whole (intercept {a:.2f} "
                                                   f"[{a_ends[0]:.2f}, {a_ends[1]:.2f}], 0 at best)")
    if b_ends[0] > 1 or b_ends[1] < 1: said.append(f"too {'close together' if b > 1 else 'far apart'} (slope {b:.2f} "
                                                   f"[{b_ends[0]:.2f}, {b_ends[1]:.2f}], 1 at best)")
    return f"Calibration: probabilities are {' and '.join(said)}." if said else ""

def _carried(label, prob, who, inside):
    "That a threshold has another specificity here; '' where it may be the same."
    found, n = (~called(prob, inside.threshold))[~label].mean(), len(np.unique(who[~label]))
    low, high = wilson(found*n, n, .99)
    if low <= inside.specificity <= high: return ""
    return (f"Threshold: at {inside.threshold:.3g} the specificity is {found:.2f} [{low:.2f}, {high:.2f}] here, and it "
            f"was chosen for {inside.specificity:g}.")
