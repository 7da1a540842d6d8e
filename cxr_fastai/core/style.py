"""How figures look, in one place: their style and colours, a radiograph on its axes, a file of a figure."""
from itertools import cycle

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from ..arms import ARMS
from .files import atomic

COLOURS = {name: inputs.colour for name, inputs in ARMS.items()}
MORE = "#009E73", "#CC79A7", "#5B4B9A", "#8C564B", "#17A2B8", "#9A8700", "#2F4F4F"
PAIR = COLOURS["real"], COLOURS["real-synth-meta"] # of two things that aren't arms
STYLE = {"font.size": 9, "axes.titlesize": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
         "axes.edgecolor": ".6", "xtick.color": ".6", "ytick.color": ".6", "xtick.labelcolor": ".4",
         "ytick.labelcolor": ".4", "grid.alpha": .3, "grid.linewidth": .6, "legend.frameon": False,
         "text.parse_math": False} # a name may hold a $
N, ENDS = 400, (.025, .975) # resamples behind a band, whose drawn edge needs no more, and its quantiles
GRID = np.linspace(0, 1, 101)

def show_film(ax, film, title="", **kwargs):
    """Draw a radiograph `[h, w]`, uint8 or float 0..1. Air is black, as on film; black and white are the format's ends,
    not the image's own, where no `vmax` is given."""
    white = 1 if np.issubdtype(film.dtype, np.floating) else 255
    ax.imshow(film, **dict(cmap="gray", vmin=0, vmax=white) | kwargs)
    ax.axis("off")
    if title: ax.set_title(title, fontsize="small")

def arm_colours(
    arms:list, # names
) -> dict:     # of these and all plain ones: '#rrggbb'
    "Of the arms in figures: their own, those of others in turn."
    return dict(zip([o for o in arms if o not in COLOURS], cycle(MORE))) | COLOURS

def save_figure(fig, file, **kwargs):
    "Write a figure, the same bits each time; a png with 256 colours is a third as large. An svg's words stay text."
    with atomic(file) as tmp, mpl.rc_context({"svg.hashsalt": "cxr_fastai", "svg.fonttype": "none"}):
        fig.savefig(tmp, **kwargs)
        if tmp.suffix == ".png": Image.open(tmp).convert("RGB").quantize(256).save(tmp)
    plt.close(fig)
