import random
import numpy as np, pytest, torch
from fastai.vision.all import Callback
from cxr_fastai.study.cell import run_cell
from cxr_fastai.gan.cyclegan import cyclegan_learner
from cxr_fastai.data.loaders import RadiographDataLoaders
from cxr_fastai.settings import Gan, plan_of
from cxr_fastai.study.grid import Study
from cxr_fastai.gan.pipeline import train_gan
from cxr_fastai.fit.tracking import tracked, TRACKERS
from cxr_fastai.models.learner import fusion_learner, image_learner, metadata_learner
from cxr_fastai.gan.unpaired import UnpairedDataLoaders

PACKAGES = dict(tensorboard="tensorboard", wandb="wandb", mlflow="mlflow")
MAKE = dict(image=image_learner, metadata=metadata_learner, both=fusion_learner)

@pytest.fixture(autouse=True)
def offline(monkeypatch):
    for k, v in dict(WANDB_MODE="offline", WANDB_SILENT="true", MLFLOW_ALLOW_FILE_STORE="true").items():
        monkeypatch.setenv(k, v)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

def learner(rows, path, kind):
    if kind == "gan":
        return cyclegan_learner(UnpairedDataLoaders.from_df(rows, path, size=32, bs=4), n_blocks=1, ngf=4, ndf=4)
    dls = RadiographDataLoaders.from_df(rows, path, size=32, bs=8, use=kind)
    return MAKE[kind](dls, **({} if kind == "metadata" else dict(arch="test_resnet", weights="none")))

def scalars(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    board = EventAccumulator(str(folder))
    board.Reload()
    return board

@pytest.mark.parametrize("name", TRACKERS)
@pytest.mark.parametrize("kind", [*MAKE, "gan"])
def test_every_learner_is_tracked_offline_and_gives_the_same_bits(rows, tmp_path, name, kind):
    pytest.importorskip(PACKAGES[name])
    plain, watched = (learner(rows, tmp_path, kind) for _ in range(2))
    class Drawn(Callback):
        "Random states at every epoch's end."
        def before_fit(self): self.states = []
        def after_epoch(self):
            self.states.append(
                (torch.get_rng_state().sum().item(), random.getstate()[1][:3], np.random.get_state()[1][:3].tolist()))
    with plain.no_bar(), plain.no_logging(): plain.fit(2, cbs=(a := Drawn()))
    with tracked(name, tmp_path/"run", "a run", dict(seed=0)) as cbs, watched.no_bar(), watched.no_logging():
        watched.fit(2, cbs=[*cbs, (b := Drawn())])
    assert a.states == b.states
    for p, q in zip(plain.model.parameters(), watched.model.parameters()): assert torch.equal(p, q)
    files = [o for o in (tmp_path/"run").rglob("*") if o.is_file()]
    if name == "tensorboard":
        board = scalars(tmp_path/"run"/"tensorboard"/"fit1")
        assert len(board.Scalars("train_loss")) == 2 * len(plain.dls.train)
        assert ("samples" in board.Tags()["images"]) == (kind != "metadata")
    elif name == "wandb": assert any(o.suffix == ".wandb"
                                     for o in files) and any("samples" in o.name for o in files) == (kind != "metadata")
    else:
        assert any(o.parent.name == "metrics" and len(o.read_text().splitlines()) == 2 for o in files)
        assert any(o.name == "samples-0002.png" for o in files) == (kind != "metadata")

@pytest.mark.parametrize("kind", [*MAKE, "gan"])
def test_fastais_own_callbacks_work_as_they_are(rows, tmp_path, kind):
    pytest.importorskip("tensorboard"), pytest.importorskip("wandb")
    import wandb
    from fastai.callback.tensorboard import TensorBoardCallback
    from fastai.callback.wandb import WandbCallback
    learn = learner(rows, tmp_path, kind)
    with wandb.init(project="x", dir=str(tmp_path)) as run, learn.no_bar(), learn.no_logging():
        learn.fit(1, cbs=[TensorBoardCallback(str(tmp_path/"tb"), trace_model=False, log_preds=False),
                          WandbCallback(log_preds=False)])
        assert run.summary["train_loss"] > 0
    assert scalars(tmp_path/"tb").Scalars("lr_0")

def test_tracking_is_no_part_of_a_cell_or_of_a_cyclegan(rows, tmp_path):
    pytest.importorskip("tensorboard")
    plan = plan_of(backbones="test_resnet", arms="real-meta", size=32, epochs=1, bs=16, weights="none")
    plain, watched = Study(rows, plan, tmp_path/"a"), Study(rows, plan, tmp_path/"b", track="tensorboard")
    cells = [next(iter(o.cells.values())) for o in (plain, watched)]
    assert [run_cell(o) for o in cells] == [dict(status="done")] * 2 and cells[0].folder.name == cells[1].folder.name
    for o in "predictions.csv", "history.csv":
        assert (cells[0].folder/o).read_bytes() == (cells[1].folder/o).read_bytes()
    assert list((cells[1].folder/"tensorboard").rglob("*tfevents*")) and not (cells[0].folder/"tensorboard").exists()

def test_a_cyclegan_of_a_study_is_tracked_in_its_folder(rows, tmp_path):
    pytest.importorskip("tensorboard")
    _, folder = train_gan(rows, tmp_path, Gan(size=32, epochs=1), track="tensorboard")
    board = scalars(folder/"tensorboard"/"fit1")
    assert "samples" in board.Tags()["images"] and board.Scalars("train_loss")

def test_an_unknown_tracker_and_an_absent_package_are_said(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="track=neptune is not known; use tensorboard, wandb, mlflow"):
        with tracked("tensorboard,neptune", tmp_path, "r", {}): pass
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.raises(ImportError, match="--track wandb needs wandb: pip install 'cxr_fastai\\[wandb\\]'"):
        with tracked("wandb", tmp_path, "r", {}): pass
