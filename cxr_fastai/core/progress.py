"""How far a loop is, in a terminal, a notebook or a log; and work done in threads ahead of its use."""
import json, os, time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from pathlib import Path

from fastcore.imports import IN_NOTEBOOK

from .files import bar_fits, say
from .terminal import bar_line, moving

__all__ = ["TimeLeft", "ahead", "duration", "left_in_words", "progress", "report", "reporting"]

EVERY = .25 # seconds between two reports of a job

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

    def told(self,
        running=(), # (kind, seconds since it began, seconds that are left by its own word or None) of jobs under way
    ) -> str:       # the end of a line; '' where nothing was measured yet
        "What is left, by jobs that have ended and by the word of those under way; and what that leaves out."
        left = {k: n for k, n in self.left.items() if n > 0}
        known = {k: list(self.took[k]) for k in left}
        for kind, since, own in running:
            if own is not None and not self.took[kind]: known.setdefault(kind, []).append(since + own)
        mean = {k: sum(known[k])/len(known[k]) for k in left if known[k]}
        if not mean: return ""
        spent = sum(mean[k] - max(0, mean[k] - since if own is None else own) for k, since, own in running if k in mean)
        seconds = (sum(left[k]*mean[k] for k in mean) - spent)/self.workers
        unknown = [k for k in left if k not in mean]
        return left_in_words(seconds) + (f" without {' and '.join(unknown)}" if unknown else "")

    def __str__(self): return self.told()

# What a job says of itself, to whoever draws it

_told = None # how this process's job says how far it is

class _Told:
    "How far a job is, in a file that another process reads: a few times a second, and always whole."
    def __init__(self, file, about):
        self.file, self.about, self.last, self.what, self.done = Path(file), about, 0., None, 0

    def __call__(self, done, total, what, words, counts):
        now = time.time()
        if what != self.what or done < self.done: self.what, self.since, self.first, self.last = what, now, done, 0.
        self.done = done
        if now - self.last < EVERY and done < total: return
        self.last, tmp = now, self.file.with_suffix(".tmp")
        o = self.about | dict(done=done, total=total, words=words, at=now, since=self.since, first=self.first,
                              counts=counts)
        with suppress(FileNotFoundError): # on another machine, where nobody draws it
            tmp.write_text(json.dumps(o), encoding="utf-8")
            os.replace(tmp, self.file)

@contextmanager
def reporting(
    file:str|Path, # that is read by whoever draws the job; None: nobody does
    **about,       # what is known of the job before it begins
):
    "Context of a job, within which `report` says how far it is."
    global _told
    before, _told = _told, _Told(file, about | dict(began=time.time())) if file else None
    try:
        report(0, 0, "", "begins")
        yield
    finally: _told = before

def report(
    done:float,    # of `total`
    total:float,   # 0: not known
    what:str,      # is being done; another than before begins anew
    words:str="",  # how far it is, in words
    counts:bool=False, # with its end the job is as good as over, so that it tells what is left of that
):
    "Say how far this process's job is, where somebody draws it."
    if _told: _told(done, total, what, words or f"{what.split(' ')[0].lower()} {done:,} of {total:,}", counts)

# Loops

def _plain(items, total, what):
    "At most ten lines, none within a second."
    start = last = time.monotonic()
    for i,o in enumerate(items, 1):
        yield o
        report(i, total, what)
        now = time.monotonic()
        if now-start > 1 and (i == total or now-last > 1 and i*10//total > (i-1)*10//total):
            told = left_in_words((now-start)*(total-i)/i) if i < total else ""
            say(f"{what}: {i:,} of {total:,} in {duration(now-start)}{told}", flush=True)
            last = now

def _drawn(items, total, what):
    "A bar below whatever is printed meanwhile, and its last state."
    start, done = time.monotonic(), 0
    def line():
        spent = time.monotonic() - start
        told = left_in_words(spent*(total-done)/done) if 0 < done < total else f" in {duration(spent)}" if done else ""
        return bar_line(what, done, total, f"{done:,}/{total:,}{told}")
    with moving(line):
        for o in items:
            yield o
            done += 1

def _in_notebook(items, total, what):
    from fastprogress.fastprogress import progress_bar
    bar = progress_bar(items, total=total)
    bar.comment = what
    yield from bar

def progress(
    items:Iterable, # any iterable
    total:int,      # how many it will give
    what:str,       # what is being done to them, as the line begins
):
    "Yield from `items` under a bar in a terminal or notebook; elsewhere at most ten plain lines, none within a second."
    draw = _in_notebook if IN_NOTEBOOK else _drawn if bar_fits() else _plain
    yield from draw(items, total, what)

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
