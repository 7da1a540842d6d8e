"""What a fit takes of the machine: its device, the precision that is fastest there, and torch's fused optimizer."""
from collections.abc import Callable
from contextlib import nullcontext
from functools import wraps
from pathlib import Path

import torch
from fastai.optimizer import detuplify_pg, OptimWrapper
from fastai.torch_core import default_device, set_seed, TensorBase
from torch.amp import is_autocast_available

from ..settings import PRECISIONS

__all__ = ["TorchOptimizer", "as_device", "casting", "computing", "device_name", "fastest_precision",
           "fused_adamw", "in_precision", "plain", "precision_on", "seeded", "uncast"]

BACKENDS = dict(cuda=torch.cuda, mps=torch.mps)
HALVES = dict(bf16=torch.bfloat16, fp16=torch.float16)

def as_device(
    device=None,     # 'cpu', 'cuda', 'cuda:1', 'mps', a torch.device; None: fastai's default
) -> torch.device:
    "A device by its name. ValueError for one that isn't known, or isn't there."
    if device is None: return default_device()
    try: found = torch.device(device)
    except (RuntimeError, TypeError):
        raise ValueError(f"device={device!r} is not known; use 'cpu', 'cuda', 'cuda:1' or 'mps'.") from None
    if found.type in BACKENDS and (found.index or 0) >= (n := BACKENDS[found.type].device_count()):
        raise ValueError(f"device={device!r}: torch sees {n} of that kind here; 'cpu' is always there.")
    return found

def fastest_precision(
    device:torch.device, # where the model runs
) -> str:                # 'bf16', 'fp16' or 'fp32'
    """What `device` multiplies fastest: bf16 on a CPU with AVX512-BF16 or AMX, and on an NVIDIA GPU of compute
    capability 8 (Ampere) or later; fp16 on one of 7 (V100, T4), whose tensor cores have no other; elsewhere fp32."""
    if device.type == "cpu": return "bf16" if torch.cpu._is_avx512_bf16_supported() else "fp32"
    if device.type != "cuda": return "fp32"
    capability = torch.cuda.get_device_capability(device)
    return "bf16" if capability >= (8, 0) else "fp16" if capability >= (7, 0) else "fp32"

def precision_on(
    precision:str,       # 'auto' (the fastest that the hardware has), 'bf16', 'fp16' or 'fp32'
    device:torch.device, # where the model runs
) -> str:                # 'bf16', 'fp16' or 'fp32'
    "What a precision comes to on a device. ValueError for a word that isn't known."
    if precision not in PRECISIONS:
        raise ValueError(f"precision={precision!r} is not known; use {', '.join(map(repr, PRECISIONS))}.")
    return fastest_precision(device) if precision == "auto" else precision

def computing(
    precision:str, # as in `precision_on`
    device=None,   # as in `as_device`
) -> dict:         # `precision`: what it comes to; `device`: its type
    "What a precision comes to on a device, and what kind that is: of two kinds no bits are the same."
    device = as_device(device)
    return dict(precision=precision_on(precision, device), device=device.type)

def device_name(
    device=None, # as in `as_device`
) -> str:
    "Which device it is, in its maker's words."
    device = as_device(device)
    if device.type == "cuda": return torch.cuda.get_device_name(device)
    return next((o.partition(":")[2].strip() for o in _cpuinfo() if o.startswith("model name")), device.type)

def _cpuinfo():
    try: return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError: return []

def casting(
    precision:str,       # 'bf16', 'fp16' or 'fp32'
    device:torch.device, # where the model runs
):
    "Context that computes in bf16 or fp16; for fp32, as whoever opens it does. fastai's own is for CUDA alone."
    return torch.autocast(device.type, HALVES[precision]) if precision in HALVES else nullcontext()

def plain(
    x:torch.Tensor,    # of fastai's types, or none of them
) -> torch.Tensor: # the same values
    "Without fastai's type, by which each operation would take a way through Python that is longer than a small one."
    return x.as_subclass(torch.Tensor) if isinstance(x, TensorBase) else x

def uncast(
    device:torch.device, # where what follows is computed
):
    "Context that computes in fp32 whatever `casting` is open around it."
    return torch.autocast(device.type, enabled=False) if is_autocast_available(device.type) else nullcontext()

def in_precision(
    forward:Callable, # of a Module with an attribute `precision`
):
    """Run `forward` in the module's `precision`, where that is bf16 or fp16; else as whoever calls it computes. What
    comes out is fp32, where it isn't more."""
    @wraps(forward)
    def _forward(self, *inputs):
        with casting(self.precision, inputs[0].device): out = forward(self, *inputs)
        return out.float() if out.dtype in HALVES.values() else out
    return _forward

def seeded(
    seed:int, # of Python, NumPy and torch
):
    """What follows is drawn from `seed`, by kernels that give the same bits again, and fp32 is fp32: cuDNN would take
    TensorFloat-32 of 10 bits for it."""
    set_seed(seed, reproducible=True)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False

def _is_number(o): return isinstance(o, (int, float)) and not isinstance(o, bool)

class TorchOptimizer(OptimWrapper):
    "A torch optimizer for fastai; its switches, such as `foreach`, are no hyperparameters: trackers can't plot them."
    @property
    def hypers(self):
        own = lambda group: detuplify_pg({k: o for k, o in group.items() if isinstance(o, tuple) or _is_number(o)})
        return [{self.fwd_map[k]: o for k, o in own(group).items()} for group in self.opt.param_groups]

def fused_adamw(
    params:list,   # parameters, in groups or not
    lr:float=1e-3, # learning rate; schedules replace it
) -> TorchOptimizer:
    """fastai's default optimizer (Adam, betas .9/.99, eps 1e-5, decoupled decay .01) by torch's fused kernel, several
    times faster. Norms and biases are decayed too: fastai's `wd_bn_bias=False` doesn't reach a torch optimizer."""
    return TorchOptimizer(params, torch.optim.AdamW, lr=lr, betas=(.9, .99), eps=1e-5, weight_decay=.01, fused=True)
