import gzip
from pathlib import Path
import numpy as np, pandas as pd, pytest
from pandas.testing import assert_frame_equal
from cxr_fastai.cohort.readers import read_nih, read_table
from cxr_fastai.cohort.rows import classes, positive, read_rows, save_rows
from conftest import SHARED, needs_nih

HEAD = ("Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
        "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]")
V2020 = [HEAD,
    "00000001_000.png,Cardiomegaly,0,1,57,M,PA,2682,2749,0.143,0.143",
    "00000002_000.png,No Finding,0,2,80,M,PA,2500,2048,0.171,0.171",
    "00000002_001.png,Edema|Pneumonia,1,2,81,M,AP,2582,2991,0.143,0.143",
    "00000003_000.png,Pneumonia,0,3,0,F,AP,2582,2991,0.143,0.143"]
V2017 = [HEAD + ",",
    "00000001_000.png,Cardiomegaly,000,00000001,058Y,M,PA,2682,2749,0.143,0.143,",
    "00000002_000.png,No Finding,000,00000002,011M,M,PA,2500,2048,0.171,0.171,",
    "00000002_001.png,Edema|Pneumonia,001,00000002,414Y,M,AP,2582,2991,0.143,0.143,",
    "00000003_000.png,Pneumonia,000,00000003,001D,F,AP,2582,2991,0.143,0.143,"]

def write(path, lines, end="\n"):
    path.write_bytes((end.join(lines) + end).encode())
    return path

@pytest.fixture
def nih(tmp_path): return write(tmp_path/"Data_Entry_2017_v2020.csv", V2020)

@pytest.fixture
def table(tmp_path):
    return write(tmp_path/"own.csv", ["name,who,dx,smoker,weight,site", "a.png,p1,sick,1,71.5,x", "b.png,p1,well,2,,x",
                                      "c.png,p2,well,,NA,y", "d.png,p3,sick,1,60,None"])

def touch(*files):
    for f in files:
        f.parent.mkdir(parents=True, exist_ok=True)
        f.touch()

def read_own(table, **kwargs):
    return read_table(table, **dict(dict(image="name", patient="who", label="dx", positive="sick"), **kwargs))

def test_2020_edition(nih):
    rows = read_nih(nih)
    assert list(rows) == "image patient_id follow_up age sex view findings label".split()
    assert rows["image"].tolist() == [o.split(",")[0] for o in V2020[1:]]
    assert rows["patient_id"].tolist() == [1, 2, 2, 3] and rows["follow_up"].tolist() == [0, 0, 1, 0]
    assert rows["age"].tolist() == [57, 80, 81, 0] and rows["age"].dtype == float
    assert rows["sex"].tolist() == ["M", "M", "M", "F"] and rows["view"].tolist() == ["PA", "PA", "AP", "AP"]
    assert rows["findings"][2] == "Edema|Pneumonia"
    assert rows["label"].isna().tolist() == [True, False, False, False]
    assert rows["label"].tolist()[1:] == ["Normal", "Pneumonia", "Pneumonia"]
    assert rows["label"].cat.ordered and classes(rows) == ("Normal", "Pneumonia")
    assert positive(rows).tolist() == [False, False, True, True]

def test_a_column_of_sex_is_one_of_gender(nih, tmp_path):
    other = write(tmp_path/"sex.csv", [V2020[0].replace("Gender", "Sex"), *V2020[1:]])
    assert_frame_equal(read_nih(other), read_nih(nih))

def test_2017_edition_has_ages_in_words_and_an_empty_last_column(tmp_path, capsys):
    rows = read_nih(write(tmp_path/"old.csv", V2017, end="\r\n"))
    assert rows["patient_id"].tolist() == [1, 2, 2, 3] and rows["follow_up"].tolist() == [0, 0, 1, 0]
    np.testing.assert_allclose(rows["age"], [58, 11/12, np.nan, 1/365.25])
    said = capsys.readouterr().out
    assert "1 ages are over 100 years, up to 414" in said and "line 4" in said

def test_an_age_of_100_stays_and_nothing_is_said(tmp_path, capsys):
    rows = read_nih(write(tmp_path/"a.csv", [HEAD, V2020[1].replace(",57,", ",100,"), V2020[2].replace(",80,", ",,")]))
    assert rows["age"][0] == 100 and np.isnan(rows["age"][1]) and capsys.readouterr().out == ""

def test_gzip_byte_order_mark_and_quoted_header(tmp_path, nih):
    gz = tmp_path/"t.csv.gz"
    gz.write_bytes(gzip.compress(nih.read_bytes()))
    marked = tmp_path/"marked.csv"
    marked.write_bytes(b"\xef\xbb\xbf" + nih.read_bytes())
    quoted = tmp_path/"quoted.csv"
    quoted.write_text(nih.read_text().replace("OriginalImage[Width,Height]", '"OriginalImage[Width","Height]"'))
    for o in (gz, marked, quoted): assert_frame_equal(read_nih(o), read_nih(nih))

def test_another_finding_is_the_positive_class(nih):
    rows = read_nih(nih, finding="Cardiomegaly")
    assert classes(rows) == ("Normal", "Cardiomegaly") and positive(rows).tolist() == [True, False, False, False]

def test_an_unknown_finding_lists_those_there(nih):
    with pytest.raises(ValueError, match="'Flu' is none of the findings in .*: Cardiomegaly, Edema, Pneumonia"):
        read_nih(nih, finding="Flu")

@pytest.mark.parametrize("old,new,words", [
    ("Edema|Pneumonia", "Edema|Pneumona", "1 of 4 values of column 'Finding Labels' .* 'Edema|Pneumona' .line 4"),
    (",Pneumonia,0,3", ",,0,3", "'Finding Labels' .* '' .line 5"),
    (",1,2,81,", ",1,2,old,", "'Patient Age' .* 'old' .line 4"),
    (",1,2,81,", ",1,2,-5,", "'Patient Age' .* '-5' .line 4"),
    (",1,2,81,", ",one,2,81,", "'Follow-up #' are no whole numbers: 'one' .line 4"),
    (",1,2,81,", ",1,,81,", "'Patient ID' name no patient: '' .line 4"),
    (",1,2,81,", ",1,2.5,81,", "'Patient ID' are no whole numbers: '2.5' .line 4"),
    ("00000002_001.png", "00000002_000.png", "2 of 4 .* 'Image Index' name an image more than once: '0.* .line 3"),
    ("00000002_001.png", "", "1 of 4 .* 'Image Index' name no image: '' .line 4")])
def test_a_wrong_field_is_named_by_file_column_and_line(tmp_path, old, new, words):
    with pytest.raises(ValueError, match=f"bad.csv: .*{words}".replace("|", r"\|")):
        read_nih(write(tmp_path/"bad.csv", "\n".join(V2020).replace(old, new).split("\n")))

def test_a_table_that_is_not_nihs_is_sent_to_read_table(table):
    with pytest.raises(ValueError, match="own.csv is not NIH's table: its header has no 'Image Index', .*read_table"):
        read_nih(table)

@pytest.mark.parametrize("name,content", [
    ("cut.csv.gz", gzip.compress("\n".join(V2020).encode(), mtime=0)[:60]), ("empty.csv", b""), ("blank.csv.gz", b"\n"),
    ("latin.csv", "\n".join(V2020).encode() + b"\n\xe9,")])
def test_an_unreadable_file_is_one_sentence(tmp_path, name, content):
    (tmp_path/name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} can't be read as a table"): read_nih(tmp_path/name)

def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.csv"): read_nih(tmp_path/"none.csv")

@pytest.mark.parametrize("places", [
    ["."]*4, ["images"]*4, ["images_001", "images_001", "images_002", "."],
    ["images_001/images", "images_001/images", "images_002/images", "images_012/images"]])
def test_images_are_found_in_each_layout(tmp_path, nih, places):
    files = [tmp_path/"films"/p/o.split(",")[0] for p, o in zip(places, V2020[1:])]
    touch(*files, tmp_path/"films"/"README.txt")
    rows = read_nih(nih, images=tmp_path/"films")
    assert [Path(o) for o in rows["file"]] == files and all(isinstance(o, str) for o in rows["file"])

def test_absent_images_are_an_error_or_dropped_aloud(tmp_path, nih, capsys):
    touch(tmp_path/"films"/"00000001_000.png", tmp_path/"films"/"00000003_000.png")
    with pytest.raises(FileNotFoundError, match="2 of 4 images are not in .*: 0.*2_000.png, 0.*2_001.png; missing"):
        read_nih(nih, images=tmp_path/"films")
    rows = read_nih(nih, images=tmp_path/"films", missing="drop")
    assert rows["patient_id"].tolist() == [1, 3] and rows.index.tolist() == [0, 1]
    assert "2 of 4 images are not in" in capsys.readouterr().out

def test_no_image_at_all_is_an_error_whatever_is_asked(tmp_path, nih):
    (tmp_path/"films").mkdir()
    with pytest.raises(FileNotFoundError, match="4 of 4 images .*: 00000001_000.png, .* and 1 more"):
        read_nih(nih, images=tmp_path/"films", missing="drop")
    with pytest.raises(FileNotFoundError, match="no folder '.*elsewhere'"): read_nih(nih, images=tmp_path/"elsewhere")
    with pytest.raises(ValueError, match="missing='skip' is neither"):
        read_nih(nih, images=tmp_path/"films", missing="skip")

def test_an_image_in_two_folders_is_an_error(tmp_path, nih):
    for o in V2020[1:]: touch(tmp_path/"films"/"images_001"/"images"/o.split(",")[0])
    touch(tmp_path/"films"/"00000001_000.png")
    with pytest.raises(ValueError, match="1 images lie in more than one folder of .*: 00000001_000.png"):
        read_nih(nih, images=tmp_path/"films")

def test_any_table_by_column_names(table):
    rows = read_own(table, cat_names=["smoker", "site"], cont_names=["weight"])
    assert list(rows) == ["image", "patient_id", "label", "smoker", "site", "weight"]
    assert rows["patient_id"].tolist() == ["p1", "p1", "p2", "p3"] and classes(rows) == ("well", "sick")
    assert positive(rows).tolist() == [True, False, False, True]
    assert rows["smoker"].fillna("?").tolist() == ["1", "2", "?", "1"]
    assert rows["site"].fillna("?").tolist() == ["x", "x", "y", "?"]
    np.testing.assert_array_equal(rows["weight"], [71.5, np.nan, np.nan, 60])

@pytest.mark.parametrize("words,positive,want",
                         [("0 1 1", None, ("0", "1")), ("0.0 1.0 0", None, ("0", "1")),
                          ("0 1 1", 0, ("1", "0")), ("0 1 1", 1, ("0", "1")), (" 00 1.0 1", None, ("0", "1")),
                          ("1 2 02", 2, ("1", "2")), ("no yes no", " yes", ("no", "yes")), ("+ - +", "+", ("-", "+")),
                          ("a|b c|d a|b", "c|d", ("a|b", "c|d")), ("Zebra Apple Zebra", "Apple", ("Zebra", "Apple"))])
def test_which_label_is_positive(tmp_path, words, positive, want):
    lines = [f"{i}.png,{i},{o}" for i, o in enumerate(words.split())]
    assert classes(read_table(write(tmp_path/"t.csv", ["image,patient_id,label", *lines]), positive=positive)) == want

@pytest.mark.parametrize("words", ["1 2 1", "yes no no", "Normal Pneumonia Normal", "True False True", "Y N N"])
def test_any_pair_but_0_and_1_must_be_named(tmp_path, words):
    lines = [f"{i}.png,{i},{o}" for i, o in enumerate(words.split())]
    with pytest.raises(ValueError, match="t.csv: positive=None doesn't say which label of column 'label'"):
        read_table(write(tmp_path/"t.csv", ["image,patient_id,label", *lines]))

@pytest.mark.parametrize("names, want", [
    ("12 7", [12, 7]), ("012 7", [12, 7]), ("13.0 7", [13, 7]), ("p1 007", ["p1", "7"]),
    ("1.2.840.10 7", ["1.2.840.10", "7"]), ("A-1|x 7", ["A-1|x", "7"])])
def test_ids_have_one_writing(tmp_path, names, want):
    lines = [f"{i}.png,{o},{i}" for i, o in enumerate(names.split())]
    assert read_table(write(tmp_path/"t.csv", ["image,patient_id,label", *lines]))["patient_id"].tolist() == want

@pytest.mark.parametrize("one, other", [("0013", "13"), ("13.0", "13"), ("+13", "013")])
def test_two_writings_of_one_id_are_refused_with_both(tmp_path, one, other):
    csv = write(tmp_path/"t.csv", ["image,patient_id,label", f"a,{one},0", f"b,{other},1", "c,14,1"])
    says = f"2 of 3 values of column 'patient_id' are one id .*: '{one}' .line 2., '{other}' .line 3."
    with pytest.raises(ValueError, match=says.replace("+", r"\+")):
        read_table(csv)
    bad = write(tmp_path/"n.csv", [V2020[0], V2020[1], V2020[2], V2020[3].replace(",1,2,", ",1,0002,")])
    with pytest.raises(ValueError, match="n.csv: 2 of 3 values of column 'Patient ID' are one id"): read_nih(bad)

def test_images_with_folders_in_their_names(tmp_path):
    csv = write(tmp_path/"t.csv", ["image,patient_id,label", "a/1.png,1,0", "b/1.png,2,1"])
    touch(tmp_path/"a"/"1.png", tmp_path/"b"/"1.png")
    assert [Path(o) for o in read_table(csv, images=tmp_path)["file"]] == [tmp_path/"a"/"1.png", tmp_path/"b"/"1.png"]
    (tmp_path/"b"/"1.png").unlink()
    with pytest.raises(FileNotFoundError, match="1 of 2 images .*: b/1.png"): read_table(csv, images=tmp_path)

@pytest.mark.parametrize("kwargs,words", [
    (dict(image="picture"), "has no column 'picture'; its columns are name, who, dx, smoker, weight, site"),
    (dict(cat_names=["sex"], cont_names=["age"]), "has no column 'sex', 'age'"),
    (dict(cont_names=["site"]), "3 of 4 values of column 'site' are no numbers: 'x' .line 2"),
    (dict(label="site"), "1 of 4 values of column 'site' are no label: '' .line 5"),
    (dict(label="smoker"), "1 of 4 values of column 'smoker' are no label: '' .line 4"),
    (dict(patient="smoker"), "1 of 4 values of column 'smoker' name no patient: '' .line 4"),
    (dict(image="who"), "2 of 4 values of column 'who' name an image more than once: 'p1' .line 2"),
    (dict(positive=None), "positive=None doesn't say which label of column 'dx' is the positive class: .* .2., .* .2."),
    (dict(positive="ill"), "positive='ill' doesn't say which label of column 'dx'")])
def test_a_wrong_table_is_one_sentence(table, kwargs, words):
    with pytest.raises(ValueError, match=f"own.csv.*{words}"): read_own(table, **kwargs)

def test_metadata_cannot_take_the_rows_own_names(tmp_path):
    csv = write(tmp_path/"t.csv", ["image,patient_id,label,split", "a,1,0,x", "b,2,1,y"])
    with pytest.raises(ValueError, match="'label', 'split' can't name metadata"):
        read_table(csv, cat_names=["label", "split"])
    with pytest.raises(ValueError, match="'flag' can't name metadata: .* rename"): read_table(csv, cont_names=["flag"])
    with pytest.raises(ValueError, match="'age' is named twice"): read_table(csv, cat_names=["age"], cont_names=["age"])

@pytest.mark.parametrize("name", ["rows.csv", "rows.csv.gz"])
def test_saved_rows_read_back_the_same(tmp_path, nih, name):
    rows = read_nih(nih)
    rows.loc[0, "age"] = 1/3
    save_rows(rows, tmp_path/name)
    assert_frame_equal(read_rows(tmp_path/name), rows)
    assert [o.name for o in tmp_path.glob("*rows*")] == [name]

def test_saved_rows_keep_words_ids_and_classes_that_no_row_has(tmp_path, table):
    rows = read_own(table, cat_names=["smoker"], cont_names=["weight"])
    rows = rows[positive(rows)].reset_index(drop=True).assign(patient_id=["01", "2"])
    save_rows(rows, tmp_path/"rows.csv")
    again = read_rows(tmp_path/"rows.csv", cat_names=["smoker"])
    assert classes(again) == ("well", "sick") and again["smoker"].tolist() == ["1", "1"]
    assert_frame_equal(again, rows)

def test_saved_rows_are_a_plain_csv(tmp_path, nih):
    save_rows(read_nih(nih), tmp_path/"rows.csv")
    plain = pd.read_csv(tmp_path/"rows.csv")
    assert len(plain) == 4 and plain["label"].tolist()[1:] == ["Normal", "Pneumonia", "Pneumonia"]

def test_only_saved_rows_are_read_back(table):
    with pytest.raises(ValueError, match="own.csv was not written by save_rows"): read_rows(table)

def test_classes_need_a_categorical(nih):
    rows = read_nih(nih)
    for o in rows.astype({"label": object}), rows.drop(columns="label"):
        with pytest.raises(ValueError, match="need a column 'label', a Categorical"): classes(o)
        with pytest.raises(ValueError, match="need a column 'label', a Categorical"): positive(o)

@needs_nih
@pytest.mark.parametrize("name,pneumonia,first,no_age", [
    ("Data_Entry_2017", 1353, 168, 16), ("Data_Entry_2017_v2020", 1431, 174, 0)])
def test_the_whole_published_tables(name, pneumonia, first, no_age, capsys):
    rows = read_nih(SHARED/"nih_metadata"/f"{name}.csv.gz")
    hit = positive(rows)
    assert len(rows) == 112120 and rows["patient_id"].nunique() == 30805 and hit.sum() == pneumonia
    assert hit[rows["follow_up"] == 0].sum() == first
    assert rows["age"].isna().sum() == no_age and rows["age"].max() <= 100
    assert set(rows["sex"]) == {"M", "F"} and set(rows["view"]) == {"PA", "AP"}
    assert ("16 ages are over 100 years, up to 414" in capsys.readouterr().out) == (no_age == 16)

@needs_nih
def test_the_sample_with_its_images():
    folder = SHARED/"nih_sample"
    rows = read_nih(folder/"Data_Entry_2017_v2020.csv", images=folder)
    assert len(rows) == 617 and positive(rows).sum() == 315 and all(Path(o).is_file() for o in rows["file"])
