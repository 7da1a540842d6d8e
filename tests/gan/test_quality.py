import random
from pathlib import Path
import numpy as np, pandas as pd, pytest, torch
from PIL import Image, ImageFilter
from scipy.linalg import sqrtm
from torch import nn
from cxr_fastai.models.backbone import create_backbone
from cxr_fastai.models.fusion import ImageModel
from cxr_fastai.gan.features import inception, radiograph_features
from cxr_fastai.gan.quality import FEWEST, frechet_distance, kernel_distance, memorisation, quality, told_apart
from cxr_fastai.gan.quality import _halves, _manifold
from conftest import LOOK, look

def altered(rows, folder, change):
    "The same rows with every image put through `change(pixels, rng)`."
    folder.mkdir(exist_ok=True)
    for i, o in enumerate(rows["file"]):
        pixels = change(np.asarray(Image.open(o)).astype(float), np.random.default_rng(i))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder/Path(o).name)
    return rows.assign(file=[str(folder/Path(o).name) for o in rows["file"]])

def blur(radius):
    return lambda x, rng: np.asarray(Image.fromarray(x.astype(np.uint8)).filter(ImageFilter.GaussianBlur(radius)))

def noise(sd): return lambda x, rng: x + rng.normal(0, sd, x.shape)
def faded(share): return lambda x, rng: (1 - share)*x + share*100

def halves(rows, seed=0):
    who = rows["patient_id"].unique()
    one = np.random.default_rng(seed).permutation(who)[:len(who)//2]
    return rows[rows["patient_id"].isin(one)], rows[~rows["patient_id"].isin(one)]

def figure(table, column="value"): return table.set_index("figure")[column]

def exactly(n, mean, cov, seed):
    "`n` points whose sample mean and covariance are these, to rounding."
    x = np.random.default_rng(seed).standard_normal((n, len(mean)))
    x = (x - x.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(x.T))).T
    return x @ np.linalg.cholesky(cov).T + mean

def covariance(d, seed):
    a = np.random.default_rng(seed).standard_normal((d, d))
    return a @ a.T + .1*np.eye(d)

def test_frechet_distance_of_two_diagonal_gaussians_is_the_closed_form():
    m1, m2, s1, s2 = np.array([0., 1, 2]), np.array([3., 1, 0]), np.array([1., 2, .5]), np.array([2., 2, 3])
    x, y = exactly(50, m1, np.diag(s1**2), 0), exactly(80, m2, np.diag(s2**2), 1)
    assert frechet_distance(x, y) == pytest.approx(((m1 - m2)**2).sum() + ((s1 - s2)**2).sum())

def test_frechet_distance_of_any_two_gaussians_is_that_of_the_matrix_root():
    c1, c2, m = covariance(6, 0), covariance(6, 1), np.arange(6.)
    x, y = exactly(40, m, c1, 2), exactly(30, 0*m, c2, 3)
    assert frechet_distance(x, y) == pytest.approx((m**2).sum() + np.trace(c1 + c2 - 2*sqrtm(c1 @ c2).real))

def test_frechet_distance_is_right_with_fewer_rows_than_features():
    x = np.random.default_rng(0).standard_normal((9, 200))
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(x, x + .5) == pytest.approx(200 * .25)        # one covariance: the shift alone
    assert frechet_distance(x, 3*x) == pytest.approx(4*((x.mean(0)**2).sum() + x.var(0, ddof=1).sum()))
    y = np.random.default_rng(1).standard_normal((12, 200))
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(y, x)) and frechet_distance(x, y) > 0

def test_kernel_distance_is_the_loop_over_pairs():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((7, 4)), rng.standard_normal((5, 4)) + 1
    k = lambda a, b: (float(a @ b)/4 + 1)**3
    within = lambda o: np.mean([k(a, b) for i, a in enumerate(o) for j, b in enumerate(o) if i != j])
    assert kernel_distance(x, y) == pytest.approx(within(x) + within(y) - 2*np.mean([k(a, b) for a in x for b in y]))

def test_kernel_distance_is_zero_on_average_and_grows_with_a_shift():
    rng = np.random.default_rng(0)
    draw = lambda shift=0: kernel_distance(rng.standard_normal((20, 8)), rng.standard_normal((20, 8)) + shift)
    same = np.array([draw() for _ in range(400)])
    assert abs(same.mean()) < 3*same.std()/20 and (same < 0).any()       # unbiased: below zero at times
    assert draw(1) > np.quantile(same, .99) and draw(2) > draw(1)

@pytest.mark.parametrize("n,m,k", [(30, 20, 5), (12, 25, 3), (4, 9, 5)])
def test_precision_recall_density_coverage_are_those_of_loops(n, m, k):
    rng = np.random.default_rng(n)
    real, fake = rng.standard_normal((n, 3)), rng.standard_normal((m, 3))*.8 + .4
    used = min(k, n - 1, m - 1)
    far = lambda a, b: float(np.linalg.norm(a - b))
    radius = lambda o, i: sorted(far(o[i], b) for j, b in enumerate(o) if j != i)[used - 1]
    r, f = [radius(real, i) for i in range(n)], [radius(fake, j) for j in range(m)]
    inside = [[far(a, b) <= r[i] for b in fake] for i, a in enumerate(real)]
    found = _manifold(real, fake, k)
    assert found["precision"] == np.mean([any(o[j] for o in inside) for j in range(m)])
    assert found["recall"] == np.mean([any(far(a, b) <= f[j] for j, b in enumerate(fake)) for a in real])
    assert found["density"] == pytest.approx(sum(map(sum, inside)) / (used*m))
    assert found["coverage"] == np.mean([any(o) for o in inside])

def test_a_duplicate_of_the_real_set_covers_it_and_one_far_away_does_not():
    x = np.random.default_rng(0).standard_normal((25, 6))
    same, away = _manifold(x, x), _manifold(x, x + 100)
    assert same["precision"] == same["recall"] == same["coverage"] == 1 and set(away.values()) == {0}

def test_one_image_repeated_is_precise_and_covers_nothing():
    x = np.random.default_rng(0).standard_normal((40, 6))
    found = _manifold(x, np.repeat(x[:1], 40, axis=0))
    assert found["precision"] == 1 and found["coverage"] < .5 and found["recall"] < .1

def test_halves_share_no_patient_and_hold_every_row_once(rows):
    for seed in range(5):
        one, two = _halves(rows, np.random.default_rng(seed))
        assert sorted([*one, *two]) == list(range(len(rows))) and abs(len(one) - len(two)) <= 2
        assert not set(rows["patient_id"].iloc[one]) & set(rows["patient_id"].iloc[two])

def test_other_real_patients_score_as_the_floor(rows):
    one, two = halves(rows)
    table = quality(one, two, **LOOK)
    assert (table["features"] == "look").all() and (table["n"] <= len(one)//2 + 1).all()
    for o in table.itertuples(): assert o.low <= o.floor_high and o.high >= o.floor_low, o.figure
    assert table["value low high floor floor_low floor_high".split()].notna().all().all()

def test_quality_is_the_same_from_the_same_seed(rows):
    one, two = halves(rows)
    pd.testing.assert_frame_equal(quality(one, two, seed=3, **LOOK), quality(one, two, seed=3, **LOOK))
    assert not quality(one, two, seed=4, **LOOK).equals(quality(one, two, seed=3, **LOOK))

@pytest.mark.parametrize("change,levels", [(blur, (.6, 1.2, 3)), (noise, (10, 25, 60)), (faded, (.25, .5, .95))])
def test_the_worse_the_images_the_worse_the_figures(rows, tmp_path, change, levels):
    tables = [quality(rows, rows, repeats=5, **LOOK)]
    tables += [quality(rows, altered(rows, tmp_path/str(o), change(o)), repeats=5, **LOOK) for o in levels]
    values = {o: [figure(t)[o] for t in tables] for o in figure(tables[0]).index}
    floor = figure(tables[0], "floor")
    assert np.all(np.diff(values["kernel distance"]) > 0)
    frechet = values["Fréchet distance"]
    assert np.all(np.diff(frechet[1:]) > 0) and frechet[-1] > floor["Fréchet distance"]
    for o in "recall", "coverage": # not precision, which a little blur raises: such images lie in the middle
        assert np.all(np.diff(values[o]) <= .01) and values[o][-1] < floor[o] - .3, o

def test_constant_images_cover_nothing(rows, tmp_path):
    table = quality(rows, altered(rows, tmp_path/"gray", lambda x, rng: 0*x + 90), repeats=3, **LOOK)
    assert figure(table)["precision"] == figure(table)["coverage"] == figure(table)["recall"] == 0
    assert figure(table)["kernel distance"] > figure(table, "floor_high")["kernel distance"]

def test_halves_of_the_same_patients_cannot_be_told_apart(rows):
    found = [told_apart(*halves(rows, seed), **LOOK).iloc[0] for seed in range(3)]
    assert abs(np.mean([o["value"] for o in found]) - .5) < .12
    assert all(o["low"] < .5 + .1 and o["low"] <= o["value"] <= o["high"] and o["floor"] == .5 for o in found)

def test_altered_images_are_told_apart_and_more_so_the_more_they_are(rows, tmp_path):
    aucs = [told_apart(rows, altered(rows, tmp_path/str(o), blur(o)), **LOOK)["value"].item() for o in (.4, .8, 3)]
    assert aucs == sorted(aucs) and aucs[-1] > .99

def test_a_patients_own_image_never_helps_to_tell_its_translation_apart(rows):
    assert told_apart(rows, rows, **LOOK)["value"].item() <= .5          # copies: both are in one fold

def test_told_apart_stands_under_quality(rows):
    one, two = halves(rows)
    assert list(told_apart(one, two, **LOOK)) == list(quality(one, two, repeats=2, **LOOK))

def strangers(rows): return rows.assign(patient_id=[f"made{i}" for i in range(len(rows))], source_image=None)

def test_a_strangers_image_learnt_by_heart_is_found(rows):
    table = memorisation(rows, strangers(rows), **LOOK)
    assert table["closer_features"].all() and table["closer_pixels"].all()
    assert (table["nearest_image_features"] == rows["image"].array).all() and table["distance_pixels"].max() < 1e-9
    assert table["source_features"].isna().all()

def test_other_patients_are_never_nearer_than_real_ones_are(rows):
    one, two = halves(rows)
    one, two = one.reset_index(drop=True), two.reset_index(drop=True)
    table = memorisation(pd.concat([one, two], ignore_index=True), two, **LOOK)
    assert not table["closer_features"].any() and not table["closer_pixels"].any() # `real_*` is the least of these

def test_the_own_source_is_reported_apart(rows, tmp_path):
    made = altered(rows, tmp_path/"made", faded(.2)).assign(source_image=rows["image"], image="made_" + rows["image"])
    table = memorisation(rows, made, **LOOK)
    assert list(table["image"]) == list(made["image"]) and table["source_pixels"].max() < .1
    assert (table["nearest_image_pixels"] == rows["image"].array).all()        # a translation is nearest to its source
    assert (table["other_pixels"] > table["source_pixels"]).all()
    assert table["closer_pixels"].sum() <= 2                             # of the nearest real pair, by rounding

def test_pixels_ignore_brightness_and_contrast(rows, tmp_path):
    table = memorisation(rows, strangers(altered(rows, tmp_path/"dim", lambda x, rng: .5*x + 30)), **LOOK)
    assert table["closer_pixels"].all() and table["distance_pixels"].max() < .1

def test_distances_to_real_ones_leave_out_the_same_patient(rows):
    twin = rows.iloc[[0]].assign(image="again.png")                      # a second copy of one film, of one patient
    both = memorisation(pd.concat([rows, twin], ignore_index=True), rows, **LOOK)
    assert both["real_features"].iloc[0] > 0 and both["real_pixels"].iloc[0] > 0

def test_images_arrive_as_fractions_in_their_order(rows):
    x, _ = radiograph_features(rows, lambda o: o.flatten(1), size=48, bs=7)
    assert 0 <= x.min() and x.max() <= 1
    assert np.allclose(x[-1]*255, np.asarray(Image.open(rows["file"].iloc[-1])).ravel())

@pytest.mark.parametrize("judge", [quality, told_apart, memorisation])
@pytest.mark.parametrize("column", ["file", "patient_id", "image"])
def test_a_missing_column_is_named(rows, judge, column):
    with pytest.raises(ValueError, match=f"no column {column}"): judge(rows, rows.drop(columns=column), **LOOK)

@pytest.mark.parametrize("judge", [quality, told_apart, memorisation])
def test_too_few_patients_are_refused(rows, judge):
    few = rows[rows["patient_id"].isin(rows["patient_id"].unique()[:FEWEST - 1])]
    with pytest.raises(ValueError, match=f"7 patients in the synthetic rows are too few to judge by; {FEWEST}"):
        judge(rows, few, **LOOK)

def test_quality_with_a_real_network_runs_on_eight_patients(rows):
    few = rows[rows["patient_id"].isin(rows["patient_id"].unique()[:FEWEST])]
    table = quality(few, few, "resnet10t", "none", size=48, repeats=3)
    assert np.isfinite(table.drop(columns=["figure", "features"]).to_numpy(float)).all()
    assert not table["figure"].isin(["FID", "KID"]).any() and (table["features"] == "resnet10t, untrained").all()

def test_few_features_are_enough_to_tell_apart(rows):
    few = dict(features=lambda x: nn.functional.adaptive_avg_pool2d(x, 3).flatten(1), size=48)
    assert 0 <= told_apart(*halves(rows), **few)["value"].item() <= 1

@pytest.mark.parametrize("films", [30, 50, 70])
def test_one_patient_with_most_films_leaves_two_halves_of_one_size(rows, films):
    who = rows["patient_id"].where(np.arange(len(rows)) >= films, 1)
    lopsided = rows.assign(patient_id=who)
    for seed in range(4):
        table = quality(lopsided, rows, repeats=5, seed=seed, **LOOK)
        assert np.isfinite(table[["value", "floor"]].to_numpy()).all() and table["n"].nunique() == 1
        one, two = _halves(lopsided, np.random.default_rng(seed))
        assert min(len(one), len(two)) > 0 and not set(who.iloc[one]) & set(who.iloc[two])

def test_a_copy_of_its_own_source_is_called_copied_and_a_translation_is_not(rows, tmp_path):
    copies = memorisation(rows, rows.assign(source_image=rows["image"]), **LOOK)
    assert copies["copied_features"].all() and copies["copied_pixels"].all() and not copies["closer_pixels"].any()
    made = altered(rows, tmp_path/"made", lambda x, rng: rng.permutation(x.ravel()).reshape(x.shape))
    other = memorisation(rows, made.assign(source_image=rows["image"]), **LOOK)
    assert not other["copied_pixels"].any() and not memorisation(rows, strangers(rows), **LOOK)["copied_pixels"].any()

def test_judging_leaves_random_state_and_training_alone(rows):
    model = ImageModel(create_backbone("resnet10t", "none", 48), 2, .5, False).train()
    model.backbone.body.bn1.eval() # as a frozen norm
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    radiograph_features(rows[:2], model, size=48)
    radiograph_features(rows[:2], "resnet10t", "none", 48)
    assert model.backbone.training and not model.backbone.body.bn1.training
    assert torch.equal(before[0], torch.get_rng_state()) and random.getstate() == before[2]
    assert (before[1] == np.random.get_state()[1]).all()

def test_a_missing_file_or_column_is_one_sentence(rows):
    with pytest.raises(FileNotFoundError, match="no file of Inception's weights"): inception("nowhere.pth")
    with pytest.raises(ValueError, match="no column file"): radiograph_features(rows.drop(columns="file"), look)
