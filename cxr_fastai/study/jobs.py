"""What a study runs: its cells, and before them the translator of a seed and its films."""
import sys, time
from functools import partial
from pathlib import Path

import pandas as pd
from filelock import Timeout

from ..core.files import one_line, say
from ..fit.callbacks import EpochLines
from ..fit.distributed import agreed
from ..gan.pipeline import synthetic_minority
from .cell import Cell, logged, run_cell

__all__ = ["Synthesis", "run_job"]

class Synthesis:
    "The job that comes before the cells of a seed: its translator, and each number and policy of synthetic rows."
    def __init__(self,
        rows:pd.DataFrame, # the study's
        out:str|Path,      # folder of everything
        gans:list,         # `Gan`, direction and part of each number and policy of films; the training is of one
        seed:int=0,        # of the translator and of what is made by it
        track:str="",      # trackers, as in `tracked`
        log:Path=None,     # file for what it prints; None: the terminal
        fold:int=None,     # whose rows they are, where the study has folds
    ):
        self.rows, self.out, self.gans, self.seed, self.track, self.log = rows, out, gans, seed, track, log
        self.fold = fold
        self.what = gans[0][0].translator.title
    def __repr__(self): return f"{self.what} of seed {self.seed}" + ("" if self.fold is None else f", fold {self.fold}")
    @property
    def kind(self): return f"{self.what}s"

    def __call__(self):
        "The status, as of `run_cell`: 'busy' while another process makes them."
        tell = partial(say, file=sys.stdout, flush=True) # the terminal, wherever stdout goes below
        kwargs = dict(seed=self.seed, track=self.track, cbs=[EpochLines(str(self), tell)] if self.log else [])
        try:
            with logged(self.log):
                say(f"\n{self}", flush=True) # the head of its epoch table
                for o, way, part in self.gans:
                    synthetic_minority(self.rows, self.out, o, direction=way, part=part, wait=False, **kwargs)
            return dict(status="done")
        except Timeout: return dict(status="busy")
        except Exception as e: return dict(status="failed", error=f"{self}: {one_line(e)}")

def run_job(
    job:Cell|Synthesis, # of a study
    loud:bool=False,    # a cell's epoch table goes to the terminal
) -> dict: # as `run_cell` gives it, and `seconds`
    "Run one job of a study."
    start = time.monotonic()
    outcome = run_cell(job, loud) if isinstance(job, Cell) else agreed(job)
    return outcome | dict(seconds=time.monotonic() - start)
