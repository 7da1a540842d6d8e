"""What the learners of translators keep of a fit: the loss's parts, running means of generators, grids of
translations."""
from pathlib import Path

import matplotlib.pyplot as plt
from fastai.callback.core import Callback
from fastai.learner import Metric
from fastcore.imports import IN_NOTEBOOK
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ..core.files import atomic

__all__ = ["GeneratorEMA", "SaveGrids", "ShortEpochs"]

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

class ShortEpochs(Callback):
    "As many steps in all as were asked for, evenly over the epochs, where these have more."
    def __init__(self,
        steps:int, # of a whole fit
    ): self.most = steps
    def before_epoch(self):
        dl, ends = self.dls.train, [self.most*(self.epoch + i)//self.n_epoch for i in (0, 1)]
        dl.n = min(len(dl.dataset), (ends[1] - ends[0])*dl.bs)
    def after_fit(self): self.dls.train.n = len(self.dls.train.dataset)

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
