"""One cell on several processes: `accelerate launch recipes/table1.py ...`, by fastai's own `distrib_ctx`.

Every process walks through the same cells; the first one alone writes, and what it decides holds for all."""
import atexit, os
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from typing import Callable

import torch
from fastai.learner import Learner
from fastai.torch_core import default_device, num_distrib, rank_distrib
from timm.layers import convert_sync_batchnorm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..core.extras import need

__all__ = ["agreed", "alone", "begin_distributed", "is_first", "synced_norms", "together"]

def _broadcast(self, t, rank):
    "For `DistributedDL`: fastai's own moves the row numbers to a GPU even where there is none."
    t = torch.tensor(t, device=default_device())
    torch.distributed.broadcast(t, rank)
    return t.tolist()

def is_first() -> bool:
    "Whether this process may write: the first, or the only one."
    return not rank_distrib()

def _leave():
    "Together: a process that loses the first one while it ends is aborted."
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()

def begin_distributed():
    "Join the other processes, where `accelerate launch` or torchrun started several; they wait for each other a week."
    if num_distrib() < 2 or torch.distributed.is_initialized(): return
    accelerate = need("accelerate", extra="distributed", what="A cell on several processes")
    patience = accelerate.InitProcessGroupKwargs(timeout=timedelta(days=7))
    accelerate.Accelerator(cpu=default_device().type == "cpu", kwargs_handlers=[patience])
    atexit.register(_leave)

@contextmanager
def alone():
    """What the first process does without the others: fastai asks the environment how many processes there are, and
    would wait for the others' tensors; what it gathers when predicting isn't in the rows' order."""
    many = os.environ.get("WORLD_SIZE", "0")
    os.environ["WORLD_SIZE"] = "0"
    try: yield
    finally: os.environ["WORLD_SIZE"] = many

def agreed(
    decide:Callable, # called in the first process alone
):
    "What the first process's `decide()` gives, in every process; its error is everybody's."
    if num_distrib() < 2: return decide()
    found = [None]
    if is_first():
        try:
            with alone(): found = [(decide(), None)]
        except Exception as e: found = [(None, e)]
    torch.distributed.broadcast_object_list(found)
    value, error = found[0]
    if error: raise error
    return value

@contextmanager
def synced_norms(
    model:nn.Module, # changed in place, while the context lasts
):
    """Context in which batch norms count over all processes. By timm's conversion: torch's own, which fastai takes,
    loses the activation within timm's norms. A norm of before shares its weights and counts, and comes back."""
    before = {k: o for k, o in model.named_modules() if isinstance(o, _BatchNorm)}
    convert_sync_batchnorm(model)
    try: yield
    finally:
        for name, norm in before.items():
            norm.train(model.get_submodule(name).training)
            model.set_submodule(name, norm)

@contextmanager
def together(
    learn:Learner, # any learner
):
    "Context in which `learn` trains with the other processes, if there are any; batch norm is shared on GPUs alone."
    if num_distrib() < 2:
        yield
        return
    from fastai.distributed import DistributedDL # needs accelerate, which one process does not
    DistributedDL._broadcast, on_gpu = _broadcast, learn.dls.device.type == "cuda"
    norms = synced_norms(learn.model) if on_gpu else nullcontext()
    with norms, learn.distrib_ctx(sync_bn=False, cpu=not on_gpu): yield
