import numpy as np, pandas as pd, pytest
from scipy.special import logit
from sklearn.metrics import roc_auc_score
from cxr_fastai.stats.compare import compare_arms, verdict
from cxr_fastai.stats.power import (_of_training, CUT, power_table, probability, Setting, setting_of, simulated, skill,
    STEEP)
from cxr_fastai.settings import PRIMARY

SAID = dict(gain="support a gain", loss="show a loss", none="do not support a gain")

def level(auc, setting): return np.full(setting.trainings, skill(auc))

def table_of(arms, image, who, label, fold=None):
    "A long table of predictions, as a study has it."
    parts = []
    for side, name in zip(arms, PRIMARY):
        for seed, prob in enumerate(side):
            own = dict(backbone="net", arm=name, seed=seed, side="test", image=[f"{o}.png" for o in image],
                       patient_id=who, label=label.astype(int), probability=prob, synthetic=False)
            parts.append(pd.DataFrame(own if fold is None else own | dict(fold=fold)))
    return pd.concat(parts)

def folded(setting, rng, d):
    "Of one draw: its test and its valid rows."
    arms, parts = setting.draw_folds(rng, d), []
    for k, side in enumerate(("test", "valid")):
        about = arms[0][k]
        prob = [o[k].prob for o in arms]
        parts.append(table_of(prob, about.image, about.patients, about.label, about.fold).assign(side=side))
    return pd.concat(parts)

def test_scores_have_the_shares_of_variance_that_are_said():
    setting = Setting(20_000, 20_000, seeds=2, luck=0)
    (label, who, prob), _ = setting.draw(np.random.default_rng(0), np.stack([level(.8, setting)]*2))
    score = logit(prob)/STEEP + CUT
    well = score[..., label == 0].reshape(4, -1)
    r = np.corrcoef(well)
    assert well.var(1) == pytest.approx(1, abs=.03) and well.mean(1) == pytest.approx(0, abs=.02)
    assert [r[0, 1], r[0, 2], r[1, 3]] == pytest.approx([.7, .5, .5], abs=.015)
    assert roc_auc_score(label, prob[0, 0]) == pytest.approx(.8, abs=.005)

def test_films_of_a_patient_are_more_alike_than_those_of_two():
    setting = Setting(2, 8000, seeds=1, films="four")
    (label, who, prob), _ = setting.draw(np.random.default_rng(0), np.full((1, 1), skill(.8)))
    films = (logit(prob[0, 0])/STEEP)[label == 0].reshape(-1, 4)
    assert np.corrcoef(films.T)[0, 1] == pytest.approx(.4, abs=.03) and len(np.unique(who)) == 8002

@pytest.mark.parametrize("films", ["one", "unequal"])
def test_each_patient_is_in_test_once_and_valid_is_a_fifth_of_the_others(films):
    setting = Setting(40, 160, seeds=2, films=films, folds=5)
    (test, valid), (again, _) = setting.draw_folds(np.random.default_rng(0), np.stack([level(.8, setting)]*2))
    assert len(set(test.image)) == len(test.image) and set(test.patients) == set(range(200))
    assert (test.label == again.label).all() and not (test.prob == again.prob).any()
    for f in range(5):
        own, theirs = (set(o.patients[o.fold == f]) for o in (test, valid))
        assert not own & theirs and (len(own), len(theirs)) == (40, 32)
        assert len({o for o in own if o < 40}) == 8 # as many of the ill in each

def test_a_fold_and_seed_is_a_training_with_its_own_skill():
    setting = Setting(3000, 3000, seeds=1, folds=3)
    d = skill(np.array([[[.6, .75, .9]]]))
    ((test, valid),) = setting.draw_folds(np.random.default_rng(0), d)
    for side in test, valid:
        found = [roc_auc_score(side.label[o], side.prob[0, o]) for o in side.parts()]
        assert found == pytest.approx([.6, .75, .9], abs=.03)

def test_a_simulated_study_says_what_a_study_of_its_predictions_says():
    setting = Setting(30, 90)
    found = simulated(setting, .7, .2, studies=4, seed=3)
    for i, o in found.iterrows():
        rng = np.random.default_rng([3, i, 0])
        d = skill(np.array([.7, .9]))[:, None] + setting.lucks(rng, (2, 3))
        label, who, prob = setting.draw(rng, d, 0., [1])[0]
        table = table_of(prob, np.arange(len(label)), who, label)
        lines = compare_arms(pd.concat([table, table.assign(side="valid")]), [PRIMARY], n=5)
        known = lines[["rocauc", "rocauc_low", "rocauc_high", "p_delong", "p_verdict"]].iloc[0]
        assert list(o[["value", "low", "high", "p", "p_verdict"]]) == pytest.approx(list(known))
        assert SAID[o["says"]] in verdict(lines)
    assert set(found["says"]) > {"gain"}

def test_so_does_one_of_folds():
    setting = Setting(60, 150, seeds=2, folds=4)
    found = simulated(setting, .7, .1, studies=4, seed=1)
    for i, o in found.iterrows():
        rng = np.random.default_rng([1, i, 0])
        d = skill(np.array([.7, .8]))[:, None, None] + setting.lucks(rng, (2, 2, 4))
        lines = compare_arms(folded(setting, rng, d), [PRIMARY], n=5)
        known = lines[["rocauc", "rocauc_low", "rocauc_high", "p_verdict"]].iloc[0]
        assert list(o[["value", "low", "high", "p_verdict"]]) == pytest.approx(list(known))
        assert SAID[o["says"]] in verdict(lines)
    assert set(found["says"]) > {"gain"}

def test_same_seed_same_bits_and_the_same_luck_at_any_gain():
    one, again = (simulated(Setting(20, 40), studies=5, seed=o) for o in (4, 4))
    pd.testing.assert_frame_equal(one, again)
    assert not (one["value"] == simulated(Setting(20, 40), studies=5, seed=5)["value"]).any()
    assert (simulated(Setting(20, 40), .8, .1, studies=5, seed=4)["value"] > one["value"]).all()

def test_the_papers_test_set_finds_a_fifth_by_the_verdict_and_a_third_by_the_plain_p():
    "The manual's figures, within three errors of 300 studies."
    o = simulated(Setting(64, 210), .8, .05, studies=300)
    assert (o["says"] == "gain").mean() == pytest.approx(.20, abs=.07)
    assert (o["p"] < .05).mean() == pytest.approx(.31, abs=.08)
    assert o["value"].mean() == pytest.approx(.05, abs=.006)

def test_five_times_as_many_patients_and_nine_seeds_find_it():
    assert (simulated(Setting(320, 1050, 9), .8, .05, studies=60)["says"] == "gain").mean() > .85

def test_a_lower_threshold_is_no_gain():
    one, moved = (simulated(Setting(30, 60), studies=5, moved=o) for o in (0., .5))
    assert moved["value"].to_numpy() == pytest.approx(one["value"].to_numpy())

def test_over_three_backbones_it_is_holms():
    one, three = (simulated(Setting(), .8, .1, studies=40, backbones=o) for o in (1, 3))
    assert len(three) == 120 and (three["says"] == "gain").mean() < (one["says"] == "gain").mean()
    pd.testing.assert_frame_equal(three[three["backbone"] == 0].drop(columns="says").reset_index(drop=True),
                                  one.drop(columns="says"))

def test_a_table_of_power_counts_what_is_false():
    table = power_table(Setting(), .7, (0, .29), studies=30, alpha=.4)
    none, much = table.to_dict("records")
    assert none["false"] >= none["found"] > 0 and much["false"] == 0 and much["found"] == 1
    assert all(o[f"{k}_low"] <= o[k] <= o[f"{k}_high"] for o in (none, much) for k in ("found", "false"))
    assert much["found_low"] < 1 and much["difference_width"] > 0

def test_a_cohort_s_test_rows():
    assert repr(setting_of(174, 700)) == "52 + 210 patients, 3 seeds, luck 0.1"
    assert repr(setting_of(174, 700, folds=5, seeds=1)) == "174 + 700 patients in 5 folds, 1 seed, luck 0.1"

@pytest.mark.parametrize("flags, said", [
    (dict(positives=0), "positives=0"), (dict(negatives=-3), "negatives=-3"), (dict(test=1.), "test=1 is"),
    (dict(test=.3, folds=5), "test=0.3"),
    (dict(folds=2), "folds=2"), (dict(seeds=0), "seeds=0"), (dict(luck=-1), "luck=-1"), (dict(luck=np.nan), "luck=nan"),
    (dict(films="two"), "films='two'"), (dict(positives=4, folds=5), "positives=4")])
def test_numbers_that_are_none_are_named(flags, said):
    with pytest.raises(ValueError, match=said): setting_of(**dict(positives=100, negatives=100) | flags)

@pytest.mark.parametrize("setting, said", [(Setting(9, 50), "9 of the 10 positive"),
                                           (Setting(50, 50, 2), "2 of the 3 seeds")])
def test_where_no_verdict_can_be_given_nothing_is_simulated(setting, said):
    with pytest.raises(ValueError, match=said): simulated(setting, studies=1)

@pytest.mark.parametrize("auc, gain", [(1., 0.), (.9, .1), (.5, -.5), (np.nan, .1)])
def test_an_area_that_is_none_is_refused(auc, gain):
    with pytest.raises(ValueError, match="can't be simulated"): simulated(Setting(), auc, gain, studies=1)

def test_probabilities_are_decided_at_the_cut(): assert probability(np.array(CUT)) == .5

def test_what_training_patients_do_is_shared_as_far_as_they_are():
    "Of five parts, two folds train on three that are the same, of four each."
    drawn = _of_training(np.random.default_rng(0), 40_000, 5)[:, 0]
    found = np.cov(drawn.T)
    assert np.allclose(np.diag(found), 1, atol=.03) and np.allclose(found[~np.eye(5, dtype=bool)], .75, atol=.03)
    with pytest.raises(ValueError, match="shared= is of folds"): Setting(shared=.1)
    with pytest.raises(ValueError, match="shared=-1 must be a spread"): Setting(folds=3, shared=-1)
    assert "0.2 of training patients" in repr(Setting(30, 60, folds=3, shared=.2))
