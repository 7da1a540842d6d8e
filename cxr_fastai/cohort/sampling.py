"""The rows of a study: the paper's cohort (section 3.1), and train, valid and test without a patient on two sides.

The paper splits 7:3 and doesn't say by what (section 4); here by patient, with one ratio of classes on every side."""
import re

import numpy as np
import pandas as pd

from ..core.files import few, say
from .leaks import check_ids, check_leaks
from .rows import classes, is_synthetic, positive, sign_split
from .words import is_missing

__all__ = ["SIDES", "draw_evenly", "each_fold", "folds_of", "paper_cohort", "side_of", "sides_of", "split_given",
           "split_paper", "split_patients", "test_rows", "with_folds"]

SIDES = "train", "valid", "test"
_WORDS = {o: side for side, words in dict(
    train="train training tr development dev", valid="valid val validate validation tune tuning",
    test="test testing tst holdout heldout").items() for o in words.split()}

def paper_cohort(
    rows:pd.DataFrame,     # from `read_nih` or `read_table`; those without a label are left out
    n_pneumonia:int=None,  # how many positives; None: all (the paper: 212, which no reading of its text gives)
    n_normal:int=700,      # how many negatives; None: all
    first_visit:bool=True, # follow-up 0 only, the paper's 'first round'
    seed:int=0,            # same seed, same rows
) -> pd.DataFrame:         # in the order of `rows`
    "The paper's sampling (section 3.1); says what was found beside the paper's. ValueError where rows are too few."
    if first_visit and "follow_up" not in rows:
        raise ValueError("first_visit=True needs the column 'follow_up'; without it, pass first_visit=False.")
    keep, when = rows[rows["label"].notna()], "in all"
    if first_visit: keep, when = keep[keep["follow_up"] == 0], "at the first visit"
    (neg, pos), hit, rng, taken = classes(rows), positive(keep), np.random.default_rng(seed), []
    for name, at, n in (neg, np.flatnonzero(~hit), n_normal), (pos, np.flatnonzero(hit), n_pneumonia):
        if not len(at): raise ValueError(f"There are no {name} rows {when}, and a cohort needs both classes.")
        if n is None: n = len(at)
        if not 0 < n <= len(at): raise ValueError(f"{n:,} {name} rows were asked for; there are {len(at):,} {when}.")
        taken.append(rng.choice(at, n, replace=False))
    say(f"found {hit.sum():,} {pos}, {(~hit).sum():,} {neg} {when}; "
        f"taken {len(taken[1]):,} + {len(taken[0]):,} (the paper: 212 + 700)")
    return keep.iloc[np.sort(np.concatenate(taken))].reset_index(drop=True)

def draw_evenly(
    n:int,                   # how many
    *,
    below:int,               # of the numbers
    rng:np.random.Generator, # that draws
) -> np.ndarray:
    "`n` numbers below `below`, each as often as any other; the remainder is drawn."
    return np.concatenate([rng.permutation(below) for _ in range(-(-n // below))])[:n]

def _assign(images, share, names, rng):
    """A side for each patient. Patients of both classes come first, then the biggest; each goes to a side drawn in
    proportion to the room there, and the small ones at the end bring each side's images of each class near its share.
    `images` [patients,2]: negatives and positives of each; `share`: {side: its part of all}; `names` of the classes."""
    share = {o: p for o, p in share.items() if p}
    sides, k, left = list(share), len(share), (images > 0).sum(0).tolist()
    for name, n, films in zip(names, left, images.sum(0)):
        if n < k: raise ValueError(f"{k} sides need {k} patients of each class; {name} has {n} ({films:,} images).")
    parts, side = (images/images.sum(0)).tolist(), [None] * len(images)
    room, empty = [[p, p] for p in share.values()], [set(range(k)), set(range(k))] # of each class
    for i in np.lexsort((rng.random(len(images)), -images.sum(1), (images == 0).any(1))).tolist():
        own = [o for o in (0, 1) if parts[i][o]] # classes
        last = [empty[o] for o in own if len(empty[o]) == left[o]] # a class's last patients fill sides without it
        fit = sorted(set.intersection(*last)) if last else range(k)
        wts = np.cumsum([max(0, sum(room[o][label] for label in own)) for o in fit])
        chosen = fit[int(np.searchsorted(wts, rng.random()*wts[-1]))]
        side[i] = sides[chosen]
        for label in own:
            room[chosen][label] -= parts[i][label]
            left[label] -= 1
            empty[label].discard(chosen)
    return np.array(side, object)

def split_patients(
    rows:pd.DataFrame, # with `patient_id label`, no row without them
    test:float=.3,     # share of all images in test (the paper's 7:3); 0 for none
    valid:float=.2,    # share of the others in valid; 0 for none
    seed:int=0,        # same seed, same split, in whatever order the rows are
    folds:int=None,    # k: test is one of k parts and `test` is not used; other seeds repeat the cross-validation
    fold:int=0,        # which part, 0 to k-1; over them, with one seed, each image is in test once
) -> pd.DataFrame:     # with `split`: train, valid or test
    """Split by patient, stratified by label: share and prevalence of each side are as near as whole patients allow.
    ValueError for rows without label or patient, and where a side would have one class only."""
    for name, o in ("test", test), ("valid", valid):
        if not 0 <= o < 1: raise ValueError(f"{name}={o} is no share of the images, which is at least 0 and below 1.")
    if folds is not None and not (folds >= 2 and 0 <= fold < folds):
        raise ValueError(f"fold={fold} of folds={folds} doesn't exist: there are 2 or more folds, from 0 to folds-1.")
    names, hit = classes(rows), positive(rows)
    for o in ("label", "patient_id"):
        if (no := rows[o].isna() if o == "label" else is_missing(rows[o])).any():
            raise ValueError(f"{no.sum():,} of {len(rows):,} rows have no {o}: {few(rows['image'][no])}; drop them.")
    check_ids(rows)
    who = rows["patient_id"].factorize(sort=True)[0]
    images = np.stack([np.bincount(who[o], minlength=who.max(initial=-1)+1) for o in (~hit, hit)], axis=1)
    rng = np.random.default_rng(seed)
    if folds is None:
        side = _assign(images, {"train": (1-test)*(1-valid), "valid": (1-test)*valid, "test": test}, names, rng)
    else:
        side = np.where(_assign(images, dict.fromkeys(range(folds), 1/folds), names, rng) == fold, "test", "train")
        rest = side == "train"
        rng = np.random.default_rng([seed, fold+1]) # one a fold, whichever folds were made before
        side[rest] = _assign(images[rest], {"train": 1-valid, "valid": valid}, names, rng)
    parts = dict(test=test, valid=valid) if folds is None else dict(folds=folds, fold=fold, valid=valid)
    return sign_split(rows.assign(split=side[who]), method="by patient", stratified=True, **parts, seed=seed)

def each_fold(
    rows:pd.DataFrame, # with `patient_id label`
    folds:int,         # k
    repeats:int=1,     # of all k, each with parts of its own
    valid:float=.2,    # share of what isn't test, in each
    seed:int=0,        # of the first repeat; the next have the next numbers
) -> dict:             # number of the fold, 0 to k*repeats-1 -> rows with `split`
    "The splits of a repeated cross-validation: in each repeat every image is in test once."
    return {r*folds + f: split_patients(rows, valid=valid, seed=seed + r, folds=folds, fold=f)
            for r in range(repeats) for f in range(folds)}

def with_folds(
    rows:pd.DataFrame, # of a study
    splits:dict,       # of `each_fold`
    folds:int,         # k
) -> pd.DataFrame:     # without `split`, which each fold has its own
    "In which fold an image is in test: `fold`, and a column for each further repeat, `fold_2` and so on."
    res = rows.drop(columns="split", errors="ignore")
    for number, own in splits.items():
        name = f"fold_{number//folds + 1}" if number >= folds else "fold"
        if name not in res: res[name] = number
        res.loc[(own["split"] == "test").to_numpy(), name] = number
    return res

def folds_of(
    rows:pd.DataFrame, # of a study
) -> list:             # columns of `with_folds`; [] for rows of one split
    "By which columns rows are of folds."
    return [] if "split" in rows else [o for o in rows if re.fullmatch("fold(_[0-9]+)?", str(o))]

def sides_of(
    rows:pd.DataFrame, # of a study
) -> dict:             # name -> its rows
    "Train, valid and test; where there are folds, the test rows of each of the first repeat."
    if not (folds := folds_of(rows)): return {o: rows[rows["split"] == o] for o in SIDES}
    return {f"fold {o}": own for o, own in rows.groupby(folds[0])}

def test_rows(
    rows:pd.DataFrame, # of a study
) -> pd.DataFrame:
    "Those that are scored: the test side, or all where there are folds."
    return rows if folds_of(rows) else rows[rows["split"] == "test"]

def split_paper(
    rows:pd.DataFrame, # the cohort, with synthetic rows or without
    seed:int=0,        # same seed, same sides of the real rows, whatever synthetic ones are there
) -> pd.DataFrame:     # with `split`: 64% train, 16% test, 20% valid
    """The split that the paper's figures imply: by image, synthetic rows on every side. A fifth is held out, and a
    fifth of the rest is what its tables are of (201 of 1,262): that is 'test' here; the part held out is 'valid'."""
    made = is_synthetic(rows).to_numpy()
    side = np.full(len(rows), "train", object)
    for kind, which in enumerate((~made, made)):
        at = np.random.default_rng([seed, kind]).permutation(np.flatnonzero(which))
        held = len(at) // 5
        scored = (len(at) - held) // 5
        side[at[:held]], side[at[held:held+scored]] = "valid", "test"
    return sign_split(rows.assign(split=side), method="by image", stratified=False, test=.16, valid=.2, seed=seed)

def side_of(
    word:str, # in a table's own split, or a folder's name
) -> str:     # 'train', 'valid' or 'test'; None for any other word
    "The side that a word is for."
    return _WORDS.get("".join(o for o in str(word).lower() if o.isalpha()))

def split_given(
    rows:pd.DataFrame, # with `split`, in whatever words a table has for it
    valid:float=.2,    # share of train that becomes valid, by patient, where the table has no such side
    seed:int=0,        # of that
) -> pd.DataFrame:     # with `split`: train, valid or test; unsigned, for how it was made isn't known
    """A table's own split, its words folded. ValueError for a word that is no side, and without train, test or a class;
    LeakError where a patient or an image is on two sides."""
    words = rows["split"].map(side_of, na_action="ignore")
    if (bad := words.isna()).any():
        raise ValueError(f"{bad.sum():,} of {len(rows):,} rows have no side that is known "
                         f"({few(repr(o) for o in rows['split'][bad].unique())}): a split's words are train, valid "
                         "(val, validate) and test.")
    rows = rows.assign(split=words)
    if lost := {"train", "test"} - {*words}:
        raise ValueError(f"The table's own split has no {few(sorted(lost))} rows, only {few(sorted(words.unique()))}; "
                         "without --split-column one is made by patient.")
    rows.attrs.pop("split", None)
    check_leaks(rows)
    for side, own in rows.groupby("split"):
        if lost := [str(o) for o in classes(rows) if not (own["label"] == o).any()]:
            raise ValueError(f"The table's own split has no {few(lost)} among its {len(own):,} {side} rows, and each "
                             "side needs both classes; without --split-column one is made by patient.")
    if "valid" in {*words}: return rows
    train = rows["split"] == "train"
    own = split_patients(rows[train], test=0, valid=valid, seed=seed)["split"]
    say(f"The table's own split has no valid rows: {(own == 'valid').sum():,} of {train.sum():,} training rows become "
        "valid, by patient.")
    rows = rows.assign(split=rows["split"].mask(train, own))
    rows.attrs.pop("split", None)
    return rows
