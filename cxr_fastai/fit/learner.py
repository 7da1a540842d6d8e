"""What both kinds of learner, of classifiers and of translators, add to fastai's: the model's own precision, and steps
that don't wait for the device."""
import torch
from fastai.callback.core import Callback, event
from fastai.callback.fp16 import MixedPrecision, NonNativeMixedPrecision
from fastai.learner import AvgSmoothLoss, Learner, Recorder
from fastai.torch_core import to_detach
from fastcore.meta import delegates
from torch.amp import GradScaler

from ..settings import PRECISIONS
from .precision import casting, plain

__all__ = ["DeviceLoss", "DeviceRecorder", "LossScale", "PreciseLearner", "SharedCasts"]

class DeviceLoss(AvgSmoothLoss):
    "fastai's smooth loss, where the loss is: to fetch it at each step is to wait for the device."
    def accumulate(self, learn):
        loss = to_detach(learn.loss.mean(), cpu=False)
        self.count, self.val = self.count + 1, torch.lerp(loss, self.val.to(loss.device), self.beta)

class DeviceRecorder(Recorder):
    "fastai's, whose `losses` are fetched when an epoch or a fit ends, and before they are drawn."
    name = "recorder"
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.smooth_loss = DeviceLoss(self.smooth_loss.beta)

    def after_loss(self):
        if not len(self.yb): return
        for o in "loss_grad", "loss": setattr(self.learn, o, plain(getattr(self.learn, o)))

    def _fetch(self):
        self.losses = [o.cpu() for o in self.losses]

    def after_train(self):
        self._fetch()
        super().after_train()

    def after_fit(self): self._fetch()

    @delegates(Recorder.plot_loss)
    def plot_loss(self, *args, **kwargs):
        "fastai's `plot_loss`; of a fit that was interrupted, too."
        self._fetch()
        return super().plot_loss(*args, **kwargs)

class LossScale(Callback):
    """Of fp16: the loss is scaled up before its gradients are taken, which would vanish, and those are scaled down
    before they are clipped, looked at or stepped by. Gradients that aren't finite make no step, and a smaller scale."""
    order = MixedPrecision.order # after gradients are accumulated, before they are clipped
    def before_fit(self): self.learn.scaler = GradScaler(self.dls.device.type)
    def before_backward(self): self.learn.loss_grad = self.scaler.scale(self.loss_grad)
    def before_step(self): self.scaler.unscale_(self.learn.torch_opt)
    def after_fit(self): self.learn.scaler = None

class SharedCasts(Callback):
    """Where a step uses a net several times, as a CycleGAN's does: weights are cast to bf16 or fp16 once for all uses,
    from the model's call to the loss. Not for a CPU, whose bits it changes: gradients of the uses add up in that
    precision. The learner's `casts` is an ExitStack, so that a fit that breaks off leaves no autocast behind."""
    order = MixedPrecision.order
    def __init__(self,
        precision:str, # 'bf16', 'fp16' or 'fp32'
    ): self.precision = precision
    def before_batch(self): self.casts.enter_context(casting(self.precision, self.dls.device))
    def after_loss(self): self.casts.close()
    after_cancel_batch = after_loss

def _knows(cb, event_name):
    "Whether a callback does anything then; after a fit each sets itself running again."
    return event_name == "after_fit" or hasattr(type(cb), event_name) or event_name in vars(cb)

class PreciseLearner(Learner):
    "A fastai Learner whose model computes in a precision of its own, with a scaled loss where that is fp16."
    scaler = None # `LossScale`'s, while it fits
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if any(getattr(o, "precision", None) == "fp16" for o in self.model.modules()): self.add_cb(LossScale())

    @property
    def torch_opt(self):
        "torch's own optimizer within fastai's wrapper; an optimizer of fastai's as it is."
        return getattr(self.opt, "opt", self.opt)

    def _step(self):
        if not self.scaler: return super()._step()
        self.scaler.step(self.torch_opt) # by the fused ones without a word from the device
        self.scaler.update()

    def _call_one(self, event_name):
        "fastai's, but for callbacks that don't know the event: each looks for it in all that it stands for."
        if not hasattr(event, event_name): raise ValueError(f"{event_name} is no event of a fit.")
        for cb in self.cbs.sorted("order"):
            if _knows(cb, event_name): cb(event_name)

    def _split(self, b):
        super()._split(b)
        self.yb = tuple(map(plain, self.yb))

    def to_detach(self, b, cpu=True, gather=True):
        "fastai's, but for a DataLoader that gathers from no other process: one looks for it in all that it stands for."
        if hasattr(type(getattr(self, "dl", None)), "to_detach"): return super().to_detach(b, cpu, gather)
        return to_detach(b, cpu, gather)

    def add_cb(self, cb):
        """fastai's `add_cb`, with a Recorder that doesn't wait for the device, and without its mixed precisions: they
        would cast and scale a second time."""
        cb = cb() if isinstance(cb, type) else cb
        if isinstance(cb, (MixedPrecision, NonNativeMixedPrecision)): self.to_fp16()
        if type(cb) is Recorder:
            cb = DeviceRecorder(cb.add_time, cb.train_metrics, cb.valid_metrics, cb.smooth_loss.beta)
        return super().add_cb(cb)

    def to_fp16(self, *args, **kwargs):
        "The model has its own precision: ValueError that says where it is set."
        words = ", ".join(map(repr, PRECISIONS))
        raise ValueError(f"The precision is set when the learner is made, by precision=, which is one of {words}.")
    to_bf16 = to_fp32 = to_non_native_fp16 = to_fp16

    def gather_args(self):
        "For fastai's `WandbCallback`: nothing, as its own list of arguments ends in an error; `tracked` logs settings."
        return {}
