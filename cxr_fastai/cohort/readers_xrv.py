"""Public sets to rows: RSNA, CheXpert, MIMIC-CXR, PadChest, VinDr-CXR, Open-I, SIIM, COVID-19 and NIH, from their own
csvs or from those in torchxrayvision (Cohen et al. 2022, https://github.com/mlmed/torchxrayvision), which is never
imported."""
import os
from difflib import get_close_matches
from pathlib import Path

import numpy as np
import pandas as pd

from ..core.csvs import read_text
from ..core.extras import folder_of
from ..core.files import few, say
from ..settings import CAT_NAMES, CONT_NAMES
from .readers import _folded_ids, _known, _numbers, _refuse, _unique_images, _whole, _with_files
from .readers_sets import NONE, NOTHING, recognise, SETS
from .rows import with_columns
from .words import fold_ids, fold_words

__all__ = ["read_xrv"]

UNCERTAIN = {"ones": 1, "zeros": 0, "drop": np.nan}
_ENDINGS = ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".dicom"

# The tables

def _short(name): return "".join(o for o in str(name).lower() if o.isalnum())

def _entry(name):
    short = {_short(o): k for k, s in SETS.items() for o in (k, s.title, *s.names)}
    if found := short.get(_short(name)): return SETS[found]
    near = get_close_matches(_short(name), short, 1)
    hint = f"; did you mean '{short[near[0]]}'?" if near else "."
    raise ValueError(f"'{name}' is none of the sets that read_xrv knows, {', '.join(SETS)}{hint}")

def _wheel(what): return folder_of("torchxrayvision", extra="xrv", what=what)/"data"

def _own_csv(entry):
    if not entry.wheel:
        raise ValueError(f"{entry.title}'s csv is not in torchxrayvision: name your copy by csv=.")
    return _wheel(f"{entry.title}'s csv, where you name no copy of yours,")/entry.wheel

def _table(entry, csv):
    "The columns of a set's csv that are used, as text."
    wanted = {*entry.marks, *entry.more}
    text = read_text(csv, wanted)
    if not (lost := [o for o in entry.marks if o not in text]):
        if text.empty: raise ValueError(f"{csv} holds no rows below its header.")
        return _known(text, csv)
    other = recognise(read_text(csv).columns)
    hint = f"it is {SETS[other].title}'s, '{other}'" if other else "read_table reads any csv"
    raise ValueError(f"{csv} is not {entry.title}'s table: its header has no {few(map(repr, lost))}; {hint}.")

def _side_file(side, csv, entry):
    "A second table: beside the csv, else in torchxrayvision where that is there; None."
    folders = [Path(csv).parent]
    try: folders += [_wheel("")] if entry.wheel else []
    except ImportError: pass # it is not needed
    for folder in folders:
        found = sorted({o for pattern in side.files for o in folder.glob(pattern)})
        if len(found) > 1: raise ValueError(f"There is more than one table of {side.tells}: {few(found)}; keep one.")
        if found: return found[0]

def _joined(text, side, csv, entry):
    "The table with a second one's columns; each of its lines as often as there are films of it."
    if not (file := _side_file(side, csv, entry)):
        why = f"no '{side.files[0]}' beside {csv}, which tells {side.tells}"
        if side.needed: raise FileNotFoundError(f"There is {why}; {entry.title} can't be read without it.")
        say(f"There is {why}.")
        return text
    line, keys, more = "line of the csv", [*side.on], _side_table(side, file, entry)
    text = text.assign(**{o: fold_ids(text[o]) for o in keys})
    res = text.rename_axis(line).reset_index().merge(more, "left", keys, indicator="is there")
    lost = res.pop("is there") == "left_only"
    if lost.all() and (side.needed or file.parent == Path(csv).parent):
        raise ValueError(f"{file} and {csv} have no {few(keys)} in common: they are of different sets.")
    if lost.all(): # torchxrayvision's is of another edition
        say(f"No table beside {csv} tells {side.tells}, and {file} knows none of its {few(keys)}.")
        return text
    if lost.any(): say(f"{file} doesn't know {lost.sum():,} of {len(res):,} rows of {csv}"
                       f"{', which are left out' if side.films else ''}.")
    return (res[~lost] if side.films else res).set_index(line).rename_axis(None)

def _side_table(side, file, entry):
    "The columns of a second table, each line once."
    wanted = [*side.on.values(), *side.columns, *side.numbers]
    text = side.read(file, wanted)
    if lost := [o for o in wanted if o not in text]:
        raise ValueError(f"{file} has no column {few(map(repr, lost))}, which {entry.title} needs for {side.tells}.")
    text, keys = _known(text[wanted], file), [*side.on.values()]
    for o in [*keys, side.columns[0]] if side.films else keys: _refuse(text[o].isna(), file, text[o], "are empty")
    numbers = {o: _numbers(text[o], file, o) for o in side.numbers}
    text = text.assign(**numbers, **{o: fold_ids(text[o]) for o in keys}).drop_duplicates()
    twice = (not side.films) & text.duplicated(keys, keep=False)
    _refuse(twice, file, text[keys[-1]], "stand in lines that say different things")
    return text.rename(columns={v: k for k, v in side.on.items()})

# From text to rows

def _finding(entry, said, finding, csv):
    "The set's word for what was asked for, and the other words for it."
    words = {o.removesuffix("?") for w in said.dropna().unique() for o in w.split("|")} - {NONE, NOTHING, *entry.void}
    words = sorted(words | {*entry.known})
    same = lambda o: o.lower().replace("_", " ")
    asked = entry.finding if finding is None else finding
    found = [o for o in words if same(o) == same(asked)]
    if found: return found[0], {found[0], *(entry.kinds or {}).get(found[0], ())}
    near = get_close_matches(asked, words, 3, .5) or words
    raise ValueError(f"'{asked}' is none of the {len(words)} findings in {csv}: {few(near, 20) or 'there are none'}.")

def _marks(entry, said, asked):
    "Of each film: 1, 0, -1 for uncertain, nan for unknown; and whether it has no finding at all but uncertain `asked`."
    codes, texts = said.factorize()
    films = [{*o.split("|")} for o in texts]
    unsure = {f"{o}?" for o in asked}
    mark = [1 if o & asked else -1 if o & unsure else np.nan if o & {*entry.void} else 0 for o in films]
    clean = [o - unsure - {*entry.aside} == {NONE} for o in films]
    return np.array([*mark, np.nan])[codes], np.array([*clean, False])[codes]

def _told(text, word, mark):
    "How many films the csv calls positive, negative, uncertain, or doesn't mention."
    values = pd.to_numeric(text[word]) if word in text else pd.Series(mark)
    told = {k: int((values == v).sum()) for k, v in dict(positive=1, negative=0, uncertain=-1).items()}
    return told | dict(blank=int(values.isna().sum()))

def _visits(text, entry, ids, csv):
    "0 for a patient's first study, 1 for the next; as the set numbers or dates them."
    if entry.visit: return _whole(text[entry.visit], csv)
    if not entry.when: return 0
    when = pd.DataFrame({o: _numbers(text[o], csv, o) for o in entry.when}).fillna(np.inf)
    order = pd.Series(pd.MultiIndex.from_frame(when).factorize(sort=True)[0], text.index)
    return order.groupby(ids.to_numpy()).rank("dense").astype(np.int64) - 1

def _step(step, rows, label):
    return dict(step=step, rows=len(rows), patients=rows["patient_id"].nunique(), positives=int((label == 1).sum()))

def _tail(path, depth): return "/".join(str(path).replace("\\", "/").split("/")[-depth:])

def _bare(name): return next((name[:-len(o)] for o in _ENDINGS if name.lower().endswith(o)), name)

def _finder(depth):
    "`find(root, names)`: {name: path} of films anywhere below `root`, whatever their ending."
    def find(root, names):
        wanted = dict(zip((_bare(_tail(o, depth)) for o in names), names))
        there, twice, seen = {}, set(), set()
        for folder, below, files in os.walk(root, followlinks=True):
            real = os.path.realpath(folder)
            if real in seen: below.clear()
            else: files = [o for o in files if o.lower().endswith(_ENDINGS)]
            for o in files if real not in seen else ():
                path = os.path.join(folder, o)
                if not (name := wanted.get(_bare(_tail(path, depth)))): continue
                if there.setdefault(name, path) != path: twice.add(name)
            seen.add(real)
        if twice: raise ValueError(f"{len(twice):,} images lie more than once below '{root}': {few(sorted(twice))}; "
                                   "name the folder that has each once.")
        return there
    return find

def read_xrv(
    name:str,                 # nih rsna chexpert mimic padchest vindr openi siim covid19, in any usual writing
    csv:str|Path=None,        # the set's own csv; None: the one in torchxrayvision (which has none of mimic, covid19)
    images=None,              # a folder that has the films at any depth, DICOM too; None: no column `file`
    finding:str=None,         # the positive class; None: Pneumonia, of siim Pneumothorax, of vindr Lung Opacity
    uncertain:str="drop",     # films where it is uncertain (-1): 'ones' positive, 'zeros' without it, 'drop' no label
    negatives:str="clean",    # the negative class: 'clean' No Finding alone, 'all' every film without the finding
    missing:str="error",      # images that are not in the folder: 'error', or 'drop' their rows and say how many
) -> pd.DataFrame:            # as of `read_nih`, frontal films only; label NaN where a film is of neither class
    """A public set's metadata (`SETS` says how each is read). A blank in CheXpert's and MIMIC-CXR's columns means not
    mentioned: the film is without the finding, and not clean by that. A finding that at most half of a VinDr film's
    readers name is uncertain there. What was dropped is said, and counted in `rows.attrs["flow"]`; what the csv says of
    the finding, in `rows.attrs["told"]`. ValueError or FileNotFoundError names file, line and column."""
    if uncertain not in UNCERTAIN: raise ValueError(f"uncertain='{uncertain}' is none of {', '.join(UNCERTAIN)}.")
    if negatives not in ("clean", "all"): raise ValueError(f"negatives='{negatives}' is neither 'clean' nor 'all'.")
    entry = _entry(name)
    csv = _own_csv(entry) if csv is None else csv
    text = _table(entry, csv)
    for o in entry.beside: text = _joined(text, o, csv, entry)
    if entry.make: text = entry.make(text, csv)
    said = entry.findings(text, csv)
    if len(said) < len(text): text = text.loc[said.index]
    rows = _rows(entry, text, said, csv)
    word, asked = _finding(entry, said, finding, csv)
    if negatives == "clean" and entry.clean and entry.clean not in text:
        say(f"{entry.title}'s csv doesn't tell which films have no finding at all: negative are all without {word}.")
        negatives = "all"
    mark, clean = _marks(entry, said, asked)
    label = np.where(mark == -1, UNCERTAIN[uncertain], mark)
    if negatives == "clean": label[(label == 0) & ~clean] = np.nan
    title = word[0].upper() + word[1:]
    rows["label"] = pd.Categorical.from_codes(np.nan_to_num(label, nan=-1).astype(int), [
        "Normal" if negatives == "clean" else f"No {title}", title], ordered=True)
    told, flow = _told(text, word, mark), [_step("in the table", rows, label)]
    say(f"{entry.title}: {len(rows):,} films; {title} " + ", ".join(f"{v:,} {k}" for k, v in told.items() if v) + ".")
    rows, label = _frontal(entry, rows, label)
    flow += [_step("frontal", rows, label), _step("with a label", rows[~np.isnan(label)], label)]
    rows = _with_files(rows.reset_index(drop=True), images, missing, _finder(entry.depth))
    rows.attrs.update(flow=flow, told=told)
    there = lambda names: [o for o in names if rows[o].notna().any()] # a column without a value can't be learnt from
    return with_columns(rows, there(CAT_NAMES), there(CONT_NAMES))

def _rows(entry, text, said, csv):
    blank = pd.Series(np.nan, text.index)
    rows = pd.DataFrame({"image": _unique_images(text[entry.image], csv)})
    if not entry.patient:
        say(f"{entry.title} tells no patients: each film counts as one, and a patient's two may come on two sides.")
    rows["patient_id"] = _folded_ids(text[entry.patient or entry.image], csv)
    rows["follow_up"] = _visits(text, entry, rows["patient_id"], csv)
    rows["age"] = _numbers(text[entry.age], csv, "age") if entry.age in text else blank
    rows["sex"] = fold_words(text[entry.sex], "sex") if entry.sex in text else blank
    rows["view"] = fold_words(text[entry.view], "view") if entry.view in text else blank
    return rows.assign(findings=said)

def _frontal(entry, rows, label):
    "Without films of other views, which are counted aloud."
    if not entry.view or rows["view"].isna().all(): return rows, label
    front = rows["view"].isin([*entry.frontal]).to_numpy()
    if not front.all():
        counts = rows["view"][~front].fillna("unknown").value_counts()
        say(f"{entry.title}: {(~front).sum():,} of {len(rows):,} films are not frontal and are dropped: "
            f"{few((f'{n:,} {k}' for k, n in counts.items()), 12)}.")
    if not front.any(): raise ValueError(f"{entry.title}: none of {len(rows):,} films is frontal.")
    rows = rows[front]
    return rows.assign(view=rows["view"].map(entry.frontal)), label[front]
