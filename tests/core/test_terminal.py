import io, sys
import pytest
from cxr_fastai.core.files import bar_fits, line_width, say
from cxr_fastai.core.terminal import bar_line, moving, stays, still

class Terminal(io.StringIO):
    encoding = "utf-8"
    def isatty(self): return True

@pytest.fixture
def terminal(monkeypatch):
    "`terminal(columns)`: stdout becomes one; gives it."
    def begin(wide=80):
        for o in "CI", "NO_COLOR", "TERM", "RANK": monkeypatch.delenv(o, raising=False)
        monkeypatch.setenv("COLUMNS", str(wide))
        monkeypatch.setattr(sys, "stdout", Terminal())
        return sys.stdout
    yield begin
    still()

@pytest.mark.parametrize("name, value, fits", [("NO_COLOR", "1", False), ("TERM", "dumb", False), ("CI", "true", False),
                                              ("CI", "false", True), ("RANK", "1", False), ("RANK", "0", True)])
def test_bars_are_drawn_where_they_are_wanted(terminal, monkeypatch, name, value, fits):
    terminal()
    assert bar_fits()
    monkeypatch.setenv(name, value)
    assert bar_fits() == fits

@pytest.mark.parametrize("wide", [40, 80, 100, 300])
def test_a_line_with_a_bar_fits(terminal, wide):
    terminal(wide)
    for what in "Real", "vit_small_patch14_reg4_dinov2.lvd142m, Real-Meta + dose 1/8, seed 1":
        line = bar_line(what, 3, 10, ", about 3.4 h left").plain
        assert len(line) < min(wide, 101) and "━" in line and (wide < 80 or "about 3.4 h left" in line)
        assert what[-5:] in line # which tells it from others

def test_what_moves_hides_no_cursor_and_what_is_printed_stays_above(terminal):
    screen = terminal()
    with moving(lambda: bar_line("all", 1, 2, "1/2")):
        say("one")
        stays(bar_line("Real", 1, 1, "3 s"))
        with moving(lambda: "never drawn"): pass
    said = screen.getvalue()
    assert "?25" not in said and said.index("one") < said.index("3 s") < said.rindex("1/2") and said.endswith("\n")
    assert "never" not in said

def test_a_run_that_breaks_off_ends_what_moves(terminal):
    before, drawn = terminal(), moving(lambda: bar_line("all", 1, 2, "1/2"))
    drawn.__enter__() # whose end never comes
    assert sys.stdout is not before
    still()
    still()
    assert sys.stdout is before and before.getvalue().endswith("\n")

def test_a_sentence_is_wrapped_in_a_terminal_alone(terminal, capsys):
    sentence, path = "A sentence of more words than fit, in ", "/a/folder/of/a/very/long/name/that/is/one/word"
    say(sentence, path)
    assert capsys.readouterr().out == f"{sentence} {path}\n" and line_width() == 100
    screen = terminal(30)
    say(f"  {sentence}{path}.\n| a table | is as wide as it is, whatever |\na  table  of  aligned  columns,  as  well")
    lines = screen.getvalue().splitlines()
    assert lines[:4] == ["  A sentence of more words", "  than fit, in", f"  {path}.",
                         "| a table | is as wide as it is, whatever |"] and len(lines) == 5 and line_width() == 30

def test_of_several_processes_the_first_speaks(capsys, monkeypatch):
    for rank, said in ("1", ""), ("0", "x\n"):
        monkeypatch.setenv("RANK", rank)
        say("x")
        assert capsys.readouterr().out == said
