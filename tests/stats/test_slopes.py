import numpy as np, pytest
from sklearn.metrics import average_precision_score, brier_score_loss, recall_score, roc_auc_score
from cxr_fastai.stats.scoring import METRICS, compared_metrics
from cxr_fastai.stats.slopes import influence

SKLEARNS = dict(
    recall=lambda y, p, **kwargs: recall_score(y, p > .5, **kwargs),
    specificity=lambda y, p, **kwargs: recall_score(y, p > .5, pos_label=0, **kwargs),
    rocauc=roc_auc_score, pr_auc=average_precision_score, brier=brier_score_loss)

@pytest.mark.parametrize("decimals", [1, 6])
@pytest.mark.parametrize("name", SKLEARNS)
def test_slopes_are_the_derivatives_by_the_weights_of_rows(name, decimals):
    rng = np.random.default_rng(0)
    label, prob = rng.random(50) < .3, rng.random((2, 50)).round(decimals)
    value, slopes = METRICS[name].slopes(label, prob)
    assert slopes.shape == (2, 50) and slopes.sum(1) == pytest.approx(0, abs=1e-12)
    for seed, p in enumerate(prob):
        assert value[seed] == pytest.approx(SKLEARNS[name](label, p), abs=1e-12)
        for i in range(0, 50, 7):
            w = np.ones(50)
            w[i] += 1e-6
            moved = SKLEARNS[name](label, p, sample_weight=w)
            assert slopes[seed, i] == pytest.approx((moved - value[seed])/1e-6, abs=1e-6)

def test_these_are_all_that_arms_are_compared_by(): assert compared_metrics() == list(SKLEARNS)

def test_what_patients_add_is_the_sum_of_their_rows_slopes():
    rng, label = np.random.default_rng(0), np.array([1, 0, 1, 0, 0, 1], bool)
    prob, who = rng.random((3, 6)), np.array([0, 0, 1, 2, 2, 4])
    value, added = influence(label, prob, who, 5)
    area, slopes = METRICS["rocauc"].slopes(label, prob)
    assert (value == area).all() and added[3] == 0 and added.sum() == pytest.approx(0, abs=1e-12)
    assert added[2] == pytest.approx(slopes[:, 3:5].sum(1).mean())
