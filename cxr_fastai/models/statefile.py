"""Tensors by name out of a stranger's file, told by what is in it and not by its name; or what the file is, in words.

Nothing in a file is run."""
import re, zipfile
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ..core.files import few, one_line
from .pickled import is_older, load_older, load_tensors, Part, tensors_of

__all__ = ["StateError", "read_state"]

class StateError(ValueError): "What a file is instead of tensors by name, as the end of a sentence."

EXPECTED = "tensors by name, as safetensors or torch.save(net.state_dict(), file)"
HEAD = 4096 # bytes that are looked at
MAGIC = { # how files begin that people take for weights
    **dict.fromkeys((b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*"), "an image"),
    **dict.fromkeys((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"Rar!", b"(\xb5/\xfd"), "packed; unpack it"),
    b"\x89HDF": "HDF5 (Keras keeps weights so)", b"\x93NUMPY": "a numpy array", b"GGUF": "GGUF", b"%PDF": "a PDF",
    b"version https://git-lfs": "a pointer of Git LFS; `git lfs pull` fetches the file"}
WRAPPERS = ("state_dict_ema model_ema state_dict model model_state_dict model_state net network module ema teacher "
            "student encoder backbone weights params").split() # where training scripts keep a network's tensors

def _zip_is(file):
    "What a zip archive is, if it is none of `torch.save`; None."
    if not zipfile.is_zipfile(file): return "the beginning of a zip archive: truncated; get it again"
    with zipfile.ZipFile(file) as archive: names = archive.namelist()
    if any(o.endswith("/constants.pkl") or "/code/" in o for o in names):
        return "TorchScript, which is code, and code isn't run; save its state_dict() alone"
    if not any(o.endswith("data.pkl") for o in names): return f"a zip archive of other things ({few(names, 2)})"

def _text_is(head):
    "What text is; None where it isn't text."
    try: text = head.decode("utf-8-sig")
    except UnicodeDecodeError as e:
        if e.start < len(head) - 4: return # more than a letter cut in two
        text = head[:e.start].decode()
    if not text.isprintable() and not all(o.isprintable() or o.isspace() for o in text): return
    if re.match(r"\s*(<!doctype html|<html|<head|<\?xml)", text, re.I): return "a web page; download the file itself"
    begins = text.strip()[:24].splitlines()
    if "," in text.splitlines()[0]: return f"a table or other text, which begins {begins[0]!r}"
    return f"text, which begins {(begins or [''])[0]!r}"

def _is_safetensors(file, head):
    n = int.from_bytes(head[:8], "little")
    return len(head) > 8 and head[8:9] == b"{" and 2 <= n < 2**31

def _foreign(file, head):
    "What a file is that is neither safetensors nor torch's; None."
    if not head: return "empty"
    for begins, said in MAGIC.items():
        if head.startswith(begins): return said
    if head[128:132] == b"DICM": return "a radiograph (DICOM)"
    if head.startswith(b"PK"): return _zip_is(file)
    if head[:1] == b"\x08" and (file.suffix == ".onnx" or re.search(rb"onnx|pytorch|ir_version", head[:64])):
        return "an ONNX file, whose network isn't torch's; the checkpoint that it was made of is"
    if head[:1] != b"\x80": return _text_is(head) or "of no known kind, or damaged"

def _pickled(file, head):
    try: return load_tensors(file)
    except UnpicklingError as e:
        if is_older(head): return _older(file)
        raise _refused(e) from None
    except Exception as e: # of every kind, by what is damaged
        raise _damaged(e) from None

def _older(file):
    try: return load_older(file)
    except UnpicklingError as e: raise _refused(e) from None
    except Exception as e: # of every kind
        raise _damaged(e) from None

def _damaged(e): return StateError(f"it is truncated or damaged ({one_line(e)[:80]}); get it again")

def _refused(e):
    if not (named := re.search(r"(?:GLOBAL|function) (?:<built-in function )?([\w.]+)", str(e))):
        return StateError("it is a pickle of other things than torch's tensors, or damaged; nothing of it is run")
    return StateError(f"it holds {named[1]}, which is code or of a class of its own and isn't run; save the network's "
                      "state_dict() alone")

def _tensors(o):
    "The tensors by name in what was read; {} where there are none."
    if isinstance(o, Part): return tensors_of(o)
    if not isinstance(o, dict): return {}
    if _is_optimizer(o): return {}
    for name in WRAPPERS:
        if found := _tensors(o.get(name)): return found
    return {k: v for k, v in o.items() if isinstance(k, str) and isinstance(v, torch.Tensor)}

def _is_optimizer(o): return "param_groups" in o and "state" in o

def _said(o):
    "What an object without tensors by name is."
    if isinstance(o, torch.Tensor): return f"it is one tensor {list(o.shape)}, not a network's by name"
    if not isinstance(o, dict): return f"it is a {type(o).__name__}, not tensors by name"
    if _is_optimizer(o) or any("optim" in str(k) or isinstance(v, dict) and _is_optimizer(v) for k, v in o.items()):
        return "it holds an optimizer's state and no network's; the file that was saved beside it may"
    return f"it holds no tensors by name, but {few(map(repr, o))}" if o else "it holds nothing"

TIMMS = { # in the names of transformers' DINOv2, as RAD-DINO's, what timm writes
    "embeddings.patch_embeddings.projection.": "patch_embed.proj.", "embeddings.position_embeddings": "pos_embed",
    "embeddings.cls_token": "cls_token", "embeddings.mask_token": "mask_token", "encoder.layer.": "blocks.",
    "attention.output.dense.": "attn.proj.", "layer_scale1.lambda1": "ls1.gamma", "layer_scale2.lambda1": "ls2.gamma",
    "layernorm.": "norm."}
ASKED = tuple(f"attention.attention.{o}." for o in ("query", "key", "value")) # of which timm makes one layer

def _renamed(state):
    "A vision transformer of transformers' by timm's names; any other as it is."
    if not any(o.endswith("embeddings.position_embeddings") for o in state): return state
    res = {}
    for k, o in state.items():
        if any(p in k for p in ASKED[1:]): continue
        if ASKED[0] in k:
            o = torch.cat([state[k.replace(ASKED[0], p)] for p in ASKED])
            k = k.replace(ASKED[0], "attn.qkv.")
        for theirs, ours in TIMMS.items(): k = k.replace(theirs, ours)
        res[k] = o
    return res

def read_state(
    file:Path, # of any name
) -> dict:     # name -> tensor, on the CPU
    "What a network's file holds, out of whatever its training wrapped it in. StateError says what it is instead."
    with open(file, "rb") as f: head = f.read(HEAD)
    if _is_safetensors(file, head):
        try: return _renamed(load_file(file))
        except (SafetensorError, OSError, ValueError, RuntimeError) as e:
            raise StateError(f"it is safetensors that is truncated or damaged ({e}); get it again") from None
    if what := _foreign(file, head): raise StateError(f"it is {what}; expected are {EXPECTED}")
    found = _pickled(file, head)
    try: state = _tensors(found)
    except (AttributeError, RecursionError) as e: raise StateError("it is a damaged pickle; get it again") from e
    if not state: raise StateError(_said(found))
    return _renamed(state)
