"""Synthetic rows beside real ones: their manifest, and the checks before they join train."""
from pathlib import Path

import numpy as np
import pandas as pd

from ..arms import POLICIES
from ..core.files import few, read_json, say
from .generated import check_copies, is_external
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

NEEDED = ["image", "file", "label", "patient_id", "split", "generator", "source_image", "donor_image",
          "metadata_policy"] # columns of synthetic rows

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
    if (outside := is_external(synth)).any(): check_copies(rows, synth[outside])
    for folder in folders.unique():
        if not (folder/GENERATOR).exists():
            raise ValueError(f"{folder} holds no {GENERATOR}, so that nobody knows which patients its generator saw.")
        about, own = _about(folder), synth[folders.reindex(synth.index).eq(folder)]
        if (other := own["generator"] != about["digest"]).any():
            raise ValueError(f"{folder/GENERATOR} is of another generator than the rows {few(own['image'][other])}; "
                             "read them again with read_manifest.")
        _check_unseen(rows, about["seen"], folder)

def _abouts(rows, synth, folders):
    "Of each folder of ours, and each other generator: which rows are its, bool `[n]`, and `cat_names cont_names seed`."
    for folder in folders.unique(): yield folders.reindex(synth.index).eq(folder), _about(folder)
    for name in synth.loc[is_external(synth), "generator"].unique():
        own = synth["generator"].eq(name)
        yield own, columns_of(rows) | dict(seed=int(synth.loc[own, "seed"].iloc[0]))

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
    synth:pd.DataFrame, # from `synthesise` or `read_manifest`, of folders; of other generators `external_films`
) -> pd.DataFrame:      # `rows`, then `synth`, which the column `synthetic` tells apart
    """Add synthetic rows to train. LeakError where one is not in train, was made from a patient of valid or test, or by
    a generator that saw one, or where `rows` are all for evaluation; ValueError where that can't be checked. Of another
    generator's films it is checked that none is a copy of a real film of valid or test."""
    if lost := [o for o in NEEDED if o not in synth]:
        raise ValueError(f"The synthetic rows have no column {few(map(repr, lost), 9)}: external_films(rows, "
                         "FOLDER_OR_CSV, NAME) makes such rows of the films of any generator, synthesise of our own.")
    if classes(rows) != classes(synth):
        raise ValueError(f"The rows' classes are {classes(rows)}, the synthetic ones' {classes(synth)}.")
    if "file" not in rows: raise ValueError("The rows have no column 'file', and the synthetic ones are elsewhere.")
    folders = synth.loc[~is_external(synth), "file"].map(lambda o: Path(o).parent)
    _check_added(rows, synth, folders)
    words = {o for _, about in _abouts(rows, synth, folders) for o in about["cat_names"]}
    own = {o: _as_in(rows[o], synth[o]) for o in ["patient_id", *words] if o in rows}
    both = pd.concat([rows.assign(synthetic=is_synthetic(rows)), synth.assign(**own)], ignore_index=True)
    if "columns" in rows.attrs: both = with_columns(both, **columns_of(rows)) # concat keeps what all have alone
    missing = synth["metadata_policy"].isin([name for name, policy in POLICIES.items() if policy.masks])
    for label, about in {label: about for at, about in _abouts(rows, synth, folders)
                         for label in synth["label"][at & missing].unique()}.items():
        both = _mask_others(both, label, about["cat_names"] + about["cont_names"], about["seed"])
    return both
