import pytest
from cxr_fastai.report.forest import Line, panel, plot_folds
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

def test_a_panel_places_values_on_one_scale():
    lines = {"a": [Line("one", .6, .5, .7, "#0072B2"), Line("two", .8)], "": [Line("three", .9, dots=(.8, 1.))]}
    found = panel("c", lines, "arm", "AUC", marks=[.5], ends=[1])
    one, two = found["groups"][0]["rows"]
    assert (one["low"], one["high"]) == (4, pytest.approx(4 + 92*.4)) and one["words"] == "0.600 [0.500, 0.700]"
    assert two["low"] is None and two["words"] == "0.800" and two["ink"] == "currentColor"
    assert found["groups"][1]["rows"][0]["dots"] == [pytest.approx(4 + 92*.6), 96]
    assert [o["word"] for o in found["ticks"]] == ["0.6", "0.8", "1"]
    assert [o["kind"] for o in one["lines"]] == ["tick"]*3 + ["mark"] and one["lines"][-1]["at"] == 4

def test_a_panel_of_one_value_has_a_scale():
    found = panel("c", {"": [Line("one", 0., 0., 0.)]}, "arm", "difference", marks=[0], sign="+")
    row, = found["groups"][0]["rows"]
    assert row["dots"] == [50] and [o["word"] for o in found["ticks"]].count("0") == 1
