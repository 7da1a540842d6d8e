"""A folder of class folders to rows: train/NORMAL/*.jpeg, as Kermany's set unpacks, or NORMAL and PNEUMONIA alone.

The class is the folder's name, the patient what the file's name tells, or else the file itself."""
import os, re
from collections import defaultdict
from pathlib import Path

import pandas as pd

from ..core.files import few, say
from .guess import patient_of
from .labels import says_no, two_classes
from .places import films_below
from .rows import with_columns
from .sampling import side_of

__all__ = ["class_folders", "read_class_folders"]

_NO_CLASS = re.compile(r"images?[-_ ]*[0-9]*", re.I) # a folder of films, whatever they show
_MASKS = re.compile(r"masks?/", re.I) # within a path: of no films, as beside the COVID-19 Radiography Database's
_NUMBER = re.compile(r"(?!(?:19|20)[0-9]{2}/)([0-9]{2,})/") # a patient's folder, no year's

def _below(films, depth):
    "Names of the folders at a depth, with their films."
    res = defaultdict(list)
    for o in films:
        if len(parts := o.split("/")) > depth + 1: res[parts[depth]].append(o)
    return dict(res)

def _is_class(name): return not _NO_CLASS.fullmatch(name) and side_of(name) is None

def class_folders(
    folder:str|Path, # that may hold class folders, or sides that hold them
) -> dict:           # {class: [(side or None, film's path from `folder`)]}; {} where it holds none
    "The films of each class, by the folders' names; those of NORMAL and Normal are one class."
    films = [o for o in films_below(folder) if not _MASKS.search(o)]
    top, depth = _below(films, 0), 0
    while len(top) == 1 and not side_of(next(iter(top))) and _below(films, depth + 1): # a folder within one of its name
        depth += 1
        top = _below(films, depth)
    sides, found = {o for o in top if side_of(o)}, defaultdict(list)
    for name, own in top.items():
        if sides and name not in sides: continue
        for o in own:
            parts = o.split("/")[depth:-1]
            if sides and len(parts) < 2: continue
            found[parts[1] if sides else parts[0]].append((name if sides else None, o))
    classes = {}
    for name, own in found.items():
        if not _is_class(name): continue
        same = next((o for o in classes if o.lower() == name.lower()), name)
        classes[same] = classes.get(same, []) + own
    return classes if len(classes) > 1 else {}

def _unsaid(folder, classes, flag):
    return ValueError(f"{folder} has the class folders {few(map(repr, sorted(classes)), 9)}, which don't say which is "
                      f"which; name it by {flag}.")

def _which(folder, classes, positive, negative, every):
    "The positive and the negative class, named or guessed."
    no = [o for o in classes if says_no(o)]
    if positive is None:
        rest = [o for o in classes if o not in ([negative] if negative is not None else no)]
        if len(rest) != 1: raise _unsaid(folder, classes, "--positive")
        positive = rest[0]
    if negative is None and not every:
        rest = [o for o in classes if o != positive]
        if len(rest) > 1: rest = no
        if len(rest) != 1: raise _unsaid(folder, classes, "--negative, or take all others by --negatives all")
        negative = rest[0]
    return positive, negative

def read_class_folders(
    folder:str|Path,        # that holds them
    positive=None,          # name of the positive class's folder; guessed where the other is a word for 'normal'
    negative=None,          # name of the negative one's
    negatives:str="clean",  # 'all': films of every other folder are negative
    own_split:bool=False,   # give the folder's own sides, as `split`
) -> pd.DataFrame:          # `image patient_id label file`, maybe `split`; label NaN for films of other classes
    """Films by class folder. ValueError for folders that don't say which class is positive. Whose film it is, its name
    tells; a file whose name doesn't is a patient of its own, which is said."""
    classes = class_folders(folder)
    if not classes: raise ValueError(f"{folder} holds no two class folders with films.")
    positive, negative = _which(folder, classes, positive, negative, negatives == "all")
    films = [(name, side, o) for name, own in classes.items() for side, o in own]
    rows = pd.DataFrame(dict(image=[o for *_, o in films], patient_id=[_patient(_within(n, o)) for n, _, o in films]))
    words = pd.Series([name for name, *_ in films], rows.index, name="class")
    rows["label"] = two_classes(words, str(folder), positive, negative, negatives)
    rows["file"] = [os.path.join(folder, o) for o in rows["image"]]
    if own_split: rows["split"] = _sides(folder, films)
    told = rows["patient_id"].notna()
    if masks := sum(bool(_MASKS.search(o)) for o in films_below(folder)):
        say(f"{folder}: {masks:,} images in folders of masks are no films and are left out.")
    counts = ", ".join(f"{o} ({len(own):,})" for o, own in sorted(classes.items()))
    say(f"{folder}: class folders {counts}; {positive} is positive, against "
        f"{negative if negatives == 'clean' else 'all others'} (--positive --negative --negatives).\n"
        f"{folder}: the names of {told.sum():,} of {len(rows):,} films tell the patient "
        f"({rows['patient_id'].nunique():,} patients); {(~told).sum():,} films are taken for a patient each.")
    if not own_split and any(side for _, side, _ in films):
        say(f"{folder}: train, valid and test are made by patient; --split-column folder takes the folder's own.")
    rows["patient_id"] = rows["patient_id"].where(told, rows["image"])
    return with_columns(rows)

def _within(name, path):
    "A path from its class folder on, whose own name tells no patient."
    parts = path.split("/")
    return "/".join(parts[[o.lower() for o in parts].index(name.lower()) + 1:])

def _patient(path):
    "Whose film it is: as its name or a folder's tells, or else the first folder with a number for a name."
    own = _NUMBER.match(path)
    return patient_of(path) or (own[1] if own else None)

def _sides(folder, films):
    if all(side is None for _, side, _ in films):
        raise ValueError(f"{folder} has no folders train, valid and test above its classes for --split-column to take.")
    return [side for _, side, _ in films]
