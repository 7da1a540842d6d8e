"""Simulated studies, whose truth is known: how often one of a given size finds a gain that is there. No torch.

A film's score is normal, with unit spread and a mean that an arm's skill shifts for the ill; half of its variance is
the film's own (of a patient's films, most of it the patient's), a fifth the arm's view of it, the rest each training's.
Luck moves each model's skill. Valid rows are other patients than those in test."""
from typing import NamedTuple

import numpy as np
import pandas as pd
from fastcore.basics import store_attr
from scipy.stats import norm

from .areas import auc_interval, delong
from .compare import holm, lacking, outcome
from .folds import fold_difference
from .ledger import ALPHA
from .predictions import Side
from .scoring import wilson

__all__ = ["Setting", "check_verdict", "power_table", "probability", "setting_of", "simulated", "skill"]

OWN, VIEW, NOISE, PATIENT = .5, .2, .3, .8 # shares of a score's variance; of the film's own, the patient's
CUT, STEEP = .6, 1.5 # where .5 lies on the scale of scores: specificity .73, and recall .72 at an AUC of .80
FILMS = dict(one="", four=", 4 films each", unequal=", 1 to 9 films each")

def skill(
    auc:float, # area under the ROC curve, above 0 and below 1
) -> float:
    "How far the ill score above the others, in spreads of a score."
    return 2**.5*norm.ppf(auc)

def probability(
    score:np.ndarray, # of any shape
) -> np.ndarray:
    "What a model that scores so says."
    return 1/(1 + np.exp(-STEEP*(score - CUT)))

class Setting:
    "What is simulated: patients of the classes, trainings an arm, their luck, films a patient, folds."
    def __init__(self,
        positives:int=64,   # positive test patients (of folds: all there are); 30% of the paper's 212
        negatives:int=210,  # negative ones; 30% of its 700
        seeds:int=3,        # trainings an arm, in each fold
        luck:float=.1,      # sd of a model's skill over trainings, in spreads of a score (.1: .02 of an AUC of .80)
        heavy:bool=False,   # luck of Student's t with 3 degrees of freedom
        films:str="one",    # a patient: 'one', 'four', or 'unequal': one to nine, two on average
        folds:int=None,     # of a cross-validation, in whose test each patient is once; None: one split
        shared:float=0.,    # sd of what training patients do to a skill, which folds share as they share patients
    ):
        "ValueError for a number of patients, trainings or folds that is none."
        if films not in FILMS: raise ValueError(f"films={films!r} is not known; use {' or '.join(FILMS)}.")
        least = dict(positives=folds or 1, negatives=folds or 1, seeds=1) | (dict(folds=3) if folds is not None else {})
        for o, few in least.items():
            given = dict(positives=positives, negatives=negatives, seeds=seeds, folds=folds)[o]
            if given < few: raise ValueError(f"{o}={given} must be {few} or more.")
        for name, o in dict(luck=luck, shared=shared).items():
            if not 0 <= o < np.inf: raise ValueError(f"{name}={o} must be a spread, 0 or more.")
        if shared and not folds: raise ValueError("One split shares training patients with none: shared= is of folds.")
        store_attr()

    def __repr__(self):
        tail = ", of heavy tails" * (self.heavy and self.luck > 0)
        seeds = f"{self.seeds} seed" + "s"*(self.seeds > 1)
        folds = f" in {self.folds} folds" if self.folds else ""
        patients = f"{self.positives} + {self.negatives} patients{FILMS[self.films]}{folds}"
        shared = f", {self.shared:g} of training patients" if self.shared else ""
        return f"{patients}, {seeds}, luck {self.luck:g}{tail}{shared}"

    @property
    def trainings(self) -> tuple:
        "Shape of an arm's trainings: seeds, and folds where there are some."
        return (self.seeds, self.folds) if self.folds else (self.seeds,)

    def lucks(self,
        rng:np.random.Generator, # of everything that is drawn
        shape:tuple,     # as (2, *setting.trainings)
    ) -> np.ndarray:
        "Of trainings, sd `luck`: what is added to an arm's skill."
        drawn = rng.standard_t(3, shape)/3**.5 if self.heavy else rng.normal(size=shape)
        return self.luck*drawn

    def patients(self,
        rng:np.random.Generator, # of everything that is drawn
        share:float=1,   # of the setting's patients
    ) -> tuple:          # label and patient (a number), `[n]` each
        "Of every film of a side; the ill come first."
        label = np.repeat([1, 0], [max(2, round(o*share)) for o in (self.positives, self.negatives)])
        many = dict(one=1, four=4).get(self.films) or np.minimum(rng.geometric(.5, len(label)), 9)
        return np.repeat(label, many), np.repeat(np.arange(len(label)), many)

    def draw(self,
        rng:np.random.Generator, # of everything that is drawn
        d:np.ndarray,    # skills, `[arms, seeds]`
        moved:float=0.,  # added to the last arm's scores: a lower threshold, and nothing else
        sizes=(1, .5),   # of the sides, test and valid, in the setting's patients
    ) -> list:           # a side each: label `[n]`, patient `[n]`, probability `[arms, seeds, n]`
        "Rows of one backbone's models on one split."
        sides = []
        for share in sizes:
            label, who = self.patients(rng, share)
            own, view = _of_films(rng, who, len(d))
            score = d[..., None]*label + own + view + NOISE**.5*rng.normal(size=(*d.shape, len(label)))
            score[-1] += moved
            sides.append((label, who, probability(score)))
        return sides

    def draw_folds(self,
        rng:np.random.Generator, # of everything that is drawn
        d:np.ndarray,    # skills, `[arms, seeds, folds]`
        moved:float=0.,  # added to the last arm's scores
    ) -> list:           # an arm each: its test and its valid `Side`, as `fold_difference` takes them
        "Rows of one backbone's models of every fold; valid are a fifth of a fold's other patients, as in a study."
        label, who = self.patients(rng)
        own, view = _of_films(rng, who, len(d))
        part = _parts(rng, who.max() + 1, self.folds, self.positives)[who]
        if self.shared: d = d + self.shared*_of_training(rng, len(d), self.folds)
        sides = {"test": [np.flatnonzero(part == f) for f in range(self.folds)]}
        sides["valid"] = [_fifth(rng, who, np.flatnonzero(part != f)) for f in range(self.folds)]
        res = []
        for rows in sides.values():
            at, fold = np.concatenate(rows), np.repeat(np.arange(self.folds), [len(o) for o in rows])
            score = d[..., fold]*label[at] + own[at] + view[..., at]
            score = score + NOISE**.5*rng.normal(size=score.shape)
            score[-1] += moved
            about = at, who[at], label[at] == 1
            res.append([Side(list(range(self.seeds)), *about, o, fold) for o in probability(score)])
        return list(zip(*res))

def _of_films(rng, who, arms):
    "What films have of their own, `[n]`, and an arm's view of them, `[arms, 1, n]`."
    n = len(who)
    own = PATIENT**.5*rng.normal(size=who.max() + 1)[who] + (1 - PATIENT)**.5*rng.normal(size=n)
    return OWN**.5*own, VIEW**.5*rng.normal(size=(arms, 1, n))

def _of_training(rng, arms, folds):
    "What the patients that each fold trains on, all parts but its own, do to its models: `[arms, 1, folds]`, sd 1."
    each = rng.normal(size=(arms, 1, folds))
    return (each.sum(-1, keepdims=True) - each)/(folds - 1)**.5

def _parts(rng, patients, folds, positives):
    "In which fold's test each patient is: the ill are dealt out first, so that folds have as many."
    order = np.r_[rng.permutation(positives), positives + rng.permutation(patients - positives)]
    part = np.empty(patients, int)
    part[order] = np.arange(patients) % folds
    return part

def _fifth(rng, who, rows):
    "Rows of a fifth of these rows' patients."
    others = np.unique(who[rows])
    return rows[np.isin(who[rows], rng.choice(others, len(others)//5, replace=False))]

def setting_of(
    positives:int,   # patients of a cohort
    negatives:int,   # likewise
    *,
    test:float=None, # share of them in test, on one split; the paper's .3 where not given
    folds:int=None,  # of a cross-validation: all of them are in test
    **kwargs,        # of `Setting`
) -> Setting:
    "What a study of a cohort has in test."
    for name, o in dict(positives=positives, negatives=negatives).items():
        if o < 1: raise ValueError(f"{name}={o} must be 1 or more.")
    if folds is not None and test is not None:
        raise ValueError(f"test={test:g} is of one split; of folds={folds}, all patients are in test.")
    share = 1 if folds is not None else .3 if test is None else test
    if folds is None and not 0 < share < 1:
        raise ValueError(f"test={test:g} is no share of the patients, which is above 0 and below 1.")
    return Setting(*(max(1, round(o*share)) for o in (positives, negatives)), folds=folds, **kwargs)

# What a study would say

class _Line(NamedTuple):
    "A line of `compare_arms`, as far as a verdict asks whether it can be given."
    positive_patients:int
    negative_patients:int
    seeds:int
    folds:int=0
    p_verdict:float=1.

def check_verdict(
    setting:Setting, # of a study
):
    "ValueError where it is too small for any verdict: too few patients of a class in test, or trainings."
    if few := lacking(_Line(setting.positives, setting.negatives, setting.seeds, setting.folds or 0)):
        raise ValueError(f"No verdict could be given: there would be {', '.join(few)}.")

def _compared(rng, setting, skills, moved):
    "The difference of the areas of two arms, and an interval of the second one's."
    d = skills.reshape(2, *[1]*len(setting.trainings)) + setting.lucks(rng, (2, *setting.trainings))
    if setting.folds:
        (a, valid), (b, _) = setting.draw_folds(rng, d, moved)
        o = fold_difference("rocauc", a, b, valid)
        return o | dict(p_verdict=o["p"]), (b.label, b.rank, b.patients)
    (label, who, (a, b)), = setting.draw(rng, d, moved, [1])
    o = delong(label, a, b, who)
    return dict(value=o["difference"]) | {k: o[k] for k in ("low", "high", "p", "p_verdict")}, (label, b, who)

def simulated(
    setting:Setting,  # of the study
    auc:float=.8,     # of the arm before
    gain:float=0.,    # of AUC, of the arm after
    *,
    backbones:int=1,  # over which the verdict is Holm's; they share no patient here, so that all may err
    studies:int=1000, # simulated
    moved:float=0.,   # added to the second arm's scores, which ranks nobody otherwise
    alpha:float=ALPHA,# error rate of the verdict, two-sided
    seed:int=0,       # of everything: a study's luck is the same at any gain
) -> pd.DataFrame:    # a line a study and backbone: `study backbone value low high p p_verdict auc_low auc_high says`
    """Studies of two arms: the difference of their areas with the interval and p-values of `compare_arms`, the second
    arm's area's interval, and what the verdict says: 'gain', 'loss' or 'none'. ValueError where a verdict of this
    setting can't be given, or there is no such area."""
    for o in auc, auc + gain:
        if not 0 < o < 1: raise ValueError(f"An AUC of {o:g} can't be simulated: it is above 0 and below 1.")
    check_verdict(setting)
    skills, lines = skill(np.array([auc, auc + gain])), []
    for i in range(studies):
        for k in range(backbones):
            o, area = _compared(np.random.default_rng([seed, i, k]), setting, skills, moved)
            low, high = auc_interval(*area)
            lines.append(dict(study=i, backbone=k) | o | dict(auc_low=low, auc_high=high))
    table = pd.DataFrame(lines)
    p = np.concatenate([holm(o, backbones) for o in table["p_verdict"].to_numpy().reshape(-1, backbones)])
    return table.assign(says=[outcome(*o, alpha) for o in zip(p, table["value"])])

def _share(hits):
    "A share, and the interval (95%) that the number of simulated studies leaves."
    low, high = wilson(hits.sum(), len(hits))
    return float(hits.mean()), low, high

def power_table(
    setting:Setting, # of the study
    auc:float,       # of the arm before
    gains:list,      # of AUC
    **kwargs,        # of `simulated`
) -> pd.DataFrame:   # a line a gain
    """What studies of a setting say where the gain is so large: `found` of one backbone, `false` of any (a loss; at a
    gain of 0 also a gain), each with the interval that simulation leaves, and mean widths of 95% intervals."""
    lines = []
    for gain in gains:
        o = simulated(setting, auc, gain, **kwargs)
        wrong = (o["says"] == "loss") | ((o["says"] == "gain") & (gain <= 0))
        shares = dict(found=_share(o["says"] == "gain"), false=_share(wrong.groupby(o["study"]).any()))
        line = dict(gain=gain)
        for k, ends in shares.items(): line |= dict(zip((k, f"{k}_low", f"{k}_high"), ends))
        lines.append(line | dict(difference_width=(o["high"] - o["low"]).mean(),
                                 auc_width=(o["auc_high"] - o["auc_low"]).mean(), studies=o["study"].nunique()))
    return pd.DataFrame(lines)
