import pandas as pd, pytest
from cxr_fastai.cohort.labels import says_no, two_classes

def classes_of(words, **kwargs):
    res = two_classes(pd.Series(words, range(2, len(words) + 2), name="dx"), "own.csv", **kwargs)
    return tuple(res.categories), [None if pd.isna(o) else o for o in res]

@pytest.mark.parametrize("words, kwargs, names, labels", [
    (["0", "1", "1.0"], {}, ("0", "1"), ["0", "1", "1"]),
    (["sick", "well"], dict(positive="sick"), ("well", "sick"), ["sick", "well"]),
    (["sick", "well"], dict(negative="well"), ("well", "sick"), ["sick", "well"]),
    (["a", "b", "c"], dict(positive="b", negative="c"), ("c", "b"), [None, "b", "c"]),
    (["a", "b", "c"], dict(positive="a,b", negative="c"), ("c", "a"), ["a", "a", "c"]),
    (["a", "b", "c"], dict(positive="b", negative=["a", "c"]), ("No b", "b"), ["No b", "b", "No b"]),
    (["a", "b", "c"], dict(positive="b", negatives="all"), ("No b", "b"), ["No b", "b", "No b"]),
    (["Edema|Pneumonia", "No Finding", "Edema"], dict(positive="Pneumonia", negative="No Finding"),
     ("No Finding", "Pneumonia"), ["Pneumonia", "No Finding", None]),
    (["Edema; Pneumonia", "Edema"], dict(positive="Pneumonia", negatives="all"), ("No Pneumonia", "Pneumonia"),
     ["Pneumonia", "No Pneumonia"]),
    (["1", "0", None, "-1", "-1.0"], dict(uncertain="drop"), ("0", "1"), ["1", "0", None, None, None]),
    (["1", "0", None, "-1"], dict(uncertain="ones"), ("0", "1"), ["1", "0", "1", "1"]),
    (["1", "0", None, "-1"], dict(uncertain="zeros"), ("0", "1"), ["1", "0", "0", "0"]),
    (["1", None, "-1"], dict(uncertain="zeros"), ("No 1", "1"), ["1", "No 1", "No 1"]), # as CheXpert has them
    (["1", "-1"], dict(positive="1", negative="-1"), ("-1", "1"), ["1", "-1"]),
    (["tb", "TB", "no"], dict(positive="tb,TB", negative="no"), ("no", "tb"), ["tb", "tb", "no"])])
def test_two_classes_of_whatever_is_there(words, kwargs, names, labels):
    assert classes_of(words, **kwargs) == (names, labels)

@pytest.mark.parametrize("words, kwargs, why", [
    (["a", "b", "c"], {}, "must hold two labels, not 3.*--positive and --negative"),
    (["a", "b"], {}, "positive=None doesn't say which"),
    (["a", "A"], dict(positive="a"), "are one word"),
    (["a", "b", "c"], dict(positive="d", negative="a"), "'d', asked for as positive, is no label"),
    (["a", "b", "c"], dict(positive="b", negative="d"), "'d', asked for as negative, is no label"),
    (["a", "b", "c"], dict(positive="b", negative="b"), "'b' can't be both"),
    (["a", "b", "c"], dict(negative="a"), "say by --positive"),
    (["1", "0", None], {}, "are no label: '' .line 4.; --uncertain drop"),
    (["1", "0", "-1"], {}, "must hold two labels, not 3"),
    (["1", "-1"], {}, "-1 may be the other class or an uncertain one"),
    (["1", None], dict(uncertain="drop"), "must hold two labels, not 1"),
    (["tb", "TB", "no"], dict(positive="TB", negatives="all"), "has 'tb' beside 'TB', which differ in capitals"),
    (["tb", "no", "No"], dict(positive="tb", negative="no"), "has 'No' beside 'no'"),
    (["tb|Edema", "no", "TB"], dict(positive="TB", negative="no"), "has 'tb' beside 'TB'"),
    (["1", "0"], dict(uncertain="both"), "uncertain='both' is none of ones, zeros, drop"),
    (["1", "0"], dict(negatives="some"), "neither 'clean' nor 'all'")])
def test_words_that_do_not_say_which_is_which_are_one_sentence(words, kwargs, why):
    with pytest.raises(ValueError, match=why) as e: classes_of(words, **kwargs)
    assert "\n" not in str(e.value)

def test_of_a_column_that_is_named_for_films_without_one_is_not_taken_for_positive():
    text = pd.Series(["1", "0"], [2, 3], name="No Finding")
    with pytest.raises(ValueError, match="doesn't say which label of column 'No Finding' is the positive"):
        two_classes(text, "own.csv")
    assert two_classes(text, "own.csv", positive="0").tolist() == ["1", "0"]

def test_words_that_say_no():
    assert all(map(says_no, ["NORMAL", "No Finding", "neg", "healthy", "0", "No", "false"]))
    assert not any(map(says_no, ["Pneumonia", "1", "abnormal", "nodule", "yes"]))
    assert says_no("is_normal") and not says_no("ischemia")
    assert says_no("no tb", "tb") and says_no("Non-COVID", "COVID") and not says_no("no tb")
