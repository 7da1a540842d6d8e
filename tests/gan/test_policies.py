from itertools import permutations
import numpy as np, pandas as pd, pytest
from hypothesis import given, settings, strategies as st
from cxr_fastai.gan.policies import _costs, Columns, match_sources, metadata_probe

NAMES = ["sex", "view", "age"]
COLUMNS = Columns(NAMES[:2], NAMES[2:], within=5.)

people = st.lists(st.tuples(st.sampled_from(["F", "M", None]), st.sampled_from(["AP", "PA"]),
                            st.one_of(st.none(), st.integers(0, 30))), min_size=2, max_size=5)

def table(values): return pd.DataFrame(values, columns=NAMES).astype(dict(age=float))

def wrong(a, b, within=5):
    "Different words, numbers too far apart, and years between, of one pair; by hand."
    words = sum((x or "") != (y or "") for x, y in zip(a[:2], b[:2]))
    if (a[2] is None) != (b[2] is None): return words, 1, 0
    gap = abs((a[2] or 0) - (b[2] or 0))
    return words, int(gap > within), gap

@settings(deadline=None, max_examples=60)
@given(people, people)
def test_matching_is_the_best_of_all_assignments(donors, sources):
    donors = donors[:len(sources)]
    cost, match = _costs(table(donors), table(sources), COLUMNS)
    each = [[wrong(a, b) for b in sources] for a in donors]
    np.testing.assert_array_equal(match, [[o[:2] == (0, 0) for o in line] for line in each])
    best = min(tuple(map(sum, zip(*(each[i][j] for i, j in enumerate(way)))))
               for way in permutations(range(len(sources)), len(donors)))
    own = table(sources).assign(row=range(len(sources)))
    found = match_sources(table(donors), own, COLUMNS, np.random.default_rng(0))["row"]
    assert found.is_unique and tuple(map(sum, zip(*(each[i][j] for i, j in enumerate(found))))) == best

def test_what_can_not_be_matched_is_counted_and_a_perfect_match_is_silent(capsys):
    donors = table([("F", "PA", 30.), ("M", "AP", 40.), ("M", "AP", None)])
    rng = np.random.default_rng(0)
    match_sources(donors, table([("F", "PA", 33.), ("M", "AP", None), ("M", "AP", 44.)]), COLUMNS, rng)
    assert capsys.readouterr().out == ""
    match_sources(donors, table([("F", "AP", 33.), ("M", "AP", 3.), ("M", "AP", 47.)]), COLUMNS, rng)
    told = capsys.readouterr().out
    assert "3 of 3 rows have no unused source that matches (the same sex, the same view, age within 5)" in told

# the probe

def people_of(n, label, seed, name="r"):
    "Metadata of `n` patients, split train."
    r = np.random.default_rng(seed)
    age = np.where(r.random(n) < .05, np.nan, r.normal(50, 15, n).round())
    label = pd.Categorical([label]*n, ["Normal", "Pneumonia"], ordered=True)
    return pd.DataFrame(dict(image=[f"{name}{i}" for i in range(n)], patient_id=np.arange(n) + 10_000*seed,
                             split="train", sex=r.choice(["F", "M"], n), view=r.choice(["AP", "PA"], n), age=age,
                             label=label))

def copies(rows, at):
    own = rows.iloc[at]
    return own.assign(donor_image=own["image"], source_image="", metadata_policy="donor")

def some(n, k, seed): return np.random.default_rng(seed).choice(n, k, replace=False)

def test_probe_of_copies_is_a_coins_where_each_is_used_equally_often():
    real = people_of(120, "Pneumonia", 1)
    assert metadata_probe(real, copies(real, np.tile(np.arange(120), 2))) == pytest.approx(.5)

def test_probe_of_random_copies_is_near_a_coins_and_never_flags_them():
    real = people_of(150, "Pneumonia", 1)
    drawn = [metadata_probe(real, copies(real, some(150, 120, s))) for s in range(10)]
    assert .45 < min(drawn) and max(drawn) < .55 and abs(np.mean(drawn) - .5) < .02

def test_probe_finds_what_tells_them_apart_alone_or_together():
    real = people_of(200, "Pneumonia", 1)
    fake = people_of(200, "Pneumonia", 2, "f").assign(donor_image=None, metadata_policy="source")
    fake["source_image"] = fake["image"]
    normal = fake.assign(label=pd.Categorical(["Normal"]*200, real["label"].cat.categories, ordered=True))
    rows = pd.concat([real, normal])
    assert .4 < metadata_probe(rows, fake) < .57
    assert metadata_probe(rows, fake.assign(age=fake["age"] + 15)) > .65
    assert metadata_probe(rows, fake.assign(age=np.nan)) > .95
    assert metadata_probe(rows, fake.assign(sex=None, view=None, age=np.nan)) > .99
    odd = real["sex"].eq("F").eq(real["view"].eq("PA")) # each word is as frequent as before, pairs of them are not
    assert metadata_probe(rows[~rows["image"].isin(real["image"][odd])], fake) > .6

def test_probe_reads_train_rows_of_that_label_only():
    real, other = people_of(60, "Pneumonia", 1), people_of(60, "Normal", 2, "n").assign(age=90.)
    synth = copies(real, np.arange(60))
    held = people_of(60, "Pneumonia", 3, "t").assign(split="test", age=90.)
    made = people_of(60, "Pneumonia", 4, "s").assign(synthetic=True, age=90.)
    alone = metadata_probe(real, synth)
    assert metadata_probe(pd.concat([real, other, held, made.astype(dict(synthetic=object))]), synth) == alone

def test_probe_of_image_only_or_few_rows_or_no_columns_is_nan():
    real = people_of(60, "Pneumonia", 1)
    synth = copies(real, np.arange(60))
    assert np.isnan(metadata_probe(real, synth.assign(metadata_policy="image-only")))
    assert np.isnan(metadata_probe(real, synth.iloc[:9])) and np.isnan(metadata_probe(real, synth, (), ()))
