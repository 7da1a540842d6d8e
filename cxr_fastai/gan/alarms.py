"""An eye for a translator's training that fails: nan, translations that are their sources or all alike, a discriminator
that always wins.

It looks every `EVERY` steps, at what generators make of a few films and at what discriminators were right about since:
one transfer from the device. An alarm goes off within 200 steps of its cause. The figures below are far from what 20
clean runs showed, which recipes/manual tells."""
import warnings

import torch
from fastai.callback.core import CancelFitException

from ..fit.callbacks import Noting

__all__ = ["CollapseWatch"]

EVERY = 40   # steps between looks
FILMS = 8    # of each domain that are looked at
SAME  = .02  # translations that differ from their sources by less than this share of how films differ are the sources
ALIKE = .1   # translations that differ from one another by less than this share of how their sources do are one
RIGHT = .995 # share of patches that a discriminator which always wins is right about
LOOKS = dict(identity=2, collapse=2, wins=4) # in a row that have to show it; a short fit's last look is enough
BEGUN = 120  # steps before which a generator may be its source: a residual one begins as that

SAID = dict(
    identity="translations {what} are their sources (identity): they change {value:.1%} of what films differ by. Try "
             "less weight of the cycle or the identity loss (lam, identity), or more epochs.",
    collapse="translations {what} of different images are nearly one (mode collapse): they differ by {value:.1%} of "
             "what their sources do. Try a lower lr, or more weight of the cycle loss (lam).",
    wins="discriminator {what} is right about {value:.1%} of patches: its generator learns little. Try "
         "diffaug='translation,cutout', or more images.")

def _spread(x):
    "How films differ from one another, over all pixels."
    return x.float().std(0).mean()

class CollapseWatch(Noting):
    """Warn when training has failed, once of each kind, and note it in history.csv's column `alarm`: translations that
    are their sources, or all alike; a discriminator that always wins. nan ends training, with no checkpoint of it."""
    def before_fit(self):
        super().before_fit()
        self.taken, self.row, self.said, self.now = 0, {}, [], []
        self.discriminators = [o for o in self.loss_func.names if o.startswith("acc_")]
        self.films = {way: o.to(self.dls.device) for way, o in zip(self.learn.ways, self.learn.shown(FILMS))}
        self.right = torch.zeros(len(self.discriminators), device=self.dls.device) # sums since the last look

    def state_dict(self):
        return super().state_dict() | {o: getattr(self, o) for o in ("taken", "row", "said", "now", "right")}

    def load_state_dict(self, state):
        for o, value in state.items(): setattr(self, o, value)

    def __getstate__(self): return self.__dict__ | dict(films={}) # a pickled learner carries no patient

    def before_train(self): self.first = torch.zeros((), device=self.dls.device) # loss that isn't finite
    def after_loss(self): self.first = torch.where(self.first.isfinite(), self.loss.detach(), self.first)

    def after_batch(self):
        self.taken += 1
        self.right = self.right + torch.stack([self.loss_func.parts[o] for o in self.discriminators])
        last = self.epoch + 1 == self.n_epoch and self.iter + 1 == self.n_iter # then the epoch's end looks
        if self.taken % EVERY == 0 and not last: self._look(self.model.generators)

    def after_epoch(self):
        if not self.first.isfinite(): self._stop(f"the loss is {self.first.item()}")
        if not all(p.isfinite().all() for p in self.model.parameters()): self._stop("weights are not finite")
        if self.epoch + 1 == self.n_epoch: self._look(self.model.ema, last=True) # what films are made by
        if self.now: self.columns[self.epoch] = dict(alarm=" ".join(self.now))
        self.now = []

    def _stop(self, why):
        self._warn(f"{why}: training stops, with no checkpoint of it. Try precision='fp32', or a lower lr.")
        raise CancelFitException

    def _warn(self, why): warnings.warn(f"epoch {self.epoch + 1}: {why}")

    @torch.no_grad()
    def _seen(self, generators):
        "Of each kind and direction or discriminator a share, in one transfer."
        found = {}
        for way, x in self.films.items():
            made = generators[way](x).clamp(-1, 1)
            found["identity", way] = (made - x).abs().mean() / _spread(x)
            found["collapse", way] = _spread(made) / _spread(x)
        since = self.taken % EVERY or EVERY
        shares = torch.cat([torch.stack([*found.values()]), self.right / since]).tolist()
        return dict(zip([*found, *(("wins", o.removeprefix("acc_")) for o in self.discriminators)], shares))

    def _look(self, generators, last=False):
        "Alarms of what was seen so often in a row; at the end, of what was seen in a whole short fit."
        for (kind, what), value in self._seen(generators).items():
            wrong = value > RIGHT if kind == "wins" else value < dict(identity=SAME, collapse=ALIKE)[kind]
            if kind == "identity" and self.taken < BEGUN: wrong = False
            name = f"{kind} {what}"
            self.row[name] = row = self.row.get(name, 0) + 1 if wrong else 0
            whole = row*EVERY >= self.taken if kind == "wins" else row > 0
            if row >= LOOKS[kind] or last and wrong and whole: self._alarm(name, kind, what, value)
        self.right = torch.zeros_like(self.right)

    def _alarm(self, name, kind, what, value):
        if name in self.said: return
        why = SAID[kind].format(what=what, value=value)
        self._warn(why)
        self.said.append(name)
        self.now.append(f"step {self.taken}: {why}")
