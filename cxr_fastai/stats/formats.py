"""A table as text: plain, markdown, LaTeX, csv. No torch."""
import re
from math import isfinite
from pathlib import Path

import pandas as pd

from ..core.csvs import write_csv
from ..core.files import atomic

__all__ = ["digits_for", "escape_markdown", "number", "save_table", "to_columns", "to_latex", "to_markdown", "to_text",
           "with_ends", "without_html"]

def _texts(table, digits):
    "Heads and columns of words, each one line; what is undefined is '-'."
    def word(value):
        if pd.api.types.is_scalar(value) and pd.isna(value): return "-"
        return number(value, digits) if isinstance(value, float) else _line(value)
    return [_line(o) for o in table], [[word(o) for o in table.iloc[:, i]] for i in range(table.shape[1])]

def digits_for(
    low:float,    # of an interval; nan: there is none
    high:float,   # its other end
    digits:int=3, # after the point, where these tell its ends apart
) -> int:
    "As many digits as an interval needs, so as not to be printed as a point."
    while digits < 9 and round(low, digits) == round(high, digits): digits += 1
    return digits

def number(
    value:float, # a figure
    digits:int,  # after the point
    form:str="", # '+': a sign before what is above 0, too; ',': between thousands
) -> str:
    "A figure in words: '-' for what is undefined or without end, and no minus before a nought."
    if not isfinite(value): return "-"
    text = f"{value:{form}.{digits}f}"
    return text.lstrip("-") if not float(text.replace(",", "")) else text

def with_ends(
    value:float, # a figure
    low:float,   # of its interval
    high:float,  # its other end
    sign:str="", # '+': of all three
) -> str:
    "A value and its interval, which is never printed as a point."
    value, low, high = (number(o, digits_for(low, high), f"{sign},") for o in (value, low, high))
    return f"{value} [{low}, {high}]"

def _line(value):
    "As one line, without signs that a terminal would obey."
    return re.sub("[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", str(value))

def _aligned(heads, columns, join):
    "Lines of cells as wide as their column's widest."
    width = [max(map(len, [c, *cells])) for c, cells in zip(heads, columns)]
    return [join([f"{o:<{n}}" for o, n in zip(cells, width)]) for cells in [heads, *zip(*columns)]], width

def to_text(
    table:pd.DataFrame, # any table
) -> str:
    "The table as aligned plain text, floats with four decimals."
    lines, _ = _aligned(*_texts(table, 4), "  ".join)
    return "\n".join(o.rstrip() for o in lines)

def _short(word):
    "Numbers within a word with three digits after the point at most, as far as these don't make them noughts."
    def shorter(o): return f"{float(o[0]):.3f}" if float(o[0]) >= .0005 else o[0]
    return re.sub(r"(?<![\w.])\d+\.\d{4,}(?!\w)", shorter, word)

def _brief(value):
    "A cell for people: three digits of a number, more only before the point."
    if not isinstance(value, float): return value
    return value if not isfinite(value) else f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"

def _blocks(wide, room):
    "Numbers of columns that fit beside each other, in order; one that fits nowhere has a block of its own."
    found, left = [], 0
    for i, n in enumerate(wide):
        if n + 2 > left:
            found.append([])
            left = room
        found[-1].append(i)
        left -= n + 2
    return found

def to_columns(
    table:pd.DataFrame, # its first column names the lines
    width:int=100,      # of a line
    by:str=None,        # a column whose words head their lines
) -> str:
    """The table as aligned plain text for people: numbers with three digits, no line wider than `width`, as far as its
    names leave room; columns that don't fit beside the others follow below them."""
    heads = [o for o in table if o != by]
    names, texts = _texts(table[heads].map(_brief) if len(table) else table[heads], 3)
    columns = [[*map(_short, o)] for o in texts]
    wide, indent = [max(map(len, [h, *c])) for h, c in zip(names, columns)], "  " if by else ""
    groups = table[by].map(_line).tolist() if by else [""]*len(table)
    blocks = []
    for block in _blocks(wide[1:], width - wide[0] - len(indent)) or [[]]:
        at = [0, *(i + 1 for i in block)]
        line = lambda cells: (indent + "  ".join(f"{cells[i]:<{wide[i]}}" for i in at)).rstrip()
        lines, last = [line(names)], ""
        for group, cells in zip(groups, zip(*columns)):
            if group != last: lines.append(group)
            lines.append(line(cells))
            last = group
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)

LATEX = str.maketrans({o: f"\\{o}" for o in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}",
                      "^": r"\textasciicircum{}", "|": r"\textbar{}", "<": r"\textless{}", ">": r"\textgreater{}"})

def to_latex(
    table:pd.DataFrame, # any table
) -> str:
    "The table as a LaTeX tabular with booktabs rules, every special sign escaped."
    heads, columns = _texts(table, 4)
    def safe(word):
        text = word.translate(LATEX)
        return "{}" + text if word.startswith(("[", "*")) else text # which \\ would take for its own
    def line(cells): return " & ".join(map(safe, cells)) + r" \\"
    return "\n".join([rf"\begin{{tabular}}{{{'l' * len(heads)}}}", r"\toprule", line(heads), r"\midrule",
                      *map(line, zip(*columns)), r"\bottomrule", r"\end{tabular}"]) + "\n"

def save_table(
    table:pd.DataFrame, # any table
    stem:str|Path,      # path without a suffix
):
    "Write a table four times: .csv, .md, .txt and .tex."
    stem = str(stem)
    write_csv(table, f"{stem}.csv")
    for suffix, form in (".md", to_markdown), (".txt", to_text), (".tex", to_latex):
        with atomic(stem + suffix) as tmp: tmp.write_text(form(table).rstrip() + "\n", encoding="utf-8")

def escape_markdown(
    text:object, # anything with a text
) -> str:
    "Text for markdown, in a table too: one line, in which no sign makes a cell, html, a link or code."
    return without_html(re.sub(r"([\\|`~])", r"\\\1", _line(text)).replace("](", "]\\("))

def without_html(
    text:str, # markdown
) -> str:
    "Markdown whose html is text."
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", re.sub(r"&(?=#|[A-Za-z])", "&amp;", text))

def to_markdown(
    table:pd.DataFrame, # any table
) -> str:
    "The table as aligned markdown text, floats with six decimals; whatever a cell holds, it stays one cell of text."
    heads, columns = _texts(table, 6)
    safe = [[*map(escape_markdown, cells)] for cells in [heads, *columns]]
    line = lambda cells: f"| {' | '.join(cells)} |"
    lines, width = _aligned(safe[0], safe[1:], line)
    return "\n".join([lines[0], line(["-" * n for n in width]), *lines[1:]])
