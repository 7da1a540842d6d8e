"""The long table of predictions: what its columns may hold, its real rows, and arms side by side. No torch.

A line is what one model said of one film: `backbone arm seed side image patient_id label probability synthetic`, and
`fold` where a study has folds: each has a model of its own, and a film is in test once in each repeat of all folds.
Lines may stand in any order: films are found by `image`, never by position."""
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from ..arms import ARMS
from ..core.files import few

__all__ = ["COLUMNS", "Side", "check_predictions", "check_prob", "check_scores", "each_backbone", "joined", "paired",
           "real_rows", "seeds_of_all_arms", "sides"]

COLUMNS = "backbone", "arm", "seed", "side", "image", "patient_id", "label", "probability", "synthetic"
ABOUT = ["label", "patient_id"] # the same of an image, whichever model is asked

class Side(NamedTuple):
    "What the seeds of one arm said of the same `n` images, which are sorted by name."
    seeds:list             # which, `[S]`
    image:np.ndarray       # names, `[n]`; of repeated folds, each as often
    patients:np.ndarray    # whose each is, `[n]`
    label:np.ndarray       # bool, `[n]`
    prob:np.ndarray        # probability of the positive class, `[S,n]`
    fold:np.ndarray=None   # whose model was asked, `[n]`; None: there is one

    @property
    def who(self): return pd.factorize(self.patients)[0] # numbers of patients, `[n]`

    @property
    def rank(self):
        """What orders films, `[S,n]`: the probability; of several folds, whose models differ in level and spread, the
        share of the fold's own films that a film is above (ties half)."""
        if self.fold is None: return self.prob
        res = np.empty(self.prob.shape)
        for at in self.parts(): res[:, at] = (rankdata(self.prob[:, at], axis=1) - .5)/at.sum()
        return res

    def read(self,
        reads:str, # by a metric: 'order', 'decisions' or 'probabilities'
    ):
        "What a metric reads of the models, `[S,n]`."
        return self.rank if reads == "order" else self.prob

    def parts(self):
        "Which films each fold is of, bool `[n]`; all of them where there is one model."
        if self.fold is None: return [np.ones(len(self.label), bool)]
        return [self.fold == o for o in np.unique(self.fold)]

    @property
    def counts(self):
        "Films and how many of them are positive, however many folds have asked about one."
        if self.fold is None: return dict(n=len(self.label), positives=int(self.label.sum()))
        return dict(n=len(set(self.image)), positives=len(set(self.image[self.label])))

    def at(self,
        rows:np.ndarray, # bool, `[n]`
    ):
        "The same of some films."
        cut = lambda o: None if o is None else o[..., rows]
        return Side(self.seeds, *map(cut, (self.image, self.patients, self.label, self.prob, self.fold)))

    def of_seeds(self,
        seeds:list, # some of its own
    ):
        "The same of these seeds, in their order."
        return self._replace(seeds=list(seeds), prob=self.prob[[self.seeds.index(o) for o in seeds]])

def _fold(table): return [o for o in ("fold",) if o in table] # a column that only studies of folds have

def _wrong(prob):
    "Which probabilities are none: not a number, infinite, below 0 or above 1."
    return ~((prob >= 0) & (prob <= 1))

def _numbers(values, name):
    "An array of numbers; ValueError where it holds something else."
    values = np.asarray(values)
    if values.dtype.kind == "f": return values # as precise as it came
    try: return values.astype(float)
    except (TypeError, ValueError): raise ValueError(f"{name} must hold numbers, not {values.dtype}.") from None

def check_prob(
    prob:np.ndarray, # probabilities, of any shape
) -> np.ndarray: # float
    "Probabilities from 0 to 1. ValueError names the rows (from 0) that hold something else."
    prob = _numbers(prob, "prob")
    if (odd := np.argwhere(_wrong(prob))).size:
        where = few(" of seed ".join(map(str, o[::-1])) for o in odd)
        raise ValueError(f"prob must be from 0 to 1; it is {few(prob[tuple(odd.T)])} in row {where}.")
    return prob

def check_scores(
    label:np.ndarray, # 0/1 or bool, `[n]`
    prob:np.ndarray,  # probability of the positive class, `[n]` or `[seeds, n]`
    patients=None, # whose each row is, `[n]`; None: not known
) -> tuple:        # label, bool `[n]`; prob, float, of its own shape
    "Labels and probabilities that belong together. ValueError names what is wrong and the rows (from 0) that hold it."
    label, prob = _numbers(label, "label"), _numbers(prob, "prob")
    if label.ndim != 1: raise ValueError(f"label must be one line of 0 and 1, not an array of {label.shape}.")
    if prob.ndim not in (1, 2): raise ValueError(f"prob must be [n] or [seeds, n], not an array of {prob.shape}.")
    if not len(label): raise ValueError("There are no rows: label is empty.")
    if prob.shape[-1] != len(label):
        raise ValueError(f"label has {len(label):,} rows and prob {prob.shape[-1]:,}: they must be of the same films.")
    if patients is not None and len(patients) != len(label):
        raise ValueError(f"label has {len(label):,} rows and patients {len(patients):,}: they must pair.")
    if patients is not None and (lost := np.flatnonzero(pd.isna(np.asarray(patients)))).size:
        raise ValueError(f"patients is missing in row {few(lost)}: whose films are they?")
    if (odd := np.flatnonzero((label != 0) & (label != 1))).size:
        raise ValueError(f"label must be 0 or 1; it is {few(label[odd])} in row {few(odd)}.")
    return label == 1, check_prob(prob)

def _where(line):
    "A line of the table in words."
    fold = f", fold {line['fold']}" if "fold" in line else ""
    return f"{line['image']} ({line['backbone']}, {line['arm']}, seed {line['seed']}{fold}, {line['side']})"

def _refuse(table, wrong, what):
    "ValueError for the lines that `wrong` marks."
    if not (wrong := np.asarray(wrong)).any(): return
    lines = [_where(o) for o in table[wrong].head(3).to_dict("records")]
    more = f" and {wrong.sum() - 3:,} more" if wrong.sum() > 3 else ""
    raise ValueError(f"predictions: {what}: {', '.join(lines)}{more}.")

def _is_true(table):
    "The column `synthetic` as bool."
    made = table["synthetic"]
    if made.dtype == bool: return made.to_numpy()
    _refuse(table, ~made.isin([True, False]), "synthetic must be True or False")
    return made.eq(True).to_numpy()

def check_predictions(
    table:pd.DataFrame, # any table that should be one of predictions
) -> pd.DataFrame:      # the same, in its order: `image` str, `label` int, `probability` float, `synthetic` bool
    """A long table of predictions that can be trusted to pair. ValueError where a column is missing, a probability or
    label is none (by backbone, arm, seed and image), an image stands twice in one side of a model, or an image has
    another label or patient for another arm."""
    if lost := [o for o in COLUMNS if o not in table]:
        raise ValueError(f"predictions have no column {few(lost, 9)}; they need {', '.join(COLUMNS)}.")
    if table.empty: raise ValueError("predictions: the table has no line.")
    for o in COLUMNS[:6]: _refuse(table, table[o].isna(), f"{o} is missing")
    label, prob = (pd.to_numeric(table[o], errors="coerce") for o in ("label", "probability"))
    _refuse(table, ~label.isin([0, 1]), "label must be 0 or 1")
    _refuse(table, _wrong(prob.to_numpy(float)), "a probability must be a number from 0 to 1")
    table = table.assign(image=table["image"].astype(str), label=label.astype(int), probability=prob.astype(float),
                         synthetic=_is_true(table))
    once = ["backbone", "arm", "seed", "side", "image"]
    if "fold" in table: _refuse(table, table["fold"].isna(), "fold is missing")
    _refuse(table, table.duplicated([*once, *_fold(table)]), "an image stands twice")
    real = table[~table["synthetic"]]
    for o in ABOUT:
        known = real.drop_duplicates(["image", o])
        if (twice := known[known.duplicated("image", keep=False)]).empty: continue
        image = twice["image"].iloc[0]
        lines = twice[twice["image"] == image].to_dict("records")
        said = [f"{p[o]!r} for {p['arm']} of {p['backbone']}" for p in lines]
        raise ValueError(f"predictions: {image} has more than one {o}: {few(said)}.")
    return table

def _order(arm):
    "Where an arm stands among others, however its lines are ordered: plain ones first, as `ARMS` has them."
    base, *words = str(arm).split("+")
    base = base.partition("@")[0]
    return bool(words), list(ARMS).index(base) if base in ARMS else len(ARMS), str(arm)

def _same_images(cells, name):
    "ValueError where a model was asked about other images than the first: {model: its images, sorted}."
    (first, images), *others = cells.items()
    for model, own in others:
        if len(own) == len(images) and (own == images).all(): continue
        odd = np.setxor1d(own.astype(str), images.astype(str))
        raise ValueError(f"{name(model)} and {name(first)} were not asked about the same images: {few(odd)} "
                         f"{'is' if len(odd) == 1 else 'are'} in one of them only.")

def real_rows(
    predictions:pd.DataFrame, # long, with `side` and `synthetic`
    side:str="test",          # or 'valid'
) -> pd.DataFrame:
    "What is scored: the rows of a side that are of patients, not synthetic."
    return predictions[(predictions["side"] == side) & ~predictions["synthetic"]]

def _named(rows):
    "A row's image, and of which fold it is, where there are any."
    images = rows["image"].astype(str)
    return (images + " of fold " + rows["fold"].astype(str) if _fold(rows) else images).to_numpy()

def _join(rows, side, backbone):
    "{arm: `Side`} of a checked table's lines of one backbone."
    rows = real_rows(rows, side).sort_values(["arm", "seed", *_fold(rows), "image"])
    models = {model: own for model, own in rows.groupby(["arm", "seed"], sort=False)}
    if not models: return {}
    images = {model: _named(own) for model, own in models.items()}
    _same_images(images, lambda model: f"{model[0]} (seed {model[1]}) of {backbone}")
    first, by_arm = next(iter(models.values())), {}
    about = [first["image"].to_numpy(), first["patient_id"].to_numpy(), first["label"].to_numpy() == 1]
    fold = first["fold"].to_numpy() if _fold(first) else None
    for (arm, seed), own in models.items(): by_arm.setdefault(arm, {})[seed] = own["probability"].to_numpy()
    return {arm: Side(list(by_arm[arm]), *about, np.stack(list(by_arm[arm].values())), fold)
            for arm in sorted(by_arm, key=_order)}

def joined(
    predictions:pd.DataFrame, # long, of one backbone
    side:str="test",          # or 'valid'
) -> dict:                    # arm -> `Side`, plain arms first; empty where there is no such row
    """Real rows of every arm, joined by image. ValueError for several backbones, and where models were asked about
    different images: nothing would be paired."""
    predictions = check_predictions(predictions)
    backbone, *others = predictions["backbone"].unique()
    if others:
        names = ", ".join(map(str, [backbone, *others]))
        raise ValueError(f"These predictions are of {names}: a figure is of one backbone.")
    return _join(predictions, side, backbone)

def each_backbone(
    predictions:pd.DataFrame, # long
) -> Iterator:                # of a backbone, and `joined` of its test and of its valid rows
    "A study's predictions, checked once, backbone by backbone in the order of the table."
    for backbone, own in check_predictions(predictions).groupby("backbone", sort=False):
        yield backbone, _join(own, "test", backbone), _join(own, "valid", backbone)

def paired(
    arms:dict,  # arm -> `Side`, as `joined` gives them
    before:str, # an arm
    after:str,  # another
) -> tuple:     # their `Side`s of the seeds that both have; None where there is none
    "Two arms by the same seeds."
    if not {before, after} <= set(arms): return None
    seeds = [o for o in arms[before].seeds if o in arms[after].seeds]
    return (arms[before].of_seeds(seeds), arms[after].of_seeds(seeds)) if seeds else None

def seeds_of_all_arms(
    predictions:pd.DataFrame, # long
) -> pd.DataFrame:            # some of its lines
    "The lines of the seeds that all arms of a backbone have; a backbone without such a seed keeps its own."
    arms = predictions.groupby("backbone")["arm"].transform("nunique")
    whole = predictions.groupby(["backbone", "seed"])["arm"].transform("nunique") == arms
    any_whole = whole.groupby(predictions["backbone"]).transform("any")
    return predictions[whole | ~any_whole]

def sides(
    predictions:pd.DataFrame, # long, as `grid.Study.collect` gives them
    backbone:str,             # one of its backbones
    arm:str,                  # and of its arms
) -> tuple: # by seed: its valid rows, and its real test rows
    "An arm's predictions: two dicts, seed -> rows, which are sorted by image."
    own = check_predictions(predictions)
    own = own[(own["backbone"] == backbone) & (own["arm"] == arm)].sort_values("image")
    valid, test = ({seed: rows for seed, rows in real_rows(own, side).groupby("seed")} for side in ("valid", "test"))
    return valid, test
