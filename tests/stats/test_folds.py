import numpy as np, pandas as pd, pytest
from scipy.stats import ttest_1samp
from cxr_fastai.stats.calibration import threshold_at
from cxr_fastai.stats.compare import compare_arms, correct, verdict
from cxr_fastai.stats.folds import corrected_t, fold_differences
from cxr_fastai.stats.predictions import check_predictions, joined
from cxr_fastai.stats.prevalence import prevalence_table
from cxr_fastai.stats.scoring import METRICS
from cxr_fastai.stats.subgroups import subgroups
from cxr_fastai.stats.tables import score_tables, table1
from conftest import folded_predictions

ARMS = "real-meta", "real-synth-meta"

def cells_of(table):
    keys = ["backbone", "arm", "seed", "fold"]
    return table[keys].drop_duplicates().assign(weights="none", train_prior=.5, prior=1/3)

def test_without_a_correction_it_is_students_test():
    values = np.random.default_rng(0).normal(.3, 1, 12)
    found, known = corrected_t(values, 0, most=9), ttest_1samp(values, 0)
    assert found["p"] == pytest.approx(known.pvalue) and found["value"] == pytest.approx(values.mean())
    assert (found["low"], found["high"]) == pytest.approx(tuple(known.confidence_interval()))

def test_the_correction_is_nadeaus_and_bengios():
    "Their equation 26: t is the mean over the root of (1/J + n2/n1) times the variance."
    values, ratio = np.array([.01, .03, -.02, .05, .04]), .25
    found = corrected_t(values, ratio)
    wide = (found["high"] - found["low"])/2
    assert wide == pytest.approx(2.7764451*np.sqrt(.45*values.var(ddof=1)), rel=1e-6)

@pytest.mark.parametrize("values, value, p", [([], np.nan, np.nan), ([.1], .1, np.nan), ([.1, .1], .1, np.nan),
                                              ([0., 0., 0.], 0, 1.), ([np.nan, .2], .2, np.nan)])
def test_what_says_nothing_has_no_interval(values, value, p):
    found = corrected_t(values, .25)
    assert [found[o] for o in ("value", "low", "high", "p")] == pytest.approx([value, np.nan, np.nan, p], nan_ok=True)

def test_films_are_ranked_within_their_fold():
    "Models of other levels rank no worse for it; the mean of the folds' areas is about the pooled one."
    table = folded_predictions(level=2.)
    side = joined(table)["real-meta"]
    pooled = METRICS["rocauc"](side.label, side.rank[0])
    each = np.mean([METRICS["rocauc"](side.label[o], side.prob[0][o]) for o in side.parts()])
    assert pooled == pytest.approx(each, abs=.03) and pooled > METRICS["rocauc"](side.label, side.prob[0]) + .05
    plain = joined(table[table["fold"] == 0].drop(columns="fold"))["real-meta"]
    assert plain.rank is plain.prob

def test_tables_are_of_the_whole_cohort():
    table = folded_predictions(level=1.)
    scored, each = score_tables(table, cells_of(table), n=200)
    own = scored[scored["arm"] == "real-meta"].set_index("metric")
    assert (own["n"] == 150).all() and (own["positives"] == 50).all() and (own["seeds"] == 2).all()
    said = table[(table["arm"] == "real-meta") & (table["side"] == "test")]
    ill = said[said["label"] == 1]
    assert own.loc["recall", "mean"] == pytest.approx((ill["probability"] > .5).mean())
    side = joined(table)["real-meta"]
    assert own.loc["rocauc", "mean"] == pytest.approx(np.mean([METRICS["rocauc"](side.label, o) for o in side.rank]))
    assert own.loc["rocauc", "low"] < own.loc["rocauc", "mean"] < own.loc["rocauc", "high"]
    assert sorted(each["seed"].unique()) == [0, 1]

def test_every_fold_has_its_own_threshold():
    table = folded_predictions(level=2.)
    scored, _ = score_tables(table, cells_of(table), n=200)
    own, hits = table[(table["arm"] == "real-meta") & (table["seed"] == 0)], []
    for _, o in own.groupby("fold"):
        valid, test = (o[o["side"] == side] for side in ("valid", "test"))
        at = threshold_at(valid["label"].to_numpy(), valid["probability"].to_numpy(), .9)
        hits += (test.loc[test["label"] == 1, "probability"] > at).tolist()
    _, each = score_tables(table, cells_of(table), n=200)
    first = each[(each["arm"] == "real-meta") & (each["seed"] == 0)].set_index("metric")
    assert first.loc["recall_at_90", "mean"] == pytest.approx(np.mean(hits))

def test_probabilities_move_by_each_models_own_prior():
    table = folded_predictions()
    cells = cells_of(table)
    cells.loc[cells["fold"] == 0, "train_prior"] = 1/3 # these don't move
    moved = {k: score_tables(table, c, n=100)[0].set_index(["arm", "metric"])["mean"]["real-meta", "recall_corrected"]
             for k, c in dict(some=cells, all=cells_of(table)).items()}
    assert moved["some"] > moved["all"]

def test_a_repeat_adds_trainings_and_no_patients():
    once, twice = folded_predictions(), folded_predictions(repeats=2)
    a, b = (compare_arms(o, [ARMS]).iloc[0] for o in (once, twice))
    assert (a["n"], a["folds"], b["n"], b["folds"]) == (150, 5, 150, 10)
    assert b["positive_patients"] == a["positive_patients"] == 50
    wide = [score_tables(o, cells_of(o), n=200)[0].set_index(["arm", "metric"]).loc[("real-meta", "rocauc")]
            for o in (once, twice)]
    assert wide[1]["high"] - wide[1]["low"] > .8*(wide[0]["high"] - wide[0]["low"])

def test_a_difference_is_the_mean_over_folds_and_seeds():
    table = folded_predictions(level=1.)
    found, each = compare_arms(table, [ARMS]).iloc[0], []
    for _, o in table[table["side"] == "test"].groupby(["fold", "seed"]):
        a, b = (o[o["arm"] == arm] for arm in ARMS)
        each.append([METRICS[k](b["label"], b["probability"]) - METRICS[k](a["label"], a["probability"])
                     for k in ("rocauc", "recall")])
    assert found[["rocauc", "recall"]].tolist() == pytest.approx(np.mean(each, 0).tolist())
    ratio = 30/(150 - 30 - 30)
    assert found["p_verdict"] == pytest.approx(corrected_t(np.array(each)[:, 0], ratio)["p"])
    assert found["pooled_rocauc"] == pytest.approx(found["rocauc"], abs=.03)
    assert found["pooled_rocauc_low"] < found["pooled_rocauc"] < found["pooled_rocauc_high"] and found["p_delong"] < 1

def test_the_verdict_says_its_rule():
    said = verdict(correct(compare_arms(folded_predictions(gap=3.), [ARMS])))
    assert "support a gain from Real-Meta to Ensemble" in said and "corrected t over 10 trainings of 5 folds" in said
    assert "corrected t" not in verdict(correct(compare_arms(folded_predictions(gap=0.), [ARMS]))).split("support")[0]

def test_arms_that_are_alike_have_no_gain():
    table = folded_predictions()
    plain = table[table["arm"] == ARMS[0]]
    alike = pd.concat([plain, plain.assign(arm=ARMS[1])])
    found = compare_arms(alike, [ARMS]).iloc[0]
    assert found["rocauc"] == 0 and found["p_verdict"] == 1 and np.isnan(found["rocauc_low"])

def test_a_gain_from_nothing_is_undefined():
    table = folded_predictions()
    table.loc[table["arm"] == ARMS[0], "probability"] = .1
    side = [joined(table, o) for o in ("test", "valid")]
    found = fold_differences(*(o[arm] for o in side for arm in ARMS))
    assert np.isnan(found["gain"]["value"]) and np.isnan(found["gain"]["low"])

def test_groups_and_prevalence_are_of_all_folds():
    table = folded_predictions()
    rows = pd.DataFrame(dict(image=[f"{i}.png" for i in range(150)], sex=["F", "M"]*75))
    found = subgroups(table, rows, ["sex"])
    assert found[found["arm"] == "Real-Meta"]["n"].tolist() == [75, 75]
    at = prevalence_table(table, cells_of(table), .1, n=100)
    assert at["ppv"].between(0, 1).all() and (at["seeds"] == 2).all()

def test_table_1_has_gains_of_folds():
    table = folded_predictions()
    scored, _ = score_tables(table, cells_of(table), n=200)
    line = table1(scored, compare_arms(table, [ARMS])).iloc[0]
    assert "%" in line["Gain Real-Meta to Ensemble"] and line["n"] == "150"

@pytest.mark.parametrize("spoil, said", [
    (lambda t: pd.concat([t, t.head(1)]), "an image stands twice.*fold 0"),
    (lambda t: t.assign(fold=t["fold"].where(t.index > 3)), "fold is missing"),
    (lambda t: t[~((t["fold"] == 3) & (t["arm"] == ARMS[1]) & (t["seed"] == 1))], "of fold 3")])
def test_folds_that_don_t_pair_are_refused(spoil, said):
    with pytest.raises(ValueError, match=said): joined(check_predictions(spoil(folded_predictions())))
