"""A bundle's weights, in a safetensors file from a stranger: no tensor is read before its name, shape and type are
those of the model that the card names, and none is used that isn't finite."""
import hashlib, json, re, struct
from pathlib import Path

import torch
from safetensors import safe_open, SafetensorError

from ..core.files import few, one_line
from .card import BundleError, MAX_HEADER, parse_json

__all__ = ["check_types", "check_values", "file_header", "file_types", "mend_variances", "read_weights", "sha256_of"]

TYPES = dict(F32=torch.float32, BF16=torch.bfloat16, F16=torch.float16, I64=torch.int64, BOOL=torch.bool)
COUNTED = "num_batches_tracked" # the only whole numbers that training changes
POSITIVE = re.compile(r"running_var$|backbone(\.\d+)?\.std$") # names of what is divided by

def file_header(
    file:Path, # .safetensors
) -> dict:     # text -> text
    "The words in a safetensors file's header. BundleError for one of a wrong length or form, before anything is read."
    size = file.stat().st_size
    with open(file, "rb") as f:
        n = struct.unpack("<Q", f.read(8).ljust(8, b"\xff"))[0]
        if n > min(MAX_HEADER, size - 8):
            raise BundleError(f"{file} is no safetensors file, or is truncated: its header claims {n:,} bytes, and the "
                              f"file has {size:,}.")
        header = parse_json(f.read(n), file)
    meta = header.get("__metadata__", {}) if isinstance(header, dict) else None
    if isinstance(meta, dict): return meta
    raise BundleError(f"{file} is no safetensors file: its header is no table.")

def _opened(file, told):
    "What `told` gives of each name in an open file. BundleError for what is no whole safetensors file."
    file_header(file)
    try:
        with safe_open(file, "pt") as opened: return {name: told(opened, name) for name in opened.keys()}
    except (SafetensorError, OSError, ValueError, RuntimeError, OverflowError) as e:
        raise BundleError(f"{file}: {one_line(e)}.") from None

def file_types(
    file:Path, # .safetensors
) -> dict:     # name -> (type as safetensors has it, shape)
    "What a file's header says of its tensors; none of them is read."
    def told(opened, name):
        tensor = opened.get_slice(name)
        return tensor.get_dtype(), tuple(tensor.get_shape())
    return _opened(file, told)

def read_weights(
    file:Path, # .safetensors
) -> dict:     # name -> tensor
    "The tensors."
    return _opened(file, lambda opened, name: opened.get_tensor(name))

def check_types(
    found:dict, # of `file_types`
    model:dict, # name -> tensor: the model's state, which may be of the meta device
    file:Path,  # for the error
    arch:str,   # what the model is, in words
):
    """BundleError where names, shapes or types aren't the model's. Its weights may be written as fp32, bf16 or fp16,
    all of them alike; what isn't a weight has the type it has in the model."""
    def refuse(why): raise BundleError(f"{file} doesn't fit {arch}: {why}.")
    if lost := sorted(set(model) - set(found)): refuse(f"it lacks {few(lost)}")
    if more := sorted(set(found) - set(model)): refuse(f"it has an unknown {few(map(repr, more))}")
    floats = {found[k][0] for k, o in model.items() if o.is_floating_point()}
    for k, o in model.items():
        kind, shape = found[k]
        if shape != tuple(o.shape): refuse(f"{k} is {list(shape)}, not {list(o.shape)}")
        written = TYPES.get(kind)
        if o.is_floating_point() and not (written and written.is_floating_point):
            refuse(f"{k} is of type {kind}; weights are fp32, bf16 or fp16")
        if not o.is_floating_point() and written != o.dtype: refuse(f"{k} is of type {kind}, not {o.dtype}")
    if len(floats) > 1: refuse(f"its weights are of the types {few(sorted(floats))}, and must be of one")

def check_values(
    state:dict, # name -> tensor, of the right types
    model:dict, # name -> tensor: the state of the model as it is built
    file:Path,  # for the error
):
    "BundleError for weights that aren't finite, variances that aren't positive, or constants other than the model's."
    wrong = [k for k, o in state.items() if o.is_floating_point() and not o.isfinite().all()]
    if wrong: raise BundleError(f"{file}: {few(wrong)} is not a number, or infinite.")
    wrong = [k for k, o in state.items() if POSITIVE.search(k) and not (o > 0).all()]
    if wrong: raise BundleError(f"{file}: {few(wrong)} is not positive, and is divided by.")
    counts = [k for k in state if k.endswith(COUNTED)]
    if wrong := [k for k in counts if state[k] < 0]: raise BundleError(f"{file}: {few(wrong)} is a number of batches.")
    fixed = [k for k, o in state.items() if not o.is_floating_point() and k not in counts]
    if wrong := [k for k in fixed if not torch.equal(state[k], model[k].cpu())]:
        raise BundleError(f"{file}: {few(wrong)} isn't what the card's settings give.")

def mend_variances(
    state:dict, # name -> tensor; changed in place
):
    "A channel that is always zero can have the variance 0: the least number above it changes no bit of the result."
    for k, o in state.items():
        if k.endswith("running_var"): o[o == 0] = torch.finfo(o.dtype).smallest_normal
    return state

def sha256_of(
    card:dict,  # with or without `sha256`
    state:dict, # name -> tensor
) -> str:
    "Of all the card says but this, and of each weight's name, type, shape and bytes."
    said = {k: v for k, v in card.items() if k != "sha256"}
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    for name, o in sorted(state.items()):
        digest.update(f"{name} {o.dtype} {tuple(o.shape)}".encode())
        digest.update(o.contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
