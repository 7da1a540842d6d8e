import pytest
import cxr_fastai.core.memory as module
from cxr_fastai.core.memory import free_memory, threads_within

@pytest.mark.parametrize("free, wanted, threads", [(1000, 8, 8), (250, 8, 2), (10, 8, 1), (None, 8, 8)])
def test_no_more_threads_than_memory_holds(monkeypatch, free, wanted, threads):
    monkeypatch.setattr(module, "free_memory", lambda: free)
    assert threads_within(wanted, 100) == threads

def test_free_memory_is_some_or_unknown():
    assert (free := free_memory()) is None or free > 1e6

def test_a_containers_files_in_memory_are_room(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "GROUP", tmp_path)
    for name, text in (("max", "1000000"), ("current", "900000"), ("stat", "anon 1\ninactive_file 500000\n")):
        (tmp_path/f"memory.{name}").write_text(text)
    assert free_memory() == 600_000
    (tmp_path/"memory.stat").unlink()
    assert free_memory() == 100_000
