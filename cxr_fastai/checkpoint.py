"""Whole checkpoints of a training run: killed and started again, it gives the bits of the unbroken one."""
from .basics import *

__all__ = ["Checkpoint"]

def _random_states():
    name, keys, *rest = np.random.get_state()
    return dict(python=random.getstate(), numpy=(name, keys.tolist(), *rest), torch=torch.get_rng_state(),
                cuda=torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [])

def _set_random_states(o):
    random.setstate(o["python"])
    np.random.set_state(o["numpy"])
    torch.set_rng_state(o["torch"].cpu())
    if o["cuda"]: torch.cuda.set_rng_state_all([s.cpu() for s in o["cuda"]])

class Checkpoint(Callback):
    """Every `every` epochs write all that the next epoch depends on: weights, optimizer, loss, random states, history.
    A fit that finds a checkpoint goes on after it. The learner must loop from `self.first_epoch`."""
    order = 100 # last: what other callbacks draw at an epoch's end is drawn before, and what `fit` seeds is set again
    def __init__(self,
        folder,      # of the files checkpoint-EPOCH.pt; the last two are kept
        every:int=1, # epochs
    ): self.folder, self.every = Path(folder), every

    @property
    def files(self): return sorted(self.folder.glob("checkpoint-*.pt"))

    @property
    def about(self):
        "What tells one run from another."
        return dict(epochs=self.n_epoch, steps=len(self.dls.train), bs=self.dls.train.bs, seed=self.learn.seed)

    def before_fit(self):
        state = self._newest()
        if not state: return
        if state["run"] != self.about:
            raise ValueError(f"{self.folder} holds checkpoints of another run ({state['run']}, not {self.about}); "
                             "name another folder, or delete it.")
        self._restore(state)
        done = state["epoch"] + 1
        print(f"{self.folder}: " + (f"going on after epoch {done} of {self.n_epoch}" if done < self.n_epoch else
                                    f"all {done} epochs were trained before"), flush=True)

    def after_epoch(self):
        if (self.epoch + 1) % self.every and self.epoch + 1 < self.n_epoch: return
        with atomic(self.folder/f"checkpoint-{self.epoch + 1:06}.pt") as tmp: torch.save(self._state(), tmp)
        for old in self.files[:-2]: old.unlink()

    def _newest(self):
        "The newest checkpoint that can be read; damaged ones are said."
        for file in reversed(self.files):
            try: return torch.load(file, map_location=self.dls.device, weights_only=True) # tensors, never code
            except Exception as e: # damaged bytes raise of every kind
                print(f"{file} can't be read, and the one before it is taken, if there is one: {e}", flush=True)

    def _state(self):
        r = self.recorder
        history = dict(lrs=r.lrs, iters=r.iters, losses=[float(o) for o in r.losses],
                       values=[list(o) for o in r.values], smooth=(r.smooth_loss.count, r.smooth_loss.val))
        return dict(run=self.about, epoch=self.epoch, model=self.model.state_dict(), opt=self.opt.state_dict(),
                    loss=self.loss_func.state_dict(), rows=self.dls.train.rng.getstate(), random=_random_states(),
                    history=history)

    def _restore(self, o):
        self.model.load_state_dict(o["model"])
        self.opt.load_state_dict(o["opt"])
        self.loss_func.load_state_dict(o["loss"])
        self.dls.train.rng.setstate(o["rows"])
        r, past = self.recorder, o["history"]
        r.lrs, r.iters, r.losses, r.values = past["lrs"], past["iters"], past["losses"], [L(v) for v in past["values"]]
        r.smooth_loss.count, r.smooth_loss.val = past["smooth"]
        self.learn.first_epoch = o["epoch"] + 1
        _set_random_states(o["random"])
