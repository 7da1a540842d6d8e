"""What a bundle's makers choose, its temperature and its threshold: on rows that are neither of train nor of test, or
out of fold."""
import numpy as np
import pandas as pd
from fastcore.basics import ifnone

from ..cohort.leaks import LeakError
from ..cohort.rows import is_synthetic
from ..cohort.words import fold_ids
from ..core.files import few
from ..core.words import known_word
from ..data.given import as_rows
from ..models.learner import RadiographLearner
from ..stats.operating import fit_temperature, promised, specificity_of, tempered, threshold_by
from .card import OUT_OF_FOLD

__all__ = ["settle", "settle_out_of_fold"]

CALIBRATIONS = "temperature",

def _refuse_held(rows, learn):
    "LeakError for rows of train or test: what is chosen on them flatters."
    side = rows["split"].astype(str) if "split" in rows else pd.Series("valid", rows.index)
    odd, test = (side != "valid").to_numpy(), learn.dls.test_rows
    if len(test) and learn.dls.train_ds.protocol == "clean":
        for name, fold in dict(patient_id=fold_ids, image=lambda o: o.astype(str)).items():
            if name in rows: odd = odd | fold(rows[name]).isin(set(fold(test[name]))).to_numpy()
    if not odd.any(): return
    name = rows["image"] if "image" in rows else rows["file"]
    raise LeakError(f"A threshold and a temperature are chosen on valid rows, and {odd.sum():,} of these are of train "
                    f"or test, or of a patient there: {few(name[odd].astype(str))}.")

def _valid_rows(learn, valid):
    if valid is None and not len(learn.dls.valid_ds):
        raise ValueError("This learner was loaded and has no valid rows to choose on: give them, as in valid=rows, or "
                         "a threshold as a number.")
    rows = learn.dls.valid_ds.items if valid is None else as_rows(valid)
    _refuse_held(rows, learn)
    return rows[~is_synthetic(rows)]

def _said(learn, rows):
    "Labels, and probabilities as the learner says them."
    with learn.no_bar(): prob, label = learn.get_preds(dl=learn.dls.test_dl(rows, with_labels=True))
    return label.numpy() == 1, prob[:, 1].numpy()

def _choose(learn, label, prob, who, said, threshold, calibrate):
    """`temperature threshold chosen`, as far as they are asked for, where the learner says `prob`, and at another
    temperature `said(temperature)`."""
    if label.all() or not label.any():
        raise ValueError(f"The {len(label):,} rows are of one class: nothing can be chosen on them.")
    res, rule = {}, threshold if isinstance(threshold, str) else None
    about = dict(rows=len(label), positives=int(label.sum()))
    if calibrate:
        res["temperature"] = fit_temperature(label, tempered(prob, 1/learn.temperature)) # as without the one it has
        prob, about["calibrate"] = said(res["temperature"]), calibrate
    res["threshold"] = ifnone(threshold, learn.threshold) if rule is None else threshold_by(rule, label, prob)
    if rule: about["threshold"] = rule
    if (wanted := rule and specificity_of(rule)) is not None: about["wanted"] = wanted
    about |= dict(patients=len(np.unique(who))) | promised(label, prob, res["threshold"], who)
    return res | dict(chosen=about)

def _asked(threshold, calibrate):
    "Whether something is to be chosen. ValueError for a word that isn't known, and for what is no rule."
    if calibrate is not None: known_word("calibrate", calibrate, CALIBRATIONS)
    if threshold is not None: specificity_of(threshold)
    return isinstance(threshold, str) or calibrate is not None

def settle(
    learn:RadiographLearner, # a classifier
    threshold:float|str,     # a number, 'specificity=.9' or 'youden'; None: the learner's own
    calibrate:str=None,      # 'temperature'; None: the learner's own
    valid:pd.DataFrame=None, # labelled rows to choose on; None: the learner's valid rows
) -> dict:                   # `temperature threshold chosen`, as far as they were settled; of a card
    """Choose a temperature, and then a threshold of the probabilities that it gives. LeakError for rows of train or
    test; ValueError for a word that isn't known, and where the rows give no such thing."""
    if not _asked(threshold, calibrate):
        if valid is not None: raise ValueError("valid= is for choosing on, and nothing is asked to be chosen.")
        return {} if threshold is None else dict(threshold=float(threshold))
    rows, before = _valid_rows(learn, valid), learn.temperature
    label, prob = _said(learn, rows)
    def said(temperature):
        learn.temperature = temperature
        try: return _said(learn, rows)[1]
        finally: learn.temperature = before
    who = rows["patient_id"].to_numpy() if "patient_id" in rows else np.arange(len(rows))
    return _choose(learn, label, prob, who, said, threshold, calibrate)

COLUMNS = "image", "patient_id", "label", "probability", "side", "fold"

def settle_out_of_fold(
    learn:RadiographLearner,  # of `ensemble_of` the folds' models; in place
    said:pd.DataFrame,        # what each said of its test films: `image patient_id label probability side fold`
    threshold:float|str=None, # a number, 'specificity=.9' or 'youden'; None: the learner's own
    calibrate:str=None,       # 'temperature'; None: the learner's own
):
    """Choose both on films out of fold: of each the mean of the members that weren't trained on it, whatever their
    number; `save_bundle` stores them. LeakError for rows that are no fold's, as of a hold-out test, or not of its test
    side; ValueError for a word that isn't known, and where the films give no such thing."""
    if not _asked(threshold, calibrate):
        learn.threshold = ifnone(threshold, learn.threshold)
        return learn
    _refuse_hold_out(said)
    if "synthetic" in said: said = said[~said["synthetic"].astype(bool)]
    films = said.groupby("image").agg(who=("patient_id", "first"), label=("label", "first"), p=("probability", "mean"))
    label, plain = films["label"].to_numpy() == 1, films["p"].to_numpy()
    found = _choose(learn, label, tempered(plain, learn.temperature), films["who"].to_numpy(),
                    lambda t: tempered(plain, t), threshold, calibrate)
    found["chosen"]["side"] = OUT_OF_FOLD
    learn.card |= {k: o for k, o in found.items() if k != "temperature"}
    learn.threshold, learn.temperature = found["threshold"], found.get("temperature", learn.temperature)
    return learn

def _refuse_hold_out(said):
    "LeakError for predictions that aren't out of fold."
    lost = [o for o in COLUMNS if o not in said]
    if "fold" in lost or said["fold"].nunique() < 2:
        raise LeakError("These predictions are of no folds: a threshold and a temperature are never chosen on a "
                        "hold-out test.")
    if lost: raise ValueError(f"The predictions have no column {few(lost)}.")
    if (odd := said["side"].astype(str) != "test").any():
        raise LeakError(f"{odd.sum():,} of these predictions are of {few(said['side'][odd].unique())} rows, on which "
                        "their fold's model was trained or chosen: out of fold are its test rows.")
