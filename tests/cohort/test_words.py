import numpy as np, pandas as pd, pytest
from cxr_fastai.cohort.words import fold_id, fold_ids, fold_number, is_missing

@pytest.mark.parametrize("same", [["0013", "13 ", "13.0", 13, "13", 13.0, np.int64(13), " +13", "\ufeff13", "13\u00a0"],
                                  ["0", 0, "000", "-0", 0.0],
                                  ["-7", -7, "-07.0"], ["caf\u00e9", "cafe\u0301 "], ["a  b", " a  b"],
                                  [10**20, "100000000000000000000"]])
def test_one_id_has_one_writing(same): assert {fold_id(o) for o in same} == {fold_id(same[0])} and fold_id(same[0])

def test_other_ids_stay_apart():
    other = ["13", "130", "1.3", "13a", "A13", "-13", "1e1", "1.2.840.10", "1.2.84.10", "p1", "P1", "a  b", "a b"]
    assert len({*map(fold_id, other)}) == len(other)

def test_ids_are_folded_by_column_and_missing_ones_stay_missing():
    folded = fold_ids(pd.Series(["0013", None, "NA", " nan ", "p1", 13.0, float("nan"), ""], index=range(3, 11),
                                name="who"))
    assert folded.index.tolist() == [*range(3, 11)] and folded.name == "who"
    assert folded.dropna().tolist() == ["13", "p1", "13"] and folded.isna().tolist() == [0, 1, 1, 1, 0, 0, 1, 1]
    assert fold_ids(pd.Series([3, 1, 3])).tolist() == ["3", "1", "3"]

def test_no_lone_sign_is_missing():
    assert is_missing(pd.Series(["-", "?", ".", "|", "N/A", "NaN", "null", "None", "<NA>",
                                 "unknown"])).tolist() == [0]*4 + [1]*5 + [0]

@pytest.mark.parametrize("word, number", [("0,75", .75), ("70,5", 70.5), (",5", .5), ("-0,5", -.5), ("0,750", .75),
                                          ("1234,567", 1234.567), ("5,", None), ("1,2,3", None), ("1,234", "either"),
                                          ("12,345", "either"), ("1.234,5", "either"), ("1,234.5", "either")])
def test_a_comma_is_of_decimals_unless_it_may_be_of_thousands(word, number):
    x, why = fold_number(word, "weight")
    if number is None: assert why == "is no number"
    elif number == "either": assert np.isnan(x) and "of decimals or of thousands; write a point" in why
    else: assert (x, why) == (number, "")

def test_an_age_may_have_a_comma(): assert fold_number("45,5", "age") == (45.5, "") == fold_number("45,5Y", "age")
