import io, sys, time
from types import SimpleNamespace
import pytest
from cxr_fastai.core.board import Board, place_of
from cxr_fastai.core.progress import TimeLeft, report, reporting
from cxr_fastai.core.terminal import still

class Job:
    kind = "cells"
    def __init__(self, title): self.title = title
    def __repr__(self): return self.title

JOBS = [Job(f"Real, seed {i}") for i in range(3)]

def left(): return TimeLeft([o.kind for o in JOBS])

class Terminal(io.StringIO):
    encoding = "utf-8"
    def isatty(self): return True

@pytest.fixture
def terminal(monkeypatch):
    "`terminal()`: stdout becomes one of 80 columns."
    def begin():
        for o in "CI", "NO_COLOR", "TERM", "RANK": monkeypatch.delenv(o, raising=False)
        monkeypatch.setenv("COLUMNS", "80")
        monkeypatch.setattr(sys, "stdout", Terminal())
        return sys.stdout
    yield begin
    still()

def run(board, known):
    for i, o in enumerate(JOBS):
        with reporting(place_of(board.folder, o), title=o.title, kind=o.kind): report(1, 2, "training", "epoch 1 of 2")
        known.ended(o.kind, 10. if i < 2 else None)
        board.ended(o, 10. if i < 2 else None, "valid AUC 0.71" if i < 2 else "")

@pytest.mark.parametrize("draws", [True, False])
def test_without_a_terminal_each_job_has_a_plain_line(capsys, draws):
    known = left()
    with Board(known, draws) as board: run(board, known)
    said = capsys.readouterr().out.splitlines()
    assert board.folder is None
    assert said[0] == "1 of 3 jobs: Real, seed 0, 10 s, valid AUC 0.71, about 20 s left"
    assert said[2].startswith("3 of 3 jobs: Real, seed 2, not done; ") and said[2].endswith("in all") and len(said) == 3

def test_a_terminal_shows_what_runs_and_keeps_a_line_a_job(terminal):
    screen, known = terminal(), left()
    with Board(known) as board:
        with reporting(place_of(board.folder, JOBS[0]), title=JOBS[0].title, kind="cells"):
            report(0, 10, "training", "epoch 1 of 10", counts=True)
            time.sleep(.3)
            report(5, 10, "training", "epoch 6 of 10", counts=True)
        o, = board._running()
        assert o["title"] == "Real, seed 0" and 0 <= o["left"] < 5
        lines = [line.plain for line in board._lines().renderables]
        assert "epoch 6 of 10, about 1 s left" in lines[0] and lines[1].startswith("all jobs") and "0/3" in lines[1]
        assert all(len(line) < 80 for line in lines)
        run(board, known)
        assert not [*board._running()]
    said = screen.getvalue()
    assert said.count("valid AUC 0.71") == 2 and "not done" in said and "3/3 in" in said and said.endswith("\n")
    assert said.rindex("all jobs") > said.rindex("not done") and "\x1b[?25" not in said

def test_nothing_is_drawn_where_nothing_is_to_do(terminal):
    screen = terminal()
    with Board(TimeLeft([])) as board: assert board.folder is None
    assert screen.getvalue() == ""

def test_a_place_is_a_jobs_own():
    assert place_of(None, JOBS[0]) is None
    assert len({place_of("f", o) for o in [*JOBS, SimpleNamespace(a=1)]}) == 4
