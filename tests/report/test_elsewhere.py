import numpy as np
from cxr_fastai.report.elsewhere import plot_histogram
from cxr_fastai.stats.outside import histogram

def test_a_histogram_has_a_row_a_site_and_every_film():
    rng = np.random.default_rng(0)
    label, prob, site = rng.integers(0, 2, 60), rng.random(60), np.array(["A", "B<b>", "é"])[np.arange(60) % 3]
    fig = plot_histogram(histogram(label, prob, site), .4, ("Normal", "Ill"))
    assert [o.get_title() for o in fig.axes] == ["A", "B<b>", "é"]
    for ax, s in zip(fig.axes, ("A", "B<b>", "é")):
        drawn = [o.get_data().values.sum() for o in ax.patches]
        assert drawn == [(label[site == s] == k).sum() for k in (0, 1)] and ax.lines[0].get_xdata()[0] == .4
    one = plot_histogram(histogram(label, prob), .4, ("Normal", "Ill"))
    assert len(one.axes) == 1 and one.axes[0].get_title() == ""
