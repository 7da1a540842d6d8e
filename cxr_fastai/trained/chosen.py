"""What a bundle's makers choose on rows that are neither of train nor of test: its temperature and its threshold."""
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

__all__ = ["settle"]

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

def settle(
    learn:RadiographLearner, # a classifier
    threshold:float|str,     # a number, 'specificity=.9' or 'youden'; None: the learner's own
    calibrate:str=None,      # 'temperature'; None: the learner's own
    valid:pd.DataFrame=None, # labelled rows to choose on; None: the learner's valid rows
) -> dict:                   # `temperature threshold chosen`, as far as they were settled; of a card
    """Choose a temperature, and then a threshold of the probabilities that it gives. LeakError for rows of train or
    test; ValueError for a word that isn't known, and where the rows give no such thing."""
    if calibrate is not None: known_word("calibrate", calibrate, CALIBRATIONS)
    rule = threshold if isinstance(threshold, str) else None
    wanted = None if threshold is None else specificity_of(threshold)
    if rule is None and calibrate is None:
        if valid is not None: raise ValueError("valid= is for choosing on, and nothing is asked to be chosen.")
        return {} if threshold is None else dict(threshold=float(threshold))
    rows, before = _valid_rows(learn, valid), learn.temperature
    label, prob = _said(learn, rows)
    if label.all() or not label.any():
        raise ValueError(f"The {len(label):,} valid rows are of one class: nothing can be chosen on them.")
    res, about = {}, dict(rows=len(label), positives=int(label.sum()))
    if calibrate:
        plain = tempered(prob, 1/before) # as without the one it has
        res["temperature"] = learn.temperature = fit_temperature(label, plain)
        try: prob = _said(learn, rows)[1]
        finally: learn.temperature = before
        about["calibrate"] = calibrate
    res["threshold"] = ifnone(threshold, learn.threshold) if rule is None else threshold_by(rule, label, prob)
    if rule: about["threshold"] = rule
    if wanted is not None: about["wanted"] = wanted
    who = rows["patient_id"].to_numpy() if "patient_id" in rows else np.arange(len(rows))
    about |= dict(patients=len(np.unique(who))) | promised(label, prob, res["threshold"], who)
    return res | dict(chosen=about)
