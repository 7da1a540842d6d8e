"""A probe: the same heads on features that a frozen backbone computed once, which trains in a second where the whole
network takes minutes.

What is trained is the paper's classifiers' upper part alone; with the backbone below, it is a classifier as any."""
from copy import deepcopy

from torch import nn

from ..arms import Arm, ARMS
from ..data.loaders import RadiographDataLoaders
from .backbone import Backbone
from .frozen import frozen_backbone, FrozenFeatures
from .fusion import build_model
from .learner import _begin, _learner, fusion_learner, image_learner, RadiographLearner
from .metrics import paper_metrics
from .rivals import rival_dls

__all__ = ["backbone_and", "check_probe", "probe_learner", "whole_learner"]

def check_probe(
    arm:Arm,     # of a study
    fusion:str,  # where the arm names none
    views:int=1, # of each training film
):
    "ValueError for an arm that a probe would train as another one."
    if arm.pretraining:
        raise ValueError(f"A probe trains a head on features that stay as they are, so that {arm.pretraining!r} has "
                         "nothing to prepare: leave these arms out, or --mode probe.")
    if arm.use == "both" and (arm.fusion or fusion) == "attention":
        raise ValueError("A probe keeps the mean of each film's feature map, where attention has nowhere to look; take "
                         "another fusion.")
    if views == 1 and "tfms" in rival_dls(arm.rival):
        raise ValueError(f"A probe of one view augments nothing, so that {arm.rival!r} changes nothing: give views=4, "
                         "or so.")

class Seeing(nn.Module):
    "In a backbone's place, where its features come in: what it is, and no weight of its own."
    def __init__(self,
        features:FrozenFeatures, # that come in
    ):
        super().__init__()
        backbone, self.made_by = features.backbone, features.made_by
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
    check_probe(Arm(next(o for o in ARMS if ARMS[o].use == dls.use)), fusion)
    features = FrozenFeatures(arch, weights, dls.radiograph.size, views, tfms, precision, dls.device)
    rows = dls.train_ds.rows
    features.open(rows["file"].tolist(), dls.radiograph.cache)
    dls = dls.of_features(features)
    seed = _begin(dls, seed, kwargs, "image", "both")
    settings = dict(kind="image", arch=arch, ps=ps)
    if dls.use == "both": settings |= dict(kind="fusion", fusion=fusion, n_meta=n_meta, meta_dropout=meta_dropout)
    model = build_model(settings, Seeing(features), dls.metadata, dls.c)
    return _learner(dls, model, seed, metrics, cbs, settings, **kwargs)

def whole_learner(
    probe:RadiographLearner,   # of `probe_learner`
    dls:RadiographDataLoaders, # that it was given
    precision:str="auto",      # of all of it
) -> RadiographLearner:        # which predicts as the probe up to rounding, is bundled, explained, and fine-tuned on
    "The probe's head with its backbone below, all of which can learn."
    s, backbone = probe.settings, deepcopy(frozen_backbone(*probe.model.backbone.made_by)).requires_grad_(True)
    make = fusion_learner if s["kind"] == "fusion" else image_learner
    kwargs = {k: s[k] for k in ("ps", "fusion", "n_meta", "meta_dropout") if k in s}
    learn = make(dls, backbone, precision=precision, seed=probe.seed, **kwargs)
    learn.model.load_state_dict(backbone_and(probe.model.state_dict(), backbone))
    learn.settings |= dict(arch=s["arch"])
    learn.loss_func, learn.threshold, learn.seen = probe.loss_func, probe.threshold, learn.seen | probe.seen
    return learn

def backbone_and(
    head:dict,         # weights of a probe
    backbone:Backbone, # that goes below
) -> dict:
    "The weights of both, as the whole model names them."
    return head | {f"backbone.{k}": o for k, o in backbone.state_dict().items()}
