import lzma, shutil
import numpy as np, pandas as pd, pytest, torch
from PIL import Image
from cxr_fastai.cohort import folder as runs
from cxr_fastai.cohort.rows import read_rows, save_rows
from cxr_fastai.cohort.folder import data_digest, flow_table, load_cohort
from cxr_fastai.settings import settings_digest, versions
from conftest import ROOT


def test_the_flow_counts_rows_and_patients_at_each_step(capsys):
    rows = load_cohort(normals=100)
    flow = flow_table(rows).set_index("step")
    assert list(flow.index) == ["with an image", "Normal or Pneumonia", "at the first visit", "drawn for the cohort",
                                "train", "valid", "test"]
    assert (flow.rows.iloc[:4].diff().dropna() <= 0).all()
    assert flow.rows[["train", "valid", "test"]].sum() == flow.rows["drawn for the cohort"] == len(rows)
    assert flow.positives["drawn for the cohort"] == (rows.label == "Pneumonia").sum()
    assert flow.patients[["train", "valid", "test"]].sum() == rows.patient_id.nunique()

def test_a_table_of_ones_own_has_a_flow_too(rows):
    flow = flow_table(rows)
    assert flow.step[0] == "in the table" and flow.rows[0] == len(rows) == flow.rows[1:].sum()

def test_fewer_normals_than_asked_for_are_said_aloud(capsys):
    rows = load_cohort(normals=10_000)
    found = (rows.label == "Normal").sum()
    assert 0 < found < 10_000 and f"{found} Normal at the first visit" in capsys.readouterr().out

@pytest.mark.slow
def test_without_a_checkout_the_demo_set_is_drawn_the_same(tmp_path, monkeypatch):
    here = load_cohort()
    monkeypatch.setattr(runs, "__file__", str(tmp_path/"site-packages"/"cxr_fastai"/"runs.py"))
    monkeypatch.setenv("CXR_FASTAI_CACHE", str(tmp_path/"cache"))
    drawn = load_cohort()
    assert drawn.file[0].startswith(str(tmp_path/"cache"))
    pd.testing.assert_frame_equal(drawn.drop(columns="file"), here.drop(columns="file"))

def test_a_folder_without_a_table_gets_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no Data_Entry"): load_cohort(str(tmp_path))

def test_the_newest_table_is_read_packed_or_not_and_no_half_one(tmp_path):
    here = ROOT/"data"/"phantom"
    text = (here/"Data_Entry_2017_v2020.csv").read_bytes()
    (tmp_path/"images_001").symlink_to(here/"images_001")
    for name, data in (("Data_Entry_2017.csv", b"old"), ("Data_Entry_2017_v2020.csv.xz", lzma.compress(text)),
                       ("Data_Entry_2017_v2020.csv.xz.part", b"half"), ("Data_Entry_2017_v2020.csv~", b"bak")):
        (tmp_path/name).write_bytes(data)
    pd.testing.assert_frame_equal(load_cohort(str(tmp_path)).drop(columns="file"), load_cohort().drop(columns="file"))

def test_the_digest_is_of_the_table_and_the_pixels_wherever_they_lie(rows, tmp_path):
    moved = rows.assign(file=[shutil.copy(o, tmp_path) for o in rows.file])
    assert data_digest(moved, 32) == data_digest(rows, 32) != data_digest(rows) == data_digest(moved)
    Image.fromarray(np.full((48, 48), 9, np.uint8)).save(moved.file[3])
    assert data_digest(moved, 32) != data_digest(rows, 32) and data_digest(moved) == data_digest(rows)

@pytest.mark.parametrize("column, value",
                         [("label", "Normal"), ("age", 3), ("view", "PA"), ("split", "train"), ("patient_id", 9)])
def test_any_other_value_is_another_digest(rows, column, value):
    other = rows.copy()
    other.loc[other.index[other[column] != value][0], column] = value
    assert data_digest(other) != data_digest(rows)

def test_the_digest_survives_saving_and_the_columns_order(rows, tmp_path):
    save_rows(rows, tmp_path/"rows.csv")
    assert data_digest(read_rows(tmp_path/"rows.csv")) == data_digest(rows) == data_digest(rows[rows.columns[::-1]])
    assert data_digest(rows.iloc[::-1]) != data_digest(rows) # batches are drawn by position

def test_settings_are_named_whatever_their_order():
    assert settings_digest(dict(a=1, b="x")) == settings_digest(dict(b="x", a=1)) != settings_digest(dict(a=2, b="x"))
    assert len(settings_digest({})) == 8

def test_versions_are_those_installed(): assert versions()["torch"] == torch.__version__.split("+")[0]
