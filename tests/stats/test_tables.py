import numpy as np, pandas as pd, pytest
from cxr_fastai.stats.areas import delong
from cxr_fastai.arms import comparisons_of
from cxr_fastai.stats.calibration import prior_shift, threshold_at
from cxr_fastai.stats.compare import compare_arms
from cxr_fastai.stats.scoring import METRICS, scores, wilson
from cxr_fastai.stats.subgroups import subgroups
from cxr_fastai.stats.tables import gains_of, in_words, metrics_table, score_table, score_tables, span, table1
from conftest import ordinary_predictions

ARMS = "real", "meta", "real-meta", "real-synth-meta", "real-meta+focal"

@pytest.fixture(scope="module")
def study():
    "Predictions and cells of two backbones, five arms, two seeds; 90 test and 60 valid patients."
    rng, parts, cells = np.random.default_rng(0), [], []
    label, hard = (rng.random(150) < .35).astype(int), rng.normal(size=150)
    side = np.r_[["test"]*90, ["valid"]*60]
    for net in "resnet50", "vgg16":
        for k, arm in enumerate(ARMS):
            for seed in 0, 1:
                prob = 1/(1 + np.exp(-(.5*k*label + hard + rng.normal(size=150) - 1)))
                parts.append(pd.DataFrame(
                    dict(backbone=net, arm=arm, seed=seed, side=side, image=[f"{i}.png" for i in range(150)],
                         patient_id=range(150), label=label, probability=prob, synthetic=False)))
                cells.append(dict(backbone=net, arm=arm, seed=seed, weights="none", prior=.3,
                                  train_prior=.5 if "synth" in arm else .3))
    return pd.concat(parts, ignore_index=True), pd.DataFrame(cells)

@pytest.fixture(scope="module")
def scored(study): return score_table(*study, n=100)

def of(study, arm, side="test", net="resnet50"):
    t = study[0]
    own = t[(t.backbone == net) & (t.arm == arm) & (t.side == side)]
    return [(o.label.to_numpy(), o.probability.to_numpy()) for _, o in own.groupby("seed")]

def value(scored, arm, metric, column="mean"):
    return scored.set_index(["backbone", "arm", "metric"]).loc[("resnet50", arm, metric), column]

def test_every_metric_of_every_arm_with_what_it_rests_on(study, scored):
    assert len(scored.groupby(["backbone", "arm"])) == 10
    own = set(scored[(scored.backbone == "vgg16") & (scored.arm == "meta")].metric)
    calibration = {"calibration_slope", "calibration_intercept", "ici", "e50", "e90"}
    assert own >= set(METRICS) | calibration | {f"{o}_at_{p}" for o in ("recall", "specificity") for p in (90, 95)}
    assert own >= {f"{o}_corrected" for o in {*METRICS, *calibration} - {"rocauc", "pr_auc"}}
    label = of(study, "real")[0][0]
    for o in scored.itertuples():
        assert (o.n, o.positives, o.seeds) == (90, label.sum(), 2)
        assert (o.epoch, o.weights, o.protocol) == ("last", "none", "clean")
        assert not (o.low > o.high)

def test_values_are_means_over_seeds_of_the_test_rows(study, scored):
    for arm in ARMS:
        each = [scores(*o) for o in of(study, arm)]
        for k in METRICS:
            assert value(scored, arm, k) == pytest.approx(np.mean([o[k] for o in each]))
            assert value(scored, arm, k, "sd") == pytest.approx(np.std([o[k] for o in each], ddof=1))

def test_the_prior_shift_moves_decisions_where_training_saw_more_positives(study, scored):
    for arm, before in ("real-synth-meta", .5), ("real-meta", .3):
        moved = np.mean([scores(y, prior_shift(p, before, .3))["recall"] for y, p in of(study, arm)])
        assert value(scored, arm, "recall_corrected") == pytest.approx(moved)
    assert value(scored, "real-synth-meta", "recall_corrected") < value(scored, "real-synth-meta", "recall")
    assert value(scored, "real-meta", "recall_corrected") == value(scored, "real-meta", "recall")

def test_thresholds_are_fixed_on_valid(study, scored):
    for share, name in (.9, "90"), (.95, "95"):
        expected = []
        for (y, p), (v, q) in zip(of(study, "real-meta"), of(study, "real-meta", "valid")):
            t = threshold_at(v, q, share)
            expected.append(((p[y == 1] > t).mean(), (p[y == 0] <= t).mean()))
        found = value(scored, "real-meta", f"recall_at_{name}"), value(scored, "real-meta", f"specificity_at_{name}")
        assert found == pytest.approx(np.mean(expected, 0))

def test_a_recall_that_no_resample_changes_has_wilsons_interval(study):
    predictions, cells = study
    sure = predictions.assign(probability=predictions.label*.8 + .1)
    table = score_table(sure, cells, n=50)
    positives = table.positives[0]
    assert tuple(value(table, "real", "recall", o) for o in ("low", "high")) == wilson(positives, positives)

def test_table1_is_the_papers_with_intervals_and_gains(study, scored):
    compared = compare_arms(study[0], comparisons_of(ARMS), n=100)
    table = table1(scored, compared)
    assert list(table) == ["Model", "Real", "Real procedure", "Meta", "Meta procedure", "Real-Meta",
                           "Real-Meta procedure",
                           "Ensemble", "Ensemble procedure", "Gain Real-Meta to Ensemble", "Gain Real to Real-Meta",
                           "n", "positives", "seeds", "epoch", "weights", "protocol"]
    o = table.iloc[0]
    gain = compared.query("backbone == 'resnet50' and after == 'real-synth-meta' and before == 'real-meta'").iloc[0]
    assert o.Ensemble.startswith(f"{value(scored, 'real-synth-meta', 'recall'):.4f} [") and " sd " in o.Ensemble
    assert o["Gain Real-Meta to Ensemble"].startswith(f"{gain.gain:+.1%} [") and o.seeds == "2"
    one = table1(score_table(study[0][study[0].seed == 0], study[1][study[1].seed == 0], n=20), compared)
    assert "sd" not in one.Real[0]

def test_table1_tells_tone_from_texture(study):
    predictions, cells = (o.replace(dict(arm={"real-meta+focal": "real-synth-meta+local"})) for o in study)
    compared = compare_arms(predictions, gains_of(predictions.arm), n=20)
    line = table1(score_table(predictions, cells, n=20), compared).iloc[0]
    assert {"Ensemble", "Ensemble + local", "Gain Real-Meta to Ensemble + local"} <= {*line.index}

def test_a_gain_from_nothing_is_undefined(study, scored):
    compared = compare_arms(study[0].assign(probability=lambda o: np.where(o.arm == "real", .1, o.probability)),
                            [("real", "real-meta")], n=20)
    none = scored.assign(mean=lambda o: o["mean"].where((o.arm != "real") | (o.metric != "recall"), 0.))
    after = value(scored, "real-meta", "recall")
    assert table1(none, compared)["Gain Real to Real-Meta"][0] == f"undefined [-]: from 0 to {after:.4f}"

def test_no_interval_is_printed_as_a_point():
    assert in_words(.2402, .23981, .24033) == "0.2402 [0.2398, 0.2403]"
    assert in_words(.24, .239,.241) == "0.240 [0.239, 0.241]"
    assert span(-.00049, .00041) == "[-0.0005, 0.0004]" and span(np.nan, np.nan) == "[-]"

def test_all_metrics_in_words(scored):
    wide = metrics_table(scored)
    assert len(wide) == 10 and list(wide.arm[:5]) == ["Real", "Meta", "Real-Meta", "Ensemble", "Real-Meta + focal"]
    assert wide.rocauc[0].startswith(f"{value(scored, 'real', 'rocauc'):.3f} [")
    assert {"n", "seeds", "protocol"} <= set(wide)

def test_the_papers_protocol_counts_synthetic_positives(study):
    predictions, cells = study
    test = predictions[(predictions.arm == "real-synth-meta") & (predictions.side == "test")]
    made = test.groupby(["backbone", "seed"]).head(20)
    made = made.assign(label=1, probability=.9, synthetic=True, image="a2b_" + made.image)
    table = score_table(pd.concat([predictions, made]), cells, protocol="paper", n=20)
    plain = score_table(*study, n=20)
    positives = plain.positives[0]
    assert value(table, "real-synth-meta", "recall") == value(plain, "real-synth-meta", "recall") # the real ones alone
    real = value(plain, "real-synth-meta", "recall")
    assert value(table, "real-synth-meta",
                 "recall_with_synthetic") == pytest.approx((real*positives + 20)/(positives + 20))
    assert value(table, "real-synth-meta", "positives_synthetic") == 20
    assert value(table, "real", "positives_synthetic") == 0
    assert value(table, "real-synth-meta", "positives_with_synthetic") == positives + 20

def test_subgroups_show_a_shortcut():
    "Of AP films more are ill, and the metadata-only arm calls every AP film ill: recall 1 there, and 0 elsewhere."
    view = np.repeat(["AP", "PA"], 40)
    label = np.r_[np.tile([1, 1, 1, 0], 10), np.tile([1, 0, 0, 0], 10)]
    rows = pd.DataFrame(dict(image=[f"{i}.png" for i in range(80)], view=view, sex="F", age=np.r_[[45.]*79, np.nan]))
    parts = [pd.DataFrame(dict(backbone="net", arm="meta", seed=s, side="test", image=rows.image, patient_id=range(80),
                               label=label,
                               probability=np.where(view == "AP", .9, .1), synthetic=False)) for s in (0, 1)]
    table = subgroups(pd.concat(parts), rows).set_index(["column", "group"])
    assert table.loc[("view", "AP"), ["n", "positives"]].tolist() == [40, 30]
    assert table.loc[("view", "AP"), "recall"].startswith("1.000")
    assert table.loc[("view", "PA"), "recall"].startswith("0.000")
    assert table.loc[("view", "AP"), "rocauc"].startswith("0.500") and table.loc[("sex", "F"), "rocauc"] > "0.7"
    assert table.loc[("view", "AP"), "recall to the rest"].startswith("+1.000 [+0.700, +1.000]")
    assert table.loc[("sex", "F"), "recall to the rest"] == "-"
    assert table.loc[("age", "40-59"), "n"] == 79 and table.loc[("age", "missing"), "recall"] == "-"

def test_subgroups_of_numbered_images_and_other_columns(study):
    predictions, _ = study
    rows = pd.DataFrame(dict(image=[f"{i}.png" for i in range(150)], smoker=["yes", "no"]*75))
    table = subgroups(predictions, rows, ["smoker", "age"])
    assert set(table.column) == {"smoker"} and (table.groupby(["backbone", "arm"]).n.sum() == 90).all()

def ordinary():
    "Probabilities with ties, patients with two films, two arms of three seeds."
    cells = []
    for arm, before in ("real", .35), ("real-synth", .5):
        cells += [dict(backbone="net", arm=arm, seed=s, weights="none", train_prior=before, prior=.35)
                  for s in range(3)]
    return ordinary_predictions(), pd.DataFrame(cells)

FROZEN = { # mean and sd over seeds, as version 0.2.0 gave them
    "accuracy": (.7472222222222222, .004811252243246865), "precision": (.6657818113064852, .022729360246524506),
    "recall": (.6592592592592593, .04625924443258073), "specificity": (.7999999999999999, .035276684147527874),
    "balanced_accuracy": (.7296296296296297, .005592469952052384), "f1": (.6613126367716331, .011423906651839863),
    "rocauc": (.7818271604938273, .03173703105797619), "pr_auc": (.6885564549292535, .03759534441699858),
    "brier": (.1831726555555556, .009939969686550226), "calibration_slope": (.9238415717863009, .22636835920654624),
    "calibration_intercept": (-.2961618247371774, .06468118928973188),
          "recall_at_90": (.48148148148148145, .1223904566063578),
    "specificity_at_90": (.88, .04807401700618654), "recall_at_95": (.26666666666666666, .04444444444444445),
    "specificity_at_95": (.9422222222222224, .02775554665954845),
          "accuracy_corrected": (.7305555555555555, .004811252243246865),
    "precision_corrected": (.7112717834631072, .012147692222750087),
          "recall_corrected": (.47407407407407404, .01283000598199167),
    "specificity_corrected": (.8844444444444445, .007698003589194995),
          "f1_corrected": (.5688383119962067, .009537388849835344),
    "balanced_accuracy_corrected": (.6792592592592591, .005592469952052384),
          "brier_corrected": (.18261211215031084, .011193150171451711),
    "calibration_slope_corrected": (.9238415717863009, .2263683592065463),
          "calibration_intercept_corrected": (.3228773836690462, .06468118928973185)}

@pytest.fixture(scope="module")
def frozen(): return ordinary()

def test_an_ordinary_case_has_the_values_it_always_had(frozen):
    found = score_table(*frozen, n=20).set_index(["arm", "metric"])
    for k, both in FROZEN.items():
        assert tuple(found.loc[("real-synth", k), ["mean", "sd"]]) == pytest.approx(both, abs=1e-12), k
    test = frozen[0][frozen[0].side == "test"]
    a, b = (np.stack([o.probability for _, o in test[test.arm == arm].groupby("seed")])
            for arm in ("real", "real-synth"))
    one = test[(test.arm == "real") & (test.seed == 0)]
    tested = delong(one.label, a, b, one.patient_id)
    assert [tested[o] for o in ("difference", "low", "high", "se", "p")] == pytest.approx(
        [.06523456790123439, .020152114991123703, .11031702081134506, .02263213377527463, .005140473494544502],
        abs=1e-12)
    assert delong(one.label, a[0], patients=one.patient_id)["p"] == pytest.approx(3.033766742897531e-05, abs=1e-12)
    assert wilson(7, 20) == pytest.approx((.1811918241010821, .5671457233147638), abs=1e-12)

def test_lines_in_any_order_give_the_same_table(frozen):
    predictions, cells = frozen
    mixed = predictions.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(score_table(mixed, cells, n=20), score_table(predictions, cells, n=20))

def test_each_seed_alone_is_what_its_own_table_says(frozen):
    predictions, cells = frozen
    _, each = score_tables(predictions, cells, n=50)
    alone = score_table(predictions[predictions.seed == 1], cells[cells.seed == 1], n=50)
    assert each[each.seed == 1]["mean"].tolist() == pytest.approx(alone["mean"].tolist())
    assert each[each.seed == 1]["low"].tolist() == pytest.approx(alone["low"].tolist(), nan_ok=True)
    assert alone.proc_low.isna().all() and "[-]" in set(metrics_table(alone)["recall procedure"])

def test_thresholds_are_drawn_with_the_valid_patients(frozen):
    found = score_table(*frozen).set_index(["arm", "metric"])
    fixed, drawn = (found.loc[("real", o), "high"] - found.loc[("real", o), "low"]
                    for o in ("specificity", "specificity_at_90"))
    assert drawn > fixed # though its own variance is smaller

def test_a_gain_from_hardly_any_recall_is_not_counted_in_thousands():
    from cxr_fastai.stats.tables import _gain
    assert _gain(0., -1., 1661.61) == "+0.0% [-100%, >+1000%]" and _gain(np.nan, np.nan, np.nan) == "undefined [-]"
    assert _gain(.12, -.05, np.inf) == "+12.0% [-5%, >+1000%]" and _gain(.12, -.05, .5) == "+12.0% [-5%, +50%]"
