import numpy as np, pandas as pd, pytest
from sklearn import metrics as skm
from cxr_fastai.report.html import Page
from cxr_fastai.stats.draws import resample
from cxr_fastai.stats.formats import to_markdown
from cxr_fastai.stats.intervals import spread
from cxr_fastai.stats.scoring import BinaryMetric, METRICS, scores, title_of, weighted_metrics, wilson
from cxr_fastai.stats.tables import metrics_table, score_table

LABEL = [1, 1, 1, 0, 0, 0, 0, 0]
PROB  = [.9, .55, .2, .6, .4, .3, .1, .0] # at .5: tp 2, fn 1, fp 1, tn 4

def test_scores_by_hand():
    s = scores(LABEL, PROB)
    assert (s["n"], s["positives"], s["tp"], s["fn"], s["fp"], s["tn"]) == (8, 3, 2, 1, 1, 4)
    assert s["accuracy"] == 6/8 and s["precision"] == pytest.approx(2/3) and s["recall"] == pytest.approx(2/3)
    assert s["specificity"] == 4/5 and s["f1"] == pytest.approx(2/3)
    assert s["balanced_accuracy"] == pytest.approx((2/3 + 4/5) / 2)
    assert s["rocauc"] == pytest.approx((5 + 4 + 2) / 15)      # normals below .9, below .55, below .2
    assert s["pr_auc"] == pytest.approx((1/1 + 2/3 + 3/6) / 3) # precision at each positive, by falling probability
    assert s["brier"] == pytest.approx((.01 + .2025 + .64 + .36 + .16 + .09 + .01 + 0) / 8)
    assert (s["recall_low"], s["recall_high"]) == wilson(2, 3)

def test_a_half_is_not_above_a_half(): assert scores([1, 0], [.5, .5])["recall"] == 0

def test_scores_take_arrays_and_return_plain_numbers():
    s = scores(np.array(LABEL, bool), np.array(PROB, np.float32))
    assert s["tp"] == 2 and all(type(o) in (int, float) for o in s.values())

def test_scores_of_one_class_say_nan_where_undefined(recwarn):
    s = scores([0, 0, 0], [.1, .2, .7])
    assert np.isnan(s["rocauc"]) and np.isnan(s["pr_auc"])
    assert np.isnan(s["recall"]) and s["f1"] == 0 and s["specificity"] == pytest.approx(2/3)
    assert (s["recall_low"], s["recall_high"]) == (0, 1) and not recwarn.list

# the paper's Table 1 and its intervals; Real and Real-Meta are k/30, Ensemble k/84
@pytest.mark.parametrize("k,n,low,high", [
    (17, 30, .39, .73), (22, 30, .56, .86), (69, 84, .73, .89), (12, 30, .25, .58), (19, 30, .46, .78),
    (66, 84, .69, .86), (18, 30, .42, .75), (26, 30, .70, .95)])
def test_wilson_gives_the_intervals_of_the_papers_recalls(k, n, low, high):
    assert tuple(round(o, 2) for o in wilson(k, n)) == (low, high)

def test_wilson_by_its_formula_and_at_its_ends():
    z, p, n = 1.959963984540054, 7/20, 20
    mid, half = (p + z*z/(2*n)) / (1 + z*z/n), z * (p*(1 - p)/n + z*z/(4*n*n))**.5 / (1 + z*z/n)
    assert wilson(7, 20) == pytest.approx((mid - half, mid + half))
    assert wilson(0, 10)[0] == 0 and wilson(10, 10)[1] == 1 and wilson(0, 0) == (0, 1)
    assert wilson(7, 20, .99)[0] < wilson(7, 20)[0]

def _youden(o): return o.tp/(o.tp + o.fn) + o.tn/(o.tn + o.fp) - 1

def _matthews(o): return (o.tp*o.tn - o.fp*o.fn)/((o.tp + o.fp)*(o.tp + o.fn)*(o.tn + o.fp)*(o.tn + o.fn))**.5

@pytest.fixture
def more(monkeypatch):
    "Two metrics that the package doesn't have: an entry each, and nothing else."
    monkeypatch.setitem(METRICS, "youden", BinaryMetric(_youden, "decisions", "Youden's J", "Youden's J at .5",
        "Recall and specificity less 1.", ends=(-1, 1), mix=lambda share: (1, 1)))
    monkeypatch.setitem(METRICS, "matthews", BinaryMetric(_matthews, "decisions", "MCC", "Matthews correlation at .5",
        "The correlation of label and decision.", ends=(-1, 1)))

@pytest.fixture(scope="module")
def study():
    "One arm of two seeds: 120 test and 60 valid patients."
    rng = np.random.default_rng(0)
    label = (rng.random(180) < .4).astype(int)
    about = pd.DataFrame(dict(backbone="net", arm="real", side=np.r_[["test"]*120, ["valid"]*60], synthetic=False,
                              image=[f"{i:03}.png" for i in range(180)], patient_id=range(180), label=label))
    parts = [about.assign(seed=o, probability=1/(1 + np.exp(-label - rng.normal(size=180) + .5))) for o in (0, 1)]
    cells = pd.DataFrame([dict(backbone="net", arm="real", seed=o, weights="none", prior=.4, train_prior=.4)
                          for o in (0, 1)])
    return pd.concat(parts, ignore_index=True), cells

def test_a_metric_that_is_registered_from_outside_is_in_every_table(more, study, tmp_path):
    test = study[0].query("side == 'test' and seed == 0")
    own = scores(test.label, test.probability)
    assert own["youden"] == pytest.approx(own["recall"] + own["specificity"] - 1)
    assert own["matthews"] == pytest.approx(skm.matthews_corrcoef(test.label, test.probability > .5))
    draws = resample(test.patient_id, test.label, 20)
    drawn = weighted_metrics(test.label, test.probability, draws, calibration=False)["matthews"]
    called = test.probability > .5
    assert drawn == pytest.approx([skm.matthews_corrcoef(test.label, called, sample_weight=o) for o in draws])
    table = score_table(*study, n=100)
    for k in "youden", "matthews":
        line = table.set_index("metric").loc[k]
        assert line.low < line["mean"] < line.high and line.proc_low <= line.low
        assert f"{k}_corrected" in set(table.metric)
    words = metrics_table(table)
    assert words.youden[0].startswith(f"{table.set_index('metric')['mean']['youden']:.3f} [")
    assert "youden" in to_markdown(words).splitlines()[0]
    page = Page(tmp_path, []).section("All metrics")
    page.table(words, "All metrics")
    assert "Youden&#39;s J</th>" in page.html("a study") and ">MCC</th>" in page.html("a study")

def test_where_no_resample_changes_it_its_interval_follows_from_the_two_rates(more):
    label = np.repeat([1, 0], 20)
    found = spread(label, np.where(label, .9, .1), resample(range(40), label, 50), calibration=False)
    low = wilson(20, 20)[0]
    assert found.loc["youden", ["low", "high"]].tolist() == pytest.approx([1 - 2**.5*(1 - low), 1])
    assert found.loc["matthews", ["low", "high"]].tolist() == pytest.approx([2*low - 1, 1])

def test_heads_of_columns_are_the_titles_of_metrics():
    assert [title_of(o) for o in ("pr_auc", "rocauc procedure", "f1_corrected", "recall_at_90", "patient_id", "n")] == [
        "PR-AUC", "ROC-AUC procedure", "F1 corrected", "recall at 90", "patient id", "n"]

def test_an_entry_says_which_way_is_better_and_where_it_ends():
    assert [k for k, o in METRICS.items() if o.better == "lower"] == ["brier"]
    rng = np.random.default_rng(0)
    for _ in range(20):
        label, prob = rng.random(9) < .5, rng.random(9)
        for o in METRICS.values(): assert not (value := o(label, prob)) < o.ends[0] and not value > o.ends[1]
