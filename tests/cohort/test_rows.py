import json
import numpy as np, pandas as pd, pytest
from pandas.testing import assert_frame_equal
from cxr_fastai.cohort.rows import check_names, classes, fold_metadata, positive, read_rows, save_rows

def rows(**columns):
    n = len(next(iter(columns.values()), [0, 0, 0]))
    label = pd.Categorical((["Normal", "Pneumonia"] * n)[:n], ["Normal", "Pneumonia"], ordered=True)
    return pd.DataFrame(dict(image=[f"{i}.png" for i in range(n)], patient_id=range(n), label=label) | columns)

def back(table, folder, name="rows.csv"):
    save_rows(table, folder/name)
    return read_rows(folder/name)

@pytest.mark.parametrize("column", [
    ["1", "2", None], ["2.0", "02", "2"], ["NA", "None", "nan"], ["True", "False", None], [1.5, np.nan, -2], [1, 2, 3],
    [True, False, True], ["=1+1", "-2+3", "@x"], ["a|b", "<b>", "x  y"], [" a", "b ", "'=c"],
    ["two\nlines", "a\rb", 'q"q'], [1/3, 1e-300, 2**.5], ["\t", "\tx", "-"]], ids=range(13))
@pytest.mark.parametrize("name", ["rows.csv", "rows.csv.xz"])
def test_what_is_saved_comes_back_as_it_was(tmp_path, column, name):
    table = rows(x=column)
    if column == ["\t", "\tx", "-"]: table = table.iloc[1:].reset_index(drop=True)
    assert_frame_equal(back(table, tmp_path, name), table, check_exact=True)

@pytest.mark.parametrize("names", [["Normal", "a|b"], ["-", "+"], ["=no", "yes"], ["caf\u00e9", '"q"'], [0, 1],
                                   ["0", "1"], ["No Finding", "Pneumonia, any"]])
def test_any_sign_may_stand_in_a_class(tmp_path, names):
    label = pd.Categorical.from_codes([0, 1, -1, 1], names, ordered=True)
    again = back(rows(label=label), tmp_path)
    assert classes(again) == tuple(names) and positive(again).tolist() == [False, True, False, True]
    assert again["label"].isna().sum() == 1
    assert json.loads(pd.read_csv(tmp_path/"rows.csv")["classes"][0]) == names

def test_a_csv_of_an_earlier_version_is_read(tmp_path):
    (tmp_path/"rows.csv").write_text(
        "image,patient_id,label,site,age,classes\n1,1,Normal,1,5,Normal|Pneumonia\n2,2,Pneumonia,2,,Normal|Pneumonia\n")
    old = read_rows(tmp_path/"rows.csv", cat_names=["site"])
    assert classes(old) == ("Normal", "Pneumonia") and old["site"].tolist() == ["1", "2"]
    assert old["image"].tolist() == ["1", "2"]
    assert old["patient_id"].tolist() == [1, 2] and old["age"].dtype == float

@pytest.mark.parametrize("old, new, words", [
    ('["Normal", "Pneumonia"]'.replace('"', '""'), "[", "column 'classes' isn't one json list"),
    ("Pneumonia,", "Pneumona,", "labels Pneumona are not of its two"), ("1.png,1,", "1.png,", "line 3"),
    ("image", "imag", "no column .image."), (",x,", ",y,", "its column .x. has gone")])
def test_a_damaged_csv_is_one_sentence(tmp_path, old, new, words):
    save_rows(rows(x=["1", "2"]), tmp_path/"rows.csv")
    text = (tmp_path/"rows.csv").read_text()
    assert old in text
    (tmp_path/"rows.csv").write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=f"rows.csv.*{words}"): read_rows(tmp_path/"rows.csv")

def test_columns_that_the_csv_has_itself_are_refused(tmp_path):
    with pytest.raises(ValueError, match="have a column 'words'"): save_rows(rows(words=[1, 2]), tmp_path/"rows.csv")

@pytest.mark.parametrize("name", """error flag pixels model threshold missing probability decision stamp image label
    split classes words side""".split())
def test_metadata_is_not_named_as_a_column_of_our_own(name):
    with pytest.raises(ValueError, match=f"'{name}' can't name metadata: .*rename"): check_names([name], [])
    if name in ("image", "label", "split"): return # the leak check says more of them
    with pytest.raises(ValueError, match=f"'{name}' can't name metadata"):
        fold_metadata(rows(**{name: [1, 2]}), (), [name])

def test_metadata_is_folded_as_a_model_learns_it(capsys):
    table = rows(sex=["Female", " m", "NA", "F"], view=["posteroanterior", "ap", None, "LL"],
                 site=["2.0", "02", " 2 ", "a|b"], age=["058Y", "18M", 414, ""])
    folded = fold_metadata(table, ["sex", "view", "site"], ["age"])
    assert folded["sex"].fillna("?").tolist() == ["F", "M", "?", "F"]
    assert folded["view"].fillna("?").tolist() == ["PA", "AP", "?", "LL"]
    assert folded["site"].tolist() == ["2", "2", "2", "a|b"]
    np.testing.assert_array_equal(folded["age"], [58, 1.5, np.nan, np.nan])
    assert "1 of 4 values of 'age' are over 100 years and become missing" in capsys.readouterr().out

def test_an_ordinary_table_is_left_as_it_is():
    table = rows(sex=["F", "M"], site=[1, 2], age=[50, np.nan])
    assert fold_metadata(table, ["sex", "site"], ["age"]) is table

@pytest.mark.parametrize("value, why",
                         [(np.inf, "are infinite, or more than float32 holds"), (-1e39, "are infinite, or more"),
                          ("x", "are no number"), ("inf", "are infinite")])
def test_what_is_no_number_is_refused_with_its_rows(value, why):
    with pytest.raises(ValueError,
                       match=f"1 of 3 values of metadata column 'weight', one of numbers, {why}.*: .* .1.png."):
        fold_metadata(rows(weight=[1, value, 3]), (), ["weight"])
    with pytest.raises(ValueError, match="more than one column 'weight'"):
        fold_metadata(pd.concat([rows(weight=[1]), rows(weight=[1])[["weight"]]], axis=1), (), ["weight"])
