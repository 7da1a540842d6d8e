"""One bundle of an arm's models: those of all its folds and seeds, whose mean probability it gives.

With folds, a threshold and a temperature are chosen out of fold: each film is asked of the models that weren't trained
on it. With one split they are chosen on its valid rows, and its test rows stay what they are."""
from pathlib import Path

import pandas as pd

from ..arms import parse_arm
from ..cohort.folder import data_digest
from ..cohort.leaks import LeakError
from ..cohort.rows import read_rows
from ..cohort.sampling import each_fold, folds_of, split_paper
from ..core.csvs import read_csv
from ..core.files import few, read_json, say
from ..core.tuned import tuned_training
from ..core.words import known_word, Words
from ..settings import listed, plan_from
from ..stats.predictions import real_rows
from ..stats.scoring import scores
from ..trained.bundle import ensemble_of, load_bundle, NOT_STATED, save_bundle
from ..trained.chosen import settle_out_of_fold
from .cell import Cell, CellError, read_cell
from .films import Generators
from .grid import Study

__all__ = ["bundle_arm", "bundle_study", "recorded_cells"]

def _rows(folder, about):
    "A study's, as its cells have them: without the columns that only make subgroups."
    rows = read_rows(folder/"rows.csv")
    if about["protocol"] == "paper": rows = rows.assign(split="train") # it is split anew
    if data_digest(rows) == about["data_digest"]: return rows
    return rows.drop(columns=[o for o in about.get("groups", []) if o in rows])

def recorded_cells(
    folder:str|Path, # of a study, as runs/study-1a2b3c4d
) -> dict:           # (backbone, arm, seed) or (backbone, arm, seed, fold) -> `Cell`
    "The cells of a study as it left them, whatever device or version is here. FileNotFoundError for what is no study."
    folder = Path(folder)
    for name in "settings.json", "rows.csv", "cells.csv":
        if not (folder/name).is_file():
            raise FileNotFoundError(f"{folder} is no study: it holds no {name}; give the folder of one, as "
                                    "runs/study-1a2b3c4d.")
    about, lines = read_json(folder/"settings.json"), []
    plan, rows = plan_from(about), _rows(folder, about)
    splits = {None: rows}
    if plan.folds:
        splits = each_fold(rows.drop(columns=folds_of(rows)), plan.folds, plan.repeats, seed=plan.split_seed)
    made = Generators(rows, plan, folder.parent) if plan.training.mode == "probe" else None # which kept heads alone
    keys = ["backbone", "arm", "seed", *(["fold"] if plan.folds else [])]
    for line in read_csv(folder/"cells.csv", ["arm", "backbone", "folder"]).to_dict("records"):
        own = folder.parent/line["folder"]
        settings = read_json(own/"settings.json") if (own/"settings.json").is_file() else dict(seed=line["seed"])
        trained = plan.replace(training=tuned_training(plan.training, line["backbone"]))
        cell = Cell(own, splits[line.get("fold")], trained, settings, name=line["arm"], fold=line.get("fold"),
                    films=made and made.films(parse_arm(line["arm"])))
        lines.append((tuple(line[o] for o in keys), cell))
    return dict(lines)

def _named(name, given, known):
    "One of a study's: the only one where none is named."
    if given is not None: return known_word(name, str(given), known)
    if len(known) > 1: raise ValueError(f"The study has {few(known, 9)}: give one, as in --{name} {known[0]}.")
    return known[0]

def _cells(cells, arm, backbone, seeds):
    "Of one arm and backbone, all finished."
    arm = _named("arm", arm, list(dict.fromkeys(key[1] for key in cells)))
    own = {key: o for key, o in cells.items() if key[1] == arm}
    names = list(dict.fromkeys(key[0] for key in own))
    backbone = names[0] if parse_arm(arm).use == "metadata" else _named("backbone", backbone, names)
    own = {key: o for key, o in own.items() if key[0] == backbone}
    if seeds:
        wanted, there = {str(o) for o in listed(seeds)}, {str(key[2]) for key in own}
        if odd := wanted - there: raise ValueError(f"The study has no seed {few(sorted(odd))}, only {few(there)}.")
        own = {key: o for key, o in own.items() if str(key[2]) in wanted}
    told = {key: " ".join(f"{k} {o}" for k, o in zip(("seed", "fold"), key[2:])) for key in own}
    if lost := [told[key] for key, o in own.items() if not o.done]:
        raise CellError(f"{len(lost)} of the {len(own)} models of {arm} with {backbone} aren't there ({few(lost)}): "
                        "run the study again, which does what is missing.")
    return list(own.values())

def _model(cell):
    "What was trained."
    if not cell.probe: return load_bundle(cell.bundle(), "cpu")
    if data_digest(cell.rows, cell.settings["size"]) != cell.settings["data"]:
        raise CellError(f"{cell}: its films or rows have changed since, so that its head can't be put on them.")
    return cell.learner()

def _said(cell, learn):
    "Of its real test rows, none of which it was trained on."
    table = real_rows(read_cell(cell)[1]).assign(fold=cell.fold)
    if cell.settings["protocol"] == "clean" and (hit := learn.seen.hits(table)).any():
        raise LeakError(f"{cell} was trained on {hit.sum():,} of its {len(table):,} test rows, or on their patients.")
    return table

def _summary(cells, said):
    "What the bundle tells of its making: what its cells have in common, and the scores of the films out of training."
    first = cells[0].settings
    alike = {k: o for k, o in first.items() if k != "weights" and all(c.settings.get(k) == o for c in cells)}
    about = dict(folder=cells[0].folder.name, backbone=first.get("arch"), arm=cells[0].name,
                 protocol=first["protocol"], seeds=len({c.seed for c in cells}))
    if cells[0].fold is not None: about |= dict(folds=len({c.fold for c in cells}))
    films = said.groupby("image").agg(label=("label", "first"), p=("probability", "mean"), who=("patient_id", "first"))
    return dict(cell=about, settings=alike, test=scores(films["label"], films["p"], films["who"]))

def _valid(cell):
    s = cell.settings
    rows = cell.rows if s["protocol"] == "clean" else split_paper(cell.rows, s["split_seed"])
    return rows[rows["split"] == "valid"]

def bundle_arm(
    study:Study|str|Path,     # run; or its folder, as runs/study-1a2b3c4d
    path:str|Path,            # a file that ends in .safetensors, or a folder
    arm:str=None,             # of the study; its only one where not given
    backbone:str=None,        # likewise
    threshold:float|str=None, # above it is positive: a number, 'specificity=.9', 'youden'; .5 where not given
    calibrate:str=None,       # 'temperature': probabilities that mean what they say
    seeds:list=None,          # some of the study's; all where not given
    licence:str=NOT_STATED,   # of weights and training data
    seen:bool=True,           # with salted hashes of all members' training patients and films
) -> Path:                    # `path`
    """Write one bundle of the models of all folds and seeds of an arm: its probability is the mean of theirs. A rule's
    threshold and a temperature are chosen on films out of fold, without folds on valid rows. CellError where a model
    isn't finished; ValueError for an arm that the study hasn't; LeakError for a model that was trained on test rows."""
    cells = _cells(study.cells if isinstance(study, Study) else recorded_cells(study), arm, backbone, seeds)
    models = [_model(o) for o in cells]
    said = pd.concat([_said(*o) for o in zip(cells, models)], ignore_index=True)
    learn = ensemble_of(models, summary=_summary(cells, said))
    about = dict(licence=licence, seen=seen)
    if cells[0].fold is not None:
        return save_bundle(settle_out_of_fold(learn, said, threshold, calibrate), path, **about)
    if isinstance(threshold, str) or calibrate: about |= dict(valid=_valid(cells[0]))
    return save_bundle(learn, path, threshold, calibrate=calibrate, **about)

def _rule(text):
    "A number where it is one."
    try: return float(text)
    except (TypeError, ValueError): return text

def bundle_study(
    study:str,            # its folder, as runs/study-1a2b3c4d
    arm:str=None,         # of the study; its only one where not given
    backbone:str=None,    # likewise
    threshold:str=None,   # above it is positive: a number, specificity=.9 or youden; .5 where not given
    calibrate:str=None,   # 'temperature': probabilities that mean what they say
    seeds:Words=None,     # some of the study's, as 0,1; all where not given
    out:str="bundle.safetensors", # the file; another name is a folder's
    licence:str=None,     # of weights and training data
) -> Path:                # `out`
    "`bundle_arm` of a study's folder."
    path = bundle_arm(study, out, arm, backbone, _rule(threshold), calibrate, seeds, licence or NOT_STATED)
    learn = load_bundle(path, "cpu")
    members = len(learn.card["members"])
    say(f"The mean of {members} models; above {learn.threshold:.3g} it says {learn.dls.vocab[1]}.")
    return path
