"""A page as it grows: sections with the words of their texts, tables and figures, for `templates/page.html.j2`."""
import base64, re
from pathlib import Path

import pandas as pd

from ..arms import arm_title, ARMS
from ..core.style import save_figure
from ..core.templates import fill_template
from ..stats.formats import number, with_ends
from ..stats.scoring import title_of

_TEMPLATE = Path(__file__).parent/"templates"/"page.html.j2"

def _head(name): return "comparison" if name == "before" else title_of(str(name))

def _word(value, name=""):
    "A table's value in words."
    if pd.isna(value): return "–"
    if not isinstance(value, float): return str(value)
    if name.startswith(("p_", "holm_")) and value < .001: return "<.001"
    return number(value, 3, ",")

def _title(word): return arm_title(word) if word.split("+")[0].partition("@")[0] in ARMS else word

def _together(table):
    "A copy with `x x_low x_high` as one column of text, and arms by their titles."
    table = table.copy()
    for name in [o for o in table if {f"{o}_low", f"{o}_high"} <= set(table)]:
        three = zip(table[name], table.pop(f"{name}_low"), table.pop(f"{name}_high"))
        table[name] = [_word(value) if pd.isna(low) else with_ends(value, low, high) for value, low, high in three]
    for name in {"arm", "before", "after"} & set(table): table[name] = table[name].map(_title)
    if "after" in table: table["before"] += " to " + table.pop("after") # one head that stays in sight
    return table

def _body(table, title=None):
    "A table's rows in words, under a title where they have one of their own."
    names = list(map(str, table))
    return dict(title=title, rows=[list(map(_word, row, names)) for row in table.itertuples(index=False)])

class Page:
    "Sections in their order, and the folder of their figures."
    def __init__(self,
        folder:Path,   # figures are saved there
        warnings:list, # sentences that stand in every section with absolute scores
    ): self.folder, self.warnings, self.sections = folder, warnings, []

    def _add(self, shape, **words): self.sections[-1]["parts"].append(dict(shape=shape) | words)

    def section(self, title, scores=False):
        "Begin a section; where it holds absolute `scores`, the warnings stand in it again."
        self.sections.append(dict(title=title, anchor=re.sub(r"\W+", "-", title.lower()), parts=[]))
        for o in self.warnings if scores else (): self.text(o, kind="warn")
        return self

    def text(self, text, kind="said"): self._add("text", text=text, kind=kind)

    def table(self, table, caption, by="backbone", kind="numbers"):
        "A table with a body for each value of the column `by`; an empty one is a sentence."
        if table.empty: return self.text(f"{caption}: none.")
        table = _together(table)
        apart = by in table and table[by].nunique() < len(table)
        heads = [o for o in table if not (apart and o == by)]
        groups = [(str(o), part) for o, part in table.groupby(by, sort=False)] if apart else [(None, table)]
        bodies = [_body(part[heads], title) for title, part in groups]
        self._add("table", caption=caption, kind=kind, heads=list(map(_head, heads)), bodies=bodies)

    def figures(self, drawn):
        "Each (name, figure, caption), saved as png and svg; they stand side by side where there is room."
        if figures := [self._saved(*o) for o in drawn]: self._add("figures", figures=figures)

    def _saved(self, name, fig, caption):
        stem = self.folder/re.sub(r"[^\w.+-]+", "-", name)
        svg, png = Path(f"{stem}.svg"), Path(f"{stem}.png")
        save_figure(fig, svg, metadata={"Date": None})
        save_figure(fig, png, dpi=170)
        return dict(caption=caption, png=base64.b64encode(png.read_bytes()).decode(), wide=fig.get_figwidth() > 5)

    def html(self, title):
        "The whole page."
        return fill_template(_TEMPLATE, title=title, sections=self.sections)
