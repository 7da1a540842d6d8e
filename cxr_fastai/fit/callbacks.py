"""What a fit prints and keeps of each epoch."""
import time
from collections.abc import Callable
from math import isnan
from pathlib import Path

import pandas as pd
from fastai.callback.core import Callback
from fastai.callback.progress import ProgressCallback
from fastai.imports import noop
from fastcore.imports import IN_NOTEBOOK

from ..core.csvs import write_csv
from ..core.files import bar_fits, say
from ..core.progress import left_in_words, report

__all__ = ["EpochLines", "EpochTable", "HistoryWriter", "Noting", "PlainTable", "Reported", "epoch_table", "noted"]

class Noting(Callback):
    """What notes something at some epochs, in columns of their lines of history.csv beside the epoch table's. A
    checkpoint keeps what `state_dict` gives, so that a run that goes on has noted what the unbroken one has."""
    def before_fit(self): self.columns = {} # epoch -> {column: number or text}
    def state_dict(self): return dict(columns=self.columns)
    def load_state_dict(self, state): self.columns = state["columns"]

def noted(
    learn:object, # a Learner, while it fits
    epoch:int,    # from 0
) -> dict:        # column -> number or text
    "What callbacks noted at an epoch."
    found = [o.columns.get(epoch, {}) for o in learn.cbs if isinstance(o, Noting)]
    return {k: v for o in found for k, v in o.items()}

class _Told:
    "The smooth loss in words, asked for when a bar is drawn, a few times a second: at each step it would wait."
    def __init__(self, learn): self.learn = learn
    def __str__(self): return f"{self.learn.smooth_loss.item():.4f}" if hasattr(self.learn, "smooth_loss") else ""

class EpochTable(ProgressCallback):
    "fastai's progress bar and table, with the columns of the paper's Figs 3-5 alone: neither epoch nor time."
    name = "progress"
    def before_fit(self):
        super().before_fit()
        if self.create_mbar: self.mbar.update(0) # starts its clock: a resumed fit begins at a later epoch

    def after_batch(self):
        self.pbar.comment = _Told(self.learn)
        self.pbar.update(self.iter + 1)

    def _write_stats(self, log): super()._write_stats(_defined(log[1:-1]))

def _defined(log):
    "What an epoch's line says; '-' for what is undefined, as precision where nothing is called."
    return ["-" if isinstance(o, float) and isnan(o) else o for o in log]

class PlainTable(Callback):
    "The same table as plain lines, for a stdout that is a file: fastai's bar would write its frames there."
    order = 60
    def before_fit(self):
        self.headed, self.old_logger = False, self.logger
        if self.logger is not noop: self.learn.logger = self._write

    def after_fit(self): self.learn.logger = self.old_logger

    def _write(self, log):
        if not self.headed: say(self._line(self.recorder.metric_names), flush=True)
        self.headed = True
        say(self._line(log), flush=True)

    def _line(self, log):
        log = _defined(log[1:-1])
        return "  ".join(f"{f'{o:.6f}' if isinstance(o, float) else o:<10}" for o in log).rstrip()

class EpochLines(Callback):
    "A few lines on how far a long fit is, for a terminal that doesn't see what the fit prints."
    order = 61
    def __init__(self,
        what:str,      # is trained, as a line begins
        tell:Callable, # prints a line
        lines:int=10,  # at most
    ): self.what, self.tell, self.lines = what, tell, lines

    def before_fit(self): self.start, self.first = time.monotonic(), self.epoch

    def after_epoch(self):
        done, every = self.epoch + 1, -(-self.n_epoch // self.lines)
        if alarm := noted(self.learn, self.epoch).get("alarm"): self.tell(f"{self.what}: epoch {done}: {alarm}")
        if done % every and done < self.n_epoch: return
        each = (time.monotonic() - self.start)/max(1, done - self.first)
        left = left_in_words(each*(self.n_epoch - done)) if done < self.n_epoch else ""
        self.tell(f"{self.what}: epoch {done} of {self.n_epoch}{left}")

class Reported(Callback):
    "Says how far a fit is, where somebody draws its job (`core.progress.reporting`)."
    order = 61
    def after_batch(self):
        if not self.training: return
        done, words = self.epoch + (self.iter + 1)/self.n_iter, f"epoch {self.epoch + 1} of {self.n_epoch}"
        report(done, self.n_epoch, "training", words, counts=self.n_epoch > 1) # one epoch alone is of the head

def epoch_table() -> Callback:
    "The epoch table for where stdout goes: `EpochTable` in a terminal or notebook, else `PlainTable`."
    return EpochTable() if IN_NOTEBOOK or bar_fits() else PlainTable()

class HistoryWriter(Callback):
    "Write the epoch table as csv after every epoch. Opened per write, so `export` works with it (unlike `CSVLogger`)."
    order = 60
    def __init__(self,
        file:str|Path, # the csv; a further `fit` of the same learner adds its epochs
    ): self.file, self.table = Path(file), []

    def before_fit(self): self.past = self.table

    def after_epoch(self):
        if self.logger is noop: return # not an epoch of training: `validate`, `get_preds` or `lr_find`
        names, values = self.recorder.metric_names[1:-1], self.recorder.values # those of a resumed run too
        first = self.epoch + 1 - len(values)
        self.table = self.past + [dict(zip(names, o)) | noted(self.learn, first + i) for i, o in enumerate(values)]
        write_csv(pd.DataFrame(self.table), self.file, float_format="%.6f")
