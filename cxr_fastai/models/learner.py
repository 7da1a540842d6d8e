"""The paper's three classifiers as fastai Learners (section 5.3): DCNN-real, MLP-meta, and both trained jointly."""
import inspect, random, warnings
from typing import Callable

import torch
import pandas as pd
from fastai.callback.progress import ProgressCallback
from fastai.data.transforms import Normalize
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.torch_core import rank_distrib
from fastcore.basics import ifnone
from fastcore.foundation import L
from fastcore.meta import delegates
from fastcore.xtras import join_path_file
from torch import nn, Tensor

from ..arms import FUSIONS
from ..cohort.seen import check_unseen, save_seen, Seen, seen_of
from ..core.files import check_keywords, one_line
from ..data.given import one_row
from ..data.loaders import RadiographDataLoaders
from ..fit.callbacks import epoch_table
from ..fit.learner import PreciseLearner
from ..fit.precision import fused_adamw, precision_on, seeded
from ..stats.scoring import called
from .backbone import Backbone, create_backbone
from .fusion import build_model, parameter_groups
from .metrics import paper_metrics
from .rivals import for_rows

__all__ = ["LogitsLoss", "RadiographLearner", "image_learner", "metadata_learner", "fusion_learner",
           "training_settings"]

class _Tempered:
    "fastai's `activation` of a loss, from logits `[n, 2]`: softmax at a temperature."
    def __init__(self, temperature): self.temperature = temperature
    def __call__(self, logits): return (logits/self.temperature).softmax(-1)

class _Above:
    "fastai's `decodes` of a loss, from probabilities `[n, 2]`: the positive class above a threshold, no argmax."
    def __init__(self, threshold): self.threshold = threshold
    def __call__(self, prob): return torch.from_numpy(called(prob[..., 1].cpu().numpy(), self.threshold)).long()

NO_NUMBER = "the model gives no number for it: a value is far beyond the training rows', or its weights are damaged"

HEAD = "the head is of ps= and, with metadata, fusion="
HINTS = dict(
    pretrained="write weights='imagenet' or weights='none'", n_out="the classes are those of the DataLoaders",
    normalize="images are normalised as the weights expect", splitter="the parameter groups are the model's own",
    n_in="images have one channel", loss="write loss_func=", model="write arch=",
    **dict.fromkeys("custom_head cut y_range lin_ftrs concat_pool pool bn_final first_bn init config".split(), HEAD))
TAKEN = "loss_func opt_func lr path model_dir wd wd_bn_bias train_bn moms default_cbs".split() # of fastai's Learner

class LogitsLoss:
    "A loss of logits `[n, 2]` and labels `[n]` that doesn't say what becomes of the logits: softmax does."
    y_int = True
    def __init__(self,
        loss:Callable, # a torch loss, or a function
    ): self.loss = loss
    def __call__(self, inp, targ, **kwargs):
        return self.loss(inp.as_subclass(Tensor), targ.as_subclass(Tensor).long(), **kwargs)
    def activation(self,
        x:Tensor, # logits `[n, 2]`
    ):
        "Probabilities, `[n, 2]`."
        return x.softmax(-1)
    def decodes(self,
        x:Tensor, # of `activation`
    ):
        "The likelier class, `[n]`."
        return x.argmax(-1)
    @property
    def reduction(self): return self.loss.reduction
    @reduction.setter
    def reduction(self, how): self.loss.reduction = how

def _loss(given, c):
    "The loss to train by. ValueError for one that isn't of logits and labels."
    if given is None: return CrossEntropyLossFlat()
    loss = given() if isinstance(given, type) else given
    held = [t for o in (loss, getattr(loss, "func", None)) if isinstance(o, nn.Module) for t in o.buffers()]
    device = held[0].device if held else "cpu"
    try: one = loss(torch.zeros(2, c, device=device), torch.tensor([0, 1], device=device))
    except Exception as e: one = one_line(e) # of any kind
    if not isinstance(one, Tensor) or one.ndim or not one.isfinite():
        raise ValueError(f"loss_func={given!r:.60} gives no mean loss of logits [n, {c}] and labels [n], but {one}")
    return loss if hasattr(loss, "activation") and hasattr(loss, "decodes") else LogitsLoss(loss)

class RadiographLearner(PreciseLearner):
    """A fastai Learner that fits only leak-free data, from a seed, and predicts one patient from named values. What it
    calls positive (`predict`, `show_results`, fastai's interpretation) is above its `threshold`, a bundle's or .5."""
    def __init__(self, *args, seed=0, settings=None, threshold=.5, **kwargs):
        super().__init__(*args, **kwargs)
        self.seed, self.fits, self.threshold = seed, 0, threshold
        self.settings = settings # what the model is built from, beside the DataLoaders; None: by hand
        self.card = {}           # of the bundle that it was loaded from
        self.seen = Seen() | getattr(getattr(self.model, "backbone", None), "seen", Seen())

    def add_cb(self, cb):
        "fastai's `add_cb`; its MixUp and CutMix mix image and metadata of a row alike."
        return super().add_cb(for_rows(cb() if isinstance(cb, type) else cb, self.dls.use))

    @delegates(Learner.fit)
    def fit(self, n_epoch, lr=None, **kwargs):
        "fastai's `fit` after a leak check. Each fit is seeded, one on from the last, so that a seed gives its bits."
        if not len(self.dls.train_ds):
            raise ValueError("This learner was loaded to predict and has no training rows; make a new one to train.")
        if self.dls.train.bs == 1 and any(isinstance(o, nn.modules.batchnorm._BatchNorm) for o in self.model.modules()):
            raise ValueError("bs=1: batch norm learns nothing from one row at a time; make DataLoaders with bs >= 2.")
        self.dls.check_leaks()
        self.check_unseen()
        self.seen.add(self.dls.train_ds.items, self.dls.hashes(self.dls.train_ds.items))
        seeded(self.seed + self.fits)
        self.dls.train.rng = random.Random(self.seed + self.fits)
        self.fits += 1
        loss = self.loss_func
        try: super().fit(n_epoch, lr, **kwargs)
        finally: self.loss_func = loss # MixUp has its own, and an error within leaves it

    def check_unseen(self,
        rows:pd.DataFrame=None, # to be scored on; None: valid and test rows of the DataLoaders
    ):
        "LeakError where this model, or the weights that it began with, was fitted on a row outside train."
        if not self.seen or self.dls.train_ds.protocol == "paper": return
        if rows is None: rows = pd.concat([self.dls.valid_ds.items.assign(split="valid"), self.dls.test_rows])
        if self.seen.films and not len(self.dls.train_ds): self.dls.open(rows) # of a bundle, which has no cache yet
        check_unseen(rows, self.seen.hits(rows, self.dls.hashes(rows)), "This model")

    def _do_epoch_validate(self, ds_idx=1, dl=None):
        source = getattr(dl, "dataset", None) # fastai's `show_results` and `summary` give a list of batches
        if hasattr(source, "tls") and len(source.tls) > self.dls.n_inp: self.check_unseen(source.items)
        super()._do_epoch_validate(ds_idx, dl)

    @property
    def threshold(self):
        "A probability above it is called positive."
        return getattr(self.loss_func.decodes, "threshold", .5)

    @threshold.setter
    def threshold(self, value):
        if not 0 <= value <= 1: raise ValueError(f"threshold is {value} and must be from 0 to 1.")
        self.loss_func.decodes = _Above(value)

    @property
    def temperature(self):
        "Log odds of its probabilities are divided by it: a calibrated bundle's, or 1."
        return getattr(self.loss_func.activation, "temperature", 1.)

    @temperature.setter
    def temperature(self, value):
        if not 0 < value < float("inf"): raise ValueError(f"temperature is {value} and must be a number above 0.")
        if isinstance(self.loss_func.activation, _Tempered): del self.loss_func.activation # the loss's own is softmax
        if value != 1: self.loss_func.activation = _Tempered(value)

    @property
    def weights(self): return self.model.backbone.weights if hasattr(self.model, "backbone") else "none"

    @delegates(Learner.fit_one_cycle)
    def fine_tune(self,
        epochs:int,            # after the frozen ones
        base_lr:float=2e-3,    # as in fastai
        freeze_epochs:int=1,   # head alone; none where the body has no pretrained weights to keep
        **kwargs,
    ):
        "fastai's `fine_tune`; from untrained weights there is nothing to keep frozen, and it is `fit_one_cycle`."
        if self.weights == "none" and "lr_mult" in kwargs:
            raise ValueError("lr_mult spares a pretrained body, and this one is untrained; leave it out.")
        if self.weights == "none": return self.fit_one_cycle(epochs, base_lr, **kwargs)
        super().fine_tune(epochs, base_lr, freeze_epochs, **kwargs)

    def predict(self,
        row=None,              # a row of a table, a dict, an image's file, a PIL image, uint8 pixels; or by name:
        with_input:bool=False, # return the decoded input first
        **columns,             # image='x.png', age=54, sex='F', view='PA'; what is left out is missing
    ): # label in words, its number, probabilities of both classes
        "Predict one patient. ValueError for a column the model doesn't know, and where it gives no number."
        row = one_row(row, columns, self.dls)
        res = super().predict(pd.Series(row, dtype=object), with_input=with_input)
        if not res[-1].isfinite().all(): raise ValueError(f"No decision: {NO_NUMBER}.")
        return res

    @delegates(Learner.save)
    def save(self, file, **kwargs):
        "fastai's `save`; what was seen in training lies beside it."
        res = super().save(file, **kwargs)
        if not rank_distrib(): save_seen(self.seen, res)
        return res

    @delegates(Learner.load)
    def load(self, file, **kwargs):
        """fastai's `load`, and what those weights have seen. ValueError where the optimizer state doesn't fit, which
        fastai passes over with a warning."""
        self.seen |= seen_of(join_path_file(file, self.path/self.model_dir, ext=".pth"))
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Could not load the optimizer state")
            try: return super().load(file, **kwargs)
            except UserWarning:
                raise ValueError(f"{file}: its optimizer state doesn't fit; with_opt=False loads the rest.") from None

def _learner(dls, model, seed, metrics, cbs, settings, frozen=False, **kwargs):
    model = model.to(dls.device) # fastai moves it when it fits, and a loaded model never fits
    if model.precision != "fp32": model = model.to(memory_format=torch.channels_last) # what such convolutions are for
    kwargs = dict(opt_func=fused_adamw) | kwargs
    loss = _loss(kwargs.pop("loss_func", None), dls.c)
    learn = RadiographLearner(dls, model, loss, metrics=metrics, splitter=parameter_groups, seed=seed,
                              settings=settings, **kwargs)
    learn.remove_cb(ProgressCallback)
    learn.add_cbs([epoch_table(), *L(cbs)])
    if frozen: learn.freeze()
    if len(dls.train_ds): learn.check_unseen()
    return learn

def _begin(dls, seed, given, *uses):
    "Refuse DataLoaders without the inputs, and unknown keywords, then seed what follows; gives the seed."
    check_keywords(given, TAKEN, "A learner", HINTS)
    if given.get("opt_func", fused_adamw) is fused_adamw and not given.get("wd_bn_bias", True):
        raise ValueError("wd_bn_bias=False doesn't reach a torch optimizer; give opt_func=Adam, fastai's own, too.")
    if dls.use not in uses:
        wanted = " or ".join(map(repr, uses))
        raise ValueError(f"This learner needs DataLoaders with use={wanted}; these have use={dls.use!r}.")
    if any(isinstance(o, Normalize) for o in dls.train.after_batch.fs):
        raise ValueError("These DataLoaders normalise images (fastai's vision_learner makes any that it is given do "
                         "so), and so does the model: make them anew.")
    seeded(seed := ifnone(seed, dls.seed))
    return seed

def _backbone(dls, arch, weights):
    if isinstance(arch, Backbone): return arch
    return create_backbone(arch, weights=weights, size=dls.radiograph.size)

@delegates(Learner.__init__, but=["dls", "model", "splitter"])
def image_learner(
    dls:RadiographDataLoaders, # with images
    arch:str="resnet50",       # any timm name, or a `Backbone`
    weights:str="auto",        # as in `create_backbone`: a word, a file, 'xrv:NAME', 'hf-hub:OWNER/NAME'
    ps:float=.5,               # dropout before the output
    precision:str="auto",      # 'auto' (the fastest that the hardware has), 'bf16', 'fp16' or 'fp32'
    seed:int=None,             # of initialisation, dropout, augmentation and shuffling; None: the DataLoaders' own
    metrics=paper_metrics,     # fastai metrics, or those of `metrics`
    cbs=None,                  # further callbacks
    **kwargs,
) -> RadiographLearner:
    "Image alone: the paper's DCNN-real. Starts frozen where the body is pretrained."
    seed = _begin(dls, seed, kwargs, "image", "both")
    backbone = _backbone(dls, arch, weights)
    settings = dict(kind="image", arch=arch, ps=ps)
    model = build_model(settings, backbone, None, dls.c, precision_on(precision, dls.device))
    return _learner(dls, model, seed, metrics, cbs, settings, backbone.weights != "none", **kwargs)

@delegates(Learner.__init__, but=["dls", "model", "splitter"])
def metadata_learner(
    dls:RadiographDataLoaders, # with metadata
    meta_dropout:float=.1,     # share of values masked as missing in training
    seed:int=None,             # of initialisation and shuffling; None: the DataLoaders' own
    metrics=paper_metrics,     # fastai metrics, or those of `metrics`
    cbs=None,                  # further callbacks
    **kwargs,
) -> RadiographLearner:
    "Metadata alone: the paper's MLP-meta, three fully connected layers. One parameter group: `freeze` freezes nothing."
    seed = _begin(dls, seed, kwargs, "metadata", "both")
    settings = dict(kind="metadata", meta_dropout=meta_dropout)
    model = build_model(settings, None, dls.metadata, dls.c)
    return _learner(dls, model, seed, metrics, cbs, settings, **kwargs)

@delegates(Learner.__init__, but=["dls", "model", "splitter"])
def fusion_learner(
    dls:RadiographDataLoaders, # with both inputs
    arch:str="resnet50",       # any timm name, or a `Backbone`
    fusion:str="concat",       # how the outputs merge: a key of `FUSIONS`
    weights:str="auto",        # as in `create_backbone`: a word, a file, 'xrv:NAME', 'hf-hub:OWNER/NAME'
    ps:float=.5,               # dropout before the output
    meta_dropout:float=.1,     # share of values, and of patients, masked as missing in training
    n_meta:int=32,             # width of the MLP's output
    precision:str="auto",      # 'auto' (the fastest that the hardware has), 'bf16', 'fp16' or 'fp32'
    seed:int=None,             # of initialisation, dropout, augmentation and shuffling; None: the DataLoaders' own
    metrics=paper_metrics,     # fastai metrics, or those of `metrics`
    cbs=None,                  # further callbacks
    **kwargs,
) -> RadiographLearner:
    "Image and metadata jointly, their outputs merged: the paper's Real-Meta. Starts frozen if the body is pretrained."
    if fusion not in FUSIONS: raise ValueError(f"fusion={fusion!r} is not known; use one of {', '.join(FUSIONS)}.")
    seed = _begin(dls, seed, kwargs, "both")
    backbone = _backbone(dls, arch, weights)
    settings = dict(kind="fusion", arch=arch, ps=ps, fusion=fusion, n_meta=n_meta, meta_dropout=meta_dropout)
    model = build_model(settings, backbone, dls.metadata, dls.c, precision_on(precision, dls.device))
    return _learner(dls, model, seed, metrics, cbs, settings, backbone.weights != "none", **kwargs)

def training_settings() -> dict: # `freeze_epochs ps meta_dropout n_meta`
    "What `fine_tune` and the learners do where nobody says otherwise, as a study never does."
    default = lambda f, name: inspect.signature(f).parameters[name].default
    return dict(freeze_epochs=default(RadiographLearner.fine_tune, "freeze_epochs")) | {
        o: default(fusion_learner, o) for o in ("ps", "meta_dropout", "n_meta")}
