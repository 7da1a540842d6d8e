"""A table as text: plain, markdown, LaTeX, csv. No torch."""
from pathlib import Path
import pandas as pd
from .files import atomic

__all__ = ["save_table", "to_latex", "to_markdown", "to_text"]

def _texts(table, digits):
    "Columns of words; what is undefined is '-'."
    word = lambda o: "-" if o is None or o != o else f"{o:.{digits}f}" if isinstance(o, float) else str(o)
    return {str(c): [word(o) for o in table[c]] for c in table}

def to_text(
    table:pd.DataFrame, # any table
) -> str:
    "The table as aligned plain text, floats with four decimals."
    text = _texts(table, 4)
    width = {c: max(map(len, [c, *text[c]])) for c in text}
    line = lambda cells: "  ".join(f"{o:<{n}}" for o, n in zip(cells, width.values())).rstrip()
    return "\n".join(map(line, [text, *zip(*text.values())]))

LATEX = str.maketrans({o: f"\\{o}" for o in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}",
                                                        "^": r"\textasciicircum{}"})

def to_latex(
    table:pd.DataFrame, # any table
) -> str:
    "The table as a LaTeX tabular with booktabs rules, every special sign escaped."
    text = _texts(table, 4)
    line = lambda cells: " & ".join(o.translate(LATEX) for o in cells) + r" \\"
    return "\n".join([rf"\begin{{tabular}}{{{'l' * len(text)}}}", r"\toprule", line(text), r"\midrule",
                      *map(line, zip(*text.values())), r"\bottomrule", r"\end{tabular}"]) + "\n"

def save_table(
    table:pd.DataFrame, # any table
    stem:str|Path,      # path without a suffix
):
    "Write a table four times: .csv, .md, .txt and .tex."
    stem = str(stem)
    with atomic(f"{stem}.csv") as tmp: table.to_csv(tmp, index=False)
    for suffix, form in (".md", to_markdown), (".txt", to_text), (".tex", to_latex):
        with atomic(stem + suffix) as tmp: tmp.write_text(form(table).rstrip() + "\n", encoding="utf-8")

def to_markdown(
    table:pd.DataFrame, # any table
) -> str:
    "The table as aligned markdown text, floats with six decimals."
    text = _texts(table, 6)
    width = {c: max(map(len, [c, *text[c]])) for c in text}
    line = lambda cells: "| " + " | ".join(f"{o:<{n}}" for o, n in zip(cells, width.values())) + " |"
    return "\n".join(map(line, [text, ["-" * n for n in width.values()], *zip(*text.values())]))
