"""Rows of radiographs, one an image: their two classes, their metadata as a model takes it, and a csv that gives them
back as they were."""
import json
from pathlib import Path

import numpy as np
import pandas as pd

from ..arms import POLICIES
from ..core.csvs import read_text, write_csv
from ..core.files import few, say
from ..settings import CAT_NAMES, CONT_NAMES, listed
from .words import fold_ids, fold_numbers, fold_words, OLDEST

__all__ = ["RESERVED", "check_names", "classes", "columns_of", "fold_metadata", "is_image_only",
           "is_synthetic", "numbers_of", "positive", "read_rows", "save_rows", "sign_split", "split_method",
           "with_columns"]


RESERVED = { # columns of our own tables, which metadata can't be named as
    *"image patient_id label file split classes words split_by columns".split(),                        # rows
    *"synthetic metadata_policy source_image source_file source_patient_id donor_image generator direction".split(),
    *"zoom angle shift_x shift_y seed size".split(),                                                    # synthetic rows
    *"missing probability decision flag error threshold model stamp pixels".split(),                    # predictions
    *"side backbone arm row with_input".split()}                                                        # a study's
_REFUSED = {"image", "patient_id", "label", "file", "split", "synthetic",
            "metadata_policy"} # by the leak check, with its reason
_TEXT = ["image", "sex", "view", "findings", "label", "file", "split"] # words of a csv that doesn't say which are

# Metadata

def check_names(
    cat_names:list,  # metadata columns of words
    cont_names:list, # metadata columns of numbers
):
    "ValueError for a name that is given twice, or that a column of our own tables has."
    names = [*cat_names, *cont_names]
    if twice := sorted({str(o) for o in names if names.count(o) > 1}):
        raise ValueError(f"Metadata {few(map(repr, twice))} is named twice among cat_names and cont_names; name it "
                         "once.")
    if own := sorted(RESERVED.intersection(names)):
        raise ValueError(f"{few(map(repr, own))} can't name metadata: the rows' own columns and those of predictions "
                         f"have such names; rename it, as in rows.rename(columns={{'{own[0]}': 'my_{own[0]}'}}).")

def with_columns(
    rows:pd.DataFrame, # any rows
    cat_names=(),      # their metadata columns of words
    cont_names=(),     # their metadata columns of numbers
) -> pd.DataFrame:     # `rows`, which remember them
    "Remember which columns are metadata: every later stage takes them from here where it isn't told others."
    rows.attrs["columns"] = dict(cat_names=list(listed(cat_names)), cont_names=list(listed(cont_names)))
    return rows

def columns_of(
    rows:pd.DataFrame, # any rows
    cat_names=None,    # other ones, which are meant
    cont_names=None,   # other ones, which are meant
) -> dict:             # `cat_names cont_names`, a list each
    "The metadata columns of a table, as it remembers them; `CAT_NAMES` and `CONT_NAMES` where it remembers none."
    own = rows.attrs.get("columns", dict(cat_names=CAT_NAMES, cont_names=CONT_NAMES))
    given = dict(cat_names=cat_names, cont_names=cont_names)
    return {k: list(own[k] if o is None else listed(o)) for k, o in given.items()}

def _refuse(rows, bad, name, why):
    at = np.flatnonzero(bad)
    names = rows["image"] if "image" in rows else pd.Series(rows.index, rows.index)
    found = few(f"{v!r} ({i})" for v, i in zip(rows[name].iloc[at], names.iloc[at]))
    raise ValueError(f"{len(at):,} of {len(rows):,} values of metadata column '{name}', one of numbers, {why}: "
                     f"{found}.")

def numbers_of(
    rows:pd.DataFrame, # any rows
    name:str,          # a metadata column of numbers
) -> tuple:            # float64, nan where missing; and which are ages over 100, taken as missing
    "A column of numbers. ValueError for what is no number, or none that float32 holds, with its rows."
    numbers, why = fold_numbers(rows[name], name)
    if not (reasons := {*why} - {""}): return numbers, np.zeros(len(rows), bool)
    old = why.str.endswith("years").to_numpy(bool)
    for o in sorted(reasons - {*why[old]}): _refuse(rows, (why == o).to_numpy(bool), name, o.replace("is ", "are ", 1))
    return numbers, old

def fold_metadata(
    rows:pd.DataFrame, # any rows
    cat_names=(),      # their metadata columns of words
    cont_names=(),     # their metadata columns of numbers
) -> pd.DataFrame:     # the same, where nothing was to fold
    """Metadata as a model takes it: words in one writing, text that stands for numbers as numbers. ValueError for a
    name of `RESERVED`, for two columns of one name, and for what is no number or none that float32 holds, with its
    rows."""
    asked = [[o for o in names if o not in _REFUSED] for names in (cat_names, cont_names)]
    check_names(*asked)
    if twice := list(rows.columns[rows.columns.duplicated()]):
        raise ValueError(f"The table has more than one column {few(map(repr, twice))}: rename or drop one.")
    new = {o: fold_words(rows[o], o) for o in cat_names if o in rows and not pd.api.types.is_numeric_dtype(rows[o])}
    new = {o: v for o, v in new.items() if not v.astype(object).equals(rows[o].astype(object))}
    for o in cont_names:
        if o not in rows: continue
        numbers, old = numbers_of(rows, o)
        if old.any(): say(f"{old.sum():,} of {len(rows):,} values of '{o}' are over {OLDEST} years and become missing.")
        if old.any() or not pd.api.types.is_numeric_dtype(rows[o]): new[o] = numbers
    return rows.assign(**new) if new else rows

# A csv of rows

def _ids(text):
    "Folded, and whole numbers if every id is one, so that an id has one writing and a saved table reads back the same."
    codes, there = text.factorize() # code -1: missing, the last of the arrays below
    there = pd.Series(there)
    digits = bool((there.str.isdigit() & there.str.isascii() & there.str.len().lt(19)).all())
    ids = there if digits else fold_ids(there)
    whole = (codes >= 0).all() and (digits or ids.str.fullmatch("-?[0-9]{1,18}").all())
    ids = ids.astype(np.int64).array if whole else pd.array([*ids, np.nan], dtype=text.dtype)
    return pd.Series(ids[codes], text.index, name=text.name)

def _has_words(values):
    return not pd.api.types.is_numeric_dtype(values) and values.map(lambda o: isinstance(o, str)).any()

def _sides(rows):
    "A digest of who is on which side, in whatever order."
    table = rows[[o for o in ("image", "patient_id", "split") if o in rows]].astype(str)
    return f"{int(pd.util.hash_pandas_object(table, index=False).sum()) % 2**64:016x}"

def sign_split(
    rows:pd.DataFrame, # with `image patient_id split`
    **how,             # what was done: method, shares, seed
) -> pd.DataFrame:     # `rows`, signed
    "Sign how `split` was made. The signature holds for these rows on these sides alone; `save_rows` keeps it."
    rows.attrs["split"] = how | dict(sides=_sides(rows))
    return rows

def split_method(
    rows:pd.DataFrame, # after a split
) -> dict:             # as `sign_split` was told; {} where nobody signed, or rows or sides are others since
    "How `split` was made, as far as that is known."
    sign = rows.attrs.get("split")
    if not sign or "split" not in rows or sign.get("sides") != _sides(rows): return {}
    return {k: v for k, v in sign.items() if k != "sides"}

def save_rows(
    rows:pd.DataFrame, # any rows
    csv:str|Path,      # written whole or not at all; packed if it ends in .gz, .bz2, .xz or .zip
):
    """Write `rows` as a plain csv. Its column `classes` is a json list, [negative, positive]; its column `words` one of
    the columns that are words, whatever they look like; `split_by`, in its first row, says how `split` was made where
    that was signed, and `columns`, likewise, which are metadata, where these aren't `CAT_NAMES` and `CONT_NAMES`.
    ValueError where `rows` have such columns."""
    names = [o.item() if hasattr(o, "item") else o for o in classes(rows)]
    if own := [o for o in ("classes", "words", "split_by", "columns") if o in rows]:
        raise ValueError(f"The rows have a column {few(map(repr, own))}, as the csv of save_rows has one: rename it.")
    words = [str(o) for o in rows if o != "label" and _has_words(rows[o])]
    table = rows.assign(classes=json.dumps(names, ensure_ascii=False), words=json.dumps(words, ensure_ascii=False))
    first = lambda told: [json.dumps(told, ensure_ascii=False), *[None]*(len(rows) - 1)]
    if split_method(rows): table["split_by"] = first(rows.attrs["split"])
    if columns_of(rows) != columns_of(pd.DataFrame()): table["columns"] = first(columns_of(rows))
    write_csv(table, csv)

def _listed(csv, text, name):
    "What a column of one json list says."
    found = text.pop(name).unique()
    if len(found) == 1 and isinstance(found[0], str):
        try: res = json.loads(found[0])
        except ValueError: res = found[0].split("|") if name == "classes" else None # as earlier versions wrote it
        if isinstance(res, list): return res
    raise ValueError(f"{csv} is damaged: its column '{name}' isn't one json list in all rows; save_rows writes it "
                     "anew.")

def _inferred(values):
    "Text of a column that isn't one of words, as what it was: bool, whole numbers, numbers."
    there = values.dropna()
    if len(there) and there.isin(["True", "False"]).all():
        res = values.map({"True": True, "False": False})
        return res.astype(bool) if len(there) == len(values) else res.astype(object)
    try:
        if len(there) == len(values) and values.str.fullmatch(r"[+-]?[0-9]{1,18}").all(): return values.astype(np.int64)
        return values.astype(object).astype(float)
    except (TypeError, ValueError): return values

def read_rows(
    csv:str|Path, # written by `save_rows`
    cat_names=(), # metadata columns of words, where an earlier version wrote the csv, which doesn't say so
) -> pd.DataFrame:
    "Rows saved by `save_rows`, label, words and ids as they were; ValueError for any other csv."
    text = read_text(csv, strip=False).reset_index(drop=True)
    if lost := [o for o in ("classes", "image", "label", "patient_id") if o not in text]:
        raise ValueError(f"{csv} was not written by save_rows (no column {few(map(repr, lost))}): use read_nih or "
                         "read_table.")
    if text.empty: raise ValueError(f"{csv} holds no rows below its header.")
    names, old = _listed(csv, text, "classes"), "words" not in text
    words = {*_TEXT, "patient_id", *cat_names} if old else {*_listed(csv, text, "words")}
    if not old and (gone := sorted(words - {*text})):
        raise ValueError(f"{csv} is damaged: its column {few(map(repr, gone))} has gone, or has another name now.")
    if len(names) != 2 or (odd := sorted({*text["label"].dropna()} - {*map(str, names)})):
        wrong = few(odd if len(names) == 2 else names)
        raise ValueError(f"{csv} is damaged: its labels {wrong} are not of its two classes.")
    label = pd.Categorical(text["label"].map({str(o): o for o in names}), names, ordered=True)
    told = {k: _first(text.pop(o), csv, o) for k, o in dict(split="split_by", columns="columns").items() if o in text}
    rows = pd.DataFrame({o: text[o] if o in words else _inferred(text[o]) for o in text})
    rows = rows.assign(label=label, patient_id=_ids(text["patient_id"]) if old else rows["patient_id"])
    rows.attrs |= {k: o for k, o in told.items() if o}
    return rows

def _first(values, csv, name):
    "What the first row says of all; None where it was left out."
    there = values.dropna()
    if there.empty: return None
    try: return dict(json.loads(there.iloc[0]))
    except (ValueError, TypeError):
        raise ValueError(f"{csv} is damaged: its column '{name}' isn't as save_rows wrote it; delete the column."
                         ) from None

# Classes

def classes(
    rows:pd.DataFrame, # with `label`
) -> tuple:            # (negative, positive)
    "The two words of the label; ValueError where the column is no Categorical of two."
    label = rows["label"].dtype if "label" in rows else None
    if isinstance(label, pd.CategoricalDtype) and len(label.categories) == 2: return tuple(label.categories)
    raise ValueError("The rows need a column 'label', a Categorical of [negative, positive], as read_nih makes it.")

def positive(
    rows:pd.DataFrame, # with `label`
) -> np.ndarray:       # bool, one a row
    "Which rows are of the positive class."
    pos = classes(rows)[1]
    return (rows["label"] == pos).to_numpy()

def is_synthetic(
    rows:pd.DataFrame, # any rows, or predictions of them
) -> pd.Series:        # bool
    "Which rows are synthetic; none, where no column says so."
    return rows["synthetic"].eq(True) if "synthetic" in rows else pd.Series(False, rows.index)

def is_image_only(
    rows:pd.DataFrame, # any rows
) -> pd.Series:        # bool
    "Which rows train the image branch alone, by their metadata policy; real rows have none."
    if "metadata_policy" not in rows: return pd.Series(False, rows.index)
    return rows["metadata_policy"].isin([name for name, policy in POLICIES.items() if policy.image_only])
