"""Rows from elsewhere on a page: figures inside and outside, sites, and probabilities by class and site. No torch."""
from pathlib import Path

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from ..arms import arm_title
from ..core.csvs import read_csv
from ..core.files import atomic, few
from ..core.style import PAIR, STYLE
from ..stats.carried import carried_words
from ..stats.scoring import title_of
from ..stats.tables import span
from .html import COMPARED, Page

__all__ = ["external_sections", "external_words", "outside_page", "plot_histogram"]

SITES = ("Each site by itself [95% interval of its patients], and the random-effects mean of them (DerSimonian and "
         "Laird); tau: spread between sites in log odds; p differ: Cochran's Q")
WORDS = dict.fromkeys(("image", "patient_id", "backbone", "arm", "site"), str)
SITED = "site", "n", "positives", "value", "tau", "p_differ" # what of it fits a page
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
        for k, (name, colour) in enumerate(zip(classes, PAIR)):
            own = table[(table["site"] == site) & (table["label"] == k)]
            ax.stairs(own["films"], [*own["low"], own["high"].iloc[-1]], fill=True, alpha=.5, color=colour,
                      label=name)
        ax.axvline(threshold, color="0.3", lw=.8)
        ax.set(ylabel="films", title=f"{site}" if len(sites) > 1 else "")
    axes[-1].set(xlim=(0, 1), xlabel=f"probability of {classes[1]}")
    axes[0].legend()
    return fig

# In a study

def _externals(folder): return sorted(o.parent for o in folder.glob("external/*/inside_outside.csv"))

def _best(table, side):
    "Which backbone and arm has the largest area on a side, in words."
    own = table[table["metric"] == "rocauc"].dropna(subset=[side])
    if own.empty: return "none"
    o = own.loc[own[side].idxmax()]
    return f"{o['backbone']}, {arm_title(o['arm'])} (AUC {o[side]:.3f} {span(o[f'{side}_low'], o[f'{side}_high'])})"

def _best_of(place):
    table = read_csv(place/"inside_outside.csv", WORDS)
    return f"{place.name}, elsewhere: best inside {_best(table, 'inside')}, best there {_best(table, 'outside')}."

def external_best(
    folder:Path, # of a study
) -> list:       # sentences; none without rows from elsewhere
    "Each table from elsewhere: which model is best inside and there."
    return [*map(_best_of, _externals(folder))]

def external_words(
    folder:Path, # of a study
) -> list:       # sentences; none without rows from elsewhere
    "Each table from elsewhere: which model is best inside and there, and what is wrong, with the arms it is said of."
    said = []
    for place in _externals(folder):
        found = read_csv(place/"findings.csv", WORDS)
        said.append(_best_of(place))
        if (file := place/"shortcuts.csv").exists():
            said += [f"{place.name}: {o}" for o in carried_words(read_csv(file))]
        every = len(found[["backbone", "arm"]].drop_duplicates())
        for sentence, own in found.groupby("finding", sort=False):
            whose = [f"{b} {arm_title(a)}" for b, a in zip(own["backbone"], own["arm"])]
            said.append(f"{place.name}: {sentence}" + ("" if len(own) == every else f" ({few(whose, 4)})"))
    return said

def external_sections(
    study:object, # with `folder`
    page:Page,    # of it
):
    "A section for each table from elsewhere."
    for place in _externals(study.folder):
        table = {o.stem: read_csv(o, WORDS) for o in place.glob("*.csv")}
        page.section(f"Elsewhere: {place.name}")
        for o in external_words(study.folder):
            if o.startswith((f"{place.name},", f"{place.name}:")): page.text(o)
        inside = table["inside_outside"].assign(metric=table["inside_outside"]["metric"].map(title_of))
        page.table(inside, "The study's test rows, and these, by the same models [95% interval of "
                   "these models]; at 90: 90% specificity on the study's valid rows; refitted: 90% on these very rows, "
                   "which flatters")
        if "shortcuts" in table:
            page.table(table["shortcuts"].dropna(subset="outside"), "AUC of probes that see no disease, fitted on the "
                       "study's train rows, on its test rows and on these [95% interval of patients]", by=None)
        page.table(table["comparisons"], "Differences on these rows [95% interval of patients, and of seeds]; "
                   "exploratory", main=COMPARED)
        if "sites" in table:
            page.table(table["sites"].rename(columns=ENDS), SITES, by="arm", main=("site", "figure", *SITED[1:-1]))
        page.figures((f"external-{place.name}-{b}-{a}", plot_histogram(own, .5, _classes(study)),
                      f"Films over their probability, mean over models; {b}, {arm_title(a)}.")
                     for (b, a), own in table["histogram"].groupby(["backbone", "arm"], sort=False))

def _classes(study): return study.settings["negative"], study.settings["positive"]

# Of one bundle

def outside_page(
    found:object, # a `Validation`
    out:Path,     # its folder
) -> Path:        # validation.html in it
    "Write the page of a validation, and its figure under figures/."
    page = Page(out/"figures")
    page.section("What is wrong", fold=False)
    for o in found.findings: page.text(o)
    at = found.figures.set_index("figure")["value"]["threshold"]
    page.section("Figures", fold=False).text(
        f"At the threshold of {at:.3g}, with which the bundle came. 'refitted' is by a threshold that is fitted on "
        "these very rows for the same specificity, and flatters; 'inside' is what its own test rows gave, where that "
        "is told.")
    shown = found.figures.dropna(axis=1, how="all").rename(columns=ENDS)
    page.table(shown, "[95% interval of these patients, for this model]", by=None)
    if found.sites is not None:
        page.section("Sites", fold=False).table(found.sites.rename(columns=ENDS), SITES, by="figure", main=SITED)
    page.section("Probabilities", fold=False).figures([("histogram", plot_histogram(found.histogram, at, found.classes),
        "Films over their probability, by class; the line is the threshold.")])
    file = out/"validation.html"
    with atomic(file) as tmp: tmp.write_text(page.html(f"Validation: {out.name}"), encoding="utf-8")
    return file
