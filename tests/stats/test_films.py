import numpy as np, pandas as pd, pytest
from cxr_fastai.core.csvs import write_csv
from cxr_fastai.stats.films import quality_words

def table(low, name="Fréchet distance"):
    far = dict(figure=name, value=747.54, low=low, high=981.06, floor=3.952, floor_low=2.138, floor_high=697.82)
    return pd.DataFrame([far, dict(figure="told apart (AUC)", value=.9726, low=.93, high=1., floor=.5,
                                   floor_low=np.nan, floor_high=np.nan)])

@pytest.mark.parametrize("low, said", [(698, ": farther than they are"),
                                       (697, ": not shown to be farther than they are")])
@pytest.mark.parametrize("name", ["FID", "Fréchet distance"])
def test_a_line_says_figure_floor_and_verdict(tmp_path, low, said, name):
    write_csv(table(low, name), tmp_path/"quality.csv")
    text = quality_words(tmp_path/"quality.csv", "Pneumonia")
    floor = "of real ones among themselves (the floor) 3.95 [2.14, 698]"
    assert f"{name} 748 [{low}, 981], {floor}{said}; told apart" in text
    assert "AUC 0.97" in text and text.endswith(f"All is in {tmp_path/'quality.csv'}") and "\n" not in text
