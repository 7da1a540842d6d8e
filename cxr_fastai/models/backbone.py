"""A timm backbone for one gray channel: its weights, its normalisation, and only those of its layers that are used.

The paper's ResNet50, DenseNet121 and VGG16 (section 5), or any other timm name."""
import hashlib, sys
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from textwrap import shorten
from urllib.request import Request, urlopen

import timm
import torch
import numpy as np
from fastai.torch_core import Module
from huggingface_hub import constants, try_to_load_from_cache
from timm.models import load_state_dict
from torch import nn

from ..cohort.seen import Seen, seen_of
from ..core.files import few, one_line, say

__all__ = ["Backbone", "create_backbone", "say_untrained", "split_backbone", "untrained"]

_said = set() # backbones that this process has told to be untrained

class Backbone(Module):
    "Gray radiographs `[n, 1, h, w]`, 0..1, to a feature map `[n, width, h', w']`, normalised as the weights expect."
    def __init__(self,
        body:nn.Module,  # a timm model without its classifier
        cfg:object,      # its pretrained configuration: `mean` and `std` of three channels
        size:int,        # side of the images, pixels
        weights:str,     # where the weights came from, in words
        like:nn.Module=None, # a Backbone of the same architecture and size; None: this one is run, to measure it
        seen:Seen=None,      # whom the weights have seen; None: nobody
    ):
        self.body, self.weights, self.seen = body, weights, Seen() if seen is None else seen
        self.register_buffer("mean", torch.tensor(np.mean(cfg.mean, dtype=np.float32)))
        self.register_buffer("std", torch.tensor(np.mean(cfg.std, dtype=np.float32)))
        self.width = self._as(like) if like else self._measure(size)

    def forward(self, image): return self._as_map(self.body.forward_features((image - self.mean) / self.std))

    def _as_map(self, x):
        "Channels first; a transformer's tokens `[n, tokens, width]` become a map one token wide."
        if x.ndim == 3: return x.transpose(1, 2)[..., None]
        return x.permute(0, 3, 1, 2) if str(getattr(self.body, "output_fmt", "")).endswith("NHWC") else x

    def _as(self, like):
        for name, child in like.body.named_children():
            if isinstance(child, nn.Identity): setattr(self.body, name, nn.Identity())
        return like.width

    @torch.enable_grad()
    def _measure(self, size):
        "Run one blank image: measure the width, and drop the layers no gradient reaches (vgg16: 119.5M weights)."
        self.eval()
        features = self(torch.zeros(1, 1, size, size))
        features.sum().backward()
        for name, child in self.body.named_children():
            params = list(child.parameters())
            if params and all(p.grad is None for p in params): setattr(self.body, name, nn.Identity())
        self.zero_grad()
        self.train()
        return features.shape[1]

def create_backbone(
    arch:str="resnet50",  # any timm name
    weights:str="auto",   # 'imagenet', 'none', a local .pth/.safetensors file, a bundle, or 'auto'
    size:int=256,         # side of the images, pixels
    like:Backbone=None,   # one of the same architecture and size, perhaps of the meta device, that was measured before
) -> Backbone:
    """A one-channel backbone without classifier. timm sums the stem's three input channels into one, so that a gray
    image gives what three equal channels gave. Files are loaded as tensors only, never as code, and must fit strictly.
    ValueError for an unknown name or a file that doesn't fit; FileNotFoundError for a missing file."""
    if not isinstance(arch, str):
        raise ValueError(f"arch is the name of a timm model, as 'resnet50', not {getattr(arch, '__name__', arch)!r}.")
    if not timm.is_model(arch):
        near = get_close_matches(arch, timm.list_models(), 4, cutoff=0)
        raise ValueError(f"timm has no model {arch!r}; timm.list_models() names them all, such as {few(near, 4)}.")
    cfg = timm.get_pretrained_cfg(arch)
    kwargs = dict(in_chans=1) | (dict(img_size=size) if cfg.fixed_input_size else {})
    make = dict(auto=_auto, imagenet=_imagenet, none=_untrained).get(weights)
    body, source = make(arch, cfg, kwargs) if make else _from_file(arch, _file(weights), kwargs)
    body.reset_classifier(0)
    return Backbone(body, cfg, size, source, like, seen=None if make else seen_of(_file(weights)))

def _file(weights):
    "The file of weights; of a bundle's folder, that in it."
    return Path(weights)/"model.safetensors" if Path(weights).is_dir() else Path(weights)

def _untrained(arch, cfg, kwargs): return timm.create_model(arch, **kwargs), "none"

def _imagenet(arch, cfg, kwargs):
    return timm.create_model(arch, pretrained=True, **kwargs), f"imagenet ({cfg.hf_hub_id or cfg.url})"

def _auto(arch, cfg, kwargs):
    if _hub_has(cfg):
        try: return _imagenet(arch, cfg, kwargs)
        except Exception as e: # in every way
            say(f"The hub has {arch}, but loading it failed: {one_line(e)}", file=sys.stderr)
    say_untrained([arch])
    return _untrained(arch, cfg, kwargs)

def say_untrained(
    archs:Iterable, # timm names
):
    "Say once a process which of them begin untrained, as 'auto' lets them."
    if not (new := [o for o in dict.fromkeys(archs) if o not in _said]): return
    _said.update(new)
    say(f"NO PRETRAINED WEIGHTS: the model hub can't be reached, so {' and '.join(new)} start{'s' * (len(new) == 1)} "
        "untrained; results will be far below a pretrained model's. Give weights=FILE (a local .pth or .safetensors), "
        "or weights='none' to say that this is meant.", file=sys.stderr, flush=True)

def untrained(
    archs:Iterable, # timm names
) -> list:
    "Those of which 'auto' would find no weights."
    return [o for o in archs if timm.is_model(o) and not _hub_has(timm.get_pretrained_cfg(o))]

def _from_file(arch, file, kwargs):
    if not file.is_file():
        raise FileNotFoundError(f"weights={str(file)!r} is neither a file nor one of 'imagenet', 'none', 'auto'.")
    try:
        state = load_state_dict(str(file), weights_only=True)
        if any(o.startswith(OURS) for o in state): return _from_learner(arch, state, kwargs), _source(file)
        state = _in_timms_names(state, timm.create_model(arch).state_dict())
        body = timm.create_model(arch, pretrained=True, pretrained_cfg_overlay=dict(state_dict=state), **kwargs)
    except Exception as e: # of every kind
        why = shorten(str(e), 200, placeholder=" ...")
        raise ValueError(f"{file} does not hold the weights of {arch}: {why}") from e
    del body.pretrained_cfg["state_dict"] # else it would be exported with the model
    return body, _source(file)

def _source(file): return f"{file.name} (sha256 {hashlib.sha256(file.read_bytes()).hexdigest()[:8]})"

OURS = "backbone.body." # how a learner's and a bundle's weights of a backbone begin

def _from_learner(arch, state, kwargs):
    "The body of a classifier of this package, which has no classifier and only what is used of its layers."
    own = {k.removeprefix(OURS): o for k, o in state.items() if k.startswith(OURS)}
    body, parts = timm.create_model(arch, **kwargs), {k.split(".")[0] for k in own}
    lost, more = body.load_state_dict(own, strict=False)
    wrong = [*more, *(o for o in lost if o.split(".")[0] in parts)]
    if wrong: raise ValueError(f"it lacks or doesn't know {few(wrong)}")
    return body

def _in_timms_names(state, own):
    "Weights of another port, which shares no name with timm's: by order, where each agrees in kind and shape."
    kinds = lambda weights: [(name.split(".")[-1], o.shape) for name, o in weights.items()]
    return state if state.keys() & own.keys() or kinds(state) != kinds(own) else dict(zip(own, state.values()))

def _hub_has(cfg, timeout=3):
    "Whether the weights are in the local cache or their hub answers within `timeout` seconds."
    if not cfg.hf_hub_id: return False
    if any(try_to_load_from_cache(cfg.hf_hub_id, f) for f in ("model.safetensors", "pytorch_model.bin")): return True
    if constants.HF_HUB_OFFLINE: return False
    page = Request(f"{constants.ENDPOINT}/api/models/{cfg.hf_hub_id}", method="HEAD")
    try: return urlopen(page, timeout=timeout).status == 200
    except OSError: return False

def split_backbone(
    backbone:Backbone, # any
) -> tuple[list, list]: # early and late parameters
    "Halve the backbone's parameters in the order of its layers, cut between two blocks, for discriminative rates."
    names, params = zip(*backbone.body.named_parameters())
    unit = [name.split(".")[:2] for name in names]
    cuts = [i for i in range(1, len(names)) if unit[i] != unit[i - 1]]
    cut = min(cuts, key=lambda i: abs(i - len(names) / 2))
    return list(params[:cut]), list(params[cut:])
