"""Synthetic rows beside real ones: their manifest, and the checks before they join train."""
from pathlib import Path

import numpy as np
import pandas as pd

from ..arms import POLICIES
from ..core.files import few, read_json, say
from .leaks import LeakError
from .rows import classes, columns_of, is_image_only, is_synthetic, read_rows, with_columns
from .seen import check_unseen
from .words import fold_id, fold_ids

__all__ = ["add_synthetic", "read_manifest"]

MANIFEST, GENERATOR, MARK = "manifest.csv", "generator.json", "SYNTHETIC.txt"
ANEW = " A folder that holds this file may be made anew.\n"
NOTE = ("Synthetic radiographs by cxr_fastai: films of real patients, changed by a model. Each keeps most of the film "
        "it was made from, so that its patient may be recognised, and manifest.csv names that film and its patient. "
        "They are under the terms of the data they were made from: share them as you may share those." + ANEW)
_WORDS = ["source_image", "source_file", "source_patient_id", "donor_image", "generator", "direction",
          "metadata_policy"] # words, even if they look like numbers

def _check_unseen(rows, seen, whose):
    "LeakError where a row outside train is of a patient that the generator was trained on."
    hit = fold_ids(rows["patient_id"]).isin({fold_id(o) for o in seen}).to_numpy()
    check_unseen(rows, hit, f"The generator of {whose}")

def read_manifest(
    folder:str|Path, # written by `synthesise`; it may have been moved since
) -> pd.DataFrame:
    "The rows that `synthesise` gave. FileNotFoundError for another folder."
    folder = Path(folder)
    rows = read_rows(folder/MANIFEST, _WORDS + _about(folder)["cat_names"])
    files = [str(folder/o) for o in rows["image"]]
    return rows.assign(file=files, source_patient_id=rows["patient_id"], synthetic=True)

def _about(folder): return read_json(folder/GENERATOR)

def _check_added(rows, synth, folders):
    "LeakError or ValueError for whatever would bring valid or test rows into training."
    held, who = rows[rows["split"] != "train"], synth["patient_id"].astype(str)
    if len(held) == len(rows):
        raise LeakError(f"The table has no training rows ({few(rows['image'])}), so that it is one to evaluate on: "
                        "synthetic rows are never scored on.")
    made = who.isin(held["patient_id"].astype(str)) | synth["source_image"].isin(held["image"])
    for bad, why in ((synth["split"] != "train", "aren't in train, where alone they may be"),
                     (made, "were made from patients of valid or test"),
                     (synth["donor_image"].isin(held["image"]), "have the metadata of valid or test rows")):
        if bad.any(): raise LeakError(f"{bad.sum():,} synthetic rows {why}: {few(synth['image'][bad])}.")
    for folder in folders.unique():
        if not (folder/GENERATOR).exists():
            raise ValueError(f"{folder} holds no {GENERATOR}, so that nobody knows which patients its generator saw.")
        about, own = _about(folder), synth[folders == folder]
        if (other := own["generator"] != about["digest"]).any():
            raise ValueError(f"{folder/GENERATOR} is of another generator than the rows {few(own['image'][other])}; "
                             "read them again with read_manifest.")
        _check_unseen(rows, about["seen"], folder)

def _mask_others(rows, label, names, seed):
    "Mask real training rows of the other label, until rows without any metadata are as frequent there as in `label`."
    train = (rows["split"] == "train") & ~is_image_only(rows)
    own, gone = rows["label"] == label, rows[names].isna().all(axis=1)
    same, other = train & own, train & ~own
    free = np.flatnonzero(other & ~gone & ~is_synthetic(rows))
    k = np.clip(round(gone[same].mean()*other.sum()) - gone[other].sum(), 0, len(free))
    hit = np.isin(np.arange(len(rows)), np.random.default_rng(seed).choice(free, k, replace=False))
    say(f"The metadata of {k:,} of {other.sum():,} training rows that aren't {label} is masked, so that it is "
        f"missing as often as in {label} ({gone[same].mean():.0%}).")
    return rows.assign(**{o: rows[o].mask(hit) for o in names})

def _as_in(real, values):
    "`values` as the real rows have them: a csv can't tell 12 from '12'."
    own = {str(o): o for o in real.dropna().unique()}
    return values.map(lambda o: own.get(str(o), o), na_action="ignore")

def add_synthetic(
    rows:pd.DataFrame,  # after `split_patients`
    synth:pd.DataFrame, # from `synthesise` or `read_manifest`, of one folder or more
) -> pd.DataFrame:      # `rows`, then `synth`, which the column `synthetic` tells apart
    """Add synthetic rows to train. LeakError where one is not in train, was made from a patient of valid or test, or by
    a generator that saw one, or where `rows` are all for evaluation; ValueError where that can't be checked."""
    if classes(rows) != classes(synth):
        raise ValueError(f"The rows' classes are {classes(rows)}, the synthetic ones' {classes(synth)}.")
    if "file" not in rows: raise ValueError("The rows have no column 'file', and the synthetic ones are elsewhere.")
    folders = synth["file"].map(lambda o: Path(o).parent)
    _check_added(rows, synth, folders)
    words = {o for folder in folders.unique() for o in _about(folder)["cat_names"]}
    own = {o: _as_in(rows[o], synth[o]) for o in ["patient_id", *words] if o in rows}
    both = pd.concat([rows.assign(synthetic=is_synthetic(rows)), synth.assign(**own)], ignore_index=True)
    if "columns" in rows.attrs: both = with_columns(both, **columns_of(rows)) # concat keeps what all have alone
    missing = synth["metadata_policy"].isin([name for name, policy in POLICIES.items() if policy.masks])
    for label, folder in dict(zip(synth["label"][missing], folders[missing])).items():
        about = _about(folder)
        both = _mask_others(both, label, about["cat_names"] + about["cont_names"], about["seed"])
    return both
