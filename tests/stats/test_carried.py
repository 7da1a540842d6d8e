import pytest
from cxr_fastai.cohort.sampling import each_fold
from cxr_fastai.stats.carried import carried_shortcuts, carried_words
from cxr_fastai.stats.shortcuts import SHORTCUTS, scored_shortcuts, shortcut_predictions
from .test_shortcuts import films

lighter = lambda x, label, rng: (x*.8 + 40*label).astype("uint8")

@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    new = tmp_path_factory.mktemp
    return films(new("bright"), lighter), films(new("plain"), n=90, seed=4), films(new("other"), lighter, n=90, seed=5)

def carried(rows, others):
    inside = scored_shortcuts(shortcut_predictions(rows, 48)[0])
    return carried_shortcuts(rows, others, inside, 48).set_index("shortcut"), inside

def test_a_shortcut_that_is_not_there_is_named(sets):
    bright, plain, _ = sets
    table, inside = carried(bright, plain) # both have films of the same names
    own = inside.set_index(["arm", "metric"])
    assert table["inside"]["16 x 16 thumbnail"] == own["mean"]["thumbnail", "rocauc"]
    assert table["inside"]["border only"] > .9 and .2 < table["outside"]["border only"] < .75
    said, = carried_words(table.reset_index())
    assert "16 x 16 thumbnail (AUC" in said and "border only" in said and "metadata alone" not in said

def test_one_that_is_there_too_is_not(sets):
    bright, _, other = sets
    table, _ = carried(bright, other)
    assert table["outside"]["16 x 16 thumbnail"] > .9 and not carried_words(table.reset_index())
    assert list(table.index) == [o.title for o in SHORTCUTS.values()]

def test_folds_ask_each_of_their_probes_and_what_a_table_lacks_is_empty(sets):
    bright, plain, _ = sets
    folds = each_fold(bright.drop(columns="split"), 3, seed=0)
    table, _ = carried(folds, plain.drop(columns=["sex", "view", "age"]))
    assert table["outside"]["16 x 16 thumbnail"] < table["inside"]["16 x 16 thumbnail"]
    assert table["outside"].notna().sum() >= 4
