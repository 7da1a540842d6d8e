"""How good a study's synthetic films are, of every generator, and what was changed in them, in one table."""
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..arms import ARMS, arm_title
from ..cohort.generated import AT, external_films
from ..cohort.parts import has_source
from ..cohort.rows import classes, positive
from ..cohort.synthetic import read_manifest
from ..core.csvs import read_csv, write_csv
from ..core.files import one_line, say
from ..fit.distributed import alone
from ..gan.judge import judge_films
from ..stats.changed import Called, called_lines
from .grid import Study

__all__ = ["save_films"]

REAL = next(iter(ARMS)) # the arm of real films alone
CLASSIFIER = ("the study's classifier that reads no metadata, and was trained on the sources, puts above the level "
              "that as many real valid films reach as are positive")

class Films(NamedTuple):
    "Synthetic films of the minority, and what is known of them."
    of:str              # folder in the study's `out`; of another generator, its name after an @, and a part's
    rows:pd.DataFrame   # real ones, split
    synth:pd.DataFrame  # synthetic ones
    table:pd.DataFrame  # of quality.csv
    key:tuple           # seed and fold of the cells that may be asked; no seed: any

def _ours(study):
    "Films of the study's own translator that were judged, of each seed and fold."
    places = {str(study.place(c)): c for c in study.cells.values() if c.gan}
    for of, c in places.items():
        if (file := study.out/of/"quality.csv").exists():
            yield Films(of, c.rows, read_manifest(file.parent), read_csv(file), (c.seed, c.fold))

def _theirs(study, folder):
    "Films of other generators, judged by the rows of the first split; what is found of each lies in a folder of it."
    fold, rows = next(iter(study.splits.items()))
    for arm in {(o.films, o.part): o for o in (c.arm for c in study.cells.values()) if o.films}.values():
        of = f"{AT}{arm.films}" + (f"+{arm.part}" if arm.part else "")
        if arm.part: study.generators.write(arm) # they may have gone since
        synth = external_films(rows, study.generators.films(arm), arm.films, metadata="missing")
        synth = synth[positive(synth)].reset_index(drop=True)
        (place := folder/"films"/of[1:]).mkdir(parents=True, exist_ok=True)
        table = judge_films(rows, synth, place, study.plan.training.size, study.plan.gan.weights)
        if table is not None: yield Films(of, rows, synth, table, (None, fold))

def _judges(study):
    "A finished cell of Real for each backbone: the first."
    found = {}
    for c in study.cells.values():
        if c.name == REAL and c.done: found.setdefault(c.settings["arch"], c)
    return found

def _probabilities(cell, *tables):
    "What its model says of the films of each."
    learn, both = cell.learner(), pd.concat([o[["image", "file"]] for o in tables], ignore_index=True)
    with alone(), learn.no_bar(): prob, _ = learn.get_preds(dl=learn.dls.test_dl(both))
    return np.split(prob[:, 1].numpy(), np.cumsum([len(o) for o in tables[:-1]]))

def _called(cell, films):
    "What a cell of Real says of films, before translation and after it."
    rows, synth, valid = films.rows, films.synth, films.rows[films.rows["split"] == "valid"]
    own = synth.loc[has_source(rows, synth), "source_image"].astype(str)
    sources, hit = rows.set_index(rows["image"].astype(str)).loc[own], positive(valid)
    told, before, after = _probabilities(cell, valid, sources, synth)
    level = np.quantile(told, 1 - hit.mean()) # whatever it was trained to take for likely
    called = lambda prob, table: Called(prob > level, table["patient_id"].to_numpy())
    floors = [called(told[o], valid[o]) for o in (~hit, hit)]
    by = f"{cell.settings['arch']}, {arm_title(REAL)}, seed {cell.seed}"
    return called_lines(str(classes(rows)[1]), "classifier", called(before, sources), called(after, synth), floors, by,
                        CLASSIFIER)

def _asked_of(cells, films):
    "Lines of each cell; one that can't be asked, as films have gone, is said."
    for c in cells:
        try: yield _called(c, films).assign(judged_on="valid")
        except (OSError, ValueError) as e: say(f"{c} isn't asked about the films of {films.of}: {one_line(e)}")

def save_films(
    study:Study,       # after `run`
    folder:str|Path,   # of its tables
) -> pd.DataFrame:     # `of`, and the columns of `quality`, with `meaning`; None where no films were judged
    """Write what is said of the films of each generator: `quality.csv`, with the first Real cell of each backbone for
    a classifier, and of other generators what was judged here."""
    parts, judges = [], _judges(study)
    for films in (*_ours(study), *_theirs(study, Path(folder))):
        asked = [c for c in judges.values() if films.key in ((c.seed, c.fold), (None, c.fold))]
        parts.append(pd.concat([films.table, *_asked_of(asked, films)]).assign(of=films.of))
    if not parts: return
    table = pd.concat(parts, ignore_index=True)
    write_csv(table[["of", *table.columns.drop("of")]], Path(folder)/"quality.csv")
