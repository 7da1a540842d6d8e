import json, sys
from types import SimpleNamespace
import pytest
import cxr_fastai.core.progress as module
from cxr_fastai.core.progress import TimeLeft, duration, left_in_words, progress, report, reporting

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
    for o in "CI", "NO_COLOR", "TERM": monkeypatch.delenv(o, raising=False)
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

def test_what_runs_says_what_is_left_of_it():
    left = TimeLeft(["CycleGANs", "cells", "cells"])
    assert left.told([("CycleGANs", 30, None)]) == "" # it can't say yet
    assert left.told([("CycleGANs", 30, 70)]) == ", about 70 s left without cells"
    left.ended("CycleGANs", 100)
    left.ended("cells", 20)
    assert left.told([("cells", 5, None)]) == ", about 15 s left"
    assert left.told([("cells", 50, None)]) == ", about 1 s left"
    assert left.told([("cells", 5, 40)]) == ", about 40 s left"

def test_a_job_says_how_far_it_is_where_somebody_reads_it(tmp_path):
    file = tmp_path/"job.json"
    told = lambda: json.loads(file.read_text())
    report(1, 2, "nobody") # nothing
    with reporting(file, title="Real", kind="cells"):
        assert told()["title"] == "Real" and told()["words"] == "begins"
        list(progress(range(3), 3, "Decoding radiographs"))
        assert told()["words"] == "decoding 3 of 3" and told()["done"] == 3 and not told()["counts"]
        report(2.5, 10, "training", "epoch 3 of 10", counts=True)
        report(10, 10, "training", "epoch 10 of 10", counts=True)
        assert told()["first"] == 2.5 and told()["done"] == 10
        report(.5, 5, "training", "epoch 1 of 5", counts=True) # of another fit
        assert told()["first"] == .5
    file.unlink()
    report(1, 2, "nobody")
    with reporting(None): report(1, 2, "nobody")
    with reporting(tmp_path/"elsewhere"/"job.json"): report(1, 2, "training") # on another machine
    assert not [*tmp_path.iterdir()]

def test_a_moment_left_is_not_nothing(): assert left_in_words(.2) == ", about 1 s left"
