"""The paper's three classifiers as modules (sections 3.2 and 5.3): image alone (DCNN-real), metadata alone (MLP-meta),
and both trained jointly with merged outputs, in the ways of `arms.FUSIONS`. Each gives logits `[n, n_out]` in fp32, and
has a method `above`: what lies above the feature map, from map and metadata to logits."""
import torch
import torch.nn.functional as F
import numpy as np
from fastai.layers import LinBnDrop
from fastai.torch_core import Module
from fasttransform.transform import Transform
from torch import nn, Tensor

from ..arms import FUSIONS
from ..data.metadata import image_only
from ..fit.precision import in_precision, plain
from .backbone import Backbone, split_backbone

__all__ = ["build_model", "MetadataMLP", "ImageModel", "MetadataModel", "FusionModel", "parameter_groups"]

class MetadataMLP(Module):
    """Three fully connected layers over encoded metadata (the paper's MLP-meta). In training each value is masked as
    missing, and each patient's whole metadata is replaced by a learned token, with probability `p_missing`; a patient
    without any metadata gets that token at prediction too."""
    def __init__(self,
        tfm:Transform,   # the fitted `MetadataTransform`: which slot belongs to which column, which says 'missing'
        n_out:int,       # width of the third layer
        hidden=(64, 32), # widths of the first two
        p_missing:float=0., # `meta_dropout`
    ):
        self.p_missing = p_missing
        self.register_buffer("column", tfm.column)
        self.register_buffer("missing", tfm.missing)
        self.register_buffer("flags", tfm.missing.nonzero()[:, 0], persistent=False) # numbers: a mask can't be exported
        sizes = [len(tfm.column), *hidden]
        self.hidden = nn.Sequential(*[LinBnDrop(i, o, act=nn.ReLU(), lin_first=True) for i, o in zip(sizes, sizes[1:])])
        self.out = nn.Linear(hidden[-1], n_out)
        self.token = nn.Parameter(torch.zeros(n_out))

    def forward(self, x):
        absent = x[:, self.flags] > 0                        # [n, columns]
        nobody = absent.all(1)
        if self.training and self.p_missing:
            absent = absent | (torch.rand_like(absent, dtype=torch.float) < self.p_missing)
            nobody = nobody | (torch.rand_like(nobody, dtype=torch.float) < self.p_missing)
        x = torch.where(absent[:, self.column], self.missing.to(x.dtype), x)
        return torch.where(nobody[:, None], self.token, self.out(self.hidden(x)).to(self.token.dtype))

def _pool(fmap): return fmap.mean((2, 3))
def _head(n_in, n_out, ps): return nn.Sequential(nn.Dropout(ps), nn.Linear(n_in, n_out))

class ConcatFusion(Module):
    """Pooled image features and the MLP's output side by side, then dropout and one linear layer (default). GELU, as
    ReLU would give the token, which starts at zero, no gradient ever."""
    def __init__(self, width, n_meta, n_out, ps): self.head = _head(width + n_meta, n_out, ps)
    def forward(self, fmap, meta): return self.head(torch.cat([_pool(fmap), F.gelu(meta).to(fmap.dtype)], 1))

class LogitFusion(Module):
    "The mean of the image's and the metadata's own logits."
    def __init__(self, width, n_meta, n_out, ps):
        self.image, self.meta = _head(width, n_out, ps), nn.Linear(n_meta, n_out)
    def forward(self, fmap, meta): return (self.image(_pool(fmap)) + self.meta(meta)) / 2

class GatedFusion(Module):
    "A gate, read from both, mixes the two projections unit by unit (Arevalo et al. 2017, arXiv:1702.01992)."
    def __init__(self, width, n_meta, n_out, ps, n_hidden=128):
        self.image, self.meta = nn.Linear(width, n_hidden), nn.Linear(n_meta, n_hidden)
        self.gate, self.head = nn.Linear(width + n_meta, n_hidden), _head(n_hidden, n_out, ps)
    def forward(self, fmap, meta):
        image = _pool(fmap)
        z = self.gate(torch.cat([image, meta.to(image.dtype)], 1)).sigmoid()
        return self.head(z * self.image(image).tanh() + (1 - z) * self.meta(meta).tanh())

class FilmFusion(Module):
    "The metadata scales and shifts each image feature (Perez et al. 2018, arXiv:1709.07871); at first it does neither."
    def __init__(self, width, n_meta, n_out, ps):
        self.film, self.head = nn.Linear(n_meta, 2 * width), _head(width, n_out, ps)
        nn.init.zeros_(self.film.weight)
        nn.init.zeros_(self.film.bias)
    def forward(self, fmap, meta):
        scale, shift = self.film(meta).chunk(2, 1)
        return self.head(_pool(fmap) * (1 + scale) + shift)

class AttentionFusion(Module):
    "The metadata asks the feature map where to look (scaled dot-product attention); its answer joins the mean feature."
    def __init__(self, width, n_meta, n_out, ps, n_hidden=64):
        self.query, self.key = nn.Linear(n_meta, n_hidden), nn.Linear(width, n_hidden, bias=False)
        self.head = _head(2 * width + n_meta, n_out, ps)
    def forward(self, fmap, meta):
        places = fmap.flatten(2).transpose(1, 2)[:, None]    # [n, 1 head, h*w, width]
        seen = F.scaled_dot_product_attention(self.query(meta)[:, None, None], self.key(places), places)[:, 0, 0]
        return self.head(torch.cat([_pool(fmap), seen, meta.to(fmap.dtype)], 1))

class ImageModel(Module):
    "Logits from the image alone; a metadata input beside it is not read."
    def __init__(self,
        backbone:Backbone, # gives the feature map
        n_out:int,         # classes
        ps:float,          # dropout before the last layer
        precision:str,     # 'bf16', 'fp16' or 'fp32'
    ):
        self.backbone, self.head, self.precision = backbone, _head(backbone.width, n_out, ps), precision
    @in_precision
    def forward(self, image, metadata=None): return self.above(self.backbone(plain(image)))

    def above(self,
        fmap:Tensor,   # of `backbone`, `[n, width, h, w]`
        metadata=None, # not read
    ) -> Tensor:       # `[n, n_out]`
        "Logits from the feature map."
        return self.head(_pool(fmap))

class MetadataModel(Module):
    "Logits from the metadata alone, always the last input; an image before it is not read."
    precision = "fp32"
    def __init__(self,
        mlp:MetadataMLP, # whose outputs are the logits
    ): self.mlp = mlp
    @in_precision
    def forward(self, *inputs):
        if image_only(inputs[-1]).any():
            raise ValueError("Image-only rows have no metadata for a model of metadata alone; leave them out.")
        return self.mlp(plain(inputs[-1]))

    def above(self,
        fmap:None,       # not read: there is no backbone
        metadata:Tensor, # `[n, d]`
    ) -> Tensor:         # `[n, n_out]`
        "Logits from the metadata."
        return self.mlp(metadata)

class FusionModel(Module):
    """Logits from image `[n, 1, h, w]` and metadata `[n, d]`, trained jointly. Rows whose metadata is nan are
    image-only: the backbone alone learns from them, by a head that is held still and the missing token."""
    def __init__(self,
        backbone:Backbone, # gives the feature map
        mlp:MetadataMLP,   # gives the metadata's features
        head:Module,       # merges both into logits: one of `FUSIONS`
        precision:str,     # 'bf16', 'fp16' or 'fp32'
    ):
        self.backbone, self.mlp, self.head, self.precision = backbone, mlp, head, precision
    @in_precision
    def forward(self, image, metadata):
        fmap, only, metadata = self.backbone(plain(image)), image_only(metadata), plain(metadata)
        if not only.any(): return self.above(fmap, metadata)
        real, only = (torch.from_numpy(np.flatnonzero(o)).to(fmap.device) for o in (~only, only))
        token = self.mlp.token.expand(len(image), -1)
        # batch norm needs two rows to train: a lone one is a patient without metadata
        meta = token[real] if self.training and len(real) < 2 else self.mlp(metadata[real])
        still = self.head.state_dict(), (fmap[only], token[only].detach()) # a state dict is detached
        out = self.head(fmap[real], meta), torch.func.functional_call(self.head, *still)
        return torch.cat(out)[torch.cat([real, only]).argsort()]

    def above(self,
        fmap:Tensor,     # of `backbone`, `[n, width, h, w]`
        metadata:Tensor, # `[n, d]`, none of it nan
    ) -> Tensor:         # `[n, n_out]`
        "Logits from feature map and metadata."
        return self.head(fmap, self.mlp(metadata))

def build_model(
    settings:dict,         # of a learner or a card: `kind`, and what it takes of arch, ps, fusion, n_meta, meta_dropout
    backbone:Backbone,     # None for a model of metadata alone
    metadata:Transform,    # the fitted `MetadataTransform`; None for one of images alone
    n_out:int,             # classes
    precision:str="fp32",  # or 'bf16', 'fp16'
) -> Module:
    "The model that `settings` describe."
    if settings["kind"] == "image": return ImageModel(backbone, n_out, settings["ps"], precision)
    p_missing = settings["meta_dropout"]
    if settings["kind"] == "metadata": return MetadataModel(MetadataMLP(metadata, n_out, p_missing=p_missing))
    n_meta, make_head = settings["n_meta"], FUSIONS[settings["fusion"]]
    mlp = MetadataMLP(metadata, n_meta, p_missing=p_missing)
    head = make_head(width=backbone.width, n_meta=n_meta, n_out=n_out, ps=settings["ps"])
    return FusionModel(backbone, mlp, head, precision)

def parameter_groups(
    model:nn.Module, # one of the three models
) -> list[list]:     # early body, late body, everything else; one group where there is no body
    "fastai's splitter. RuntimeError if a parameter were in no group or in two: it would never train, or train twice."
    body = split_backbone(model.backbone) if hasattr(model, "backbone") else ()
    taken = {id(p) for group in body for p in group}
    groups = [o for o in (*body, [p for p in model.parameters() if id(p) not in taken]) if o]
    ids = sorted(id(p) for group in groups for p in group)
    if ids != sorted(map(id, model.parameters())):
        raise RuntimeError("The parameter groups are no partition of the model.")
    return groups
