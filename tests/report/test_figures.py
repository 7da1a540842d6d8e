import matplotlib.pyplot as plt
import numpy as np, pandas as pd, pytest
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve
from cxr_fastai.stats.calibration import prior_shift
from cxr_fastai.core.style import GRID
from cxr_fastai.report.figures import (doses_of, plot_calibration, plot_confusion, plot_curves, plot_dose,
    plot_groups, plot_pr, plot_roc)
from cxr_fastai.report.figures import _pr, _roc, _smooth

ARMS = "real", "meta", "real-meta", "real-synth", "real-synth-meta"
DOSES = "real-synth-meta+1", "real-synth-meta+1/8", "real-synth-meta+1/2"

def simulate(backbones=("resnet50",), arms=ARMS, seeds=(0, 1), n=160, seed=0):
    "Predictions by hand: later arms are stronger, synthetic rows make bold; some patients have two films."
    rng, parts = np.random.default_rng(seed), []
    for side, m in ("valid", n//2), ("test", n):
        ill, hard = rng.random(m) < .3, rng.normal(size=m)
        about = pd.DataFrame(dict(side=side, image=[f"{side}{i:03}.png" for i in range(m)], label=ill.astype(int)))
        about["patient_id"] = [f"{side}{i*4//5}" for i in range(m)]
        for backbone, (k, arm), s in ((b, a, s) for b in backbones for a in enumerate(arms) for s in seeds):
            logit = (1 + .2*(k % 5))*ill + hard + .5*rng.normal(size=m) - 1.2 + .8*("synth" in arm)
            prob = 1/(1 + np.exp(-logit))
            parts.append(about.assign(backbone=backbone, arm=arm, seed=s, probability=prob, synthetic=False))
    return pd.concat(parts, ignore_index=True)

@pytest.fixture(scope="module")
def predictions(): return simulate()

@pytest.fixture(scope="module")
def rows(predictions):
    rng, images = np.random.default_rng(0), predictions["image"].unique()
    n = len(images)
    return pd.DataFrame(dict(image=images, sex=rng.choice(["F", "M"], n), age=rng.uniform(10, 90, n),
                             view=rng.choice(["AP", "PA"], n)))

@pytest.fixture(scope="module")
def cells():
    lines = [dict(arm=a, seed=s, train_prior=.5 if "synth" in a else .3, prior=.3) for a in ARMS for s in (0, 1)]
    return pd.DataFrame(lines).assign(backbone="resnet50")

def legend(fig): return [o.get_text() for o in fig.legends[0].get_texts()]

def test_of(predictions, arm="real", seed=0):
    own = predictions[(predictions["side"] == "test") & (predictions["arm"] == arm) & (predictions["seed"] == seed)]
    return own["label"].to_numpy(), own["probability"].to_numpy()
test_of.__test__ = False

def drawn(predictions, rows, cells):
    return dict(roc=plot_roc(predictions), pr=plot_pr(predictions), calibration=plot_calibration(predictions, cells),
                confusion=plot_confusion(predictions), groups=plot_groups(predictions, rows),
                dose=plot_dose(simulate(arms=("real-meta", *DOSES))),
                curves=plot_curves(pd.DataFrame(dict(train_loss=[.7, .6], valid_loss=[.7, .7], recall=[0, .4]))))

@pytest.mark.slow
def test_no_figure_stays_open_and_the_style_is_left_alone(predictions, rows, cells, tmp_path):
    before = dict(plt.rcParams)
    for name, fig in drawn(predictions, rows, cells).items():
        for suffix in "png", "svg": fig.savefig(tmp_path/f"{name}.{suffix}")
        assert plt.imread(tmp_path/f"{name}.png").std() > .01 and (tmp_path/f"{name}.svg").stat().st_size > 5000
    assert plt.get_fignums() == [] and dict(plt.rcParams) == before

def test_a_roc_curve_is_scikit_learns_and_its_area_stands_in_the_legend(predictions):
    label, prob = test_of(predictions)
    x, y, _ = roc_curve(label, prob, drop_intermediate=False)
    assert np.allclose(_roc(label, prob, np.ones((1, len(label))))[0], np.interp(GRID, x, y))
    area = np.mean([roc_auc_score(*test_of(predictions, seed=s)) for s in (0, 1)])
    assert f"Real: {area:.3f}" in legend(plot_roc(predictions)) and len(legend(plot_roc(predictions))) == len(ARMS)

def test_a_precision_curve_is_scikit_learns(predictions):
    label, prob = test_of(predictions)
    precision, recall, _ = precision_recall_curve(label, prob)
    first = [precision[recall >= o - 1e-12][-1] for o in GRID[1:]] # the highest threshold that reaches it
    assert np.allclose(_pr(label, prob, np.ones((1, len(label))))[0], first)
    area = np.mean([average_precision_score(*test_of(predictions, seed=s)) for s in (0, 1)])
    assert f"Real: {area:.3f}" in legend(plot_pr(predictions))

def test_curves_with_weights_are_those_of_repeated_rows(predictions):
    label, prob = test_of(predictions)
    prob, times = prob.round(1), np.random.default_rng(0).integers(0, 3, len(label)) # with ties
    for curve in _roc, _pr:
        again = curve(label.repeat(times), prob.repeat(times), np.ones((1, times.sum())))
        assert np.allclose(curve(label, prob, times[None].astype(np.float32)), again, atol=1e-6)

def test_a_curve_does_not_depend_on_the_order_of_tied_rows():
    label, prob, one = np.array([0, 1, 1, 0]), np.full(4, .5), np.ones((1, 4))
    assert np.allclose(_roc(label, prob, one)[0], GRID) and np.allclose(_pr(label, prob, one), .5)

def test_the_band_holds_the_line_and_narrows_with_patients():
    areas = []
    for n in 80, 1600:
        vertices = plot_roc(simulate(arms=["real"], n=n)).axes[0].collections[0].get_paths()[0].vertices
        x, y = vertices.T
        areas.append(abs(np.sum(x*np.roll(y, -1) - y*np.roll(x, -1)))/2)
    assert 0 < areas[1] < areas[0]/2

def test_synthetic_test_rows_are_not_scored(predictions):
    more = predictions[predictions["side"] == "test"].assign(
        synthetic=True, label=1, probability=.01, image=lambda o: "a2b_" + o.image)
    both = pd.concat([predictions, more])
    assert legend(plot_roc(both)) == legend(plot_roc(predictions))

def test_a_figure_of_two_backbones_is_refused():
    with pytest.raises(ValueError, match="of resnet50, vgg16: a figure is of one backbone"):
        plot_roc(simulate(("resnet50", "vgg16")))

def test_a_calibration_curve_is_statsmodels_lowess(predictions):
    from statsmodels.nonparametric.smoothers_lowess import lowess
    label, prob = test_of(predictions)
    curve, there = _smooth(label, prob, np.ones((1, len(label))))[0], (GRID > prob.min()) & (GRID < prob.max())
    assert np.isnan(curve[GRID < prob.min()]).all() and not np.isnan(curve[there][1:-1]).any()
    expected = lowess(label, prob, frac=.75, it=0, delta=0, xvals=GRID[there])
    assert curve[there][1:-1] == pytest.approx(expected.clip(0, 1)[1:-1], abs=.01)

def test_calibration_is_shown_before_and_after_the_prior_shift(predictions, cells):
    before, after = plot_calibration(predictions, cells).axes
    x = lambda ax, arm: next(o for o in ax.lines if o.get_label() == arm).get_xdata()
    y = lambda ax, arm: next(o for o in ax.lines if o.get_label() == arm).get_ydata()
    assert np.allclose(y(before, "Real"), y(after, "Real")) # nothing shifted there
    seeds = [test_of(predictions, "real-synth", s) for s in (0, 1)]
    moved = np.mean([_smooth(label, prior_shift(prob, .5, .3), np.ones((1, len(label))))[0] for label, prob in seeds],
                    0)
    assert np.allclose(y(after, "Real-Synth"), moved[~np.isnan(moved)], atol=1e-4)
    assert x(after, "Real-Synth").max() < x(before, "Real-Synth").max()

def test_calibration_of_predictions_that_are_all_alike_is_a_point(predictions, cells):
    alike = predictions.assign(probability=.3031 + predictions.index % 9 / 1e4)
    for ax in plot_calibration(alike[alike.arm == "real"], cells).axes:
        point = next(o for o in ax.lines if o.get_label() == "Real")
        assert point.get_xdata() == pytest.approx([.3035], abs=1e-4)
        assert point.get_ydata() == pytest.approx([test_of(predictions)[0].mean()])

def test_confusion_matrices_count_at_one_half(predictions):
    fig = plot_confusion(predictions, ("Normal", "Pneumonia"))
    label, _ = test_of(predictions)
    found = np.mean([((test_of(predictions, seed=s)[1] > .5) & (label == 1)).sum() for s in (0, 1)])
    ax = next(o for o in fig.axes if o.get_title() == "Real")
    assert ax.texts[3].get_text().split("\n") == [f"{found:.1f}".removesuffix(".0"), f"{found/label.sum():.0%}"]
    assert [o.get_text() for o in ax.get_xticklabels()] == ["Normal", "Pneumonia"]

def test_doses_rise_from_the_arm_without():
    assert list(doses_of(["real", "real-meta", *DOSES]).items()) == [
        ("real-meta", 0), ("real-synth-meta+1/8", 1/8), ("real-synth-meta+1/2", 1/2), ("real-synth-meta+1", 1)]
    assert doses_of(["real-meta", "real-synth-meta", "real-meta+duplicate+1/2", "real-synth-meta+donor+1/8"]) == {}
    with pytest.raises(ValueError, match="No arm is an Ensemble with a dose"): plot_dose(simulate())

def test_dose_response_has_a_line_a_backbone_at_each_dose():
    predictions = simulate(("resnet50", "vgg16"), ("real", "real-meta", *DOSES))
    fig = plot_dose(predictions)
    area, _, last = fig.axes
    assert legend(fig) == ["resnet50", "vgg16"]
    assert [o.get_text() for o in last.get_xticklabels()] == ["0", "1/8", "1/2", "1"]
    assert np.allclose(area.lines[0].get_xdata(), [0, .125, .5, 1])
    own = predictions[predictions["backbone"] == "resnet50"]
    areas = [roc_auc_score(*test_of(own, "real-meta", s)) for s in (0, 1)]
    assert area.lines[0].get_ydata()[0] == pytest.approx(np.mean(areas))

def test_a_shortcut_shows_among_the_negatives(predictions, rows):
    view = predictions["image"].map(rows.set_index("image")["view"])
    prob = predictions["probability"].mask(predictions["arm"] == "meta", (view == "AP")*.9)
    cheat = predictions.assign(probability=prob)
    fig = plot_groups(cheat, rows)
    ticks = [o.get_text().split("\n")[0] for o in fig.axes[0].get_yticklabels()]
    ages = [f"age {o}-{o + 19}" for o in range(0, 100, 20)]
    assert ticks == ["sex F", "sex M", *ages, "view AP", "view PA"]
    meta = fig.axes[0].containers[1] # negatives that Meta calls positive
    shares = dict(zip(ticks, meta.lines[0].get_xdata()))
    assert shares["view AP"] == 1 and shares["view PA"] == 0 and 0 < shares["sex F"] < 1

def test_groups_without_a_class_and_arms_without_plain_ones_are_drawn(predictions, rows):
    some = predictions[predictions["arm"] == "real"].assign(arm="real+focal")
    ill = some[(some["side"] == "test") & (some["label"] == 1)]["image"].iloc[0]
    alone = rows.assign(sex=np.where(rows["image"] == ill, "X", "F"))
    fig = plot_groups(some, alone, ["sex", "weight"])
    assert [o.get_text() for o in fig.axes[0].get_yticklabels()][1] == "sex X\n1 of 1 positive" # and no interval
    assert legend(fig) == ["Real + focal"]

def test_epochs_are_whole_numbers_and_seeds_thin_lines():
    history = pd.DataFrame(dict(train_loss=[.7, .6, .5], valid_loss=[.7, .65, .66], rocauc=[.5, .6, .7]))
    above, below = plot_curves(history, title="resnet50").axes
    assert [o.get_label() for o in above.lines] == ["train loss", "valid loss"] and below.get_ylim() == (0, 1.01)
    assert all(o == int(o) for o in below.get_xticks())
    fig = plot_curves(pd.concat([history.assign(seed=0), history.assign(seed=1) + .2]))
    assert len(fig.axes[1].lines) == 3 and np.allclose(fig.axes[1].lines[2].get_ydata(), [.6, .7, .8])

def test_a_name_may_hold_a_dollar_or_an_angle_bracket(predictions, tmp_path):
    plot_roc(predictions.assign(backbone="<b>$x_{1$")).savefig(tmp_path/"roc.svg")
