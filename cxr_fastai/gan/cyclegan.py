"""A fastai Learner for the CycleGAN (paper section 4.3; Zhu et al. 2017, arXiv:1703.10593), by callbacks on fastai's
own loop: the losses, their table, grids of translations, running means of the generators, and an eye for collapse.

A is the majority (normal), B the minority (pneumonia)."""
import hashlib, random, warnings
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch
import matplotlib.pyplot as plt
import numpy as np
from fastai.callback.core import Callback, CancelEpochException, CancelFitException, TrainEvalCallback
from fastai.callback.hook import module_summary
from fastai.callback.progress import ProgressCallback
from fastai.callback.schedule import ParamScheduler
from fastai.imports import noop
from fastai.learner import Learner, Metric
from fastcore.basics import ifnone, PrettyString
from fastcore.foundation import L
from fastcore.imports import IN_NOTEBOOK
from fastcore.meta import delegates
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ..cohort.radiograph import read_radiograph
from ..core.files import atomic, check_keywords
from ..data.show import show_columns, TensorRadiograph
from ..fit.callbacks import epoch_table
from ..fit.learner import PreciseLearner, SharedCasts
from ..fit.precision import precision_on, seeded, TorchOptimizer
from .losses import CycleGANLoss
from .networks import CycleGAN, Discriminator, Generator
from .unpaired import UnpairedDataLoaders

__all__ = ["CycleGANLearner", "cyclegan_learner", "DIRECTIONS", "GeneratorEMA", "SaveGrids", "CollapseWatch"]

DIRECTIONS = "a2b", "b2a"
# of cuDNN's kernels: a GPU adds up a reflection padding's gradient in any order, so that bits can't be had by slow ones
FASTEST = partial(torch.backends.cudnn.flags, enabled=True, benchmark=True, deterministic=False, allow_tf32=False)
ARCHITECTURE = "n_blocks", "ngf", "ndf", "n_layers", "residual", "upsample" # settings that a model keeps
TRANSLATE_BS = 8 # images at a time: always as many, for a convolution's last bits depend on the batch's shape

class BothDomains(Callback):
    "Both images are input and target; says at which steps the identity is taken."
    order = -10
    def before_batch(self): self.learn.xb, self.learn.yb = (*self.xb, self.loss_func.takes_identity), self.xb

class LossPart(Metric):
    "The mean of one of the loss's parts over the steps at which it was taken."
    def __init__(self, name): self._name = name
    def reset(self): self.total, self.n = 0., 0
    def accumulate(self, learn):
        if self.name not in learn.loss_func.parts: return
        self.total, self.n = self.total + learn.loss_func.parts[self.name], self.n + 1
    @property
    def value(self): return float(self.total) / self.n if self.n else float("nan")
    @property
    def name(self): return self._name

class GeneratorEMA(Callback):
    "Running means of the generators' weights: no checkerboard. Young ones forget faster: step n weighs 9/(9+n)."
    def __init__(self,
        decay:float=.999, # share of the mean that a step keeps, at most
    ): self.decay = decay
    def after_step(self):
        self.model.steps = n = self.model.steps + 1
        mean, now = (list(o.parameters()) for o in (self.model.ema, self.model.generators))
        get_ema_multi_avg_fn(min(self.decay, n/(9 + n)))(mean, now, n)

class SaveGrids(Callback):
    "Every `every` epochs save A, A to B, B, B to A as a png, and show it in a notebook."
    def __init__(self,
        folder:str|Path, # of epoch-EPOCH.png
        every:int=10,    # epochs
        n:int=4,         # images of each domain
    ): self.folder, self.every, self.n = Path(folder), every, n
    def after_epoch(self):
        if (self.epoch + 1) % self.every and self.epoch + 1 < self.n_epoch: return
        fig = self.learn.show_results(self.n)
        with atomic(self.folder/f"epoch-{self.epoch + 1:04}.png") as tmp: fig.savefig(tmp, dpi=100)
        if IN_NOTEBOOK:
            from IPython.display import display
            display(fig)
        plt.close(fig)

class CollapseWatch(Callback):
    """Warn when training has failed: nan (which ends it), translations all alike, a discriminator that always wins. It
    looks when an epoch ends: to look at each step is to wait for the device."""
    def before_fit(self): self.said = set()

    def _say(self, what, why):
        if what not in self.said: warnings.warn(f"epoch {self.epoch + 1}: {why}")
        self.said.add(what)

    def _stop(self, why):
        self._say("nan", f"{why}: training stops, with no checkpoint of it. Try precision='fp32', or a lower lr.")
        raise CancelFitException

    def before_train(self): self.first = torch.zeros((), device=self.dls.device) # loss that isn't finite
    def after_loss(self): self.first = torch.where(self.first.isfinite(), self.loss.detach(), self.first)

    def after_epoch(self):
        if not self.first.isfinite(): self._stop(f"the loss is {self.first.item()}")
        if not all(p.isfinite().all() for p in self.model.parameters()): self._stop("weights are not finite")
        a, b = self.learn.shown()
        for direction, x in zip(DIRECTIONS, (a, b)):
            spread = lambda o: float(o.float().std(0).mean()) # between images; 0 where all are one
            if len(x) > 1 and spread(self.learn.generate(x, direction)) < .1 * spread(x):
                self._say(direction, f"translations {direction} of different images are nearly one (mode collapse).")
        for d in "d_a", "d_b":
            acc = next(m.value for m in self.learn.metrics if m.name == f"acc_{d}")
            if acc and acc > .99:
                self._say(d, f"discriminator {d} is right about {acc:.1%} of patches: its generator learns little. "
                            "Try diffaug='translation,cutout', or more images.")

class CycleGANLearner(PreciseLearner):
    "A fastai Learner of a `CycleGAN` that fits training rows only, from a seed, and translates radiographs."
    def __init__(self, *args, seed=0, settings=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.seed, self.settings, self.fits, self.first_epoch = seed, settings, 0, 0
        self.recorder.train_metrics, self.recorder.valid_metrics = True, False

    @delegates(Learner.fit)
    def fit(self, n_epoch, lr=None, start_epoch=0, **kwargs):
        "fastai's `fit`, seeded, after a leak check; the model remembers whose radiographs it saw."
        self.dls.check_leaks()
        seeded(self.seed + self.fits)
        self.dls.train.rng, self.first_epoch = random.Random(self.seed + self.fits), start_epoch
        self.model.zero_grad() # of a step that was interrupted
        self.model.seen = sorted({*self.model.seen, *self.dls.patients})
        with FASTEST(), ExitStack() as self.casts: super().fit(n_epoch, lr, **kwargs)
        self.fits += 1 # an interrupted fit doesn't count: called again, it goes on from its checkpoint

    def _do_fit(self):
        for self.epoch in range(self.first_epoch, self.n_epoch):
            self._with_events(self._do_epoch, "epoch", CancelEpochException)

    def _do_epoch(self): self._do_epoch_train() # there is nothing to validate

    def fit_flat_lin(self,
        n:int=100,         # epochs at `lr`
        n_decay:int=100,   # epochs in which it falls to zero on a line
        lr:float=None,     # None: the learner's, by default 2e-4 as the reference
        per:str="step",    # or 'epoch', the reference's staircase: its nth epoch already decays, its last is at 0
        **kwargs,          # of `fit`
    ):
        "The reference's schedule: constant, then a line to zero."
        if per not in ("step", "epoch"): raise ValueError(f"per={per!r} is not known; use 'step' or 'epoch'.")
        lr, total, cbs = ifnone(lr, self.lr), n + n_decay, L(kwargs.pop("cbs", None))
        line = lambda pct: lr * min(1, (1 - pct)*total / n_decay) if n_decay else lr
        stairs = lambda pct: lr * (1 - max(0, int(pct*total + 1e-6) + 2 - n) / (n_decay + 1))
        self.fit(total, lr, cbs=[ParamScheduler(dict(lr=line if per == "step" else stairs)), *cbs], **kwargs)

    def lr_find(self, *args, **kwargs):
        "Not for two players: RuntimeError that says why."
        raise RuntimeError("lr_find says nothing here: generators and discriminators play against each other, so that "
                           "a loss that falls is no progress. Take fit_flat_lin(100, 100, lr=2e-4), the reference's "
                           "rate, and look at the grids.")

    def get_preds(self, *args, **kwargs):
        "There are no labels to predict or to validate against: RuntimeError that says what there is."
        raise RuntimeError("A CycleGAN predicts no labels; use predict(image), translate(pixels) or show_results().")
    validate = tta = get_preds

    def summary(self):
        "fastai's summary of a generator and of a discriminator; the other direction has the same."
        x = torch.zeros(2, 1, self.size, self.size, device=self.dls.device)
        bare = partial(Learner, self.dls, loss_func=noop, default_cbs=False, cbs=TrainEvalCallback)
        return PrettyString("\n".join(module_summary(bare(o), x) for o in (self.model.g_ab, self.model.d_b)))

    @property
    def size(self): return self.dls.size

    @property
    def white(self):
        "Bits that were taken for white in 16-bit files that don't say; None where all do."
        return self.dls.train_ds.tfm.white
    @property
    def seen(self): return set(self.model.seen)

    def digest(self,
        direction:str="a2b", # 'a2b' or 'b2a'
    ) -> str: # 16 hex letters
        "Names what `translate` computes: the generator's weights, whether they give a residual, the precision."
        net = self._generator(direction)
        digest = hashlib.sha256(repr((net.residual, net.precision)).encode())
        for o in net.state_dict().values(): digest.update(o.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def _generator(self, direction):
        if direction not in DIRECTIONS:
            raise ValueError(f"direction={direction!r} is not known; 'a2b' makes {self.dls.vocab[1]} of "
                             f"{self.dls.vocab[0]}, 'b2a' the reverse.")
        return self.model.ema[direction].eval()

    @torch.no_grad()
    def generate(self,
        x:torch.Tensor, # `[n, 1, h, w]`, -1..1
        direction:str,  # 'a2b' or 'b2a'
    ) -> torch.Tensor:  # as `x`
        "Translate a batch by the running mean of the generator."
        net = self._generator(direction)
        return net(x.to(next(net.parameters()).device).as_subclass(torch.Tensor)).clamp(-1, 1)

    def translate(self,
        pixels:np.ndarray,   # uint8 `[n, h, w]`, sides multiples of 4
        direction:str="a2b", # 'a2b': majority to minority; 'b2a' back
    ) -> np.ndarray:         # uint8 `[n, h, w]`
        "Translate radiographs in batches of one shape, so that an image gives the same pixels in any company."
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or any(o % 4 for o in pixels.shape[1:]):
            raise ValueError("Only uint8 pixels [n, h, w] can be translated, h and w multiples of 4, "
                             f"not {pixels.dtype} {list(pixels.shape)}.")
        out = [pixels[:0]]
        for i in range(0, len(pixels), TRANSLATE_BS):
            some = pixels[i:i + TRANSLATE_BS]
            full = np.concatenate([some, some[:1].repeat(TRANSLATE_BS - len(some), 0)])
            x = torch.from_numpy(full)[:, None].float() / 127.5 - 1
            y = ((self.generate(x, direction) + 1) * 127.5).round().byte()
            out.append(y[:len(some), 0].cpu().numpy())
        return np.concatenate(out)

    def predict(self,
        image,               # a file, or uint8 pixels `[h, w]`
        direction:str="a2b", # 'a2b': majority to minority; 'b2a' back
    ) -> TensorRadiograph:   # uint8 `[1, size, size]`; `.show()` draws it
        "Translate one radiograph."
        pixels = image if isinstance(image, np.ndarray) else read_radiograph(image, self.size, self.white)
        return TensorRadiograph(torch.from_numpy(self.translate(pixels[None], direction)))

    def shown(self,
        n:int=4, # of each domain
    ) -> list:   # two batches, -1..1
        "The first `n` training images of each domain, as they are."
        ds = self.dls.valid_ds
        if not (n := min(n, len(ds.a), len(ds.b))):
            raise ValueError("An exported learner has no radiographs to show; use predict(image).")
        return [o.float() / 127.5 - 1 for o in ds.load([(i, i) for i in range(n)])]

    def show_results(self, max_n=4):
        "A figure of A, A to B, B, B to A for the first `max_n` training images of each."
        a, b = self.shown(max_n)
        columns = {"A": a, "A to B": self.generate(a, "a2b"), "B": b, "B to A": self.generate(b, "b2a")}
        return show_columns({k: (v.cpu() + 1) / 2 for k, v in columns.items()})

adam = partial(TorchOptimizer, opt=torch.optim.Adam, betas=(.5, .999), eps=1e-8, weight_decay=0., fused=True)

TAKEN = "path model_dir wd default_cbs".split() # of fastai's Learner; its other keywords change nothing here
HINTS = dict(loss_func="the loss is gan=, lam=, identity=", opt_func="the optimizer is the reference's Adam",
             splitter="the groups are generators and discriminators", metrics="the table shows the loss's parts")

@delegates(Learner.__init__, but="dls model loss_func opt_func splitter metrics wd_bn_bias train_bn moms".split())
def cyclegan_learner(
    dls:UnpairedDataLoaders,  # A and B
    n_blocks:int=None,        # of a generator; None: 9 at 256 px and up, 6 below, as the reference
    ngf:int=64,               # a generator's first channels
    ndf:int=64,               # a discriminator's first channels
    n_layers:int=3,           # a discriminator's halvings: 3 judges patches of 70x70
    gan:str="lsgan",          # 'lsgan' or 'bce': the adversarial loss
    lam:float=10.,            # weight of the cycle loss (eq. 2)
    identity:float=.5,        # weight of the identity loss, times `lam`
    idt_every:int=1,          # identity loss every so many steps, with as many times the weight
    pool:int=50,              # past fakes kept for each discriminator
    residual:bool=False,      # G(x) = x + net(x), an identity at first
    upsample:str="transpose", # 'transpose' (reference) or 'resize', without checkerboards
    diffaug:str="",           # what discriminators are shown is changed by these of `DIFFAUG`, with commas between
    ema:float=.999,           # share of the generators' running mean that a step keeps
    precision:str="auto",     # 'auto' (the fastest that the hardware has), 'bf16', 'fp16' or 'fp32'
    seed:int=None,            # of initialisation, pools, augmentation and pairs; None: the DataLoaders' own
    model:CycleGAN=None,      # a trained one to go on with; None: a new one
    lr:float=2e-4,            # where `fit` is given none
    cbs=None,                 # further callbacks
    **kwargs,
) -> CycleGANLearner:
    """The reference's CycleGAN for one channel by default: two least-squares games, cycles and identities, one Adam of
    two groups. `fit_flat_lin` trains it; `translate`, `predict` and `synthesise` make images."""
    check_keywords(kwargs, TAKEN, "cyclegan_learner", HINTS)
    settings = {k: v for k, v in locals().items() if k not in ("dls", "model", "cbs", "kwargs")}
    seeded(seed := ifnone(seed, dls.seed))
    settings |= dict(n_blocks=ifnone(n_blocks, 9 if dls.size >= 256 else 6), seed=seed, size=dls.size,
                     precision=precision_on(precision, dls.device))
    if model is None:
        generator = partial(Generator, n_blocks=settings["n_blocks"], ngf=ngf, residual=residual, upsample=upsample)
        discriminator = partial(Discriminator, ndf=ndf, n_layers=n_layers)
        model = CycleGAN(generator, discriminator, settings={k: settings[k] for k in ARCHITECTURE})
    for net in model.modules():
        if hasattr(net, "precision"): net.precision = settings["precision"]
    settings |= dict.fromkeys(ARCHITECTURE) | model.settings
    loss = CycleGANLoss(model, gan=gan, lam=lam, identity=identity, idt_every=idt_every, pool=pool, diffaug=diffaug,
                        seed=seed)
    learn = CycleGANLearner(dls, model.to(dls.device), loss, adam, lr=lr, splitter=CycleGAN.groups, seed=seed,
                            settings=settings, metrics=[LossPart(o) for o in loss.names], **kwargs)
    learn.remove_cb(ProgressCallback)
    if dls.device.type != "cpu": learn.add_cb(SharedCasts(settings["precision"]))
    learn.add_cbs([BothDomains(), epoch_table(), GeneratorEMA(ema), CollapseWatch(), *L(cbs)])
    return learn
