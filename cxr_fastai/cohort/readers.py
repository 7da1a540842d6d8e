"""Tables in: a csv of radiographs to rows, one an image (paper section 3.1: NIH ChestX-ray14 and its metadata).

Rows are a DataFrame of `image patient_id follow_up age sex view findings label`, with `file` once images were looked
for and `split` once split. `label` is an ordered Categorical, [negative, positive]; NaN where an image is neither."""
import os
from pathlib import Path

import numpy as np
import pandas as pd

from ..core.csvs import read_text
from ..core.csvs import refuse_values as _refuse
from ..core.files import few, say
from .labels import check_negatives, two_classes
from .places import find_films
from .rows import _ids, check_names, with_columns
from .words import _kind, _SPELT, fold_numbers, fold_words, OLDEST

__all__ = ["read_nih", "read_table"]

NIH_COLUMNS = {"Image Index": "image", "Finding Labels": "findings", "Follow-up #": "follow_up",
               "Patient ID": "patient_id", "Patient Age": "age", "Patient Gender": "sex", "View Position": "view"}
NIH_FINDINGS = """Atelectasis Cardiomegaly Consolidation Edema Effusion Emphysema Fibrosis Hernia Infiltration Mass
    Nodule Pleural_Thickening Pneumonia Pneumothorax""".split()

def _known(text, csv):
    "The table with words for missing as missing, which is said with their counts."
    absent = {o: text[o].isin(_SPELT) for o in text}
    absent = {o: hit for o, hit in absent.items() if hit.any()}
    if not absent: return text
    said = few((f"{hit.sum():,} of '{o}' ({few(map(repr, text[o][hit].unique()))})" for o, hit in absent.items()), 20)
    say(f"{csv}: words that stand for a missing value are taken as one: {said}.")
    return text.assign(**{o: text[o].mask(hit) for o, hit in absent.items()})

def _whole(text, csv):
    codes, words = text.factorize() # code -1: missing, the last of the array below
    res = np.append(pd.to_numeric(pd.Series(words), errors="coerce"), np.nan)
    whole = np.isfinite(res) & (np.nan_to_num(res, posinf=0, neginf=0) % 1 == 0)
    _refuse(~whole[codes], csv, text, "are no whole numbers")
    return res[codes].astype(np.int64)

def _folded_ids(text, csv):
    "Ids by their one writing. ValueError where two writings are of one id: they may be two patients, or one."
    _refuse(text.isna(), csv, text, "name no patient")
    ids = _ids(text)
    first = ~text.duplicated() # of each writing
    if (twice := ids[first].duplicated(keep=False)).any():
        _refuse(ids.isin(ids[first][twice]), csv, text, "are one id in more than one writing; write each id in one")
    return ids

def _unique_images(text, csv):
    _refuse(text.isna(), csv, text, "name no image")
    _refuse(text.duplicated(keep=False), csv, text, "name an image more than once")
    return text

def _numbers(text, csv, name):
    "Numbers from text, nan where empty; an age over 100 becomes missing, aloud."
    numbers, why = fold_numbers(text, name)
    reasons = {*why.unique()} - {""}
    if not reasons: return numbers
    old = why.str.endswith("years").to_numpy(bool)
    for o in sorted(reasons - {*why[old]}):
        ages = "are no ages like 58, 058Y, 011M or 001D" if _kind(name) == "age" else "are no numbers"
        _refuse(why == o, csv, text, ages if o in ("is no number", "is no age") else o.replace("is ", "are ", 1),
                "; left blank, they are missing")
    if old.any():
        most = text[old].str.extract("([0-9.]+)")[0].astype(float).max()
        say(f"{csv}: {old.sum():,} ages are over {OLDEST} years, up to {most:.0f}, and become missing: "
            f"{few(f'line {o:,}' for o in text.index[old])}.")
    return numbers

def _nih_sex(text):
    "Some copies of the 2020 edition say Sex where all others say Gender."
    return text if "Patient Gender" in text else text.rename(columns={"Patient Sex": "Patient Gender"})

def _nih_label(text, finding, csv, negatives="clean"):
    "Findings like `Edema|Pneumonia` to an ordered Categorical; NaN where one is of neither class."
    codes, words = text.factorize()
    sets = [set(o.split("|")) for o in words]
    if finding not in NIH_FINDINGS:
        there = sorted(set().union(*sets) - {"No Finding"})
        raise ValueError(f"'{finding}' is none of the findings in {csv}: {', '.join(there)}.")
    unknown = np.array([bool(s - {*NIH_FINDINGS, "No Finding"}) for s in sets] + [True])
    _refuse(unknown[codes], csv, text, "hold no finding or one that NIH doesn't have")
    every = check_negatives(negatives)
    label = np.array([1 if finding in s else 0 if every or s == {"No Finding"} else -1 for s in sets] + [-1])
    return pd.Categorical.from_codes(label[codes], [f"No {finding}" if every else "Normal", finding], ordered=True)

def _listing(root, names):
    """{name: path} of the images below `root`, each folder listed once; `names` may carry folders of their own. What is
    in none of NIH's folders is looked for in all."""
    there, twice = {}, set()
    for folder in filter(Path.is_dir, [root, *sorted(root.glob("images*")), *sorted(root.glob("images*/images"))]):
        for o in os.scandir(folder):
            if there.setdefault(o.name, o.path) != o.path: twice.add(o.name)
    for sub in {os.path.dirname(o) for o in names} - {""}:
        if (root/sub).is_dir(): there.update((f"{sub}/{o.name}", o.path) for o in os.scandir(root/sub))
    if twice := sorted(twice.intersection(names)):
        raise ValueError(f"{len(twice):,} images lie in more than one folder of '{root}': {few(twice)}.")
    lost = [o for o in names if o not in there]
    return there | (find_films(root, lost) if lost else {})

def _with_files(rows, images, missing, find=_listing):
    if missing not in ("error", "drop"): raise ValueError(f"missing='{missing}' is neither 'error' nor 'drop'.")
    if images is None: return rows
    if not os.path.isdir(images): raise FileNotFoundError(f"There is no folder '{images}' to find images in.")
    rows = rows.assign(file=rows["image"].map(find(Path(images), rows["image"])))
    lost = rows["file"].isna()
    if not lost.any(): return rows
    text = f"{lost.sum():,} of {len(rows):,} images are not in '{images}': {few(rows['image'][lost])}"
    if lost.all(): raise FileNotFoundError(f"{text}; name the folder that has them by --images (images=).")
    if missing == "error": raise FileNotFoundError(f"{text}; missing='drop' would leave out their rows.")
    say(f"{text}; their rows are left out.")
    return rows[~lost].reset_index(drop=True)

def read_nih(
    csv:str|Path,             # Data_Entry_2017.csv or Data_Entry_2017_v2020.csv, packed or not
    images=None,              # folder of the images, flat or with images_001/images/; None: no column `file`
    finding:str="Pneumonia",  # the positive class
    missing:str="error",      # images that are not in the folder: 'error', or 'drop' their rows and say how many
    negatives:str="clean",    # the negative class: 'clean' No Finding, named Normal; 'all' films without the finding
) -> pd.DataFrame:            # one row an image, in the csv's order; label NaN for an image of neither class
    """NIH ChestX-ray14's metadata, both editions (https://nihcc.app.box.com/v/ChestXray-NIHCC); `age` in years, missing
    where over 100. ValueError or FileNotFoundError for another table, unknown words, repeated or absent images."""
    text = _nih_sex(read_text(csv, [*NIH_COLUMNS, "Patient Sex"]))
    if lost := [o for o in NIH_COLUMNS if o not in text]:
        raise ValueError(f"{csv} is not NIH's table: its header has no {few(map(repr, lost))}, and NIH's begins "
                         f"'{','.join(NIH_COLUMNS)}'; read_table reads any other csv.")
    text = _known(text, csv)
    rows = pd.DataFrame({"image": _unique_images(text["Image Index"], csv)})
    rows["patient_id"], rows["follow_up"] = _folded_ids(text["Patient ID"], csv), _whole(text["Follow-up #"], csv)
    if rows["patient_id"].dtype != np.int64: rows["patient_id"] = _whole(text["Patient ID"], csv)
    rows["age"] = _numbers(text["Patient Age"], csv, "Patient Age")
    rows["sex"], rows["view"] = (fold_words(text[o]) for o in ("Patient Gender", "View Position"))
    rows["findings"], rows["label"] = text["Finding Labels"], _nih_label(text["Finding Labels"], finding, csv,
                                                                                         negatives)
    return _with_files(rows.reset_index(drop=True), images, missing)

def read_table(
    csv:str|Path,             # any csv with a header: commas, semicolons or tabs, packed or not
    image:str="image",        # its column of image names, each once
    patient:str="patient_id", # its column of patients, whose images stay on one side of a split
    label:str="label",        # its column of labels: two words, or more and `negative` or `negatives`
    positive=None,            # which word is the positive class, or several; not needed where the labels are 0 and 1
    cat_names=(),             # its metadata columns of words
    cont_names=(),            # its metadata columns of numbers
    images=None,              # folder of the images; None: no column `file`
    missing:str="error",      # images that are not in the folder: 'error', or 'drop' their rows and say how many
    negative=None,            # which word is the negative class, or several; films of other words have no label
    negatives:str="clean",    # 'all': films of every other word are negative
    uncertain:str=None,       # labels that are blank or -1: 'ones' positive, 'zeros' negative, 'drop' no label
) -> pd.DataFrame:            # `image patient_id label`, the metadata columns under their own names, `file`
    """Any other table of radiographs, by column names. Words are folded as a model folds them (`words`), and those for
    a missing value are missing metadata. A label may hold several words, as `Edema|Pneumonia` does. The rows remember
    their metadata columns. ValueError names line and column: of a row without image, patient or label too."""
    check_names(list(cat_names), list(cont_names))
    wanted = dict.fromkeys([image, patient, label, *cat_names, *cont_names])
    text = read_text(csv, wanted)
    if lost := [o for o in wanted if o not in text]:
        there = ", ".join(read_text(csv)) or "without names"
        raise ValueError(f"{csv} has no column {few(map(repr, lost))}; its columns are {there}.")
    rows = table_rows(text, csv, image, patient, label, dict(cat_names=cat_names, cont_names=cont_names),
                      dict(positive=positive, negative=negative, negatives=negatives, uncertain=uncertain))
    return _with_files(rows, images, missing)

def table_rows(
    text:pd.DataFrame, # of `read_text`
    csv:str|Path,      # where it is from, for errors
    image:str,         # column names, as of `read_table`
    patient:str,
    label:str,
    columns:dict,      # `cat_names cont_names`
    words:dict,        # `positive negative negatives uncertain`
) -> pd.DataFrame:
    "`read_table` of text that is read already, without files."
    cat_names, cont_names = list(columns["cat_names"]), list(columns["cont_names"])
    text = _known(text, csv)
    rows = pd.DataFrame({"image": _unique_images(text[image], csv), "patient_id": _folded_ids(text[patient], csv)})
    rows["label"] = two_classes(text[label], csv, **words)
    for o in cat_names: rows[o] = fold_words(text[o])
    for o in cont_names: rows[o] = _numbers(text[o], csv, o)
    return with_columns(rows.reset_index(drop=True), cat_names, cont_names)
