import numpy as np, pandas as pd, pytest
from PIL import Image
from cxr_fastai.cohort.readers import read_nih
from cxr_fastai.cohort.rows import positive
from cxr_fastai.cohort.sampling import split_patients
from cxr_fastai.cohort.duplicates import NEAR, perceptual_hash
from cxr_fastai.cohort import leaks as room
from cxr_fastai.cohort.leaks import LeakError, check_ids, check_leaks
from conftest import ROOT, SHARED, needs_nih

PHANTOM = ROOT/"data"/"phantom"
FEATURES = ["sex", "view", "site", "age", "dose"]

def table(seed=0, n=80):
    "Rows of `n` patients with harmless metadata, split."
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(n), rng.integers(1, 5, n))
    visit, m = pd.Series(who).groupby(who).cumcount(), len(who)
    label = pd.Categorical.from_codes((rng.random(n) < .3)[who].astype(int), ["Normal", "Pneumonia"], ordered=True)
    image = [f"{w:04}_{v}.png" for w, v in zip(who, visit)]
    rows = pd.DataFrame({"image": image, "patient_id": who, "follow_up": visit, "label": label,
                         "findings": label.astype(str), "sex": rng.choice(["F", "M"], n)[who],
                         "view": rng.choice(["AP", "PA"], m), "site": rng.choice([*"abcdefgh", None], m),
                         "age": rng.integers(1, 90, n)[who] + visit/2., "dose": rng.gamma(2, 3, m).round(1)})
    return split_patients(rows.assign(file="films/" + rows["image"]), seed=seed)

def fitted(rows, side="train"):
    "Statistics of the rows of train and `side`."
    o = rows[rows["split"].isin([side, "train"])]
    words = {c: sorted(o[c].dropna().unique()) for c in ("sex", "view", "site") if c in o}
    return words | {c: (o[c].min(), o[c].max()) for c in ("age", "dose") if c in o}

def noise(n, seed=0): return np.random.default_rng(seed).integers(0, 2**63, (n, 4)).astype(np.uint64)

def flip(hashed, k, seed=0):
    "`hashed` [4] with `k` of its bits turned."
    bits = np.unpackbits(hashed.view(np.uint8))
    bits[np.random.default_rng(seed).choice(256, k, replace=False)] ^= 1
    return np.packbits(bits).view(np.uint64)

def films(n, seed=0):
    "Smooth pictures, no two alike."
    rng = np.random.default_rng(seed)
    small = [Image.fromarray(rng.integers(40, 216, (24, 24), dtype=np.uint8)) for _ in range(n)]
    return np.stack([np.asarray(o.resize((256, 256), Image.Resampling.BICUBIC)) for o in small])

def one_of(rows, *sides): return [rows.index[rows["split"] == o][0] for o in sides]

@pytest.mark.parametrize("seed", range(20))
def test_a_clean_random_split_raises_nothing(seed):
    rows = table(seed)
    check_leaks(rows, FEATURES, noise(len(rows), seed), fitted(rows))

def test_small_tables_and_no_features_raise_nothing():
    rows = table(n=12)
    check_leaks(rows)
    check_leaks(rows.drop(columns=["label", "follow_up", "file"]), FEATURES, noise(len(rows)), fitted(rows))
    check_leaks(rows.sample(frac=1, random_state=0).set_index("image", drop=False), FEATURES)

def test_a_patient_on_two_sides():
    rows = table()
    a, b = one_of(rows, "train", "test")
    rows.loc[b, "patient_id"] = rows.loc[a, "patient_id"]
    with pytest.raises(LeakError, match="'patient_id' has values on two sides .1., in the rows .* .train., .*"):
        check_leaks(rows)
    with pytest.raises(LeakError, match=f"in the rows {rows['image'][a]} .train., {rows['image'][b]} .test.;"):
        check_leaks(rows.loc[[a, b]])

@pytest.mark.parametrize("column", ["image", "file"])
def test_an_image_on_two_sides(column):
    rows = table()
    a, b = one_of(rows, "valid", "test")
    rows.loc[b, column] = rows.loc[a, column]
    i, j = rows["image"][sorted([a, b])]
    words = rf"'{column}' has values on two sides \(1\), in the rows {i} \(\w+\), {j} \(\w+\);"
    with pytest.raises(LeakError, match=words):
        check_leaks(rows)

def test_an_image_twice_on_one_side_is_no_leak():
    rows = table()
    train = rows[rows["split"] == "train"]
    both = pd.concat([rows, train], ignore_index=True)
    check_leaks(both, FEATURES, np.concatenate([noise(len(rows)), noise(len(rows))[train.index]]), fitted(rows))

@pytest.mark.parametrize("bits", [0, 1, NEAR])
def test_a_near_duplicate_on_two_sides(bits):
    rows = table()
    (a, b), hashes = one_of(rows, "train", "valid"), noise(len(rows))
    hashes[b] = flip(hashes[a], bits)
    i, j = sorted([a, b])
    words = rf"1 pairs .* nearest {bits} bits apart: {rows['image'][i]} \(\w+\) = {rows['image'][j]} \(\w+\);"
    with pytest.raises(LeakError, match=words): check_leaks(rows, hashes=hashes)
    hashes[b] = flip(hashes[a], NEAR + 1)
    check_leaks(rows, hashes=hashes)

def test_a_near_duplicate_on_one_side_is_no_leak():
    rows, hashes = table(), noise(len(table()))
    a, b = rows.index[rows["split"] == "train"][:2]
    hashes[b] = flip(hashes[a], 3)
    check_leaks(rows, hashes=hashes)

@pytest.mark.parametrize("side", ["valid", "test"])
def test_a_synthetic_row_outside_train(side):
    rows = table()
    at, = one_of(rows, side)
    made = rows.assign(synthetic=rows.index == at)
    with pytest.raises(LeakError, match=rf"1 synthetic rows are outside train.*: {rows['image'][at]} \({side}\)"):
        check_leaks(made)
    check_leaks(rows.assign(synthetic=False))

def test_a_synthetic_row_of_train_may_be_near_its_source_and_not_a_row_of_another_side():
    rows, (a, b) = table(), one_of(table(), "train", "test")
    child = rows.loc[[a]].assign(image="made.png", file="made/made.png", synthetic=True)
    both, hashes = pd.concat([rows, child], ignore_index=True), noise(len(rows) + 1)
    hashes[-1] = flip(hashes[a], 2)
    check_leaks(both, FEATURES, hashes, fitted(rows)) # NaN says that the others are real
    hashes[-1] = flip(hashes[b], 2)
    words = r"1 pairs of near-duplicates .*made.png \(train\)"
    with pytest.raises(LeakError, match=words): check_leaks(both, hashes=hashes)
    other = child.assign(patient_id=rows["patient_id"][b])
    with pytest.raises(LeakError, match="'patient_id' has values on two sides"):
        check_leaks(pd.concat([rows, other], ignore_index=True))

@pytest.mark.parametrize("name", ["synthetic", "metadata_policy",
                                  "label", "findings", "split", "image", "file", "patient_id", "follow_up",
                                  "Follow-up #", "Patient ID", "Finding Labels", "Image Index"])
def test_columns_that_are_no_features(name):
    rows = table()
    with pytest.raises(LeakError, match=f"feature '{name}' .* in the rows {rows['image'][0]} .* more; take it out"):
        check_leaks(rows, ["sex", name])

LEAKS = {
    "the label in other words": (lambda r: np.where(positive(r), "ill", "well"), "is the target in other words"),
    "the label as a number": (lambda r: positive(r).astype(float), "is the target in other words"),
    "a grade above 0 is positive": (lambda r: positive(r) * (1 + r["patient_id"] % 3), "is the target in other words"),
    "only positives have it": (lambda r: pd.Series("yes", r.index).where(positive(r)), "is the target in other words"),
    "a word for each image": (lambda r: "s" + r.index.astype(str), "has a word of its own for most images"),
    "the patient's number": (lambda r: r["patient_id"], "is a copy of 'patient_id'"),
    "the visit's number": (lambda r: r["follow_up"].astype(float), "is a copy of 'follow_up'")}

@pytest.mark.parametrize("name", LEAKS)
def test_a_leak_under_another_name(name):
    rows, (make, words) = table(n=150), LEAKS[name]
    rows["extra"] = make(rows)
    with pytest.raises(LeakError, match=f"feature 'extra' {words}.*in the rows {rows['image'][0]}"):
        check_leaks(rows, ["extra"])

@pytest.mark.parametrize("side", ["valid", "test"])
def test_statistics_fitted_beyond_train(side):
    rows = table()
    at = one_of(rows, side)[0]
    for column, value in ("site", "z"), ("age", 99.), ("dose", -1.):
        wrong = rows.copy()
        wrong.loc[at, column] = value
        check_leaks(wrong, FEATURES, stats=fitted(wrong))
        words = f"'{column}' include {value}.*, which are in no training row but in {rows['image'][at]} .{side}.*; fit"
        with pytest.raises(LeakError, match=words):
            check_leaks(wrong, FEATURES, stats=fitted(wrong, side))

def test_words_of_numbers_may_be_fitted():
    rows = table().assign(grade=lambda r: r["patient_id"] % 3)
    train = rows[rows["split"] == "train"]
    check_leaks(rows, ["grade"], stats={"grade": sorted(train["grade"].astype(str).unique())})
    rows.loc[one_of(rows, "test"), "grade"] = 9
    with pytest.raises(LeakError, match="'grade' include 9"):
        check_leaks(rows, ["grade"], stats={"grade": ["0", "1", "2", "9"]})

def test_all_leaks_are_told_at_once():
    rows = table()
    a, b = one_of(rows, "train", "test")
    rows.loc[b, "patient_id"] = rows.loc[a, "patient_id"]
    with pytest.raises(LeakError, match="(?s)'patient_id'.*feature 'follow_up'"): check_leaks(rows, ["follow_up"])

def test_a_table_that_cannot_be_checked():
    rows = table()
    with pytest.raises(ValueError, match="has no column 'split'"): check_leaks(rows.drop(columns="split"))
    with pytest.raises(ValueError, match="has no column 'height'"): check_leaks(rows, stats={"height": (0, 1)})
    with pytest.raises(ValueError, match="Feature 'height' is no column"): check_leaks(rows, ["height"])
    with pytest.raises(ValueError, match=f"need hashes of shape .{len(rows)}, 4., not"):
        check_leaks(rows, hashes=noise(3))
    rows["split"] = rows["split"].mask(rows.index == 2)
    with pytest.raises(ValueError, match=f"1 rows have no split: {rows['image'][2]}"): check_leaks(rows)

def hashed(rows): return perceptual_hash(np.stack([np.asarray(Image.open(o).convert("L")) for o in rows["file"]]))

@pytest.fixture(scope="module")
def sample():
    rows = read_nih(SHARED/"nih_sample"/"Data_Entry_2017_v2020.csv", images=SHARED/"nih_sample"/"images")
    return rows, hashed(rows)

def pixels(rows): return np.stack([np.asarray(Image.open(o).convert("L")) for o in rows["file"]])

@needs_nih
@pytest.mark.slow
def test_splits_of_the_sample_raise_and_tell_nothing(sample, recwarn):
    rows, hashes = sample
    films = pixels(rows)
    for seed in range(5):
        res = split_patients(rows, seed=seed)
        check_leaks(res, ["age", "sex", "view"], hashes, fitted(res), films.__getitem__)
    assert not recwarn

@pytest.mark.skipif(not PHANTOM.exists(), reason="needs data/phantom")
@pytest.mark.slow
def test_splits_of_the_phantoms_raise_and_tell_nothing(recwarn):
    rows = read_nih(next(PHANTOM.glob("Data_Entry*.csv")), images=PHANTOM)
    films = pixels(rows)
    hashes = perceptual_hash(films)
    for seed in range(5):
        check_leaks(split_patients(rows, seed=seed), ["age", "sex", "view"], hashes, films=films.__getitem__)
    assert not recwarn

@pytest.mark.parametrize("change, words", [
    (lambda o: o[:,::-1], "over or inverted: .* = .*, mirrored"),
    (lambda o: 255 - o, "over or inverted: .* = .*, inverted"),
    (lambda o: np.asarray(Image.fromarray(o[12:-12,12:-12]).resize((256, 256))), "cropped, bordered")])
def test_a_changed_film_on_another_side(change, words):
    rows, pictures = table(n=12), films(len(table(n=12)))
    a, b = one_of(rows, "train", "test")
    pictures[b] = change(pictures[a])
    with pytest.raises(LeakError, match=f"1 pairs of films on two sides are one film.*{words}"):
        check_leaks(rows, hashes=perceptual_hash(pictures), films=pictures.__getitem__)

@pytest.mark.parametrize("one", ["0013", "13 ", "13.0", 13])
def test_a_patient_in_two_spellings(one):
    rows = table()
    rows["patient_id"] = rows["patient_id"].astype(str).astype(object)
    at = rows.index[rows["patient_id"] == "13"]
    rows = pd.concat([rows, rows.loc[at[:1]].assign(image="again.png", file="again.png")], ignore_index=True)
    rows.at[len(rows) - 1, "patient_id"] = one
    for check in check_leaks, split_patients:
        with pytest.raises(LeakError, match=f"1 patients have ids in more than one spelling: .*{one!r}"): check(rows)

def test_ids_that_are_nearly_alike_are_told_of():
    rows = pd.DataFrame({"patient_id": ["P-013", "p13", "A7"]})
    with pytest.warns(UserWarning, match="'P-013' and 'p13'"): check_ids(rows)

def test_a_patient_for_each_image_is_said(recwarn):
    rows = table(n=60).drop_duplicates("patient_id").reset_index(drop=True)
    check_leaks(rows)
    assert not recwarn # all are first visits
    with pytest.warns(UserWarning, match="60 images has a patient of its own, and no column follow_up"):
        check_leaks(rows.drop(columns="follow_up"))

def planted():
    "{kind: (rows, pixels)} of one leak each, in the same table."
    rows, pictures = table(n=150), films(len(table(n=150)))
    (a, b), hit = one_of(rows, "train", "test"), positive(rows)
    rng, image = np.random.default_rng(0), Image.fromarray
    flipped = hit ^ (rng.permutation(len(rows)) < len(rows)//100)
    sized = lambda o: np.asarray(image(o).resize((256, 256)))
    moved = lambda o: np.roll(o, (4, 4), (0, 1))
    copies = {"brighter": lambda o: np.minimum(o*1.1 + 10, 255).astype(np.uint8),
              "smaller": lambda o: sized(o[::2,::2]),
              "mirrored": lambda o: o[:,::-1], "upside down": lambda o: o[::-1], "on its side": lambda o: o.T,
              "inverted": lambda o: 255 - o, "cropped": lambda o: sized(o[20:-20,20:-20]), "moved": moved,
              "turned": lambda o: np.asarray(image(o).rotate(3)),
              "bordered": lambda o: np.pad(np.asarray(image(o).resize((224, 224))), 16)}
    features = {"1% flipped": flipped*1., "noised": hit + rng.normal(0, .2, len(rows)),
                "many words": [f"w{i*7 % 41}" for i in rng.integers(0, 20, len(rows))*2 + flipped],
                "missing where ill": np.where(hit, np.nan, rng.normal(size=len(rows))),
                "visit": np.log1p(rows["follow_up"]), "side": rows["split"].map(dict(train=0, valid=5, test=9))}
    for kind, change in copies.items():
        changed = pictures.copy()
        changed[b] = change(pictures[a])
        yield kind, rows, changed
    for kind, values in features.items(): yield kind, rows.assign(extra=values), None
    ids = rows.assign(patient_id=rows["patient_id"].astype(object))
    ids.at[b, "patient_id"] = f"{ids.at[a, 'patient_id']:04}"
    yield "two spellings", ids, None
    both = rows["patient_id"].where(rows.index != b, rows.at[a, "patient_id"])
    yield "one patient", rows.assign(patient_id=both), None
    yield "each image a patient", rows.assign(patient_id=rows["image"]).drop(columns="follow_up"), None
    yield "synthetic in test", rows.assign(synthetic=rows.index == b), None

@pytest.mark.slow
def test_of_twenty_planted_leaks_none_is_silent(recwarn):
    found = {}
    for kind, rows, pictures in planted():
        recwarn.clear()
        hashes = None if pictures is None else perceptual_hash(pictures)
        try: check_leaks(rows, [o for o in ("extra",) if o in rows], hashes, films=pictures is not None
                         and pictures.__getitem__)
        except LeakError: found[kind] = "refused"
        else: found[kind] = "told" if len(recwarn) else "silent"
    assert len(found) == 20 and [k for k, o in found.items() if o != "refused"] == ["each image a patient"], found
    assert found["each image a patient"] == "told"

def test_a_table_that_passed_is_not_asked_again_and_told_of_again(monkeypatch):
    "Unless a value, its kind, the order, a hash, a feature, a statistic or the films are others."
    rows, hashes = table(50).drop(columns="follow_up").drop_duplicates("patient_id", ignore_index=True), noise(80)
    asked, real, own = [], room._checked, fitted(rows)
    monkeypatch.setattr(room, "_checked", lambda *args: asked.append(1) or real(*args))
    def ask(rows=rows, features=FEATURES, hashes=hashes, stats=own, films=None):
        before = len(asked)
        with pytest.warns(UserWarning, match="has a patient of its own"):
            check_leaks(rows, features, hashes, stats, films)
        return len(asked) - before
    assert ask() == 1 and ask() == ask(rows.copy()) == 0
    others = (dict(rows=rows.assign(age=rows["age"] + 1), stats=None), dict(rows=rows[::-1]),
              dict(rows=rows.assign(sex=rows["sex"].astype(object))), dict(hashes=noise(80, 1)),
              dict(features=FEATURES[:2]), dict(stats=None),
              dict(rows=rows.assign(patient_id=rows["patient_id"].astype(str))),
              dict(films=lambda at: films(80)[at]))
    assert [ask(**o) for o in others] == [1]*len(others) and [ask(**o) for o in others] == [0]*len(others)
    sides = ["test", "train", *rows["split"][2:]]
    spoilt = rows.assign(split=sides, image=["a", "a", *rows["image"][2:]])
    for _ in range(2):
        with pytest.raises(LeakError, match="'image' has values on two sides"): check_leaks(spoilt)

def test_duplicated_rows_of_a_side_are_searched_once(monkeypatch):
    seen, rows = [], table(51)
    monkeypatch.setattr(room, "altered_copies", lambda films, sides: seen.append(len(sides)) or np.empty((0, 2), int))
    check_leaks(rows, hashes=noise(len(rows)), films=lambda at: films(len(rows))[at])
    again = pd.concat([rows, rows[rows["split"] == "train"]], ignore_index=True)
    at = [*range(len(rows)), *np.flatnonzero(rows["split"] == "train")]
    check_leaks(again, hashes=noise(len(rows))[at], films=lambda at: films(len(again))[at])
    assert seen == [len(rows)]
