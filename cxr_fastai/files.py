"""Files that are either whole or not there: written under a temporary name, then renamed."""
import json, os
from collections.abc import Iterable
from contextlib import contextmanager
from pathlib import Path

__all__ = ["atomic", "few", "one_line", "write_json"]

@contextmanager
def atomic(
    path:str|Path, # the file's final name; its folder is made where it is missing
):
    "Yield a temporary name beside `path`; it becomes `path` when the block ends, and disappears when the block raises."
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    tmp = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield tmp
        os.replace(tmp, path)
    finally: tmp.unlink(missing_ok=True)

def write_json(
    path:str|Path, # the file
    obj:dict,      # anything json can hold; paths and numpy numbers become text
):
    "Write `obj` to `path` as indented json, atomically."
    with atomic(path) as tmp: tmp.write_text(json.dumps(obj, indent=2, default=str) + "\n")

def few(
    names:Iterable, # any iterable of names
    n:int=3,        # how many are spelled out
) -> str:
    "The first `n` names and how many more there are, for an error's one sentence."
    names = [str(o) for o in names]
    more = f" and {len(names)-n:,} more" if len(names) > n else ""
    return ", ".join(names[:n]) + more

def one_line(
    error:Exception, # what was raised
) -> str:            # 'ValueError: what it says'
    "An error as one line; what fastai puts before one that a callback raised is left out."
    lines = [o.strip() for o in str(error).splitlines() if o.strip() and not o.startswith("Exception occured in")]
    return f"{type(error).__name__}: {(lines or ['no message'])[0]}"
