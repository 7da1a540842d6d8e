"""Which epoch of a translator is kept, by evidence: films of valid patients that it translates are held against real
minority films of other valid patients, by the kernel distance. No training row and no test row is looked at."""
from collections.abc import Callable
from copy import deepcopy

import numpy as np
import pandas as pd

from ..cohort.cache import RadiographCache
from ..cohort.rows import classes
from ..core.files import say
from ..fit.callbacks import Noting
from ..report.translators import epoch_taken, pick_note
from .features import standardised
from .quality import _halves, kernel_distance

__all__ = ["KernelPick", "looked_at"]

MOST = 256     # films of either class that are looked at
HALVINGS = 100 # of the real ones, for the floor

def _films(rows):
    "Of valid, the majority's and the minority's."
    valid = rows[rows["split"] == "valid"]
    return [valid[valid["label"] == o] for o in classes(rows)]

def looked_at(
    rows:pd.DataFrame, # the cohort, with the split 'valid'
) -> int:
    "How many films are translated at each look."
    return min(MOST, len(_films(rows)[0]))

class KernelPick(Noting):
    """Every `every` epochs, and at the last, note in history.csv the distance of translated majority to real minority
    films of the valid rows, beside `floor`, below which 95% of halvings of the real ones are from one another, and
    `untouched`, that of the films before translation. When the fit ends the model translates as at the last epoch
    within the floor; where there is none, as at the nearest."""
    order = 55 # before the history is written, and the checkpoint
    def __init__(self,
        rows:pd.DataFrame, # the cohort, with the split 'valid'
        judge:Callable,    # () -> `Features`, by which films are compared; asked for at the first look
        every:int=1,       # epochs
        seed:int=0,        # of the films, where there are many, and of halvings
    ):
        self.make, self.every, self.draw, (_, self.positive) = judge, every, seed, classes(rows)
        self.sources, self.targets = (o.sample(min(MOST, len(o)), random_state=seed) for o in _films(rows))

    def before_fit(self):
        super().before_fit()
        self.best, self.judge = None, None

    def state_dict(self): return super().state_dict() | dict(best=self.best)
    def load_state_dict(self, state): self.columns, self.best = state["columns"], state["best"]

    @property
    def history(self): return pd.DataFrame.from_dict(self.columns, orient="index")

    def _begin(self):
        "What is the same at each look of a fit. ValueError where earlier ones were by other features."
        judge, size, files = self.make(), self.learn.size, self.sources["file"].tolist()
        if self.columns and (before := self.history["features"].iloc[0]) != judge.name:
            raise ValueError(f"The epochs before were compared by {before}, and these would be by {judge.name}: make "
                             "those weights available again, or delete the folder of this fit.")
        pixels = RadiographCache(files, size, white=self.learn.white).get(files)
        self.pixels, self.real = pixels, judge.of(self.targets, size)
        before = judge.of_pixels(pixels)
        self.both = np.concatenate([self.real, before]) # of so few films, one class alone is no scale
        rng, (_, real) = np.random.default_rng(self.draw), standardised(self.both, self.real)
        apart = [kernel_distance(real[a], real[b]) for a, b in (_halves(self.targets, rng) for _ in range(HALVINGS))]
        self.same = dict(floor=float(np.quantile(apart, .95)), untouched=self._apart(before), features=judge.name)
        self.judge = judge

    def _apart(self, made): return kernel_distance(*standardised(self.both, self.real, made)[1:])

    def after_epoch(self):
        if (self.epoch + 1) % self.every and self.epoch + 1 < self.n_epoch: return
        if self.judge is None: self._begin()
        made = self.judge.of_pixels(self.learn.translate(self.pixels, "a2b"))
        self.columns[self.epoch] = dict(kernel=self._apart(made)) | self.same
        if epoch_taken(self.history) == self.epoch: self.best = deepcopy(self.model.ema.state_dict())

    def after_fit(self):
        if self.best is None: return # nan, before the first look
        self.model.ema.load_state_dict(self.best)
        if self.judge: say(pick_note(self.history, self.positive), flush=True) # else it was said before
