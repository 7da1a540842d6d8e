import numpy as np, pytest, torch
from fastai.callback.fp16 import MixedPrecision, NonNativeMixedPrecision
from fastai.vision.all import (
    Adam, AvgSmoothLoss, Callback, GradientAccumulation, GradientClip, MixUp, OptimWrapper, Recorder)
from torch.amp import GradScaler
from torch.utils._python_dispatch import TorchDispatchMode
from cxr_fastai.arms import POLICIES
from cxr_fastai.data.loaders import RadiographDataLoaders
from cxr_fastai.fit.learner import SharedCasts
from cxr_fastai.gan.cut import cut_learner
from cxr_fastai.gan.cyclegan import cyclegan_learner
from cxr_fastai.gan.unpaired import UnpairedDataLoaders
from cxr_fastai.models.learner import fusion_learner, image_learner, metadata_learner
from conftest import SIDE
from waits import Waits

TINY = dict(arch="test_resnet", weights="none")

@pytest.fixture
def make(tiny_dls):
    def make(use="image", precision="fp16", **kwargs):
        learner = dict(image=image_learner, both=fusion_learner)[use]
        return learner(tiny_dls(use), **TINY | dict(precision=precision) | kwargs)
    return make

@pytest.fixture
def gan(rows):
    dls = UnpairedDataLoaders.from_df(rows, size=32, bs=4)
    return lambda precision="fp16": cyclegan_learner(dls, n_blocks=1, ngf=4, ndf=4, precision=precision)

def weights(learn): return torch.cat([p.detach().flatten() for p in learn.model.parameters()])

START = 2.**8 # a scale at which these nets' first gradients are finite; torch's own is 2^16

class Gradients(Callback):
    "Each step's, as the optimizer is given them, and the scale of the loss."
    order = 90
    def __init__(self, start=START): self.start = start
    def before_fit(self):
        self.grads, self.scales, self.moved = [], [], []
        if self.scaler: self.learn.scaler = GradScaler("cpu", init_scale=self.start)
    def before_step(self):
        self.grads.append(torch.cat([p.grad.flatten() for p in self.model.parameters() if p.grad is not None]).clone())
        self.was = weights(self.learn)
    def after_step(self): self.moved.append(not torch.equal(weights(self.learn), self.was))
    def after_batch(self):
        if self.training and self.scaler: self.scales.append(self.scaler.get_scale())

def looked(learn, *cbs, **kwargs):
    learn.fit(1, 1e-3, cbs=[look := Gradients(**kwargs), *cbs])
    return look

def alike(a, b): return torch.nn.functional.cosine_similarity(a, b, 0) > .99 and .97 < a.norm()/b.norm() < 1.03

@pytest.mark.parametrize("use", ["image", "both"])
def test_fp16_trains_as_fp32_does_to_its_digits(make, use):
    half, full = looked(make(use)), looked(make(use, "fp32"))
    assert alike(half.grads[0], full.grads[0]) and all(half.moved) and all(full.moved)
    assert set(half.scales) == {START} and not full.scales

def test_the_cyclegans_four_games_share_one_scaled_loss(gan):
    half, full = looked(gan()), looked(gan("fp32"))
    assert alike(half.grads[0], full.grads[0]) and set(half.scales) == {START} and all(half.moved)

def test_small_gradients_vanish_without_the_scale(make):
    tiny = dict(loss_func=lambda x, y, **kwargs: torch.nn.functional.cross_entropy(x, y)*1e-6)
    full, scaled, plain = (looked(make(precision=o, **tiny), start=s).grads[0]
                           for o, s in (("fp32", 1), ("fp16", 2.**16), ("fp16", 1)))
    assert alike(scaled, full) and not alike(plain, full)

class Overflow(Callback):
    def after_backward(self):
        if self.iter == 1: next(p for p in self.model.parameters() if p.grad is not None).grad.fill_(torch.inf)

@pytest.mark.parametrize("opt_func", [None, Adam])
def test_a_gradient_that_isnt_finite_makes_no_step_and_a_smaller_scale(make, opt_func):
    "By torch's fused kernel, and by an optimizer of fastai's."
    look = looked(make(**dict(opt_func=opt_func) if opt_func else {}), Overflow())
    assert look.moved[:3] == [True, False, True] and look.scales[:3] == [START, START/2, START/2]

def test_what_is_clipped_and_accumulated_are_true_gradients(make):
    assert max(float(o.norm()) for o in looked(make(), GradientClip(.01)).grads) <= .0101
    half, full = (looked(make(precision=o), GradientAccumulation(16)) for o in ("fp16", "fp32"))
    assert len(half.grads) == len(full.grads) < len(half.scales) and alike(half.grads[0], full.grads[0])

class Scale(Callback):
    def before_train(self): self.first = self.scaler.get_scale()

def test_a_seed_gives_its_bits_and_every_fit_begins_with_the_same_scale(make):
    a, b = make(), make()
    for o in a, b: o.fit_one_cycle(1, 1e-3)
    assert torch.equal(weights(a), weights(b)) and a.scaler is None
    b.fit(1, 1e-3, cbs=[look := Scale()])
    assert look.first == 2.**16 and b.scaler is None

@pytest.mark.parametrize("cb", [MixedPrecision, MixedPrecision(), MixedPrecision("bf16"), NonNativeMixedPrecision()])
def test_fastais_own_precision_is_refused_and_nothing_is_scaled_twice(make, gan, cb):
    for learn in make(), make(precision="fp32"), gan():
        for add in learn.add_cb, lambda o: learn.fit(1, cbs=o):
            with pytest.raises(ValueError, match="by precision=, which is one of 'auto', 'bf16', 'fp16'"): add(cb)
        for to in learn.to_fp16, learn.to_bf16, learn.to_fp32, learn.to_non_native_fp16:
            with pytest.raises(ValueError, match="by precision="): to()

# no step waits for its device

@pytest.fixture(scope="module")
def some_image_only(rows):
    "Every fourth training row is image-only."
    name = next(k for k, o in POLICIES.items() if o.image_only)
    at = (rows["split"] == "train") & (np.arange(len(rows)) % 4 == 0)
    return rows.assign(metadata_policy=np.where(at, name, ""))

@pytest.fixture
def any_learner(rows, some_image_only, tmp_path):
    def make(kind, precision="fp32", device="cpu", **kwargs):
        if kind in ("gan", "cut"):
            dls = UnpairedDataLoaders.from_df(rows, size=32, bs=4, device=device)
            more = dict(diffaug="brightness,contrast,translation,cutout", n_blocks=1, ngf=4, ndf=4)
            return dict(gan=cyclegan_learner, cut=cut_learner)[kind](dls, **more, precision=precision)
        use = "both" if kind == "image-only" else kind
        dls = RadiographDataLoaders.from_df(some_image_only if kind == "image-only" else rows, tmp_path, size=SIDE,
                                            bs=4, use=use, device=device)
        if kind == "metadata": return metadata_learner(dls, **kwargs)
        return dict(image=image_learner, both=fusion_learner)[use](dls, **TINY, precision=precision, **kwargs)
    return make

KINDS = "image", "both", "image-only", "metadata", "gan", "cut"

@pytest.mark.parametrize("kind, precision, cb", [*((o, "fp32", None) for o in KINDS), ("both", "fp16", GradientClip),
                                                 ("both", "bf16", MixUp), ("gan", "fp16", None),
                                                 ("cut", "bf16", None)])
def test_no_training_step_waits_for_its_device(any_learner, kind, precision, cb):
    any_learner(kind, precision).fit(1, 1e-3, cbs=[looked := Waits(), *([cb()] if cb else [])])
    assert len(looked.each) > 3 and looked.each == [[]]*len(looked.each)

def test_what_waits_is_found(any_learner):
    asks = [lambda o: o.item(), bool, float, int, lambda o: o.cpu(), lambda o: o.numpy(), lambda o: o.tolist(),
            np.asarray, lambda o: o.view(1).nonzero(), lambda o: o.view(1)[o.view(1) > 0]]
    class Asks(Callback):
        def __init__(self, asks): self.asks = asks
        def after_batch(self): self.asks[self.iter % 5](self.loss.detach())
    for some in asks[:5], asks[5:]:
        any_learner("metadata").fit(1, cbs=[looked := Waits(), Asks(some)])
        assert len(looked.each) >= 5 and all(looked.each)

class Enough(Exception): pass

@pytest.mark.parametrize("kind", KINDS)
def test_steps_are_made_where_no_value_can_be_asked_for(any_learner, monkeypatch, kind):
    "On torch's `meta` device; its fused optimizers aren't there."
    def sgd(params, lr): return OptimWrapper(params, torch.optim.SGD, lr=lr)
    class Stop(Callback):
        order = 1000
        def after_batch(self):
            if self.iter == 2: raise Enough(self.loss.device.type)
    monkeypatch.setattr("cxr_fastai.gan.translator.adam", sgd)
    learn = any_learner(kind, device="meta", **{} if kind in ("gan", "cut") else dict(opt_func=sgd))
    with pytest.raises(Enough, match="meta"): learn.fit(1, 1e-3, cbs=Stop())

class Fastais(Callback):
    "What fastai's own Recorder would keep."
    order = Recorder.order
    def before_fit(self): self.smooth, self.kept = AvgSmoothLoss(), []
    def after_batch(self):
        if not self.training: return
        self.smooth.accumulate(self.learn)
        self.kept.append(self.smooth.value)
    def after_train(self): self.at_end = self.smooth.value.item()

@pytest.mark.parametrize("kind", ["image", "gan"])
def test_smooth_losses_are_fastais_to_the_bit_and_lie_on_the_host(any_learner, kind):
    learn = any_learner(kind)
    learn.fit(2, 1e-3, cbs=[own := Fastais()])
    r = learn.recorder
    assert torch.equal(torch.stack(r.losses), torch.stack(own.kept)) and r.values[-1][0] == own.at_end
    assert {o.device.type for o in r.losses} == {"cpu"} and learn.smooth_loss == own.kept[-1]
    r.plot_loss(with_valid=False)

def test_a_recorder_that_is_given_keeps_its_settings(make):
    learn = make(precision="fp32")
    learn.remove_cb(Recorder)
    learn.add_cb(Recorder(add_time=False, train_metrics=True, beta=.5))
    assert learn.recorder.smooth_loss.beta == .5 and learn.recorder.train_metrics and not learn.recorder.add_time

# casts

class Casts(TorchDispatchMode):
    "How often a tensor is made another type."
    n = 0
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.n += func is torch.ops.aten._to_copy.default and "dtype" in (kwargs or {})
        return func(*args, **kwargs or {})

def test_shared_casts_are_fewer_and_their_gradients_as_good(gan):
    def look(*cbs, precision="bf16"):
        with Casts() as casts: return looked(gan(precision), *cbs), casts.n
    (shared, few), (own, many), (full, none) = look(SharedCasts("bf16")), look(), look(precision="fp32")
    assert none < few < .9*many
    far = lambda o: float((o.grads[0] - full.grads[0]).norm()/full.grads[0].norm())
    assert far(shared) < 1.1*far(own) + 1e-3 and not torch.is_autocast_enabled("cpu")

def test_a_fit_that_breaks_off_leaves_no_autocast_behind(gan):
    class Break(Callback):
        def after_pred(self): raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): gan("bf16").fit(1, cbs=[SharedCasts("bf16"), Break()])
    assert not torch.is_autocast_enabled("cpu")

def test_casts_are_shared_but_on_a_cpu(any_learner, gan):
    shares = lambda learn: any(isinstance(o, SharedCasts) for o in learn.cbs)
    assert shares(any_learner("gan", device="meta")) and not shares(gan())

class Counts(Callback):
    "Has an event as a method, and one that it is given."
    run_valid = False
    def after_batch(self): self.seen["after_batch"] = self.seen.get("after_batch", 0) + 1

def test_a_callback_is_asked_what_it_answers_wherever_that_is_written(make):
    "In its class, or given to it; one that was switched off for a fit runs in the next."
    learn, cb = make(precision="fp32"), Counts()
    cb.seen, cb.before_epoch = {}, lambda: cb.seen.update(epoch=cb.epoch)
    cb.run = False
    learn.fit(1, cbs=cb)
    assert not cb.seen and cb.run
    learn.fit(2, cbs=cb)
    assert cb.seen == dict(epoch=1, after_batch=2*len(learn.dls.train))

def test_what_a_step_computes_with_has_no_type_of_fastais(make):
    types = set()
    class Types(Callback):
        def before_backward(self): types.update(map(type, (self.pred, self.loss_grad, self.loss, *self.yb)))
    make("both", "fp32").fit(1, cbs=Types())
    assert types == {torch.Tensor}
