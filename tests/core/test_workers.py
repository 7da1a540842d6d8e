import os, signal, subprocess, sys, time
from functools import partial
from pathlib import Path
import pytest
from cxr_fastai.core.workers import gpus, in_workers, on_ray, threads_of

def note(folder, job):
    "A job that leaves a file of its name and process, and says in which process it ran."
    (folder/f"{job}-{os.getpid()}").touch()
    return dict(status="done", job=job, pid=os.getpid(), threads=os.environ.get("OMP_NUM_THREADS"))

def fragile(folder, job):
    "As `note`; 'once' kills its process the first time, 'always' each time."
    before = list(folder.glob(f"{job}-*"))
    found = note(folder, job)
    if job == "always" or job == "once" and not before: os.kill(os.getpid(), signal.SIGKILL)
    return found

def slow(folder, job):
    found = note(folder, job)
    time.sleep(1)
    return found

def test_one_worker_is_this_process_in_order(tmp_path):
    found = list(in_workers(partial(note, tmp_path), ["a", "b"]))
    assert [(i, o["job"], o["pid"]) for i, o in found] == [(0, "a", os.getpid()), (1, "b", os.getpid())]

def test_two_workers_share_jobs_and_the_cores_threads(tmp_path):
    found = dict(in_workers(partial(slow, tmp_path), list("abcd"), workers=2))
    assert {i: o["job"] for i, o in found.items()} == dict(enumerate("abcd"))
    assert len({o["pid"] for o in found.values()}) == 2 and os.getpid() not in {o["pid"] for o in found.values()}
    assert {o["threads"] for o in found.values()} == {str(threads_of(2))}

def of_gpu(folder, job): return dict(slow(folder, job), gpu=os.environ["CUDA_VISIBLE_DEVICES"])

def test_each_worker_has_a_gpu_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5")
    assert gpus() == ["3", "GPU-5"]
    found = [o for _, o in in_workers(partial(of_gpu, tmp_path), list("abcd"), workers=2)]
    assert len({(o["pid"], o["gpu"]) for o in found}) == 2 and {o["gpu"] for o in found} == {"3", "GPU-5"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpus() == []

def test_a_worker_that_dies_costs_one_job_a_second_try_and_nothing_else(tmp_path):
    found = dict(in_workers(partial(fragile, tmp_path), ["a", "once", "b", "always", "c"], workers=2))
    assert {i for i, o in found.items() if o["status"] == "done"} == {0, 1, 2, 4}
    assert found[3]["status"] == "failed" and "its process died twice" in found[3]["error"]
    assert len(list(tmp_path.glob("always-*"))) == 2

PARENT = """
import sys
sys.path.insert(0, sys.argv[1])
from functools import partial
from pathlib import Path
from test_workers import computing
from cxr_fastai.core.workers import in_workers
list(in_workers(partial(computing, Path(sys.argv[2])), ["a", "b"], workers=2))
"""

def computing(folder, job):
    "A job without end, that computes in C as a training does."
    (folder/f"{job}-{os.getpid()}").touch()
    while True: sum(range(10**6))

def living(pids): return [o for o in pids if lives(o)]

def lives(pid):
    "Not one that has ended, whether or not its parent has asked for it."
    try: return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError: return False # it may end while this is asked

@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="asks /proc")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_their_parent_however_it_ends(tmp_path, how):
    parent = subprocess.Popen([sys.executable, "-c", PARENT, os.path.dirname(__file__), tmp_path])
    while len(list(tmp_path.iterdir())) < 2 and parent.poll() is None: time.sleep(.05)
    pids = [o.name.split("-")[1] for o in tmp_path.iterdir()]
    assert len(living(pids)) == 2
    parent.send_signal(how)
    parent.wait()
    until = time.time() + 120
    while living(pids) and time.time() < until: time.sleep(.1)
    assert not living(pids)

def test_stopped_in_between_workers_are_not_waited_for(tmp_path):
    found = in_workers(partial(quick_or_endless, tmp_path), ["a", "endless"], workers=2)
    assert next(found)[1]["job"] == "a"
    while not list(tmp_path.glob("endless-*")): time.sleep(.05)
    found.close()
    pid = next(tmp_path.glob("endless-*")).name.split("-")[1]
    assert not living([pid])

def quick_or_endless(folder, job): return computing(folder, job) if job == "endless" else note(folder, job)

def test_threads_are_a_share_of_the_cores():
    assert threads_of(1) == len(os.sched_getaffinity(0)) and threads_of(10_000) == 1

@pytest.fixture
def cluster(monkeypatch):
    "A Ray cluster on this machine: a head that runs nothing, and two nodes of one cpu each."
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster
    import ray
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path)) # where the workers find this file
    cluster = Cluster(initialize_head=True, head_node_args=dict(num_cpus=0, object_store_memory=80_000_000))
    cluster.workers = [cluster.add_node(num_cpus=1, object_store_memory=80_000_000) for _ in range(2)]
    yield cluster
    ray.shutdown()
    cluster.shutdown()

@pytest.mark.slow
def test_ray_loses_nothing_when_a_worker_dies(cluster, tmp_path):
    found = dict(on_ray(partial(fragile, tmp_path), ["a", "once", "always", "b"], cluster.address))
    assert {i for i, o in found.items() if o["status"] == "done"} == {0, 1, 3}
    assert found[2]["status"] == "failed" and "its process died twice" in found[2]["error"]
