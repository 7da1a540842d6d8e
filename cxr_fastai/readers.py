"""Tables in: a csv of radiographs to rows, one an image (paper section 3.1: NIH ChestX-ray14 and its metadata).

Rows are a DataFrame of `image patient_id follow_up age sex view findings label`, with `file` once images were looked
for and `split` once split. `label` is an ordered Categorical, [negative, positive]; NaN where an image is neither."""
import os, re
from pathlib import Path
import numpy as np, pandas as pd
from .files import few, say
from .rows import _ids, _read, classes, positive, read_rows, save_rows

__all__ = ["classes", "positive", "read_nih", "read_rows", "read_table", "save_rows"]

NIH_COLUMNS = {"Image Index": "image", "Finding Labels": "findings", "Follow-up #": "follow_up",
               "Patient ID": "patient_id", "Patient Age": "age", "Patient Gender": "sex", "View Position": "view"}
NIH_FINDINGS = """Atelectasis Cardiomegaly Consolidation Edema Effusion Emphysema Fibrosis Hernia Infiltration Mass
    Nodule Pleural_Thickening Pneumonia Pneumothorax""".split()
_OWN = {"image", "patient_id", "label", "file", "split", "classes"}    # names that a metadata column can't have
_MISSING = ["NA", "N/A", "NaN", "nan", "null"]
_YEARS = {"": 1, "Y": 1, "M": 1/12, "D": 1/365.25}

def _refuse(bad, csv, column, values, why):
    "Raise one sentence that names the lines of `csv` where `bad` is true."
    if not bad.any(): return
    at = np.flatnonzero(bad)
    found = few(f"'{'' if pd.isna(v) else v}' (line {i+2})" for i, v in zip(at, np.asarray(values, object)[at]))
    raise ValueError(f"{csv}: {len(at):,} of {len(bad):,} values of column '{column}' {why}: {found}.")

def _numbers(text, csv, column, dtype=float):
    "Numbers from text; empty is NaN, which only floats have."
    res = pd.to_numeric(text, errors="coerce")
    if dtype is float: _refuse(~np.isfinite(res) & text.notna(), csv, column, text, "are no numbers")
    else: _refuse(res % 1 != 0, csv, column, text, "are no whole numbers")
    return res.astype(dtype)

def _unique_images(text, csv, column):
    _refuse(text.isna(), csv, column, text, "name no image")
    _refuse(text.duplicated(keep=False), csv, column, text, "name an image more than once")

def _years(text, csv):
    "Ages like `58`, `058Y`, `011M` or `001D` in years; each distinct word is parsed once."
    codes, words = text.factorize() # code -1: empty, the last of the arrays below
    found = [re.fullmatch(r"(\d+(?:\.\d+)?)([YMD]?)", o.strip().upper()) for o in words]
    wrong = np.array([m is None for m in found] + [False])[codes]
    _refuse(wrong, csv, "Patient Age", text, "are no ages like 58, 058Y, 011M or 001D")
    return np.array([float(m[1]) * _YEARS[m[2]] for m in found] + [np.nan])[codes]

def _nih_label(text, finding, csv):
    "Findings like `Edema|Pneumonia` to an ordered Categorical; NaN where there are other findings only."
    codes, words = text.factorize()
    sets = [set(o.split("|")) for o in words]
    if finding not in NIH_FINDINGS:
        there = sorted(set().union(*sets) - {"No Finding"})
        raise ValueError(f"'{finding}' is none of the findings in {csv}: {', '.join(there)}.")
    unknown = np.array([bool(s - {*NIH_FINDINGS, "No Finding"}) for s in sets] + [True])
    _refuse(unknown[codes], csv, "Finding Labels", text, "hold no finding or one that NIH doesn't have")
    label = np.array([1 if finding in s else 0 if s == {"No Finding"} else -1 for s in sets] + [-1])
    return pd.Categorical.from_codes(label[codes], ["Normal", finding], ordered=True)

def _listing(root, names):
    "{name: path} of the images below `root`, each folder listed once; `names` may carry folders of their own."
    there, twice = {}, set()
    for folder in filter(Path.is_dir, [root, *sorted(root.glob("images*")), *sorted(root.glob("images*/images"))]):
        for o in os.scandir(folder):
            if there.setdefault(o.name, o.path) != o.path: twice.add(o.name)
    for sub in {os.path.dirname(o) for o in names} - {""}:
        if (root/sub).is_dir(): there.update((f"{sub}/{o.name}", o.path) for o in os.scandir(root/sub))
    if twice := sorted(twice.intersection(names)):
        raise ValueError(f"{len(twice):,} images lie in more than one folder of '{root}': {few(twice)}.")
    return there

def _with_files(rows, images, missing):
    if missing not in ("error", "drop"): raise ValueError(f"missing='{missing}' is neither 'error' nor 'drop'.")
    if images is None: return rows
    if not os.path.isdir(images): raise FileNotFoundError(f"There is no folder '{images}' to find images in.")
    rows = rows.assign(file=rows["image"].map(_listing(Path(images), rows["image"])))
    lost = rows["file"].isna()
    if not lost.any(): return rows
    text = f"{lost.sum():,} of {len(rows):,} images are not in '{images}': {few(rows['image'][lost])}"
    if missing == "error" or lost.all(): raise FileNotFoundError(f"{text}; missing='drop' would leave out their rows.")
    say(f"{text}; their rows are left out.")
    return rows[~lost].reset_index(drop=True)

def read_nih(
    csv:str|Path,             # Data_Entry_2017.csv or Data_Entry_2017_v2020.csv, gzipped or not
    images=None,              # folder of the images, flat or with images_001/images/; None: no column `file`
    finding:str="Pneumonia",  # the positive class; the negative one is 'No Finding', here named Normal
    missing:str="error",      # images that are not in the folder: 'error', or 'drop' their rows and say how many
) -> pd.DataFrame:            # one row an image, in the csv's order; label NaN for an image with other findings only
    """NIH ChestX-ray14's metadata, both editions (https://nihcc.app.box.com/v/ChestXray-NIHCC); `age` in years, missing
    where over 100. ValueError or FileNotFoundError for another table, unknown words, repeated or absent images."""
    head = _read(csv, header=None, nrows=1, dtype=str).iloc[0].tolist()
    if head[:7] != list(NIH_COLUMNS):
        raise ValueError(f"{csv} is not NIH's table: its header begins '{','.join(map(str, head))[:80]}', not "
                         f"'{','.join(NIH_COLUMNS)}'; read_table reads any other csv.")
    # the header's unquoted commas make more names than there are fields in a row: columns by position
    text = _read(csv, header=None, skiprows=1, usecols=range(7), names=list(NIH_COLUMNS), dtype=str)
    _unique_images(text["Image Index"], csv, "Image Index")
    rows = text.rename(columns=NIH_COLUMNS)
    for o in ("Patient ID", "Follow-up #"): rows[NIH_COLUMNS[o]] = _numbers(text[o], csv, o, int)
    rows["age"] = _years(text["Patient Age"], csv)
    rows["label"] = _nih_label(text["Finding Labels"], finding, csv)
    if (old := rows["age"] > 100).any():
        say(f"{csv}: {old.sum():,} ages are over 100 years, up to {rows['age'].max():.0f}, and become missing: "
            f"{few(rows['image'][old])}.")
    rows["age"] = rows["age"].mask(old)
    return _with_files(rows["image patient_id follow_up age sex view findings label".split()], images, missing)

def read_table(
    csv:str|Path,             # any csv with a header, gzipped or not
    image:str="image",        # its column of image names, each once
    patient:str="patient_id", # its column of patients, whose images stay on one side of a split
    label:str="label",        # its column of labels, two words
    positive=None,            # which word is the positive class; not needed for 0/1, or if one word is Pneumonia
    cat_names=(),             # its metadata columns of words
    cont_names=(),            # its metadata columns of numbers
    images=None,              # folder of the images; None: no column `file`
    missing:str="error",      # images that are not in the folder: 'error', or 'drop' their rows and say how many
) -> pd.DataFrame:            # `image patient_id label`, the metadata columns under their own names, `file`
    "Any other table of radiographs, by column names; empty metadata is missing. ValueError names line and column."
    cat_names, cont_names = list(cat_names), list(cont_names)
    wanted, there = [image, patient, label, *cat_names, *cont_names], list(_read(csv, nrows=0).columns)
    if lost := [o for o in wanted if o not in there]:
        raise ValueError(f"{csv} has no column {few(map(repr, lost))}; its columns are {', '.join(there)}.")
    if own := sorted(_OWN.intersection(cat_names + cont_names)):
        raise ValueError(f"{few(map(repr, own))} can't name metadata: the rows' own columns have such names.")
    text = _read(csv, usecols=list(dict.fromkeys(wanted)), dtype=str)
    _unique_images(text[image], csv, image)
    _refuse(text[patient].isna(), csv, patient, text[patient], "name no patient")
    rows = pd.DataFrame({"image": text[image], "patient_id": _ids(text[patient])})
    rows["label"] = _two_words(text[label], positive, csv, label)
    known = text.mask(text.isin(_MISSING))
    for o in cat_names: rows[o] = known[o]
    for o in cont_names: rows[o] = _numbers(known[o], csv, o)
    return _with_files(rows, images, missing)

def _two_words(text, positive, csv, column):
    _refuse(text.isna(), csv, column, text, "are no label")
    if set(pd.to_numeric(text, errors="coerce")) == {0, 1}: text = text.astype(float).astype(int).astype(str)
    counts = text.value_counts()
    shown = few((f"'{k}' ({n:,})" for k, n in counts.items()), 6)
    if len(counts) != 2: raise ValueError(f"{csv}: column '{column}' must hold two labels, not {len(counts)}: {shown}.")
    if positive is None: positive = next((o for o in ("1", "Pneumonia") if o in counts), None)
    if str(positive) not in counts:
        raise ValueError(f"{csv}: positive={positive!r} doesn't say which label of column '{column}' is the positive "
                         f"class: {shown}.")
    return pd.Categorical(text, sorted(counts.index, key=str(positive).__eq__), ordered=True)
