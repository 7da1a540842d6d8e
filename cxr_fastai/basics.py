"""The one door to fastai and timm, and what every learner needs of the machine: a seed and a precision.

Everything public in `fastai.vision.all` passes through here, so that one import line holds for the whole package."""
import os, random, sys, time, warnings
from collections.abc import Callable
from contextlib import contextmanager
from functools import wraps
from pathlib import Path

import numpy as np
import pandas as pd
import timm
import torch
import torch.nn.functional as F
from torch import nn
from fastai.vision.all import *

from .csvs import write_csv
from .files import *

def computes_bf16(
    device:torch.device, # where the model runs
) -> bool:
    "Whether `device` multiplies bfloat16 in hardware: AVX512-BF16 or AMX on a CPU, Ampere or later on a GPU."
    if device.type == "cuda": return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu": return torch.cpu._is_avx512_bf16_supported()
    return False

def use_bf16(
    precision:str,       # 'auto' (bf16 where the hardware has it), 'bf16' or 'fp32'
    device:torch.device, # where the model runs
) -> bool:
    "Whether a model's forward pass is autocast to bfloat16. fastai's own `to_bf16` does nothing on a CPU."
    if precision not in ("auto", "bf16", "fp32"):
        raise ValueError(f"precision={precision!r} is not known; use 'auto', 'bf16' or 'fp32'.")
    return precision == "bf16" or precision == "auto" and computes_bf16(device)

def in_precision(
    forward:Callable, # of a Module with an attribute `bf16`
):
    "Run `forward` in bfloat16 where the module's `bf16` says so; what comes out is fp32."
    @wraps(forward)
    def _forward(self, *inputs):
        with torch.autocast(inputs[0].device.type, torch.bfloat16, enabled=self.bf16): out = forward(self, *inputs)
        return out.float() if self.bf16 else out
    return _forward

@contextmanager
def atomic_torch(
    file:str|Path, # the file's final name
):
    "`atomic` for what torch writes; OSError on a full disk, for which torch has a sentence about inline containers."
    with atomic(file) as tmp:
        try: yield tmp
        except RuntimeError as e:
            if "inline_container" not in str(e): raise
            raise OSError("torch could write but a part") from None

class TorchOptimizer(OptimWrapper):
    "A torch optimizer for fastai; its switches, such as `foreach`, are no hyperparameters: trackers can't plot them."
    @property
    def hypers(self):
        number = lambda o: isinstance(o, (int, float)) and not isinstance(o, bool)
        return [{k: v for k, v in o.items() if number(v)} for o in super().hypers]

def fused_adamw(
    params:list,   # parameters, in groups or not
    lr:float=1e-3, # learning rate; schedules replace it
) -> TorchOptimizer:
    """fastai's default optimizer (Adam, betas .9/.99, eps 1e-5, decoupled decay .01) by torch's fused kernel, several
    times faster. Norms and biases are decayed too: fastai's `wd_bn_bias=False` doesn't reach a torch optimizer."""
    return TorchOptimizer(params, torch.optim.AdamW, lr=lr, betas=(.9, .99), eps=1e-5, weight_decay=.01, fused=True)

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
