"""Leaks between train, valid and test: a patient, an image, a near-duplicate, the answer among the features.

Not in the paper, whose Ensemble was scored on a pool that its synthetic images had joined. Nothing here fits or changes
anything: a table goes in, and either nothing comes back or one `LeakError` that names the rows.
"""
import numpy as np, pandas as pd
from .duplicates import near_duplicates
from .files import few

__all__ = ["LeakError", "check_leaks"]

NOT_FEATURES = { # name, in lower case without signs: why it can't be a feature
    "label": "is the target", "findings": "holds the target", "findinglabels": "holds the target",
    "split": "is the side", "file": "names the image", "image": "names the image", "imageindex": "names the image",
    "patientid": "names the patient", "followup": "counts visits, of which the sick have more",
    "synthetic": "tells real from synthetic", "metadatapolicy": "tells real from synthetic"}

class LeakError(ValueError):
    "Something of valid or test, or the answer itself, is where training sees it."

def _at(rows, at):
    "Rows by name and side, for an error's sentence."
    return few(f"{i} ({s})" for i, s in zip(rows["image"].iloc[at], rows["split"].iloc[at]))

def _pairs(a, b):
    "Of the distinct pairs of two lists of codes: each one's code in `a`, sorted, and how often the pair occurs."
    k = b.max(initial=0) + 1
    pairs, count = np.unique(a*k + b, return_counts=True)
    return pairs // k, count

def _on_two_sides(rows, column):
    who, side = (pd.factorize(rows[o])[0] for o in (column, "split"))
    on, _ = _pairs(who[who >= 0], side[who >= 0])
    both = np.flatnonzero(np.isin(who, on[1:][on[1:] == on[:-1]]))
    if not len(both): return
    both = both[np.argsort(who[both], kind="stable")]
    return (f"'{column}' has values on two sides ({len(np.unique(who[both])):,}), in the rows {_at(rows, both)}; "
            "split with split_patients.")

def _near(rows, hashes):
    if hashes.shape != (len(rows), 4):
        raise ValueError(f"{len(rows):,} rows need hashes of shape [{len(rows)}, 4], not {list(hashes.shape)}.")
    pairs, bits = near_duplicates(hashes, rows["split"])
    if not len(pairs): return
    shown = few(f"{_at(rows, [i])} = {_at(rows, [j])}" for i, j in pairs)
    return (f"{len(pairs):,} pairs of near-duplicates are on two sides, the nearest {bits[0]} bits apart: {shown}; "
            "drop one of each pair, or give both one patient_id before splitting.")

def _fitted(rows, name, stat):
    "Words or a range of `name` that training rows can't have given."
    train, values = (rows["split"] == "train").to_numpy(), rows[name]
    if len(stat) == 2 and pd.api.types.is_numeric_dtype(values) and not isinstance(stat[0], str):
        own = values[train]
        beyond = (values < own.min()) & (values >= stat[0]) | (values > own.max()) & (values <= stat[1])
    else:
        words = values.astype(str).where(values.notna())
        beyond = words.isin(set(map(str, stat)) - set(words[train]))
    at = np.flatnonzero(beyond.to_numpy() & ~train)
    if not len(at): return
    return (f"the statistics of '{name}' include {few(pd.unique(values.iloc[at]))}, which are in no training row "
            f"but in {_at(rows, at)}; fit them on training rows only.")

def _evaluated(rows):
    made = rows["synthetic"].eq(True).to_numpy() & rows["split"].ne("train").to_numpy()
    if made.any(): return (f"{made.sum():,} synthetic rows are outside train, where a model would be scored on them: "
                           f"{_at(rows, np.flatnonzero(made))}; leave them out.")

def _gives_away(rows, name):
    "What column `name` tells that no feature may tell, or None. Few rows tell nothing for certain: 20 are asked for."
    plain = "".join(o for o in str(name).lower() if o.isalnum())
    if plain in NOT_FEATURES: return NOT_FEATURES[plain]
    if name not in rows: raise ValueError(f"Feature '{name}' is no column of the table, which has {', '.join(rows)}.")
    values, number = rows[name], pd.api.types.is_numeric_dtype(rows[name])
    (word, _), (who, _) = pd.factorize(values), pd.factorize(rows["patient_id"])
    known = word >= 0 # the others are missing
    words, patients = len(np.unique(word[known])), len(np.unique(who[known]))
    if known.sum() < 20: return
    if not number and words > known.sum()/2: return "has a word of its own for most images, as an id has"
    for o in ("patient_id", "follow_up"):
        if o in rows and words > 2 and np.array_equal(values.to_numpy(object), rows[o].to_numpy(object)):
            return f"is a copy of '{o}'"
    pairs, images = _pairs(word[known], who[known])
    one_each = len(pairs) == words == patients >= 100 and (images > 1).sum() >= 5 # of 100 patients two have one age
    if number and one_each and (values[known] % 1 == 0).all(): return "is a whole number for each patient, as an id is"
    if "label" not in rows: return
    label = pd.factorize(rows["label"])[0]
    pairs, _ = _pairs(word[label >= 0], label[label >= 0]) # a missing word may tell, too
    classes, words = np.bincount(label[label >= 0], minlength=2), len(np.unique(pairs))
    if len(pairs) == words <= classes.sum()/10 and classes.min() >= 5: return "is the target in other words"

def _feature(rows, name):
    if why := _gives_away(rows, name):
        return (f"feature '{name}' {why}, in the rows {_at(rows, np.arange(len(rows)))}; take it out of the metadata.")

def check_leaks(
    rows:pd.DataFrame,      # with `image patient_id split`, every feature and fitted column, maybe `synthetic`
    features=(),            # metadata columns that a model is given
    hashes:np.ndarray=None, # [rows,4] uint64 of `perceptual_hash`; None: near-duplicates are not looked for
    stats:dict=None,        # of metadata columns, as fitted: words, or (lowest, highest)
) -> None:
    """LeakError that names the rows, if a patient, image or near-duplicate is on two sides, a feature is the target, an
    id or the visit number, statistics were fitted beyond train, or a synthetic row isn't in train. ValueError for a
    table that can't be checked."""
    keys = ["image", "patient_id", "split"]
    if lost := [o for o in keys + list(stats or {}) if o not in rows]:
        raise ValueError(f"The table has no column {few(map(repr, lost))}, so that it can't be checked for leaks.")
    for o in keys:
        if (no := rows[o].isna()).any(): raise ValueError(f"{no.sum():,} rows have no {o}: {few(rows['image'][no])}.")
    found = [_on_two_sides(rows, o) for o in ("patient_id", "image", "file") if o in rows]
    found += [_feature(rows, o) for o in features] + [_fitted(rows, o, stat) for o, stat in (stats or {}).items()]
    if "synthetic" in rows: found.append(_evaluated(rows))
    if hashes is not None: found.append(_near(rows, np.asarray(hashes)))
    if found := [o for o in found if o]: raise LeakError(" ".join(found))
