"""What `--data` may be, and the reader of each: a csv, or a folder with a csv or with class folders.

NIH's csv is known by its header, whatever its name, and so are other public sets' and those of `save_rows`; of any
other the columns are guessed. A flag that nothing would come of is refused."""
import shlex
from functools import partial
from pathlib import Path

import pandas as pd

from ..core.csvs import read_text
from ..core.files import few, say
from .classfolders import class_folders, read_class_folders
from .guess import guess_columns, guess_new
from .places import csv_header, find_films, index_films, tables_in
from .readers import _with_files, NIH_COLUMNS, read_nih, table_rows
from .readers_sets import recognise, SETS
from .readers_xrv import read_xrv
from .rows import columns_of, read_rows, with_columns

__all__ = ["read_data", "read_new"]

_TAKES = "--data takes 'phantom', NIH's folder, a csv, or a folder of class folders"
_SAVED = {"classes", "image", "label", "patient_id"} # of a csv that `save_rows` wrote
_ROLES = "image", "patient", "label", "positive", "negative" # flags by which a known set's csv is read as any other

def _given(flags): return {k: o for k, o in flags.items() if o is not None and (k, o) != ("negatives", "clean")}

def _refuse(flags, names, whose):
    "ValueError for flags that would change nothing."
    if odd := [f"--{o.replace('_', '-')}" for o in names if o in flags]:
        raise ValueError(f"{few(odd, 9)}: {whose}.")

# Which it is

def _kind(csv):
    "'nih', 'saved', a key of `SETS`, or 'own' for any other table; None for what is none."
    head = {*csv_header(csv)}
    if head >= {*NIH_COLUMNS}: return "nih"
    if head >= _SAVED: return "saved"
    return recognise(head) or ("own" if len(head) > 1 else None)

def _of_images(csv, index, root):
    "Whether a column of it names films that are there."
    text = read_text(csv)
    some = text.iloc[:200]
    return any(2*len(find_films(root, some[o].dropna().unique(), index)) > some[o].nunique() > 0 for o in some)

def _newest(tables):
    "Of several editions, NIH's own name before others, the last by name."
    best = max(tables, key=lambda o: (o.name.startswith("Data_Entry"), o.name))
    if len(tables) > 1: say(f"{best.parent} holds {few([o.name for o in tables])}: {best.name} is read.")
    return best

def _largest(tables):
    "Of several csvs of one public set, as CheXpert's train.csv and valid.csv."
    best = max(tables, key=lambda o: o.stat().st_size)
    if others := [o.name for o in tables if o != best]:
        say(f"{best.parent} holds {few(others)}, too: {best.name}, the largest, is read; --data FILE names another.")
    return best

def _table_of(folder, images):
    "The one csv of a folder that is a table of films, and what it is; None where there is none."
    tables = tables_in(folder)
    kinds = {o: kind for o in tables if (kind := _kind(o))}
    of = lambda kind: [o for o, k in kinds.items() if k == kind]
    if nih := of("nih"): return _newest(nih), "nih"
    if named := [o for o in tables if o.name.startswith("Data_Entry")]: return named[-1], "nih" # as its error will say
    sets = [_largest([o for o in kinds if kinds[o] == k]) for k in SETS if of(k)]
    if (own := of("own")) and not sets:
        root = images or folder
        index = index_films(root)
        own = [o for o in own if _of_images(o, index, root)]
    if len(found := of("saved") + (sets or own)) > 1:
        raise ValueError(f"{folder} holds more than one table of films, {few([o.name for o in found])}: name one, as "
                         f"in --data {shlex.quote(str(found[0]))}.")
    if found: return found[0], kinds[found[0]]

def _found(path, images):
    "The csv and its kind; the folder and 'classes'."
    if path.is_file(): return path, _kind(path) or "own"
    if not path.is_dir(): raise FileNotFoundError(f"{path}: there is no such file or folder; {_TAKES}.")
    if found := _table_of(path, images): return found
    if class_folders(path): return path, "classes"
    for below in sorted(o for o in path.iterdir() if o.is_dir()):
        if found := _table_of(below, images): return found
    if tables := tables_in(path): return tables[0], "own" # its error says what it lacks
    raise FileNotFoundError(f"{path} holds no Data_Entry*.csv(.gz), no other csv of films and no class folders; "
                            f"{_TAKES}.")

# Reading

def _from(rows, csv, image, *others):
    "Rows that remember their csv, where columns that weren't read may make subgroups."
    rows.attrs["table"] = dict(csv=str(Path(csv).absolute()), image=image, read=list(others))
    return rows

def _sides_of(rows, csv, image, column):
    "The table's own split, as `split`."
    if column is None: return rows
    text = read_text(csv, [image, column])
    if column not in text:
        raise ValueError(f"{csv} has no column '{column}', which --split-column names; its columns are "
                         f"{', '.join(read_text(csv))}.")
    return rows.assign(split=rows["image"].map(dict(zip(text[image], text[column]))))

def _chosen(rows, csv, flags):
    "A set's rows, which remember those of its metadata columns that are asked for, or have a value."
    own = columns_of(rows)
    there = lambda names: [o for o in names if rows[o].notna().any()]
    names = columns_of(rows, flags.get("cat"), flags.get("cont"))
    if lost := [o for o in sum(names.values(), []) if o not in sum(own.values(), [])]:
        raise ValueError(f"{csv}: {few(map(repr, lost))} is none of its metadata columns, which are "
                         f"{', '.join(sum(own.values(), []))}.")
    return with_columns(rows, **{k: there(v) if names[k] == own[k] else v for k, v in names.items()})

def _read_nih(csv, images, flags):
    _refuse(flags, ["uncertain"], "NIH's labels are never uncertain")
    own = {k: flags[k] for k in ("finding", "negatives") if k in flags}
    rows = _from(read_nih(csv, images=images, missing="drop", **own), csv, *NIH_COLUMNS)
    return _chosen(_sides_of(rows, csv, "Image Index", flags.get("split_column")), csv, flags)

def _read_set(name, csv, images, flags):
    _refuse(flags, ["split_column"], f"{SETS[name].title} is read by read_xrv, which knows of no split")
    own = {k: flags[k] for k in ("finding", "negatives", "uncertain") if k in flags}
    rows = read_xrv(name, csv, images, missing="drop", **own)
    return _chosen(rows, csv, flags)

def _read_saved(csv, images, flags):
    _refuse(flags, flags.keys() - {"cat", "cont"}, f"{csv} was written by save_rows and is read as it is")
    rows = read_rows(csv)
    if images or "file" not in rows: rows = _with_files(rows.drop(columns="file", errors="ignore"), images, "error")
    return with_columns(rows, **columns_of(rows, flags.get("cat"), flags.get("cont")))

def _read_own(csv, images, flags):
    text, find = read_text(csv), partial(find_films, images, index=index_films(images))
    names, guess = guess_columns(text, str(csv), find, flags)
    guessed = {k: None if (o := names.pop(k)) is None else [o] for k in ("positive", "negative")} # may have commas
    words = guessed | {k: flags[k] for k in ("positive", "negative", "negatives", "uncertain") if k in flags}
    rows = _from(table_rows(text, csv, **names, words=words), csv, names["image"], names["patient"], names["label"])
    if (side := flags.get("split_column")) is not None: rows["split"] = text[side].to_numpy()
    rows = guess.screened(_with_files(rows, images, "drop"))
    guess.say()
    return rows

def _read_classes(folder, flags):
    odd = [o for o in ("images", "image", "patient", "label", "cat", "cont", "finding", "uncertain") if o in flags]
    _refuse(flags, odd, f"{folder} has class folders and no table")
    if flags.get("split_column", "folder") != "folder":
        raise ValueError(f"--split-column {flags['split_column']}: {folder} has no table; its own train, valid and "
                         "test folders are taken by --split-column folder.")
    own = {k: flags[k] for k in ("positive", "negative", "negatives") if k in flags}
    return read_class_folders(folder, own_split="split_column" in flags, **own)

LABELS = "label", "positive", "negative", "negatives", "uncertain", "finding" # flags that only rows with labels take

def read_new(
    data:str|Path,        # a csv, or a folder
    images:str|Path=None, # folder of a csv's images; the csv's own, or `data`
    **flags,              # of `load_cohort`, as far as they say how to read
) -> pd.DataFrame:        # `image file`, maybe `patient_id`, and the table's other columns as text
    "Films of new patients from a table without labels, aloud; None of anything else, which `read_data` reads."
    flags = _given(flags)
    data, images = (o and Path(o).expanduser() for o in (data, images))
    if {*LABELS} & {*flags} or (found := _found(data, images))[1] != "own": return
    path, root = found[0], images or (data if data.is_dir() else found[0].parent)
    rows = guess_new(read_text(path), str(path), partial(find_films, root, index=index_films(root)), flags)
    if rows is None: return
    _refuse(flags, ["cat", "cont"], "without labels a model reads what it knows, by its own columns' names")
    say(f"{path}: no column is known to be the label, so that nothing is scored; --label names one.")
    return rows.assign(file=rows["file"].fillna(rows["image"].map(lambda o: str(root/o))))

def read_data(
    data:str|Path,        # a csv, or a folder
    images:str|Path=None, # folder of a csv's images; the csv's own, or `data`
    **flags,              # of `load_cohort`, as far as they say how to read
) -> tuple:               # rows, one an image, with `file`; and what was read: 'nih saved own classes', or of `SETS`
    "Rows of whatever `data` is. ValueError or FileNotFoundError, one sentence, for what isn't understood."
    flags = _given(flags)
    if not str(data).strip(): raise ValueError(f"--data is empty; {_TAKES}.")
    data, images = (o and Path(o).expanduser() for o in (data, images))
    path, kind = _found(data, images)
    if kind == "classes": return _read_classes(path, flags | _given(dict(images=images))), kind
    if kind != "saved" and {*_ROLES} & {*flags}: kind = "own"
    read = dict(nih=_read_nih, saved=_read_saved, own=_read_own).get(kind) or partial(_read_set, kind)
    if images and not Path(images).is_dir():
        raise FileNotFoundError(f"There is no folder '{images}', which --images names.")
    own = images if kind == "saved" else images or (data if data.is_dir() else path.parent)
    return read(path, own, flags), kind
