"""The jobs of a grid, a line each as they end: with bars where a terminal draws them, and below those of what is under
way; else plain."""
import hashlib, json, time
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from .files import bar_fits, say
from .progress import duration, left_in_words, TimeLeft
from .terminal import bar_line, moving, stays

__all__ = ["Board", "place_of"]

def place_of(
    folder:Path, # of a board; None: nothing is drawn
    job:object,  # whose repr is its own
) -> Path:       # for its `reporting`; None where nobody reads it
    "Where a job says how far it is."
    return folder and Path(folder)/f"{hashlib.sha256(repr(job).encode()).hexdigest()[:16]}.json"

class Board:
    "A context in which jobs run: each has a line when it has ended, with what it took and what is left."
    def __init__(self,
        left:TimeLeft,   # of all jobs
        draws:bool=True, # where a terminal can: not where jobs print there themselves
    ): self.left, self.draws, self.folder = left, draws and bar_fits(), None

    def __enter__(self):
        self.start, self.done, self.total, self.stack = time.monotonic(), 0, sum(self.left.left.values()), ExitStack()
        if self.draws and self.total:
            say()
            self.folder = self.stack.enter_context(TemporaryDirectory(prefix="cxr-jobs-"))
            self.stack.enter_context(moving(self._lines))
        return self

    def __exit__(self, *error): return self.stack.__exit__(*error)

    def ended(self,
        job:object,         # with a `title`
        seconds:float=None, # it took; None: it failed, or wasn't run
        told:str="",        # what is known of it now
    ):
        "A job's last line."
        self.done += 1
        words = ", ".join(filter(None, ["not done" if seconds is None else duration(max(1, seconds)), told]))
        if self.folder:
            place_of(self.folder, job).unlink(missing_ok=True)
            return stays(bar_line(job.title, seconds is not None, 1, words))
        spent = f"; {duration(time.monotonic() - self.start)} in all" if self.done == self.total else str(self.left)
        say(f"{self.done:,} of {self.total:,} jobs: {job.title}, {words}{spent}", flush=True)

    def _running(self):
        "What jobs under way say of themselves, and when they think that they are done."
        for file in sorted(Path(self.folder).glob("*.json")):
            with suppress(OSError): # it has just ended
                o, now = json.loads(file.read_text(encoding="utf-8")), time.time()
                did, left = o["done"] - o["first"], None
                if did > 0 and o["counts"]: left = (o["at"] - o["since"])*(o["total"] - o["done"])/did - now + o["at"]
                yield o | dict(left=left and max(0, left), spent=now - o["began"])

    def _lines(self):
        from rich.console import Group
        running = sorted(self._running(), key=lambda o: o["began"])
        own = [bar_line(o["title"], o["done"], o["total"],
                        o["words"] + (left_in_words(o["left"]) if o["left"] else "")) for o in running]
        left = self.left.told([(o["kind"], o["spent"], o["left"]) for o in running])
        left, *more = left.split(" without ") # kinds that can't be told yet have no room here
        if more: left += ", then more"
        if self.done == self.total: left = f" in {duration(time.monotonic() - self.start)}"
        return Group(*own, bar_line("all jobs", self.done, self.total, f"{self.done:,}/{self.total:,}{left}"))
