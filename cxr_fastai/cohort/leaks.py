"""Leaks between train, valid and test: a patient, an image, a copy of a film, the answer among the features.

Not in the paper, whose Ensemble was scored on a pool that its synthetic images had joined. Nothing here changes
anything: a table goes in, and either nothing comes back or one `LeakError` that names the rows.
"""
import re, warnings
from collections import OrderedDict
from collections.abc import Callable
from hashlib import blake2b
from unicodedata import normalize

import numpy as np
import pandas as pd

from ..core.files import few
from .altered import altered_copies
from .duplicates import near_duplicates, turned_duplicates
from .giveaway import _pairs, feature_leak
from .rows import is_synthetic
from .words import fold_ids, fold_words, is_missing

__all__ = ["LeakError", "check_ids", "check_leaks"]

class LeakError(ValueError):
    "Something of valid or test, or the answer itself, is where training sees it."

def _at(rows, at):
    "Rows by name and side, for an error's sentence."
    return few(f"{i} ({s})" for i, s in zip(rows["image"].iloc[at], rows["split"].iloc[at]))

def _on_two_sides(rows, column):
    who, side = (pd.factorize(rows[o])[0] for o in (column, "split"))
    on, _ = _pairs(who[who >= 0], side[who >= 0])
    both = np.flatnonzero(np.isin(who, on[1:][on[1:] == on[:-1]]))
    if not len(both): return
    both = both[np.argsort(who[both], kind="stable")]
    return (f"'{column}' has values on two sides ({len(np.unique(who[both])):,}), in the rows {_at(rows, both)}; "
            "split with split_patients.")

_KNOWN, _PASSED, _REMEMBERED = OrderedDict(), OrderedDict(), 16 # a fit asks what `from_df` has asked, a cell others'

def _kept(known, key, make):
    "What `make` gives, worked out once while it is among the last that were asked for; an error isn't kept."
    if key not in known: known[key] = make()
    known.move_to_end(key)
    while len(known) > _REMEMBERED: known.popitem(last=False)
    return known[key]

def _altered(rows, hashes, films):
    "`altered_copies`, worked out once for the same films and sides in any order."
    order = np.lexsort([*hashes.T, pd.factorize(rows["split"], sort=True)[0]])
    sides = rows["split"].to_numpy()[order].astype(str)
    key = blake2b(hashes[order].tobytes() + "\n".join(sides).encode()).digest()
    return order[_kept(_KNOWN, key, lambda: altered_copies(lambda at: films(order[at]), sides))]

def _each_once(rows, hashes, films):
    "Without the films that a side has again, as of duplicated rows."
    if hashes.shape != (len(rows), 4):
        raise ValueError(f"{len(rows):,} rows need hashes of shape [{len(rows)}, 4], not {list(hashes.shape)}.")
    if "file" not in rows: return rows, hashes, films
    at = np.flatnonzero(~rows.duplicated(["file", "split"]))
    return rows.iloc[at], hashes[at], films and (lambda some: films(at[some]))

def _near(rows, hashes, films):
    def say(pairs, what=None):
        said = [f"{_at(rows, [i])} = {_at(rows, [j])}" for i, j in pairs]
        return few(said if what is None else map(", ".join, zip(said, what)))
    found, (pairs, bits) = [], near_duplicates(hashes, rows["split"])
    if len(pairs): found.append(f"{len(pairs):,} pairs of near-duplicates are on two sides, the nearest {bits[0]} bits "
                                f"apart: {say(pairs)}")
    turned, _, what = turned_duplicates(hashes, rows["split"])
    if len(turned): found.append(f"{len(turned):,} pairs of films on two sides are one film turned over or inverted: "
                                 f"{say(turned, what)}")
    if films and not found: # whose search takes longer
        if len(pairs := _altered(rows, hashes, films)):
            found.append(f"{len(pairs):,} pairs of films on two sides are one film cropped, bordered, marked, or "
                         f"turned or moved a little: {say(pairs)}")
    if found: return f"{'; '.join(found)}; drop one of each pair, or give both one patient_id before splitting."

def _fitted(rows, name, stat):
    "Words or a range of `name` that training rows can't have given."
    train, values = (rows["split"] == "train").to_numpy(), rows[name]
    if len(stat) == 2 and pd.api.types.is_numeric_dtype(values) and not isinstance(stat[0], str):
        own = values[train]
        beyond = (values < own.min()) & (values >= stat[0]) | (values > own.max()) & (values <= stat[1])
    else:
        words = fold_words(values, name)
        beyond = words.isin({*fold_words(pd.Series(stat, dtype=object), name)} - {*words[train]})
    at = np.flatnonzero(beyond.to_numpy() & ~train)
    if not len(at): return
    return (f"the statistics of '{name}' include {few(pd.unique(values.iloc[at]))}, which are in no training row "
            f"but in {_at(rows, at)}; fit them on training rows only.")

def _evaluated(rows):
    made = is_synthetic(rows).to_numpy() & rows["split"].ne("train").to_numpy()
    if made.any(): return (f"{made.sum():,} synthetic rows are outside train, where a model would be scored on them: "
                           f"{_at(rows, np.flatnonzero(made))}; leave them out.")

def _feature(rows, name, told):
    why, suspect = feature_leak(rows, name)
    if suspect: told.append(f"Feature '{name}' {suspect}: can it be known before the answer is?")
    if why: return (f"feature '{name}' {why}, in the rows {_at(rows, np.arange(len(rows)))}; "
                    "take it out of the metadata.")

def _shown(found):
    return few(" and ".join(repr(i) for i in o) for o in found)

def check_ids(
    rows:pd.DataFrame, # with `patient_id`
):
    """LeakError where one patient's id stands in two spellings ('0013' and 13), which would be two patients. Ids that
    differ in upper and lower case, blanks, signs or zeros within ('p 13', 'P-013') are told of."""
    if told := _two_spellings(rows): warnings.warn(told, stacklevel=3)

def _two_spellings(rows):
    "What to tell of ids; LeakError as of `check_ids`."
    ids = rows["patient_id"]
    if pd.api.types.is_integer_dtype(ids): return
    there = {(type(o).__name__, o): o for o in ids.dropna()} # 13 and 13.0 are one key of a dict
    there = pd.Series(list(there.values()), dtype=object)
    for fold, error in ((fold_ids, True), (lambda o: fold_ids(o).map(_loose, na_action="ignore"), False)):
        groups = there.groupby(fold(there), sort=False).agg(list)
        if not len(two := [o for o in groups if len(o) > 1]): continue
        text = f"{len(two):,} patients have ids in more than one spelling: {_shown(two)}"
        if error: raise LeakError(f"{text}; write each patient's id in one way before splitting.")
        return f"{text}? They are taken for different patients."

def _loose(word): return re.sub(r"(?<!\d)0+(?=\d)", "", re.sub(r"[\s_/-]", "", normalize("NFKC", word).casefold()))

def _of_one_image(rows):
    "What to say where no patient has two images, and nothing says that it must be so."
    real = rows[~is_synthetic(rows)]
    if len(real) < 20 or real["patient_id"].duplicated().any(): return
    visits = real["follow_up"] if "follow_up" in real else None
    if visits is not None and visits.eq(0).all(): return
    why = "no column follow_up says that these are first visits" if visits is None else "follow_up counts returns"
    return (f"Each of the {len(real):,} images has a patient of its own, and {why}: if a patient has more than one, "
            "patient_id doesn't say so, and no check by patient can see it on two sides.")

def check_leaks(
    rows:pd.DataFrame,      # with `image patient_id split`, features and fitted columns, maybe `synthetic follow_up`
    features=(),            # metadata columns that a model is given
    hashes:np.ndarray=None, # [rows,4] uint64 of `perceptual_hash`; None: near-duplicates are not looked for
    stats:dict=None,        # of metadata columns, as fitted: words, or (lowest, highest)
    films:Callable=None,    # row numbers [m] to uint8 pixels [m,h,w]; None: no search for crops, small turns and shifts
) -> None:
    """LeakError that names the rows, if a patient, image or copy of a film is on two sides, a patient has two
    spellings, a feature is the target, an id, the visit, the row or the side in whatever code, statistics were fitted
    beyond train, or a synthetic row isn't in train. A warning for what is only suspect. ValueError for a table that
    can't be checked."""
    if hashes is not None: hashes = np.asarray(hashes)
    asked = rows, features, hashes, stats, films
    for o in _kept(_PASSED, _digest(*asked), lambda: _checked(*asked)): warnings.warn(o, stacklevel=2)

def _digest(rows, features, hashes, stats, films):
    "Of a table, value for value in its order, and of what it is held against."
    fitted = {k: [*o] for k, o in (stats or {}).items()}
    res = blake2b(repr((list(features), fitted, hashes is None or hashes.shape, films is None)).encode())
    if hashes is not None: res.update(np.ascontiguousarray(hashes))
    for name, values in rows.items(): res.update(repr((name, values.dtype, values.tolist())).encode())
    return res.digest()

def _checked(rows, features, hashes, stats, films):
    "What is suspect of a table, in words; LeakError and ValueError as of `check_leaks`."
    keys = ["image", "patient_id", "split"]
    if lost := [o for o in keys + list(stats or {}) if o not in rows]:
        raise ValueError(f"The table has no column {few(map(repr, lost))}, so that it can't be checked for leaks.")
    for o in keys:
        if (no := is_missing(rows[o])).any():
            raise ValueError(f"{no.sum():,} rows have no {o}: {few(rows['image'][no])}.")
    told = [_two_spellings(rows), _of_one_image(rows)]
    found = [_on_two_sides(rows, o) for o in ("patient_id", "image", "file") if o in rows]
    found += [_feature(rows, o, told) for o in features] + [_fitted(rows, o, stat) for o, stat in (stats or {}).items()]
    found.append(_evaluated(rows))
    if hashes is not None: found.append(_near(*_each_once(rows, hashes, films)))
    if found := [o for o in found if o]: raise LeakError(" ".join(found))
    return list(filter(None, told))
