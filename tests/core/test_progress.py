import sys
from types import SimpleNamespace
import pytest
import cxr_fastai.core.progress as module
from cxr_fastai.core.progress import TimeLeft, duration, left_in_words, progress

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

def test_durations_in_words():
    said = [duration(o) for o in (3.4, 89, 90, 5399, 5400, 12000)]
    assert said == ["3 s", "89 s", "2 min", "90 min", "1.5 h", "3.3 h"]

def test_what_is_left_is_told_by_kind_and_says_what_it_leaves_out():
    left = TimeLeft(["CycleGANs", "cells", "cells", "cells"], workers=2)
    assert str(left) == ""
    left.ended("cells", 10)
    assert str(left) == ", about 10 s left without CycleGANs"
    left.ended("CycleGANs", 600)
    left.ended("cells") # was there already
    assert str(left) == ", about 5 s left"
    left.ended("cells", 10)
    assert str(left) == ""

def test_jobs_that_are_not_alike_have_plain_lines_with_their_own_estimate(monkeypatch, capsys):
    monkeypatch.setattr(module, "time", ticking(2))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    list(progress(range(2), 2, "Jobs", TimeLeft(["cells"])))
    assert capsys.readouterr().out.splitlines() == ["Jobs: 1 of 2 in 2 s", "Jobs: 2 of 2 in 4 s"]

def test_a_moment_left_is_not_nothing(): assert left_in_words(.2) == ", about 1 s left"
