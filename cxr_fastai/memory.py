"How much memory this process may still take, and how many threads may share it. No torch."
import contextlib, os
from pathlib import Path

__all__ = ["free_memory", "threads_within"]

def _read(file):
    try: return int(Path(file).read_text())
    except (OSError, ValueError): return

def free_memory() -> int: # bytes; None where it can't be known
    "What this process may still take: of the machine, and of the container it may be in."
    found = []
    with contextlib.suppress(OSError):
        found += [int(o.split()[1]) * 1024 for o in open("/proc/meminfo") if o.startswith("MemAvailable")]
    limit, used = (_read(f"/sys/fs/cgroup/memory.{o}") for o in ("max", "current"))
    if limit and used: found.append(limit - used)
    return min(found, default=None)

def threads_within(
    n:int,    # threads that are wanted; None: a core each
    each:int, # bytes that one of them may take
) -> int:     # at least 1
    "As many threads as the free memory holds, should each take the most that it may."
    free, n = free_memory(), n or os.cpu_count() or 1
    return max(1, n if free is None else min(n, free // each))
