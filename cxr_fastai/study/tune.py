"""A search for how a study's classifiers are trained: learning rate, epochs, dropout and fusion, by valid rows alone.

One arm is searched with each backbone, and what is found holds for all arms, which are compared at equal settings. A
search has no test rows: its table of films ends at valid, so that nothing of test could be looked at."""
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
from fastai.torch_core import num_distrib
from filelock import FileLock, Timeout

from ..arms import FUSIONS, parse_arm
from ..core.csvs import read_csv, write_csv
from ..core.extras import need
from ..core.files import one_line, say
from ..core.tuned import choice_text, choices, SEARCHED, searched_of
from ..report.searched import SEEDS, tuned_words
from ..settings import named_by_content, Plan, settings_digest
from ..stats.scoring import scores
from .cell import Cell, CellError, fit_cell, logged
from .grid import Study

__all__ = ["Search", "trials_of", "tuned_plan"]

MOST_PS = .8 # dropout beyond which hardly anything is left to learn by

class Search:
    """Trials of one backbone of a study, in `out/tune`: a journal of optuna's and a table. The first is the settings as
    they are; trial n follows from those before it and the seed, so that a search that was killed, or is asked for more
    trials, goes on as if it had never ended."""
    def __init__(self,
        rows:pd.DataFrame, # after `split_patients`
        plan:Plan,         # of the study
        backbone:str,      # one of its, as resnet50 or resnet50=FILE
        out:str|Path,      # folder of everything
        make=Study,        # of its cells
    ):
        name, arm = backbone.partition("=")[0], searched_of(plan.arms, plan.primary)
        own = plan.replace(backbones=[backbone], arms=[arm], seeds=plan.seeds[:SEEDS], primary=None, tune=None,
                           synthetic_from=(), training=plan.training.replace(tuned=None))
        self.study = make(rows[rows["split"] != "test"], own, out)
        self.backbone, self.arm, self.training = name, arm, self.study.plan.training
        self.folder = Path(out).absolute()/"tune"
        asked = dict(t=self.training, arm=arm, seeds=own.seeds, data=self.study._digest(self.training.size),
                     backbone=name, weights=named_by_content(own.weights_of[name]))
        self.name = "-".join([re.sub(r"[^.\w-]+", "-", name), arm, settings_digest(asked)])

    def _file(self, ending): return self.folder/f"{self.name}{ending}"

    @property
    def space(self):
        "What is tried: ten times the rate either way, half the epochs to twice, dropout, ways to merge."
        o, t, use = _optuna().distributions, self.training, parse_arm(self.arm).use
        space = dict(lr=o.FloatDistribution(t.lr/10, 10*t.lr, log=True),
                     epochs=o.IntDistribution(-(-t.epochs//2), 2*t.epochs))
        if use != "metadata": space |= dict(ps=o.FloatDistribution(0, max(MOST_PS, t.ps)))
        if use == "both": space |= dict(fusion=o.CategoricalDistribution(self._fusions()))
        return space

    def _fusions(self): return [o for o in FUSIONS if o != "attention" or self.training.mode != "probe"]

    def _journal(self):
        "Optuna's study, which is begun where it isn't there."
        optuna, file = _optuna(), self._file(".log")
        from optuna.storages.journal import JournalFileBackend, JournalStorage
        try:
            there = file.exists() and file.stat().st_size
            storage = JournalStorage(JournalFileBackend(str(file), lock_obj=FileLock(f"{file}.lock")))
            if there: return optuna.load_study(study_name=self.name, storage=storage)
            return optuna.create_study(study_name=self.name, storage=storage, direction="maximize")
        except (ValueError, KeyError, TypeError) as e:
            raise CellError(f"{file} is damaged ({one_line(e)}): delete it, and the same command searches again."
                            ) from None

    @property
    def done(self) -> int:
        "Trials that are there."
        return len(self._journal().trials) if self._file(".log").exists() else 0

    def _next(self, done):
        "What is tried after these trials: by a sampler of its own, so that it is the same after a kill."
        if not done: return {o: getattr(self.training, o) for o in self.space}
        optuna, first = _optuna(), self.study.seeds[0]
        seed = int(np.random.SeedSequence([first, len(done)]).generate_state(1)[0])
        past = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
        past.add_trials(done)
        return past.ask(self.space).params

    def _auc(self, cell, chosen, folder):
        "Of the valid rows, by a cell that is trained as was chosen; nan where its model gives no numbers."
        plan = cell.plan.replace(training=cell.plan.training.replace(**chosen))
        trial = Cell(folder/f"seed-{cell.seed}", cell.rows, plan, cell.settings | chosen, name=cell.name)
        trial.folder.mkdir()
        learn, _ = fit_cell(trial, cell.rows)
        with learn.no_bar(): prob, label = learn.get_preds(dl=learn.dls.valid)
        return scores(label.numpy(), prob[:, 1].numpy())["rocauc"] if prob.isfinite().all() else np.nan

    def _trial(self, chosen):
        optuna = _optuna()
        with TemporaryDirectory() as tmp, logged(self._file(".txt")):
            value = float(np.mean([self._auc(o, chosen, Path(tmp)) for o in self.study.cells.values()]))
        found = dict(state=optuna.trial.TrialState.FAIL) if np.isnan(value) else dict(value=value)
        return optuna.trial.create_trial(params=chosen, distributions=self.space, **found)

    def run(self,
        n:int, # trials in all
    ) -> dict: # of `core.tuned.CHOICE`: the best one's settings
        "Search, or go on; one process at a time. CellError where no trial gives numbers."
        self.folder.mkdir(parents=True, exist_ok=True)
        with _alone(self._file(".lock")):
            kept = self._journal()
            while (done := len(kept.trials)) < n:
                trial = self._trial(self._next(kept.trials))
                kept.add_trial(trial)
                words = tuned_words([choice_text(self.backbone, **trial.params)])
                say(f"trial {done + 1} of {n}, {words}: {_said(trial)}", flush=True)
            trials = kept.trials[:n]
        table = pd.DataFrame([self._line(i, o) for i, o in enumerate(trials)])
        if table["rocauc"].isna().all():
            raise CellError(f"No trial of {self.backbone} gave a number: its settings are beyond what it can learn by.")
        best = table["rocauc"].idxmax() # the first of equals
        write_csv(table.assign(chosen=np.where(table.index == best, "yes", "no")), self._file(f"-{n}.csv"))
        return trials[best].params | dict(trials=n, search=self.name)

    def _line(self, i, trial):
        settings = dict.fromkeys(SEARCHED) | trial.params
        about = dict(search=self.name, backbone=self.backbone, arm=self.arm, trial=i + 1)
        return about | settings | dict(rocauc=_value(trial))

def _said(trial): return "no numbers" if trial.value is None else f"valid AUC {trial.value:.3f}"
def _value(trial): return np.nan if trial.value is None else trial.value

def _optuna():
    optuna = need("optuna", extra="tune", what="--tune")
    optuna.logging.set_verbosity(optuna.logging.WARNING) # a line a trial is said here
    return optuna

def _alone(file):
    "A lock, for which another process is waited aloud."
    lock = FileLock(file)
    try: return lock.acquire(timeout=0)
    except Timeout: say(f"waiting for another process, which searches too ({file})", flush=True)
    return lock.acquire()

def tuned_plan(
    plan:Plan,         # with `tune`, trials a backbone
    rows:pd.DataFrame, # after `split_patients`
    out:str|Path,      # folder of everything
    search:bool=True,  # no: what isn't searched yet stays as it is
) -> Plan:             # with `tuned`: what was chosen, by which its study trains
    """Search what a plan's backbones train by, as far as `tuned` doesn't say it: then it is of the same films and
    settings, and as many trials. Test rows are left out before anything else."""
    if num_distrib() > 1: raise ValueError("A search (tune=) is of one process: run it first, without torchrun.")
    known, found = choices(plan.training.tuned), []
    for o in plan.backbones:
        one = Search(rows, plan, o, out)
        chosen = known.get(one.backbone, {})
        if (chosen.get("trials"), chosen.get("search")) != (plan.tune, one.name):
            if not search and one.done < plan.tune: continue
            chosen = one.run(plan.tune)
        found.append(choice_text(one.backbone, **chosen))
    return plan.replace(training=plan.training.replace(tuned=found or None))

def trials_of(
    plan:Plan,    # with `tuned`
    out:str|Path, # folder of everything
) -> pd.DataFrame:
    "Every trial of the searches that chose; empty where they were run in another folder."
    files = [Path(out)/"tune"/f"{o['search']}-{o['trials']}.csv" for o in choices(plan.training.tuned).values()
             if {"search", "trials"} <= set(o)]
    tables = [read_csv(o) for o in files if o.exists()]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
