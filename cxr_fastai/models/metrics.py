"""The metrics of `stats.scoring`, as fastai metrics by their names: `metrics=[accuracy, precision, recall, rocauc]`.

All but fastai's own `accuracy` are classes, of which fastai makes an instance a learner, so that two learners never
share counts. A tie is negative for all of them, as for fastai's argmax (bf16 logits tie often)."""
from functools import cache

import torch
import torch.nn.functional as F
from fastai.learner import Metric
from fastai.metrics import accuracy

from ..stats.scoring import METRICS, PAPER_METRICS

__all__ = ["paper_metrics", "all_metrics"] + [o for o in METRICS if o != "accuracy"]

class EpochMetric(Metric):
    "A metric of a whole epoch: keeps each batch's positive-class probability and label, and scores them together."
    def reset(self): self.prob, self.label = [], []
    def accumulate(self, learn):
        self.prob.append(learn.to_detach(F.softmax(learn.pred.float(), -1)[:, 1]))
        self.label.append(learn.to_detach(learn.y))
    @property
    def value(self):
        if not self.label: return # unlabelled rows
        return METRICS[self.name](torch.cat(self.label).numpy(), torch.cat(self.prob).numpy())
    @property
    def name(self): return type(self).__name__

@cache # one class a name, which a pickle finds again
def __getattr__(name):
    "The metric `name` of `METRICS`: whatever is there can be imported from here."
    if name not in METRICS: raise AttributeError(f"{__name__} has no metric {name!r}: there are {', '.join(METRICS)}.")
    return type(name, (EpochMetric,), dict(__doc__=METRICS[name].about, __module__=__name__))

globals().update({o: __getattr__(o) for o in METRICS if o != "accuracy"}) # where help and editors look for them
paper_metrics = [accuracy, *(__getattr__(o) for o in PAPER_METRICS if o != "accuracy")]
all_metrics = paper_metrics + [__getattr__(o) for o in METRICS if o not in PAPER_METRICS]
