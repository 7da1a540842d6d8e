import matplotlib.pyplot as plt
import pandas as pd
from cxr_fastai.gan.quality import memorisation
from cxr_fastai.report.films import plot_memorised
from conftest import LOOK

def test_the_pairs_are_drawn_with_their_distances(rows):
    table = memorisation(rows, rows, **LOOK)
    fig = plot_memorised(table, n=3)
    assert len(fig.axes) == 6 and "features 0.00" in fig.axes[0].get_title()
    assert f"{table['real_features'][0]:.2f} (features: look)" in fig.get_supxlabel()
    plt.close(fig)

def test_the_pairs_are_drawn_from_a_saved_table(rows, tmp_path):
    memorisation(rows, rows, **LOOK).to_csv(tmp_path/"memorised.csv", index=False)
    fig = plot_memorised(pd.read_csv(tmp_path/"memorised.csv"), n=2)
    assert len(fig.axes) == 4
    plt.close(fig)
