"""What a feature tells that no feature may: the target, the visit, the patient, the row or the side, in whatever code.

A feature is asked as a number, by what is behind its comma and by its parity, and as words, where each row's score is
the mean of the *other* patients with its word. What so few patients
could give by luck isn't told. Absence is asked by itself."""
from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from .rows import is_image_only, is_synthetic
from .words import fold_ids

__all__ = ["feature_leak"]

NOT_FEATURES = { # name, in lower case without signs: why it can't be a feature
    "label": "is the target", "findings": "holds the target", "findinglabels": "holds the target",
    "split": "is the side", "file": "names the image", "image": "names the image", "imageindex": "names the image",
    "sopinstanceuid": "names the image", "studyinstanceuid": "names the study", "accessionnumber": "names the study",
    "patientid": "names the patient", "mrn": "names the patient", "unnamed0": "numbers the rows",
    "followup": "counts visits, of which the sick have more",
    "synthetic": "tells real from synthetic", "metadatapolicy": "tells real from synthetic"}
CERTAIN, SUSPECT = .98, .85 # AUC from which a feature is refused, and told of
MONOTONE = .95              # rank correlation of a copy
FEW, ROWS = 5, 20           # patients of a class, and rows with a value, below which nothing is certain

def _pairs(a, b):
    "Of the distinct pairs of two lists of codes: each one's code in `a`, sorted, and how often the pair occurs."
    k = b.max(initial=0) + 1
    pairs, count = np.unique(a*k + b, return_counts=True)
    return pairs // k, count

def _of_others(word, who, hit):
    "The share of `hit` among other patients' rows with the same word; nan where there are none."
    _, at = np.unique(word.astype(np.int64)*(who.max() + 1) + who, return_inverse=True)
    share = lambda weights: np.bincount(word, weights)[word] - np.bincount(at, weights)[at]
    n = share(np.ones(len(word)))
    return np.where(n > .5, share(hit.astype(float)) / np.maximum(n, 1), np.nan)

def _auc(score, who, hit):
    "Of rows with a score; 0.5 where so many patients could give it by luck: within 3.5 sd of nothing, or 1.3 of 0.8."
    known = ~np.isnan(score)
    score, who, hit = score[known], who[known], hit[known].astype(int)
    n = np.bincount(np.unique(who*2 + hit) % 2, minlength=2) # patients of each class
    if n.min() < FEW: return .5
    rows = np.bincount(hit, minlength=2)
    auc = (rankdata(score)[hit == 1].sum() - rows[1]*(rows[1] + 1)/2) / rows.prod()
    beyond = auc - .5 > 3.5*np.sqrt((n.sum() + 1)/(12*n.prod())) and auc - 1.3*np.sqrt(auc*(1 - auc)/n.min()) > .8
    return auc if beyond else .5

def _number(values):
    "float [n], nan where missing; None where words aren't numbers."
    number = pd.to_numeric(values.astype(object), errors="coerce")
    if not number.isna().equals(values.isna()): return
    return number.to_numpy(float, na_value=np.nan)

def _scores(values, who, hit, deep) -> Iterator:
    "The ways to read a feature, each as a score for `hit`; `deep`: a number's digits and words, too."
    number, word = _number(values), pd.factorize(values)[0]
    if number is not None:
        for x in (number, number % 1, number % 2, number % 10) if deep else (number,):
            yield x
            yield -x
        if not deep and len(np.unique(number)) > 10: return
        word = np.unique(number, return_inverse=True)[1]
        yield _of_others(word * 32 // (word.max() + 1), who, hit) # in bins
    else:
        stem = values.astype(object).map(lambda o: "".join(c for c in str(o) if not c.isdigit()), na_action="ignore")
        yield _of_others(pd.factorize(stem)[0], who, hit)
    yield _of_others(word, who, hit)

def _tells(values, who, hit, deep=False):
    "The best AUC of a feature's known values for `hit`."
    known = values.notna().to_numpy()
    values, who, hit = values[known], who[known], hit[known]
    if len(np.unique(hit)) < 2: return .5
    return max(_auc(o, who, hit) for o in _scores(values, who, hit, deep))

def _correlated(a, b):
    "Whether two numbers rise or fall together."
    a, b = rankdata(a), rankdata(b)
    return min(a.std(), b.std()) > 0 and abs(np.corrcoef(a, b)[0, 1]) >= MONOTONE

def _ordered(values):
    "As numbers: words by their alphabet."
    number = _number(values)
    return number if number is not None else pd.factorize(values.astype(str), sort=True)[0].astype(float)

def _copied(rows, values, who):
    "Which of visit, patient, row and side the known values follow, or None."
    known = values.notna().to_numpy()
    x, n, at = _ordered(values[known]), known.sum(), np.flatnonzero(known)
    words, who = len(np.unique(x)), who[known]
    if "follow_up" in rows:
        visit = pd.to_numeric(rows["follow_up"], errors="coerce").fillna(0).to_numpy()
        if words > 1 and (visit[known] > 0).sum() >= FEW:
            after = [_tells(values, pd.factorize(rows["patient_id"])[0], visit > o) for o in {0, 1, np.median(visit)}]
            if _correlated(x, visit[known]) or max(after) >= CERTAIN: return "is a copy of 'follow_up', in some code"
    first = np.unique(who, return_index=True)[1]
    if words >= max(ROWS, len(first)/10):
        names = _ordered(fold_ids(rows["patient_id"].iloc[at[first]]))
        if _correlated(x[first], names): return "is a copy of 'patient_id', in some code: it rises or falls with it"
    if words >= max(ROWS, .95*n) and _correlated(x, np.arange(n)):
        return "rises or falls with the order of the rows, as their number does (a table sorted by it can be shuffled)"
    side = rows["split"].map({"train": 0, "valid": 1, "test": 2}).fillna(3).to_numpy()
    if _correlated(x, side[known]): return "is a copy of 'split', in some code"
    if words <= 10 and any(_tells(values, np.arange(len(rows)), side == o) >= CERTAIN for o in np.unique(side)):
        return "tells the sides of 'split' apart"

def _answers(rows, values, who, positive):
    "The AUC of a feature, and of its absence, for the label, on training rows."
    train = (rows["split"] == "train").to_numpy() & rows["label"].notna().to_numpy()
    read = train & ~is_image_only(rows).to_numpy()
    real = train & ~is_synthetic(rows).to_numpy() # a synthetic row has others' values, and so no patient's
    absent = values.isna().to_numpy()[read].astype(float)
    of = who[read], positive[read]
    return _tells(values[real], who[real], positive[real], True), max(_auc(o, *of) for o in (absent, -absent))

def feature_leak(
    rows:pd.DataFrame, # with `patient_id split`, maybe `label follow_up`
    name:str,          # a metadata column
) -> tuple:            # why it can't be a feature, or None; what is suspect of it, or None
    "What column `name` tells that no feature may. Few rows tell nothing for certain. ValueError for no such column."
    plain = "".join(o for o in str(name).lower() if o.isalnum())
    if plain in NOT_FEATURES: return NOT_FEATURES[plain], None
    if name not in rows: raise ValueError(f"Feature '{name}' is no column of the table, which has {', '.join(rows)}.")
    values = rows[name]
    (word, _), (who, _) = pd.factorize(values), pd.factorize(rows["patient_id"])
    known = word >= 0 # the others are missing
    words = len(np.unique(word[known]))
    if known.sum() >= ROWS:
        if not pd.api.types.is_numeric_dtype(values) and words > known.sum()/2:
            return "has a word of its own for most images, as an id has", None
        for o in ("patient_id", "follow_up"):
            if o in rows and words > 2 and np.array_equal(values.to_numpy(object), rows[o].to_numpy(object)):
                return f"is a copy of '{o}'", None
    told = None
    if "label" in rows and len(rows) >= ROWS:
        label = pd.factorize(rows["label"])[0]
        pairs, _ = _pairs(word[label >= 0], label[label >= 0]) # a missing word may tell, too
        classes, n = np.bincount(label[label >= 0], minlength=2), len(np.unique(pairs))
        if known.sum() >= ROWS and len(pairs) == n <= classes.sum()/10 and classes.min() >= FEW:
            return "is the target in other words", None
        for auc, what in zip(_answers(rows, values, who, label == 1), ("tells", "tells by its absence")):
            if auc >= CERTAIN: return f"{what} the target (AUC {auc:.3f} in training rows)", None
            if auc >= SUSPECT: told = f"{what} the target with an AUC of {auc:.2f} in training rows"
    return (_copied(rows, values, who) if known.sum() >= ROWS else None), told
