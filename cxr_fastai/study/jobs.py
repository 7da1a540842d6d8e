"""What a study runs beside its cells: the CycleGAN of a seed and its films."""
from pathlib import Path

import pandas as pd
from fastcore.basics import store_attr

from ..core.files import one_line
from ..fit.distributed import agreed
from ..gan.pipeline import synthetic_minority
from .cell import Cell, logged, run_cell

__all__ = ["Synthesis"]

class Synthesis:
    "The job that comes before the cells of a seed: its CycleGAN, and each number and policy of synthetic rows."
    def __init__(self,
        rows:pd.DataFrame, # the study's
        seed:int,          # of the CycleGAN and of what is made by it
        sets:list,         # (number of rows, policy of their metadata)
        gan:dict,          # the CycleGAN's settings
        log:Path=None,     # file for what it prints
        track:str="",      # trackers, as in `tracked`
    ): store_attr()
    def __repr__(self): return f"CycleGAN of seed {self.seed}"

    def __call__(self):
        kwargs = dict(seed=self.seed, track=self.track, **self.gan)
        try:
            with logged(self.log):
                for n, policy in self.sets: synthetic_minority(self.rows, n=n, metadata=policy, **kwargs)
            return dict(status="done")
        except Exception as e: return dict(status="failed", error=f"{self}: {one_line(e)}")

def _work(job): return run_cell(job) if isinstance(job, Cell) else agreed(job)
