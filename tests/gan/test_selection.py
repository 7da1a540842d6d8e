import copy
from functools import partial
import numpy as np, pandas as pd, pytest, torch
from fastai.vision.all import Callback
from cxr_fastai.fit.callbacks import HistoryWriter
from cxr_fastai.fit.checkpoint import Checkpoint
from cxr_fastai.cohort.cache import RadiographCache
from cxr_fastai.gan.cyclegan import cyclegan_learner
from cxr_fastai.gan.features import features_by, Features
from cxr_fastai.gan.quality import kernel_distance
from cxr_fastai.gan.selection import KernelPick, looked_at
from cxr_fastai.gan.unpaired import UnpairedDataLoaders
from cxr_fastai.report.translators import epoch_taken
from conftest import look

judge = partial(features_by, look)
SIZE = 24

@pytest.fixture(scope="module")
def dls(rows): return UnpairedDataLoaders.from_df(rows, size=SIZE, bs=10)

def learner(dls): return cyclegan_learner(dls, n_blocks=0, ngf=2, ndf=2, n_layers=2, precision="fp32")

class Keep(Callback):
    "The running means at each epoch's end."
    def before_fit(self): self.kept = []
    def after_epoch(self): self.kept.append(copy.deepcopy(self.model.ema.state_dict()))

def same(a, b): return all(torch.equal(o, b[k]) for k, o in a.items())
def which(learn, keep): return [i for i, o in enumerate(keep.kept) if same(o, learn.model.ema.state_dict())]

def planted(learn, rows, order):
    "Translations at each epoch: real minority films of valid, or their negatives, more or less of them."
    files = rows["file"][(rows["split"] == "valid") & (rows["label"] == "Pneumonia")].tolist()
    real, turn = RadiographCache(files, SIZE).get(files), iter(order)
    learn.translate = lambda pixels, way: (real if (o := next(turn)) == 0 else (255 - real//(5 - o))).astype(np.uint8)

@pytest.mark.parametrize("order, taken", [((2, 0, 1), 1), ((0, 0, 1), 1), ((1, 2, 3), None), ((2, 1, 0), 2)])
def test_the_last_epoch_within_the_floor_translates_else_the_nearest(rows, dls, tmp_path, capsys, order, taken):
    learn, keep, pick = learner(dls), Keep(), KernelPick(rows, judge)
    planted(learn, rows, order)
    learn.fit(3, 2e-3, cbs=[keep, pick, HistoryWriter(tmp_path/"history.csv")])
    history = pd.read_csv(tmp_path/"history.csv")
    assert history[["kernel", "floor", "untouched"]].notna().all().all() and set(history["features"]) == {"look"}
    if taken is None: taken = int(history["kernel"].idxmin())
    assert which(learn, keep) == [taken] == [epoch_taken(history)]
    assert (history["kernel"] <= history["floor"]).sum() == order.count(0)
    assert f"Epoch {taken + 1} translates: films of valid" in capsys.readouterr().out

def test_only_valid_rows_are_looked_at(rows, dls, monkeypatch):
    asked = []
    monkeypatch.setattr("cxr_fastai.gan.selection.RadiographCache",
                        lambda files, *args, **kwargs: asked.extend(files) or RadiographCache(files, *args, **kwargs))
    monkeypatch.setattr(Features, "of", lambda self, rows, size, of=Features.of: asked.extend(rows.file) or
                        of(self, rows, size))
    learner(dls).fit(2, cbs=KernelPick(rows, judge, every=2))
    valid = rows[rows["split"] == "valid"]
    assert sorted(asked) == sorted(valid["file"]) and looked_at(rows) == (valid["label"] == "Normal").sum()

def test_its_figures_are_kernel_distances_of_what_the_model_makes(rows, dls):
    learn, pick = learner(dls), KernelPick(rows, judge, every=2)
    learn.fit(3, 2e-4, cbs=pick)
    assert list(pick.columns) == [1, 2]
    a, b = (rows[(rows["split"] == "valid") & (rows["label"] == o)] for o in ("Normal", "Pneumonia"))
    own, features = RadiographCache(a["file"].tolist(), SIZE), judge()
    x, y = features.of_pixels(own.get(a["file"].tolist())), features.of(b, SIZE)
    both = np.concatenate([x, y])
    scaled = lambda o: (o - both.mean(0)) / np.maximum(both.std(0), np.median(both.std(0))/10)
    line = pick.columns[2]
    assert line["untouched"] == pytest.approx(kernel_distance(scaled(y), scaled(x)))
    if pick.history["kernel"].idxmin() == 2 or line["kernel"] <= line["floor"]: # what it translates by now
        made = features.of_pixels(learn.translate(own.get(a["file"].tolist())))
        assert line["kernel"] == pytest.approx(kernel_distance(scaled(y), scaled(made)))

def test_training_is_the_same_bits_with_it(rows, dls):
    runs = []
    for cbs in [], [KernelPick(rows, judge)]:
        learn = learner(dls)
        learn.fit(2, 2e-4, cbs=cbs)
        runs.append(torch.cat([p.flatten() for p in learn.model.generators.parameters()]))
    assert torch.equal(*runs)

def test_killed_and_taken_up_it_picks_what_the_unbroken_run_picks(rows, dls, tmp_path, capsys):
    class Break(Callback):
        def before_batch(self):
            if self.epoch == 3: raise KeyboardInterrupt
    def fit(folder, *more, by=judge):
        learn, keep = learner(dls), Keep()
        cbs = [KernelPick(rows, by), Checkpoint(folder, 2), HistoryWriter(folder/"history.csv"), keep, *more]
        learn.fit(4, 2e-3, cbs=cbs)
        return learn.model.ema.state_dict(), (folder/"history.csv").read_bytes()
    whole, history = fit(tmp_path/"whole")
    with pytest.raises(KeyboardInterrupt): fit(tmp_path/"broken", Break())
    def other(): return Features(look, "others")
    with pytest.raises(ValueError, match="compared by look, and these would be by others: make"):
        fit(tmp_path/"broken", by=other)
    for _ in range(2): # the second time all epochs are there, and nothing is compared
        again, same_history = fit(tmp_path/"broken", by=judge)
        assert same(again, whole) and same_history == history
        assert ("translates" in capsys.readouterr().out) == (_ == 0)

def test_nan_leaves_the_epoch_that_was_taken_before(rows, dls):
    class Break(Callback):
        def before_batch(self):
            if self.epoch == 1: self.model.g_ab.layers[1].weight.data.fill_(torch.nan)
    learn, keep = learner(dls), Keep()
    with pytest.warns(UserWarning, match="training stops"):
        learn.fit(3, 2e-4, cbs=[Break(), keep, KernelPick(rows, judge)])
    assert 0 in which(learn, keep) and all(p.isfinite().all() for p in learn.model.ema.parameters())
