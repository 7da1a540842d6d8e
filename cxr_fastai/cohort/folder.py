"""What a run works on, and what names its folder: the cohort of a data folder; digests of rows, pixels and settings."""
import hashlib
from pathlib import Path

import pandas as pd

from .cache import cache_root, RadiographCache
from .phantom import make_phantom
from .readers import read_nih
from .rows import classes, positive
from .sampling import paper_cohort, sides_of, split_patients

__all__ = ["DATA_FLAGS", "data_digest", "flow_table", "flow_text", "load_cohort"]

DATA_FLAGS = "data", "normals", "followups" # of `load_cohort`; its `split_seed` is a plan's, too

def _phantom():
    "The drawn demo set: beside the package in a checkout, else drawn once into the user's cache."
    here, drawn = Path(__file__).parents[2]/"data"/"phantom", cache_root()/"phantom"
    if here.exists(): return here
    if not drawn.exists(): make_phantom(drawn)
    return drawn

def _step(step, rows, of_all=None):
    "Counts of a step; `of_all`: films of any finding that it is taken from, and how many positives have another one."
    counts = dict(step=step, rows=len(rows), patients=rows["patient_id"].nunique(), positives=int(positive(rows).sum()))
    if of_all is None: return counts
    others = rows["findings"].str.contains("|", regex=False) & positive(rows)
    return counts | dict(of_all=of_all, with_others=int(others.sum()))

def load_cohort(
    data:str="phantom",   # 'phantom' (the drawn demo set, not patients) or a folder with NIH's csv and images
    normals:int=700,      # normals drawn (the paper's 700); all there are where fewer
    followups:bool=False, # take follow-up visits too, not only the first as the paper does
    split_seed:int=0,     # of the cohort's draw and of the split
) -> pd.DataFrame:        # the paper's cohort, split by patient 56:14:30 into train, valid and test
    """Read a folder in NIH's layout, take the paper's cohort and split it; how many rows were left at each step stands
    in `rows.attrs["flow"]`. FileNotFoundError without a Data_Entry csv."""
    folder = _phantom() if data == "phantom" else Path(data)
    tables = sorted(o for o in folder.glob("Data_Entry*") if {".csv", ".tsv"} & {s.lower() for s in o.suffixes[-2:]}
                    and o.suffix.lower() in (".csv", ".tsv", ".gz", ".bz2", ".xz", ".zip")) # no .bak, no half download
    if not tables:
        raise FileNotFoundError(f"{folder} holds no Data_Entry*.csv(.gz); --data takes 'phantom' or NIH's folder.")
    rows = read_nih(tables[-1], images=folder, missing="drop")
    labelled = rows[rows["label"].notna()]
    first = labelled[labelled["follow_up"] == 0] if not followups else labelled
    normals = min(normals, (~positive(first)).sum())
    cohort = paper_cohort(rows, n_normal=normals, first_visit=not followups, seed=split_seed)
    of_all = int((rows["follow_up"] == 0).sum()) if not followups else len(rows)
    flow = [_step("with an image", rows, len(rows)), _step(f"{' or '.join(classes(rows))}", labelled, len(rows))]
    if not followups: flow.append(_step("at the first visit", first, of_all))
    flow.append(_step("drawn for the cohort", cohort, of_all))
    cohort = split_patients(cohort, seed=split_seed)
    cohort.attrs["flow"] = flow
    return cohort

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
