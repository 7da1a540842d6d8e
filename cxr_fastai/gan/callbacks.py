"""What the learners of translators keep of a fit, and watch in it: the loss's parts, running means of generators, grids
of translations, and an eye for collapse."""
import warnings
from pathlib import Path

import torch
import matplotlib.pyplot as plt
from fastai.callback.core import Callback, CancelFitException
from fastai.learner import Metric
from fastcore.imports import IN_NOTEBOOK
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ..core.files import atomic

__all__ = ["CollapseWatch", "GeneratorEMA", "SaveGrids"]

class BothDomains(Callback):
    "Both images are input and target; says at which steps the identity is taken."
    order = -10
    def before_batch(self): self.learn.xb, self.learn.yb = (*self.xb, self.loss_func.takes_identity), self.xb

class LossPart(Metric):
    "The mean of one of the loss's parts over the steps at which it was taken."
    def __init__(self, name): self._name = name
    def reset(self): self.total, self.n = 0., 0
    def accumulate(self, learn):
        if self.name not in learn.loss_func.parts: return
        self.total, self.n = self.total + learn.loss_func.parts[self.name], self.n + 1
    @property
    def value(self): return float(self.total) / self.n if self.n else float("nan")
    @property
    def name(self): return self._name

class GeneratorEMA(Callback):
    "Running means of the generators' weights: no checkerboard. Young ones forget faster: step n weighs 9/(9+n)."
    def __init__(self,
        decay:float=.999, # share of the mean that a step keeps, at most
    ): self.decay = decay
    def after_step(self):
        self.model.steps = n = self.model.steps + 1
        mean, now = (list(o.parameters()) for o in (self.model.ema, self.model.generators))
        get_ema_multi_avg_fn(min(self.decay, n/(9 + n)))(mean, now, n)

class SaveGrids(Callback):
    "Every `every` epochs save the learner's `show_results` as a png, and show it in a notebook."
    def __init__(self,
        folder:str|Path, # of epoch-EPOCH.png
        every:int=10,    # epochs
        n:int=4,         # images of each domain
    ): self.folder, self.every, self.n = Path(folder), every, n
    def after_epoch(self):
        if (self.epoch + 1) % self.every and self.epoch + 1 < self.n_epoch: return
        fig = self.learn.show_results(self.n)
        with atomic(self.folder/f"epoch-{self.epoch + 1:04}.png") as tmp: fig.savefig(tmp, dpi=100)
        if IN_NOTEBOOK:
            from IPython.display import display
            display(fig)
        plt.close(fig)

class CollapseWatch(Callback):
    """Warn when training has failed: nan (which ends it), translations all alike, a discriminator that always wins. It
    looks when an epoch ends: to look at each step is to wait for the device."""
    def before_fit(self): self.said = set()

    def _say(self, what, why):
        if what not in self.said: warnings.warn(f"epoch {self.epoch + 1}: {why}")
        self.said.add(what)

    def _stop(self, why):
        self._say("nan", f"{why}: training stops, with no checkpoint of it. Try precision='fp32', or a lower lr.")
        raise CancelFitException

    def before_train(self): self.first = torch.zeros((), device=self.dls.device) # loss that isn't finite
    def after_loss(self): self.first = torch.where(self.first.isfinite(), self.loss.detach(), self.first)

    def after_epoch(self):
        if not self.first.isfinite(): self._stop(f"the loss is {self.first.item()}")
        if not all(p.isfinite().all() for p in self.model.parameters()): self._stop("weights are not finite")
        a, b = self.learn.shown()
        for direction, x in zip(self.learn.ways, (a, b)):
            spread = lambda o: float(o.float().std(0).mean()) # between images; 0 where all are one
            if len(x) > 1 and spread(self.learn.generate(x, direction)) < .1 * spread(x):
                self._say(direction, f"translations {direction} of different images are nearly one (mode collapse).")
        for m in self.learn.metrics:
            if m.name.startswith("acc_") and (acc := m.value) > .99:
                d = m.name.removeprefix("acc_")
                self._say(d, f"discriminator {d} is right about {acc:.1%} of patches: its generator learns little. "
                            "Try diffaug='translation,cutout', or more images.")
