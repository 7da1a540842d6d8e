import os, subprocess, sys
import pytest
from cxr_fastai.core.threads import cores, others

def group(tmp_path, files, name="/"):
    "A machine's control groups, and which is ours."
    for file, text in files.items():
        (tmp_path/"cgroup"/file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path/"cgroup"/file).write_text(text)
    (tmp_path/"own").write_text(name)
    return cores(tmp_path/"cgroup", tmp_path/"own")

@pytest.mark.parametrize("files, own, want", [
    ({"cpu.max": "150000 100000\n"}, "0::/\n", 2), ({"cpu.max": "max 100000\n"}, "0::/\n", None),
    ({"a/cpu.max": "50000 100000\n", "cpu.max": "max 100000"}, "0::/a/b\n", 1),
    ({"cpu/docker/x/cpu.cfs_quota_us": "100000\n", "cpu/docker/x/cpu.cfs_period_us": "100000\n"},
     "4:cpu,cpuacct:/docker/x\n", 1),
    ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, "4:cpu,cpuacct:/\n", None),
    ({"cpu.max": "nonsense"}, "", None)])
def test_cores_are_those_of_affinity_and_of_the_containers_share(tmp_path, files, own, want):
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert group(tmp_path, files, own) == min(there, want or there)

def test_without_control_groups_there_is_the_affinity(tmp_path): assert cores(tmp_path, tmp_path/"no") >= 1

def asked(code, **env):
    left = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=left | env)
    return done.stdout.strip()

SAID = "import os; from cxr_fastai.core.threads import spin_said; print(os.environ.get('GOMP_SPINCOUNT'), spin_said())"

def test_the_package_has_threads_spin_briefly_unless_the_user_said_otherwise():
    assert asked(SAID) == "1000 threads spin briefly while they wait (GOMP_SPINCOUNT=1000)"
    assert asked(SAID, OMP_WAIT_POLICY="ACTIVE") == "None threads wait by OMP_WAIT_POLICY=ACTIVE"
    assert asked(SAID, GOMP_SPINCOUNT="7") == "7 threads wait by GOMP_SPINCOUNT=7"
    assert "torch was loaded first" in asked("import sys; sys.modules['torch'] = None; " + SAID)

def test_others_are_what_is_busy_beside_this_process(tmp_path):
    assert others(.01, tmp_path/"nowhere") == 0 and 0 <= others(.05) <= os.cpu_count()

def test_a_containers_share_is_the_number_of_threads():
    code = ("import os, cxr_fastai.core.threads as room; os.environ.pop('OMP_NUM_THREADS', 0) if {pop} else 0; "
            "room.cores = lambda: 0; room.mind_others(); print(os.environ['OMP_NUM_THREADS'])")
    assert asked(code.format(pop=True)) == "0" and asked(code.format(pop=False), OMP_NUM_THREADS="5") == "5"
