"""What is cheaper than synthesis for a minority class: the losses, callbacks and rows that `arms.RIVALS` is made of.

The paper compares its Ensemble with none of them."""
import torch
import numpy as np
import pandas as pd
from fastai.callback.core import Callback
from fastai.callback.mixup import CutMix, MixHandler, MixUp
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.torch_core import tensor

from ..arms import RIVALS
from ..cohort.rows import positive

__all__ = ["LogitAdjusted", "RowCutMix", "RowMixUp", "duplicated", "for_rows", "rival_dls", "rival_learner",
           "train_prior"]

class LogitAdjusted(CrossEntropyLossFlat):
    """Cross entropy of logits shifted by the log prior of the training rows: what is learnt is a classifier for equally
    common classes (Menon et al. 2021, eq. 10, arXiv:2007.07314). Predictions are of the logits as they are."""
    def __init__(self,
        prior:float, # share of positives among the training rows, 0 to 1
    ):
        super().__init__()
        self.shift = tensor([1 - prior, prior]).log()
    def __call__(self, inp, targ, **kwargs): return super().__call__(inp + self.shift.to(inp.device), targ, **kwargs)

def _mixed(xb, mixes, order):
    "Inputs that were mixed with those of rows `order`: a row is image-only where either was."
    res, only = tuple(mixes), getattr(xb[-1], "only", None)
    if only is not None: res[-1].only = only | only[order.numpy()] if only.any() else only
    return res

class RowMixUp(MixUp):
    """fastai's mixup, for a learner with more than one input: image and metadata of a row are mixed with those of one
    other row, by one weight."""
    def before_batch(self):
        lam = self.distrib.sample((len(self.y),)).squeeze(-1).to(self.y.device)
        self.lam = torch.max(lam, 1 - lam)
        order = torch.randperm(len(self.y))
        other = order.to(self.y.device)
        mix = lambda x: torch.lerp(x[other], x, self.lam.to(x.dtype).view(-1, *[1]*(x.ndim - 1)))
        self.yb1 = tuple(y[other] for y in self.yb)
        self.learn.xb = _mixed(self.xb, map(mix, self.xb), order)

class RowCutMix(CutMix):
    """fastai's CutMix, for a learner with more than one input: a box of another row's image is pasted in, and metadata
    and label are mixed with that row's by the box's share of the image."""
    def _box(self, h, w):
        "A mask `[h, w]` of a share of the image that is drawn from Beta(alpha, alpha), anywhere, cut at the edges."
        half = (1 - self.distrib.sample()).sqrt() / 2
        inside = lambda n: (torch.arange(n) + .5 - n*torch.rand(1)).abs() <= n*half
        return inside(h)[:, None] & inside(w)

    def before_batch(self):
        image, *rest = self.xb
        order = torch.randperm(len(self.y))
        other = order.to(self.y.device)
        inside = self._box(*image.shape[-2:]).to(image.device)
        self.lam = 1 - inside.float().mean()
        image = torch.where(inside, image[other], image)
        self.yb1 = tuple(y[other] for y in self.yb)
        rest = [torch.lerp(x[other], x, self.lam.to(x.dtype)) for x in rest]
        self.learn.xb = _mixed(self.xb, [image, *rest], order)

MIXERS = {MixUp: RowMixUp, CutMix: RowCutMix}

def for_rows(
    cb:Callback, # any; changed in place, as fastai takes off a fit's callbacks by what they are
    use:str,     # the inputs: 'both', 'image' or 'metadata'
) -> Callback:   # `cb`
    "fastai's MixUp and CutMix, which know one input, as those that know both. ValueError for one that can't be so."
    if not isinstance(cb, MixHandler): return cb
    if use == "metadata" and isinstance(cb, CutMix): raise ValueError("CutMix cuts images, and this learner has none.")
    if use != "both" or type(cb) in MIXERS.values(): return cb
    if type(cb) not in MIXERS:
        raise ValueError(f"{type(cb).__name__} mixes one input, and this learner has two; take RowMixUp or RowCutMix.")
    cb.__class__ = MIXERS[type(cb)]
    return cb

def duplicated(
    rows:pd.DataFrame,   # after `split_patients`
    n:int,               # rows added
    seed:int=0,          # of those that are taken once more than others
) -> pd.DataFrame:       # `rows`, then the duplicates
    "Real positive training rows again, each as often as any other: the control for a training set's mere size."
    at = np.flatnonzero(positive(rows) & (rows["split"] == "train").to_numpy())
    if not len(at): raise ValueError("There is no positive training row to duplicate.")
    rng = np.random.default_rng(seed)
    again = np.concatenate([rng.permutation(at) for _ in range(-(-n // len(at)))])[:n] if n else at[:0]
    return pd.concat([rows, rows.iloc[again]], ignore_index=True)

def rival_dls(
    rival:str=None, # a key of `RIVALS`, or None
) -> dict:          # keyword arguments of `RadiographDataLoaders.from_df`
    "What a rival changes in the DataLoaders."
    return RIVALS[rival].dls() if rival and RIVALS[rival].dls else {}

def rival_learner(
    learn:Learner,  # a learner of `learner`; changed in place
    rival:str=None, # a key of `RIVALS`, or None
):
    "What a rival changes in the learner: its loss, or a callback."
    if not rival: return learn
    if make := RIVALS[rival].loss:
        learn.loss_func = make(positive(learn.dls.train_ds.items).mean())
        learn.loss_func.to(learn.dls.device)
    if RIVALS[rival].callback: learn.add_cb(RIVALS[rival].callback())
    return learn

def train_prior(
    rows:pd.DataFrame, # all rows of the arm, duplicated and synthetic ones too
    rival:str=None,    # a key of `RIVALS`, or None
) -> float:            # 0 to 1
    "The share of positives that the training in effect saw: half, where the loss or the batches weigh classes alike."
    if rival and RIVALS[rival].balanced: return .5
    return float(positive(rows[rows["split"] == "train"]).mean())
