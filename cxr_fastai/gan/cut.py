"""CUT, contrastive unpaired translation (Park et al. 2020, arXiv:2007.15651), for one channel: a generator from A, the
majority, to B, the minority, a discriminator, and no way back, so that a step takes about half of a CycleGAN's.

Differences from the authors' implementation: the networks are those of the CycleGAN here (halvings by stride, not by
blurred sampling; 6 blocks below 256 px), and generator and discriminator step at once, not one after the other."""
from typing import Callable

import torch
from fastai.learner import Learner
from fastcore.meta import delegates
from torch import nn

from .nce import checked_patches, CUTLoss, PatchHeads
from .networks import Players, ResBlock
from .translator import learner_of, LEARNERS_OWN, players, settled, TranslatorLearner
from .unpaired import UnpairedDataLoaders

__all__ = ["CUT", "CUTLearner", "cut_learner", "patch_layers"]

def patch_layers(
    generator:nn.Module, # a `Generator`
) -> list:               # of numbers
    "Of the layers whose patches are compared: the pixels, both halvings, and the first and the fifth block (or last)."
    layers = list(enumerate(generator.layers))
    halvings = [i for i, o in layers if isinstance(o, nn.Conv2d) and o.stride == (2, 2)]
    blocks = [i for i, o in layers if isinstance(o, ResBlock)]
    return sorted({0, *halvings, *blocks[:1], *blocks[:5][-1:]})

class CUT(Players):
    "Generator `g_ab`, discriminator `d_b`, and the heads of patches, which nothing but training needs."
    def __init__(self,
        generator:Callable,     # () -> Generator
        discriminator:Callable, # () -> Discriminator
        settings:dict=None,     # what the nets are built from; None: by hand
    ):
        self.g_ab, self.d_b = generator(), discriminator()
        self.at = patch_layers(self.g_ab)
        with torch.no_grad(): widths = [o.shape[1] for o in self.g_ab.maps(torch.zeros(1, 1, 24, 24), self.at)]
        self.heads = PatchHeads(widths)
        self.remember(settings)

    @property
    def generators(self): return nn.ModuleDict(dict(a2b=self.g_ab))

    def groups(self):
        "fastai's splitter: the generator's parameters with the heads', and the discriminator's."
        return [[*self.g_ab.parameters(), *self.heads.parameters()], [*self.d_b.parameters()]]

    def forward(self, a, b, identity=True):
        "A to B, and of each layer the vectors of its patches and of the sources'; with `identity`, of B to B as well."
        x = torch.cat([a, b]) if identity else a
        fake, sources = self.g_ab.looked(x, self.at)
        places = self.heads.places(sources)
        with torch.no_grad(): keys = self.heads(sources, places)
        queries = self.heads(self.g_ab.maps(fake, self.at), places)
        return fake[:len(a)], list(zip(queries, keys))

class CUTLearner(TranslatorLearner):
    "A learner of a `CUT`, which translates the majority's films, and no others."
    kind = "cut"

@delegates(Learner.__init__, but=LEARNERS_OWN)
def cut_learner(
    dls:UnpairedDataLoaders,  # A and B
    n_blocks:int=None,        # of the generator; None: 9 at 256 px and up, 6 below
    ngf:int=64,               # the generator's first channels
    ndf:int=64,               # the discriminator's first channels
    n_layers:int=3,           # the discriminator's halvings: 3 judges patches of 70x70
    gan:str="lsgan",          # 'lsgan' or 'bce': the adversarial loss
    lam:float=1.,             # weight of the contrast of patches (eq. 5)
    identity:bool=True,       # films of the minority, too, are to keep their patches; half of `lam` is for them
    idt_every:int=1,          # that, every so many steps, with as many times the weight
    patches:int=256,          # compared in each layer, or all that it has
    temperature:float=.07,    # of the contrast: likenesses are divided by it
    residual:bool=False,      # G(x) = x + net(x), an identity at first
    upsample:str="transpose", # 'transpose' or 'resize', without checkerboards
    diffaug:str="",           # what the discriminator is shown is changed by these of `DIFFAUG`, with commas between
    ema:float=.999,           # share of the generator's running mean that a step keeps
    precision:str="auto",     # 'auto' (the fastest that the hardware has), 'bf16', 'fp16' or 'fp32'
    seed:int=None,            # of initialisation, patches, augmentation and pairs; None: the DataLoaders' own
    model:CUT=None,           # a trained one to go on with; None: a new one
    lr:float=2e-4,            # where `fit` is given none
    cbs=None,                 # further callbacks
    **kwargs,
) -> CUTLearner:
    """The reference's CUT for one channel by default: a least-squares game, and 256 patches of five layers, each to be
    known among those of its source. Used as a `CycleGANLearner`; direction 'a2b' is its only one."""
    own = settled(dls, "cut_learner", locals())
    model = model or CUT(**players(own))
    model.heads.patches = checked_patches(patches)
    loss = CUTLoss(model, gan=gan, lam=lam, identity=identity, idt_every=idt_every, temperature=temperature,
                   diffaug=diffaug)
    return learner_of(CUTLearner, dls, model, loss, own, cbs, **kwargs)
