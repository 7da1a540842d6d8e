"""What a classifier would say of rows with other images or metadata, and where its films' heat is.

The backbone runs once an image; what would be said of other metadata is asked of what lies above the feature map."""
import math
from typing import NamedTuple

import torch
import numpy as np
from fastai.torch_core import Module
from torch import nn

from ..core.extras import need
from ..core.progress import progress
from ..fit.precision import casting, in_precision

class _Top(Module):
    "What lies above the feature map: map `[n, width, h, w]` and metadata `[n, d]` to logits, as the whole model does."
    def __init__(self, model, precision, temperature):
        self.model, self.places, self.precision, self.temperature = model, nn.Identity(), precision, temperature
    @in_precision
    def forward(self, fmap, meta): return self.model.above(self.places(fmap), meta)/self.temperature

def _log_odds(logits): return logits[:, 1] - logits[:, 0]

def _grad_cam(top, fmap, meta):
    "What speaks for the positive class, and below 0 against it, and where: `[n, 1, h, w]`."
    attr = need("captum.attr", extra="explain", what="Grad-CAM")
    cam = attr.LayerGradCam(lambda *o: _log_odds(top(*o)), top.places)
    heat = cam.attribute(fmap, additional_forward_args=(meta,))
    return _as_picture(heat.detach().cpu(), top.model.backbone.body)

def _as_picture(heat, body):
    "A transformer's tokens `[n, 1, tokens, 1]` go back to their places; class and register tokens have none."
    if heat.shape[3] > 1 or heat.shape[2] == 1: return heat
    heat = heat[:, :, getattr(body, "num_prefix_tokens", 0):]
    side = math.isqrt(heat.shape[2])
    if side**2 != heat.shape[2]: raise ValueError(f"{heat.shape[2]} tokens make no square: this backbone has no heat.")
    return heat.reshape(-1, 1, side, side)

def encoded(learn, rows):
    "The transform and the coded metadata `[n, d]`; None and no slot where the model reads none."
    if learn.settings["kind"] == "image": return None, torch.zeros(len(rows), 0)
    tfm = learn.dls.metadata
    coded = tfm(rows).as_subclass(torch.Tensor)
    return tfm, torch.where(coded.isnan(), tfm.missing.float(), coded) # as the model treats image-only rows

def _questions(coded, tfm, shuffles, others, sees):
    "{(input, how it is changed, number): metadata `[n, d]` to ask of, with the images as they are}."
    asked = {("image", "shuffled", k): coded[order.argsort()] for k, order in enumerate(shuffles) if sees}
    if not tfm: return asked
    absent = tfm.missing.to(coded.dtype).expand_as(coded)
    asked |= {("metadata", "another's", k): coded[[row]].expand_as(coded) for k, row in enumerate(others) if sees}
    slots = {"metadata": tfm.column >= 0} | {name: tfm.column == c for c, name in enumerate(tfm.names)}
    for name, its in slots.items():
        asked[name, "missing", 0] = torch.where(its, absent, coded)
        asked |= {(name, "shuffled", k): torch.where(its, coded[order], coded) for k, order in enumerate(shuffles)}
    return asked

class _Asked(NamedTuple):
    "What a learner says of rows."
    prob:np.ndarray   # `[n]`, as it predicts
    said:dict         # log-odds `[n]` of each question
    heat:torch.Tensor # `[n, 1, h, w]`; None without images
    film:torch.Tensor # the mean one, `[size, size]`; None without images

@torch.no_grad()
def ask(learn, rows, coded, tfm, shuffles, others):
    "Log-odds are in fp32 above the feature map, as they differ by less than half a precision has digits."
    dl, device, model = learn.dls.test_dl(rows), learn.dls.device, learn.model
    predicting, top = (_Top(model, o, learn.temperature).eval() for o in (model.precision, "fp32"))
    sees = hasattr(model, "backbone")
    asked = {("own", "as is", 0): coded} | _questions(coded, tfm, shuffles, others, sees)
    said, prob, maps, heat, total, start = {o: [] for o in asked}, [], {}, [], 0, 0
    for films, *_ in progress(dl, len(dl), "explaining") if len(dl) > 1 else dl: # one is done at once
        films, at = films.as_subclass(torch.Tensor), slice(start, start + len(films))
        start = at.stop
        with casting(model.precision, device): fmap = model.backbone(films) if sees else films
        prob.append(predicting(fmap, coded[at].to(device)).softmax(1)[:, 1])
        fmap = fmap.float()
        for o, table in asked.items(): said[o].append(_log_odds(top(fmap, table[at].to(device))))
        if not sees: continue
        maps |= {row: fmap[[row - at.start]] for row in others if at.start <= row < at.stop}
        heat.append(_grad_cam(top, fmap, coded[at].to(device)))
        total += films.sum(0).cpu()
    if sees and tfm: said |= _with_others_images(top, [maps[row] for row in others], coded.to(device).split(dl.bs))
    said = {o: torch.cat(parts).cpu().double().numpy() for o, parts in said.items()}
    for name, how, k in said:
        if (name, how) != ("image", "shuffled"): continue
        said[name, how, k] = said[name, how, k][shuffles[k].numpy()] # asked in the order of images
    prob = torch.cat(prob).cpu().numpy()
    return _Asked(prob, said, torch.cat(heat), total[0] / len(rows)) if sees else _Asked(prob, said, None, None)

def _with_others_images(top, maps, batches):
    "Each other row's image with everybody's metadata: log-odds a batch."
    def say(fmap, coded): return _log_odds(top(fmap.expand(len(coded), -1, -1, -1), coded))
    return {("image", "another's", k): [say(fmap, o) for o in batches] for k, fmap in enumerate(maps)}

def shapley(own, said, others):
    "What image and metadata add to a row's log-odds beyond another's, `[n]` each."
    def without(name): return np.mean([said[name, "another's", k] for k in range(len(others))], 0)
    image_alone, metadata_alone, neither = without("metadata"), without("image"), own[others].mean()
    return dict(from_image=(own - metadata_alone + image_alone - neither)/2,
                from_metadata=(own - image_alone + metadata_alone - neither)/2)
