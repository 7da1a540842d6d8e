"""The CycleGAN, the films it makes, and how good they are."""
from .cyclegan import cyclegan_learner, CycleGANLearner
from .pipeline import run_gan
from .quality import memorisation, quality, told_apart
from .synthesis import synthesise
from .unpaired import UnpairedDataLoaders

__all__ = ["cyclegan_learner", "CycleGANLearner", "memorisation", "quality", "run_gan", "synthesise", "told_apart",
           "UnpairedDataLoaders"]
