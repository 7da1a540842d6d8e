"""One cell of a study: a backbone, an arm and a seed in a folder that is named by all that determines it.

`scores.json` is written last, with checksums of the files beside it: a folder without one is begun anew, one whose
files have other checksums is refused, and one whose lock is held is left to its process."""
import contextlib, hashlib, os, shutil, time, traceback
from pathlib import Path

import torch
import pandas as pd
from fastai.callback.tracker import SaveModelCallback
from fastai.torch_core import num_distrib
from filelock import FileLock, Timeout
from safetensors.torch import load_file, save_file

from ..arms import arm_title, parse_arm
from ..cohort.folder import data_digest
from ..cohort.sampling import split_paper
from ..cohort.generated import external_films, OWN
from ..cohort.rows import classes
from ..cohort.synthetic import add_synthetic
from ..core.csvs import read_csv, write_csv
from ..core.files import atomic, one_line, read_json, say, write_json
from ..data.loaders import RadiographDataLoaders
from ..fit.callbacks import HistoryWriter, Reported
from ..fit.distributed import agreed, alone, is_first, together
from ..fit.precision import device_name
from ..fit.tracking import tracked
from ..gan.pipeline import synthetic_minority
from ..models.learner import fusion_learner, image_learner, metadata_learner, RadiographLearner
from ..models.predictions import predict_rows
from ..models.pretrain import pretrain, pretraining_rows
from ..models.probe import probe_learner, whole_learner
from ..models.rivals import rival_dls, rival_learner, train_prior
from ..settings import Plan
from ..stats.predictions import real_rows
from ..stats.scoring import scores
from ..trained.bundle import save_bundle

__all__ = ["Cell", "CellError", "arm_rows", "fit_cell", "logged", "read_cell", "run_cell", "train_cell"]

LEARNERS = {"image": image_learner, "metadata": metadata_learner, "both": fusion_learner}
RESULTS = "predictions.csv", "history.csv"
HEAD = "head.safetensors" # of a probe

class CellError(RuntimeError):
    "A cell can't be run or read: one sentence says which, and what to do."

class Cell:
    """What one folder of a study is of: a backbone, an arm and a seed of a plan, over real rows. `settings` are all
    that determines its result; `name` and `track` are its study's alone."""
    def __init__(self,
        folder:str|Path,   # its own
        rows:pd.DataFrame, # real ones, split
        plan:Plan,         # of its study
        settings:dict,     # all that determines the result
        name:str="",       # its arm in full, as its study has it; what determines it stands in `settings`
        track:str="",      # trackers, as in `tracked`
        fold:int=None,     # whose rows they are, where its study has folds
        films:pd.DataFrame=None, # of another generator, as of `read_films`, where its arm has them
    ):
        self.folder, self.rows, self.plan, self.settings = Path(folder), rows, plan, settings
        self.name, self.track, self.fold, self.films = name or settings["arm"], track, fold, films
    def __repr__(self): return self.folder.name
    @property
    def arm(self): return parse_arm(self.name)
    @property
    def seed(self): return self.settings["seed"]
    @property
    def title(self):
        "In words, as its epoch table's head."
        fold = "" if self.fold is None else f"fold {self.fold}"
        return ", ".join(filter(None, [self.settings.get("arch"), arm_title(self.name), f"seed {self.seed}", fold]))
    @property
    def kind(self):
        "Cells that take about as long, in words."
        return f"cells of {self.settings.get('arch', 'metadata')}"
    @property
    def done(self): return (self.folder/"scores.json").exists()
    @property
    def gan(self):
        "The plan's, with this arm's number of synthetic rows and the policy of their metadata; None without our own."
        if self.arm.own: return self.plan.gan.replace(synthetic=self.settings["n"], metadata=self.settings["policy"])
    @property
    def syntheses(self):
        """`gan`, direction and part of each class that is made for it: the minority, before pretraining the majority,
        too."""
        if not self.gan: return []
        more = [(self.gan.replace(synthetic=self.settings["n_negative"]), "b2a")] if self.arm.pretraining else []
        return [(*o, self.arm.part) for o in [(self.gan, "a2b"), *more]]
    @property
    def numbers(self):
        "Label -> how many films its arm has beside the real ones."
        neg, pos = classes(self.rows)
        return {o: self.settings[k] for o, k in ((pos, "n"), (neg, "n_negative")) if k in self.settings}
    @property
    def probe(self):
        "Whether its head alone is trained."
        return "views" in self.settings

    def learner(self) -> RadiographLearner: # with its rows, so that `fine_tune` goes on from there; a probe's, too
        "What was trained, the backbone below a probe's head. CellError where the cell isn't finished."
        if not self.done: raise CellError(f"{self} isn't finished: run its study first.")
        dls = _dls(self, arm_rows(self))
        learn = _learner(self, dls)
        file = HEAD if self.probe else "bundle/model.safetensors"
        learn.model.load_state_dict(load_file(self.folder/file))
        learn.seen.add(dls.train_ds.items, dls.hashes(dls.train_ds.items))
        return whole_learner(learn, dls, self.settings["precision"]) if self.probe else learn

    def bundle(self) -> Path: # a folder, for `predict`, `explain` and `load_bundle`
        "Its bundle; a probe's is made at the first call."
        if not (folder := self.folder/"bundle").exists():
            found = {k: o for k, o in read_cell(self)[0].items() if k in scores([0, 1], [0, 1])}
            save_bundle(self.learner(), folder, summary=_summary(self, found))
        return folder

    @property
    def about(self):
        "Which cell it is, for its bundle: a study's cells.csv has a line of the same folder."
        s = self.settings
        about = dict(folder=self.folder.name, backbone=s.get("arch"), arm=self.name, seed=s["seed"],
                     protocol=s["protocol"])
        return about if self.fold is None else about | dict(fold=self.fold)

def _synthetic(cell):
    "Synthetic rows of a cell's arm: another generator's; or our own, made and told by the job before."
    if cell.arm.films:
        metadata = cell.settings["policy"] if cell.settings["policy"] != OWN else None
        return external_films(cell.rows, cell.films, cell.arm.films, cell.numbers, metadata, cell.seed)
    out, kwargs = cell.folder.parents[1], dict(seed=cell.seed, aloud=False)
    return pd.concat([synthetic_minority(cell.rows, out, o, direction=way, part=part, **kwargs)
                      for o, way, part in cell.syntheses])

def _before(cell):
    "Films on which a cell's model is fitted before its rows: synthetic ones, or real ones again."
    synth = _synthetic(cell) if cell.arm.reads_synth else None
    return pretraining_rows(cell.rows, cell.numbers, synth, cell.seed)

def arm_rows(
    cell:Cell,     # whose arm
) -> pd.DataFrame: # real rows, and what the arm adds to them
    "The table an arm is trained on. By the 'paper' protocol, what is synthetic is then split among all sides."
    s, rows = cell.settings, cell.rows
    if cell.arm.synth: rows = add_synthetic(rows, _synthetic(cell))
    if s["protocol"] == "paper": rows = split_paper(rows, s["split_seed"])
    if cell.arm.again: rows = cell.arm.again(rows, s["n"], s["seed"])
    return rows

def _dls(cell, rows):
    t, s = cell.plan.training, cell.settings
    return RadiographDataLoaders.from_df(rows, cell.folder, size=s.get("size", 32), bs=t.bs, seed=cell.seed,
                                         use=cell.arm.use, protocol=cell.plan.protocol, cat_names=t.cat_names,
                                         cont_names=t.cont_names, **rival_dls(cell.arm.rival))

def _learner(cell, dls):
    t, s = cell.plan.training, cell.settings
    kwargs = {o: s[o] for o in ("arch", "weights", "precision", "fusion", "ps", "views") if o in s}
    if cell.probe: kwargs |= {k: o for k, o in rival_dls(cell.arm.rival).items() if k == "tfms"}
    make = probe_learner if cell.probe else LEARNERS[cell.arm.use]
    learn = make(dls, seed=cell.seed, cbs=HistoryWriter(cell.folder/"history.csv"), **kwargs)
    if t.epoch_rule == "best": learn.add_cb(SaveModelCallback("rocauc", fname="best"))
    return rival_learner(learn, cell.arm.rival)

def _summary(cell, scores):
    "What a bundle tells of its making."
    told = {k: v for k, v in cell.settings.items() if k != "weights"} # may be a path here; the card says what they were
    return dict(cell=cell.about, settings=told, test=scores)

def _save_head(learn, file):
    with atomic(file) as tmp: save_file({k: o.contiguous() for k, o in learn.model.state_dict().items()}, tmp)

def _sha(file): return hashlib.sha256(file.read_bytes()).hexdigest()

def fit_cell(
    cell:Cell,         # whose folder is there
    rows:pd.DataFrame, # of `arm_rows`
    cbs=(),            # further callbacks of its training
) -> tuple:            # its learner; the seconds of its training, and what came before its rows
    "Train a cell's learner; nothing is predicted but its valid rows, epoch by epoch."
    learn, folder = _learner(cell, _dls(cell, rows)), cell.folder
    fit = learn.fit_one_cycle if cell.probe else learn.fine_tune # nothing below a probe could be unfrozen
    begin, own, before = time.time(), (cell.plan.training.epochs, cell.plan.training.lr), {}
    if is_first(): say(f"\n{cell.title}", flush=True)
    with together(learn), tracked(cell.track if is_first() else "", folder, folder.name, cell.settings) as trackers:
        with learn.added_cbs([Reported(), *trackers, *cbs]):
            if cell.arm.pretraining: before = pretrain(learn, agreed(lambda: _before(cell)), *own)
            fit(*own)
    return learn, before | dict(training=round(time.time() - begin, 2))

def train_cell(
    cell:Cell, # whose folder is there
    cbs=(),    # further callbacks of its training
) -> dict:
    "Train, predict and write; gives what `scores.json` holds."
    start, s, folder = time.time(), cell.settings, cell.folder
    rows = agreed(lambda: arm_rows(cell))
    before = data_digest(rows, s.get("size"))
    learn, told = fit_cell(cell, rows, cbs)
    if not is_first(): return
    with alone(): table = predict_rows(learn, rows)
    write_csv(table, folder/"predictions.csv", float_format="%.9g")
    shutil.rmtree(folder/learn.model_dir, ignore_errors=True)
    if data_digest(rows, s.get("size")) != before: raise CellError("its radiographs changed while it was trained")
    real = real_rows(table)
    found = scores(real["label"], real["probability"], real["patient_id"])
    if cell.probe: _save_head(learn, folder/HEAD) # a bundle of each would be its backbone again and again
    else: save_bundle(learn, folder/"bundle", summary=_summary(cell, found))
    train = cell.rows if s["protocol"] == "clean" else split_paper(cell.rows, s["split_seed"])
    return found | told | dict(
        weights=learn.weights, prior=train_prior(train), train_prior=train_prior(rows, cell.arm.rival),
        seconds=round(time.time() - start, 2), threads=torch.get_num_threads(),
        device=device_name(learn.dls.device), processes=max(1, num_distrib()),
        files={o: _sha(folder/o) for o in RESULTS})

def logged(
    file:str|Path, # what is printed within goes to its end; None: to where it would go
):
    "Context for a job of a grid, which would drown its progress."
    stack = contextlib.ExitStack()
    if file is None: return stack
    log = stack.enter_context(open(file if is_first() else os.devnull, "a", encoding="utf-8"))
    for o in contextlib.redirect_stdout, contextlib.redirect_stderr: stack.enter_context(o(log))
    return stack

def _clear(folder):
    for o in folder.iterdir():
        if o.is_dir(): shutil.rmtree(o)
        elif o.name != ".lock": o.unlink()

def _attempt(cell, loud):
    "Run the cell, whose lock is held; an error is its outcome and never its study's end."
    try:
        if is_first():
            _clear(cell.folder)
            write_json(cell.folder/"settings.json", cell.settings)
        with logged(None if loud else cell.folder/"log.txt"): result = train_cell(cell)
        if is_first(): write_json(cell.folder/"scores.json", result)
        return dict(status="done")
    except Exception as e:
        with contextlib.suppress(OSError):
            (cell.folder/"error.txt").write_text(traceback.format_exc(), encoding="utf-8")
        return dict(status="failed", error=f"{cell}: {one_line(e)}")

def run_cell(
    cell:Cell,       # one of `Study.cells`
    loud:bool=False, # print to the terminal, not to log.txt
) -> dict: # status: 'done' (now or before), 'busy' (another process has it) or 'failed', with `error`, one sentence
    "Run one cell, unless it is done or another process runs it."
    def begin():
        "The lock, and whether there is something to do."
        cell.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(cell.folder/".lock")
        try: lock.acquire(timeout=0)
        except Timeout: return "busy"
        held.append(lock)
        return "done" if cell.done else "begin"
    held = []
    try:
        status = agreed(begin)
        if status == "begin": return _attempt(cell, loud)
        return dict(status=status)
    except OSError as e: return dict(status="failed", error=f"{cell}: {e}")
    finally:
        for lock in held: lock.release()

def read_cell(
    cell:Cell, # one of `Study.cells`
) -> tuple: # its scores, and its predictions
    "What a finished cell left. CellError where its files aren't those that were written."
    def damaged(why):
        return CellError(f"{cell.folder} is damaged ({why}): delete it, and the same command runs it again.")
    try: result = read_json(cell.folder/"scores.json")
    except (OSError, ValueError): raise damaged("scores.json can't be read") from None
    for name in RESULTS:
        file = cell.folder/name
        if not file.exists(): raise damaged(f"{name} is missing")
        if _sha(file) != result.get("files", {}).get(name): raise damaged(f"{name} isn't what was written")
    return result, read_csv(cell.folder/"predictions.csv", ["image", "patient_id"])
