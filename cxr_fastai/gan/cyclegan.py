"""A fastai Learner for the CycleGAN (paper section 4.3; Zhu et al. 2017, arXiv:1703.10593)."""
from fastai.learner import Learner
from fastcore.meta import delegates

from .losses import CycleGANLoss
from .networks import CycleGAN
from .translator import learner_of, LEARNERS_OWN, players, settled, TranslatorLearner
from .unpaired import UnpairedDataLoaders

__all__ = ["CycleGANLearner", "cyclegan_learner"]

class CycleGANLearner(TranslatorLearner):
    "A learner of a `CycleGAN`, which translates both ways."
    kind = "cyclegan"

@delegates(Learner.__init__, but=LEARNERS_OWN)
def cyclegan_learner(
    dls:UnpairedDataLoaders,  # A and B
    n_blocks:int=None,        # of a generator; None: 9 at 256 px and up, 6 below, as the reference
    ngf:int=64,               # a generator's first channels
    ndf:int=64,               # a discriminator's first channels
    n_layers:int=3,           # a discriminator's halvings: 3 judges patches of 70x70
    gan:str="lsgan",          # 'lsgan' or 'bce': the adversarial loss
    lam:float|tuple=10.,      # weight of the cycle loss (eq. 2); (a, b): of A's way there and back, and of B's
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
    own = settled(dls, "cyclegan_learner", locals())
    model = model or CycleGAN(**players(own))
    loss = CycleGANLoss(model, gan=gan, lam=lam, identity=identity, idt_every=idt_every, pool=pool, diffaug=diffaug,
                        seed=own["seed"])
    return learner_of(CycleGANLearner, dls, model, loss, own | dict(lam=loss.lam), cbs, **kwargs)
