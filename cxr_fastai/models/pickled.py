"""Tensors out of a pickle of a whole network, of which nothing is run: what isn't a tensor is stood in for by `Part`.

torch reads what is saved since 1.6, with `weights_only`. Older pickles of networks, as torchxrayvision's releases are,
it refuses in that mode, as they hold classes in a form of their own: they are read here, by Python's own unpickler,
which can't name anything but the stand-ins."""
import pickle, warnings
from collections import OrderedDict
from pathlib import Path

import torch

__all__ = ["is_older", "load_older", "load_tensors", "tensors_of"]

class Part:
    "Stands in for a layer, or for what lies beside the layers: what it held, and none of what it did."
    def __init__(self, *args, **kwargs): self.held = {}
    def __setstate__(self, state): self.held = state if isinstance(state, dict) else {}

CLASSES = { # by module: layers and networks of them, and what training scripts keep beside
    "torchxrayvision.models": "DenseNet ResNet _DenseBlock _DenseLayer _Transition",
    "torchvision.models.resnet": "ResNet Bottleneck BasicBlock",
    "torchvision.models.densenet": "DenseNet _DenseBlock _DenseLayer _Transition", "torchvision.models.vgg": "VGG",
    "torch.nn.modules.conv": "Conv2d", "torch.nn.modules.batchnorm": "BatchNorm2d",
    "torch.nn.modules.activation": "ReLU Sigmoid", "torch.nn.modules.linear": "Linear Identity",
    "torch.nn.modules.pooling": "MaxPool2d AvgPool2d AdaptiveAvgPool2d", "torch.nn.modules.dropout": "Dropout",
    "torch.nn.modules.container": "Sequential ModuleList ModuleDict",
    "torch.nn.parallel.data_parallel": "DataParallel", "torch.nn.backends.thnn": "_get_thnn_function_backend",
    "numpy": "ndarray dtype", "numpy.core.multiarray": "_reconstruct scalar",
    "numpy._core.multiarray": "_reconstruct scalar", "argparse": "Namespace", "pathlib": "Path PosixPath WindowsPath"}
PARTS = [(Part, f"{module}.{o}") for module, names in CLASSES.items() for o in names.split()]

def _held(part, prefix=""):
    "Names and tensors of a `Part` and those within, as `state_dict` has them."
    for group in "_parameters", "_buffers":
        yield from ((prefix + k, o) for k, o in part.held.get(group, {}).items() if o is not None)
    for name, o in part.held.get("_modules", {}).items():
        if isinstance(o, Part): yield from _held(o, f"{prefix}{name}.")

def tensors_of(
    part:Part, # of `load_tensors`
) -> dict:     # name -> tensor
    "A network's tensors."
    return {k: o.detach() for k, o in _held(part) if isinstance(o, torch.Tensor)}

def load_tensors(
    file:Path, # of `torch.save`
):
    "What torch reads of it as tensors only. UnpicklingError for anything else that isn't a `Part`."
    with open(file, "rb") as f, torch.serialization.safe_globals(PARTS), warnings.catch_warnings():
        warnings.simplefilter("ignore") # what it can't read is told in words by who asks
        return torch.load(f, map_location="cpu", weights_only=True)

# Pickles of networks from before torch 1.6

MAGIC = pickle.dumps(0x1950a86a20f9469cfc6c, 2)
KINDS = dict(Float=torch.float32, Double=torch.float64, Half=torch.float16, BFloat16=torch.bfloat16, Long=torch.int64,
             Int=torch.int32, Short=torch.int16, Char=torch.int8, Byte=torch.uint8, Bool=torch.bool)

def is_older(
    head:bytes, # how a file begins
) -> bool:
    "Whether `torch.save` wrote it in the form of before 1.6."
    return head.startswith(MAGIC)

class _Kind:
    "Stands in for a type of storage."
    def __init__(self, dtype): self.dtype = dtype

class _Tensor:
    "How a tensor is cut from a storage."
    def __init__(self, key, offset, size, stride, *_): self.key, self.cut = key, (size, stride, offset)

def _parameter(tensor, *_): return tensor

KNOWN = {name: cls for cls, name in PARTS} | {
    "collections.OrderedDict": OrderedDict, "builtins.set": Part, "__builtin__.set": Part, "torch.Size": Part,
    "torch._utils._rebuild_tensor_v2": _Tensor, "torch._utils._rebuild_parameter": _parameter}
KNOWN |= {f"{where}.{o}Storage": _Kind(dtype) for o, dtype in KINDS.items() for where in ("torch", "torch.cuda")}

class _Older(pickle.Unpickler):
    "Knows stand-ins alone: whatever else a pickle names is an UnpicklingError."
    def __init__(self, file):
        super().__init__(file)
        self.dtypes = {} # by the key of a storage

    def find_class(self, module, name):
        if (path := f"{module}.{name}") not in KNOWN: raise pickle.UnpicklingError(f"GLOBAL {path} is not known")
        return KNOWN[path]

    def persistent_load(self, pid):
        word, what, key = pid[:3]
        if word == "module": return what # and not its source, which lies beside it
        self.dtypes[key] = what.dtype
        return key

def _storage(file, dtype):
    n = int.from_bytes(file.read(8), "little")
    return torch.frombuffer(bytearray(file.read(n * dtype.itemsize)), dtype=dtype, count=n) if n else torch.zeros(0)

def load_older(
    file:Path, # which `is_older`
) -> dict:     # name -> tensor
    "Tensors of a network. UnpicklingError for what isn't known; an error of some kind for a damaged file."
    with open(file, "rb") as f:
        for _ in range(3): _Older(f).load() # the magic number, the version, the machine
        net = (reader := _Older(f)).load()
        stored = {k: _storage(f, reader.dtypes[k]) for k in _Older(f).load()}
    return {k: torch.as_strided(stored[o.key], *o.cut) for k, o in _held(net) if isinstance(o, _Tensor)}
