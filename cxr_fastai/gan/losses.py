"""The CycleGAN's loss (paper eq. 1-2; Zhu et al. 2017, arXiv:1703.10593, eq. 1-3 and section 5.2 for the identity): its
eight parts, the pools of old fakes, and differentiable augmentation for few images.

One backward pass serves all four networks: the generators' part sees frozen discriminators and the discriminators' part
sees detached fakes, both as they were before the step. That is the reference's update, which steps twice."""
import random
from contextlib import contextmanager
from math import inf
from numbers import Real

import torch
import torch.nn.functional as F
from torch import nn

from ..core.files import few

__all__ = ["AdversarialLoss", "CycleGANLoss", "ImagePool", "DIFFAUG", "diff_augment", "each_way", "is_weight"]

class ImagePool:
    "Up to `size` past fakes: once full, every other fake is kept and an old one given in its place (Shrivastava 2017)."
    def __init__(self,
        size:int=50, # images; 0 gives every fake back
        seed:int=0,  # of what is swapped
    ): self.size, self.images, self.rng = size, [], random.Random(seed)

    def __call__(self, fakes): return torch.stack([self._swap(o) for o in fakes]) if self.size else fakes

    def _swap(self, fake):
        if len(self.images) < self.size:
            self.images.append(fake.clone())
            return fake
        if self.rng.random() > .5: return fake
        i = self.rng.randrange(self.size)
        old, self.images[i] = self.images[i], fake.clone()
        return old

    def state_dict(self): return dict(images=self.images, rng=self.rng.getstate())
    def load_state_dict(self, state):
        self.images = state["images"]
        self.rng.setstate(state["rng"])
    def __getstate__(self): return self.__dict__ | dict(images=[]) # a pickled learner carries no patient

def _each(x, low, high): return torch.empty(len(x), 1, 1, 1, device=x.device).uniform_(low, high)
def _ints(x, n): return torch.randint(n, (len(x), 1, 1), device=x.device)

def _contrast(x):
    mean = x.mean((1, 2, 3), keepdim=True)
    return (x - mean) * _each(x, .5, 1.5) + mean

def _places(x):
    h, w = (torch.arange(n, device=x.device) for n in x.shape[2:])
    return h[None, :, None], w[None, None]

def _translation(x, most=.125):
    "Shift by up to `most` of the side, each image its own way; zeros come in."
    (h, w), (i, j) = x.shape[2:], _places(x)
    i, j = i + _ints(x, 2*int(h*most) + 1) - int(h*most), j + _ints(x, 2*int(w*most) + 1) - int(w*most)
    inside = (i >= 0) & (i < h) & (j >= 0) & (j < w)
    at = (i.clamp(0, h-1)*w + j.clamp(0, w-1)).flatten(1)[:, None].expand(-1, x.shape[1], -1)
    return x.flatten(2).gather(2, at).view_as(x) * inside[:, None]

def _cutout(x):
    "Zero a square of half the side, at any place, each image its own."
    (h, w), (i, j) = x.shape[2:], _places(x)
    di, dj = i - _ints(x, h + 1), j - _ints(x, w + 1)
    return x * ~((di.abs() < h/4) & (dj.abs() < w/4))[:, None]

DIFFAUG = dict(brightness=lambda x: x + _each(x, -.5, .5), contrast=_contrast, translation=_translation, cutout=_cutout)

def diff_augment(
    x:torch.Tensor, # images [n,c,h,w]
    policy:str="",  # names of `DIFFAUG`, with commas between; '' for none
):
    "What a discriminator is shown, so that it can't learn few images by heart (Zhao 2020, arXiv:2006.10738)."
    for name in filter(None, policy.split(",")): x = DIFFAUG[name](x)
    return x

IDENTITY = "idt_a", "idt_b", "nce_b" # parts that are not taken at each step
GAN = dict(lsgan=F.mse_loss, bce=F.binary_cross_entropy_with_logits)

@contextmanager
def _frozen(*nets):
    params = [p for net in nets for p in net.parameters()]
    for p in params: p.requires_grad_(False)
    try: yield
    finally:
        for p in params: p.requires_grad_(True)

class AdversarialLoss:
    "The game of any generators and discriminators; `parts` keeps the terms of the last step, `n` counts steps."
    def __init__(self,
        model:nn.Module,   # `Players`
        gan:str,           # 'lsgan' (least squares) or 'bce'
        identity:float=0., # weight of what films of the target class are to keep; 0 or False for none
        idt_every:int=1,   # take it every so many steps, with as many times the weight
        diffaug:str="",    # names of `DIFFAUG`, with commas between, for the discriminators' inputs
    ):
        if gan not in GAN: raise ValueError(f"gan={gan!r} is not known; use {' or '.join(GAN)}.")
        if unknown := set(filter(None, diffaug.split(","))) - set(DIFFAUG):
            raise ValueError(f"diffaug: {few(sorted(unknown))} is not known; there are {', '.join(DIFFAUG)}.")
        if not isinstance(idt_every, int) or idt_every < 1:
            raise ValueError(f"idt_every={idt_every!r} is no whole number from 1 up.")
        self.model, self.gan, self.diffaug, self.n, self.parts = model, GAN[gan], diffaug, 0, {}
        self.identity, self.idt_every = identity, idt_every

    @property
    def takes_identity(self): return self.identity > 0 and self.n % self.idt_every == 0

    def _adv(self, logits, real): return self.gan(logits, torch.full_like(logits, real))

    def _fool(self, d, fake):
        "How far the frozen discriminator is from taking a fake for real."
        with _frozen(d): return self._adv(d(diff_augment(fake, self.diffaug)), 1.)

    def _tell(self, d, real, fake):
        "A discriminator's halved loss, and the share of patches it judges right."
        logits = d(diff_augment(torch.cat([real, fake]), self.diffaug))
        on_real, on_fake = logits.chunk(2)
        line = .5 if self.gan is F.mse_loss else 0.
        right = ((on_real > line).float().mean() + (on_fake <= line).float().mean()) / 2
        return (self._adv(on_real, 1.) + self._adv(on_fake, 0.)) / 2, right.detach()

    def _total(self, parts, **shares):
        "The sum of a step's parts, which are kept, beside what else its table shows."
        self.parts = {name: part.detach() for name, part in parts.items()} | shares
        self.n += 1
        times = {name: self.idt_every if name in IDENTITY else 1 for name in parts}
        return sum(part * times[name] for name, part in parts.items())

    def state_dict(self): return dict(n=self.n)
    def load_state_dict(self, state): self.n = state["n"]

def is_weight(
    o:object, # anything
) -> bool:
    "Whether it is a number from 0 up."
    return isinstance(o, Real) and not isinstance(o, bool) and 0 <= o < inf

def each_way(
    lam:float|tuple, # a weight of both directions, or one of each
) -> tuple:          # of A's way there and back, and of B's
    "The weights of both cycles. ValueError for what isn't one or two numbers from 0 up."
    pair = tuple(lam) if isinstance(lam, (tuple, list)) else (lam, lam)
    if len(pair) != 2 or not all(map(is_weight, pair)):
        raise ValueError(f"lam={lam!r} is neither a number from 0 up nor two of them, (a, b).")
    return pair

class CycleGANLoss(AdversarialLoss):
    """The sum of eight named parts, weighted as they enter it. A discriminator's part is halved: at the least-squares
    equilibrium each is .25, and both together the .5 that the paper calls ideal."""
    def __init__(self,
        model:nn.Module,   # a `CycleGAN`
        gan:str="lsgan",   # 'lsgan' (least squares) or 'bce': the adversarial loss
        lam:float|tuple=10., # weight of the cycle loss (eq. 2); (a, b): of the cycle from A, and of that from B
        identity:float=.5, # weight of the identity loss, times `lam`; 0 for none
        idt_every:int=1,   # take it every so many steps, with as many times the weight
        pool:int=50,       # past fakes kept for each discriminator
        diffaug:str="",    # names of `DIFFAUG`, with commas between, for the discriminators' inputs
        seed:int=0,        # of the pools
    ):
        super().__init__(model, gan, identity, idt_every, diffaug)
        one, other = each_way(lam)
        self.lam = one if one == other else (one, other)
        self.pool_a, self.pool_b = ImagePool(size=pool, seed=seed), ImagePool(size=pool, seed=seed + 1)

    @property
    def names(self):
        "Of the parts, and of the shares of patches that the discriminators judge right."
        identity = ["idt_a", "idt_b"] if self.identity > 0 else []
        return [*"adv_ab adv_ba cyc_a cyc_b".split(), *identity, *"d_a d_b acc_d_a acc_d_b".split()]

    def __call__(self,
        pred, # (fake_b, fake_a, same_a, same_b) of the model, the last two None where they were not made
        a,    # images of the majority
        b,    # images of the minority
    ):        # the scalar to go down; `parts` keeps its terms, `acc_d_a` and `acc_d_b`
        (fake_b, fake_a, same_a, same_b), model, (lam_a, lam_b) = pred, self.model, each_way(self.lam)
        parts = dict(adv_ab=self._fool(model.d_b, fake_b), adv_ba=self._fool(model.d_a, fake_a),
                     cyc_a=lam_a * F.l1_loss(model.g_ba(fake_b), a), cyc_b=lam_b * F.l1_loss(model.g_ab(fake_a), b))
        if same_a is not None:
            parts |= dict(idt_a=lam_a * self.identity * F.l1_loss(same_a, a),
                          idt_b=lam_b * self.identity * F.l1_loss(same_b, b))
        parts["d_a"], acc_a = self._tell(model.d_a, a, self.pool_a(fake_a.detach()))
        parts["d_b"], acc_b = self._tell(model.d_b, b, self.pool_b(fake_b.detach()))
        return self._total(parts, acc_d_a=acc_a, acc_d_b=acc_b)

    def state_dict(self):
        return super().state_dict() | dict(pool_a=self.pool_a.state_dict(), pool_b=self.pool_b.state_dict())
    def load_state_dict(self, state):
        super().load_state_dict(state)
        self.pool_a.load_state_dict(state["pool_a"])
        self.pool_b.load_state_dict(state["pool_b"])
