import numpy as np, pytest
from cxr_fastai.cohort.leaks import LeakError
from cxr_fastai.core import extras
from cxr_fastai.models.predictions import predictions_of
from cxr_fastai.stats.scoring import scores
from cxr_fastai.trained import slider as room
from cxr_fastai.trained.bundle import load_bundle, save_bundle
from cxr_fastai.trained.slider import costs_at, threshold_slider

def test_costs_are_the_scores_of_every_door():
    rng = np.random.default_rng(0)
    label, prob = rng.random(50) < .3, rng.random(50).astype(np.float32)
    for at in (0, .2, float(prob[3]), .5, 1):
        known, costs = scores(label, prob, threshold=at), costs_at(label, prob, at)
        assert all(costs[o] == known[o] for o in ("tp", "fp", "tn", "fn"))
        for ours, theirs in dict(sensitivity="recall", specificity="specificity", PPV="precision").items():
            k, n = costs[ours]
            assert np.isnan(known[theirs]) if not n else k/n == pytest.approx(known[theirs])

def test_a_slider_tells_what_its_threshold_costs_on_valid_rows(tiny_learner, rows):
    pytest.importorskip("ipywidgets")
    learn, valid = tiny_learner("metadata"), rows[rows["split"] == "valid"]
    said = predictions_of(learn, valid)
    slider, shown = threshold_slider(learn).children
    assert slider.value == learn.threshold == .5 and f"On {len(valid)} valid films" in shown.value
    for at in (0, said["probability"].median(), 1):
        slider.value = at
        known = scores(said["label"], said["probability"], threshold=at)
        assert f"({known['tp']} of {known['positives']})" in shown.value
        assert f"<td>{known['tp']}</td><td>{known['fn']}</td>" in shown.value
        assert f"<td>{known['fp']}</td><td>{known['tn']}</td>" in shown.value
    assert "PPV <b>- (0 of 0)</b>" in shown.value and learn.threshold == .5

def test_test_rows_and_those_of_a_bundle_without_any_are_refused(tiny_learner, rows, tmp_path):
    pytest.importorskip("ipywidgets")
    learn = tiny_learner("metadata")
    for side in ("train", "test"):
        with pytest.raises(LeakError): threshold_slider(learn, rows[rows["split"] == side])
    loaded = load_bundle(save_bundle(learn, tmp_path/"b"), "cpu")
    with pytest.raises(ValueError, match="no valid rows"): threshold_slider(loaded)
    valid = rows[rows["split"] == "valid"]
    assert threshold_slider(loaded, valid).children[1].value == threshold_slider(learn).children[1].value

def test_no_class_is_html():
    html = room._html(costs_at([0, 1], [.2, .7], .5), ("<b>a", "<img src=x>"), "x < y")
    assert "<img" not in html and "<b>a" not in html and "&lt;img" in html and "x &lt; y" in html

def test_without_ipywidgets_it_says_what_brings_them(tiny_learner, monkeypatch):
    def absent(name): raise ImportError(name)
    monkeypatch.setattr(extras.importlib, "import_module", absent)
    with pytest.raises(ImportError, match=r"A slider needs ipywidgets: pip install 'cxr_fastai\[notebooks\]'"):
        threshold_slider(tiny_learner("metadata"))
