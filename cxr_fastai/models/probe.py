"""A probe: the same heads on features that a frozen backbone computed once, which trains in a second where the whole
network takes minutes.

What is trained is the paper's classifiers' upper part alone; with the backbone below, it is a classifier as any."""
from fastcore.meta import delegates
from torch import nn

from ..cohort.seen import Seen
from ..data.loaders import RadiographDataLoaders
from .features import Features, frozen_backbone
from .fusion import build_model
from .learner import _begin, _learner, fusion_learner, image_learner, RadiographLearner
from .metrics import paper_metrics

__all__ = ["probe_learner", "whole_learner"]

class Seeing(nn.Module):
    "In a backbone's place, where its features come in: what it is, and no weight of its own."
    def __init__(self,
        features:Features, # that come in
    ):
        super().__init__()
        backbone = features.backbone
        self.body, self.width, self.weights, self.seen = nn.Identity(), backbone.width, backbone.weights, backbone.seen
    def forward(self, x): return x

def probe_learner(
    dls:RadiographDataLoaders, # with images
    arch:str="resnet50",       # any timm name
    fusion:str="concat",       # how the outputs merge: a key of `FUSIONS`, but attention
    weights:str="auto",        # 'imagenet', 'none', a local file, 'auto'
    views:int=1,               # of each training film: as it is, and augmented ones, of which each epoch draws one
    tfms=None,                 # that make the others; `radiograph_tfms()` where not given
    ps:float=.5,               # dropout before the output
    meta_dropout:float=.1,     # share of values, and of patients, masked as missing in training
    n_meta:int=32,             # width of the MLP's output
    precision:str="auto",      # that the backbone computes in; the head is of fp32
    seed:int=None,             # of initialisation, dropout and shuffling; None: the DataLoaders' own
    metrics=paper_metrics,     # fastai metrics, or those of `metrics`
    cbs=None,                  # further callbacks
    **kwargs,                  # of fastai's Learner
) -> RadiographLearner:        # of the head alone; `whole_learner` puts the backbone below
    """Image, or image and metadata as the DataLoaders have them, on features that are computed once and kept in the
    user's cache. ValueError for attention, which has one place to look at."""
    if fusion == "attention" and dls.use == "both":
        raise ValueError("A probe keeps the mean of each film's feature map, where attention has nowhere to look; take "
                         "another fusion.")
    features = Features(arch, weights, dls.radiograph.size, views, tfms, precision, dls.device)
    rows = dls.train_ds.rows
    features.open(rows["file"].tolist(), dls.radiograph.cache)
    dls = dls.of_features(features)
    seed = _begin(dls, seed, kwargs, "image", "both")
    settings = dict(kind="image", arch=arch, ps=ps)
    if dls.use == "both": settings |= dict(kind="fusion", fusion=fusion, n_meta=n_meta, meta_dropout=meta_dropout)
    model = build_model(settings, Seeing(features), dls.metadata, dls.c)
    return _learner(dls, model, seed, metrics, cbs, settings, **kwargs)
