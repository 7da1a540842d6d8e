import numpy as np, pytest
from PIL import Image, ImageDraw
from scipy.ndimage import rotate, shift
from cxr_fastai.cohort.altered import altered_copies
from conftest import SHARED, needs_nih

def resized(film):
    return np.asarray(Image.fromarray(np.ascontiguousarray(film)).resize((256, 256), Image.Resampling.BILINEAR))

def cropped(k): return lambda o: resized(o[k:256-k,k:256-k])

def turned(degrees): return lambda o: rotate(o, degrees, reshape=False, order=1)

def marked(film):
    image = Image.fromarray(film)
    ImageDraw.Draw(image).rectangle((8, 8, 40, 40), fill=255)
    return np.asarray(image)

COPIES = {
    "4% cropped": cropped(5), "10% of each edge cropped": cropped(26), "one edge cropped": lambda o: resized(o[26:]),
    "2 degrees": turned(2), "-3 degrees": turned(-3), "4 px": lambda o: shift(o, (4, -4), order=0),
    "border": lambda o: resized(np.pad(o, 16)),
    "white frame": lambda o: np.pad(o[12:-12,12:-12], 12, constant_values=255),
    "marker": marked, "cropped and turned": lambda o: cropped(8)(turned(2)(o))}

def pictures(n, seed=0):
    "Smooth pictures of 256 pixels, no two alike."
    rng = np.random.default_rng(seed)
    small = [Image.fromarray(rng.integers(40, 216, (24, 24), dtype=np.uint8)) for _ in range(n)]
    return np.stack([np.asarray(o.resize((256, 256), Image.Resampling.BICUBIC)) for o in small])

def share_found(films, copy, k):
    "Of the first `k` films, whose copies are in test; and how many pairs besides."
    both = np.concatenate([films, [copy(o) for o in films[:k]]])
    found = altered_copies(both.__getitem__, ["train"]*len(films) + ["test"]*k)
    wanted = {(i, len(films) + i) for i in range(k)}
    there = set(map(tuple, found.tolist()))
    return len(there & wanted)/k, len(there - wanted)

@pytest.mark.parametrize("name", COPIES)
def test_an_altered_copy_is_found(name): assert share_found(pictures(12), COPIES[name], 4) == (1, 0)

def test_other_films_and_one_side_are_no_copies():
    films = pictures(20)
    assert not len(altered_copies(films.__getitem__, np.arange(20) % 3))
    films[1] = cropped(8)(films[0])
    assert altered_copies(films.__getitem__, np.arange(20) % 3).tolist() == [[0, 1]]
    assert not len(altered_copies(films.__getitem__, [0]*20))
    assert not len(altered_copies(lambda at: np.zeros((len(at), 64, 64), np.uint8), np.arange(20) % 3))

def test_of_a_large_table_a_part_is_asked_about_and_that_is_said(capsys):
    films = pictures(20)
    films[10:] = [cropped(8)(o) for o in films[:10]]
    found = altered_copies(films.__getitem__, [0]*10 + [1]*10, pairs=100)
    assert len(found) == 5 and "5 of the 10" in capsys.readouterr().out

@needs_nih
def test_of_real_films_nine_in_ten_are_found_and_no_other():
    films = np.stack([np.asarray(Image.open(o).convert("L"))
                      for o in sorted((SHARED/"nih_sample"/"images").glob("*.png"))[::12]])
    for name, copy in COPIES.items():
        share, others = share_found(films, copy, 10)
        assert share >= .9 and not others, name
