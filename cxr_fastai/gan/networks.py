"""Generators and discriminators, and the CycleGAN's two of each (paper eq. 1-2; Zhu et al. 2017, arXiv:1703.10593,
section 4 and appendix 7.2; figures as in the authors' own implementation, junyanz/pytorch-CycleGAN-and-pix2pix).

Images are `[n, 1, h, w]`, -1..1. Everything stays contiguous, which costs no speed here."""
from copy import deepcopy
from typing import Callable

import torch
from fastai.torch_core import concat, Module
from torch import nn

from ..fit.precision import casting, in_precision

__all__ = ["Generator", "Discriminator", "Players", "CycleGAN", "from_reference"]

UPSAMPLE = ("transpose", "resize")

class InstanceNorm(nn.InstanceNorm2d):
    "torch's, contiguous: channels-last, a CPU's gradient of it is wrong for a batch of one (torch 2.13, 2.15)."
    def forward(self, x):
        if not x.is_contiguous(): raise ValueError("These networks are never channels-last; keep them contiguous.")
        return super().forward(x)

def _norm_act(n): return InstanceNorm(n), nn.ReLU(True)

class ResBlock(Module):
    "x plus two 3x3 convolutions of it."
    def __init__(self, n):
        conv = lambda: (nn.ReflectionPad2d(1), nn.Conv2d(n, n, 3))
        self.body = nn.Sequential(*conv(), *_norm_act(n), *conv(), InstanceNorm(n))
    def forward(self, x): return x + self.body(x)

def _up(n_in, n_out, upsample):
    "Twice the size: the reference's transposed convolution, or nearest neighbours and a convolution (no checkerboard)."
    if upsample == "transpose": return nn.ConvTranspose2d(n_in, n_out, 3, 2, padding=1, output_padding=1)
    return nn.Sequential(nn.Upsample(scale_factor=2), nn.ReflectionPad2d(1), nn.Conv2d(n_in, n_out, 3))

def _init(net):
    "normal(0, .02) weights and zero biases, as the reference."
    for m in net.modules():
        if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(m.weight, 0., .02)
            nn.init.zeros_(m.bias)

class Generator(Module):
    "One domain's image to the other's, same size, -1..1. Height and width must be multiples of 4."
    def __init__(self,
        n_blocks:int=9,            # residual blocks: the paper's source takes 9 at 256 px and up, 6 below
        ngf:int=64,                # channels after the first convolution
        residual:bool=False,       # G(x) = x + net(x), an identity at first, instead of net(x)
        upsample:str="transpose",  # 'transpose' (reference) or 'resize'
        precision:str="fp32",      # or 'bf16', 'fp16'
    ):
        if upsample not in UPSAMPLE:
            raise ValueError(f"upsample={upsample!r} is not known; use {' or '.join(UPSAMPLE)}.")
        self.residual, self.precision = residual, precision
        down = [(nn.Conv2d(n, 2*n, 3, 2, padding=1), *_norm_act(2*n)) for n in (ngf, 2*ngf)]
        up   = [(_up(n, n//2, upsample), *_norm_act(n//2)) for n in (4*ngf, 2*ngf)]
        self.layers = nn.Sequential(
            nn.ReflectionPad2d(3), nn.Conv2d(1, ngf, 7), *_norm_act(ngf), *concat(*down),
            *[ResBlock(4*ngf) for _ in range(n_blocks)],
            *concat(*up), nn.ReflectionPad2d(3), nn.Conv2d(ngf, 1, 7), nn.Tanh())
        _init(self)
        if residual: nn.init.zeros_(self.layers[-2].weight)

    @in_precision
    def forward(self, x): return x + self.layers(x) if self.residual else self.layers(x)

    def maps(self,
        x:torch.Tensor, # images
        at:list,        # numbers of layers, rising
    ) -> list:          # `[n, c, h, w]` each, in the net's precision
        "What these layers make of images; those after the last of them aren't run."
        found = []
        with casting(self.precision, x.device):
            for i, layer in enumerate(self.layers[:at[-1] + 1]):
                x = layer(x)
                if i in at: found.append(x)
        return found

    def looked(self,
        x:torch.Tensor, # images
        at:list,        # numbers of layers, rising
    ) -> tuple:
        "Its translation, fp32, and `maps` on the way to it."
        *found, y = self.maps(x, [*at, len(self.layers) - 1])
        return x + y.float() if self.residual else y.float(), found

class Discriminator(Module):
    "PatchGAN: a map of logits, each saying of one patch (70x70 with 3 layers) whether it is a real one of this domain."
    def __init__(self,
        ndf:int=64,      # channels after the first convolution
        n_layers:int=3,  # layers that halve the size
        precision:str="fp32", # or 'bf16', 'fp16'
    ):
        self.precision = precision
        ns = [ndf * min(2**i, 8) for i in range(n_layers + 1)]
        conv = lambda n_in, n_out, stride: nn.Conv2d(n_in, n_out, 4, stride, padding=1)
        strides = [2] * (n_layers - 1) + [1]
        inner = [(conv(i, o, s), InstanceNorm(o), nn.LeakyReLU(.2, True)) for i, o, s in zip(ns, ns[1:], strides)]
        self.layers = nn.Sequential(conv(1, ndf, 2), nn.LeakyReLU(.2, True), *concat(*inner), conv(ns[-1], 1, 1))
        _init(self)

    @in_precision
    def forward(self, x): return self.layers(x)

class Players(Module):
    """What translates films: `generators` by direction, and running means of their weights, `ema`, with which images
    are made after training. It remembers, in its state dict, whose radiographs it was trained on."""
    def remember(self,
        settings:dict=None, # what its nets are built from; None: by hand
    ):
        "To be called when the generators are made."
        self.settings = settings or {}
        self.ema = deepcopy(self.generators).requires_grad_(False)
        self.steps = 0 # that the running means have seen
        self.seen = [] # patients, sorted, as str

    def get_extra_state(self): return dict(seen=self.seen, steps=self.steps)
    def set_extra_state(self, state): self.seen, self.steps = state["seen"], state["steps"]

class CycleGAN(Players):
    "Generators `g_ab`, `g_ba` and discriminators `d_a`, `d_b`."
    def __init__(self,
        generator:Callable,     # () -> Generator
        discriminator:Callable, # () -> Discriminator
        settings:dict=None,     # what both are built from; None: by hand
    ):
        self.g_ab, self.g_ba, self.d_a, self.d_b = generator(), generator(), discriminator(), discriminator()
        self.remember(settings)

    def forward(self, a, b, identity=True):
        "A to B, B to A; with `identity`, in the same batches, also A to A and B to B (None otherwise)."
        if not identity: return self.g_ab(a), self.g_ba(b), None, None
        fake_b, same_b = self.g_ab(torch.cat([a, b])).chunk(2)
        fake_a, same_a = self.g_ba(torch.cat([b, a])).chunk(2)
        return fake_b, fake_a, same_a, same_b

    @property
    def generators(self): return nn.ModuleDict(dict(a2b=self.g_ab, b2a=self.g_ba))

    def groups(self):
        "fastai's splitter: the generators' parameters and the discriminators'."
        return [[*self.g_ab.parameters(), *self.g_ba.parameters()], [*self.d_a.parameters(), *self.d_b.parameters()]]

def from_reference(
    state:dict, # of a generator (netG_A is `g_ab`, netG_B `g_ba`) or discriminator (netD_A is `d_b`, netD_B `d_a`)
) -> dict:      # for `load_state_dict` of ours
    """The reference's state dict in our names: `model.4.weight` is `layers.4.weight`, `model.10.conv_block.1.weight` is
    `layers.10.body.1.weight`; a DataParallel's `module.` and old files' unused norm statistics are left out."""
    ours = lambda k: k.removeprefix("module.").replace("model.", "layers.", 1).replace(".conv_block.", ".body.")
    unused = "running_mean", "running_var", "num_batches_tracked"
    return {ours(k): v for k, v in state.items() if not k.endswith(unused)}
