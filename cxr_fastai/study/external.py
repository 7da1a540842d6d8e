"""Rows from elsewhere in a study: every finished cell is asked about them, at .5 and at the thresholds that its own
valid rows gave, so that the study's tables stand beside the same tables of other films."""
import shutil
from pathlib import Path

import pandas as pd

from ..arms import parse_arm
from ..cohort.cache import RadiographCache
from ..cohort.folder import named_tables
from ..cohort.groups import with_groups
from ..cohort.leaks import LeakError
from ..cohort.rows import classes
from ..cohort.seen import Seen
from ..core.csvs import write_csv
from ..core.files import few
from ..settings import listed, Plan
from ..stats.carried import carried_shortcuts
from ..stats.compare import compare_arms
from ..stats.formats import save_table
from ..stats.outside import findings, histogram, inside_outside, outside_table, refitted_recall, site_table
from ..stats.tables import metrics_table, score_tables
from ..trained.bundle import load_bundle
from ..trained.overall import labelled_as
from ..trained.validate import films_unlike, inside_of, missing_note
from .films import marked
from .grid import Study

__all__ = ["read_external", "recorded_external", "save_external"]

def recorded_external(
    external:str, # NAME=TABLE, with commas, or a list of them
) -> list:        # the same, for `settings.json`: as it finds the tables from any folder
    "What a study's settings say of its rows from elsewhere."
    pairs = [o.partition("=") for o in listed(external)]
    return [f"{k}={o if o == 'phantom' else Path(o).absolute()}" for k, _, o in pairs]

def _hashes(rows, plan):
    "Of the films, as cells see them; None where no arm does."
    if all(parse_arm(o).use == "metadata" for o in plan.arms): return None
    return RadiographCache(rows["file"].tolist(), plan.training.size).hashes(rows["file"].tolist())

def read_external(
    external:str, # NAME=TABLE, with commas, or a list of them; a table is whatever `--data` reads without more flags
    real:pd.DataFrame, # rows of the study, which may not be among them
    plan:Plan,    # of it
) -> dict:        # name -> rows with a label, in the study's words
    """Rows from elsewhere, read before the first cell runs. LeakError where a patient or a film is the study's own;
    ValueError or FileNotFoundError for what is no such table."""
    found, own = {}, Seen()
    if tables := named_tables(external): own.add(real, _hashes(real, plan))
    for name, rows in tables.items():
        rows = labelled_as(rows[rows["label"].notna()].reset_index(drop=True), classes(real))
        rows = rows.drop(columns="split", errors="ignore")
        if not len(rows): raise ValueError(f"--external {name}: there is no row with a label.")
        if (twice := rows["image"].duplicated()).any():
            raise ValueError(f"--external {name}: {few(rows['image'][twice])} stands twice.")
        if (hit := own.hits(rows, _hashes(rows, plan))).any():
            raise LeakError(f"--external {name}: {hit.sum():,} of its {len(rows):,} films, or their patients, are in "
                            f"the study itself: {few(rows['image'][hit].astype(str))}; leave them out. If these are "
                            "others under the same ids, give them ids of their own.")
        found[name] = rows
    return found

def _asked(study, rows):
    "What every finished cell says of `rows`, long; and of each backbone and arm, what is known of its films."
    lines, known, said = [], {}, {}
    for key, cell in study.cells.items():
        if not cell.done: continue
        if cell.folder not in said: # arms that are trained alike share a cell
            learn = load_bundle(cell.bundle())
            with learn.no_bar(): prob, label = learn.get_preds(dl=learn.dls.test_dl(rows, with_labels=True))
            about = missing_note(learn, rows), inside_of(learn), *films_unlike(learn, rows)
            said[cell.folder] = prob[:, 1].numpy(), label.numpy(), *about
        prob, label, *about = said[cell.folder]
        known.setdefault(key[:2], about)
        table = rows[["image", "patient_id"]].assign(side="test", label=label, probability=prob, synthetic=False)
        lines.append(table.assign(**dict(zip(study.keys, key))))
    return pd.concat(lines, ignore_index=True), known

def _of_arms(lines, known, rows, groups):
    "Findings, histogram and sites of each backbone and arm, by the mean of its models' probabilities."
    parts = dict(findings=[], histogram=[], sites=[])
    for (backbone, arm), own in lines.groupby(["backbone", "arm"], sort=False):
        lost, inside, grays, unlike = known[backbone, arm]
        mean = own.groupby("image", sort=False).agg(prob=("probability", "mean"), label=("label", "first"),
                                                    patient=("patient_id", "first"))
        label, prob, who = mean["label"].to_numpy(), mean["prob"].to_numpy(), pd.factorize(mean["patient"])[0]
        said = lost + findings(label, prob, who, inside, grays, unlike, outside_table(label, prob, who, inside, n=400))
        about = dict(backbone=backbone, arm=arm)
        parts["findings"].append(pd.DataFrame(dict(finding=said)).assign(**about))
        parts["histogram"].append(histogram(label, prob).assign(**about))
        for column in groups:
            words = rows[column].map(str, na_action="ignore").fillna("missing").to_numpy()
            parts["sites"].append(site_table(label, prob, who, inside.threshold, words).assign(column=column, **about))
    return {k: pd.concat(o, ignore_index=True) for k, o in parts.items() if o}

def save_external(
    study:Study,              # after `run`
    predictions:pd.DataFrame, # of its `collect`
    cells:pd.DataFrame,       # too
    scored:pd.DataFrame,      # its `score_table`
    shortcuts:pd.DataFrame,   # its `scored_shortcuts`
    pairs:list,               # arms that are compared
    external:dict,            # of `read_external`
    groups:list,              # columns whose values are set side by side, as far as a table has them
    folder:Path,              # the study's
):
    "The study's tables on each table from elsewhere, in `external/NAME`."
    shutil.rmtree(folder/"external", ignore_errors=True)
    for name, rows in external.items():
        there = []
        for o in groups:
            try: rows = with_groups(rows, o)
            except ValueError: continue # which another table needn't have
            there.append(o)
        lines, known = _asked(study, rows)
        whole = pd.MultiIndex.from_frame(predictions[study.keys]).unique() # a seed counts with all of its folds
        lines = lines[pd.MultiIndex.from_frame(lines[study.keys]).isin(whole)]
        both = pd.concat([predictions[(predictions["side"] == "valid") & ~predictions["synthetic"]], lines])
        mine = cells[pd.MultiIndex.from_frame(cells[study.keys]).isin(whole)]
        found = score_tables(both, mine, epoch_rule=study.plan.training.epoch_rule)[0]
        found = pd.concat([found, refitted_recall(lines)], ignore_index=True)
        plain = dict(predictions=lines, scores=found) | _of_arms(lines, known, rows, there)
        shown = dict(inside_outside=inside_outside(scored, found), comparisons=compare_arms(both, pairs),
                     metrics=metrics_table(found[found["metric"] != "recall_refitted"]))
        inside = study.splits if study.plan.folds else study.split_rows
        plain |= dict(shortcuts=carried_shortcuts(inside, rows, shortcuts, study.plan.training.size))
        for k, table in plain.items(): write_csv(marked(table, study), folder/"external"/name/f"{k}.csv")
        for k, table in shown.items(): save_table(marked(table, study), folder/"external"/name/k)
