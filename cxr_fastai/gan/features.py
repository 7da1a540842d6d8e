"""Radiographs to feature vectors, by any network, for the figures of `quality`; their name says whose they are."""
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import torch
import numpy as np
import pandas as pd
from fastai.torch_core import default_device
from fastcore.basics import first
from torch import nn

from ..cohort.cache import RadiographCache
from ..core.extras import need
from ..models.backbone import create_backbone, untrained

__all__ = ["Features", "INCEPTION", "features_by", "inception", "radiograph_features"]

INCEPTION = "Inception-v3"

def inception(
    weights:str="auto",     # a local file of torch-fidelity's Inception weights; 'auto' downloads them
    layer:str="2048",       # '2048' for FID and KID, 'logits_unbiased' for the Inception Score
):                          # a function of `[n, 1, h, w]`, 0..1
    """The network that FID, KID and Inception Score are defined on, by torch-fidelity (extra `quality`). ImportError
    without it; OSError that says where to put the weights where they can't be had."""
    fidelity = need("torch_fidelity.feature_extractor_inceptionv3", extra="quality", what="The network of Inception")
    file = None if weights == "auto" else weights
    if file and not Path(file).is_file():
        raise FileNotFoundError(f"weights={str(file)!r} is no file of Inception's weights; 'auto' downloads them.")
    if file: torch.load(file, map_location="cpu", weights_only=True) # tensors, never code: torch-fidelity wouldn't look
    try: net = fidelity.FeatureExtractorInceptionV3("inception", [layer], feature_extractor_weights_path=file)
    except OSError as e:
        raise OSError(f"Inception's weights can't be had from {fidelity.URL_INCEPTION_V3} ({e}): fetch that file "
                      "elsewhere and give weights=FILE, or judge by other features.") from e
    return lambda x: net((x * 255).round().byte().expand(-1, 3, -1, -1).contiguous())[0]

class Features:
    "A network that maps radiographs to vectors, its name in words, and the vectors that were asked for before."
    def __init__(self,
        net:Callable, # of `[n, 1, h, w]` in 0..1
        name:str,     # whose features they are
    ): self.net, self.name, self.known = net, name, {}

    def of(self,
        rows:pd.DataFrame, # with `file`
        size:int=128,      # side of the square images, pixels
        bs:int=32,         # images a batch
    ) -> np.ndarray:       # float64 `[n, d]`
        "Vectors of rows' radiographs. ValueError for a table that names no files."
        if "file" not in rows: raise ValueError("The rows have no column file, which names their images.")
        asked = size, bs, tuple(rows["file"])
        if asked not in self.known:
            files, cache = list(asked[2]), RadiographCache(list(asked[2]), size)
            self.known[asked] = _pooled((cache.get(files[i:i + bs]) for i in range(0, len(files), bs)), self.net)
        return self.known[asked]

    def of_pixels(self,
        pixels:np.ndarray, # uint8 `[n, h, w]`
        bs:int=32,         # images a batch
    ) -> np.ndarray:       # float64 `[n, d]`
        "Vectors of radiographs that lie in no file; nothing of them is kept."
        return _pooled((pixels[i:i + bs] for i in range(0, len(pixels), bs)), self.net)

def features_by(
    features="resnet18", # as in `radiograph_features`
    weights:str="auto",  # as there
    size:int=128,        # as there
    seed:int=0,          # as there
) -> Features:
    "Features by a network; what several figures ask of the same films is computed once."
    if isinstance(features, Features): return features
    if features == "inception": return Features(inception(weights), INCEPTION)
    if isinstance(features, str):
        if weights == "auto" and untrained([features]): weights = "none" # which its name says in every table
        with torch.random.fork_rng(devices=[]): # drawn on the CPU; whoever is training goes on as if nothing were
            torch.default_generator.manual_seed(seed)
            net = create_backbone(features, weights=weights, size=size).to(default_device())
        return Features(net, f"{features}, {'untrained' if net.weights == 'none' else net.weights.split(' (')[0]}")
    model = getattr(features, "model", features) # a Learner's
    if hasattr(model, "backbone"):
        return Features(model.backbone, f"classifier's {type(model.backbone.body).__name__}")
    return Features(model, getattr(model, "__name__", type(model).__name__))

@contextmanager
def _evaluating(net):
    "A module in evaluation, and after that as it was; anything else is left alone."
    modes = {o: o.training for o in net.modules()} if isinstance(net, nn.Module) else {}
    if modes: net.eval()
    try: yield
    finally:
        for o, training in modes.items(): o.training = training

def _pooled(batches, net):
    "Float64 `[n, d]`: means over what `net` maps radiographs to, of which each batch is uint8 `[n, h, w]`."
    out = []
    device = first(o.device for o in net.parameters()) if isinstance(net, nn.Module) else None
    with _evaluating(net), torch.no_grad():
        for pixels in batches:
            x = net(torch.from_numpy(pixels[:, None]).to(device).float() / 255)
            out.append((x.mean((2, 3)) if x.ndim == 4 else x).cpu().double().numpy()) # MPS has no float64
    return np.concatenate(out)

def radiograph_features(
    rows:pd.DataFrame,   # with `file`
    features="resnet18", # a timm name, 'inception', a learner or model trained here, a function, `Features`
    weights:str="auto",  # of a timm name, as in `create_backbone`
    size:int=128,        # side of the square images, pixels
    seed:int=0,          # of untrained weights
    bs:int=32,           # images a batch
) -> tuple:              # float64 `[n, d]`, and the features' name
    "Pooled features of radiographs. Untrained ones compare texture and layout only, and say so in their name."
    found = features_by(features, weights=weights, size=size, seed=seed)
    return found.of(rows, size, bs), found.name

def both_features(real, synth, *, features, weights, size, seed):
    "Of two tables' radiographs, by one network."
    found = features_by(features, weights=weights, size=size, seed=seed)
    return found.of(real, size), found.of(synth, size), found.name

def standardised(real, *others):
    "Mean 0 and deviation 1 on the real rows; a feature that hardly varies there isn't blown up."
    sd = real.std(0)
    return [(o - real.mean(0)) / np.maximum(sd, np.median(sd)/10) for o in (real, *others)]
