"""Several classifiers as one module, whose probability is the mean of theirs: the models of folds and seeds of one arm.

It has what a single model has, a `backbone` to a feature map and `above` it to logits, so that whoever predicts,
explains or exports a model takes it as any. Its logits are the logarithms of the mean probabilities."""
import math

import torch
from fastai.torch_core import Module
from torch import nn, Tensor

from ..cohort.seen import Seen
from ..data.metadata import JoinedMetadata
from ..data.loaders import RadiographDataLoaders
from ..fit.precision import in_precision, precision_on
from .fusion import build_model
from .learner import _begin, _learner, RadiographLearner
from .metrics import paper_metrics

__all__ = ["Backbones", "Ensemble", "build_ensemble", "ensemble_learner"]

class Backbones(nn.ModuleList):
    "The backbones of several members, of one architecture; their feature maps stand side by side, as channels."
    def __init__(self,
        backbones:list, # of `Backbone`s
    ): super().__init__(backbones)
    @property
    def body(self): return self[0].body # whose layout all have
    @property
    def width(self): return sum(o.width for o in self)
    @property
    def weights(self): return "; ".join(dict.fromkeys(o.weights for o in self))
    @property
    def seen(self):
        "Whom the weights have seen, of all of them."
        res = Seen()
        for o in self: res |= o.seen
        return res

    def maps(self,
        image:Tensor, # `[n, 1, h, w]`
    ) -> list:        # `[n, width, h', w']` of each
        "A map of each."
        return [o(image) for o in self]

    def forward(self, image): return torch.cat(self.maps(image), 1)

class _Below(Module):
    "In a member's backbone's place, where its map comes in."
    def __init__(self, width): self.width = width
    def forward(self, fmap): return fmap

class Ensemble(Module):
    "Members that read one image, and each its own encoding of the metadata; it gives the logarithm of their mean."
    def __init__(self,
        backbones:list,    # a `Backbone` for each member, or one for all; [] for members of metadata alone
        members:list,      # models whose backbone hands on what it is given
        temperatures:list, # by which each member's logits are divided
        precision:str,     # 'bf16', 'fp16' or 'fp32'
    ):
        if backbones: self.backbone = backbones[0] if len(backbones) == 1 else Backbones(backbones)
        self.members, self.temperatures, self.precision = nn.ModuleList(members), temperatures, precision

    @in_precision
    def forward(self, *inputs): return self._mean(self._seen(inputs[0]), inputs[-1], self.members)

    def _seen(self, image):
        "Each member's map; what members of metadata alone don't read."
        backbone = getattr(self, "backbone", None)
        if isinstance(backbone, Backbones): return backbone.maps(image)
        return [backbone(image) if backbone else image]*len(self.members)

    def above(self,
        fmap:Tensor,     # of `backbone`; None for members of metadata alone
        metadata:Tensor, # `[n, d]`, of all members; not read by members of images alone
    ) -> Tensor:         # `[n, n_out]`
        "Logits from feature map and metadata."
        return self._mean(self._maps(fmap), metadata, [o.above for o in self.members])

    def _maps(self, fmap):
        "Each member's map, laid out as its backbone gave it: another layout would sum in another order."
        if not isinstance(getattr(self, "backbone", None), Backbones): return [fmap]*len(self.members)
        layout = torch.contiguous_format if self.precision == "fp32" else torch.channels_last
        return [o.contiguous(memory_format=layout) for o in fmap.split([o.width for o in self.backbone], 1)]

    def _mean(self, maps, metadata, asked):
        said = [ask(*o).float()/t for ask, o, t in zip(asked, self._inputs(maps, metadata), self.temperatures)]
        return torch.stack([o.log_softmax(1) for o in said]).logsumexp(0) - math.log(len(said))

    def _inputs(self, maps, metadata):
        "What each member takes."
        if not hasattr(self.members[0], "mlp"): return [(o, None) for o in maps]
        return zip(maps, metadata.split([len(o.mlp.column) for o in self.members], 1))

def build_ensemble(
    settings:dict,           # of every member, as of `build_model`
    backbones:list,          # a `Backbone` for each member, or one for all; [] for members of metadata alone
    metadata:JoinedMetadata, # with a part for each member; None for members of images alone
    n_out:int,               # classes
    temperatures:list,       # of each member's logits
    precision:str="fp32",    # or 'bf16', 'fp16'
) -> Ensemble:
    "Members of equal settings, whose weights are to come."
    below = _Below(backbones[0].width) if backbones else None
    parts = metadata.parts if metadata else [None]*len(temperatures)
    members = [build_model(settings, below, part, n_out, precision) for part in parts]
    return Ensemble(backbones, members, temperatures, precision)

def ensemble_learner(
    dls:RadiographDataLoaders, # that encode metadata by a `JoinedMetadata`
    settings:dict,             # of every member, as of `build_model`
    backbones:list,            # as of `build_ensemble`
    temperatures:list,         # of each member's logits
    precision:str="fp32",      # 'auto' (the fastest that the hardware has), 'bf16', 'fp16' or 'fp32'
) -> RadiographLearner:
    "A learner of an ensemble, to predict: its weights are to come."
    seed = _begin(dls, None, {}, dls.use)
    model = build_ensemble(settings, backbones, dls.metadata, dls.c, temperatures, precision_on(precision, dls.device))
    return _learner(dls, model, seed, paper_metrics, None, settings)
