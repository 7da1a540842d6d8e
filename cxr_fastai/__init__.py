"""cxr_fastai: how much does the minority class gain from metadata and from synthetic images? (Aloo et al. 2022)"""
from .core.threads import mind_others

__version__ = "0.2.0"

mind_others()
