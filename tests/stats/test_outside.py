import numpy as np, pytest
from scipy.special import expit, logit
from cxr_fastai.stats.areas import auc_interval
from cxr_fastai.stats.outside import findings, histogram, Inside, outside_table, site_table
from cxr_fastai.stats.scoring import scores
from cxr_fastai.stats.calibration import threshold_at

INSIDE = Inside(share=.3, patients=200, threshold=.4, specificity=.8, gray=(110., 10., 200))

def drawn(n=400, share=.3, seed=0, level=0.):
    "A model that is calibrated at a share of .3, and rows of another."
    rng = np.random.default_rng(seed)
    label = (rng.random(n) < share).astype(int)
    return label, expit(1.5*rng.normal(1.5*label, 1) - 1.125 + logit(.3) + level), np.arange(n)

def named(*args, inside=INSIDE, **kwargs):
    return {o.split(":")[0] for o in findings(*args, inside, **kwargs)}

def test_figures_are_those_of_scores_and_the_refitted_threshold_is_that_of_the_rows():
    label, prob, who = drawn()
    table = outside_table(label, prob, who//2, INSIDE, n=100).set_index("figure")
    own = scores(label, prob, who//2, .4)
    assert all(table["value"][k] == own[k] for k in own if k in table.index)
    assert table["value"]["films"] == 400 and table["value"]["patients"] == 200
    assert tuple(table.loc["rocauc", ["low", "high"]]) == auc_interval(label, prob, who//2)
    at = threshold_at(label, prob, .8)
    assert table["value"]["threshold_refitted"] == at and table["value"]["threshold"] == .4
    assert table["value"]["recall_refitted"] == scores(label, prob, threshold=at)["recall"]
    assert table["low"]["recall_refitted"] < table["value"]["recall_refitted"] < table["high"]["recall_refitted"]
    alone = outside_table(np.ones(20, int), prob[:20], who[:20], INSIDE, n=20).set_index("figure")
    assert "recall_refitted" not in alone.index and np.isnan(alone["value"]["rocauc"])

def test_nothing_is_named_where_nothing_is_wrong():
    label, prob, who = drawn()
    inside = INSIDE._replace(specificity=float((prob[label == 0] <= .4).mean()))
    gray, unlike = np.random.default_rng(0).normal(110, 10, 400), np.arange(400) < 4
    assert named(label, prob, who, inside=inside, gray=gray, unlike=unlike) == {"Nothing of it is seen"}

def test_false_alarms_are_few():
    said = [named(*drawn(200, seed=i), inside=INSIDE._replace(specificity=None)) for i in range(100)]
    assert sum(o != {"Nothing of it is seen"} for o in said) <= 3

@pytest.mark.parametrize("share", [.1, .6])
def test_a_prior_shift_is_named(share):
    assert named(*drawn(share=share), inside=INSIDE._replace(specificity=None)) == {"Prior shift"}

def test_flipped_labels_are_named_and_no_prior_shift_for_that():
    label, prob, who = drawn()
    assert named(1 - label, prob, who) == {"Flipped labels"} # 70% positive, were it not for the flip
    label, prob, who = drawn(share=.6)
    assert named(1 - label, prob, who) == {"Flipped labels", "Prior shift"}

@pytest.mark.parametrize("by, word", [(12, "brighter"), (-12, "darker")])
def test_a_brightness_shift_is_named(by, word):
    label, prob, who = drawn()
    gray, inside = np.random.default_rng(0).normal(110 + by, 10, 400), INSIDE._replace(specificity=None)
    assert named(label, prob, who, inside=inside, gray=gray) == {"Brightness shift"}
    assert f"these films are {word}" in findings(label, prob, who, inside, gray)[0]
    assert named(label, prob, who, inside=inside._replace(gray=None), gray=gray) == {"Nothing of it is seen"}

def test_other_pictures_a_threshold_that_does_not_carry_and_calibration_are_named():
    label, prob, who = drawn()
    inside = INSIDE._replace(specificity=None)
    assert named(label, prob, who, inside=inside, unlike=np.arange(400) % 5 == 0) == {"Unlike films"}
    assert named(label, prob, who, inside=INSIDE._replace(specificity=.99)) == {"Threshold"}
    label, prob, who = drawn(level=1.)
    table = outside_table(label, prob, who, inside, n=100)
    assert named(label, prob, who, inside=inside, figures=table) == {"Calibration"}
    assert "too high on the whole" in findings(label, prob, who, inside, figures=table)[0]

def test_few_rows_and_one_class_are_said():
    label, prob, who = drawn(12, .4)
    assert "Few patients" in named(label, prob, who)
    assert "One class" in named(np.ones(30, int), prob[:1].repeat(30), np.arange(30))
    rng = np.random.default_rng(9)
    assert "No ranking" in named(drawn()[0], rng.random(400), np.arange(400))

def test_sites_and_their_random_effects_mean():
    label, prob, who = drawn(600)
    site = np.array(["A", "B", "C", "D"])[np.r_[np.arange(590) % 3, np.full(10, 3)]]
    prob = np.where(site == "C", expit(logit(prob) + 3), prob) # one calls nearly everything
    table = site_table(label, prob, who, .4, site, n=50).set_index(["site", "figure"])
    for s in "ABC":
        own = scores(label[site == s], prob[site == s], threshold=.4)
        assert all(table["value"][s, k] == own[k] for k in ("recall", "specificity", "rocauc"))
    assert np.isnan(table["value"]["D", "recall"]) and table["n"]["D", "recall"] == 10 # counts alone
    far, near = table.loc["all, random effects"].loc["specificity"], table.loc["all, random effects"].loc["rocauc"]
    assert far["sites"] == 3 and far["p_differ"] < 1e-6 and far["i2"] > .9 and far["tau"] > .5
    assert near["p_differ"] > .01 and 0 <= near["low"] < near["value"] < near["high"] <= 1
    assert far["low"] < far["value"] < far["high"]
    one = site_table(label, prob, who, .4, np.full(600, "A"), n=20)
    assert one.loc[one["site"] != "A", "value"].isna().all()
    twice = (np.r_[o, o] for o in (label, prob, who))
    same = site_table(*twice, .4, np.repeat(["A", "B"], 600), n=50)
    pooled = same[same["site"] == "all, random effects"].set_index("figure")
    assert pooled[["value", "low", "high"]].notna().all().all() and (pooled["tau"] == 0).all()

def test_histograms_count_every_film():
    label, prob, _ = drawn()
    table = histogram(label, prob, np.array([1., 2.])[np.arange(400) % 2])
    assert table["films"].sum() == 400 and set(table["site"]) == {"1.0", "2.0"} and len(table) == 2*2*20
    assert histogram(label, prob).groupby("label")["films"].sum().tolist() == [(label == 0).sum(), label.sum()]
    assert histogram([0, 1], [0., 1.])["films"].sum() == 2
