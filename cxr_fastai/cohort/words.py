"""Words of a table as one word: the folding that training, a csv, a DICOM header and `learn.predict` have in common.

Blanks around a word don't count; a whole number is one word however it is written (`2`, `2.0`, `02`); `MISSING` are no
words. Columns named sex or view know their synonyms; one named age knows units (058Y, 18M, 3W, 2D), and an age over
`OLDEST` is missing, as the NIH's of 414 years."""
import itertools, re, unicodedata
from functools import cache

import numpy as np
import pandas as pd

__all__ = ["MISSING", "OLDEST", "UNCLEAR", "fold_id", "fold_ids", "fold_number", "fold_numbers", "fold_word",
           "fold_words", "is_missing", "known_word"]

# In lower case: what pandas, Excel, R and SQL write where nothing is known. No lone sign: '-' may be a label.
MISSING = {"", "na", "n/a", "#na", "#n/a", "#n/a n/a", "<na>", "nan", "-nan", "nat", "null", "none", "1.#ind",
           "-1.#ind", "1.#qnan", "-1.#qnan"}
OLDEST = 100 # years
UNCLEAR = "is written with a comma that may be of decimals or of thousands; write a point, as in 1234.5"
_KINDS = {"sex": "sex", "gender": "sex", "patientsex": "sex", "patientgender": "sex", "view": "view",
          "viewposition": "view", "age": "age", "patientage": "age",
          "ageyears": "age"} # of a column, by its name's small letters
_SYNONYMS = {"sex": {"f": "F", "female": "F", "woman": "F", "girl": "F", "m": "M", "male": "M", "man": "M", "boy": "M",
                     "o": "O", "other": "O"},
             "view": {"pa": "PA", "posteroanterior": "PA", "postero-anterior": "PA", "posterior-anterior": "PA",
                      "ap": "AP", "anteroposterior": "AP", "antero-posterior": "AP", "anterior-posterior": "AP"}}
_YEARS = {"": 1, "Y": 1, "M": 1/12, "W": 7/365.25, "D": 1/365.25}
_AGE = re.compile(r"([0-9]+(?:\.[0-9]*)?) ?([YMWD]?)")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|[+-]?inf(inity)?", re.I)
_COMMA = re.compile(r"([+-]?[0-9]*),([0-9]+)( ?[YMWD]?)", re.I) # of decimals, as in most of Europe
_EITHER = re.compile(r"[+-]?([1-9][0-9]{0,2},[0-9]{3}|[0-9]+([,.][0-9]{3})+[,.][0-9]+)") # of decimals or thousands
_WHOLE = re.compile(r"\+?(-?)0*([0-9]+)(?:\.0*)?")
_INVISIBLE = "\ufeff\u200b" # a mark of byte order, a blank of no width
_LARGEST = float(np.finfo(np.float32).max)
_WORDS = pd.Series(["a word"]).dtype # of columns of words: object, in newer pandas str
_SPELT = [w for o in MISSING if len(o) < 9 for w in map("".join, itertools.product(*({c, c.upper()} for c in o)))]

@cache # asked once a value
def _kind(name): return _KINDS.get("".join(o for o in str(name).lower() if o.isalnum()), "")

def _text(value):
    "A value as a word without blanks around it; a whole number in one writing."
    if isinstance(value, (float, np.floating)) and value % 1 == 0: return str(int(value))
    word, before = str(value), None
    while word != before: word, before = word.strip().strip(_INVISIBLE), word
    if not (m := _WHOLE.fullmatch(word)): return word
    return "0" if m[2] == "0" else m[1] + m[2]

def _each(values, fold, dtype=_WORDS):
    "`fold` of each distinct value; missing where it gives None or nothing was there."
    values = pd.Series(values)
    codes, there = pd.factorize(values)
    folded = np.array([*(np.nan if o is None else o for o in map(fold, there)), np.nan], object) # code -1: missing
    return pd.Series(folded[codes], values.index, dtype, name=values.name)

def _absent(value):
    try: return value is None or bool(value != value) # NaN; and NA, which is neither
    except TypeError: return True

def fold_id(
    value:object, # an id, as text or as a number
) -> str:         # one writing for all of '0013', '13 ', '13.0', 13; None where it is missing
    "An id in the one writing by which ids are compared: no blanks around it, no leading zeros, one form of accents."
    word = "" if _absent(value) else unicodedata.normalize("NFC", _text(value))
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
    values = pd.Series(values)
    if pd.api.types.is_numeric_dtype(values): return values.isna().to_numpy()
    missing = lambda o: isinstance(o, str) and o.strip().lower() in MISSING
    return (values.isna() | values.map(missing).astype(bool)).to_numpy()

def fold_word(
    value:object, # of a column of words, as text or as a number
    name:str="",  # the column's, whose synonyms are meant
) -> str:         # None where it is missing
    "A category in the one writing in which a model learns it: `Female ` is F in a column named sex; 2.0 and 02 are 2."
    word = "" if _absent(value) else _text(value)
    return None if word.lower() in MISSING else _SYNONYMS.get(_kind(name), {}).get(word.lower(), word)

def fold_words(
    values:pd.Series, # of a column of words
    name:str=None,    # the column's; None: as the series is named
) -> pd.Series:       # their `fold_word`, NaN where missing
    "`fold_word` of every value; each distinct one is folded once."
    name = values.name if name is None else name
    return _each(values, lambda o: fold_word(o, name))

def known_word(
    word:str,   # of `fold_word`
    known:list, # the words that a model learnt
    name:str="", # the column's
) -> str:       # that one of `known` which is meant; None where none is, or more than one
    "A word as a model knows it: the same, or else the only one that folds to the same in small letters."
    if word in known: return word
    same = [o for o in known if (fold_word(o, name) or "").lower() == word.lower()]
    return same[0] if len(same) == 1 else None

def fold_number(
    value:object, # of a column of numbers, as text or as a number
    name:str="",  # the column's: an age may have its unit
) -> tuple:       # the number, nan where it is missing or none; and why it is none, '' where it is one
    """A number, finite in float32; an age in years, from 0 to `OLDEST`. A comma is of decimals; where it may be of
    thousands, as in 1,234, it is no number."""
    word = "" if _absent(value) else str(value).strip()
    if _EITHER.fullmatch(word): return np.nan, UNCLEAR
    if comma := _COMMA.fullmatch(word): word = f"{comma[1]}.{comma[2]}{comma[3]}"
    if word.lower() in MISSING: return np.nan, ""
    if age := _kind(name) == "age" and _AGE.fullmatch(word.upper()): x = float(age[1]) * _YEARS[age[2]]
    elif _NUMBER.fullmatch(word): x = float(word)
    else: return np.nan, "is no number"
    if not abs(x) <= _LARGEST: return np.nan, "is infinite, or more than float32 holds"
    if _kind(name) == "age" and x < 0: return np.nan, "is no age"
    if _kind(name) == "age" and x > OLDEST: return np.nan, f"is over {OLDEST} years"
    return x, ""

def fold_numbers(
    values:pd.Series, # of a column of numbers
    name:str=None,    # the column's; None: as the series is named
) -> tuple:           # float64, nan where missing or none; and a series of why each is none, '' elsewhere
    "`fold_number` of every value; each distinct one is folded once."
    name = values.name if name is None else name
    if pd.api.types.is_numeric_dtype(values):
        x = pd.Series(values.to_numpy(float, na_value=np.nan), values.index, name=values.name)
        low, high = (0, OLDEST) if _kind(name) == "age" else (-_LARGEST, _LARGEST)
        if (x.isna() | x.between(low, high)).all(): return x, pd.Series("", values.index)
    why = _each(values, lambda o: fold_number(o, name)[1]).fillna("")
    return _each(values, lambda o: fold_number(o, name)[0], float), why
