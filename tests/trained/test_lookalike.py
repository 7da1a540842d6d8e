import json
from pathlib import Path
import numpy as np, pytest
from PIL import Image, ImageDraw
from cxr_fastai.cohort.phantom import make_phantom
from cxr_fastai.cohort.radiograph import read_radiograph
from cxr_fastai.trained.lookalike import atypical, MIN_FILMS, typical_ranges
from conftest import SHARED, needs_nih

def films(folder): return np.stack([read_radiograph(o, 64) for o in sorted(Path(folder).rglob("*.png"))])

@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    make_phantom(folder := tmp_path_factory.mktemp("films")/"set", 160, seed=3, size=64)
    return films(folder)

@pytest.fixture(scope="module")
def ranges(drawn): return typical_ranges(drawn[:100])

def share(pixels, ranges): return np.mean([bool(atypical(np.ascontiguousarray(o), ranges)) for o in pixels])

def text():
    page = Image.new("L", (256, 256), 255)
    for y in range(8, 250, 14): ImageDraw.Draw(page).text((8, y), "report of a radiograph, one page of it", fill=0)
    return np.asarray(page.resize((64, 64), Image.Resampling.LANCZOS))

def test_other_films_pass_and_what_is_none_is_flagged(drawn, ranges):
    others = drawn[100:]
    assert share(others, ranges) < .06
    for turned in (255 - others, np.rot90(others, 1, (1, 2)), np.rot90(others, 2, (1, 2))):
        assert share(turned, ranges) > .9
    noise = np.random.default_rng(0).integers(0, 256, (64, 64)).astype(np.uint8)
    assert "unlike the training films (distance" in atypical(255 - others[0], ranges)
    assert atypical(noise, ranges) and atypical(text(), ranges)
    assert all("of one gray" in atypical(np.full((64, 64), o, np.uint8), ranges) for o in (0, 128, 255))

def test_the_size_of_a_film_hardly_matters(drawn, ranges):
    large = [np.asarray(Image.fromarray(o).resize((200, 200))) for o in drawn[100:]]
    assert abs(share(large, ranges) - share(drawn[100:], ranges)) < .04

def test_ranges_go_through_json_unchanged_and_are_small(drawn, ranges):
    again = json.loads(json.dumps(ranges))
    assert again == ranges and len(json.dumps(ranges)) < 30_000 and ranges["films"] == 100
    assert typical_ranges(drawn[:100]) == ranges

def test_a_mirrored_film_passes_as_the_manual_says(drawn, ranges): assert share(drawn[100:, :, ::-1], ranges) < .2

def test_too_few_films_say_nothing(drawn):
    assert typical_ranges(drawn[:MIN_FILMS - 1]) == {} and atypical(drawn[0], {}) == ""

@needs_nih
@pytest.mark.slow
def test_on_real_films_false_alarms_are_few_and_turned_ones_are_found():
    real = films(SHARED/"nih_sample")
    of = np.array([o.name.split("_")[0] for o in sorted((SHARED/"nih_sample").rglob("*.png"))])
    known = np.isin(of, np.random.default_rng(0).permutation(np.unique(of))[::2])
    ranges, others = typical_ranges(real[known]), real[~known]
    assert share(others, ranges) < .04
    assert share(255 - others, ranges) > .97 and share(np.rot90(others, 2, (1, 2)), ranges) > .95
    assert share(np.rot90(others, 1, (1, 2)), ranges) > .8
