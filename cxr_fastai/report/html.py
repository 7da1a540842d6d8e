"""A page of html that needs no network, as it grows: sections, texts, tables and figures, which are saved beside it."""
import base64, re
from html import escape
from pathlib import Path

import pandas as pd

from ..arms import arm_title, ARMS
from ..core.style import save_figure
from ..stats.formats import with_ends

HEADS = {"rocauc": "ROC-AUC", "pr_auc": "PR-AUC", "f1": "F1", "before": "comparison"}
STYLE = """:root{color-scheme:light dark;--ink:#1d2329;--soft:#59636e;--page:#fff;--tint:#f3f5f7;--line:#d5dbe1;
--warn:#fff4dc}@media(prefers-color-scheme:dark){:root{--ink:#e3e7eb;--soft:#a3adb8;--page:#16191d;--tint:#20252b;
--line:#3a424b;--warn:#43350f}}*{box-sizing:border-box}body{margin:0 auto;max-width:68rem;padding:1rem;
background:var(--page);color:var(--ink);font:1rem/1.55 system-ui,sans-serif;overflow-wrap:anywhere}h1{font-size:1.6rem;
line-height:1.2}h2{margin-top:3rem;font-size:1.25rem;border-bottom:1px solid var(--line)}p,figcaption{max-width:44rem}
a{color:inherit}nav ol{columns:15rem;padding-left:1.5rem;font-size:.9rem}.warn{background:var(--warn);
padding:.5rem .8rem}.verdict{border-left:.25rem solid;padding-left:.8rem}figure{margin:1.2rem 0;min-width:0}figcaption{
color:var(--soft);font-size:.88rem;margin-bottom:.3rem}.figures{display:grid;gap:0 1.2rem;
grid-template-columns:repeat(auto-fill,minmax(min(100%,20rem),1fr))}img{max-width:100%;height:auto;background:#fff}
.scroll{width:fit-content;max-width:100%;overflow-x:auto;border:1px solid var(--line)}table{border-collapse:collapse;
font-size:.83rem;font-variant-numeric:tabular-nums}th,td{padding:.25rem .6rem;text-align:left;vertical-align:top;
white-space:nowrap;border-top:1px solid var(--line)}thead th{border:0;background:var(--tint)}th[scope=row]{
position:sticky;left:0;min-width:8.5rem;max-width:12rem;white-space:normal;background:var(--page);font-weight:normal}
th[scope=rowgroup]{background:var(--tint)}.words :is(td,th){white-space:normal;min-width:6rem}.words td:last-child{
min-width:16rem}@media(min-width:48rem){.wide{grid-column:span 2}}"""
PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<link rel="icon" href="data:,"><title>{title}</title><style>{style}</style></head><body><h1>{title}</h1>
<nav aria-label="Contents"><ol>{contents}</ol></nav><main>{main}</section></main></body></html>"""

def _text(value, name=""):
    "A table's value in words, ready for html."
    if pd.isna(value): return "–"
    if not isinstance(value, float): return escape(str(value))
    if name.startswith(("p_", "holm_")) and value < .001: return "&lt;.001"
    return f"{value:,.3f}"

def _together(table):
    "A copy with `x x_low x_high` as one column of text, and arms by their titles."
    table = table.copy()
    for o in [o for o in table if {f"{o}_low", f"{o}_high"} <= set(table)]:
        three = zip(table[o], table.pop(f"{o}_low"), table.pop(f"{o}_high"))
        table[o] = [with_ends(a, b, c) if b == b else _text(a) for a, b, c in three]
    title = lambda o: arm_title(o) if o.split("+")[0] in ARMS else o
    table = table.assign(**{o: table[o].map(title) for o in ("arm", "before", "after") if o in table})
    if "after" in table: table["before"] += " to " + table.pop("after") # one head that stays in sight
    return table

class Page:
    "Html as it grows, and the folder of its figures."
    def __init__(self, folder, warnings): self.folder, self.warnings, self.heads, self.parts = folder, warnings, [], []

    def section(self, title, scores=False):
        "Begin a section; where it holds absolute `scores`, the warnings stand in it again."
        if self.heads: self.parts.append("</section>")
        name = re.sub(r"\W+", "-", title.lower())
        self.heads.append(f'<li><a href="#{name}">{escape(title)}</a></li>')
        self.parts.append(f'<section id="{name}"><h2>{escape(title)}</h2>')
        for o in self.warnings * scores: self.text(o, "warn")
        return self

    def text(self, text, kind="said"): self.parts.append(f'<p class="{kind}">{escape(text)}</p>')

    def table(self, table, caption, by="backbone", kind="numbers"):
        "A table that scrolls in a box of its own, with a body for each value of the column `by`."
        if table.empty: return self.text(f"{caption}: none.")
        table, mark, cell = _together(table), f"table-{len(self.parts)}", '<th scope="{}"{}>{}</th>'
        apart = by in table and table[by].nunique() < len(table)
        shown, lines = [o for o in table if o != by or not apart], []
        for group, part in table.groupby(by, sort=False) if apart else [("", table)]:
            title = cell.format("rowgroup", f' colspan="{len(shown)}"', escape(str(group)))
            lines.append(f"<tbody>{f'<tr>{title}</tr>' * apart}")
            for line in part[shown].itertuples(index=False):
                first, *rest = (_text(value, str(name)) for name, value in zip(shown, line))
                lines.append(f"<tr>{cell.format('row', '', first)}{''.join(f'<td>{o}</td>' for o in rest)}</tr>")
            lines.append("</tbody>")
        heads = "".join(cell.format("col", "", escape(HEADS.get(o, str(o).replace("_", " ")))) for o in shown)
        self.parts += [f'<figure><figcaption id="{mark}">{escape(caption)}</figcaption>',
                       f'<div class="scroll" role="region" tabindex="0" aria-labelledby="{mark}">',
                       f'<table class="{kind}"><thead><tr>{heads}</tr></thead>', *lines, "</table></div></figure>"]

    def figures(self, drawn):
        "Save each (name, figure, caption) as png and svg; they stand side by side where there is room."
        self.parts.append('<div class="figures">')
        for name, fig, caption in drawn:
            stem = self.folder/re.sub(r"[^\w.+-]+", "-", name)
            save_figure(fig, f"{stem}.svg", metadata={"Date": None})
            save_figure(fig, f"{stem}.png", dpi=170)
            data, said = base64.b64encode(Path(f"{stem}.png").read_bytes()).decode(), escape(caption)
            wide = "wide" if fig.get_figwidth() > 5 else "narrow"
            self.parts.append(f'<figure class="{wide}"><figcaption>{said}</figcaption>'
                              f'<img alt="{said}" src="data:image/png;base64,{data}"></figure>')
        self.parts.append("</div>")

    def html(self, title):
        "The whole page."
        return PAGE.format(title=escape(title), style=STYLE, contents="".join(self.heads), main="".join(self.parts))
