import numpy as np, pytest
from cxr_fastai.stats.scoring import scores, wilson
from cxr_fastai.stats.summary import figures_at, summary_table, summary_words

@pytest.fixture(scope="module")
def said():
    rng = np.random.default_rng(0)
    label = rng.random(120) < .3
    return label.astype(int), 1/(1 + np.exp(-(label + rng.normal(size=120) - .4))), np.arange(120)//2

def test_figures_are_those_of_scores_at_any_threshold(said):
    label, prob, who = said
    for at in .5, .3, float(prob[7]):
        found, own = figures_at(label, prob, at, who, n=50), scores(label, prob, who, at)
        values = dict(zip(found["figure"], found["value"]))
        assert {k: own[k] for k in own if k in values} == {k: v for k, v in values.items() if k in own}
        assert own["tp"] == (label[prob > at] == 1).sum() and own["fp"] == (label[prob > at] == 0).sum()
        assert (found["low"] <= found["value"]).all() and (found["value"] <= found["high"]).all()
        assert {"calibration_slope", "calibration_intercept", "rocauc", "recall"} <= {*values}
    assert scores(label, prob)["recall"] == scores(label, prob, threshold=.5)["recall"]

def test_a_summary_counts_films_calls_flags_and_scores(said):
    label, prob, who = said
    prob, label = np.r_[prob, np.nan], np.r_[label, 1]
    table = summary_table(prob, .4, .24, {"in colour": 3}, np.nan, label, np.r_[who, 99])
    of = {(o.kind, o.figure): o for o in table.itertuples()}
    assert of["films", "all"].value == 121 and of["films", "without a probability"].value == 1
    hit = of["called positive", "above 0.4"]
    assert hit.value == (prob[:-1] > .4).mean() and (hit.low, hit.high) == wilson(hit.value*60, 60)
    assert of["probability", "median"].value == np.median(prob[:-1]) and of["flag", "in colour"].value == 3
    assert of["label", "films"].value == 120
    assert of["score", "recall"].value == scores(label[:-1], prob[:-1], threshold=.4)["recall"]
    words = " ".join(summary_words(table, "Ill"))
    assert f"{hit.value:.0%} [" in words and "training rows 24% were" in words and "far from the 24%" in words
    assert "1 of 121 films have no probability" in words and "3 in colour" in words and "By the labels of 120" in words

def test_a_share_like_trainings_is_no_warning(said):
    _, prob, _ = said
    share = (prob > .5).mean()
    assert "far from" not in " ".join(summary_words(summary_table(prob, .5, share, {}), "Ill"))
    assert "far from the 90%" in " ".join(summary_words(summary_table(prob, .5, share, {}, .9), "Ill"))
    unknown = summary_words(summary_table(prob, .5, np.nan, {}), "Ill")
    assert "far from" not in " ".join(unknown) and "training" not in " ".join(unknown)

def test_nothing_to_go_by_is_no_error():
    assert summary_words(summary_table([np.nan]*3, .5, .2, {}), "Ill") == [
        "3 of 3 films have no probability: see their errors."]
    assert summary_words(summary_table([], .5, .2, {}), "Ill") == []
    one = summary_words(summary_table([.2, .9], .5, .2, {}, label=[1, 1]), "Ill") # one class alone
    assert "By the labels of 2 films, 2 of them positive: recall" in " ".join(one) and "ROC-AUC" not in " ".join(one)
    one = summary_words(summary_table([.2, .9], .5, .2, {}, label=[np.nan, 0]), "Ill")
    assert "By the labels of 1 films" in " ".join(one)
