"""Shortcuts: how far a probe comes that can see no disease, on the very split of a study, and whether its arms beat it.

A probe is a logistic regression on the real train rows, its strength chosen on valid, judged on the real test rows as
an arm is. What it says of them are predictions like an arm's, of a backbone named `shortcut`. No torch."""
import os
from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image
from scipy.ndimage import white_tophat

from ..arms import arm_title, parse_arm
from ..cohort.cache import RadiographCache
from ..cohort.rows import columns_of, fold_metadata, is_synthetic, positive
from ..cohort.signs import kind_of_file
from ..core.extras import need
from ..core.files import few
from .areas import delong
from .formats import with_ends
from .predictions import each_backbone, joined
from .tables import in_words, score_table

__all__ = ["SHORTCUTS", "Shortcut", "against_shortcuts", "fitted_probe", "scored_shortcuts", "shortcut_predictions",
           "shortcut_table", "shortcut_tables", "shortcut_verdict", "thumbnails"]

GRID, TEXT = 32, 128                # pixels a side: what of a film is looked at, and where marks are looked for
RING, REST = 2, 3                   # of 32 pixels that are the border; of 16 on each side, around the centre
MARK, STANDS_OUT = 16, 64           # a mark is thinner than a 16th of the film, and brighter than its surroundings
STRENGTHS = 10.**np.arange(-5, 2)   # of which the one with the least log loss on valid is taken
BATCH = 256                         # films at a time
FIGURES = dict(AUC="rocauc", recall="recall", specificity="specificity", recall_at_90="recall_at_90",
               specificity_at_90="specificity_at_90") # at .5, and at 90% specificity on valid

def _shrunk(pixels, side):
    "Films `[n,h,w]` as means of areas, uint8 `[n,side,side]`."
    return np.stack([Image.fromarray(o).resize((side, side), Image.Resampling.BOX) for o in pixels])

def _marks(pixels):
    "The share of small marks brighter than what is around them, in 4 x 4 parts of each film, and in all of it."
    pixels = _shrunk(pixels, TEXT) if pixels.shape[-1] > TEXT else pixels
    wide = max(3, pixels.shape[-1] // MARK)
    found = white_tophat(pixels, size=(1, wide, wide)) > STANDS_OUT
    parts = _shrunk(found.astype(np.uint8)*255, 4).reshape(len(found), -1)/255
    return np.c_[parts, found.mean((1, 2))]

def _sides(file, kind):
    "Width and height by a file's header."
    if kind != "DICOM":
        with Image.open(file) as im: return im.size
    header = need("pydicom", extra="dicom", what="A DICOM file's size").dcmread(
        file, stop_before_pixels=True, force=True, specific_tags=["Columns", "Rows"])
    if not (header.get("Columns") and header.get("Rows")): raise ValueError(f"{file} doesn't say how large its film is")
    return header.Columns, header.Rows

class Films:
    "What probes see of rows; each part is made when it is first asked for."
    def __init__(self,
        rows:pd.DataFrame, # with `file`, and the metadata columns that they remember
        size:int,          # side at which films are decoded, pixels
    ): self.rows, self.size = rows, size

    @cached_property
    def files(self):
        if "file" in self.rows: return [str(o) for o in self.rows["file"]]
        raise ValueError("the table has no column 'file'")

    @cached_property
    def _seen(self):
        "Of one pass over the pixels: each film small, uint8 `[n,32,32]`, and its marks, `[n,17]`."
        cache = RadiographCache(self.files, self.size)
        parts = [self.files[i:i + BATCH] for i in range(0, len(self.files), BATCH)]
        small, marks = zip(*((_shrunk(o, GRID), _marks(o)) for o in map(cache.get, parts)))
        return np.concatenate(small), np.concatenate(marks)

    @property
    def small(self): return self._seen[0]
    @property
    def marks(self): return self._seen[1]

def _thumbnails(small): return small.reshape(-1, GRID//2, 2, GRID//2, 2).mean((2, 4)) # [n,16,16]

def thumbnails(
    pixels:np.ndarray, # uint8 `[n,h,w]`
) -> np.ndarray:       # `[n,256]`
    "What the probe `thumbnail` sees of films."
    return _thumbnails(_shrunk(pixels, GRID)).reshape(len(pixels), -1)

def thumbnail(films): return _thumbnails(films.small).reshape(len(films.rows), -1)

def border(films):
    ring = np.ones((GRID, GRID), bool)
    ring[RING:-RING, RING:-RING] = False
    return films.small[:, ring]

def outside(films):
    rest = np.ones((GRID//2, GRID//2), bool)
    rest[REST:-REST, REST:-REST] = False
    return _thumbnails(films.small)[:, rest]

def text(films): return films.marks

def file(films):
    "Named columns: those that are all alike are said."
    kinds = [kind_of_file(o) for o in films.files]
    sides = np.array([_sides(*o) for o in zip(films.files, kinds)], float)
    size = np.array([max(1, os.path.getsize(o)) for o in films.files])
    about = np.log(np.c_[size, sides, size/sides.prod(1)])
    table = pd.DataFrame(about, columns=["bytes", "width", "height", "bytes a pixel"])
    return table.join(pd.get_dummies(kinds, dtype=float)) if len(set(kinds)) > 1 else table

def metadata(films):
    "Words one by one, numbers, and that they are missing."
    words, numbers = ([name for name in o if name in films.rows] for o in columns_of(films.rows).values())
    if not words + numbers: raise ValueError("the table has no metadata column")
    rows = fold_metadata(films.rows, words, numbers).reset_index(drop=True)
    table = pd.get_dummies(rows[words].astype(object).fillna("missing").astype(str), prefix_sep=" ", dtype=float)
    for name in numbers:
        table[name] = rows[name].astype(float)
        if rows[name].isna().any(): table[f"{name} missing"] = rows[name].isna().astype(float)
    return table

class Shortcut(NamedTuple):
    "A probe: what it is called, what it sees, and the function that gives this of `Films`."
    title:str         # in tables and sentences
    about:str         # what it sees
    features:Callable # of `Films`: numbers `[n,k]`, or a table of them with names. ValueError, OSError: there are none

SHORTCUTS = dict(
    thumbnail=Shortcut("16 x 16 thumbnail", "the whole film, of 16 x 16 pixels", thumbnail),
    border=Shortcut("border only", "the outermost sixteenth on each side", border),
    outside=Shortcut("centre blanked", "what is outside of the middle 10 x 10 of 16 x 16 pixels", outside),
    file=Shortcut("file size and dimensions", "bytes, width, height, bytes a pixel, kind of file", file),
    text=Shortcut("burnt-in text area", "how much of the film small bright marks cover, by 4 x 4 parts", text),
    metadata=Shortcut("metadata alone", "the metadata columns, no film", metadata))

def fitted_probe(
    x:np.ndarray,     # what is seen of rows `[n,k]`
    hit:np.ndarray,   # bool `[n]`: they are positive
    train:np.ndarray, # bool `[n]`
    valid:np.ndarray, # the same
):                    # scikit-learn's pipeline
    "A logistic regression: standardised by the train rows, fitted on them, as strong as valid likes it best."
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    def fitted(strength):
        fit = LogisticRegression(C=strength, max_iter=5000)
        return make_pipeline(SimpleImputer(strategy="median"), StandardScaler(), fit).fit(x[train], hit[train])
    loss = lambda o: log_loss(hit[valid], o.predict_proba(x[valid])[:, 1], labels=[False, True])
    return min(map(fitted, STRENGTHS), key=loss)

def _seen(probe, films):
    "What a probe sees, a table; None and why, where there is nothing."
    try: return pd.DataFrame(probe.features(films)), ""
    except (OSError, ValueError, ImportError, Image.DecompressionBombError) as e:
        return None, f"no probe: {' '.join(str(e).split())}"

def _probed(seen, hit, side):
    "What a probe says of all rows of one split, None where it can say nothing; and a note."
    train, valid, test = (side == o for o in ("train", "valid", "test"))
    for name, own in ("train", hit[train]), ("test", hit[test]):
        if len(np.unique(own)) < 2: return None, f"no probe: the {name} rows are of one class, or none"
    if not valid.any(): return None, "no probe: there are no valid rows to choose its strength by"
    alike = (seen[train].nunique() < 2).to_numpy() # or missing throughout
    if alike.all(): return None, "all alike: there is nothing to tell films apart by"
    names = [o for o in seen.columns[alike] if isinstance(o, str)]
    x = seen.to_numpy(float)[:, ~alike]
    prob = fitted_probe(x, hit, train, valid).predict_proba(x)[:, 1]
    return prob, f"all alike: {few(names)}" if names else ""

def _every(seen, hit, sides):
    "`_probed` of every split: probabilities by split, {} where one has none; and the notes."
    found = {fold: _probed(seen, hit, o) for fold, o in sides.items()}
    told = "; ".join(dict.fromkeys(note for _, note in found.values() if note))
    return {} if any(o is None for o, _ in found.values()) else {fold: o for fold, (o, _) in found.items()}, told

def shortcut_predictions(
    rows:pd.DataFrame, # after the split: `image patient_id label split`, `file`, and metadata that they remember; or
                       # {fold: rows}, as of `each_fold`
    size:int=128,      # side at which films are decoded, pixels; the study's, for they are kept by size
) -> tuple:            # predictions of valid and test rows, long, and {probe: note}
    """What every probe says of each valid and test row, as predictions of the backbone `shortcut` with probes as arms.
    One that has nothing to go by (no file, all alike, one class) has no line, and its note says why."""
    splits = rows if isinstance(rows, dict) else {None: rows}
    first, parts, notes = next(iter(splits.values())), [], {}
    real = first[~is_synthetic(first) & first["label"].notna()].reset_index(drop=True)
    real.attrs = first.attrs
    sides = {fold: o.set_index("image")["split"].reindex(real["image"]).to_numpy() for fold, o in splits.items()}
    films, hit = Films(real, size), positive(real)
    about = pd.DataFrame(dict(backbone="shortcut", arm="", seed=0, side="", image=real["image"],
                              patient_id=real["patient_id"], label=hit.astype(int), probability=0., synthetic=False))
    for name, probe in SHORTCUTS.items():
        seen, notes[name] = _seen(probe, films)
        if seen is None: continue
        found, notes[name] = _every(seen, hit, sides)
        for fold, prob in found.items():
            own = about.assign(arm=name, side=sides[fold], probability=prob)
            if rows is splits: own["fold"] = fold
            parts.append(own[own["side"].isin(["valid", "test"])])
    return pd.concat(parts or [about[:0]], ignore_index=True), notes

def scored_shortcuts(
    predictions:pd.DataFrame, # of `shortcut_predictions`
) -> pd.DataFrame:            # as of `score_table`
    "The probes' figures; of no probe, nothing."
    if predictions.empty: return pd.DataFrame(columns=["arm", "metric", "mean", "low", "high", "n", "positives"])
    share = predictions.loc[predictions["side"] == "valid", "label"].mean()
    cells = predictions[[o for o in ("backbone", "arm", "seed", "fold") if o in predictions]].drop_duplicates()
    return score_table(predictions, cells.assign(weights="none", train_prior=share, prior=share))

def shortcut_table(
    scores:pd.DataFrame, # of `score_table`, of predictions of probes
    notes:dict,          # probe: note
) -> pd.DataFrame:       # a line a probe
    "The probes as rows under Table 1: AUC, recall and specificity with their intervals, as an arm's."
    by, lines = scores.set_index(["arm", "metric"]), []
    for name, note in notes.items():
        line = dict(shortcut=SHORTCUTS[name].title)
        for head, metric in FIGURES.items():
            there = (name, metric) in by.index
            line[head] = in_words(*by.loc[(name, metric), ["mean", "low", "high"]]) if there else "-"
        lines.append(line | dict(note=note or "-"))
    return pd.DataFrame(lines)

def against_shortcuts(
    predictions:pd.DataFrame, # a study's
    shortcuts:pd.DataFrame,   # of `shortcut_predictions`, of the same test rows
) -> pd.DataFrame:            # a line a backbone, arm and probe: `auc_arm auc_shortcut difference low high beats`
    """Does an arm beat a shortcut? The arm's AUC minus the probe's, by DeLong's paired test on the same test rows
    (patients, and seeds from two on; of folds, all films, each ranked within its fold). `beats` is 'yes' where the 95%
    interval lies above 0, 'no' where it doesn't, '-' where there is none though the arm is ahead. An arm of metadata
    alone isn't held against that very probe."""
    probes, lines = joined(shortcuts) if len(shortcuts) else {}, []
    for backbone, test, _ in each_backbone(predictions):
        for arm, o in test.items():
            for name, probe in probes.items():
                if parse_arm(arm).use == name: continue
                lines.append(dict(backbone=backbone, arm=arm, shortcut=name) | _beaten(o, probe, backbone))
    names = ["backbone", "arm", "shortcut", "auc_arm", "auc_shortcut", "difference", "low", "high", "beats"]
    return pd.DataFrame(lines, columns=names)

def _beaten(arm, probe, backbone):
    "An arm's seeds against one probe."
    if not (np.array_equal(arm.image, probe.image) and np.array_equal(arm.fold, probe.fold)):
        odd = few(np.setxor1d(arm.image, probe.image)) or "their folds differ"
        raise ValueError(f"{backbone} and the shortcuts were not asked about the same test rows: {odd}.")
    found = delong(arm.label, np.repeat(probe.rank, len(arm.prob), 0), arm.rank, arm.patients)
    ahead, low = found["difference"], found["low"]
    beats = "no" if low <= 0 or ahead <= 0 else "yes" if low > 0 else "-"
    return dict(auc_arm=found["auc_b"], auc_shortcut=found["auc_a"], difference=ahead, low=low, high=found["high"],
                beats=beats)

def shortcut_tables(
    rows:pd.DataFrame,        # a study's, on the sides that are scored; or {fold: rows}
    predictions:pd.DataFrame, # its own
    size:int,                 # of its films, pixels
) -> tuple:                   # tables to keep, and to show, by name
    "All that a study writes of shortcuts."
    said, notes = shortcut_predictions(rows, size)
    scores = scored_shortcuts(said)
    kept = dict(shortcuts=said, shortcut_scores=scores, against_shortcuts=against_shortcuts(predictions, said))
    return kept, dict(shortcut_table=shortcut_table(scores, notes))

RULE = ("An arm beats a shortcut where the 95% interval of its AUC minus the shortcut's lies above 0 (DeLong, paired "
        "on the same test rows; no correction)")

def shortcut_verdict(
    table:pd.DataFrame, # of `against_shortcuts`
) -> list:              # sentences; the first has the rule
    "Which arm does not beat which shortcut, the best shortcut first, a sentence a backbone."
    lost = table[table["beats"] == "no"].sort_values("auc_shortcut", ascending=False, kind="stable")
    arms, said = table["arm"].unique(), []
    for backbone in table["backbone"].unique():
        own = [lost[(lost["backbone"] == backbone) & (lost["arm"] == o)] for o in arms]
        told = "; ".join(_beaten_by(list(o.itertuples())) for o in own if len(o))
        if told: said.append(f"{backbone}: {told}.")
    if said: return [f"{RULE}.", *said]
    if table.empty: return ["No arm is held against a shortcut."]
    known = "Every arm beats every shortcut that could be probed" if (table["beats"] == "yes").all() else (
        "No arm is known not to beat a shortcut, but of some it can't be said")
    return [f"{known}. {RULE}."]

def _beaten_by(lines):
    "One arm, and the shortcuts that it does not beat."
    first, *more = lines
    gap = "[-]" if np.isnan(first.low) else with_ends(first.difference, first.low, first.high, "+")
    rest = "".join(f", nor {SHORTCUTS[o.shortcut].title} ({o.auc_shortcut:.3f})" for o in more)
    return (f"{arm_title(first.arm)} (AUC {first.auc_arm:.3f}) does not beat {SHORTCUTS[first.shortcut].title} (AUC "
            f"{first.auc_shortcut:.3f}; difference {gap}){rest}")
