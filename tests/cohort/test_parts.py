import numpy as np, pandas as pd, pytest
from PIL import Image
from cxr_fastai.cohort.cache import RadiographCache
from cxr_fastai.cohort.parts import each_pair, film_tone, fine_change, has_source, moved_sources, write_films

def wave(times, side=128): # so many times into a film
    return 128 + 100*np.cos(2*np.pi*times*np.arange(side)/side)[None, None].repeat(side, 1)

@pytest.mark.parametrize("times, left", [(3, .5), (6, 1/16), (12, 0)])
def test_tone_leaves_of_a_wave_what_is_promised(times, left):
    mid = slice(32, 96) # away from the edges
    left_of = np.ptp(film_tone(wave(times))[0, 64, mid]) / np.ptp(wave(times)[0, 64, mid])
    assert left_of == pytest.approx(left, abs=.01)

def test_tone_leaves_half_of_a_spot_of_its_own_width():
    y, x = np.mgrid[:128, :128] - 64
    spot = np.exp(-(x**2 + y**2) / (2*8**2))[None]
    assert film_tone(spot).max() == pytest.approx(.5, abs=.01)

def films(n=3, side=32): return np.random.default_rng(0).integers(40, 200, (n, side, side), dtype=np.uint8)

def test_a_fine_change_has_the_sources_tone_and_the_films_texture():
    source, film = films(), np.roll(films(), 3, axis=2)//2 + 20
    new = fine_change(source, film).astype(float)
    np.testing.assert_allclose(new, film_tone(source) + film - film_tone(film), atol=1)
    assert fine_change(source, source).tolist() == source.tolist()

def test_exposure_is_no_fine_change_and_what_is_beyond_white_is_white():
    source = films()
    assert (fine_change(source, source - 40) == source).all()
    spot = source.copy()
    spot[:, 16, 16] = 255
    spot[0] = 0
    spot[0, ::2] = 255
    assert fine_change(source, spot).dtype == np.uint8 and fine_change(source, spot)[1, 16, 16] >= 240

@pytest.fixture
def pairs(rows, tmp_path):
    "Real rows, and three films of which one has no source, one that is of none of these rows."
    own = rows[rows.split == "train"].image.iloc[:3].tolist()
    for i, pixels in enumerate(films()): Image.fromarray(pixels).save(tmp_path/f"{i}.png")
    synth = pd.DataFrame(dict(image=list("abc"), file=[str(tmp_path/f"{i}.png") for i in range(3)],
                              source_image=[own[0], None, "other.png"]))
    return rows, synth, own

def test_films_come_in_their_order_with_the_sources_that_are_known(pairs):
    rows, synth, own = pairs
    assert has_source(rows, synth).tolist() == [True, False, False]
    assert has_source(rows, synth.drop(columns="source_image")).tolist() == [False]*3
    known, source, film = map(list, zip(*each_pair(rows, synth, 32, bs=2)))
    assert np.concatenate(known).tolist() == [True, False, False] and [len(o) for o in source] == [1, 0]
    assert (np.concatenate(film) == films()).all()
    assert (source[0][0] == RadiographCache(rows.file.tolist(), 32)[rows.set_index("image").file[own[0]]]).all()

def test_sources_are_moved_as_the_translator_was_given_them():
    lines = pd.DataFrame(dict(zoom=[1., 1], angle=[0., 0], shift_x=[0., .25], shift_y=[0., 0]))
    still, right = moved_sources(films(2), lines)
    assert (still == films(2)[0]).all() and (right[:, 8:] == films(2)[1][:, :-8]).all()
    assert (moved_sources(films(2), lines[[]]) == films(2)).all()

def test_there_is_no_part_of_a_change_of_an_unknown_source(pairs, tmp_path):
    rows, synth, own = pairs
    with pytest.raises(ValueError, match=r"Of 2 of 3 synthetic films \(b, c\) it isn't known which of the rows"):
        write_films(tmp_path, rows, synth, ["x.png"]*3, 32, fine_change)
    write_films(tmp_path, rows, synth[:1], ["x.png"], 32, lambda source, film: 255 - source)
    assert (np.asarray(Image.open(tmp_path/"x.png")) ==
            255 - RadiographCache(rows.file.tolist(), 32)[rows.set_index("image").file[own[0]]]).all()
