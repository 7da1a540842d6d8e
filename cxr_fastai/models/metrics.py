"""The metrics of `tables`, as fastai metrics under the paper's names: `metrics=[accuracy, precision, recall, rocauc]`.

All but fastai's own `accuracy` are classes, of which fastai makes an instance a learner, so that two learners never
share counts. A tie is negative for all of them, as for fastai's argmax (bf16 logits tie often)."""
import torch
import torch.nn.functional as F
from fastai.learner import Metric
from fastai.metrics import accuracy

from ..stats.scoring import METRICS

__all__ = ["precision", "recall", "rocauc", "specificity", "pr_auc", "balanced_accuracy", "f1", "brier",
           "paper_metrics", "all_metrics"]

class EpochMetric(Metric):
    "A metric of a whole epoch: keeps each batch's positive-class probability and label, and scores them together."
    def reset(self): self.prob, self.label = [], []
    def accumulate(self, learn):
        self.prob.append(learn.to_detach(F.softmax(learn.pred.float(), -1)[:, 1]))
        self.label.append(learn.to_detach(learn.y))
    @property
    def value(self):
        if not self.label: return # unlabelled rows
        return float(METRICS[self.name](torch.cat(self.label).numpy(), torch.cat(self.prob).numpy()))
    @property
    def name(self): return type(self).__name__

class precision(EpochMetric):         "TP/(TP+FP) at .5; nan where nothing is called positive."
class recall(EpochMetric):            "TP/(TP+FN) at .5 (paper eq. 3), also called sensitivity; nan without positives."
class rocauc(EpochMetric):            "Area under the ROC curve; nan where only one class is present."
class specificity(EpochMetric):       "TN/(TN+FP) at .5."
class pr_auc(EpochMetric):            "Average precision; nan where only one class is present."
class balanced_accuracy(EpochMetric): "Mean of recall and specificity at .5."
class f1(EpochMetric):                "2TP/(2TP+FP+FN) at .5: 0 where nothing is called positive, nan where nothing is."
class brier(EpochMetric):             "Mean squared error of the positive class's probability; 0 is best."

paper_metrics = [accuracy, precision, recall, rocauc]
all_metrics = paper_metrics + [specificity, pr_auc, balanced_accuracy, f1, brier]
