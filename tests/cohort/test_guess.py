import numpy as np, pandas as pd, pytest
from cxr_fastai.cohort.guess import guess_columns, patient_of
from cxr_fastai.cohort.readers import table_rows

N = 40

def table(**more):
    rng = np.random.default_rng(0)
    own = dict(name=[f"f{i}.png" for i in range(N)], patient=[f"p{i // 2}" for i in range(N)],
               label=["sick" if i % 4 < 2 else "normal" for i in range(N)], sex=rng.choice(["F", "M"], N),
               age=rng.integers(20, 90, N))
    columns = {k: v for k, v in (own | more).items() if v is not None}
    return pd.DataFrame(columns).astype("str").set_axis(range(2, N + 2))

def there(names): return {o: f"/films/{o}" for o in names if str(o).endswith(".png")}

def guessed(find=there, given=None, **more): return guess_columns(table(**more), "own.csv", find, given or {})

def test_names_and_what_is_in_them_say_which_column_is_which(capsys):
    names, guess = guessed(hospital=["a", "b", "c", "a"]*(N//4), bmi=np.linspace(18, 40, N).round(1),
                           notes=[f"text {i}" for i in range(N)], grade=[1, 2, 3, 4]*(N//4), empty=[None]*N)
    assert (names["image"], names["patient"], names["label"]) == ("name", "patient", "label")
    assert (names["positive"], names["negative"]) == ("sick", None)
    assert names["columns"] == dict(cat_names=["sex", "hospital", "grade"], cont_names=["age", "bmi"])
    guess.say()
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1 + len(guess.lines) == 12 and all("--" in o for o in said[1:])
    assert any(o.split()[:2] == ["-", "notes"] for o in said)

def test_a_flag_overrules_each_guess():
    more = dict(file=[f"g{i}.png" for i in range(N)], mrn=[f"q{i // 4}" for i in range(N)], tb=[0, 1]*(N//2))
    given = dict(image="file", patient="mrn", label="tb", cat="age", cont="")
    names, _ = guessed(given=given, **more)
    assert {k: names[k] for k in ("image", "patient", "label")} == {k: given[k] for k in ("image", "patient", "label")}
    assert names["columns"] == dict(cat_names=["age"], cont_names=[]) and names["positive"] == "1"

@pytest.mark.parametrize("more, given, why", [
    (dict(side=[f"g{i}.png" for i in range(N)]), {}, "'name', 'side' may each be the images; say which by --image"),
    (dict(patient_id=[f"q{i}" for i in range(N)]), {}, "'patient', 'patient_id' may each be the patients.*--patient"),
    (dict(diagnosis=["x", "y"]*(N//2)), {}, "'label', 'diagnosis' may each be the label.*--label"),
    (dict(label=None, a=[0, 1]*(N//2), b=[0, 0, 1, 1]*(N//4)), {}, "'a', 'b' may each be the label.*--label"),
    (dict(label=None), {}, "no column is known to be the label.*--label"),
    (dict(name=None), {}, "no column is known to be the images.*--image"),
    (dict(patient=None), {}, "no column is known to name the patients.*--patient 'name'"),
    (dict(label=None, smoker=["yes", "no"]*(N//2), group=["x", "y", "normal", "x"]*(N//4)), {},
     "'smoker', 'group' may each be the label.*--label"),
    (dict(label=None, outcome=[0, 1]*(N//2), diagnosis=["x", "y", "z", "x"]*(N//4)), {},
     "'outcome', 'diagnosis' may each be the label.*--label"),
    (dict(label=None, normal=[0, 1]*(N//2)), {}, "column 'normal' has '0', '1', .* as it is named for .*--positive"),
    (dict(label=None, no_pneumonia=["y", "z"]*(N//2)), {}, "named for films without; name it by --positive"),
    ({}, dict(cat="label"), "no column is known to be the label, of 'sex', 'age';"),
    (dict(patient=None, label=None, name=[f"person{i}_1.png" for i in range(N)]), {}, "the label, of 'sex', 'age';"),
    (dict(label=["a", "b"]*(N//2)), {}, "which don't say which is which class; name it by --positive"),
    (dict(label=["a", "b", "normal", "d"]*(N//4)), {}, "--positive"),
    (dict(label=["a", "b", "c", "d"]*(N//4)), dict(positive="a"), "--negative .or --negatives all"),
    ({}, dict(label="lable"), "no column 'lable', which --label names; did you mean 'label'?"),
    ({}, dict(cat="sexx"), "no column 'sexx', which --cat names"),
    ({}, dict(split_column="x"), "--split-column names")])
def test_what_is_not_sure_is_one_sentence_that_names_candidates_and_flag(more, given, why):
    with pytest.raises(ValueError, match=why) as e: guessed(given=given, **more)
    assert "\n" not in str(e.value)

def test_patients_are_known_by_short_names_too():
    assert guessed(patient=None, PatID=[f"P{i}" for i in range(N)])[0]["patient"] == "PatID"

def test_numbers_with_a_few_words_are_told_from_words():
    told = {o[1]: o[2] for o in guessed(age=None, weight=["k.A.", *range(40, 39 + N)])[1].lines}
    assert told["weight"] == "numbers, but for k.A.: left blank, they are missing"

def test_an_empty_table_is_refused():
    with pytest.raises(ValueError, match="holds no rows"): guess_columns(table().iloc[:0], "own.csv", there, {})

def test_two_columns_that_say_the_same_are_no_doubt():
    names, _ = guessed(path=[f"films/f{i}.png" for i in range(N)], target=[int(i % 4 < 2) for i in range(N)],
                       find=lambda some: {o: o.split("/")[-1] for o in some if o.endswith(".png")})
    assert names["image"] in ("name", "path") and names["label"] == "label"

def test_one_of_many_findings_is_taken():
    words = ["Edema|Pneumonia", "No Finding", "Edema", "Pneumonia"]*(N//4)
    names, _ = guessed(label=None, findings=words)
    assert (names["positive"], names["negative"]) == ("Pneumonia", "No Finding")
    names, _ = guessed(label=None, findings=words, given=dict(finding="Edema", negatives="all"))
    assert (names["positive"], names["negative"]) == ("Edema", None)

def test_a_column_named_as_the_finding_is_the_label():
    names, _ = guessed(pneumonia=[0, 0, 1, 1]*(N//4))
    assert (names["label"], names["positive"]) == ("pneumonia", "1")

def test_of_columns_of_findings_that_of_the_normal_films_is_not_the_label():
    hit = [0, 0, 1, 1]*(N//4)
    names, _ = guessed(label=None, Normal=[1 - o for o in hit], TB=hit)
    assert (names["label"], names["positive"]) == ("TB", "1")
    names, _ = guessed(label=None, Normal=[1 - o for o in hit], TB=hit, given=dict(finding="TB"))
    assert (names["label"], names["positive"]) == ("TB", "1")

def test_of_usual_names_that_whose_words_tell_the_finding_is_the_label():
    words = ["COVID", "Normal", "Pneumonia", "Normal"]*(N//4)
    names, _ = guessed(label=None, outcome=[0, 1, 1, 0]*(N//4), diagnosis=words)
    assert (names["label"], names["positive"], names["negative"]) == ("diagnosis", "Pneumonia", "Normal")

def test_of_two_writings_of_a_word_both_may_be_named():
    names, _ = guessed(label=["sick", "SICK", "normal", "normal"]*(N//4), given=dict(positive="sick,SICK"))
    assert names["negative"] == "normal"

def test_a_label_of_which_one_word_means_missing_is_told():
    names, _ = guessed(label=["sick", "none"]*(N//2))
    assert names["positive"] == "sick"

def test_what_gives_the_answer_away_is_no_metadata():
    text = table(treated=["yes" if i % 4 < 2 else "no" for i in range(N)])
    names, guess = guess_columns(text, "own.csv", there, {})
    own = {k: names[k] for k in ("image", "patient", "label", "columns")}
    assert "treated" in own["columns"]["cat_names"]
    rows = guess.screened(table_rows(text, "own.csv", **own, words=dict(positive="sick")))
    assert "treated" not in rows and rows.attrs["columns"]["cat_names"] == ["sex"]
    assert any(o[:2] == ("-", "treated") and "target" in o[2] for o in guess.lines)

@pytest.mark.parametrize("name, who", [
    ("person1_bacteria_2.jpeg", "person1"), ("IM-0115-0001.jpeg", "IM-0115"), ("00000013_005.png", "00000013"),
    ("NORMAL2-IM-0059-0001-0002.jpeg", "NORMAL2-IM-0059"), ("patient00001/study1/view1_frontal.jpg", "patient00001"),
    ("Patient-7.png", "patient-7"), ("sub-04_ses-1.png", "sub-04"), ("0001.png", None), ("spatula3.png", None),
    ("a1b2c3.dcm", None)])
def test_names_of_films_tell_patients(name, who): assert patient_of(name) == who

def test_patients_by_the_names_of_films():
    names, _ = guessed(patient=None, name=[f"person{i // 2}_{i}.png" for i in range(N)])
    assert names["patient"] == "patient in the image's name"

def test_no_tb_is_the_negative_of_tb_and_a_finding_is_no_metadata():
    names, guess = guessed(label=["tb", "no tb"]*(N//2), edema=[0, 1]*(N//2))
    assert names["positive"] == "tb" and names["columns"]["cat_names"] == ["sex"]
