"""What both kinds of learner, of classifiers and of the CycleGAN, add to fastai's: the model's own precision."""
from fastai.callback.core import Callback
from fastai.callback.fp16 import MixedPrecision, NonNativeMixedPrecision
from fastai.learner import Learner
from torch.amp import GradScaler

from ..settings import PRECISIONS

__all__ = ["LossScale", "PreciseLearner"]

class LossScale(Callback):
    """Of fp16: the loss is scaled up before its gradients are taken, which would vanish, and those are scaled down
    before they are clipped, looked at or stepped by. Gradients that aren't finite make no step, and a smaller scale."""
    order = MixedPrecision.order # after gradients are accumulated, before they are clipped
    def before_fit(self): self.learn.scaler = GradScaler(self.dls.device.type)
    def before_backward(self): self.learn.loss_grad = self.scaler.scale(self.loss_grad)
    def before_step(self): self.scaler.unscale_(self.learn.torch_opt)
    def after_fit(self): self.learn.scaler = None

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

    def add_cb(self, cb):
        "fastai's `add_cb`, but for its mixed precisions: they would cast and scale a second time."
        if isinstance(cb() if isinstance(cb, type) else cb, (MixedPrecision, NonNativeMixedPrecision)): self.to_fp16()
        return super().add_cb(cb)

    def to_fp16(self, *args, **kwargs):
        "The model has its own precision: ValueError that says where it is set."
        words = ", ".join(map(repr, PRECISIONS))
        raise ValueError(f"The precision is set when the learner is made, by precision=, which is one of {words}.")
    to_bf16 = to_fp32 = to_non_native_fp16 = to_fp16

    def gather_args(self):
        "For fastai's `WandbCallback`: nothing, as its own list of arguments ends in an error; `tracked` logs settings."
        return {}
