import sys
from types import SimpleNamespace
import pytest
import cxr_fastai.core.progress as module
from cxr_fastai.core.progress import progress

def ticking(seconds):
    "A clock that moves `seconds` at each look."
    now = iter(range(10**6))
    return SimpleNamespace(monotonic=lambda: next(now)*seconds)

@pytest.mark.parametrize("n,seconds,lines", [(1000, .0001, 0), (1000, .1, 10), (1000, .002, 2), (3, 5, 3), (7, .5, 3)])
def test_progress_outside_a_terminal_is_a_few_plain_lines(monkeypatch, capsys, n, seconds, lines):
    monkeypatch.setattr(module, "time", ticking(seconds))
    assert list(progress(iter(range(n)), n, "Decoding")) == list(range(n))
    said = capsys.readouterr().out.splitlines()
    assert len(said) == lines and all(o.startswith("Decoding: ") for o in said)
    assert not said or f"{n:,} of {n:,}" in said[-1]

def test_progress_in_a_terminal_is_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert list(progress(iter(range(20)), 20, "Decoding")) == list(range(20))
    said = capsys.readouterr().out
    assert "20/20" in said and "Decoding" in said and said.endswith("\n")
