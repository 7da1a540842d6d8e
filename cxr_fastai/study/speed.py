"""What a job of a study takes: one of its kind is begun on a few films, in a folder that goes, and steps are timed."""
import time
from pathlib import Path
from statistics import median
from typing import NamedTuple

import pandas as pd
import torch
from fastai.callback.core import Callback, CancelTrainException

from ..cohort.cache import RadiographCache
from ..cohort.rows import positive
from ..core.memory import forget_peak, peak_memory
from ..gan.features import features_by
from ..gan.pipeline import synthetic_minority
from ..gan.selection import looked_at
from ..gan.suited import suited, whole_steps
from ..models.backbone import untrained
from ..models.frozen import FrozenFeatures
from ..settings import Gan, Training
from .cell import Cell, logged, train_cell
from .grid import Study

__all__ = ["Speed", "Undecoded", "Watch", "begun_seconds", "cell_seconds", "cell_speed", "clock", "epoch_seconds",
           "features_for", "few_films", "gan_bytes", "gan_seconds", "gan_speed", "scored_rows", "typical_rows"]

PLAIN = dict(image="real", metadata="meta", both="real-meta") # arms that learn as others of the same inputs do
STEPS, LEAST, MOST = 4, 1., 10. # of a kind: steps, at least so many seconds, and no step more after so many
FILMS = 32 # of a side and a class that are looked at, or four batches
GLANCE = 10, 8 # where nothing is decoded: films or translations, and a batch at most: does a run make sense?

def clock() -> float:
    "Seconds, when all that a GPU was given is done."
    if torch.cuda.is_available(): torch.cuda.synchronize()
    return time.perf_counter()

def _bytes(folder): return sum(o.stat().st_size for o in Path(folder).rglob("*") if o.is_file())

class Watch(Callback):
    "Times steps, ends an epoch when they are enough, and times what comes after an epoch's steps."
    order = 99
    def __init__(self): self.steps, self.tails, self.spent = [], [], 0.
    def before_train(self): self.since = self.last = clock()

    def after_batch(self):
        if not self.training: return
        self.steps.append((now := clock()) - self.last)
        self.last, so_far = now, now - self.since
        if so_far > MOST or so_far > LEAST and len(self.steps) >= STEPS: raise CancelTrainException

    def after_train(self): self.last = clock()

    def after_epoch(self):
        self.tails.append(clock() - self.last)
        self.spent += clock() - self.since

    def after_fit(self): self.fitted = self.learn

    @property
    def step(self):
        "Seconds; the first ones are those of a machine that warms up."
        return median(self.steps[1:] or self.steps)

def typical_rows(
    study:Study, # any
) -> pd.DataFrame:
    "The rows of its split; of folds, the first's: all are about as large."
    return next(iter(study.splits.values()))

def scored_rows(
    study:Study, # any
) -> pd.DataFrame:
    "The same, split as its arms are scored."
    return study.split_rows if study.plan.protocol == "paper" else typical_rows(study)

def _few(rows, n): return rows.groupby(["split", "label"], observed=True).head(n) # of each side and class

def few_films(
    bs:int,           # rows a batch
    study:Study=None, # whose they are; a glance at few is enough for one that isn't decoded
) -> int:
    "How many of a side and a class are looked at."
    return GLANCE[0] if isinstance(study, Undecoded) else max(FILMS, 4*bs)

class Undecoded(Study):
    "A study whose films aren't read to name its cells: nothing of it is done."
    def _digest(self, size, fold=None): return str(fold)
    def _gan(self, rows, seed): return ""
    def _films(self, name, size): return name

class Speed(NamedTuple):
    "What a kind of job takes: seconds, and bytes."
    once:float         # whatever its size
    step:float         # of training
    film:float         # that is predicted, or made and judged
    tail:float=0.      # of a translator's epoch that is saved
    passes:int=0       # epochs with a frozen body, before the others
    disk:int=0         # bytes it leaves
    of_film:int=0      # and a film more
    of_save:int=0      # and a save more
    memory:int=0       # bytes of the process at its peak

def cell_speed(
    study:Study, # whose it is
    cell:Cell,   # of the kind that is measured
    folder:Path, # that goes
) -> Speed:
    "Of a classifier, on a few rows."
    use, plan = cell.arm.use, study.plan
    t, watch = plan.training, Watch()
    rows = _few(scored_rows(study), few_films(t.bs, study))
    bs = min(t.bs, GLANCE[1]) if isinstance(study, Undecoded) else t.bs
    own = {k: v for k, v in cell.settings.items() if k not in ("gan", "n", "n_negative", "policy", "films")}
    asked = own.get("weights")
    if asked in ("auto", "imagenet"): own["weights"] = "none" # nothing is downloaded to be measured
    probe = Cell(folder/"cells"/f"{use}-{own.get('arch', '')}", rows,
                 plan.replace(training=t.replace(epochs=1, bs=bs)), own | dict(protocol="clean"), PLAIN[use])
    probe.folder.mkdir(parents=True)
    if probe.probe: # which has a line of its own
        cache = RadiographCache(rows["file"], own["size"])
        features_for(plan.training, own["arch"], own["weights"]).open(rows["file"], cache)
    forget_peak()
    start = clock()
    with logged(folder/"log.txt"): train_cell(probe, cbs=[watch])
    whole, valid, scored = clock() - start, (rows["split"] == "valid").sum(), (rows["split"] != "train").sum()
    film = min(watch.tails)/valid
    return Speed(once=max(0., whole - watch.spent - film*scored), step=watch.step*t.bs/bs, film=film,
                 passes=_frozen(own, asked, watch), disk=_bytes(probe.folder), memory=peak_memory())

def _frozen(own, asked, watch):
    "Epochs that come before those of the plan, where there will be pretrained weights."
    if "views" in own: return 0 # nothing below a probe learns
    if asked == own.get("weights"): return len(watch.tails) - 1
    return int(asked == "imagenet" or not untrained([own["arch"]]))

def cell_seconds(
    study:Study, # whose it is
    cell:Cell,   # of that kind
    speed:Speed, # of `cell_speed`
) -> float:
    "Of a whole cell."
    t, sides = cell.plan.training, scored_rows(study)["split"].value_counts()
    more, valid = sum(cell.settings.get(o, 0) for o in ("n", "n_negative")), sides["valid"]
    fits = [sides["train"], more] if cell.arm.pretraining else [sides["train"] + more] # one after the other, or mixed
    epochs = sum(max(1, train//t.bs)*speed.step + valid*speed.film for train in fits)
    return speed.once + (t.epochs + speed.passes)*epochs + (valid + sides["test"])*speed.film

def _judged(rows):
    "Films beside the synthetic ones that are looked at to judge these."
    return int((rows["split"] == "train").sum() + (positive(rows) & (rows["split"] == "valid")).sum())

def gan_speed(
    rows:pd.DataFrame, # that it would be trained on, after `split_patients`
    gan:Gan,           # its settings, with its number of films
    folder:Path,       # that goes
    films:int,         # of a side and a class that are looked at
) -> tuple:            # the `Speed`, and seconds to look at a film
    "Of a translator and its films, on a few rows."
    own = suited(gan, rows).replace(steps=None, select="last") # looks are counted, not made
    rows, watch, size = _few(rows, films), Watch(), gan.training["size"]
    n = min(gan.synthetic, int((~positive(rows[rows["split"] == "train"])).sum()), films, FILMS)
    forget_peak()
    start = clock()
    with logged(folder/"log.txt"):
        few = own.replace(epochs=1, synthetic=n, weights="none")
        made = synthetic_minority(rows, folder, few, cbs=[watch], aloud=False)
        whole, peak, files = clock() - start, peak_memory(), made["file"].tolist()
        pixels, judge = RadiographCache(files, size).get(files), features_by(weights="none", size=size)
        start = clock()
        watch.fitted.translate(pixels, "a2b")
        translated = (clock() - start)/n
        start = clock()
        judge.of(made, size)
        looked = (clock() - start)/n
    place = Path(files[0]).parents[1]
    saved, films = sum(_bytes(o) for o in place.glob("checkpoints")), sum(Path(o).stat().st_size for o in files)
    once = whole - watch.spent - n*(translated + looked) - looked*_judged(rows)
    return Speed(once=max(0., once), step=watch.step, film=translated + looked, tail=watch.tails[0], disk=_bytes(place)
                 - saved - films, of_film=films//n, of_save=saved, memory=peak), looked

def epoch_seconds(
    rows:pd.DataFrame, # that a translator is trained on
    gan:Gan,           # its settings
    speed:Speed,       # of `gan_speed`
) -> float:
    "Of an epoch of it, with its share of what is saved, and of films that it is judged by."
    own = suited(gan, rows)
    epochs, each = max(1, own.training["epochs"]), speed.tail
    if own.select == "kid": each += looked_at(rows)*speed.film
    return ((own.steps or whole_steps(own, rows))*speed.step + _saves(epochs)*each)/epochs

def begun_seconds(
    rows:pd.DataFrame, # that a translator is trained on
    speed:Speed,       # of `gan_speed`
    looked:float,      # likewise
) -> float:
    "Of what comes beside epochs and films, with each number and policy of films: real ones are looked at, too."
    return speed.once + looked*_judged(rows)

def gan_seconds(
    rows:pd.DataFrame, # that it is trained on
    gans:list,         # a `Gan` for each number and policy of one seed's synthetic rows
    speed:Speed,       # of `gan_speed`
    looked:float,      # likewise
) -> float:
    "Of one seed: its translator, and the films of each number and policy."
    films = [begun_seconds(rows, speed, looked) + o.synthetic*speed.film for o in gans]
    return gans[0].training["epochs"]*epoch_seconds(rows, gans[0], speed) + sum(films)

def _saves(epochs): return -(-epochs//max(1, epochs//10))

def gan_bytes(
    gans:list,   # as for `gan_seconds`
    speed:Speed, # of `gan_speed`
) -> int:
    "What is left of a seed's translator and films."
    kept = min(2, _saves(gans[0].training["epochs"])) # checkpoints
    return speed.disk + kept*speed.of_save + speed.of_film*sum(o.synthetic for o in gans)

def features_for(
    t:Training,  # of a probe
    arch:str,    # its backbone
    weights:str, # of that
) -> FrozenFeatures:
    "What such a probe looks at films with."
    return FrozenFeatures(arch, weights, t.size, t.views, precision=t.precision)
