"""The drawn films: the same on every run, in NIH's form, and telling by the opacities alone."""
from pathlib import Path
import numpy as np, pytest
from PIL import Image
from scipy.ndimage import binary_dilation
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from cxr_fastai.cohort import phantom
from cxr_fastai.cohort.readers import read_nih
from cxr_fastai.cohort.duplicates import NEAR, perceptual_hash
from cxr_fastai.cohort.phantom import draw_radiograph, is_drawn, make_phantom
from conftest import ROOT

SET = ROOT/"data"/"phantom"
NIH_HEADER = ("Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
              "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]")

def pixels(path): return np.array(Image.open(path))

def draw(seed, label=0, age=50, sex="M", view="PA", **kwargs):
    return draw_radiograph(label, age, sex, view, seed, **kwargs)

def lungs(seed, view="PA", sex="M", age=50):
    return phantom._lungs(*phantom._grid(seed, 0, view, 128), phantom._body(seed, age, sex, view))

@pytest.fixture(scope="module")
def rows(): return read_nih(SET/phantom.CSV, images=SET)

@pytest.fixture(scope="module")
def y(rows): return (rows.label == "Pneumonia").to_numpy()

@pytest.fixture(scope="module")
def films(rows): return np.stack([pixels(o) for o in rows.file])

def test_one_seed_gives_one_film_and_another_seed_another():
    film = draw(7)
    assert film.dtype == np.uint8 and film.shape == (128, 128)
    assert (film == draw(7)).all()
    assert (film != draw(8)).mean() > .5

def test_drawn_films_are_known_by_what_is_in_them(rows, tmp_path):
    "Whatever their folder is called, resized, and as JPEG; films without the word are real."
    assert is_drawn(rows) and not is_drawn(rows.drop(columns="file")) and not is_drawn(rows[:0])
    some = rows[:5].assign(file=[str(tmp_path/f"{i}.jpg") for i in range(5)])
    for size in 128, 200:
        for new, old in zip(some.file, rows.file): Image.open(old).resize((size, size)).save(new)
        assert is_drawn(some)
    for o in some.file[:3]: Image.open(o).crop((20, 20, 128, 128)).save(o)
    assert not is_drawn(some) # most are not
    (tmp_path/phantom.MARK).write_text(phantom.NOTE)
    assert is_drawn(some)

def test_a_returning_patient_keeps_the_body_but_not_the_pose():
    assert phantom._body(7, 50, "M", "PA") == phantom._body(7, 50, "M", "PA") != phantom._body(8, 50, "M", "PA")
    assert (draw(7) != draw(7, visit=1)).mean() > .5

def test_drawing_leaves_the_global_random_state_alone():
    np.random.seed(3)
    before = np.random.get_state()[1].copy()
    draw(7, 1)
    assert (np.random.get_state()[1] == before).all()

@pytest.mark.slow
def test_the_committed_set_is_what_the_code_draws(tmp_path):
    drawn = make_phantom(tmp_path/"phantom")
    names = lambda folder: sorted(o.relative_to(folder).as_posix() for o in folder.rglob("*") if o.is_file())
    assert names(drawn) == names(SET)
    assert (drawn/phantom.CSV).read_bytes() == (SET/phantom.CSV).read_bytes()
    for o in names(SET):
        if o.endswith(".png"): assert (pixels(drawn/o) == pixels(SET/o)).all(), o

def test_small_sets_and_other_seeds_and_sizes(tmp_path):
    a, b = make_phantom(tmp_path/"a", n_patients=8, size=64), make_phantom(tmp_path/"b", n_patients=8, seed=1, size=64)
    one, two = sorted(a.rglob("*.png")), sorted(b.rglob("*.png"))
    assert len(one) == len(two) == 8 and pixels(one[0]).shape == (64, 64)
    assert all((pixels(i) != pixels(j)).any() for i, j in zip(one, two))
    assert (a/phantom.CSV).read_text().count("Pneumonia") == 2

def test_the_csv_has_the_header_and_columns_of_nih():
    head, *lines = (SET/phantom.CSV).read_text().splitlines()
    assert head == NIH_HEADER
    for o in lines:
        name, findings, visit, patient, age, sex, view, w, h, dx, dy = o.split(",")
        assert name == f"{int(patient):08d}_{int(visit):03d}.png" and (w, h, dx) == ("128", "128", dy)
        assert sex in "FM" and view in ("PA", "AP") and 0 <= int(age) <= 95
        assert findings == "No Finding" or "Pneumonia" in findings.split("|")

def test_three_normals_to_one_pneumonia(rows, y):
    first = rows.follow_up == 0
    assert len(rows) == 320 and y.sum() == 80 and first.sum() == 300 and y[first].sum() == 75
    assert 20 < rows.findings.str.contains("|", regex=False).sum() < 60

def test_a_few_patients_return_some_with_films_of_both_classes(rows):
    visits, both = rows.groupby("patient_id").size(), rows.groupby("patient_id").label.nunique() > 1
    assert len(visits) == 300 and (visits == 3).sum() == 5 and (visits == 2).sum() == 10 and both.sum() >= 3
    assert (rows.groupby("patient_id").sex.nunique() == 1).all()
    assert (rows.sort_values("follow_up").groupby("patient_id").age.diff().dropna() >= 0).all()

def test_age_sex_and_view_tell_as_little_as_in_nih(rows, y):
    first = (rows.follow_up == 0).to_numpy()
    for column, word, shares in ("view", "AP", phantom.AP), ("sex", "M", phantom.MALE):
        for c in (0, 1): assert (rows[column][first & (y == c)] == word).mean() == pytest.approx(shares[c], abs=.01)
    x = np.column_stack([rows.age/100, rows.sex == "M", rows["view"] == "AP"]).astype(float)
    assert .5 <= roc_auc_score(y, LogisticRegression().fit(x, y).predict_proba(x)[:,1]) <= .6

def test_neither_file_size_nor_mean_gray_gives_the_label_away(rows, films, y):
    size = [Path(o).stat().st_size for o in rows.file]
    assert .35 <= roc_auc_score(y, size) <= .65
    assert .35 <= roc_auc_score(y, films.mean((1, 2))) <= .70

def test_the_set_is_small_and_gray(rows, films):
    assert sum(o.stat().st_size for o in SET.rglob("*") if o.is_file()) < 4e6
    assert films.dtype == np.uint8 and films.shape == (320, 128, 128)

def test_every_film_says_that_it_is_drawn(films):
    ink = np.array([[c == "#" for c in row] for row in phantom.WORD])
    corner = films[:, 3:8, 3:33]
    assert (corner[:, ink] == 240).all() and corner[:, ~ink].mean() < 60
    assert "no patient" in (SET/phantom.MARK).read_text()

def test_no_two_patients_look_like_near_duplicates(rows, films):
    bits = np.unpackbits(perceptual_hash(films).view(np.uint8), axis=1).astype(int)
    apart = (bits[:, None] != bits).sum(-1)
    patient = rows.patient_id.to_numpy()
    assert apart[patient[:, None] != patient].min() > NEAR

@pytest.mark.parametrize("view", ["PA", "AP"])
def test_lungs_are_dark_and_the_heart_is_on_the_viewers_right(view):
    mean = np.mean([draw(i, view=view) for i in range(20)], axis=0)
    field = np.mean([lungs(i, view) for i in range(20)], axis=0) > .9
    assert mean[field].mean() < .7*mean[100:].mean()
    heart = mean[60:85]
    assert heart[:, 66:90].mean() > heart[:, 38:62].mean() + 15

def test_ap_means_less_lung_and_a_wider_heart():
    grid = np.meshgrid(np.linspace(-1, 1, 128), np.linspace(-1, 1, 128))
    for i in range(10):
        pa, ap = (phantom._body(i, 50, "M", o) for o in ("PA", "AP"))
        assert phantom._lungs(*grid, ap).sum() < phantom._lungs(*grid, pa).sum()
        assert phantom._heart(*grid, ap).sum() > phantom._heart(*grid, pa).sum()

def test_the_right_dome_is_usually_the_higher_one():
    assert np.mean([(p := phantom._body(i, 50, "M", "PA")).dome[-1] < p.dome[1] for i in range(100)]) > .7

def test_only_women_have_breast_shadows():
    for i in range(5):
        woman, man, girl = (phantom._body(i, age, sex, "PA") for age, sex in ((50, "F"), (50, "M"), (9, "F")))
        assert woman.breast > man.breast == girl.breast == 0
        assert draw(i, sex="F").mean() > draw(i, sex="M").mean()

@pytest.mark.parametrize("seed", range(12))
def test_the_label_changes_nothing_outside_the_lungs(seed):
    view, sex = ("AP" if seed % 4 == 0 else "PA"), "FM"[seed % 2]
    rise = draw(seed, 1, view=view, sex=sex).astype(int) - draw(seed, 0, view=view, sex=sex)
    within = lambda least: binary_dilation(lungs(seed, view, sex) > least, iterations=3) # focus blurs over 3 pixels
    assert within(.01).mean() < .7 and rise[~within(.01)].max() <= 1 and not rise[~within(1e-4)].any()
    assert rise.min() == 0 < rise.max()

@pytest.mark.slow
def test_opacities_go_from_faint_to_plain_and_cover_part_of_the_lungs():
    gain, share = [], []
    for i in range(40):
        rise = draw(i, 1).astype(int) - draw(i)
        gain.append(rise.max())
        share.append((rise > 3).sum() / (lungs(i) > .5).sum())
    assert min(gain) < 25 and max(gain) > 90
    assert np.median(share) < .6 and max(share) < 1

def test_an_earlier_drawing_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path):
    folder = make_phantom(tmp_path/"set", n_patients=12, size=48)
    make_phantom(folder, n_patients=4, size=48)
    assert len(list(folder.rglob("*.png"))) == 4
    assert list(tmp_path.iterdir()) == [folder]

def test_files_that_were_not_drawn_are_never_replaced(tmp_path):
    (tmp_path/"mine.png").write_bytes(b"x")
    with pytest.raises(FileExistsError, match="not drawn here"): make_phantom(tmp_path, n_patients=4, size=48)
    assert (tmp_path/"mine.png").read_bytes() == b"x"

def test_a_failed_drawing_leaves_the_earlier_one(tmp_path):
    folder = make_phantom(tmp_path/"set", n_patients=4, size=48)
    with pytest.raises(ValueError, match="size=8"): make_phantom(folder, n_patients=4, size=8)
    assert len(list(folder.rglob("*.png"))) == 4 and list(tmp_path.iterdir()) == [folder]

@pytest.mark.parametrize("wrong", [dict(label=2), dict(sex="X"), dict(view="LL"), dict(size=32)])
def test_what_cannot_be_drawn_is_refused_by_name(wrong):
    (name, value), = wrong.items()
    with pytest.raises(ValueError, match=f"{name}={value!r}"): draw(1, **wrong)
