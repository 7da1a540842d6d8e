"""Leaks between train, valid and test: a patient, an image, a near-duplicate, the answer among the features.

Not in the paper, whose Ensemble was scored on a pool that its synthetic images had joined. Nothing here fits or changes
anything: a table goes in, and either nothing comes back or one `LeakError` that names the rows.
"""
import numpy as np, pandas as pd
from .files import few

__all__ = ["LeakError", "NEAR", "check_leaks", "near_duplicates", "perceptual_hash"]

# Bits of 256 that differ, in 617 NIH films of 434 patients. Two films: 63 or more (one patient's: 65 or more). A film
# and its copy: resized to 128..1024 pixels at most 9; as JPEG of quality 75 at most 7; brighter or darker by 20 of 255,
# or with 0.8 to 1.2 times the contrast, at most 12; of 256 pixels, shifted by one each way 29 (99.7% within 24),
# by two along one side 34 (97% within 24), by two each way 49 (half within 24). Two drawn films, whose outlines have
# much in common: 27 or more. Hence 24.
NEAR = 24

NOT_FEATURES = { # name, in lower case without signs: why it can't be a feature
    "label": "is the target", "findings": "holds the target", "findinglabels": "holds the target",
    "split": "is the side", "file": "names the image", "image": "names the image", "imageindex": "names the image",
    "patientid": "names the patient", "followup": "counts visits, of which the sick have more",
    "synthetic": "tells real from synthetic", "metadatapolicy": "tells real from synthetic"}
_THUMB, _EDGE = 64, 1 # thumbnail's side; cells left out around it, where a shifted film is filled in

def _box(n, k):
    "[k,n] weights that average `n` pixels over `k` equal cells, fractions of a pixel included."
    ends, i = np.linspace(0, n, k+1), np.arange(n)
    over = np.minimum(ends[1:,None], i+1) - np.maximum(ends[:-1,None], i)
    return (over.clip(0) * k/n).astype(np.float32)

def _dct(n):
    "[n,n] cosines of the DCT-II, not normalised: only signs are used."
    i = np.arange(n)
    return np.cos(np.pi * (2*i+1) * i[:,None] / (2*n)).astype(np.float32)

def _lowest(n, count=256):
    "Flat indices of the `count` lowest spatial frequencies of an [n,n] DCT, the mean left out."
    u, v = np.indices((n, n))
    return np.lexsort((u.ravel(), np.hypot(u, v).ravel()))[1:count+1]

def perceptual_hash(
    pixels:np.ndarray, # [n,h,w] uint8; any size, a memory map too
) -> np.ndarray:       # [n,4] uint64
    """The signs of a radiograph's 256 lowest spatial frequencies, a pHash (https://www.phash.org). Copies of a film
    differ in few bits, whatever their size, contrast or compression; two films in about 120. One gray gives zeros."""
    if pixels.ndim != 3 or pixels.dtype != np.uint8:
        raise ValueError(f"perceptual_hash takes uint8 pixels [n,h,w], not {pixels.dtype} {list(pixels.shape)}.")
    n, h, w = pixels.shape
    side = _THUMB - 2*_EDGE
    rows, cols, dct, low = _box(h, _THUMB)[_EDGE:-_EDGE], _box(w, _THUMB)[_EDGE:-_EDGE].T, _dct(side), _lowest(side)
    bits, some = np.zeros((n, 256), bool), max(1, 2**22 // (h*w)) # as many at a time as are 16 MB of floats
    for i in range(0, n, some):
        t = rows @ pixels[i:i+some].astype(np.float32) @ cols
        t = (t - t.mean((1, 2), keepdims=True)) / (t.std((1, 2), keepdims=True) + 1) # +1: an image of one gray stays 0
        f = (dct @ np.tanh(t) @ dct.T).reshape(len(t), -1)[:,low] # tanh: blacks and whites weigh little, clipped or not
        bits[i:i+some] = f > .5 # more than rounding, far less than the coefficients of a film
    mixed = bits.reshape(n, 16, 16).transpose(0, 2, 1) # 16 bands, each of low and high frequencies: see near_duplicates
    return np.packbits(mixed.reshape(n, 256), axis=1).view(np.uint64)

class LeakError(ValueError):
    "Something of valid or test, or the answer itself, is where training sees it."

def near_duplicates(
    hashes:np.ndarray, # [n,4] uint64 of `perceptual_hash`
    sides:list,        # [n] split, or patient: only pairs with two different values are looked for
) -> tuple:            # pairs [m,2] of row numbers, nearest first; bits [m] in which they differ
    """All pairs on two sides within `NEAR` bits, without comparing each with each: hashes that differ in at most 31
    bits differ in at most one of some band's 16. Of the rows with one hash on one side, the first stands for all."""
    sides = pd.factorize(np.asarray(sides))[0]
    _, first = np.unique(np.column_stack([hashes, sides.astype(np.uint64)]), axis=0, return_index=True)
    hashes, side, n = np.ascontiguousarray(hashes[first]), sides[first], len(first)
    words, bands = np.ascontiguousarray(hashes.T), hashes.view(np.uint16).reshape(n, 16)
    ask = np.flatnonzero(side != np.bincount(side).argmax()) if n else first # a pair has one row off the largest side
    flips, found = np.r_[0, 1 << np.arange(16)].astype(np.uint16), [np.empty((0, 3), int)]
    for key in bands.T:
        order, start = np.argsort(key, kind="stable"), np.r_[0, np.bincount(key, minlength=1<<16).cumsum()]
        probe = (key[ask,None] ^ flips).astype(int)
        begin, count = start[probe], start[probe+1] - start[probe]
        for part in np.array_split(np.arange(len(ask)), 1 + (count.sum() >> 20)): # a million candidates at a time
            c, b = count[part].ravel(), begin[part].ravel()
            i = ask[np.repeat(part, count[part].sum(1))]
            j = order[np.arange(c.sum()) + np.repeat(b - c.cumsum() + c, c)]
            i, j = (o[side[i] != side[j]] for o in (i, j))
            bits = np.zeros(len(i), int)
            for w in words:
                bits += np.bitwise_count(w[i] ^ w[j])
                i, j, bits = (o[bits <= NEAR] for o in (i, j, bits))
            i, j = first[i], first[j]
            found.append(np.unique(np.stack([bits, np.minimum(i, j), np.maximum(i, j)], axis=1), axis=0))
    found = np.unique(np.concatenate(found), axis=0)
    return found[:,1:], found[:,0]

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
