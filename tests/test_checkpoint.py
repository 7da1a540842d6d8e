import shutil, signal, subprocess, sys, time
from pathlib import Path
import pandas as pd, pytest, torch
from cxr_fastai.basics import HistoryWriter
from cxr_fastai.checkpoint import Checkpoint
from cxr_fastai.cyclegan import cyclegan_learner
from cxr_fastai.unpaired import UnpairedDataLoaders
from conftest import SIDE

TINY = dict(n_blocks=1, ngf=4, ndf=4, pool=5)
def learner(rows, seed=0, **kwargs):
    dls = UnpairedDataLoaders.from_df(rows, size=32, bs=4, seed=seed)
    return cyclegan_learner(dls, **TINY | dict(idt_every=2, diffaug="translation") | kwargs)

def fit(rows, folder, n=4, seed=0, every=1, **kwargs):
    learn = learner(rows, seed)
    learn.fit_flat_lin(n - n//2, n//2, cbs=[Checkpoint(folder/"checkpoints", every), HistoryWriter(folder/"history.csv")], **kwargs)
    return learn

def names(folder): return sorted(o.name for o in (folder/"checkpoints").iterdir())

def assert_same(a, b):
    "Every bit of what a run leaves: weights, running means, optimizer, pools, counters, history."
    for (k, x), (_, y) in zip(a.model.state_dict().items(), b.model.state_dict().items()):
        assert torch.equal(x, y) if torch.is_tensor(x) else x == y, k
    for x, y in zip(a.opt.state_dict()["state"].values(), b.opt.state_dict()["state"].values()):
        assert x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in x)
    for name in "pool_a", "pool_b":
        x, y = getattr(a.loss_func, name), getattr(b.loss_func, name)
        assert all(torch.equal(i, j) for i, j in zip(x.images, y.images)) and x.rng.getstate() == y.rng.getstate()
    assert a.loss_func.n == b.loss_func.n and a.recorder.lrs == b.recorder.lrs
    assert [list(o) for o in a.recorder.values] == [list(o) for o in b.recorder.values]

@pytest.fixture(scope="module")
def whole(rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return fit(rows, folder), folder

class Stop(Exception): pass

@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_run_broken_anywhere_in_an_epoch_goes_on_to_the_same_bits(rows, whole, tmp_path, at, capsys):
    from cxr_fastai.basics import Callback
    class Break(Callback):
        def after_batch(self):
            if self.epoch == at and self.iter == 2: raise Stop("here")
    learn = learner(rows)
    with pytest.raises(Stop):
        learn.fit_flat_lin(2, 2, cbs=[Checkpoint(tmp_path/"checkpoints"), HistoryWriter(tmp_path/"history.csv"), Break()])
    again = fit(rows, tmp_path)
    assert f"going on after epoch {at} of 4" in capsys.readouterr().out
    assert_same(again, whole[0])
    assert (tmp_path/"history.csv").read_bytes() == (whole[1]/"history.csv").read_bytes()
    assert len(pd.read_csv(tmp_path/"history.csv")) == 4

def test_the_last_two_are_kept_and_a_finished_run_trains_nothing_more(rows, whole, tmp_path, capsys):
    shutil.copytree(whole[1], tmp_path, dirs_exist_ok=True)
    assert names(tmp_path) == ["checkpoint-000003.pt", "checkpoint-000004.pt"]
    again = fit(rows, tmp_path)
    out = capsys.readouterr().out
    assert "all 4 epochs were trained before" in out and "train_loss" not in out
    assert_same(again, whole[0])

def test_every_so_many_epochs_and_the_last(rows, tmp_path):
    fit(rows, tmp_path, n=5, every=3)
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
    for change in dict(n=6), dict(seed=1):
        with pytest.raises(ValueError, match="checkpoints of another run"): fit(rows, tmp_path, **change)
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
