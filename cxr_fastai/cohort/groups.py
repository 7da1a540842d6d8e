"""Columns that make subgroups: the rows' own, and those of their csv that weren't read, which no model sees and no cell
is named by."""
import pandas as pd

from ..core.csvs import read_text
from ..core.files import few
from ..settings import listed
from .rows import RESERVED
from .sampling import folds_of
from .words import fold_words

__all__ = ["with_groups"]

NO_GROUPS = "image", "file", "patient_id", "label", "split" # each film or patient by itself, the classes, the sides

def _beside(rows):
    "The csv that rows were read from, by image: what else it holds; nothing where that isn't known."
    if not (table := rows.attrs.get("table")): return pd.DataFrame()
    text = read_text(table["csv"]).set_index(table["image"])
    return text[[o for o in text if o not in (*RESERVED, *table["read"], *rows)]]

def _values(text, name):
    "Words folded, or numbers where all are."
    words = fold_words(text, name)
    numbers = pd.to_numeric(words, errors="coerce")
    return numbers if numbers.isna().equals(words.isna()) and numbers.notna().any() else words

def with_groups(
    rows:pd.DataFrame, # a cohort
    groups:str,        # columns, with commas, or a list of them
    flag:str="--groups", # that named them, for the error
) -> pd.DataFrame:     # `rows` with these columns
    """Rows that have the columns by which subgroups are made. ValueError for one that neither they nor their csv have,
    and for those that tell films, patients, classes or sides; FileNotFoundError where the csv has gone."""
    names = list(dict.fromkeys(listed(groups or ())))
    own = [o for o in rows if o not in (*NO_GROUPS, *folds_of(rows))]
    if not (more := [o for o in names if o not in own]): return rows
    beside = _beside(rows)
    if lost := [o for o in more if o not in beside]:
        raise ValueError(f"{flag}: {few(map(repr, lost))} is no column that makes groups; there are "
                         f"{few([*own, *beside], 30) or 'none'}.")
    return rows.assign(**{o: _values(beside[o].reindex(rows["image"]), o).to_numpy() for o in more})
