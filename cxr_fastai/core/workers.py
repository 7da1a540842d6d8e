"""Where a grid's jobs run: in this process, in several on this machine (joblib), or on a Ray cluster.

Each yields (number of the job, its outcome) as jobs end, in whatever order. A worker that dies takes its job with it:
it is started once more, and a job whose worker dies twice is given up, while the others go on. A worker whose parent
dies, in whatever way, ends with it."""
import itertools, os, signal, tempfile, time
from collections.abc import Callable
from pathlib import Path
from threading import Thread

from .extras import need
from .threads import cores

__all__ = ["gpus", "in_workers", "on_ray", "threads_of"]

DIED = dict(status="failed", error="its process died twice: killed, or out of memory")
THREADS = "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"

def threads_of(
    workers:int, # processes at a time
) -> int:        # at least 1
    "A worker's share of the cores that this process may use."
    return max(1, cores() // workers)

def _noted(f, job, note):
    "Say by an empty file that the job began, then do it."
    note.touch()
    return f(job)

def _end_with(parent):
    "In a worker: end as soon as its parent has, for nobody waits for the job. Nothing else reaches one that computes."
    def watch():
        while os.getppid() == parent: time.sleep(.5)
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
    Thread(target=watch, daemon=True).start()

def gpus() -> list: # their numbers or names, as CUDA_VISIBLE_DEVICES takes them
    "NVIDIA GPUs that this process may use."
    if (named := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None: return [o for o in named.split(",") if o.strip()]
    there = Path("/proc/driver/nvidia/gpus")
    return [str(i) for i in range(len(list(there.iterdir())))] if there.exists() else []

def _begin(parent, notes, devices):
    "In a worker: a GPU of its own where there are several, in turn; and it ends with its parent."
    _end_with(parent)
    if len(devices) < 2: return
    for i in itertools.count():
        try: (Path(notes)/f"worker-{i}").touch(exist_ok=False)
        except FileExistsError: continue
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[i % len(devices)]
        return

def _pool(f, jobs, workers, threads):
    "Outcomes of `jobs` (number: job) from a pool that a dying worker breaks; then, None of the started ones."
    from joblib.externals.loky import ProcessPoolExecutor, as_completed
    from joblib.externals.loky.process_executor import BrokenProcessPool
    with tempfile.TemporaryDirectory() as notes:
        env, broken = dict.fromkeys(THREADS, str(threads)), []
        with ProcessPoolExecutor(workers, env=env, initializer=_begin,
                                 initargs=(os.getpid(), notes, gpus())) as pool:
            try:
                futures = {pool.submit(_noted, f, job, Path(notes)/str(i)): i for i, job in jobs.items()}
                for o in as_completed(futures):
                    try: yield futures[o], o.result()
                    except BrokenProcessPool: broken.append(futures[o])
            except BaseException: # stopped: what its workers do now is for nobody
                pool.shutdown(kill_workers=True)
                raise
        for i in broken: # now that no worker lives which could begin one
            if (Path(notes)/str(i)).exists(): yield i, None

def in_workers(
    f:Callable, # called with a job
    jobs:list,  # what can be pickled
    workers:int=1, # processes; 1: this one
):
    """Run `f(job)` of each job in worker processes of this machine, the cores' threads and the GPUs divided among them.
    Which of the jobs under way killed its worker can't be seen: each of them is then tried alone."""
    if workers == 1:
        yield from ((i, f(job)) for i, job in enumerate(jobs))
        return
    left, threads = dict(enumerate(jobs)), threads_of(workers)
    while left:
        suspects = []
        for i, outcome in _pool(f, left, workers, threads):
            if outcome is None: suspects.append(i)
            else: yield i, outcome
            if outcome: del left[i]
        for i in suspects: yield i, next(o or DIED for _, o in _pool(f, {i: left.pop(i)}, 1, threads))

def _call(f, job): return f(job)

def on_ray(
    f:Callable,   # called with a job
    jobs:list,    # what can be pickled
    address:str,  # of a running cluster: 'auto', 'host:port'; 'local' starts one here
    cpus:int=1,   # that each job asks for
    gpus:float=None, # and of GPUs; a fraction shares one; None: one where the cluster has any
):
    "Run `f(job)` of each job as a Ray task, on whatever machine has room; all must see the same folders."
    ray = need("ray", extra="ray", what="--ray")
    if not ray.is_initialized():
        ray.init(None if address == "local" else address, log_to_driver=False, configure_logging=False)
    if gpus is None: gpus = 1 if ray.cluster_resources().get("GPU") else 0
    task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=1)(_call)
    gone = ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError, ray.exceptions.OutOfMemoryError
    left = {task.remote(f, job): i for i, job in enumerate(jobs)}
    while left:
        (done,), _ = ray.wait(list(left))
        try: outcome = ray.get(done) # f itself raises nothing
        except gone: outcome = DIED
        except ray.exceptions.RayError as e: outcome = dict(status="failed", error=str(e).strip().splitlines()[-1])
        yield left.pop(done), outcome
