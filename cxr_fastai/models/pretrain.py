"""Pretraining on synthetic films: a first fit of the whole schedule on films of both classes, then the real one begins.

The control does the same on real training films, so that both take as many steps, and differ in the films alone."""
import numpy as np
import pandas as pd
from fastai.callback.core import Callback

from ..cohort.rows import is_synthetic
from ..cohort.sampling import draw_evenly
from ..cohort.synthetic import add_synthetic
from .learner import RadiographLearner

__all__ = ["pretrain", "pretraining_rows"]

class Steps(Callback):
    "Counts training steps."
    def __init__(self): self.n = 0
    def after_batch(self): self.n += self.training

def pretraining_rows(
    rows:pd.DataFrame,       # after `split_patients`
    numbers:dict,            # label -> how many
    synth:pd.DataFrame=None, # synthetic rows, as many; None: real training rows again, each as often as another
    seed:int=0,              # of these
) -> pd.DataFrame:           # that a model is fitted on before the real ones
    "Films to begin with, of both classes. LeakError as of `add_synthetic`; ValueError where a class has no real row."
    if synth is not None:
        both = add_synthetic(rows, synth)
        return both[is_synthetic(both)]
    train, rng, parts = rows[rows["split"].eq("train") & ~is_synthetic(rows)], np.random.default_rng(seed), []
    for label, n in numbers.items():
        own = train[train["label"] == label]
        if not len(own): raise ValueError(f"There is no training row of {label} to train on again.")
        parts.append(own.iloc[draw_evenly(n, below=len(own), rng=rng)])
    return pd.concat(parts, ignore_index=True)

def pretrain(
    learn:RadiographLearner, # of real rows, not fitted yet; in place, what was learnt of their metadata's words stays
    rows:pd.DataFrame,       # of `pretraining_rows`
    epochs:int,              # of `fine_tune`
    lr:float,                # of `fine_tune`
) -> dict:                   # `pretraining_films pretraining_steps`
    "Fit on these rows by the learner's own schedule; its next fit is of its own rows, as if it were the first."
    own, steps = learn.dls, Steps()
    learn.dls = own.of_rows(rows)
    try:
        with learn.added_cbs(steps): learn.fine_tune(epochs, lr)
    finally: learn.dls = own
    learn.opt, learn.fits = None, 0
    return dict(pretraining_films=len(rows), pretraining_steps=steps.n)
