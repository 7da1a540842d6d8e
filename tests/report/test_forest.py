import pytest
from cxr_fastai.report.forest import plot_folds
from cxr_fastai.stats.compare import compare_arms
from conftest import folded_predictions

ARMS = "real-meta", "real-synth-meta"

def test_the_forest_has_every_fold_and_the_comparisons_interval():
    table = folded_predictions(k=4)
    ax, found = plot_folds(table, *ARMS).axes[0], compare_arms(table, [ARMS]).iloc[0]
    names = [o.get_text() for o in ax.get_yticklabels()]
    assert names[:5] == [*(f"fold {i}" for i in range(4)), "all folds, corrected t"]
    marks = {float(y): float(o.get_xdata()[0]) for o in ax.lines for y in o.get_ydata()[:1] if o.get_marker() == "D"}
    assert marks == pytest.approx({4: found["rocauc"], 5: found["pooled_rocauc"]})
    (low, _), (high, _) = ax.collections[0].get_segments()[0]
    assert (low, high) == pytest.approx((found["rocauc_low"], found["rocauc_high"]))

def test_arms_without_a_common_seed_have_none():
    table = folded_predictions()
    apart = table[(table["arm"] == ARMS[0]) == (table["seed"] == 0)]
    with pytest.raises(ValueError, match="no seed in common"): plot_folds(apart, *ARMS)
