"""New patients as a stream of rows: a file, a folder or a csv, with what a DICOM header says of age, sex and view.

A row is a dict of `image` (as it was named), `file`, the model's metadata columns (None where missing), `flag`, what to
know before its prediction is believed, and a table's `patient_id` and `label`, which no model sees. Nothing else of a
table or a header is kept."""
import os
from datetime import datetime
from pathlib import Path

from ..cohort.signs import HEADER, kind_of_file, told
from ..cohort.words import _kind, fold_number, fold_word, known_word
from ..core.csvs import read_text
from ..core.files import few

__all__ = ["colourful", "count_patients", "flag_kind", "kept_columns", "new_patients", "passed_over",
           "unlike_words"]

SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".dicom"}
KEPT = "patient_id", "label" # of a table, beside what a model reads
IMAGE_COLUMNS = "file", "image", "Image Index", "path", "filename", "file_name"
TABLES = {".csv", ".tsv", ".txt", ".gz", ".bz2", ".xz", ".zip"}
FRONTAL = {"AP", "PA"}
FILMS = {"CR", "DX", "RG", "DR"} # DICOM's modalities of a plain radiograph
COLOUR = 8                       # mean difference of a gray film's channels, in levels, that scanning may leave

# Where they are

def _is_file(path):
    "False too for a name that is too long, or of signs that no name has."
    try: return path.is_file()
    except (OSError, ValueError): return False

def _is_image(file):
    "By its first bytes, whatever its name; a name alone is believed, too, so that a damaged image is told of."
    return file.suffix.lower() in SUFFIXES or file.name != "DICOMDIR" and kind_of_file(file) != ""

def _walk(folder):
    "Every file below a folder, in the order of names; hidden files and folders are left out."
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(o for o in folders if not o.startswith("."))
        yield from (Path(root)/o for o in sorted(files) if not o.startswith("."))

def _csv_rows(source, images):
    "Name, path and the row's words."
    root, table = Path(images or source.parent), read_text(source)
    column = next((o for o in IMAGE_COLUMNS if o in table), None)
    if not column: raise ValueError(f"{source} has no column of images: name one {few(IMAGE_COLUMNS, 9)}.")
    folders = [root, *sorted(root.glob("images*")), *sorted(root.glob("images*/images"))]
    for values in table.fillna("").itertuples(index=False, name=None):
        row = dict(zip(table, values))
        name = row[column] if fold_word(row[column]) else "" # no picture is called NA
        yield name, next((o/name for o in folders if _is_file(o/name)), root/name), row

def _read_rows(rows):
    "As of `_csv_rows`, of a table that was read."
    for row in rows.drop(columns="split", errors="ignore").astype(object).to_dict("records"):
        yield row["image"], Path(row["file"]), {k: "" if o is None or o != o else str(o) for k, o in row.items()}

def _sources(source, images):
    if hasattr(source, "columns"): return _read_rows(source)
    source = Path(source)
    if source.is_dir(): return ((str(o.relative_to(source)), o, {}) for o in _walk(source) if _is_image(o))
    if not source.is_file(): raise FileNotFoundError(f"There is no file or folder '{source}' to predict.")
    if source.suffix.lower() in TABLES: return _csv_rows(source, images)
    return iter([(source.name, source, {})])

def count_patients(
    source:str|Path,      # as of `new_patients`
    images:str|Path=None, # too
) -> int:                 # rows
    "How many rows there will be: of a folder's files the first bytes are looked at, where the name tells nothing."
    return sum(1 for _ in _sources(source, images))

def kept_columns(
    source:str|Path, # as of `new_patients`
) -> list:           # some of `patient_id label`
    "What is kept of a table beside what a model reads."
    if hasattr(source, "columns"): return [o for o in KEPT if o in source]
    table = Path(source).is_file() and Path(source).suffix.lower() in TABLES
    return [o for o in KEPT if o in read_text(source)] if table else []

def passed_over(
    source:str|Path, # as of `new_patients`
) -> tuple:          # how many, and the first of their names
    "The files of a folder that are no images, by name and by first bytes."
    if hasattr(source, "columns") or not (source := Path(source)).is_dir(): return 0, ""
    names = [str(o.relative_to(source)) for o in _walk(source) if not _is_image(o)]
    return len(names), few(names)

# What is known of them

def _dicom_words(file):
    "Age in years, sex and view; and the flag of what is no frontal radiograph. Raises whatever pydicom does."
    try: import pydicom
    except ImportError: return {}, "" # reading its pixels will say so
    tags = "PatientAge PatientBirthDate StudyDate PatientSex ViewPosition Modality".split()
    ds = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=tags, force=True)
    said = {o: str(ds.get(o) or "").strip().upper() for o in tags}
    view, modality = said["ViewPosition"], said["Modality"]
    flags = [f"view {view}: not frontal"] if view and view not in FRONTAL else []
    if modality and modality not in FILMS: flags.append(f"modality {modality}: no radiograph")
    words = dict(age=said["PatientAge"] or _age(said["PatientBirthDate"], said["StudyDate"]),
                 sex=said["PatientSex"], view=view)
    return words, "; ".join(flags)

def _age(birth, study):
    try: days = (datetime.strptime(study, "%Y%m%d") - datetime.strptime(birth, "%Y%m%d")).days
    except ValueError: return ""
    return f"{days}D" if days >= 0 else ""

def _fitted(word, name, card):
    "A word as the model knows it, or None; and the flag of one that it doesn't know."
    known = card["stats"][name]
    if name in card["cont_names"]:
        x, why = fold_number(word, name)
        if why or x != x: return None, why and f"{name} {word!r} {why}"
        low, high = known
        return x, "" if low <= x <= high else f"{name} {x:g} is outside of {low:g} to {high:g}, the training rows'"
    if (folded := fold_word(word, name)) is None: return None, ""
    if same := known_word(folded, known, name): return same, ""
    return folded, f"{name} {folded!r} is none of {few(known, 9)}, the training rows'"

def _words_of(name, row):
    "What a table's row says of a column: the column itself, then others of its kind, as `Patient Gender` for sex."
    kind = _kind(name)
    return [row[o] for o in [name, *(o for o in row if kind and o != name and _kind(o) == kind)] if o in row]

def _metadata(row, file, card):
    "The model's columns, the table's words before the header's, and flags."
    header, flag = _dicom_words(file) if kind_of_file(file) == "DICOM" else ({}, "")
    res, flags = {}, [flag]
    for name in card["cat_names"] + card["cont_names"]:
        said = [*_words_of(name, row), header.get(_kind(name), "")]
        word = next((o for o in said if fold_word(o) is not None), "")
        res[name], why = _fitted(word, name, card)
        flags.append(why)
    return res, "; ".join(filter(None, flags))

def new_patients(
    source:str|Path,      # an image; a folder, with all below it; a csv with a column of images; or a table with `file`
    metadata:dict=None,   # of a bundle's card: cat_names, cont_names, stats; None for a model of the image alone
    images:str|Path=None, # folder of a csv's images, flat or as NIH's archives unpack; None: the csv's own
):
    """Yield a row for each image, in order; no more is in memory than the table. DICOM headers fill in what it leaves
    out. FileNotFoundError or ValueError for a source that is no such thing; of one image nothing is raised: one whose
    header can't be read has an `error`."""
    card = metadata or dict(cat_names=[], cont_names=[], stats={})
    for name, file, row in _sources(source, images):
        known = dict(image=name, file=str(file)) | {o: row[o] for o in KEPT if o in row}
        try: values, flag = _metadata(row, file, card)
        except Exception as e: # a damaged header's is of every kind
            values = dict.fromkeys(card["cat_names"] + card["cont_names"])
            yield known | values | dict(flag="", error=f"{file} {HEADER.format(told(e))}")
        else: yield known | values | dict(flag=flag)

def unlike_words(
    row:dict,      # of one patient
    metadata:dict, # of a bundle's card, as of `new_patients`
) -> str:          # flags; '' for words as the training rows'
    "What of a patient's metadata no training row had."
    names = metadata["cat_names"] + metadata["cont_names"]
    return "; ".join(filter(None, (_fitted(str(row[o]), o, metadata)[1] for o in names if row.get(o) is not None)))

def flag_kind(
    flag:str,   # one of those of a row
    names=(),   # the model's metadata columns
) -> str:
    "What kind of flag it is, without the values of its patient."
    for end in ": not frontal", ": no radiograph":
        if flag.endswith(end): return flag.split(" ")[0] + end
    if name := next((o for o in names if flag.startswith(f"{o} ")), None):
        if " is outside of " in flag: return f"{name} outside of the training rows'"
        return f"{name} that no training row had" if " is none of " in flag else f"{name} that is no value"
    return flag.split(" (")[0].split(": ")[0]

def colourful(
    file:str|Path, # a picture
) -> bool:
    "Whether a picture has colours, as no radiograph has. False for one that can't be read here."
    from PIL import Image
    import numpy as np
    try:
        with Image.open(file, formats=("PNG", "JPEG", "TIFF")) as im:
            if im.mode in ("1", "L", "LA", "F") or im.mode[0] == "I": return False
            im.draft("RGB", (64, 64))
            im.thumbnail((64, 64))
            x = np.asarray(im.convert("RGB"), int)
    except Exception: return False
    return bool((x.max(2) - x.min(2)).mean() > COLOUR)
