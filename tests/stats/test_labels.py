import numpy as np, pandas as pd, pytest
from cxr_fastai.stats.labels import films_to_reread, FLIPPED, label_noise, noise_table
from cxr_fastai.stats.scoring import METRICS
from cxr_fastai.core import extras

def told(auc=.8, positives=60, n=200):
    return pd.DataFrame([dict(backbone="net", arm="real", metric="rocauc", mean=auc, low=auc - .05, high=auc + .05,
                              positives=positives, n=n), dict(backbone="net", arm="real", metric="recall", mean=.5)])

def flip(label, share, ill, well, rng):
    return np.where(rng.random(len(label)) < share*np.where(label == 1, ill, well), 1 - label, label)

@pytest.mark.parametrize("wrong, ill, well", [("both classes", 1, 1), ("positives", 1, 0), ("negatives", 0, 1)])
def test_what_is_seen_is_what_flipped_labels_give_and_back(wrong, ill, well):
    rng, n = np.random.default_rng(0), 40_000
    label = (rng.random(n) < .3).astype(int)
    prob = (rng.normal(size=n) + 1.2*label).argsort().argsort()/n
    true = METRICS["rocauc"](label, prob)
    lines = label_noise(told(true, label.sum(), n)).set_index(["wrong", "flipped"])
    for share in FLIPPED:
        noisy = flip(label, share, ill, well, rng)
        seen = METRICS["rocauc"](noisy, prob)
        assert lines.loc[(wrong, share), "seen"] == pytest.approx(seen, abs=.012)
        back = label_noise(told(seen, noisy.sum(), n)).set_index(["wrong", "flipped"])
        assert back.loc[(wrong, share), "true"] == pytest.approx(true, abs=.02)

def test_an_auc_that_so_many_wrong_labels_could_not_leave_has_nothing_behind_it():
    lines = label_noise(told(.95)).set_index(["wrong", "flipped"])
    assert np.isnan(lines.loc[("both classes", .2), ["true", "true_low", "true_high"]].to_numpy(float)).all()
    few = label_noise(told(.6, positives=20)).set_index(["wrong", "flipped"]) # fewer than the flips alone would make
    assert np.isnan(few.loc[("negatives", .2), "true"]) and few.loc[("negatives", .05), "true"] > .6
    assert (label_noise(told(.5)).seen == .5).all()
    close = label_noise(told(.93)).set_index(["wrong", "flipped"]).loc[("positives", .2)]
    assert close.true_low < close.true < close.true_high == 1 # not beyond

def test_the_table_is_a_line_a_class():
    table = noise_table(label_noise(told()))
    assert table.wrong.tolist() == ["both classes", "positives", "negatives"] and set(table.arm) == {"Real"}
    assert list(table)[3:] == ["AUC", "seen at 5%", "seen at 10%", "seen at 20%", "true if 5%", "true if 10%",
                               "true if 20%"] and table.AUC[0] == "0.800 [0.750, 0.850]"

def wrong_labels(n=240, k=10):
    rng = np.random.default_rng(1)
    label = (rng.random(n) < .3).astype(int)
    bad = rng.choice(n, k, replace=False)
    hard, seen = rng.normal(size=n), label.copy()
    seen[bad] = 1 - seen[bad]
    about = pd.DataFrame(dict(backbone="net", image=[f"{i:03}.png" for i in range(n)], patient_id=range(n), label=seen,
                              side=np.where(np.arange(n) < n//3, "valid", "test"), synthetic=False))
    parts = [about.assign(arm=arm, seed=s, probability=1/(1 + np.exp(3 - 6*label - .7*hard - .3*rng.normal(size=n))))
             for arm in ("real", "real-meta") for s in (0, 1)]
    return pd.concat(parts, ignore_index=True), set(about.image[bad])

def test_films_with_wrong_labels_come_first():
    pytest.importorskip("cleanlab")
    predictions, bad = wrong_labels()
    found = films_to_reread(predictions)
    assert list(found) == ["image", "patient_id", "side", "label", "probability", "quality", "note"]
    assert set(found.image[:9]) <= bad and 9 <= len(found) < 15 and set(found.side) == {"valid", "test"} # of 10
    assert found.quality.is_monotonic_increasing
    first = found.iloc[0]
    said = "labelled positive; 0" if first.label else "labelled negative; 4"
    assert first.note == f"{said} of 4 models call it positive at .5"
    blind = predictions.assign(arm="meta", probability=.5).drop_duplicates("image")
    made = predictions.iloc[:50].assign(image=[f"s{i}" for i in range(50)], synthetic=True, probability=.01, label=1)
    more = films_to_reread(pd.concat([predictions, blind, made]).sample(frac=1, random_state=0))
    pd.testing.assert_frame_equal(more, found) # models that see no film, and synthetic films, don't count

def test_nothing_to_read_again_and_one_class():
    pytest.importorskip("cleanlab")
    predictions, _ = wrong_labels(k=0)
    assert films_to_reread(predictions.assign(probability=.05 + .9*predictions.label)).empty
    with pytest.raises(ValueError, match="one class"): films_to_reread(predictions[predictions.label == 1])

def test_without_the_extra_it_is_said(monkeypatch):
    def gone(name): raise ImportError(name)
    monkeypatch.setattr(extras.importlib, "import_module", gone)
    with pytest.raises(ImportError, match=r"read again needs cleanlab: pip install 'cxr_fastai\[labels\]'"):
        films_to_reread(wrong_labels()[0])
