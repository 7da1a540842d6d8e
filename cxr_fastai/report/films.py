"""Figures of films: real beside synthetic, as the paper's Fig. 2, and syntheses beside their nearest training film."""
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from ..cohort.radiograph import read_radiograph
from ..cohort.rows import classes, is_synthetic, read_rows
from ..cohort.synthetic import read_manifest
from ..core.csvs import read_csv
from ..core.style import save_figure, show_film
from .changed import plot_changed, plot_mean_change

__all__ = ["plot_memorised", "plot_gan", "plot_synthetic"]

def plot_memorised(
    table:pd.DataFrame, # of `memorisation`
    n:int=6,            # pairs
):                      # a matplotlib figure
    "The synthetic images that are nearest to a training image, above that image, with both distances."
    some = table.nsmallest(n, "distance_features")
    fig, axs = plt.subplots(2, len(some), figsize=(2*len(some), 5), layout="constrained", squeeze=False)
    for (above, below), o in zip(axs.T, some.itertuples()):
        far = f"features {o.distance_features:.2f}\npixels {o.distance_pixels:.2f}"
        show_film(above, read_radiograph(o.file, 128), far)
        show_film(below, read_radiograph(o.nearest_file_features, 128))
    fig.supxlabel(f"Above: synthetic. Below: the nearest training image. Two real patients are at least "
                  f"{table['real_features'].iloc[0]:.2f} (features: {table['features'].iloc[0]}) and "
                  f"{table['real_pixels'].iloc[0]:.2f} (pixels) apart.", fontsize="small")
    return fig

def _save_changed(file):
    for name, draw in dict(changed=plot_changed, changed_mean=plot_mean_change).items():
        if fig := draw(file): save_figure(fig, file.with_name(f"{name}.png"), dpi=120) # None: no source is known

def plot_gan(
    folder:str|Path, # a run folder of `run_gan`
):
    """Write `fig2.png` (real and synthetic of each class); beside each synthesis the nearest training images, and what
    was changed."""
    folder, made = Path(folder), {}
    for o in sorted(folder.glob("*/quality.csv")):
        made[o.parent.name[:3]] = read_manifest(o.parent)
        save_figure(plot_memorised(read_csv(o.parent/"memorised.csv")), o.parent/"memorised.png", dpi=120)
        if (file := o.parent/"changed.npz").exists(): _save_changed(file) # an older version didn't write it
    if not made: return
    fig = plot_synthetic(read_rows(folder/"rows.csv"), made["a2b"], made.get("b2a"), n=4)
    save_figure(fig, folder/"fig2.png", dpi=120)

def plot_synthetic(
    rows:pd.DataFrame,          # with real training rows
    synth_ab:pd.DataFrame,      # synthetic minority rows
    synth_ba:pd.DataFrame=None, # synthetic majority rows; None: no such panel
    n:int=1,                    # rows of panels
    seed:int=0,                 # which are shown
):                              # a matplotlib figure
    """The paper's Fig. 2: a real image of each class and a synthetic one. Real images stand beside their own
    translation where there is one; the caption says which file was made from which."""
    rng, (neg, pos), size = np.random.default_rng(seed), classes(rows), int(synth_ab["size"].iloc[0])
    some = lambda o: o.iloc[rng.permutation(len(o))[:n]]
    ab, ba = some(synth_ab), None if synth_ba is None else some(synth_ba)
    train = rows[(rows["split"] == "train") & ~is_synthetic(rows) & (rows["label"] == pos)]
    panels = {f"real {neg}": ab["source_file"]}
    if ba is None: panels |= {f"real {pos}": some(train)["file"]}
    else: panels |= {f"real {pos}": ba["source_file"], f"synthetic {neg}": ba["file"]}
    panels |= {f"synthetic {pos}": ab["file"]}
    fig, axs = plt.subplots(n, len(panels), figsize=(3*len(panels), 3*n + .6), squeeze=False, layout="constrained")
    for column, (title, files) in zip(axs.T, panels.items()):
        for ax in column: ax.axis("off")
        for ax, file in zip(column, files): show_film(ax, read_radiograph(file, size))
        column[0].set_title(title)
    shown = ab if ba is None else pd.concat([ba, ab])
    fig.supxlabel("\n".join(map(_origin, shown.itertuples())), fontsize="small")
    return fig

def _origin(synth):
    "What a synthetic film was made from."
    moved = ", a little moved" if synth.zoom != 1 else ""
    return f"synthetic {synth.label} {synth.image}: made from {synth.source_image}{moved}"
