import pickle
import numpy as np, pytest, torch, torch.nn.functional as F
from types import SimpleNamespace
from sklearn import metrics as skm
from cxr_fastai.models import metrics
from fastai.vision.all import accuracy, mk_metric, to_detach
from cxr_fastai.models.metrics import (all_metrics, brier, f1, paper_metrics, pr_auc, precision, recall, rocauc,
    specificity)
from cxr_fastai.stats.scoring import METRICS

def batch(pred, y): # what a metric reads of a learner
    return SimpleNamespace(pred=pred, y=y, yb=(y,), to_detach=to_detach)

def epoch(metric, logits, labels, bs=7):
    "The metric's value after an epoch in batches of `bs`, the last one smaller."
    metric = mk_metric(metric)
    metric.reset()
    for x, y in zip(logits.split(bs), labels.split(bs)): metric.accumulate(batch(x, y))
    return float(metric.value)

@pytest.fixture
def predictions():
    rng = torch.Generator().manual_seed(0)
    labels = (torch.rand(53, generator=rng) < .3).long()
    return torch.randn(53, 2, generator=rng) + labels[:, None] * torch.tensor([0., .8]), labels

def test_each_equals_sklearn_on_the_whole_epoch(predictions):
    logits, label = predictions
    p = F.softmax(logits, -1)[:, 1].numpy()
    y, hit = label.numpy(), p > .5
    want = dict(accuracy=skm.accuracy_score(y, hit), precision=skm.precision_score(y, hit),
                recall=skm.recall_score(y, hit), rocauc=skm.roc_auc_score(y, p), f1=skm.f1_score(y, hit),
                specificity=skm.recall_score(1 - y, ~hit), pr_auc=skm.average_precision_score(y, p),
                balanced_accuracy=skm.balanced_accuracy_score(y, hit), brier=np.mean((p - y)**2))
    assert {m.__name__ for m in all_metrics} == set(want) == set(METRICS)
    for m in all_metrics: assert epoch(m, *predictions) == pytest.approx(want[m.__name__], abs=1e-6), m.__name__

def test_no_metric_is_a_mean_of_batches(predictions):
    logits, labels = predictions
    for m in (precision, recall, rocauc, f1):
        batches = [epoch(m, x, y) for x, y in zip(logits.split(7), labels.split(7))]
        assert epoch(m, *predictions) != pytest.approx(np.nanmean(batches))
        assert epoch(m, *predictions, bs=7) == pytest.approx(epoch(m, *predictions, bs=53))

def test_names_and_order_are_the_papers():
    assert [mk_metric(m).name for m in paper_metrics] == "accuracy precision recall rocauc".split()
    assert all_metrics[:4] == paper_metrics and set(metrics.__all__) > {m.__name__ for m in all_metrics[1:]}

def test_a_tie_is_negative_for_all_as_for_fastais_argmax_so_that_the_counts_agree():
    logits, label = torch.tensor([[.5, .5], [1., 0.], [.25, .25]]), torch.tensor([0, 0, 1])
    assert [epoch(m, logits, label) for m in (accuracy, recall, specificity)] == [pytest.approx(2/3), 0, 1]

def test_undefined_is_nan_without_a_warning(recwarn):
    one_class = torch.randn(9, 2), torch.zeros(9, dtype=torch.long)
    assert np.isnan(epoch(rocauc, *one_class)) and np.isnan(epoch(pr_auc, *one_class))
    none_called = torch.tensor([[3., 0.]]).repeat(4, 1), torch.tensor([0, 1, 0, 1])
    assert (epoch(precision, *none_called), epoch(recall, *none_called),
            epoch(f1, *none_called)) == (pytest.approx(np.nan, nan_ok=True), 0, 0)
    assert not recwarn.list

def test_reset_forgets_the_epoch_before(predictions):
    m = recall()
    for _ in range(2):
        m.reset()
        m.accumulate(batch(torch.tensor([[0., 9.], [9., 0.]]), torch.tensor([1, 1])))
    assert m.value == .5 and len(m.label[0]) == 2

def test_nothing_labelled_is_no_value():
    m = rocauc()
    m.reset()
    assert m.value is None

def test_low_precision_logits_are_scored_in_full_precision(predictions):
    logits, labels = predictions
    assert epoch(brier, logits.bfloat16(), labels) == epoch(brier, logits.bfloat16().float(), labels)

def test_a_metric_that_is_registered_from_outside_is_a_fastai_metric(predictions, monkeypatch):
    monkeypatch.setitem(METRICS, "errors", METRICS["accuracy"]._replace(
        formula=lambda o: (o.fp + o.fn)/(o.tp + o.fp + o.fn + o.tn), about="The share that is wrong.", better="lower"))
    from cxr_fastai.models.metrics import errors
    assert epoch(errors, *predictions) == pytest.approx(1 - epoch(accuracy, *predictions)) and errors.__doc__
    with pytest.raises(ImportError): exec("from cxr_fastai.models.metrics import accurracy")

def test_a_pickle_finds_a_metric_again(): assert pickle.loads(pickle.dumps(mk_metric(rocauc))).name == "rocauc"
