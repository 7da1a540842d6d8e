"How much memory this process may still take, and how many threads may share it. No torch."
import contextlib, os
from pathlib import Path

__all__ = ["forget_peak", "free_memory", "peak_memory", "threads_within"]

GROUP = Path("/sys/fs/cgroup")

def _read(file):
    try: return int(Path(file).read_text())
    except (OSError, ValueError): return

def _given_back():
    "Of the container's used memory: copies of files, which the kernel drops when it needs the room."
    with contextlib.suppress(OSError, ValueError):
        for o in open(GROUP/"memory.stat", encoding="utf-8"):
            if o.startswith("inactive_file "): return int(o.split()[1])
    return 0

def free_memory() -> int: # bytes; None where it can't be known
    "What this process may still take: of the machine, and of the container it may be in."
    found = []
    with contextlib.suppress(OSError):
        found += [int(o.split()[1]) * 1024 for o in open("/proc/meminfo") if o.startswith("MemAvailable")]
    limit, used = (_read(GROUP/f"memory.{o}") for o in ("max", "current"))
    if limit and used: found.append(limit - used + _given_back())
    return min(found, default=None)

def forget_peak():
    "Let `peak_memory` begin anew, where the system lets it."
    with contextlib.suppress(OSError): Path("/proc/self/clear_refs").write_text("5")

def peak_memory() -> int: # bytes; 0 where it isn't known
    "The most that this process took, since `forget_peak`."
    try: lines = Path("/proc/self/status").read_text().splitlines()
    except OSError: return 0
    return next((int(o.split()[1]) * 1024 for o in lines if o.startswith("VmHWM")), 0)

def threads_within(
    n:int,    # threads that are wanted; None: a core each
    each:int, # bytes that one of them may take
) -> int:     # at least 1
    "As many threads as the free memory holds, should each take the most that it may."
    free, n = free_memory(), n or os.cpu_count() or 1
    return max(1, n if free is None else min(n, free // each))
