"""Whole checkpoints of a training run: killed and started again, it gives the bits of the unbroken one.

That holds on a CPU. On a GPU no two runs have the same bits: a reflection padding's gradient is summed in any order."""
import random
from contextlib import contextmanager
from pathlib import Path

import torch
import numpy as np
from fastai.callback.core import Callback
from fastai.torch_core import tensor
from fastcore.foundation import L

from ..core.files import atomic, say
from .callbacks import Noting

__all__ = ["Checkpoint", "atomic_torch"]

NUMBERS = [np.float64(0).__reduce__()[0], np.dtype, np.dtypes.Float64DType] # learning rates can be numpy's; no code

def _random_states():
    name, keys, *rest = np.random.get_state()
    return dict(python=random.getstate(), numpy=(name, keys.tolist(), *rest), torch=torch.get_rng_state(),
                cuda=torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [])

def _set_random_states(o):
    random.setstate(o["python"])
    np.random.set_state(o["numpy"])
    torch.set_rng_state(o["torch"].cpu())
    if o["cuda"]: torch.cuda.set_rng_state_all([s.cpu() for s in o["cuda"]])

class Checkpoint(Callback):
    """Every `every` epochs write all that the next epoch depends on: weights, optimizer, loss, random states, history.
    A fit that finds a checkpoint goes on after it. The learner must loop from `self.first_epoch`."""
    order = 100 # last: what other callbacks draw at an epoch's end is drawn before, and what `fit` seeds is set again
    def __init__(self,
        folder:str|Path, # of the files checkpoint-EPOCH.pt; the last two are kept
        every:int=1,     # epochs
    ): self.folder, self.every = Path(folder), every

    @property
    def files(self): return sorted(self.folder.glob("checkpoint-*.pt"))

    def _about(self):
        "What tells one run from another."
        own = dict(epochs=self.n_epoch, bs=self.dls.train.bs, rows=self.dls.digest, fit=self.fits + 1,
                   lr=[float(o["lr"]) for o in self.opt.hypers])
        return self.settings | own

    def before_fit(self):
        for unfinished in self.folder.glob(".checkpoint-*.pt"): unfinished.unlink() # of a run killed while it wrote
        self.about, state = self._about(), self._newest()
        if not state: return
        past = state["run"]
        if other := [f"{k} {past.get(k)}, not {v}" for k, v in self.about.items() if past.get(k) != v]:
            raise ValueError(f"{self.folder} holds checkpoints of another run ({'; '.join(other)}): "
                             "name another folder, or delete it.")
        self._restore(state)
        done = state["epoch"] + 1
        say(f"{self.folder}: " + (f"going on after epoch {done} of {self.n_epoch}" if done < self.n_epoch else
                                  f"all {done} epochs were trained before"), flush=True)

    def after_epoch(self):
        if (self.epoch + 1) % self.every and self.epoch + 1 < self.n_epoch: return
        with atomic_torch(self.folder/f"checkpoint-{self.epoch + 1:06}.pt") as tmp: torch.save(self._state(), tmp)
        for old in self.files[:-2]: old.unlink()

    def _newest(self):
        "The newest checkpoint that can be read; damaged ones are said. ValueError where all are."
        for file in reversed(self.files):
            try:
                with torch.serialization.safe_globals(NUMBERS):
                    return torch.load(file, map_location=self.dls.device, weights_only=True) # tensors, never code
            except Exception as e: # damaged bytes raise of every kind
                say(f"{file} can't be read ({type(e).__name__}: {str(e).splitlines()[0]})", flush=True)
        if self.files: raise ValueError(f"No checkpoint in {self.folder} can be read; delete it to train anew.")

    def _state(self):
        r = self.recorder
        history = dict(lrs=r.lrs, iters=r.iters, losses=[float(o) for o in r.losses],
                       values=[list(o) for o in r.values], smooth=(r.smooth_loss.count, float(r.smooth_loss.val)))
        return dict(run=self.about, epoch=self.epoch, model=self.model.state_dict(), opt=self.opt.state_dict(),
                    loss=self.loss_func.state_dict(), rows=self.dls.train.rng.getstate(), random=_random_states(),
                    history=history, scaler=self.scaler.state_dict() if self.scaler else None,
                    noted={o.name: o.state_dict() for o in self.learn.cbs if isinstance(o, Noting)})

    def _restore(self, o):
        self.model.load_state_dict(o["model"])
        self.opt.load_state_dict(o["opt"])
        self.loss_func.load_state_dict(o["loss"])
        if self.scaler: self.scaler.load_state_dict(o["scaler"])
        self.dls.train.rng.setstate(o["rows"])
        for cb in self.learn.cbs:
            if isinstance(cb, Noting) and cb.name in o.get("noted", {}): cb.load_state_dict(o["noted"][cb.name])
        r, past = self.recorder, o["history"]
        r.lrs, r.iters = past["lrs"], past["iters"]
        r.losses, r.values = [tensor(o) for o in past["losses"]], [L(o) for o in past["values"]]
        r.smooth_loss.count, r.smooth_loss.val = past["smooth"][0], tensor(past["smooth"][1])
        self.learn.first_epoch = o["epoch"] + 1
        _set_random_states(o["random"])

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
