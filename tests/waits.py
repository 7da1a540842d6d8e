"What makes a step wait for its device, counted on a CPU: each way in which a tensor's value reaches Python."
import traceback
import torch
from fastai.vision.all import Callback
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

ASKED = {"item", "cpu", "numpy", "tolist", "__bool__", "__float__", "__int__", "__index__", "__array__"} # by Python
TOLD = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "equal"} # by torch's own functions

def place():
    "The lines outside of torch that ask."
    own = [o for o in traceback.extract_stack() if "/torch/" not in o.filename and not o.filename.endswith("waits.py")]
    return " < ".join(f"{o.filename.rpartition('/')[2]}:{o.lineno}" for o in own[-1:-4:-1])

class Asked(TorchFunctionMode):
    def __init__(self, found):
        super().__init__()
        self.found = found
    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        if name in ASKED: self.found.append((name, place()))
        return func(*args, **kwargs or {})

def _is_mask(o): return o is not None and o.dtype in (torch.bool, torch.uint8)

class Told(TorchDispatchMode):
    def __init__(self, found):
        super().__init__()
        self.found = found
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        masked = name in ("index", "index_put", "index_put_") and any(map(_is_mask, args[1]))
        if name in TOLD or masked: self.found.append((name, place()))
        return func(*args, **kwargs or {})

class Waits(Callback):
    "Of the training steps from the third on, each from its batch's making to the next one's; `each` are those found."
    order = -1000
    def before_train(self):
        self.each, self.modes = [], [Asked(found := []), Told(found)]
        self.found = found
        for o in self.modes: o.__enter__()
    def before_batch(self):
        if not self.training: return
        if self.iter > 2: self.each.append(list(self.found))
        self.found.clear()
    def after_train(self):
        for o in reversed(self.modes): o.__exit__(None, None, None)
