"""Cores and threads on a machine that is shared: how many there are for this process, and how its threads wait.

torch's OpenMP threads spin while they wait for each other. On a core that another process wants too, each wait may then
last as long as the system's time slices: steps of three to twenty times their length were seen beside one busy process.
Spinning for a moment only costs a few per cent on an idle machine. It has to be said before torch is loaded, which the
package's import does."""
import os, sys, time
from pathlib import Path

__all__ = ["cores", "mind_others", "others", "spin_said"]

SPIN = "GOMP_SPINCOUNT", "1000" # turns of a waiting loop; `recipes/bench.py --part shared` measures what it does
WAITING = "OMP_WAIT_POLICY", "GOMP_SPINCOUNT" # either is the user's own word
_ours = False

def mind_others():
    """Before torch is loaded, and where the user hasn't said otherwise: threads spin for a moment only, and are no more
    than the container's share of the cores, of which torch knows nothing."""
    global _ours
    if "torch" in sys.modules: return
    if (n := cores()) < _affinity(): os.environ.setdefault("OMP_NUM_THREADS", str(n))
    if not any(o in os.environ for o in WAITING): os.environ[SPIN[0]], _ours = SPIN[1], True

def spin_said() -> str:
    "How threads wait, in words, for `doctor`."
    if _ours: return f"threads spin briefly while they wait ({'='.join(SPIN)})"
    said = ", ".join(f"{o}={os.environ[o]}" for o in WAITING if o in os.environ)
    return f"threads wait by {said}" if said else "torch was loaded first, and its threads spin while they wait"

def _groups(root, own):
    "Folders of this process's control group and of those it is in, innermost first."
    name = next((o.split(":", 2)[2].strip() for o in own.splitlines() if o.startswith("0::") or ":cpu" in o), "/")
    place = Path(name.lstrip("/"))
    return [root/o for o in (place, *place.parents)]

def _number(file):
    try: return file.read_text().split()
    except OSError: return []

def _quota(folder):
    "Cores' worth of time that a control group may use; None where it isn't limited."
    quota, period = [*_number(folder/"cpu.max"), "", ""][:2] # version 2: '150000 100000', or 'max 100000'
    if not quota: # version 1
        quota, period = ([*_number(folder/f"cpu.cfs_{o}_us"), ""][0] for o in ("quota", "period"))
    return int(quota)/int(period) if quota.isdecimal() and period.isdecimal() and int(period) else None

def _affinity(): return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()

def cores(
    groups:str|Path="/sys/fs/cgroup",   # where the system shows its control groups
    own:str|Path="/proc/self/cgroup",   # and which are this process's
) -> int:                               # at least 1
    "Cores that this process may use: of its affinity, and of the CPU time that its container is given."
    there = _affinity()
    try: folders = _groups(Path(groups), Path(own).read_text())
    except OSError: return there
    limits = [quota for o in [*folders, *(Path(groups)/"cpu"/o.relative_to(groups) for o in folders)]
              if (quota := _quota(o))]
    return max(1, min([there, *(-int(-o // 1) for o in limits)]))

def _ticks(stat):
    "Clock ticks of all cores since the machine began, busy ones and all."
    ticks = list(map(int, _number(stat)[1:9]))
    return sum(ticks) - sum(ticks[3:5]), sum(ticks) # without idle and waiting for a disk

def others(
    seconds:float=.2,               # to look for
    stat:str|Path="/proc/stat",     # where the system counts
) -> float:                         # 0 where it doesn't say
    "How many cores other processes keep busy just now."
    if not Path(stat).exists(): return 0.
    (busy, whole), own, start = _ticks(Path(stat)), time.process_time(), time.monotonic()
    time.sleep(seconds)
    (busy_now, whole_now), mine = _ticks(Path(stat)), time.process_time() - own
    share = (busy_now - busy)/max(1, whole_now - whole)
    return max(0., share*os.cpu_count() - mine/(time.monotonic() - start))
