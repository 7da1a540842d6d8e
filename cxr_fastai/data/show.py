"""The radiograph tensor, and pictures of batches, results and top losses, titled with label and metadata in words."""
import matplotlib.pyplot as plt
import pandas as pd
from fastai.data.core import show_batch
from fastai.interpret import plot_top_losses
from fastai.learner import show_results
from fastai.torch_core import display_df, TensorImageBW
from fastai.vision.data import get_grid
from fastcore.imports import IN_NOTEBOOK

from ..core.files import say
from ..core.style import show_film

__all__ = ["TensorRadiograph", "RadiographInput", "show_batch", "show_results", "plot_top_losses", "show_columns"]

class TensorRadiograph(TensorImageBW):
    "Gray radiographs: uint8 0..255 as read, float 0..1 in a batch; `[1, h, w]` or `[n, 1, h, w]`."
    def show(self, ctx=None, figsize=(5, 5), **kwargs):
        "Draw it on the axes `ctx`, or on new ones, which are given back."
        ax = ctx or plt.subplots(figsize=figsize)[1]
        show_film(ax, self.detach().cpu().numpy()[0], **kwargs)
        return ax

class RadiographInput(tuple):
    "The inputs of a decoded batch: the type by which fastai finds the three functions below."

def _table(samples, heads):
    "Outside of a notebook `display_df` prints html's name, where IPython is installed."
    table = pd.DataFrame([[str(o) for o in s] for s in samples], columns=heads)
    (display_df if IN_NOTEBOOK else say)(table)

def _grid(samples, ctxs, max_n, nrows, ncols, figsize):
    n = min(len(samples), max_n)
    return ctxs or get_grid(n, nrows=nrows, ncols=ncols, figsize=figsize)

def _draw(ax, image, lines, color="black", **kwargs):
    image.show(ctx=ax, **kwargs)
    ax.set_title("\n".join(str(o) for o in lines), fontsize="small", color=color)
    return ax

@show_batch.dispatch
def show_batch(x:RadiographInput, y, samples, ctxs=None, max_n=9, nrows=None, ncols=None, figsize=None, **kwargs):
    if not isinstance(samples[0][0], TensorRadiograph):
        return _table(samples[:max_n], ["metadata", "label"][:len(samples[0])])
    axs = _grid(samples, ctxs, max_n, nrows, ncols, figsize)
    return [_draw(ax, image, reversed(rest), **kwargs) for ax, (image, *rest) in zip(axs, samples)]

@show_results.dispatch
def show_results(x:RadiographInput, y, samples, outs, ctxs=None, max_n=9, nrows=None, ncols=None, figsize=None,
                 **kwargs):
    if not isinstance(samples[0][0], TensorRadiograph):
        return _table([(*s, o[0]) for s, o in zip(samples, outs)][:max_n], ["metadata", "label", "predicted"])
    axs = _grid(samples, ctxs, max_n, nrows, ncols, figsize)
    return [_draw(ax, image, [f"{label} / {out[0]}", *words], "green" if str(label) == str(out[0]) else "red")
            for ax, (image, *words, label), out in zip(axs, samples, outs)]

@plot_top_losses.dispatch
def plot_top_losses(x:RadiographInput, y, samples, outs, raws, losses, nrows=None, ncols=None, figsize=None, **kwargs):
    texts = [f"{out[0]} / {sample[-1]} / {float(loss):.2f} / {float(raw.max()):.2f}"
             for sample, out, raw, loss in zip(samples, outs, raws, losses)]
    head = "prediction / actual / loss / probability"
    if not isinstance(samples[0][0], TensorRadiograph):
        return _table(list(zip(samples.itemgot(0), texts)), ["metadata", head])
    axs = get_grid(len(samples), nrows=nrows, ncols=ncols, figsize=figsize, title=head)
    return [_draw(ax, image, [text, *words]) for ax, (image, *words, _), text in zip(axs, samples, texts)]

def show_columns(
    columns:dict,    # title -> images, `[n, 1, h, w]` in 0..1 or uint8; as many in each
    figsize=None,    # inches
):                   # the figure
    "Images side by side under their titles, a row a sample."
    n = max(map(len, columns.values()))
    figsize = figsize or (2*len(columns), 2*n)
    fig, axs = plt.subplots(n, len(columns), figsize=figsize, layout="constrained", squeeze=False)
    for ax, (title, images) in zip(axs.T, columns.items()):
        for cell, image in zip(ax, images): TensorRadiograph(image).show(ctx=cell)
        ax[0].set_title(title, fontsize="medium")
    for cell in axs.flat: cell.axis("off")
    return fig
