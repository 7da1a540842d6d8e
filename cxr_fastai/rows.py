"""Rows of radiographs, one an image: their two classes, their patients' ids, and a csv that gives them back as they were."""
import zlib
from pathlib import Path
import numpy as np, pandas as pd

from .files import atomic
from .words import fold_id, fold_ids

__all__ = ["classes", "fold_id", "fold_ids", "positive", "read_rows", "save_rows"]

_TEXT = ["image", "sex", "view", "findings", "label", "file", "split"] # words, even if they look like numbers

def _read(csv, **kwargs):
    "Text of a csv; only an empty field is missing, so that a word like 'None' stays a word."
    try: return pd.read_csv(csv, encoding="utf-8-sig", keep_default_na=False, na_values=[""], **kwargs)
    except FileNotFoundError: raise
    except (EOFError, OSError, zlib.error, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as e:
        raise ValueError(f"{csv} can't be read as a table: {str(e).strip()}.") from e

def _ids(text):
    "Whole numbers if every id is written as one (12, not 012), so that a saved table reads back the same."
    return text.astype(np.int64) if text.str.fullmatch(r"0|[1-9]\d{0,17}").all() else text

def save_rows(
    rows:pd.DataFrame, # any rows
    csv:str|Path,      # written whole or not at all; gzipped if it ends in .gz
):
    "Write `rows` as a plain csv; its column `classes` (`Normal|Pneumonia`) keeps which label is the positive one."
    with atomic(csv) as tmp: rows.assign(classes="|".join(classes(rows))).to_csv(tmp, index=False)

def read_rows(
    csv:str|Path, # written by `save_rows`
    cat_names=(), # metadata columns whose words look like numbers, such as 1, 2, 3
) -> pd.DataFrame:
    "Rows saved by `save_rows`, label and ids as they were; ValueError for any other csv."
    words = ["patient_id", "classes", *_TEXT, *cat_names]
    rows = _read(csv, dtype=dict.fromkeys(words, str))
    if "classes" not in rows or rows["classes"].nunique() != 1:
        raise ValueError(f"{csv} was not written by save_rows (no column 'classes'): use read_nih or read_table.")
    label = pd.Categorical(rows["label"], rows.pop("classes")[0].split("|"), ordered=True)
    return rows.assign(label=label, patient_id=_ids(rows["patient_id"]))

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
