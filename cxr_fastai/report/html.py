"""A page as it grows: sections with their texts, tables, films and figures in words, for `templates/page.html.j2`."""
import base64, hashlib, io, re
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
from markupsafe import Markup
from PIL import Image

from ..arms import arm_title, ARMS
from ..core.style import save_figure
from ..core.templates import fill_template
from ..stats.formats import number, with_ends
from ..stats.scoring import title_of
from .svg import page_svg

_TEMPLATES = Path(__file__).parent/"templates"
COMPARED = "before", "rocauc", "p_verdict", "gain", "recall", "specificity" # what of comparisons fits a page
MOST, NARROW = 6, 40 # columns of a table that fit a page, and letters that fit a telephone's width

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

def _grid(table, by):
    "Heads of a table, and its rows in words, in a body for each value of the column `by`."
    heads = [o for o in table if o != by]
    groups = [(str(o), part) for o, part in table.groupby(by, sort=False)] if by in table else [(None, table)]
    rows = lambda part: [[*map(_word, row, map(str, heads))] for row in part[heads].itertuples(index=False)]
    found = dict(heads=[*map(_head, heads)], bodies=[dict(title=title, rows=rows(part)) for title, part in groups])
    return found | dict(cards=_wide(found) > NARROW)

def _wide(grid):
    "Letters side by side that a table needs: those of words and intervals, which stay whole."
    columns = zip(*(row for body in grid["bodies"] for row in body["rows"]))
    pieces = ([o for cell in own for o in re.findall(r"\[[^\]]*\]|\S+", cell)] for own in columns)
    return sum(max(map(len, [*head.split(), *own])) for head, own in zip(grid["heads"], pieces))

def page_film(
    pixels:np.ndarray, # uint8 `[h, w]`
    title:str,         # what it is
    caption:str,       # what else is known of it
    panel:dict=None,   # of `forest.panel`, below it
) -> dict:             # for `Page.films`
    "A film as part of a page."
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "jpeg", quality=88)
    source = "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
    return dict(title=title, caption=caption, panel=panel, source=source, alt=f"Radiograph: {title}, {caption}")

class Page:
    "Sections in their order, and the folder of their figures."
    def __init__(self,
        folder:Path,  # figures are saved there
        warnings=(),  # sentences that stay in sight
    ): self.folder, self.warnings, self.sections, self._names = folder, list(warnings), [], Counter()

    def _named(self, text):
        "A name in the page's html that nothing else has."
        name = re.sub(r"\W+", "-", text.lower()).strip("-") or "part"
        self._names[name] += 1
        return name if self._names[name] == 1 else f"{name}-{self._names[name]}"

    def _add(self, shape, **words):
        own = self.sections[-1]
        own["parts"].append(dict(shape=shape, id=self._named(f"{own['anchor']} {shape}")) | words)

    def section(self,
        title:str,
        fold:bool=True, # away, until it is asked for
    ):
        "Begin one."
        self.sections.append(dict(title=title, anchor=self._named(title), fold=fold, parts=[]))
        return self

    def text(self,
        text:str,
        kind:str="said", # its class: 'said', 'warn' or 'verdict'
        rest:str="",     # that stands smaller, behind it
    ): self._add("text", text=text, kind=kind, rest=rest)

    def table(self,
        table:pd.DataFrame,
        caption:str,
        by:str="backbone",   # a body for each of its values
        kind:str="numbers",  # or 'words', which nobody sorts
        main=(),             # columns that matter, six at most; the first where not given. All are behind them
    ):
        "A table; an empty one is a sentence."
        if table.empty: return self.text(f"{caption}: none.")
        every = _together(table)
        apart = [by] if by in every else []
        names = [o for o in main if o in every] or list(every.columns.drop(apart))[:MOST]
        shown = every[[*apart, *names]]
        whole = _grid(every, by) if shown.shape[1] < every.shape[1] else None
        self._add("table", caption=caption, kind=kind, whole=whole, **_grid(shown, by))

    def figures(self, drawn):
        "Each (name, figure, caption), saved as png and svg; they stand side by side where there is room."
        if figures := [self._saved(*o) for o in drawn]: self._add("figures", figures=figures)

    def _saved(self, name, fig, caption):
        stem = self.folder/re.sub(r"[^\w.+-]+", "-", name)
        svg = Path(f"{stem}.svg")
        save_figure(fig, svg, metadata={"Date": None})
        fig.set_layout_engine("none") # it is laid out
        save_figure(fig, Path(f"{stem}.png"), dpi=170)
        name = self._named(f"figure {name}")
        return dict(caption=caption, svg=page_svg(svg.read_text(encoding="utf-8"), name, caption))

    def forest(self, panels):
        "Those of `forest.panel` side by side: values and their intervals, drawn and in figures."
        self._add("forest", panels=panels)

    def films(self, films):
        "Each of `page_film`, side by side."
        if films := list(films): self._add("films", films=films)

    def html(self,
        title:str,    # of the page
        above:str="", # a line over it
        about=(),     # lines under it
    ) -> str:
        "The whole page."
        script = (_TEMPLATES/"page.js").read_text(encoding="utf-8")
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        return fill_template(_TEMPLATES/"page.html.j2", title=title, above=above, about=about, digest=digest,
                             script=Markup(script), warnings=self.warnings, sections=self.sections)
