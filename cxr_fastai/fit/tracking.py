"""A run watched in TensorBoard, Weights & Biases or MLflow: fastai's own callbacks where it has them, with figures of
samples beside the curves. Nothing that is tracked changes a result: random numbers are left as they are.

MLflow dropped its fastai flavour with version 3: `Mlflow` logs parameters, epochs and figures by its plain client."""
import contextlib, os, random
from contextlib import contextmanager
from pathlib import Path
from typing import Callable

import torch
import matplotlib.pyplot as plt
import numpy as np
from fastai.callback.core import Callback
from fastai.imports import noop
from matplotlib.figure import Figure

from ..core.extras import need
from ..core.files import few, say
from ..core.style import show_film

__all__ = ["SampleFigures", "TRACKERS", "tracked"]

def _tracker(name): return need(name, extra=name, what=f"--track {name}")

def _classified(learn, n):
    "The first valid films with what the model says of them; None for a model that sees none."
    dls = learn.dls
    batch = [o.as_subclass(torch.Tensor) for o in dls.test_dl(dls.valid_ds.items.iloc[:n]).one_batch()]
    if batch[0].ndim != 4: return
    with torch.no_grad(): prob = learn.model.eval()(*batch).softmax(1)[:, 1]
    fig = Figure(figsize=(1.6*n, 2), layout="constrained")
    axs = fig.subplots(1, len(prob), squeeze=False)[0]
    for ax, film, p, label in zip(axs, batch[0].cpu().numpy(), prob, dls.valid_ds.items["label"]):
        show_film(ax, film[0], f"{label}: {p:.2f}")
    return fig

class SampleFigures(Callback):
    "After every `every` epochs, and the last, hand on a figure: a classifier's valid films, or translations."
    order = 70
    def __init__(self,
        send:Callable, # called with a matplotlib figure and the number of the epoch
        every:int=5,   # epochs
        n:int=6,       # images
    ): self.send, self.every, self.n = send, every, n
    def after_epoch(self):
        if hasattr(self.learn, "lr_finder") or hasattr(self.learn, "gather_preds"): return
        if (self.epoch + 1) % self.every and self.epoch + 1 < self.n_epoch: return
        fig = self.learn.show_results(self.n) if hasattr(self.learn, "translate") else _classified(self.learn, self.n)
        if fig is None: return
        self.send(fig, self.epoch + 1)
        plt.close(fig)

def _tensorboard(folder, run, config):
    _tracker("tensorboard")
    from fastai.callback.tensorboard import SummaryWriter, TensorBoardCallback
    class TensorBoard(TensorBoardCallback):
        "A folder a fit, as the frozen one and the other both count from 0; what a killed fit left in it is overruled."
        fits = 0
        def _setup_writer(self):
            self.fits += 1
            self.writer = SummaryWriter(Path(self.log_dir)/f"fit{self.fits}", purge_step=self.learn.train_iter or None)
        def after_batch(self):
            if self.training: super().after_batch()
    where = Path(folder)/"tensorboard"
    board = TensorBoard(str(where), trace_model=False, log_preds=False) # tracing takes one input, and neither does bf16
    return [board, SampleFigures(lambda fig, epoch: board.writer.add_figure("samples", fig, epoch, close=False))], noop

def _wandb(folder, run, config):
    wandb = _tracker("wandb")
    from fastai.callback.wandb import WandbCallback
    if "WANDB_MODE" not in os.environ and not wandb.api.api_key: # a login would be asked for
        say("W&B has no key here and writes offline; `wandb sync` sends it later")
    mode = os.environ.get("WANDB_MODE") or ("online" if wandb.api.api_key else "offline")
    wandb.init(project="cxr_fastai", name=run, dir=str(folder), config=config, mode=mode, reinit="finish_previous")
    send = lambda fig, epoch: wandb.log(dict(samples=wandb.Image(fig), samples_epoch=epoch))
    return [WandbCallback(log_preds=False), SampleFigures(send)], wandb.finish

class Mlflow(Callback):
    "Each epoch's losses and metrics."
    order = 60
    def __init__(self, mlflow): self.mlflow, self.done = mlflow, 0
    def before_fit(self): self.steps = self.done
    def after_epoch(self):
        if hasattr(self.learn, "lr_finder") or hasattr(self.learn, "gather_preds"): return
        log = dict(zip(self.recorder.metric_names[1:-1], self.recorder.log[1:-1]))
        self.done = self.steps + self.epoch + 1
        self.mlflow.log_metrics({k: float(v) for k, v in log.items() if v is not None}, step=self.done)

def _mlflow(folder, run, config):
    mlflow = _tracker("mlflow")
    if "MLFLOW_TRACKING_URI" not in os.environ:
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        mlflow.set_tracking_uri((Path(folder).absolute()/"mlruns").as_uri())
    mlflow.set_experiment("cxr_fastai")
    mlflow.start_run(run_name=run)
    mlflow.log_params({k: str(v)[:500] for k, v in config.items()})
    send = lambda fig, epoch: mlflow.log_figure(fig, f"samples-{epoch:04}.png")
    return [Mlflow(mlflow), SampleFigures(send)], mlflow.end_run

TRACKERS = dict(tensorboard=_tensorboard, wandb=_wandb, mlflow=_mlflow)

@contextmanager
def tracked(
    names:str,       # 'tensorboard', 'wandb', 'mlflow', or several with commas; '' for none
    folder:str|Path, # of the run: files of trackers without a server go there
    run:str,         # its name
    config:dict,     # its settings
):
    """Context that gives the callbacks of these trackers, and ends their runs. W&B is offline where it has no key,
    MLflow writes to FOLDER/mlruns where MLFLOW_TRACKING_URI isn't set. ValueError for another name; ImportError without
    a package."""
    names = [o.strip() for o in (names or "").split(",") if o.strip()]
    if unknown := [o for o in names if o not in TRACKERS]:
        raise ValueError(f"track={few(unknown)} is not known; use {', '.join(TRACKERS)}.")
    state = torch.get_rng_state(), np.random.get_state(), random.getstate()
    with contextlib.ExitStack() as ends:
        cbs = []
        for name in names:
            more, end = TRACKERS[name](folder, run, config)
            ends.callback(end)
            cbs += more
        torch.set_rng_state(state[0])
        np.random.set_state(state[1])
        random.setstate(state[2])
        yield cbs
