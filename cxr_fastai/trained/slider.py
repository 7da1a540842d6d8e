"""A slider over thresholds, for a notebook: what each costs on valid rows, never on those of the test."""
from html import escape

import numpy as np
import pandas as pd

from ..core.extras import need
from ..models.learner import RadiographLearner
from ..stats.formats import number
from ..stats.scoring import called
from .chosen import _said, _valid_rows

__all__ = ["costs_at", "threshold_slider"]

def costs_at(
    label:np.ndarray, # 0/1, `[n]`
    prob:np.ndarray,  # probability of the positive class, `[n]`
    threshold:float,  # above it is called positive
) -> dict:            # tp, fn, fp, tn; and name -> how many, of how many
    "Counts at a threshold, and the rates that they make."
    ill, hit = np.asarray(label, bool), called(prob, threshold)
    tp, fn, fp, tn = (int(o.sum()) for o in (ill & hit, ill & ~hit, ~ill & hit, ~ill & ~hit))
    rates = dict(sensitivity=(tp, tp + fn), specificity=(tn, tn + fp), PPV=(tp, tp + fp))
    return dict(tp=tp, fn=fn, fp=fp, tn=tn) | rates

def _rate(k, n): return f"{number(k/n, 3) if n else '-'} ({k:,} of {n:,})"

def _html(costs, vocab, about):
    neg, pos = map(escape, vocab)
    rates = "; ".join(f"{o} <b>{_rate(*costs[o])}</b>" for o in ("sensitivity", "specificity", "PPV"))
    lines = ((pos, "tp", "fn"), (neg, "fp", "tn"))
    body = "".join(f"<tr><th>{name}</th><td>{costs[a]:,}</td><td>{costs[b]:,}</td></tr>" for name, a, b in lines)
    return (f"<p>{rates}</p><table><tr><th></th><th>called {pos}</th><th>called {neg}</th></tr>{body}</table>"
            f"<p>{escape(about)}</p>")

def threshold_slider(
    learn:RadiographLearner, # a classifier
    valid:pd.DataFrame=None, # labelled rows to look at; None: the learner's own valid rows
):                           # a widget; its first child is the slider
    """A slider, and what its threshold costs: sensitivity, specificity, PPV and counts. Nothing is changed by it:
    `save_bundle(learn, path, threshold=...)` keeps one. LeakError for rows of train or test; ImportError without
    ipywidgets."""
    widgets = need("ipywidgets", extra="notebooks", what="A slider")
    label, prob = _said(learn, rows := _valid_rows(learn, valid))
    about = f"On {len(rows):,} valid films, on which a threshold may be chosen; the test is for the one that was."
    slider = widgets.FloatSlider(value=learn.threshold, min=0, max=1, step=.001, readout_format=".3f",
                                 description="threshold", layout=widgets.Layout(width="30rem"))
    shown = widgets.HTML()
    def draw(_): shown.value = _html(costs_at(label, prob, slider.value), learn.dls.vocab, about)
    slider.observe(draw, "value")
    draw(None)
    return widgets.VBox([slider, shown])
