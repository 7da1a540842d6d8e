"""What a fit takes of the machine: its device, bfloat16 where the hardware has it, and torch's fused optimizer."""
from collections.abc import Callable
from contextlib import nullcontext
from functools import wraps
from pathlib import Path

import torch
from fastai.optimizer import OptimWrapper
from fastai.torch_core import default_device, set_seed

__all__ = ["TorchOptimizer", "as_device", "computes_bf16", "computing", "device_name",
           "fused_adamw", "in_precision", "seeded", "use_bf16"]

BACKENDS = dict(cuda=torch.cuda, mps=torch.mps)

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

def computes_bf16(
    device:torch.device, # where the model runs
) -> bool:
    "Whether `device` multiplies bfloat16 in hardware: AVX512-BF16 or AMX on a CPU, Ampere or later on a GPU."
    if device.type == "cuda": return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu": return torch.cpu._is_avx512_bf16_supported()
    return False

def use_bf16(
    precision:str,       # 'auto' (bf16 where the hardware has it), 'bf16' or 'fp32'
    device:torch.device, # where the model runs
) -> bool:
    "Whether a model's forward pass is autocast to bfloat16. fastai's own `to_bf16` does nothing on a CPU."
    if precision not in ("auto", "bf16", "fp32"):
        raise ValueError(f"precision={precision!r} is not known; use 'auto', 'bf16' or 'fp32'.")
    return precision == "bf16" or precision == "auto" and computes_bf16(device)

def computing(
    precision:str, # as in `use_bf16`
    device=None,   # as in `as_device`
) -> dict:         # `precision`: 'bf16' or 'fp32'; `device`: its type
    "What a precision comes to on a device, and what kind that is: of two kinds no bits are the same."
    device = as_device(device)
    return dict(precision="bf16" if use_bf16(precision, device) else "fp32", device=device.type)

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

def in_precision(
    forward:Callable, # of a Module with an attribute `bf16`
):
    """Run `forward` in bfloat16 where the module's `bf16` says so; else as whoever calls it computes. What comes out is
    fp32, where it isn't more."""
    @wraps(forward)
    def _forward(self, *inputs):
        own = torch.autocast(inputs[0].device.type, torch.bfloat16) if self.bf16 else nullcontext()
        with own: out = forward(self, *inputs)
        return out.float() if out.dtype in (torch.bfloat16, torch.float16) else out
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
        return [{k: v for k, v in o.items() if _is_number(v)} for o in super().hypers]

def fused_adamw(
    params:list,   # parameters, in groups or not
    lr:float=1e-3, # learning rate; schedules replace it
) -> TorchOptimizer:
    """fastai's default optimizer (Adam, betas .9/.99, eps 1e-5, decoupled decay .01) by torch's fused kernel, several
    times faster. Norms and biases are decayed too: fastai's `wd_bn_bias=False` doesn't reach a torch optimizer."""
    return TorchOptimizer(params, torch.optim.AdamW, lr=lr, betas=(.9, .99), eps=1e-5, weight_decay=.01, fused=True)
