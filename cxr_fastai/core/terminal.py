"""What moves in a terminal, by rich: bars below whatever is printed meanwhile. The cursor is never hidden, so that a
run that is killed leaves a terminal in which one can go on."""
import sys
from collections.abc import Callable
from contextlib import contextmanager

from .files import line_width

__all__ = ["bar_line", "moving", "stays", "still"]

NARROW = 90 # columns, below which bars are shorter

_drawn = [] # what moves in this process

def _console():
    "Of stdout, as wide as a line may be."
    from rich.console import Console
    class Whole(Console):
        def show_cursor(self, show=True): return False
    return Whole(file=sys.stdout, width=line_width(), force_terminal=True, highlight=False, markup=False, emoji=False)

def bar_line(
    what:str,    # the line begins with
    done:float,  # of `total`
    total:float, # 0: not known
    told:str,    # how far it is, in words
):
    "A line with a bar, as wide as the terminal at most, for `moving`."
    from rich.text import Text
    wide = line_width()
    bar, told = 12 if wide < NARROW else 20, told.removeprefix(", ")
    first = max(12, wide - bar - 38)
    full = round(bar*min(1, done/total)) if total else 0
    name = what if len(what) <= first else f"…{what[1 - first:]}" # its end tells it from others
    line = Text.assemble(f"{name:<{first}}  ", ("━"*full, "green"), ("━"*(bar - full), "bright_black"), f"  {told}")
    line.truncate(wide - 1, overflow="ellipsis")
    return line

@contextmanager
def moving(
    lines:Callable, # gives what moves anew, as `bar_line` or a group of them
):
    "Context in which these lines stand below all that is printed; their last state stays. Within another one, nothing."
    if _drawn:
        yield
        return
    from rich.live import Live
    live = Live(get_renderable=lines, console=_console(), redirect_stderr=sys.stderr.isatty())
    _drawn.append(live)
    try:
        with live: yield
    finally: still()

def stays(
    line:object, # of `bar_line`
):
    "Print a line above what moves."
    _drawn[-1].console.print(line, no_wrap=True)

def still():
    "End what moves: before the last word of a run that was broken off."
    while _drawn: _drawn.pop().stop()
