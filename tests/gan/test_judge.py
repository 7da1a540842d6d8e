import numpy as np, pytest
from cxr_fastai.core.csvs import read_csv
from cxr_fastai.gan.judge import figure_meanings, judge_films, judged_rows
from cxr_fastai.gan.quality import MEANINGS
from cxr_fastai.gan.synthesis import synthesise
from planted import Darkens, planted_rows, SIDE

@pytest.fixture(scope="module")
def judged(tmp_path_factory):
    root = tmp_path_factory.mktemp("judged")
    (root/"films").mkdir()
    rows = planted_rows(root/"films", "tone", 80)
    synth = synthesise(Darkens(), rows, 20, out=root/"made")
    return rows, synth, root/"made", judge_films(rows, synth, root/"made", SIDE, weights="none")

def test_the_table_has_every_figure_and_a_line_of_what_it_means(judged):
    _, _, folder, table = judged
    assert len(table) == 15 and table.meaning.str.len().gt(20).all() and table.figure.is_unique
    assert len(figure_meanings(table)) == 15 and figure_meanings(table)[0].startswith("Fréchet distance: difference")
    assert {"FID", "KID", "Inception Score"} == {*MEANINGS} - {*table.figure} # of one network alone
    assert read_csv(folder/"quality.csv").figure.tolist() == table.figure.tolist() and (folder/"memorised.csv").exists()

def test_what_was_changed_is_kept(judged):
    with np.load(judged[2]/"changed.npz") as z:
        assert len(z["every"]) == 20 and z["mean"].min() < -30 and z["films"].shape == (3, 2, SIDE, SIDE)

def test_films_of_unknown_sources_are_judged(judged, tmp_path):
    rows, synth, _, _ = judged
    synth = synth.assign(source_image=np.nan, patient_id=[f"@x {i}" for i in range(20)])
    table = judge_films(rows, synth, tmp_path, SIDE, weights="none").set_index("figure")
    own = table.index.str.contains("its source|before translation|with the source|that is tone")
    assert own.sum() == 5 and table.value[own].isna().all() and table.value[~own].notna().all()
    with np.load(tmp_path/"changed.npz") as z: assert len(z["films"]) == len(z["every"]) == 0

def test_too_few_are_not_judged(judged, tmp_path):
    rows, synth, _, _ = judged
    assert judged_rows(rows, synth[:7]) is None and judge_films(rows, synth[:7], tmp_path, SIDE) is None
    assert not [*tmp_path.iterdir()] and set(judged_rows(rows, synth).split) == {"valid"}
