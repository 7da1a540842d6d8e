import lzma, shutil
import pandas as pd, pytest
from cxr_fastai.cohort.folder import load_cohort
from cxr_fastai.cohort.readers import read_nih
from cxr_fastai.cohort.rows import columns_of, save_rows
from cxr_fastai.cohort.sources import read_data
from conftest import ROOT, make_rows
from layouts import lay_out

PHANTOM = ROOT/"data"/"phantom"

@pytest.fixture(scope="module")
def drawn(tmp_path_factory): return make_rows(tmp_path_factory.mktemp("drawn"))

@pytest.fixture(scope="module")
def own(drawn, tmp_path_factory): return lay_out("own_csv", drawn, tmp_path_factory.mktemp("own"))

def test_nihs_csv_is_known_by_its_header_whatever_its_name_or_how_it_is_named(tmp_path):
    rows, kind = read_data(PHANTOM)
    (tmp_path/"images_001").symlink_to(PHANTOM/"images_001")
    shutil.copy(PHANTOM/"Data_Entry_2017_v2020.csv", tmp_path/"mine.csv")
    for where in tmp_path, tmp_path/"mine.csv":
        other, also = read_data(where)
        assert kind == also == "nih" and other.drop(columns="file").equals(rows.drop(columns="file"))

def test_a_csv_is_read_beside_its_folder_or_with_another_one(own, drawn, tmp_path):
    rows, kind = read_data(own)
    assert kind == "own" and read_data(own/"films.csv")[0].equals(rows)
    shutil.copy(own/"films.csv", tmp_path/"table.csv")
    assert read_data(tmp_path/"table.csv", images=own/"pictures")[0].file.equals(rows.file)
    assert columns_of(rows) == dict(cat_names=["Geschlecht", "Sex", "smoker"], cont_names=["Age", "weight"])
    assert "films.csv: which column is what" in _said(own)

def _said(data):
    import contextlib, io
    with contextlib.redirect_stdout(said := io.StringIO()): read_data(data)
    return said.getvalue()

def test_rows_that_were_saved_are_read_with_their_split_and_their_columns(own, tmp_path):
    rows = load_cohort(str(own))
    save_rows(rows, tmp_path/"cohort.csv")
    again = load_cohort(str(tmp_path/"cohort.csv"))
    pd.testing.assert_frame_equal(again, rows)
    assert columns_of(again) == columns_of(rows)
    fewer = load_cohort(str(tmp_path/"cohort.csv"), cat="Sex", cont="")
    assert columns_of(fewer) == dict(cat_names=["Sex"], cont_names=[])
    with pytest.raises(ValueError, match="a cohort already"): load_cohort(str(tmp_path/"cohort.csv"), normals=3)

def test_negatives_may_be_all_films_without_the_finding():
    clean, every = (read_nih(PHANTOM/"Data_Entry_2017_v2020.csv", negatives=o) for o in ("clean", "all"))
    assert every.label.notna().all() and clean.label.isna().sum() == (every.label != "Pneumonia").sum() - (
        clean.label == "Normal").sum()
    assert list(every.label.cat.categories) == ["No Pneumonia", "Pneumonia"]

def test_a_set_keeps_the_metadata_that_is_asked_for():
    rows, _ = read_data(PHANTOM, cat="sex", cont="")
    assert columns_of(rows) == dict(cat_names=["sex"], cont_names=[])
    with pytest.raises(ValueError, match="'smoker' is none of its metadata columns"): read_data(PHANTOM, cat="smoker")

def test_flags_that_name_columns_read_a_known_set_as_any_table():
    rows, kind = read_data(PHANTOM, label="Patient Gender", positive="F")
    assert kind == "own" and list(rows.label.cat.categories) == ["M", "F"]

def test_of_several_csvs_of_one_set_the_largest_is_read_aloud(drawn, tmp_path, capsys):
    rows, kind = read_data(lay_out("chexpert", drawn, tmp_path))
    assert kind == "chexpert" and len(rows) == len(drawn) and "valid.csv, too: train.csv" in capsys.readouterr().out


def csv(root, text, name="t.csv", films=("a.png", "b.png", "c.png")):
    (root/name).write_bytes(text if isinstance(text, bytes) else text.encode())
    for o in films: (root/o).write_bytes(b"x")
    return root

def two_films(root):
    for folder, text in ("x", "1"), ("y", "22"):
        (root/folder).mkdir()
        (root/folder/"z.png").write_text(text)
    return root

def folders(root, *names):
    for o in names:
        (root/o).mkdir()
        (root/o/"1.png").write_text("x")
    return root

HEAD = "file,patient,label\n"
CASES = { # what is wrong: how it is made, flags, what is said
    "nothing there": (lambda r: r/"none", {}, "no such file or folder"),
    "no words": (lambda r: "", {}, "--data is empty"),
    "an empty folder": (lambda r: r, {}, "holds no Data_Entry.*no class folders"),
    "films and no table": (lambda r: csv(r, "", "note.txt"), {}, "holds no Data_Entry"),
    "an empty csv": (lambda r: csv(r, "")/"t.csv", {}, "it is empty"),
    "a header alone": (lambda r: csv(r, HEAD), {}, "holds no rows"),
    "no table at all": (lambda r: csv(r, b"\x89PNG\r\n\x1a\n\0\0\0\xff\xfe")/"t.csv", {}, "can't be read as a table"),
    "a windows code page": (lambda r: csv(r, HEAD.encode() + b"a.png,M\xfcller,1\n")/"t.csv", {},
                            "save it as CSV UTF-8"),
    "a spreadsheet": (lambda r: csv(r, b"PK\x03\x04junk")/"t.csv", {}, "can't be read as a table"),
    "an extra field": (lambda r: csv(r, HEAD + "a.png,1,1,9\nb.png,2,0\n"), {}, "more or fewer fields"),
    "two columns of a name": (lambda r: csv(r, "file,file,label\na.png,1,1\n")/"t.csv", {},
                              "more than one column 'file'"),
    "no image column": (lambda r: csv(r, "x,patient,label\n1,1,1\n2,2,0\n"), {}, "be the images.*--image"),
    "no patient column": (lambda r: csv(r, "file,label\na.png,1\nb.png,0\n"), {}, "--patient 'file'"),
    "no label column": (lambda r: csv(r, "file,patient\na.png,1\nb.png,2\n"), {}, "be the label.*--label"),
    "one label alone": (lambda r: csv(r, HEAD + "a.png,1,1\nb.png,2,1\n"), {}, "must hold two labels, not 1"),
    "three labels": (lambda r: csv(r, HEAD + "a.png,1,x\nb.png,2,y\nc.png,3,z\n"), {}, "--positive"),
    "an uncertain label": (lambda r: csv(r, HEAD + "a.png,1,1\nb.png,2,0\nc.png,3,-1\n"), {},
                           "--uncertain ones, zeros"),
    "metadata of a name that is taken": (lambda r: csv(r, "file,patient,label,size\na.png,1,1,2\nb.png,2,0,3\n"),
                                         dict(cat="size"), "'size' can't name metadata"),
    "words of no side": (lambda r: csv(r, HEAD + "a.png,1,x\nb.png,2,y\n"), {}, "don't say which is which.*--positive"),
    "a blank label": (lambda r: csv(r, HEAD + "a.png,1,1\nb.png,2,0\nc.png,3,\n"), {}, "line 4.*--uncertain drop"),
    "a blank patient": (lambda r: csv(r, HEAD + "a.png,1,1\nb.png,,0\n"), {}, "name no patient: '' .line 3"),
    "an image twice": (lambda r: csv(r, "file,patient,label\na.png,1,1\na.png,2,0\n"), dict(image="file"),
                       "name an image more than once"),
    "an age that is none": (lambda r: csv(r, "file,patient,label,age\na.png,1,1,old\nb.png,2,0,young\n"),
                            dict(cont="age"), "are no ages"),
    "no film there": (lambda r: csv(r, HEAD + "a.png,1,1\nb.png,2,0\n", films=()), {},
                      "2 of 2 images are not in.*by --images"),
    "two films of a name": (lambda r: two_films(csv(r, HEAD + "z.png,1,1\nb.png,2,0\n")), {},
                            "in more than one folder"),
    "two tables": (lambda r: csv(csv(r, HEAD + "a.png,1,1\n"), HEAD + "b.png,2,0\n", "a b.csv"), {},
                   "more than one table.*in --data '.*a b.csv'"),
    "no folder of images": (lambda r: csv(r, HEAD + "a.png,1,1\n")/"t.csv", dict(images="nowhere"), "--images names"),
    "a column that isn't there": (lambda r: csv(r, HEAD + "a.png,1,1\n"), dict(label="lable"), "did you mean 'label'"),
    "a half download of NIH's": (lambda r: csv(r, "Image Index,Finding Labels\na.png,No Finding\n",
                                               "Data_Entry_2017.csv"), {}, "is not NIH's table"),
    "a damaged csv of save_rows": (lambda r: csv(r, "image,patient_id,label,classes\na.png,1,x,nonsense[\n"), {},
                                   "damaged"),
    "class folders that say nothing": (lambda r: folders(r, "a", "b"), {}, "--positive"),
    "a flag for another kind of data": (lambda r: PHANTOM, dict(uncertain="drop"), "--uncertain: NIH's labels"),
    "an unknown finding": (lambda r: PHANTOM, dict(finding="Flu"), "'Flu' is none of the findings"),
    "negatives of another word": (lambda r: PHANTOM, dict(negatives="some"), "neither 'clean' nor 'all'"),
    "a split column that isn't there": (lambda r: PHANTOM, dict(split_column="side"), "no column 'side'")}

@pytest.mark.parametrize("case", CASES)
def test_what_is_broken_is_one_sentence(case, tmp_path):
    make, flags, why = CASES[case]
    data = str(make(tmp_path))
    with pytest.raises((ValueError, FileNotFoundError), match=f"(?s){why}") as e: load_cohort(data, **flags)
    assert "\n" not in str(e.value) and str(e.value).count(". ") <= 1

def test_a_home_is_known_where_no_shell_reads_the_path(own, monkeypatch):
    monkeypatch.setenv("HOME", str(own.parent))
    home = f"~/{own.name}"
    assert len(read_data(home)[0]) == len(read_data(f"{home}/films.csv", images=home)[0]) == 80

def test_a_packed_csv_of_any_name_is_found(tmp_path):
    (tmp_path/"films.csv.xz").write_bytes(lzma.compress((PHANTOM/"Data_Entry_2017_v2020.csv").read_bytes()))
    (tmp_path/"images_001").symlink_to(PHANTOM/"images_001")
    assert len(read_data(tmp_path)[0]) == len(read_data(PHANTOM)[0])

def test_a_label_may_have_a_comma(tmp_path):
    (tmp_path/"t.csv").write_text(HEAD + 'a.png,1,"pneumonia, viral"\nb.png,2,normal\n')
    for o in "ab": (tmp_path/f"{o}.png").write_text("x")
    assert list(read_data(tmp_path)[0].label) == ["pneumonia, viral", "normal"]
