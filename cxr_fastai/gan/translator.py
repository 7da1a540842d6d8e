"""What every translator's learner is (paper section 4.3; the schedule is that of Zhu et al. 2017, arXiv:1703.10593): a
fastai Learner that fits training rows only, from a seed, by callbacks on fastai's own loop, and translates radiographs.

A is the majority (normal), B the minority (pneumonia)."""
import hashlib, random
from contextlib import ExitStack
from functools import partial

import torch
import numpy as np
from fastai.callback.core import CancelEpochException, TrainEvalCallback
from fastai.callback.hook import module_summary
from fastai.callback.progress import ProgressCallback
from fastai.callback.schedule import ParamScheduler
from fastai.imports import noop
from fastai.learner import Learner
from fastcore.basics import ifnone, PrettyString
from fastcore.foundation import L
from fastcore.meta import delegates

from ..arms import TRANSLATORS
from ..cohort.radiograph import read_radiograph
from ..core.files import check_keywords
from ..data.show import show_columns, TensorRadiograph
from ..fit.callbacks import epoch_table
from ..fit.learner import PreciseLearner, SharedCasts
from ..fit.precision import precision_on, seeded, TorchOptimizer
from .alarms import CollapseWatch
from .callbacks import BothDomains, GeneratorEMA, LossPart, ShortEpochs
from .losses import AdversarialLoss
from .networks import Discriminator, Generator, Players
from .unpaired import UnpairedDataLoaders

__all__ = ["TranslatorLearner", "learner_of", "players", "settled"]

# of cuDNN's kernels: a GPU adds up a reflection padding's gradient in any order, so that bits can't be had by slow ones
FASTEST = partial(torch.backends.cudnn.flags, enabled=True, benchmark=True, deterministic=False, allow_tf32=False)
ARCHITECTURE = "n_blocks", "ngf", "ndf", "n_layers", "residual", "upsample" # settings that a model keeps
TRANSLATE_BS = 8 # images at a time: always as many, for a convolution's last bits depend on the batch's shape

class TranslatorLearner(PreciseLearner):
    "A fastai Learner of `Players` that fits training rows only, from a seed, and translates radiographs."
    kind = "" # a key of `TRANSLATORS`
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
        steps:int=None,    # in all, at most: where the epochs have more, each is shorter, and draws its films anew
        **kwargs,          # of `fit`
    ):
        "The reference's schedule: constant, then a line to zero."
        if per not in ("step", "epoch"): raise ValueError(f"per={per!r} is not known; use 'step' or 'epoch'.")
        lr, total, cbs = ifnone(lr, self.lr), n + n_decay, L(kwargs.pop("cbs", None))
        if steps is not None:
            if steps < 1: raise ValueError(f"steps={steps} must be 1 or more.")
            if steps < total: n, n_decay, total = steps - steps*n_decay//total, steps*n_decay//total, steps
            cbs += ShortEpochs(steps)
        self.settings = self.settings | dict(steps=steps) # by which a checkpoint knows its run
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
        raise RuntimeError(f"A {TRANSLATORS[self.kind].title} predicts no labels; use predict(image), "
                           "translate(pixels) or show_results().")
    validate = tta = get_preds

    def summary(self):
        "fastai's summary of a generator and of a discriminator; another direction has the same."
        x = torch.zeros(2, 1, self.size, self.size, device=self.dls.device)
        bare = partial(Learner, self.dls, loss_func=noop, default_cbs=False, cbs=TrainEvalCallback)
        return PrettyString("\n".join(module_summary(bare(o), x) for o in (self.model.g_ab, self.model.d_b)))

    @property
    def ways(self):
        "The directions it translates in."
        return TRANSLATORS[self.kind].ways

    @property
    def size(self): return self.dls.size

    @property
    def white(self):
        "Bits that were taken for white in 16-bit files that don't say; None where all do."
        return self.dls.train_ds.tfm.white
    @property
    def seen(self): return set(self.model.seen)

    def digest(self,
        direction:str="a2b", # one of `ways`
    ) -> str: # 16 hex letters
        "Names what `translate` computes: the generator's weights, whether they give a residual, the precision."
        net = self._generator(direction)
        digest = hashlib.sha256(repr((net.residual, net.precision)).encode())
        for o in net.state_dict().values(): digest.update(o.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()[:16]

    def _generator(self, direction):
        TRANSLATORS[self.kind].check(direction, *self.dls.vocab)
        return self.model.ema[direction].eval()

    @torch.no_grad()
    def generate(self,
        x:torch.Tensor, # `[n, 1, h, w]`, -1..1
        direction:str,  # one of `ways`
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
        "A figure of A, A to B, B, B to A (as far as it translates) for the first `max_n` training images of each."
        a, b = self.shown(max_n)
        columns = {"A": a, "A to B": self.generate(a, "a2b"), "B": b}
        if "b2a" in self.ways: columns["B to A"] = self.generate(b, "b2a")
        return show_columns({k: (v.cpu() + 1) / 2 for k, v in columns.items()})

adam = partial(TorchOptimizer, opt=torch.optim.Adam, betas=(.5, .999), eps=1e-8, weight_decay=0., fused=True)

TAKEN = "path model_dir wd default_cbs".split() # of fastai's Learner; its other keywords change nothing here
HINTS = dict(loss_func="the loss is gan=, lam=, identity=", opt_func="the optimizer is the reference's Adam",
             splitter="the groups are generators and discriminators", metrics="the table shows the loss's parts")
LEARNERS_OWN = "dls model loss_func opt_func splitter metrics wd_bn_bias train_bn moms".split() # never given

def settled(
    dls:UnpairedDataLoaders, # A and B
    name:str,                # of the function that makes a learner
    given:dict,              # its arguments
) -> dict:                   # its settings
    "What a learner's arguments come to; all that follows is drawn from its seed. ValueError for an idle keyword."
    check_keywords(given["kwargs"], TAKEN, name, HINTS)
    own = {k: v for k, v in given.items() if k not in ("dls", "model", "cbs", "kwargs")}
    own |= dict(n_blocks=ifnone(own["n_blocks"], 9 if dls.size >= 256 else 6), seed=ifnone(own["seed"], dls.seed),
                size=dls.size, precision=precision_on(own["precision"], dls.device))
    seeded(own["seed"])
    return own

def players(
    own:dict, # settings, of `settled`
) -> dict:    # arguments of a model
    "How a model's generators and discriminators are made, and what they are built from."
    generator = partial(Generator, **{o: own[o] for o in ("n_blocks", "ngf", "residual", "upsample")})
    discriminator = partial(Discriminator, ndf=own["ndf"], n_layers=own["n_layers"])
    return dict(generator=generator, discriminator=discriminator, settings={k: own[k] for k in ARCHITECTURE})

def learner_of(
    kind:type,               # a TranslatorLearner's class
    dls:UnpairedDataLoaders, # A and B
    model:Players,           # new, or to go on with
    loss:AdversarialLoss,    # of that model
    own:dict,                # settings, of `settled`
    cbs=None,                # further callbacks
    **kwargs,                # of fastai's Learner
) -> TranslatorLearner:
    "A learner with the reference's Adam, in two groups, and the callbacks that every translator has."
    for net in model.modules():
        if hasattr(net, "precision"): net.precision = own["precision"]
    own = own | dict.fromkeys(ARCHITECTURE) | model.settings
    learn = kind(dls, model.to(dls.device), loss, adam, lr=own["lr"], splitter=type(model).groups, seed=own["seed"],
                 settings=own, metrics=[LossPart(o) for o in loss.names], **kwargs)
    learn.remove_cb(ProgressCallback)
    if dls.device.type != "cpu": learn.add_cb(SharedCasts(own["precision"]))
    learn.add_cbs([BothDomains(), epoch_table(), GeneratorEMA(own["ema"]), CollapseWatch(), *L(cbs)])
    return learn
