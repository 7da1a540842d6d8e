"""The CycleGAN and CUT, the films they make, and how good these are."""
from .cut import cut_learner, CUTLearner
from .cyclegan import cyclegan_learner, CycleGANLearner
from .pipeline import run_gan
from .quality import memorisation, quality, told_apart
from .synthesis import synthesise
from .unpaired import UnpairedDataLoaders

__all__ = ["cut_learner", "CUTLearner", "cyclegan_learner", "CycleGANLearner", "memorisation", "quality", "run_gan",
           "synthesise", "told_apart", "UnpairedDataLoaders"]
