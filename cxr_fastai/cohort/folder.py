"""What a run works on, and what names its folder: the cohort of a data folder; digests of rows, pixels and settings."""
import hashlib, inspect, re
from pathlib import Path

import pandas as pd

from ..core.files import few
from ..settings import listed
from .cache import cache_root, RadiographCache
from .leaks import check_leaks
from .phantom import make_phantom
from .rows import classes, positive as positive_rows
from .sampling import paper_cohort, sides_of, split_given, split_patients
from .sources import read_data

__all__ = ["DATA_FLAGS", "data_digest", "flow_table", "flow_text", "load_cohort", "named_flags", "named_tables",
           "one_source", "rows_of"]

def _phantom():
    "The drawn demo set: beside the package in a checkout, else drawn once into the user's cache."
    here, drawn = Path(__file__).parents[2]/"data"/"phantom", cache_root()/"phantom"
    if here.exists(): return here
    if not drawn.exists(): make_phantom(drawn)
    return drawn

def rows_of(
    data:str="phantom", # as of `load_cohort`
    **flags,            # too, as far as they say how to read
) -> tuple:             # as of `read_data`
    "All rows of whatever `data` is, the demo set too."
    return read_data(_phantom() if data == "phantom" else data, **flags)

def _step(step, rows, of_all=None):
    "Counts of a step; `of_all`: films of any finding that it is taken from, and how many positives have another one."
    hit = positive_rows(rows)
    counts = dict(step=step, rows=len(rows), patients=rows["patient_id"].nunique(), positives=int(hit.sum()))
    if of_all is None: return counts
    others = rows["findings"].str.contains("|", regex=False) & hit
    return counts | dict(of_all=of_all, with_others=int(others.sum()))

def load_cohort(
    data:str="phantom",     # 'phantom' (drawn films), NIH's folder, any csv, or a folder with a csv or class folders
    images:str=None,        # folder of a csv's images, at any depth; its own where not given
    image:str=None,         # the csv's column of image names; guessed where not given, as all columns are, aloud
    patient:str=None,       # its column of patients
    label:str=None,         # its column of labels
    positive:str=None,      # label of the positive class, or several with commas; of class folders a folder's name
    negative:str=None,      # label of the negative class, or several; films of further labels are left out
    cat:tuple=None,         # metadata columns of words, with commas; '' for none
    cont:tuple=None,        # metadata columns of numbers, with commas; '' for none
    finding:str=None,       # what is looked for, where a set tells findings; Pneumonia
    normals:int=None,       # negatives drawn; NIH's: 700 as in the paper, or all there are; of other data all
    followups:bool=False,   # take follow-up visits too, not only the first as the paper does, where visits are told
    negatives:str="clean",  # negative films: 'clean', without any finding, or 'all' without this one
    uncertain:str=None,     # labels that are -1 or blank: 'ones', 'zeros' or 'drop'
    split_column:str=None,  # the table's own split, train valid test; 'folder': that of class folders
    split_seed:int=0,       # of the cohort's draw and of the split
) -> pd.DataFrame:          # the cohort, split by patient 56:14:30 into train, valid and test
    """Read whatever `data` is, take a cohort and split it; how many rows were left at each step stands in
    `rows.attrs["flow"]`. Of NIH's it is the paper's, of other data all films with a label, unless `normals` says how
    many. One sentence, FileNotFoundError or ValueError, for what isn't understood, and for a flag without effect."""
    flags = {k: o for k, o in locals().items() if k not in ("data", "normals", "followups", "split_seed")}
    rows, kind = rows_of(data, **flags)
    if kind == "saved" and "split" in rows: return _as_saved(rows, normals, followups)
    labelled = rows[rows["label"].notna()]
    first = _first_visits(labelled, followups)
    of_all = len(rows) if first is labelled else int((rows["follow_up"] == 0).sum())
    most = 700 if normals is None and kind == "nih" else normals
    if most is None: cohort = first.reset_index(drop=True)
    else:
        most = min(most, int((~positive_rows(first)).sum()))
        cohort = paper_cohort(rows, n_normal=most, first_visit=first is not labelled, seed=split_seed)
    step = lambda name, o, n: _step(name, o, n if kind == "nih" else None)
    flow = [*rows.attrs.get("flow", [])[:-1], step("with an image", rows, len(rows)),
            step(f"{' or '.join(classes(rows))}", labelled, len(rows))]
    if first is not labelled: flow.append(step("at the first visit", first, of_all))
    flow.append(step("drawn for the cohort" if most is not None else "in the cohort", cohort, of_all))
    if split_column is None: cohort = split_patients(cohort, seed=split_seed)
    else: cohort = split_given(cohort, seed=split_seed)
    cohort.attrs["flow"] = flow
    return cohort

def _first_visits(labelled, followups):
    "Rows of first visits, where visits are told and follow-ups aren't asked for."
    if "follow_up" in labelled: return labelled if followups else labelled[labelled["follow_up"] == 0]
    if followups: raise ValueError("--followups: these data tell no visits; all films are taken as it is.")
    return labelled

def _as_saved(rows, normals, followups):
    "A cohort that `save_rows` wrote, split as it is."
    if normals is not None or followups:
        raise ValueError("--normals and --followups: these rows are a cohort already, drawn and split; draw another "
                         "from the data it is of.")
    check_leaks(rows)
    return rows

DATA_FLAGS = tuple(o for o in inspect.signature(load_cohort).parameters if o != "split_seed") # which is a plan's, too

def named_tables(
    external:str, # NAME=TABLE, with commas, or a list of them; a table is whatever `data` may be, without more flags
) -> dict:        # name -> its rows, with labels or not
    "Rows of several tables. ValueError for words that aren't so, and for a name that is given twice."
    res = {}
    for o in listed(external or ()):
        name, _, table = o.partition("=")
        if not (re.fullmatch(r"[\w-][\w.-]*", name) and table):
            raise ValueError(f"--external {o}: write NAME=TABLE, as in --external rural=path/to/rural.csv; of several "
                             "with commas between them.")
        if name in res: raise ValueError(f"--external names {name} twice.")
        res[name] = rows_of(table)[0]
    return res

def named_flags(
    flags:dict, # of `load_cohort`
) -> dict:
    "Those that aren't as they are by default."
    own = inspect.signature(load_cohort).parameters
    return {k: o for k, o in flags.items() if o != own[k].default}

def one_source(
    given:str|Path, # files by their own flag or place; None: not given
    data:str,       # as of `load_cohort`; None: not given
    flags:dict,     # that say how to read `data`
    what:str,       # the first is, as a sentence begins
):
    "ValueError unless one of both is given, and flags of `data` with it alone."
    if (given is None) == (data is None): raise ValueError(f"{what}, or --data: give one of both.")
    if data is None and (odd := [f"--{o.replace('_', '-')}" for o in named_flags(flags)]):
        raise ValueError(f"{few(odd, 9)} says how --data is read, which isn't given.")

def flow_table(
    rows:pd.DataFrame, # after `split_patients`, or of `load_cohort`
) -> pd.DataFrame:     # `step rows patients positives`; of NIH's table `of_all with_others`, too
    "How many rows were left at each step, and are on each side."
    sides = [_step(o, own) for o, own in sides_of(rows).items()]
    return pd.DataFrame(rows.attrs.get("flow", [_step("in the table", rows)]) + sides)

def flow_text(
    rows:pd.DataFrame, # as for `flow_table`
) -> str:
    "The same for a terminal: whole numbers, and nothing where nothing was counted."
    return flow_table(rows).to_string(index=False, na_rep="", float_format="{:.0f}".format)

def data_digest(
    rows:pd.DataFrame, # after `split_patients`
    size:int=None,     # side of the square images in pixels; None: the pixels don't matter
) -> str:              # 16 hex letters
    "What a table says, on which side each row is, and the pixels of its images, wherever they lie."
    table = rows.drop(columns="file")
    numbers = {o: table[o].astype(float) for o in table if pd.api.types.is_numeric_dtype(table[o])}
    table = table.astype(str).assign(**numbers)[sorted(table)]
    digest = hashlib.sha256(pd.util.hash_pandas_object(table, index=False).to_numpy().tobytes())
    if size: digest.update(RadiographCache(rows["file"].unique().tolist(), size).crcs(rows["file"]).tobytes())
    return digest.hexdigest()[:16]
