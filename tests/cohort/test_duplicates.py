import io
from pathlib import Path
import numpy as np, pytest
from hypothesis import given, settings, strategies as st
from PIL import Image
from cxr_fastai.cohort.readers import read_nih
from cxr_fastai.cohort.duplicates import NEAR, _pairs_within, near_duplicates, perceptual_hash, turned_duplicates
from conftest import SHARED, needs_nih


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

TURNED = {"mirrored": lambda o: o[:,::-1], "upside down": lambda o: o[::-1], "turned by half": lambda o: o[::-1,::-1],
          "inverted": lambda o: 255 - o, "mirrored and inverted": lambda o: 255 - o[:,::-1],
          "on its side": lambda o: o.T,
          "on its side and mirrored": np.rot90, "on its side and upside down": lambda o: np.rot90(o, -1)}

@pytest.mark.parametrize("name", TURNED)
def test_a_turned_copy_is_found_by_the_hashes_alone(name):
    pictures = films(20)
    pictures[19] = resized(np.ascontiguousarray(TURNED[name](pictures[0])), 128).repeat(2, 0).repeat(2, 1)
    hashes, sides = perceptual_hash(pictures), ["train"]*19 + ["test"]
    pairs, bits, what = turned_duplicates(hashes, sides)
    assert pairs.tolist() == [[0, 19]] and bits[0] <= 15 and what[0] == name
    assert not len(turned_duplicates(hashes[:19], sides[1:])[0]) and not len(turned_duplicates(hashes, ["train"]*20)[0])

@pytest.mark.slow
def test_films_that_are_all_alike_cost_no_more_than_is_allowed():
    rng = np.random.default_rng(0)
    hashes = np.packbits(rng.random((3000, 256)) < .02, axis=1).view(np.uint64)
    sides = rng.choice(["train", "test"], 3000)
    whole, few = (_pairs_within(hashes[sides == "test"], np.flatnonzero(sides == "test"), hashes, sides, True, o)
                  for o in (2**22, 2**15))
    assert 0 < len(few) < 17*2**15 < len(whole)
    assert (few[:,0] <= NEAR).all() and (sides[few[:,1]] != sides[few[:,2]]).all()

@needs_nih
def test_real_films_turned_are_no_others(sample):
    rows, hashes = sample
    assert not len(turned_duplicates(hashes, rows["patient_id"])[0])
