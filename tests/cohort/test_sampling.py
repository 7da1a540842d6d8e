import numpy as np, pandas as pd, pytest
from hypothesis import given, settings, strategies as st
from pandas.testing import assert_frame_equal
from cxr_fastai.cohort.readers import read_nih
from cxr_fastai.cohort.leaks import LeakError
from cxr_fastai.cohort.rows import classes, positive, split_method
from cxr_fastai.cohort.sampling import paper_cohort, side_of, split_given, split_paper, split_patients
from conftest import SHARED, needs_nih


def make(patients, words=("Normal", "Pneumonia")):
    "Rows for `patients`, each a text of its images' labels: '001' has two negatives and a positive."
    who, label = zip(*((i, int(o)) for i, p in enumerate(patients) for o in p))
    visit = pd.Series(who).groupby(list(who)).cumcount()
    label = pd.Categorical.from_codes(label, list(words), ordered=True)
    image = [f"{w:05}_{v:03}.png" for w, v in zip(who, visit)]
    return pd.DataFrame({"image": image, "patient_id": who, "follow_up": visit, "label": label})

def crowd(n=400, seed=0, mixed=.05):
    "Rows of `n` patients as in NIH: most with one image, few with many, a quarter positive, some both."
    rng = np.random.default_rng(seed)
    sizes = np.minimum(rng.geometric(.5, n), 12)
    kinds = rng.choice(["0", "1", "01"], n, p=[.75-mixed, .25, mixed])
    return make([(k*int(s))[:max(len(k), s)] for k, s in zip(kinds, sizes)])

patients = st.lists(st.text("01", min_size=1, max_size=6), min_size=1, max_size=60)

def enough(people, k):
    "Whether each class has `k` patients."
    return all(sum(c in p for p in people) >= k for c in "01")

@settings(max_examples=150, deadline=None)
@given(patients, st.integers(0, 5), st.floats(.1, .6), st.floats(.1, .6))
def test_each_side_has_both_classes_and_no_patient_of_another(people, seed, test, valid):
    rows = make(people)
    if not enough(people, 3):
        with pytest.raises(ValueError, match="3 sides need 3 patients of each class; (Normal|Pneumonia) has [0-2] "):
            split_patients(rows, test, valid, seed)
        return
    res = split_patients(rows, test, valid, seed)
    assert_frame_equal(res.drop(columns="split"), rows)
    assert (res.groupby("patient_id")["split"].nunique() == 1).all()
    assert res.groupby("split")["label"].nunique().to_dict() == dict(train=2, valid=2, test=2)

@settings(max_examples=60, deadline=None)
@given(patients, st.integers(0, 5), st.integers(2, 4))
def test_each_image_is_tested_once_over_the_folds(people, seed, k):
    rows = make(people)
    if not enough(people, k):
        with pytest.raises(ValueError, match=f"{k} sides need {k} patients"): split_patients(rows, folds=k)
        return
    parts = [split_patients(rows, valid=0, seed=seed, folds=k, fold=o) for o in range(k)]
    assert (sum((o["split"] == "test").astype(int) for o in parts) == 1).all()
    for o in parts:
        assert (o.groupby("patient_id")["split"].nunique() == 1).all()
        assert o.groupby("split")["label"].nunique().to_dict() == dict(train=2, test=2)

@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(.1, .5), st.floats(.1, .5))
def test_shares_and_prevalence_are_near_the_target_with_many_patients(seed, test, valid):
    rows = crowd(seed=seed)
    res = split_patients(rows, test, valid, seed)
    want = dict(train=(1-test)*(1-valid), valid=(1-test)*valid, test=test)
    for side, o in res.groupby("split"):
        assert abs(len(o)/len(rows) - want[side]) < .015
        assert abs(positive(o).mean() - positive(rows).mean()) < .03

def test_folds_are_of_one_size_and_prevalence():
    rows = crowd()
    for fold in range(5):
        res = split_patients(rows, folds=5, fold=fold)
        for side, share in dict(train=.64, valid=.16, test=.2).items():
            o = res[res["split"] == side]
            assert abs(len(o)/len(rows) - share) < .015 and abs(positive(o).mean() - positive(rows).mean()) < .03

def test_one_seed_is_one_split_in_any_order_of_the_rows():
    rows = crowd(100)
    res = split_patients(rows, seed=3)
    assert_frame_equal(split_patients(rows, seed=3), res)
    mixed = split_patients(rows.sample(frac=1, random_state=0), seed=3)
    assert_frame_equal(mixed.sort_index(), res)
    assert (split_patients(rows, seed=4)["split"] != res["split"]).mean() > .2

def test_the_biggest_patient_is_on_any_side():
    rows = make(["0"*12] + ["0"]*60 + ["1"]*30)
    found = {split_patients(rows, seed=o)["split"][0] for o in range(40)}
    assert found == {"train", "valid", "test"}

def test_global_random_state_is_left_alone():
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    paper_cohort(split_patients(crowd(60)), n_normal=5)
    assert (np.random.get_state()[1] == before).all()

def test_a_share_of_nothing_is_no_side():
    rows = crowd(60)
    assert set(split_patients(rows, valid=0)["split"]) == {"train", "test"}
    assert set(split_patients(rows, test=0)["split"]) == {"train", "valid"}
    assert set(split_patients(rows, test=0, valid=0)["split"]) == {"train"}
    assert set(split_patients(rows, folds=3, valid=0)["split"]) == {"train", "test"}

@pytest.mark.parametrize("people,words", [
    (["0"]*9, "Pneumonia has 0 .0 images."), (["1"]*9, "Normal has 0 .0 images."),
    (["0"]*9 + ["1111", "11"], "Pneumonia has 2 .6 images.")])
def test_too_few_patients_of_a_class(people, words):
    with pytest.raises(ValueError, match=f"3 sides need 3 patients of each class; {words}"):
        split_patients(make(people))

def test_too_few_patients_for_the_folds():
    rows = make(["0"]*9 + ["1"]*4)
    with pytest.raises(ValueError, match="5 sides need 5 patients of each class; Pneumonia has 4"):
        split_patients(rows, folds=5)

@pytest.mark.parametrize("kwargs,words", [
    (dict(test=1), "test=1 is no share"), (dict(valid=-.1), "valid=-0.1 is no share"),
    (dict(test=float("nan")), "test=nan is no share"), (dict(folds=1), "fold=0 of folds=1 doesn't exist"),
    (dict(folds=3, fold=3), "fold=3 of folds=3"), (dict(folds=3, fold=-1), "fold=-1 of folds=3")])
def test_wrong_shares_and_folds(kwargs, words):
    with pytest.raises(ValueError, match=words): split_patients(crowd(30), **kwargs)

@pytest.mark.parametrize("column", ["label", "patient_id"])
def test_a_row_without_label_or_patient_is_named(column):
    rows = crowd(30).astype({"patient_id": object})
    rows.loc[[2, 5], column] = None
    a, b = rows["image"][[2, 5]]
    with pytest.raises(ValueError, match=f"2 of {len(rows)} rows have no {column}: {a}, {b}; drop them"):
        split_patients(rows)

def test_patients_may_have_names():
    rows = crowd(60)
    named = split_patients(rows.assign(patient_id="p" + rows["patient_id"].astype(str)))
    assert (named.groupby("patient_id")["split"].nunique() == 1).all()

def test_paper_cohort_takes_first_visits_and_says_what_it_found(capsys):
    rows = make(["01"]*30 + ["10"]*20 + ["0"]*10)
    rows.loc[rows["patient_id"] == 59, "label"] = np.nan
    res = paper_cohort(rows, n_normal=25)
    assert capsys.readouterr().out == ("found 20 Pneumonia, 39 Normal at the first visit; "
                                       "taken 20 + 25 (the paper: 212 + 700)\n")
    assert (res["follow_up"] == 0).all() and positive(res).sum() == 20 and len(res) == 45
    assert res["image"].is_monotonic_increasing and res.index.equals(pd.RangeIndex(45)) and res["image"].is_unique
    assert classes(res) == ("Normal", "Pneumonia")

def test_paper_cohort_over_all_visits_or_all_normals(capsys):
    rows = make(["01"]*30 + ["0"]*10)
    assert len(paper_cohort(rows, n_pneumonia=7, n_normal=9, first_visit=False)) == 16
    assert "found 30 Pneumonia, 40 Normal in all; taken 7 + 9" in capsys.readouterr().out
    assert_frame_equal(paper_cohort(rows, n_normal=None, first_visit=False), rows)

def test_paper_cohort_by_seed():
    rows = crowd()
    assert_frame_equal(paper_cohort(rows, 20, 50, seed=1), paper_cohort(rows, 20, 50, seed=1))
    assert not paper_cohort(rows, 20, 50, seed=1).equals(paper_cohort(rows, 20, 50, seed=2))

@pytest.mark.parametrize("kwargs,words", [
    (dict(n_normal=11), "11 Normal rows were asked for; there are 10 at the first visit"),
    (dict(n_normal=5, n_pneumonia=6), "6 Pneumonia rows were asked for; there are 5 at"),
    (dict(n_normal=0), "0 Normal rows were asked for")])
def test_paper_cohort_of_more_than_there_are(kwargs, words):
    with pytest.raises(ValueError, match=words): paper_cohort(make(["0"]*10 + ["1"]*5), **kwargs)

def test_paper_cohort_needs_both_classes_and_visits():
    with pytest.raises(ValueError, match="no Pneumonia rows at the first visit"):
        paper_cohort(make(["0"]*10 + ["01"]), n_normal=5)
    with pytest.raises(ValueError, match="needs the column 'follow_up'"):
        paper_cohort(crowd(60).drop(columns="follow_up"))

@needs_nih
def test_the_whole_table_from_csv_to_split(capsys):
    rows = read_nih(SHARED/"nih_metadata"/"Data_Entry_2017_v2020.csv.gz")
    res = split_patients(paper_cohort(rows, n_normal=None, first_visit=False))
    assert "found 1,431 Pneumonia, 60,361 Normal in all; taken 1,431 + 60,361 (the paper" in capsys.readouterr().out
    assert (res.groupby("patient_id")["split"].nunique() == 1).all()
    for side, share in dict(train=.56, valid=.14, test=.3).items():
        o = res[res["split"] == side]
        assert abs(len(o)/len(res) - share) < .001 and abs(positive(o).sum()/1431 - share) < .005

@needs_nih
def test_the_samples_patients_with_both_classes_stay_whole():
    rows = read_nih(SHARED/"nih_sample"/"Data_Entry_2017_v2020.csv")
    both = rows.groupby("patient_id")["label"].nunique() == 2
    assert both.any()
    for seed in range(20):
        res = split_patients(rows, seed=seed)
        assert (res.groupby("patient_id")["split"].nunique() == 1).all()

def test_the_papers_split_is_what_its_figures_imply():
    "912 real rows and 350 synthetic ones: 201 or so are scored, some 84 of them positive, some 52 of these synthetic."
    label = pd.Categorical(["Pneumonia"]*212 + ["Normal"]*700 + ["Pneumonia"]*350, ["Normal", "Pneumonia"],
                           ordered=True)
    rows = pd.DataFrame(dict(image=range(1262), label=label, synthetic=[False]*912 + [True]*350))
    scored, hits, made = [], [], []
    for seed in range(60):
        test = split_paper(rows, seed).query("split == 'test'")
        scored.append(len(test))
        hits.append((test.label == "Pneumonia").sum())
        made.append(test.synthetic.sum())
    assert set(scored) == {202} and abs(np.mean(hits) - 88.5) < 3 and set(made) == {56}
    counts = split_paper(rows).split.value_counts()
    assert counts["valid"] == 252 and counts["train"] == 808

def test_real_rows_keep_their_sides_whatever_synthetic_rows_join_them():
    rows = pd.DataFrame(dict(image=range(100), synthetic=[False]*60 + [True]*40))
    one, two = split_paper(rows, 3), split_paper(rows[:70], 3)
    three = split_paper(rows[:60].drop(columns="synthetic"), 3)
    assert list(one.split[:60]) == list(two.split[:60]) == list(three.split)
    assert list(one.split[:60]) != list(split_paper(rows, 4).split[:60])

def own_split(rows, words):
    return rows.drop(columns="split", errors="ignore").assign(split=rows["patient_id"].mod(len(words)).map(words))

def test_a_tables_own_split_is_taken_in_whatever_words(rows):
    words = {0: "Training", 1: "test ", 2: "VAL", 3: "train_1"}
    split = split_given(own_split(rows, words))
    assert {*split.split} == {"train", "valid", "test"} and split_method(split) == {}
    assert split.split.eq("test").equals(rows.patient_id.mod(4).eq(1))
    sides = dict(validate="valid", Dev="train", x=None, testament=None) | {"hold-out": "test"}
    assert {o: side_of(o) for o in sides} == sides

def test_without_a_valid_side_one_is_made_of_train_by_patient(rows, capsys):
    split = split_given(own_split(rows, {0: "train", 1: "train", 2: "test", 3: "train"}), seed=1)
    assert split.groupby("patient_id").split.nunique().eq(1).all() and (split.split == "valid").sum() > 4
    assert split.split.eq("test").equals(rows.patient_id.mod(4).eq(2)) and "by patient" in capsys.readouterr().out

@pytest.mark.parametrize("words, why", [
    ({0: "train", 1: "later"}, "no side that is known .'later'."), ({0: "train", 1: None}, "no side that is known"),
    ({0: "train", 1: "val"}, "has no test rows"), ({0: "test", 1: "val"}, "has no train rows")])
def test_a_split_that_is_none_is_one_sentence(rows, words, why):
    with pytest.raises(ValueError, match=why): split_given(own_split(rows, words))

@pytest.mark.parametrize("side", ["train", "valid", "test"])
def test_a_side_of_one_class_is_refused_before_anything_is_trained(rows, side):
    given = own_split(rows, {0: "train", 1: "test", 2: "valid", 3: "train"})
    given = given[(given.split != side) | (given.label == "Normal")]
    with pytest.raises(ValueError, match=f"no Pneumonia among its [0-9]+ {side} rows.*both classes"): split_given(given)

def test_a_tables_own_split_with_a_patient_on_two_sides_is_a_leak(rows):
    leaky = own_split(rows, {0: "train", 1: "test", 2: "valid"})
    leaky.loc[leaky.patient_id.duplicated(), "split"] = "test"
    with pytest.raises(LeakError, match="'patient_id' has values on two sides"): split_given(leaky)
