import io, random, shutil, signal, sys
import numpy as np, pandas as pd, pytest, torch
from fastai.vision.all import Callback
from cxr_fastai.fit.callbacks import HistoryWriter
from cxr_fastai.fit.checkpoint import Checkpoint
from cxr_fastai.gan.cyclegan import cyclegan_learner
from cxr_fastai.gan.unpaired import UnpairedDataLoaders
from conftest import ROOT, run_python

TINY = dict(n_blocks=1, ngf=4, ndf=4, pool=5, idt_every=2, diffaug="translation", precision="fp32")
class Draws(Callback):
    "Draws from the random states that neither networks nor augmentations use."
    def after_batch(self): self.last = random.random(), np.random.rand()
    after_fit = after_batch

def learner(rows, seed=0, bs=4, **kwargs):
    dls = UnpairedDataLoaders.from_df(rows, size=32, bs=bs, seed=seed)
    return cyclegan_learner(dls, **TINY | kwargs, cbs=Draws())

def cbs(folder, every=1): return [Checkpoint(folder/"checkpoints", every), HistoryWriter(folder/"history.csv")]

def fit(rows, folder, n=4, lr=2e-4, every=1, more=(), **kwargs):
    learn = learner(rows, **kwargs)
    learn.fit_flat_lin(n - n//2, n//2, lr, cbs=[*cbs(folder, every), *more])
    return learn

def names(folder): return sorted(o.name for o in (folder/"checkpoints").iterdir())

def assert_same(a, b):
    "Every bit of what a run leaves: weights, running means, optimizer, pools, counters, history."
    assert a.opt.state_dict()["param_groups"] == b.opt.state_dict()["param_groups"]
    for (k, x), (_, y) in zip(a.model.state_dict().items(), b.model.state_dict().items(), strict=True):
        assert torch.equal(x, y) if torch.is_tensor(x) else x == y, k
    for x, y in zip(a.opt.state_dict()["state"].values(), b.opt.state_dict()["state"].values(), strict=True):
        assert x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)
    for name in "pool_a", "pool_b":
        x, y = getattr(a.loss_func, name), getattr(b.loss_func, name)
        assert len(x.images) == 5 and all(torch.equal(i, j) for i, j in zip(x.images, y.images, strict=True))
        assert x.rng.getstate() == y.rng.getstate()
    x, y = a.recorder, b.recorder
    assert a.loss_func.n == b.loss_func.n and x.lrs == y.lrs and x.iters == y.iters and a.seen == b.seen
    assert a.draws.last == b.draws.last
    assert [list(o) for o in x.values] == [list(o) for o in y.values]
    assert torch.equal(torch.stack(x.losses), torch.stack(y.losses)) and x.smooth_loss.value == y.smooth_loss.value

@pytest.fixture(scope="module")
def whole(rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return fit(rows, folder), folder

class Stop(Exception): pass

KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, "tests/fit")
from test_checkpoint import Callback, fit, pd
class Kill(Callback):
    def after_backward(self):
        if self.epoch == 2 and self.iter == 3: os.kill(os.getpid(), signal.SIGKILL)
fit(pd.read_pickle(sys.argv[1]), Path(sys.argv[2]), more=[Kill()])
"""

def test_a_killed_process_is_taken_up_by_another_to_the_same_bits(rows, whole, tmp_path, capsys):
    rows.to_pickle(tmp_path/"rows.pkl")
    done = run_python(KILLED, tmp_path/"rows.pkl", tmp_path, cwd=ROOT)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert names(tmp_path) == ["checkpoint-000001.pt", "checkpoint-000002.pt"]
    (tmp_path/"checkpoints"/".checkpoint-000003.1.pt").write_bytes(b"half") # as of a kill while it is written
    assert_same(fit(rows, tmp_path), whole[0])
    assert "going on after epoch 2 of 4" in capsys.readouterr().out
    assert (tmp_path/"history.csv").read_bytes() == (whole[1]/"history.csv").read_bytes()
    assert names(tmp_path) == ["checkpoint-000003.pt", "checkpoint-000004.pt"]

@pytest.mark.parametrize("at", [1, 3])
def test_a_run_broken_anywhere_in_an_epoch_goes_on_to_the_same_bits(rows, whole, tmp_path, at, capsys):
    class Break(Callback):
        def after_batch(self):
            if self.epoch == at and self.iter == 2: raise Stop("here")
    with pytest.raises(Stop): fit(rows, tmp_path, more=[Break()])
    again = fit(rows, tmp_path)
    assert f"going on after epoch {at} of 4" in capsys.readouterr().out
    assert_same(again, whole[0])
    assert (tmp_path/"history.csv").read_bytes() == (whole[1]/"history.csv").read_bytes()
    assert len(pd.read_csv(tmp_path/"history.csv")) == 4

def test_in_fp16_the_losss_scale_goes_on_where_it_was(rows, tmp_path):
    class Overflow(Callback):
        def after_backward(self):
            if self.epoch == 0 and self.iter == 1: next(self.model.g_ab.parameters()).grad.fill_(torch.inf)
    class Scales(Callback):
        def before_epoch(self): self.scale = self.scaler.get_scale()
        def after_batch(self):
            if self.epoch == broken: raise Stop("here")
    broken, more = None, [Overflow(), Scales()]
    unbroken = fit(rows, tmp_path/"a", n=2, precision="fp16", more=more)
    assert (scale := more[1].scale) < 2.**16 # of the last epoch's beginning
    broken, more = 1, [Overflow(), Scales()]
    with pytest.raises(Stop): fit(rows, tmp_path/"b", n=2, precision="fp16", more=more)
    broken, more = None, [Overflow(), Scales()]
    assert_same(fit(rows, tmp_path/"b", n=2, precision="fp16", more=more), unbroken)
    assert more[1].scale == scale

def test_the_last_two_are_kept_and_a_finished_run_trains_nothing_more(rows, whole, tmp_path, capsys):
    shutil.copytree(whole[1], tmp_path, dirs_exist_ok=True)
    assert names(tmp_path) == ["checkpoint-000003.pt", "checkpoint-000004.pt"]
    again = fit(rows, tmp_path)
    out = capsys.readouterr().out
    assert "all 4 epochs were trained before" in out and "train_loss" not in out
    assert_same(again, whole[0])

def test_every_so_many_epochs_and_the_last(rows, tmp_path):
    fit(rows, tmp_path, n=5, every=3, bs=10)
    assert names(tmp_path) == ["checkpoint-000003.pt", "checkpoint-000005.pt"]

def test_a_damaged_checkpoint_is_said_and_the_one_before_it_taken(rows, whole, tmp_path, capsys):
    shutil.copytree(whole[1], tmp_path, dirs_exist_ok=True)
    newest = tmp_path/"checkpoints"/"checkpoint-000004.pt"
    newest.write_bytes(newest.read_bytes()[:1000])
    assert_same(fit(rows, tmp_path), whole[0])
    out = capsys.readouterr().out
    assert "checkpoint-000004.pt can't be read" in out and "going on after epoch 3 of 4" in out

def test_another_runs_checkpoints_are_refused(rows, whole, tmp_path):
    shutil.copytree(whole[1], tmp_path, dirs_exist_ok=True)
    before = {o: o.read_bytes() for o in (tmp_path/"checkpoints").iterdir()}
    for change, text in ((dict(n=6), "epochs 4, not 6"), (dict(seed=1), "seed 0, not 1"), (dict(bs=2), "bs 4, not 2"),
                         (dict(lam=5.), "lam 10.0, not 5.0"), (dict(precision="bf16"), "precision fp32, not bf16"),
                         (dict(lr=1e-3), r"lr \[0.0002, 0.0002\], not \[0.001, 0.001\]")):
        with pytest.raises(ValueError, match=rf"checkpoints of another run \({text}\): name another folder, or"):
            fit(rows, tmp_path, **dict(lr=2e-4) | change)
    moved = rows.assign(split=rows.split.replace(dict(train="test", test="train")))
    with pytest.raises(ValueError, match="rows [0-9a-f]{16}, not"): fit(moved, tmp_path)
    assert before == {o: o.read_bytes() for o in (tmp_path/"checkpoints").iterdir()}
    assert names(tmp_path) == ["checkpoint-000003.pt", "checkpoint-000004.pt"]

def test_checkpoints_hold_no_code(whole):
    state = torch.load(whole[1]/"checkpoints"/"checkpoint-000004.pt", weights_only=True)
    assert {"model", "opt", "loss", "random", "rows", "history"} <= state.keys()
    assert {"python", "numpy", "torch", "cuda"} == state["random"].keys() and state["loss"]["pool_a"]["images"]

def test_without_resume_the_seed_alone_gives_the_bits(rows, whole, tmp_path): assert_same(fit(rows, tmp_path), whole[0])

def test_one_bit_of_the_random_states_matters(rows, whole, tmp_path):
    "The comparison above can fail: a run that goes on with other random states is another run."
    shutil.copytree(whole[1], tmp_path, dirs_exist_ok=True)
    (tmp_path/"checkpoints"/"checkpoint-000004.pt").unlink()
    file = tmp_path/"checkpoints"/"checkpoint-000003.pt"
    state = torch.load(file, weights_only=True)
    torch.manual_seed(123)
    state["random"]["torch"] = torch.get_rng_state()
    torch.save(state, file)
    with pytest.raises(AssertionError): assert_same(fit(rows, tmp_path), whole[0])

def test_if_none_can_be_read_nothing_is_trained_or_overwritten(rows, whole, tmp_path, capsys):
    shutil.copytree(whole[1], tmp_path, dirs_exist_ok=True)
    for o in (tmp_path/"checkpoints").iterdir(): o.write_bytes(b"damaged")
    with pytest.raises(ValueError, match="No checkpoint in .* can be read; delete it to"): fit(rows, tmp_path)
    assert capsys.readouterr().out.count("can't be read (") == 2
    assert all(o.read_bytes() == b"damaged" for o in (tmp_path/"checkpoints").iterdir())

def test_interrupted_in_a_notebook_the_same_call_goes_on(rows, whole, tmp_path):
    class Interrupt(Callback):
        def after_backward(self):
            if self.epoch == 2 and self.iter == 3: raise KeyboardInterrupt
    learn = learner(rows)
    with pytest.raises(KeyboardInterrupt): learn.fit_flat_lin(2, 2, cbs=[*cbs(tmp_path), Interrupt()])
    learn.fit_flat_lin(2, 2, cbs=cbs(tmp_path))
    assert_same(learn, whole[0])
    assert (tmp_path/"history.csv").read_bytes() == (whole[1]/"history.csv").read_bytes()

def test_a_second_fit_is_not_taken_for_the_first(rows, tmp_path):
    learn = learner(rows)
    learn.fit(1, cbs=cbs(tmp_path))
    with pytest.raises(ValueError, match=r"another run \(fit 1, not 2\)"): learn.fit(1, cbs=cbs(tmp_path))

def test_rates_of_groups_and_fastais_schedules_can_be_taken_up(rows, tmp_path, capsys):
    for name, run in (("slice", lambda learn, cbs: learn.fit(2, slice(1e-4, 2e-4), cbs=cbs)),
                      ("cycle", lambda learn, cbs: learn.fit_one_cycle(2, 1e-4, cbs=cbs))):
        run(one := learner(rows, bs=10), cbs(tmp_path/name))
        (tmp_path/name/"checkpoints"/"checkpoint-000002.pt").unlink()
        run(again := learner(rows, bs=10), cbs(tmp_path/name))
        assert "going on after epoch 1 of 2" in capsys.readouterr().out
        assert_same(again, one)

class Terminal(io.StringIO):
    def isatty(self): return True

@pytest.mark.usefixtures("unasked")
def test_a_run_is_taken_up_in_a_terminal_too(rows, whole, tmp_path, monkeypatch):
    shutil.copytree(whole[1], tmp_path, dirs_exist_ok=True)
    (tmp_path/"checkpoints"/"checkpoint-000004.pt").unlink()
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert_same(fit(rows, tmp_path), whole[0])
    assert "Epoch 4/4" in sys.stdout.getvalue()
    assert_same(fit(rows, tmp_path), whole[0]) # nothing is left to train, and no bar to draw
