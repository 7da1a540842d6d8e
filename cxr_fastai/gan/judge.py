"""All that is said of a set of synthetic films in one table: is it like real ones, learnt by heart, told apart, and
what did the translation change? Each figure has its line of what it means."""
from pathlib import Path

import numpy as np
import pandas as pd

from ..core.csvs import write_csv
from ..core.files import atomic
from ..stats.changed import change_table, film_changes, shown_films
from .features import features_by
from .quality import by_heart, FEWEST, MEANINGS, memorisation, quality, told_apart

__all__ = ["figure_meanings", "judge_films", "judged_rows"]

def figure_meanings(
    table:pd.DataFrame, # of `judge_films`
) -> list:              # a line a figure
    "What each figure means."
    return [f"{figure}: {meaning}." for figure, meaning in table[["figure", "meaning"]].dropna().to_numpy()]

def judged_rows(
    rows:pd.DataFrame,  # the study's, after the split
    synth:pd.DataFrame, # synthetic ones of one label
) -> pd.DataFrame:      # None where either are of too few patients to judge by
    "The real rows that synthetic ones are held against: valid's, for test rows judge a study's end alone."
    real = rows[(rows["split"] == "valid") & rows["label"].isin(synth["label"].unique())]
    if min(o["patient_id"].nunique() for o in (synth, real)) >= FEWEST: return real

def judge_films(
    rows:pd.DataFrame,  # the study's, after the split
    synth:pd.DataFrame, # synthetic ones of one label, with `source_image` where that is known
    folder:str|Path,    # for `quality.csv`, `memorised.csv`, `changed.npz`
    size:int,           # side of the square images, pixels
    weights:str="auto", # of the network that judges: 'none', or imagenet's where they can be had
) -> pd.DataFrame:      # a line a figure, as in quality.csv; None where there are too few to judge by
    "Write how good synthetic films are, which training films they are nearest to, and what was changed in them."
    if (real := judged_rows(rows, synth)) is None: return
    folder, found = Path(folder), film_changes(rows, synth, size)
    kwargs = dict(features=features_by(weights="none" if weights == "none" else "auto", size=size), size=size)
    near = memorisation(rows[rows["split"] == "train"], synth, **kwargs)
    write_csv(near, folder/"memorised.csv")
    table = pd.concat([quality(real, synth, **kwargs), told_apart(real, synth, **kwargs), by_heart(near)])
    table["meaning"] = table["figure"].map(MEANINGS)
    table = pd.concat([table, change_table(rows, synth, found, size)], ignore_index=True)
    names, films, correlation = shown_films(rows, synth, found, size)
    with atomic(folder/"changed.npz") as tmp:
        np.savez(tmp, names=names.astype(str), films=films, correlation=correlation, mean=found.mean.astype(np.float32),
                 every=found.correlation)
    table = table.assign(judged_on="valid")
    write_csv(table, folder/"quality.csv")
    return table
