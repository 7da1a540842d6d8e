"""How figures look, in one place."""
import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from ..arms import ARMS
from .files import atomic

STYLE = {"font.size": 9, "axes.titlesize": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
         "grid.alpha": .3, "legend.frameon": False, "text.parse_math": False} # a name may hold a $
COLOURS = {name: inputs.colour for name, inputs in ARMS.items()}
MORE = "#009E73", "#CC79A7", "#5B4B9A", "#8C564B", "#17A2B8", "#9A8700", "#2F4F4F"
N, ENDS = 400, (.025, .975) # resamples behind a band, whose drawn edge needs no more, and its quantiles
GRID = np.linspace(0, 1, 101)

def save_figure(fig, file, **kwargs):
    "Write a figure, the same bits each time; a png with 256 colours is a third as large, and a page holds many."
    with atomic(file) as tmp, mpl.rc_context({"svg.hashsalt": "cxr_fastai"}):
        fig.savefig(tmp, **kwargs)
        if tmp.suffix == ".png": Image.open(tmp).convert("RGB").quantize(256).save(tmp)
    plt.close(fig)
