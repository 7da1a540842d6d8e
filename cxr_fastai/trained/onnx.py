"""A classifier as one ONNX file, for runtimes without PyTorch, and its prediction by onnxruntime.

The file holds the bundle's card beside the network: what the classes are, the threshold, how metadata is encoded. It is
fp32, takes batches of any length, and is compared to the learner before it gets its name."""
import json, warnings
from copy import deepcopy
from functools import partial
from pathlib import Path

import torch
import numpy as np
import pandas as pd
from fastai.torch_core import Module

from ..core.extras import need
from ..core.files import atomic
from ..models.learner import RadiographLearner
from ..stats.scoring import called
from .bundle import bundle_card
from .card import check_card, parse_json

__all__ = ["OnnxModel", "export_onnx"]

TOLERANCE = 1e-4 # in probability, between the learner in fp32 and the file
INPUTS = dict(image=["image"], metadata=["metadata"], fusion=["image", "metadata"])

def _needed(name): return need(name, extra="onnx", what="ONNX")

class _Probability(Module):
    "The model in fp32 with softmax, for rows whose metadata is read: without the branch for image-only ones."
    def __init__(self, model, names, temperature):
        self.model, self.names, self.temperature = model, names, temperature
    def forward(self, *inputs):
        given = dict(zip(self.names, inputs))
        fmap = self.model.backbone(given["image"]) if "image" in given else None
        return self.model.above(fmap, given.get("metadata")).div(self.temperature).softmax(1)

def _random(learn, n, seed):
    "Inputs that could be a batch: gray noise, and metadata of which a third is missing."
    rand, res = partial(torch.rand, generator=torch.Generator().manual_seed(seed)), []
    if tfm := learn.dls.radiograph: res.append(rand(n, 1, tfm.size, tfm.size))
    if tfm := learn.dls.metadata:
        absent = rand(n, len(tfm.names))[:, tfm.column] < 1/3
        value = rand(n, len(tfm.column))
        res.append(torch.where(absent | tfm.missing, (absent & tfm.missing).float(), value))
    return res

def _inputs(learn, rows):
    "Of `rows`, as the model gets them."
    dl = learn.dls.test_dl(rows, device="cpu")
    return [torch.cat([o.as_subclass(torch.Tensor).cpu() for o in its]) for its in zip(*dl)][:learn.dls.n_inp]

def _write(model, example, names, card, file):
    onnx, _ = _needed("onnx"), _needed("onnxscript")
    shapes = ({0: torch.export.Dim("n", min=1, max=65_536)},) * len(names)
    with warnings.catch_warnings(): # about its own opset converter
        warnings.simplefilter("ignore")
        torch.onnx.export(model, tuple(example), file, input_names=names, output_names=["probability"], verbose=False,
                          dynamo=True, dynamic_shapes=(shapes,), external_data=False)
    proto = onnx.load(file)
    onnx.helper.set_model_props(proto, dict(cxr_fastai=json.dumps(card)))
    onnx.save(proto, file)

class OnnxModel:
    "A file of `export_onnx`, run by onnxruntime on the CPU. Its card is checked as a bundle's is."
    def __init__(self,
        file:str|Path, # .onnx
    ):
        self.session = _needed("onnxruntime").InferenceSession(str(file), providers=["CPUExecutionProvider"])
        text = self.session.get_modelmeta().custom_metadata_map.get("cxr_fastai", "null")
        check_card(card := parse_json(text, file), file)
        self.card, self.names = card, [o.name for o in self.session.get_inputs()]

    def __call__(self,
        *inputs:np.ndarray, # image `[n, 1, size, size]`, 0..1; metadata `[n, d]`, as `MetadataTransform` encodes it
    ) -> np.ndarray:        # `[n, 2]`
        "Probabilities of both classes."
        return self.session.run(["probability"], {k: np.asarray(o, np.float32) for k, o in zip(self.names, inputs)})[0]

    def decide(self,
        *inputs:np.ndarray, # as of a call
    ) -> list:              # words
        "The class of each row, at the card's threshold."
        hit = called(self(*inputs)[:, 1], self.card["threshold"])
        return [self.card["classes"][o] for o in hit.astype(int)]

def _check(model, file, inputs):
    "ValueError where the file says other than the model."
    with torch.no_grad(): here = torch.cat([model(*o) for o in zip(*(o.split(32) for o in inputs))]).numpy()
    there = OnnxModel(file)(*(o.numpy() for o in inputs))
    if (apart := np.abs(here - there).max()) > TOLERANCE:
        raise ValueError(f"The ONNX file's probabilities are up to {apart:.2g} from the learner's, more than "
                         f"{TOLERANCE:g}; it was not kept.")
    return float(apart)

def export_onnx(
    learn:RadiographLearner, # trained, or of `load_bundle`
    file:str|Path,           # .onnx
    rows:pd.DataFrame=None,  # to compare on; None: noise of the right shape
    seed:int=0,              # of the noise
    threshold:float|str=None, # for its card, as of `save_bundle`: a number, or a rule; None: `learn.threshold`
    calibrate:str=None,      # or 'temperature', likewise
    valid:pd.DataFrame=None, # labelled rows that these two are chosen on; None: the learner's own valid rows
) -> Path:                   # `file`
    """Write inputs `image` (float, `[n, 1, size, size]`, 0..1) and/or `metadata` (`[n, d]`) to `probability` `[n, 2]`,
    with the card. The file is kept if onnxruntime's probabilities are within 1e-4 of the learner's in fp32, else
    ValueError. ImportError without the extra `onnx`."""
    names, file = INPUTS[learn.settings["kind"]], Path(file)
    card = bundle_card(learn, threshold, calibrate=calibrate, valid=valid)[0]
    model = _Probability(deepcopy(learn.model).cpu().float().eval(), names, card.get("temperature", 1.))
    example = _random(learn, 3, seed)
    with atomic(file) as tmp:
        _write(model, example, names, card, tmp)
        _check(model, tmp, _random(learn, 33, seed) if rows is None else _inputs(learn, rows))
    return file
