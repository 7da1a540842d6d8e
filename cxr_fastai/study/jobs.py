"""What a study runs: its cells, and before them the translator of a seed and its films."""
import sys, time
from functools import partial
from pathlib import Path

import pandas as pd
from filelock import Timeout

from ..core.board import place_of
from ..core.csvs import read_csv
from ..core.files import one_line, say
from ..core.progress import reporting
from ..fit.callbacks import EpochLines, Reported
from ..fit.distributed import agreed, is_first
from ..gan.pipeline import synthetic_minority
from ..stats.films import quality_words
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
    @property
    def title(self): return str(self)

    def __call__(self,
        drawn:bool=False, # how far it is, by whoever runs it: else a few lines say it
    ):
        "The status, as of `run_cell`: 'busy' while another process makes them."
        tell = partial(say, file=sys.stdout, flush=True) # the terminal, wherever stdout goes below
        lines = [EpochLines(str(self), tell)] if self.log and not drawn else []
        kwargs = dict(seed=self.seed, track=self.track, cbs=[Reported(), *lines])
        try:
            with logged(self.log):
                say(f"\n{self}", flush=True) # the head of its epoch table
                made = [synthetic_minority(self.rows, self.out, o, direction=way, part=part, wait=False, **kwargs)
                        for o, way, part in self.gans]
            return dict(status="done", said=list(map(_judged, made)) if self.log else [])
        except Timeout: return dict(status="busy")
        except Exception as e: return dict(status="failed", error=f"{self}: {one_line(e)}")

def _judged(made):
    "A line on synthetic films, where there were enough to judge them; in a log it would be lost."
    file = Path(made["file"].iloc[0]).with_name("quality.csv")
    return quality_words(file, made["label"].iloc[0]) if file.exists() else ""

def _known(job):
    "What is said of a cell that has ended: its valid rows' AUC, for test rows judge the end alone."
    try: return f"valid AUC {read_csv(job.folder/'history.csv')['rocauc'].iloc[-1]:.2f}"
    except (OSError, KeyError, IndexError): return ""

def run_job(
    job:Cell|Synthesis, # of a study
    loud:bool=False,    # a cell's epoch table goes to the terminal
    drawn:str=None,     # folder of the `Board` that draws it
) -> dict: # as `run_cell` gives it, with `seconds`, and what is `told` of it
    "Run one job of a study."
    start = time.monotonic()
    with reporting(place_of(drawn, job) if is_first() else None, title=job.title, kind=job.kind):
        outcome = run_cell(job, loud) if isinstance(job, Cell) else agreed(partial(job, drawn=bool(drawn)))
    told = _known(job) if isinstance(job, Cell) and outcome["status"] == "done" else ""
    return outcome | dict(seconds=time.monotonic() - start, told=told)
