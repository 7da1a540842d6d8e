"""What a translation changed, in figures: whom it turns into positives for a model that sees tone alone, how like its
source a film still is, how much of the change is tone. They are lines of the table of `gan.quality`. No torch."""
import re
from typing import NamedTuple

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.model_selection import StratifiedGroupKFold

from ..cohort.cache import RadiographCache
from ..cohort.parts import each_pair, film_tone
from ..cohort.rows import classes, positive
from .scoring import wilson
from .shortcuts import fitted_probe, SHORTCUTS, thumbnails

__all__ = ["Called", "Change", "called_lines", "change_sentences", "change_table", "film_changes", "lines_of_change",
           "shown_films"]

BATCH = 256  # films at a time
FOLDS = 5    # a source's patient isn't among those that the probe which judges it was fitted on
LEVEL = .9   # of intervals: 5-95%, as in all of the table
UNKNOWN = "; the films' sources aren't known"

class Called(NamedTuple):
    "Which films a model calls positive, and whose they are."
    hit:np.ndarray # bool `[n]`
    who:np.ndarray # patients `[n]`

    def share(self):
        "The share, and Wilson's interval of it, as if each patient had one film; nan of no film."
        if not len(self.hit): return np.nan, np.nan, np.nan
        n, value = len(np.unique(np.asarray(self.who, str))), float(np.mean(self.hit))
        return value, *wilson(value*n, n, LEVEL)

class Change(NamedTuple):
    "What a translation made of films, of one pass over their pixels; of the sources, where these are known."
    known:np.ndarray       # bool `[n]`: the source is
    before:np.ndarray      # thumbnails of the k known sources `[k,256]`
    after:np.ndarray       # of all films `[n,256]`
    correlation:np.ndarray # of a film's pixels with its source's `[k]`
    tone:np.ndarray        # share of a film's change that is `film_tone`, of squares `[k]`; nan: nothing was changed
    mean:np.ndarray        # difference of all, gray levels of 255 `[h,w]`; of no source, nan

def _correlated(x, y):
    "Pearson's of the pixels of each pair of films; nan where one is of one gray."
    x, y = (o - o.mean((1, 2), keepdims=True) for o in (x, y))
    with np.errstate(invalid="ignore", divide="ignore"):
        return (x*y).sum((1, 2)) / np.sqrt((x*x).sum((1, 2)) * (y*y).sum((1, 2)))

def _smooth(change):
    "The share of each change that is tone."
    with np.errstate(invalid="ignore"): return (film_tone(change)**2).sum((1, 2)) / (change**2).sum((1, 2))

def film_changes(
    rows:pd.DataFrame,  # real ones, after the split
    synth:pd.DataFrame, # synthetic ones, with `source_image` where that is known
    size:int,           # side of the square images, pixels
) -> Change:
    "One pass over synthetic films and their sources."
    parts, total = [], np.zeros((size, size))
    for known, source, film in each_pair(rows, synth, size):
        change = film[known].astype(np.float32) - source
        total += change.sum(0)
        parts.append((known, thumbnails(source) if known.any() else np.empty((0, 256)), thumbnails(film),
                      _correlated(source, film[known]), _smooth(change)))
    found = [np.concatenate(o) for o in zip(*parts)]
    return Change(*found, total/n if (n := found[0].sum()) else total*np.nan)

def shown_films(
    rows:pd.DataFrame,  # as in `film_changes`
    synth:pd.DataFrame, # as there
    found:Change,       # what it gave of them
    size:int,           # as there
) -> tuple:             # names; uint8 `[m,2,h,w]`, source and film; correlations
    "The film that is least like its source, the one in the middle, and the one that is most."
    order = np.argsort(np.nan_to_num(found.correlation, nan=1), kind="stable")
    at = order[np.unique([0, len(order)//2, len(order) - 1])] if len(order) else order
    own = synth[found.known].iloc[at]
    pairs = [(source, film) for _, source, film in each_pair(rows, own, size)]
    films = np.stack([np.concatenate(o) for o in zip(*pairs)], 1) if pairs else np.empty((0, 2, size, size), np.uint8)
    return own["image"].astype(str).to_numpy(), films, found.correlation[at]

# Whom a model calls positive

CALLED = re.compile(r"called (.*) (before|after) translation, by (\w+)") # a figure's name

def called_lines(
    label:str,      # the positive class, in words
    by:str,         # the kind of model, a word
    before:Called,  # sources, as far as they are known
    after:Called,   # the films that were made of them
    floors:tuple,   # `Called` of real films of the sources' class, and of the films', which weren't fitted on
    features:str,   # which model
    meaning:str,    # whom it calls positive, and by what, for both lines
) -> pd.DataFrame:  # two lines, in `quality`'s columns
    "The share of films that a model calls positive before translation and after it."
    lines = []
    for when, own, floor, whose in (("before", before, floors[0], "sources"), ("after", after, floors[1], "films")):
        ends = dict(zip(("value", "low", "high", "floor", "floor_low", "floor_high"), own.share() + floor.share()))
        told = f"{features}{UNKNOWN}" if when == "before" and not len(own.hit) else features
        lines.append(dict(figure=f"called {label} {when} translation, by {by}") | ends | dict(
            n=len(own.hit), features=told, meaning=f"share of {whose} that {meaning}; floor: of real valid films of "
                                                   "the same class"))
    return pd.DataFrame(lines)

def _folds(hit, who, seed):
    "Which part of the train rows each is in, no patient in two; all in one where there are too few for more."
    k = min(FOLDS, *(len(np.unique(who[hit == o])) for o in (False, True)))
    part = np.zeros(len(hit), int)
    if k < 2: return part
    for i, (_, at) in enumerate(StratifiedGroupKFold(k, shuffle=True, random_state=seed).split(hit, hit, who)):
        part[at] = i
    return part

def _asked(model, x, hit, at):
    "A function of thumbnails: whether the model, fitted on the rows `at`, calls them positive."
    model = clone(model).fit(x[at], hit[at])
    return lambda o: model.predict_proba(o)[:, 1] > hit[at].mean() if len(o) else np.empty(0, bool)

def _thumbnail_calls(real, cache, found, who, seed):
    """Which sources, films and real valid rows of either class a probe of thumbnails calls positive: one that wasn't
    fitted on their patients, as far as these are known and not too few."""
    x = np.concatenate([thumbnails(cache.get(real["file"].iloc[i:i+BATCH])) for i in range(0, len(real), BATCH)])
    hit, owner = positive(real), real["patient_id"].astype(str).to_numpy()
    train, valid = ((real["split"] == o).to_numpy() for o in ("train", "valid"))
    best = fitted_probe(x, hit, train, valid)
    whole, part = _asked(best, x, hit, train), np.full(len(real), -1)
    part[train] = _folds(hit[train], owner[train], seed)
    fold = pd.Series(who).map(dict(zip(owner[train], part[train]))).to_numpy()
    both = [(whole(o), own, fold[at]) for o, own, at in ((found.before, found.before, found.known),
                                                       (found.after, found.after, slice(None)))]
    for k in range(part.max() + 1) if part.max() else ():
        asked = _asked(best, x, hit, train & (part != k))
        for said, own, at in both: said[at == k] = asked(own[at == k])
    return both[0][0], both[1][0], [Called(whole(x[o]), owner[o]) for o in (valid & ~hit, valid & hit)]

THUMBNAIL = ("a logistic probe on 16 x 16 thumbnails, which sees exposure and shades alone and was fitted on other "
             "patients' real training films, puts above the share of positives among these")

def _thumbnail_lines(rows, synth, found, size, seed):
    real, cache = rows[rows["split"].isin(["train", "valid"])], RadiographCache(_files(rows), size)
    who = synth["patient_id"].astype(str).to_numpy()
    before, after, floors = _thumbnail_calls(real.reset_index(drop=True), cache, found, who, seed)
    to_positive = bool(positive(synth).all())
    return called_lines(str(classes(rows)[1]), "thumbnail", Called(before, who[found.known]), Called(after, who),
                        floors if to_positive else floors[::-1], SHORTCUTS["thumbnail"].title, THUMBNAIL)

# The table

def _files(rows): return rows["file"].astype(str).tolist() # of all, which say what white is

def _among_real(rows, label, size, seed):
    "Correlations of real valid films with one of another patient."
    own = rows[(rows["split"] == "valid") & (rows["label"] == label)]
    own = own.iloc[np.random.default_rng(seed).permutation(len(own))]
    other = own.iloc[np.roll(np.arange(len(own)), 1)]
    apart = own["patient_id"].to_numpy() != other["patient_id"].to_numpy()
    cache = RadiographCache(_files(rows), size)
    return _correlated(*(cache.get(o["file"][apart]) for o in (own, other)))

def _spread(values):
    values = values[~np.isnan(values)]
    return (values.mean(), *np.quantile(values, [.05, .95])) if len(values) else (np.nan,)*3

LIKE, SMOOTH = "correlation with the source", "share of the change that is tone"
CORRELATION = ("how like its source a film is, pixel by pixel: 1 where nothing or brightness and contrast alone were "
               "changed; mean and 5-95% of films; floor: two real films of different patients")
TONE = ("how much of the change is smooth (a Gaussian of a 16th of the side, of squares): 1 is exposure and shades, "
        "near 0 texture, marks and edges; mean and 5-95% of films")

def change_table(
    rows:pd.DataFrame,  # real ones with labels, after the split
    synth:pd.DataFrame, # synthetic ones of one label, with `source_image` where that is known
    found:Change,       # of `film_changes`
    size:int,           # side of the square images, pixels
    seed:int=0,         # of folds, and of pairs
) -> pd.DataFrame:      # four lines, in `quality`'s columns, and the `meaning` of each
    "Whom a probe of thumbnails calls positive before and after; likeness with the source; the share of tone."
    n, label = int(found.known.sum()), synth["label"].iloc[0]
    heads = "value low high floor floor_low floor_high".split()
    among = _spread(_among_real(rows, label, size, seed))
    said = "pixels" if n else f"pixels{UNKNOWN}"
    own = [(LIKE, _spread(found.correlation) + among, CORRELATION),
           (SMOOTH, _spread(found.tone) + (np.nan,)*3, TONE)]
    lines = pd.DataFrame([dict(figure=figure) | dict(zip(heads, o)) | dict(n=n, features=said, meaning=meaning)
                          for figure, o, meaning in own])
    return pd.concat([_thumbnail_lines(rows, synth, found, size, seed), lines], ignore_index=True)

# In words

def _when(table): return table["figure"].str.extract(CALLED)[1]

def lines_of_change(
    table:pd.DataFrame, # of quality.csv
) -> pd.Series:         # bool
    "Which lines say what a translation changed."
    return table["figure"].isin([LIKE, SMOOTH]) | _when(table).notna()

def _share(value, whose): return f"{value:.0%} of {whose}"

def change_sentences(
    table:pd.DataFrame, # of quality.csv, of films of one folder
) -> list:              # a sentence a model, the thumbnail's first
    "How many films a model calls positive before translation and after it, beside real ones."
    when, said = _when(table), []
    for before, after in zip(table[when == "before"].itertuples(), table[when == "after"].itertuples()):
        label = CALLED.fullmatch(after.figure)[1]
        first = "the sources aren't known" if np.isnan(before.value) else _share(before.value, "the sources")
        real = "" if np.isnan(after.floor) else f", and {_share(after.floor, 'real films of their class')}"
        ends = "" if np.isnan(after.low) else f" [{after.low:.0%}, {after.high:.0%}]"
        films = f"{_share(after.value, 'the films')}{ends}"
        said.append(f"called {label} by {after.features}: {first}, {films}{real}.")
    return said
