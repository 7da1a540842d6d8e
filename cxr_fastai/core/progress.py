"""How far a loop is, in a terminal, a notebook or a log; and work done in threads ahead of its use."""
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable
from concurrent.futures import Executor

from fastcore.imports import IN_NOTEBOOK

from .files import bar_fits, say

__all__ = ["TimeLeft", "ahead", "duration", "left_in_words", "progress"]

def duration(
    seconds:float, # how long
) -> str:
    "A time in words: '45 s', '12 min', '3.4 h'."
    if seconds < 90: return f"{seconds:.0f} s"
    return f"{seconds/60:.0f} min" if seconds < 5400 else f"{seconds/3600:.1f} h"

def left_in_words(
    seconds:float, # that are left, about
) -> str:
    "The end of a line on how far something is; a moment is no '0 s'."
    return f", about {duration(max(1, seconds))} left"

class TimeLeft:
    "How long jobs of several kinds will take, from what those of each kind took."
    def __init__(self,
        kinds:list,    # of every job, in words
        workers:int=1, # jobs at a time
    ): self.left, self.took, self.workers = Counter(kinds), defaultdict(list), workers

    def ended(self,
        kind:str,            # of a job that is over
        seconds:float=None,  # it took; None: it did nothing
    ):
        "One job less."
        self.left[kind] -= 1
        if seconds is not None: self.took[kind].append(seconds)

    def __str__(self):
        left = {k: n for k, n in self.left.items() if n > 0}
        mean = {k: sum(self.took[k])/len(self.took[k]) for k in left if self.took[k]}
        if not mean: return ""
        told = left_in_words(sum(left[k]*mean[k] for k in mean)/self.workers)
        unknown = [k for k in left if k not in mean]
        return told + (f" without {' and '.join(unknown)}" if unknown else "")

def progress(
    items:Iterable, # any iterable
    total:int,      # how many it will give
    what:str,       # what is being done to them, as the line begins
    left:TimeLeft=None, # of jobs that aren't alike; their lines are plain everywhere
):
    "Yield from `items` under a bar in a terminal or notebook; elsewhere at most ten plain lines, none within a second."
    if left is None and (IN_NOTEBOOK or bar_fits()):
        from fastprogress.fastprogress import progress_bar
        bar = progress_bar(items, total=total)
        bar.comment = what
        yield from bar
        if not IN_NOTEBOOK: say()  # the bar leaves the cursor on its own line
        return
    start = last = time.monotonic()
    for i,o in enumerate(items, 1):
        yield o
        now = time.monotonic()
        if now-start > 1 and (i == total or now-last > 1 and i*10//total > (i-1)*10//total):
            alike = left_in_words((now-start)*(total-i)/i) if i < total else ""
            told = alike if left is None else str(left)
            say(f"{what}: {i:,} of {total:,} in {duration(now-start)}{told}", flush=True)
            last = now

def ahead(
    pool:Executor,  # of threads
    f:Callable,     # of one item
    items:Iterable, # as many as there are; taken one at a time
    n:int,          # futures under way, at most
):
    "Yield `item, future` in order, with at most `n` under way: a writer that falls behind must not fill the memory."
    running = deque()
    for o in items:
        running.append((o, pool.submit(f, o)))
        if len(running) > n: yield running.popleft()
    yield from running
