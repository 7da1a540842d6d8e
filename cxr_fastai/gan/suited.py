"""What of a translator's settings follows from the rows, where nobody says it: how its epoch is picked, what its
discriminators are shown, and whether a number of steps cuts anything."""
import pandas as pd

from ..cohort.rows import classes
from ..settings import Gan
from .quality import FEWEST

__all__ = ["suited", "suited_words", "whole_steps"]

FEW = 100 # minority training films below which discriminators are shown changed ones; measured, as the manual tells
DIFFAUG = "translation", "cutout" # these changes: they leave a film as bright as it is

def _films(rows, split, label): return rows[(rows["split"] == split) & (rows["label"] == label)]

def _fewest(rows):
    "Patients of valid in the class that has fewer, and that class."
    return min((_films(rows, "valid", o)["patient_id"].nunique(), o) for o in reversed(classes(rows)))

def whole_steps(
    gan:Gan,           # settings
    rows:pd.DataFrame, # with `split` and `label`
) -> int:
    "Of a training that nothing cuts: an epoch is as long as the larger class."
    longer = max(len(_films(rows, "train", o)) for o in classes(rows))
    return gan.training["epochs"] * (longer // gan.training["bs"])

def suited(
    gan:Gan,           # settings, of which some may be open
    rows:pd.DataFrame, # with `split` and `label`, that it is trained on
) -> Gan:              # none of which is
    "What a translator of these rows is. ValueError where its epoch is to be picked by fewer patients than can tell."
    few, label = _fewest(rows)
    if gan.select == "kid" and few < FEWEST:
        raise ValueError(f"select='kid' compares films of valid patients, and {few} of them are {label}; {FEWEST} are "
                         "needed: take 'last'.")
    by_rows = DIFFAUG if len(_films(rows, "train", classes(rows)[1])) < FEW else ("none",)
    return gan.replace(select=gan.select or ("kid" if few >= FEWEST else "last"), diffaug=gan.diffaug or by_rows,
                       steps=gan.steps if gan.steps and gan.steps < whole_steps(gan, rows) else None)

def suited_words(
    gan:Gan,           # settings, of which some may be open
    rows:pd.DataFrame, # that it is trained on
) -> list:
    "What was settled by the rows, a sentence each."
    own, (few, label), minority = suited(gan, rows), _fewest(rows), classes(rows)[1]
    said, there = [], len(_films(rows, "train", minority))
    if gan.select is None and own.select == "last":
        said.append(f"{few} {label} patients in valid are too few to pick an epoch by ({FEWEST} are needed): the last "
                    "one is taken.")
    if gan.diffaug is None and own.diffaug != ("none",):
        said.append(f"{there} {minority} films to train on are few: discriminators are shown changed ones "
                    f"({', '.join(own.diffaug)}; --gan-diffaug none: as they are).")
    if own.steps: said.append(f"{own.steps:,} steps of the {whole_steps(gan, rows):,} that the epochs have: each is "
                              "shorter, of films that it draws anew.")
    return said
