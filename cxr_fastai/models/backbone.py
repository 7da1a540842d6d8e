"""A timm backbone for one gray channel: its weights, its normalisation, and only those of its layers that are used.

The paper's ResNet50, DenseNet121 and VGG16 (section 5), or any other timm name."""
import hashlib, math, sys, warnings
from collections.abc import Iterable
from functools import cache
from textwrap import shorten
from urllib.request import Request, urlopen

import timm
import torch
import numpy as np
from fastai.torch_core import Module
from huggingface_hub import constants, try_to_load_from_cache
from timm.layers import PatchEmbed
from torch import nn

from ..cohort.seen import Seen, seen_of
from ..core.files import few, one_line, say
from .statefile import StateError, read_state
from .weights import as_text, check_arch, find_weights, Gray, gray_of, XRV_GRAY

__all__ = ["Backbone", "check_backbone", "create_backbone", "say_untrained", "split_backbone", "untrained"]

_said = set() # backbones that this process has told to be untrained

class Backbone(Module):
    "Gray radiographs `[n, 1, h, w]`, 0..1, to a feature map `[n, width, h', w']`, normalised as the weights expect."
    def __init__(self,
        body:nn.Module,  # a timm model without its classifier
        gray:Gray,       # what is subtracted of an image, and divided by
        size:int,        # side of the images, pixels
        weights:str,     # where the weights came from, in words
        like:nn.Module=None, # a Backbone of the same architecture and size; None: this one is run, to measure it
        seen:Seen=None,      # whom the weights have seen; None: nobody
    ):
        self.body, self.weights, self.seen = body, weights, Seen() if seen is None else seen
        for name, o in zip(Gray._fields, gray): self.register_buffer(name, torch.tensor(np.float32(o)))
        self.width = self._as(like) if like else self._measure(size)

    @property
    def normalisation(self):
        "How an image is normalised, with what black and white become: it is among the tensors, and said in cards."
        mean, std = float(self.mean), float(self.std)
        return dict(mean=mean, std=std, range=[-mean/std, (1 - mean)/std])

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
    weights:str="auto",   # 'imagenet', 'none', 'auto', FILE, BUNDLE, 'xrv:NAME', 'hf-hub:OWNER/NAME' or 'local-dir:DIR'
    size:int=256,         # side of the images, pixels
    like:Backbone=None,   # one of the same architecture and size, perhaps of the meta device, that was measured before
) -> Backbone:
    """A one-channel backbone without classifier. timm sums the stem's three input channels into one, so that a gray
    image gives what three equal channels gave. Files are loaded as tensors only, never as code, and must fit strictly.
    ValueError for an unknown name or a file that doesn't fit; FileNotFoundError for a missing file."""
    check_arch(arch)
    weights, (cfg, kwargs) = as_text(weights), _config(arch, size)
    gray = gray_of(cfg.mean, cfg.std)
    if not like and not torch.empty(0).is_meta: _check_patches(arch, size) # a bundle of before may have a margin
    if make := dict(auto=_auto, imagenet=_imagenet, none=_untrained).get(weights):
        body, source = make(arch, cfg, kwargs)
        body.reset_classifier(0)
        return Backbone(body, gray, size, source, like)
    found = find_weights(weights, arch)
    like = like or _blank(arch, size)
    body, told, own = _from_file(arch, found, kwargs, like)
    return Backbone(body, found.gray or own or gray, size, told, like, seen=seen_of(found.file))

def _config(arch, size):
    "Its pretrained configuration, and how it is made for gray images of a size."
    cfg = timm.get_pretrained_cfg(arch)
    return cfg, dict(in_chans=1) | (dict(img_size=size) if cfg.fixed_input_size else {})

def check_backbone(
    arch:str,    # any timm name
    weights:str, # as of `create_backbone`
    size:int,    # side of the images, pixels
):
    "What `create_backbone` would raise, before anything is trained; what has to be downloaded is, once."
    check_arch(arch)
    if weights not in ("auto", "none"): create_backbone(arch, weights, size)
    else:
        _check_patches(arch, size)
        _blank(arch, size)

def _check_patches(arch, size):
    "ValueError for images of which a transformer's patches would leave out a margin."
    cfg, kwargs = _config(arch, size)
    if not cfg.fixed_input_size: return
    with torch.device("meta"): patch = getattr(timm.create_model(arch, **kwargs), "patch_embed", None)
    if not isinstance(patch, PatchEmbed) or patch.dynamic_img_pad: return
    if any(size % o for o in patch.patch_size):
        side = math.lcm(*patch.patch_size)
        near = dict.fromkeys(side * max(1, o) for o in (size // side, size // side + 1))
        raise ValueError(f"{arch} reads an image in patches of {side} pixels, and size={size} is no multiple of that: "
                         f"write size={' or size='.join(map(str, near))}.")

def _blank(arch, size):
    "The backbone on the meta device, measured: its names and shapes, and not a byte of weights."
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return create_backbone(arch, "none", size)

def _untrained(arch, cfg, kwargs): return timm.create_model(arch, **kwargs), "none"

def _imagenet(arch, cfg, kwargs):
    try: body = timm.create_model(arch, pretrained=True, **kwargs)
    except Exception as e: # of any kind
        raise OSError(f"{arch} can't have imagenet's weights ({one_line(e)[:160]}).") from e
    return body, f"imagenet ({cfg.hf_hub_id or cfg.url})"

def _auto(arch, cfg, kwargs):
    if _hub_has(cfg):
        try: return _imagenet(arch, cfg, kwargs)
        except OSError as e:
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

def _from_file(arch, found, kwargs, like):
    "A body with the weights of a file, where they came from in words, and the normalisation that they bring."
    given = {}
    try:
        given = read_state(found.file)
        state, head, own = _fitted(given, arch, like.body.state_dict())
        overlay = dict(state_dict=state, label_offset=0)
        if _channels(state) == 1: overlay |= dict(input_size=(1, *timm.get_pretrained_cfg(arch).input_size[1:]))
        body = timm.create_model(arch, pretrained=True, pretrained_cfg_overlay=overlay, **kwargs)
    except Exception as e: # of every kind
        other = f"it is of another network, such as has {few(given, 2)}: {e}" if given else f"it can't be read: {e}"
        why = shorten(str(e) if isinstance(e, StateError) else other, 200, placeholder=" ...")
        raise ValueError(f"{found.file} does not hold the weights of {arch}: {why}") from e
    del body.pretrained_cfg["state_dict"] # else it would be exported with the model
    body.reset_classifier(0)
    return body, _told(found, head, own), own

def _told(found, head, own):
    "Where weights came from, in words, with what isn't timm's own: the head that was left out, the values they want."
    said = [f"sha256 {hashlib.sha256(found.file.read_bytes()).hexdigest()[:8]}"]
    if head:
        said.append(f"without {few(head, 4)}")
        _say_once(f"{found.name}: of its head nothing is used ({few(head, 4)}).")
    if XRV_GRAY in (found.gray, own): said.append("gray -1024..1024")
    return f"{found.name} ({'; '.join(said)})"

@cache
def _say_once(text): say(text)

OURS = "backbone.body." # how a learner's and a bundle's weights of a backbone begin

def _prefix(state, used):
    """What stands before the body's names in a file, as 'module.' or 'backbone.body.'; None where few are there.
    StateError where it holds two such networks."""
    first = next(iter(used))
    ends = [o.removesuffix(first) for o in state if o.endswith(first)]
    count = {o: sum(o + k in state for k in used) for o in ends if not o or o.endswith(".")}
    most = max(count.values(), default=0)
    best = [o for o, n in count.items() if n == most]
    if most < len(used)/2 and best != [""]: return
    if len(best) > 1: raise StateError(f"it holds {len(best)} such networks ({few(best)}); save one of them alone")
    return best[0]

def _fitted(state, arch, used):
    """Weights by timm's names for timm to load, none of them missing; the names of a head that isn't timm's, which is
    left out; the normalisation that comes with them, or None. `used`: the state of the body, where heads are not."""
    with torch.device("meta"): full = timm.create_model(arch).state_dict()
    if (prefix := _prefix(state, used)) is None: return _in_timms_names(_finite(state), full), [], None
    tops = {o.split(".")[0] for o in used}
    def is_head(k): return k not in used and (k in full or "." in k and k.split(".")[0] not in tops)
    own = {k.removeprefix(prefix): o for k, o in state.items() if k.startswith(prefix)}
    head = {k: o for k, o in own.items() if is_head(k)} | {k: o for k, o in state.items() if not k.startswith(prefix)}
    body = _whole({k: o for k, o in own.items() if k not in head and k != THRESHOLDS}, used)
    blank = {k: torch.zeros(o.shape, dtype=o.dtype) for k, o in full.items() if k not in used}
    if prefix.endswith(OURS): # of this package, whose heads are everywhere
        return body | blank, [], Gray(*(float(state[f"{prefix[:-5]}{o}"]) for o in Gray._fields))
    odd = [k for k, o in head.items() if k not in full or o.shape != full[k].shape]
    return body | blank, odd + [THRESHOLDS] * (THRESHOLDS in own), XRV_GRAY if _is_xrv(body, head) else None

def _whole(state, used):
    floats = {k for k, o in used.items() if o.is_floating_point()}
    if wrong := [k for k, o in state.items() if k in floats and not o.is_floating_point()]:
        raise StateError(f"{few(wrong)} is of whole numbers, as of a quantised network")
    return _finite(state)

def _finite(state):
    if wrong := [k for k, o in state.items() if o.is_floating_point() and not o.isfinite().all()]:
        raise StateError(f"{few(wrong)} is not a number, or infinite")
    return state

def _channels(state): return next((o.shape[1] for o in state.values() if o.ndim == 4), 3)

THRESHOLDS = "op_threshs" # a list beside the layers of torchxrayvision's networks

def _is_xrv(body, head):
    "Whether it is one of torchxrayvision's: a stem of one channel, 18 findings."
    return _channels(body) == 1 and any(o.ndim == 2 and len(o) == 18 for o in head.values())

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
    if not (own := list(backbone.body.named_parameters())): return [], [] # features that are computed before
    names, params = zip(*own)
    unit = [name.split(".")[:2] for name in names]
    cuts = [i for i in range(1, len(names)) if unit[i] != unit[i - 1]]
    cut = min(cuts, key=lambda i: abs(i - len(names) / 2))
    return list(params[:cut]), list(params[cut:])
