import io
from pathlib import Path
import numpy as np, pandas as pd, pytest
from hypothesis import given, settings, strategies as st
from PIL import Image
from cxr_fastai.cohort import positive, read_nih, split_patients
from cxr_fastai.leaks import NEAR, LeakError, check_leaks, near_duplicates, perceptual_hash

SHARED = Path(__file__).parents[2]/"shared"/"data"
needs_nih = pytest.mark.skipif(not SHARED.exists(), reason="needs the NIH sample")
PHANTOM = Path(__file__).parents[1]/"data"/"phantom"
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

def one_of(rows, *sides): return [rows.index[rows["split"] == o][0] for o in sides]

def bits_apart(a, b): return np.bitwise_count(a ^ b).sum(-1).astype(int)

def films(n=12, size=256, seed=0):
    "Smooth pictures, no two alike."
    rng = np.random.default_rng(seed)
    small = [Image.fromarray(rng.integers(40, 216, (24, 24), dtype=np.uint8)) for _ in range(n)]
    return np.stack([np.asarray(o.resize((size, size), Image.Resampling.BICUBIC)) for o in small])

def jpeg(film, quality=75):
    file = io.BytesIO()
    Image.fromarray(film).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))

def resized(film, size): return np.asarray(Image.fromarray(film).resize((size, size), Image.Resampling.BILINEAR))

def shifted(film, dx, dy): return np.pad(film, 2, mode="edge")[2+dy:2+dy+len(film), 2+dx:2+dx+len(film)]

def level(film, times, plus): return ((film - 128.)*times + 128 + plus).clip(0, 255).astype(np.uint8)

COPIES = {
    "jpeg": jpeg, "small jpeg": lambda o: jpeg(resized(o, 128)), "128": lambda o: resized(o, 128),
    "512": lambda o: resized(o, 512), "brighter": lambda o: level(o, 1, 20), "darker": lambda o: level(o, 1, -20),
    "harder": lambda o: level(o, 1.2, 0), "softer": lambda o: level(o, .8, 0), "1 px": lambda o: shifted(o, 1, 0),
    "2 px": lambda o: shifted(o, 0, -2)}

@pytest.mark.parametrize("seed", range(100))
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
    "another number of the patient": (lambda r: 7919 * r["patient_id"] % 100_003, "is a whole number for each patient"),
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

@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 120), st.integers(1, 4), st.integers(1, 256))
def test_near_duplicates_are_those_of_all_comparisons(seed, n, k, free):
    rng = np.random.default_rng(seed) # few free bits make all hashes alike, many make copies of a few
    bits = rng.integers(0, 2, (max(n//4, 1), 256))[rng.integers(0, max(n//4, 1), n)]
    bits[:, :free] ^= rng.random((n, free)) < rng.choice([.02, .05, .1])
    hashes, sides = np.packbits(bits.astype(bool), axis=1).view(np.uint64).reshape(n, 4), rng.choice([*"abcd"[:k]], n)
    pairs, apart = near_duplicates(hashes, sides)
    seen, want = set(), {}
    first = [i for i in range(n) if (key := (sides[i], *hashes[i].tolist())) not in seen and not seen.add(key)]
    for i in first:
        for j in first:
            if i < j and sides[i] != sides[j] and (d := bits_apart(hashes[i], hashes[j])) <= NEAR: want[i, j] = d
    assert dict(zip(map(tuple, pairs.tolist()), apart.tolist())) == want and (np.diff(apart) >= 0).all()

def test_many_equal_images_are_one_finding():
    pairs, bits = near_duplicates(np.zeros((3000, 4), np.uint64), np.arange(3000) % 3)
    assert pairs.tolist() == [[0, 1], [0, 2], [1, 2]] and bits.tolist() == [0, 0, 0]

@pytest.mark.parametrize("name", COPIES)
def test_copies_of_a_film_hash_alike(name):
    pixels = films()
    copies = np.stack([COPIES[name](o) for o in pixels])
    assert bits_apart(perceptual_hash(pixels), perceptual_hash(copies)).max() <= NEAR

def test_films_hash_apart():
    hashes = perceptual_hash(films(60))
    i, j = np.triu_indices(60, 1)
    assert bits_apart(hashes[i], hashes[j]).min() > 2*NEAR

def test_hashes_are_of_any_shape_and_one_at_a_time():
    pixels = films(70, 100)[:, :, 7:]
    hashes = perceptual_hash(pixels)
    assert hashes.shape == (70, 4) and hashes.dtype == np.uint64 and perceptual_hash(pixels[:0]).shape == (0, 4)
    assert bits_apart(np.concatenate([perceptual_hash(o[None]) for o in pixels]), hashes).max() <= 1
    assert perceptual_hash(films(3, 16)).shape == (3, 4)

def test_an_image_of_one_gray_has_no_bits():
    for gray, shape in (0, (2, 50, 71)), (137, (1, 256, 256)), (255, (1, 999, 1000)):
        assert not perceptual_hash(np.full(shape, gray, np.uint8)).any()

@pytest.mark.parametrize("wrong", [np.zeros((2, 8, 8)), np.zeros((8, 8), np.uint8)])
def test_only_gray_bytes_are_hashed(wrong):
    with pytest.raises(ValueError, match="takes uint8 pixels"): perceptual_hash(wrong)

def hashed(rows): return perceptual_hash(np.stack([np.asarray(Image.open(o).convert("L")) for o in rows["file"]]))

@pytest.fixture(scope="module")
def sample():
    rows = read_nih(SHARED/"nih_sample"/"Data_Entry_2017_v2020.csv", images=SHARED/"nih_sample"/"images")
    return rows, hashed(rows)

@needs_nih
def test_real_films_hash_apart_and_their_copies_alike(sample):
    rows, hashes = sample
    i, j = np.triu_indices(len(rows), 1)
    assert bits_apart(hashes[i], hashes[j]).min() > 2*NEAR
    some = range(0, len(rows), 10)
    pixels = [np.asarray(Image.open(rows["file"][o])) for o in some]
    for name, copy in COPIES.items():
        apart = bits_apart(perceptual_hash(np.stack([copy(o) for o in pixels])), hashes[list(some)])
        assert (apart <= NEAR).mean() > (.9 if name == "2 px" else .999), name

@needs_nih
def test_originals_and_their_small_copies_hash_alike(sample):
    rows, hashes = sample
    there = [Path(o).name for o in sorted((SHARED/"nih_originals").glob("*.png"))[::5]]
    originals = np.stack([np.asarray(Image.open(SHARED/"nih_originals"/o).convert("L")) for o in there])
    at = [rows.index[rows["image"] == o][0] for o in there]
    assert originals.shape[1:] == (1024, 1024) and bits_apart(perceptual_hash(originals), hashes[at]).max() <= 9

@needs_nih
def test_100_splits_of_the_sample_raise_nothing(sample):
    rows, hashes = sample
    for seed in range(100):
        res = split_patients(rows, seed=seed)
        check_leaks(res, ["age", "sex", "view"], hashes, fitted(res))

@needs_nih
def test_a_resaved_film_in_the_sample_is_found(sample):
    rows, hashes = sample
    res, hashes = split_patients(rows), hashes.copy()
    a, b = one_of(res, "train", "test")
    hashes[b] = perceptual_hash(jpeg(np.asarray(Image.open(res["file"][a])))[None])[0]
    with pytest.raises(LeakError, match="1 pairs of near-duplicates"): check_leaks(res, hashes=hashes)

@pytest.mark.skipif(not PHANTOM.exists(), reason="needs data/phantom")
def test_100_splits_of_the_phantoms_raise_nothing():
    rows = read_nih(next(PHANTOM.glob("Data_Entry*.csv")), images=PHANTOM)
    hashes = hashed(rows)
    for seed in range(100): check_leaks(split_patients(rows, seed=seed), ["age", "sex", "view"], hashes)
