import pandas as pd, pytest, torch
from fastai.vision.all import Callback, load_learner
from cxr_fastai.fit.callbacks import EpochLines, HistoryWriter
from cxr_fastai.fit.checkpoint import Checkpoint
from cxr_fastai.gan import alarms
from cxr_fastai.gan.cut import cut_learner
from cxr_fastai.gan.cyclegan import cyclegan_learner
from cxr_fastai.gan.unpaired import UnpairedDataLoaders
from waits import Asked, Told

@pytest.fixture(scope="module")
def dls(rows): return UnpairedDataLoaders.from_df(rows, size=24, bs=10)

def learner(dls, make=cyclegan_learner, **kwargs):
    return make(dls, **dict(n_blocks=0, ngf=2, ndf=2, n_layers=2, precision="fp32") | kwargs)

def flat(learn):
    for p in learn.model.g_ab.parameters(): p.data.zero_()
def same(learn): # of a residual generator
    for p in learn.model.g_ab.layers[-2].parameters(): p.data.zero_()
def changed(learn):
    for net in learn.model.generators.values(): torch.nn.init.normal_(net.layers[-2].weight, 0., .3)
def wins(learn): learn.loss_func.parts["acc_d_b"] = torch.tensor(.999)
def right(learn, share=.98):
    learn.loss_func.parts |= {o: torch.tensor(share) for o in learn.loss_func.names if o.startswith("acc_")}

def watched(learn, steps, fault=None, at=0):
    "The watch after as many steps as it would see in a fit, of a generator that changes films; and what it was told."
    learn.epoch, learn.n_epoch, learn.iter, learn.n_iter = 0, 1, 0, 1_000
    watch, said = learn.collapse_watch, {}
    changed(learn)
    watch.before_fit()
    for step in range(steps):
        right(learn)
        if fault and step >= at: fault(learn)
        watch.after_batch()
        said |= {o: step + 1 - at for o in watch.said if o not in said}
    return watch, said

FAULTS = {"collapse a2b": flat, "identity a2b": same, "wins d_b": wins}

@pytest.mark.parametrize("make", [cyclegan_learner, cut_learner])
@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("at", [0, 41, 79, 520])
def test_a_planted_fault_is_named_within_200_steps_and_nothing_else(dls, make, name, at):
    with pytest.warns(UserWarning, match="epoch 1: ") as seen:
        watch, said = watched(learner(dls, make, residual=name != "collapse a2b"), at + 200, FAULTS[name], at)
    assert list(said) == [name] == watch.said and 0 < said[name] <= 200 and len(seen) == 1

def test_what_passes_is_no_alarm(dls, recwarn):
    learn = learner(dls, residual=True)
    assert not watched(learn, 400)[1]
    def for_a_while(fault, n):
        left = [n]
        def do(learn):
            left[0] -= 1
            if left[0] >= 0: fault(learn)
            elif left[0] == -1: changed(learn)
        return do
    for fault, n in ((same, 30), (wins, 110)):
        assert not watched(learn, 480, for_a_while(fault, n), 200)[1]
    watch, _ = watched(learn, 0)
    same(learn)
    for _ in range(119): watch.after_batch() # it begins so
    assert not watch.said and not [o for o in recwarn if "epoch" in str(o.message)]

def test_a_look_is_one_transfer_in_forty_steps(dls):
    learn = learner(dls, residual=True)
    watch, _ = watched(learn, 0)
    for step in range(1, 121):
        right(learn)
        with Asked(found := []), Told(found): watch.after_batch()
        assert [name for name, _ in found if name != "_local_scalar_dense"] == (["tolist"] if step % 40 == 0 else [])

@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(alarms, "EVERY", 2)
    monkeypatch.setattr(alarms, "BEGUN", 4)

class Plant(Callback):
    order = -50 # before the look
    def after_batch(self): wins(self.learn)

def fit(dls, folder, *more):
    learn, lines = learner(dls), []
    cbs = [Plant(), Checkpoint(folder), HistoryWriter(folder/"history.csv"), EpochLines("it", lines.append, 1), *more]
    with pytest.warns(UserWarning): learn.fit(5, 2e-4, cbs=cbs)
    return learn.collapse_watch, lines

def test_it_stands_in_the_history_and_a_run_that_goes_on_has_what_the_unbroken_one_has(dls, tmp_path, quick):
    class Break(Callback):
        def before_batch(self):
            if self.epoch == 4: raise KeyboardInterrupt
    whole, lines = fit(dls, tmp_path/"whole")
    history = pd.read_csv(tmp_path/"whole"/"history.csv")
    told, = history["alarm"].dropna()
    assert len(history) == 5 and told.startswith("step ") and "discriminator d_b is right about 99.9%" in told
    assert sum(told in o for o in lines) == 1
    with pytest.raises(KeyboardInterrupt): fit(dls, tmp_path/"broken", Break())
    again = learner(dls)
    again.fit(5, 2e-4, cbs=[Plant(), Checkpoint(tmp_path/"broken"), HistoryWriter(tmp_path/"broken"/"history.csv")])
    assert (tmp_path/"broken"/"history.csv").read_bytes() == (tmp_path/"whole"/"history.csv").read_bytes()
    watch = again.collapse_watch
    assert (watch.said, watch.row, watch.taken, watch.columns) == (whole.said, whole.row, whole.taken, whole.columns)

def test_a_checkpoint_of_a_version_before_goes_on(dls, tmp_path, quick):
    fit(dls, tmp_path)
    file = sorted(tmp_path.glob("*.pt"))[0]
    state = torch.load(file, weights_only=True)
    torch.save({k: o for k, o in state.items() if k != "noted"}, file)
    sorted(tmp_path.glob("*.pt"))[1].unlink()
    watch, _ = fit(dls, tmp_path)
    assert watch.taken == len(dls.train) # of the last epoch alone

def test_an_exported_learner_has_no_film_of_it(dls, tmp_path):
    learn = learner(dls)
    watched(learn, 1)
    learn.export(tmp_path/"gan.pkl")
    assert len(learn.collapse_watch.films) == 2 and not load_learner(tmp_path/"gan.pkl").collapse_watch.films
