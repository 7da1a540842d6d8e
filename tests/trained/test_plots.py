import matplotlib.pyplot as plt, numpy as np, pytest, torch
from PIL import Image
from sklearn.metrics import confusion_matrix, f1_score, precision_score, recall_score
from fastai.vision.all import ClassificationInterpretation
from cxr_fastai.data.loaders import RadiographDataLoaders
from cxr_fastai.report.figures import plot_confusion, plot_pr, plot_roc
from cxr_fastai.cohort.leaks import LeakError
from cxr_fastai.models.learner import fusion_learner, image_learner, metadata_learner
from cxr_fastai.models.predictions import predictions_of
from cxr_fastai.trained.plots import border_heat, border_ring, plot_thresholds, plot_top_losses
from conftest import SIDE

@pytest.fixture(scope="module", params=["both", "image", "metadata"])
def learn(request, rows, tmp_path_factory):
    use = request.param
    dls = RadiographDataLoaders.from_df(rows, tmp_path_factory.mktemp("learner"), size=SIDE, bs=8, use=use)
    if use == "metadata": return metadata_learner(dls)
    return (image_learner if use == "image" else fusion_learner)(dls, "test_resnet", weights="none", precision="fp32")

@pytest.fixture
def test(rows): return rows[rows["split"] == "test"]

def said(learn, test):
    with learn.no_bar(): return learn.get_preds(dl=learn.dls.test_dl(test))[0][:, 1].numpy()

def test_predictions_are_the_learners(learn, test):
    table = predictions_of(learn, test)
    assert np.array_equal(table["probability"], said(learn, test))
    assert (table["label"].to_numpy() == test["label"].cat.codes).all()
    assert table["image"].tolist() == test["image"].tolist()

def test_the_figures_of_a_study_are_those_of_a_learner(learn, test):
    table = predictions_of(learn, test)
    shown = {o.get_text().split("\n")[0] for ax in plot_confusion(table).axes for o in ax.texts}
    want = confusion_matrix(table["label"], table["probability"] > .5, labels=[0, 1])
    assert shown == set(map(str, want.ravel()))
    assert plot_roc(table).axes and plot_pr(table).axes
    at = float(table["probability"].iloc[2])
    want = confusion_matrix(table["label"], table["probability"].astype(float) > at, labels=[0, 1])
    shown = {o.get_text().split("\n")[0] for ax in plot_confusion(table.assign(threshold=at)).axes for o in ax.texts}
    assert shown == set(map(str, want.ravel())) and set(table["threshold"]) == {.5}
    with pytest.raises(ValueError, match="thresholds 0.1, 0.2"):
        plot_confusion(table.assign(threshold=[.1] + [.2]*(len(table) - 1)))

def test_synthetic_rows_are_not_scored(learn, test):
    with pytest.raises(LeakError): predictions_of(learn, test.assign(synthetic=True))

@pytest.fixture
def scored():
    rng = np.random.default_rng(0)
    label = (rng.random(120) < .3).astype(int)
    return label, (rng.normal(size=120) + 1.5*label - 1).clip(-4, 4) / 8 + .5

def test_thresholds_show_the_rates_above_each(scored):
    ax = plot_thresholds(*scored, threshold=.3).axes[0]
    lines = {o.get_label(): o for o in ax.lines}
    label, prob = scored
    rates = dict(recall=recall_score, specificity=lambda y, p: recall_score(y, p, pos_label=0),
                 precision=precision_score, F1=f1_score)
    for name, rate in rates.items():
        for x, y in zip(*lines[name].get_data()):
            if (prob > x).any(): assert y == pytest.approx(rate(label, prob > x)), (name, x)
    recall, specificity = (rates[o](label, prob > .3) for o in ("recall", "specificity"))
    assert f"0.3: recall {recall:.2f}, specificity {specificity:.2f}" in lines
    assert any(o.startswith("0.5: ") for o in lines)

def test_bands_hold_their_line_and_grow_where_patients_have_several_rows(scored):
    def band(fig): return fig.axes[0].collections[0].get_paths()[0].get_extents()
    label, prob = (np.repeat(o, 4) for o in scored)
    own, shared = (plot_thresholds(label, prob, o) for o in (None, np.repeat(range(120), 4)))
    def width(fig):
        v = fig.axes[0].collections[0].get_paths()[0].vertices
        at = v[np.isclose(v[:, 0], .5)][:, 1]
        return np.ptp(at)
    assert width(shared) > 1.5 * width(own) > 0
    line = own.axes[0].lines[0].get_ydata()[50]
    assert band(own).y0 <= line <= band(own).y1

def test_top_losses_are_the_worst_first_with_film_and_words(learn, test):
    prob, label = said(learn, test), test["label"].cat.codes.to_numpy()
    loss = -np.log(np.where(label, prob, 1 - prob))
    axs = [ax for ax in plot_top_losses(learn, test, n=4).axes if ax.images]
    assert len(axs) == 4
    for ax, i in zip(axs, np.argsort(-loss, kind="stable")):
        row, title = test.iloc[i], ax.get_title()
        assert title.startswith(f"{row['label']}: {prob[i]:.2f}, loss {loss[i]:.2f}")
        assert (f"{row['sex']}, {row['view']}" in title) == (learn.dls.use != "image")
        shown = np.asarray(Image.open(row["file"]).resize((256, 256), Image.Resampling.LANCZOS)) / 255
        np.testing.assert_allclose(ax.images[0].get_array(), shown, atol=.02)

def test_top_losses_of_rows_without_films(learn, test):
    if learn.dls.use != "metadata": return
    fig = plot_top_losses(learn, test.drop(columns=["file", "image"]), 2)
    assert [bool(ax.images) for ax in fig.axes] == [False]*3 and fig.axes[1].get_title()

def test_fastais_interpretation_works(learn, test, capsys):
    said = ClassificationInterpretation.from_learner(learn, dl=learn.dls.test_dl(test, with_labels=True))
    table = predictions_of(learn, test)
    want = confusion_matrix(table["label"], table["probability"] > .5, labels=[0, 1])
    assert np.array_equal(said.confusion_matrix(), want)
    said.plot_confusion_matrix()
    assert [o.get_text() for o in plt.gca().get_xticklabels()] == ["Normal", "Pneumonia"]
    plt.close("all")
    said.plot_top_losses(3)
    if learn.dls.use == "metadata": assert capsys.readouterr().out # a table
    else: assert len([o for o in plt.gcf().axes if o.images]) == 3
    said.print_classification_report()
    assert "Pneumonia" in capsys.readouterr().out

def test_no_figure_stays_open(learn, test, scored):
    plt.close("all")
    plot_thresholds(*scored), plot_top_losses(learn, test, 2)
    assert not plt.get_fignums()

def test_the_ring_is_the_outer_tenth_and_holds_its_share():
    ring = border_ring(100)
    assert ring.mean() == pytest.approx(1 - .8**2) and ring[9].all() and not ring[10:90, 10:90].any()
    heat = torch.zeros(4, 1, 20, 20)
    heat[0] += 3                      # even
    heat[1, 0, 10, 10] = -1           # in the middle
    heat[2, 0, 0, 0], heat[2, 0, 10, 10] = 1, -1 # half in a corner, against one another
    inside = border_heat(heat, 100)
    assert inside[0] == pytest.approx(.36) and inside[1] == 0 and .3 < inside[2] < .7 and np.isnan(inside[3])
