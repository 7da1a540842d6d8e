"""Rows from elsewhere on a page: figures inside and outside, sites, and probabilities by class and site. No torch."""
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from ..core.files import atomic
from ..core.style import STYLE
from .html import Page

__all__ = ["outside_page", "plot_histogram"]

ENDS = dict(low="value_low", high="value_high") # which stand with a value as one text

@mpl.rc_context(STYLE)
def plot_histogram(
    table:pd.DataFrame, # of `histogram`
    threshold:float,    # the carried one
    classes:tuple,      # (negative, positive)
):                      # the figure
    "Films over their probability, by class, a row a site; the threshold is a line."
    sites = list(table["site"].unique())
    fig = Figure(figsize=(4.6, .6 + 1.2*len(sites)), layout="constrained")
    axes = fig.subplots(len(sites), 1, sharex=True, squeeze=False)[:, 0]
    for ax, site in zip(axes, sites):
        for k, name in enumerate(classes):
            own = table[(table["site"] == site) & (table["label"] == k)]
            ax.stairs(own["films"], [*own["low"], own["high"].iloc[-1]], fill=True, alpha=.5, color=f"C{k}", label=name)
        ax.axvline(threshold, color="0.3", lw=.8)
        ax.set(ylabel="films", title=f"{site}" if len(sites) > 1 else "")
    axes[-1].set(xlim=(0, 1), xlabel=f"probability of {classes[1]}")
    axes[0].legend()
    return fig

def outside_page(
    found:object, # a `Validation`
    out:Path,     # its folder
) -> Path:        # validation.html in it
    "Write the page of a validation, and its figure under figures/."
    page = Page(out/"figures", [])
    page.section("What is wrong")
    for o in found.findings: page.text(o, "verdict")
    at = found.figures.set_index("figure")["value"]["threshold"]
    page.section("Figures").text(
        f"At the threshold of {at:.3g}, with which the bundle came. 'refitted' is by a threshold that is fitted on "
        "these very rows for the same specificity, and flatters; 'inside' is what its own test rows gave, where that "
        "is told.")
    shown = found.figures.dropna(axis=1, how="all").rename(columns=ENDS)
    page.table(shown, "[95% interval of these patients, for this model]", by=None)
    if found.sites is not None:
        page.section("Sites").table(found.sites.rename(columns=ENDS),
            "Each site by itself [95% interval of its patients], and the random-effects mean of them (DerSimonian and "
            "Laird); tau: spread between sites in log odds; p differ: Cochran's Q", by="figure")
    page.section("Probabilities").figures([("histogram", plot_histogram(found.histogram, at, found.classes),
        "Films over their probability, by class; the line is the threshold.")])
    file = out/"validation.html"
    with atomic(file) as tmp: tmp.write_text(page.html(f"Validation: {out.name}"), encoding="utf-8")
    return file
