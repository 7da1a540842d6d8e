"""What a fit prints and keeps of each epoch."""
from pathlib import Path

import pandas as pd
from fastai.callback.core import Callback
from fastai.callback.progress import ProgressCallback
from fastai.imports import noop
from fastcore.imports import IN_NOTEBOOK

from ..core.csvs import write_csv
from ..core.files import bar_fits, say

__all__ = ["EpochTable", "HistoryWriter", "PlainTable", "epoch_table"]

class EpochTable(ProgressCallback):
    "fastai's progress bar and table, with the columns of the paper's Figs 3-5 alone: neither epoch nor time."
    name = "progress"
    def before_fit(self):
        super().before_fit()
        if self.create_mbar: self.mbar.update(0) # starts its clock: a resumed fit begins at a later epoch

    def _write_stats(self, log): super()._write_stats(log[1:-1])

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
        return "  ".join(f"{f'{o:.6f}' if isinstance(o, float) else o:<10}" for o in log[1:-1]).rstrip()

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
        names = self.recorder.metric_names[1:-1]
        self.table = self.past + [dict(zip(names, o)) for o in self.recorder.values] # those of a resumed run too
        write_csv(pd.DataFrame(self.table), self.file, float_format="%.6f")
