"""What a translation changed, on a study's page: source, film and difference on one scale in every study, the mean
difference of all, and whom it turns into positives. No torch."""
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from ..arms import PARTS
from ..cohort.generated import AT
from ..core.csvs import read_csv
from ..core.style import show_film, STYLE
from ..stats.changed import change_sentences, lines_of_change
from .html import Page
from .notes import listed

__all__ = ["changed_section", "films_words", "plot_changed", "plot_mean_change"]

SCALE = 64 # gray levels of 255 at which a difference has its full colour: the same in each figure and study
ENDS = dict(low="value_low", high="value_high") # which stand with a value as one text

def _difference(ax, pixels):
    ax.axis("off")
    return ax.imshow(pixels, cmap="RdBu_r", vmin=-SCALE, vmax=SCALE)

def _bar(fig, drawn, axs): fig.colorbar(drawn, ax=axs, extend="both", shrink=.8, label="gray levels of 255")

@mpl.rc_context(STYLE)
def plot_changed(
    file:str|Path, # changed.npz
):                 # a matplotlib figure; None where no source is known
    "Source, translation and their difference: of the film that is least like its source, the middle, the most."
    with np.load(file) as z: films, correlation = z["films"], z["correlation"]
    if not len(films): return
    fig = Figure(figsize=(4.4, 1.4*len(films)), layout="constrained")
    axs = fig.subplots(len(films), 3, squeeze=False)
    for row, (source, film), r in zip(axs, films, correlation):
        show_film(row[0], source)
        show_film(row[1], film)
        drawn = _difference(row[2], film.astype(float) - source)
        row[2].set_title(f"r {r:.3f}", fontsize="medium")
    for ax, title in zip(axs[0], ("source", "translation")): ax.set_title(title, fontsize="medium")
    _bar(fig, drawn, axs)
    return fig

@mpl.rc_context(STYLE)
def plot_mean_change(
    file:str|Path, # changed.npz
):                 # a matplotlib figure; None where no source is known
    "The mean difference of all films to their sources, and how like these they are."
    with np.load(file) as z: mean, every = z["mean"], z["every"]
    if not len(every): return
    fig = Figure(figsize=(4.4, 2.1), layout="constrained")
    left, right = fig.subplots(1, 2)
    _bar(fig, _difference(left, mean), left)
    left.set_title(f"mean of {len(every):,} films", fontsize="medium")
    right.hist(every[~np.isnan(every)], bins=20, color="0.5")
    right.set(xlabel="correlation with the source", ylabel="films")
    return fig

def _place(study, of): return study.folder/"films"/of.removeprefix(AT) if of.startswith(AT) else study.out/of

def _figures(study, names):
    "Of each generator, and each part of its change, those of the first folder of films."
    first = {}
    for of in names: first.setdefault((of.split("/")[0], next((o for o in PARTS if of.endswith(o)), "")), of)
    for of in first.values():
        if not (file := _place(study, of)/"changed.npz").exists(): continue
        if not (fig := plot_changed(file)): continue # no source is known
        with np.load(file) as z: names = listed(z["names"])
        yield f"changed-{of}", fig, (f"Source, translation and their difference, red where it is brighter: the film of "
                                     f"{of} that is least like its source, one in the middle, the one that is most "
                                     f"({names}); r: their correlation.")
        yield f"changed-mean-{of}", plot_mean_change(file), (
            f"The mean difference of all films of {of} to their sources, on the same scale, and the correlation of "
            "each with its own.")

def films_words(
    folder:Path, # of a study
) -> list:       # sentences; none without judged films
    "How many films of each folder are called positive, before translation and after it."
    if not (file := folder/"quality.csv").exists(): return []
    return [f"{of}: {o}" for of, own in read_csv(file).groupby("of", sort=False) for o in change_sentences(own)]

def changed_section(
    study:object, # its files, as `report` reads them
    page:Page,    # to which it is written
):
    "Sentences, the figures that tell it, and what each figure of the quality table means; none without judged films."
    if not (study.folder/"quality.csv").exists(): return
    table = read_csv(study.folder/"quality.csv")
    page.section("What the translation changed")
    for o in films_words(study.folder): page.text(o)
    page.figures(_figures(study, list(table["of"].unique())))
    theirs = table["of"].str.startswith(AT)
    shown = table[theirs | lines_of_change(table)].drop(columns="meaning").rename(columns=ENDS)
    page.table(shown, "What was changed, and of other generators' films all that was judged; floor: real valid films",
               "of", main=("figure", "value", "floor", "n", "features"))
    meanings = table[["figure", "meaning"]].dropna().drop_duplicates("figure")
    page.table(meanings, "What each figure of synthetic films means", by=None, kind="words")
