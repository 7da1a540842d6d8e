"""Words of a table as one word: the folding that training, a csv, a DICOM header and `learn.predict` have in common.

Blanks around a word don't count; a whole number is one word however it is written (`2`, `2.0`, `02`); `MISSING` are no
words. Columns named sex, view or age know the synonyms of a sex or a view, and an age's unit (058Y, 18M, 3W, 2D)."""
import re, unicodedata
import numpy as np, pandas as pd

__all__ = ["MISSING", "fold_id", "fold_ids", "is_missing"]

# In lower case: what pandas, Excel, R and SQL write where nothing is known. No lone sign: '-' may be a label.
MISSING = {"", "na", "n/a", "#na", "#n/a", "#n/a n/a", "<na>", "nan", "-nan", "nat", "null", "none", "1.#ind", "-1.#ind",
           "1.#qnan", "-1.#qnan"}
_WHOLE = re.compile(r"\+?(-?)0*([0-9]+)(?:\.0*)?")
_INVISIBLE = "\ufeff\u200b" # a mark of byte order, a blank of no width

def _text(value):
    "A value as a word without blanks around it; a whole number in one writing."
    if isinstance(value, (float, np.floating)) and value % 1 == 0: return str(int(value))
    word = str(value).strip().strip(_INVISIBLE).strip()
    if not (m := _WHOLE.fullmatch(word)): return word
    return "0" if m[2] == "0" else m[1] + m[2]

def _each(values, fold):
    "`fold` of each distinct value, as objects; NaN where it gives None or nothing was there."
    values = pd.Series(values)
    codes, there = pd.factorize(values.astype(object))
    folded = np.array([*(np.nan if o is None else o for o in map(fold, there)), np.nan], object) # code -1: missing
    return pd.Series(folded[codes], values.index, object, name=values.name)

def fold_id(
    value:object, # an id, as text or as a number
) -> str:         # one writing for all of '0013', '13 ', '13.0', 13; None where it is missing
    "An id in the one writing by which ids are compared: no blanks around it, no leading zeros, one form of accents."
    word = unicodedata.normalize("NFC", _text(value))
    return None if word.lower() in MISSING else word

def fold_ids(
    values:pd.Series, # ids, as text or as numbers
) -> pd.Series:       # their `fold_id`, NaN where missing
    "`fold_id` of every value; each distinct one is folded once."
    return _each(values, fold_id)

def is_missing(
    values:pd.Series, # of anything
) -> np.ndarray:      # bool, one a value
    "Where nothing is there, or a word of `MISSING`."
    return _each(values, fold_id).isna().to_numpy()
