"""A table of predictions as a whole: what is said at its end and stands beside it, and labels in the model's words."""
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from ..cohort.rows import classes
from ..core.csvs import read_csv, write_csv
from ..core.files import few, say
from ..stats.summary import summary_table, summary_words
from .patients import flag_kind

__all__ = ["labelled_as", "summarised", "training_share"]

def labelled_as(
    rows:pd.DataFrame, # with `label`, of two ordered classes
    vocab:list,        # the model's classes, the negative first
) -> pd.DataFrame:     # `rows` with the model's words
    "Another table's classes by their order, aloud. ValueError where they are the model's, the other way round."
    if [*(own := classes(rows))] == [*vocab]: return rows
    if {*own} == {*vocab}:
        raise ValueError(f"{own[1]} is the positive class of these rows, and {vocab[1]} the model's: say which, as in "
                         f"--positive {vocab[1]} --negative {vocab[0]}.")
    say(f"The label {own[1]} is taken for {vocab[1]}, and {own[0]} for {vocab[0]}, the model's classes.")
    return rows.assign(label=rows["label"].cat.rename_categories(dict(zip(own, vocab))))

def training_share(
    training:dict, # of a card
) -> float:        # nan where it isn't known
    "The share of positives among the real training rows."
    made = training.get("synthetic", 0)
    real = training.get("rows", 0) - made
    return max(training.get("positives", 0) - made, 0)/real if real > 0 else np.nan

def _expected(predictor):
    "The share that is called positive among films like the training ones, by what its threshold promised; or nan."
    chosen, share = predictor.card.get("chosen"), training_share(predictor.card["training"])
    if not chosen or predictor.threshold != predictor.card["threshold"]: return np.nan
    return share*chosen["recall"] + (1 - share)*(1 - chosen["specificity"])

def _labels(table, learn):
    "0/1, nan where there is none; None and a sentence where these rows can't be scored."
    if "label" not in table or table["label"].isna().all(): return None, ""
    words = table["label"].map(str, na_action="ignore")
    label = words.map({o: i for i, o in enumerate(learn.dls.vocab)} | {"0": 0, "0.0": 0, "1": 1, "1.0": 1})
    if len(odd := words[label.isna() & words.notna()].unique()):
        return None, f"No scores: the label {few(odd)} is none of the model's classes, {few(learn.dls.vocab)}."
    if "patient_id" in table and (hit := learn.seen.hits(table[["patient_id"]])).any():
        return None, f"No scores: {hit.sum():,} rows are of patients that the model was trained on; leave them out."
    return label.to_numpy(float), ""

WORDS = ["image", "patient_id", "label", "decision", "flag", "error"]

def summarised(
    predictor:object, # a `Predictor`
    out:Path,         # its table, whole
) -> Path:            # `out`
    "Say what the table says as a whole, and write it beside, as OUT.summary.csv."
    table, learn = read_csv(out, WORDS), predictor.learn
    label, why = _labels(table, learn)
    kinds = Counter(flag_kind(o, predictor.names) for line in table["flag"].dropna() for o in line.split("; "))
    who = table["patient_id"].fillna(table["image"]) if "patient_id" in table else None
    found = summary_table(table["probability"], predictor.threshold, training_share(predictor.card["training"]),
                          dict(kinds.most_common()), _expected(predictor), label, who)
    write_csv(found, out.with_name(f"{out.stem}.summary.csv"), float_format="%.9g")
    for o in [*summary_words(found, learn.dls.vocab[1]), *filter(None, [why])]: say(o)
    return out
