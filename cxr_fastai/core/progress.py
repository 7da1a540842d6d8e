"""How far a loop is, in a terminal, a notebook or a log; and work done in threads ahead of its use."""
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Executor

from fastcore.imports import IN_NOTEBOOK

from .files import bar_fits, say

__all__ = ["ahead", "progress"]

def progress(
    items:Iterable, # any iterable
    total:int,      # how many it will give
    what:str,       # what is being done to them, as the line begins
):
    "Yield from `items` under a bar in a terminal or notebook; elsewhere at most ten plain lines, none within a second."
    if IN_NOTEBOOK or bar_fits():
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
            left = f", about {(now-start)*(total-i)/i:.0f} s left" if i < total else ""
            say(f"{what}: {i:,} of {total:,} in {now-start:.0f} s{left}", flush=True)
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
