"""How long a study will take, and what of memory and disk: each kind of its jobs is begun on a few of its films, in a
folder that goes, and a few real steps are timed."""
import tempfile, time
from itertools import product
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from fastai.callback.core import Callback, CancelTrainException

from ..arms import arm_title, comparisons_of, parse_arm
from ..cohort.cache import RadiographCache
from ..cohort.rows import positive
from ..core.memory import forget_peak, peak_memory
from ..core.progress import duration
from ..core.style import save_figure
from ..core.workers import threads_of
from ..gan.features import features_by
from ..gan.pipeline import synthetic_minority
from ..models.backbone import untrained
from ..models.frozen import FrozenFeatures
from ..report.figures import plot_roc
from ..stats.compare import compare_arms
from ..stats.formats import to_markdown
from ..stats.subgroups import interactions, subgroups
from ..stats.tables import metrics_table, score_tables
from .cell import Cell, logged, train_cell
from .grid import Study
from .jobs import Synthesis

__all__ = ["Undecoded", "Watch", "cells_table", "estimate", "estimate_text", "gigabytes", "jobs_text",
           "whole"]

PLAIN = dict(image="real", metadata="meta", both="real-meta") # arms that learn as others of the same inputs do
STEPS, LEAST, MOST = 4, 1., 10. # of a kind: steps, at least so many seconds, and no step more after so many
FEW = 32 # films whose features are timed: a batch of them
FILMS = 32 # of a side and a class that are looked at, or four batches
GLANCE = 10, 8 # where nothing is decoded: films, and a batch at most, for it is only asked whether a run makes sense
GB = 1e9

def _now():
    if torch.cuda.is_available(): torch.cuda.synchronize()
    return time.perf_counter()

def _bytes(folder): return sum(o.stat().st_size for o in Path(folder).rglob("*") if o.is_file())

class Watch(Callback):
    "Times steps, ends an epoch when they are enough, and times what comes after an epoch's steps."
    order = 99
    def __init__(self): self.steps, self.tails, self.spent = [], [], 0.
    def before_train(self): self.since = self.last = _now()

    def after_batch(self):
        if not self.training: return
        self.steps.append((now := _now()) - self.last)
        self.last, so_far = now, now - self.since
        if so_far > MOST or so_far > LEAST and len(self.steps) >= STEPS: raise CancelTrainException

    def after_train(self): self.last = _now()

    def after_epoch(self):
        self.tails.append(_now() - self.last)
        self.spent += _now() - self.since

    def after_fit(self): self.fitted = self.learn

    @property
    def step(self):
        "Seconds; the first ones are those of a machine that warms up."
        return median(self.steps[1:] or self.steps)

def _rows(study):
    "Of its split; of folds, the first: all are about as large."
    return next(iter(study.splits.values()))

def _sides(study): return study.split_rows if study.plan.protocol == "paper" else _rows(study)

def _few(study, rows, bs):
    "A few rows of each side and class."
    n = GLANCE[0] if isinstance(study, Undecoded) else max(FILMS, 4*bs)
    return rows.groupby(["split", "label"], observed=True).head(n)

class Undecoded(Study):
    "A study whose films aren't read to name its cells: nothing of it is done."
    def _digest(self, size, fold=None): return str(fold)
    def _gan(self, rows, seed): return ""

class Speed(NamedTuple):
    "What a kind of job takes: seconds, and bytes."
    once:float         # whatever its size
    step:float         # of training
    film:float         # that is predicted, or made and judged
    tail:float=0.      # of a CycleGAN's epoch that is saved
    passes:int=0       # epochs with a frozen body, before the others
    disk:int=0         # bytes it leaves
    of_film:int=0      # and a film more
    of_save:int=0      # and a save more
    memory:int=0       # bytes of the process at its peak

def _cell_speed(study, cell, folder):
    "Of a classifier, on a few rows."
    use, plan = cell.arm.use, study.plan
    rows, watch, t = _few(study, _sides(study), plan.training.bs), Watch(), plan.training
    bs = min(t.bs, GLANCE[1]) if isinstance(study, Undecoded) else t.bs
    own = {k: v for k, v in cell.settings.items() if k not in ("gan", "n", "policy")}
    asked = own.get("weights")
    if asked in ("auto", "imagenet"): own["weights"] = "none" # nothing is downloaded to be measured
    probe = Cell(folder/"cells"/f"{use}-{own.get('arch', '')}", rows,
                 plan.replace(training=t.replace(epochs=1, bs=bs)), own | dict(protocol="clean"), PLAIN[use])
    probe.folder.mkdir(parents=True)
    if probe.probe: # which has a line of its own
        cache = RadiographCache(rows["file"], own["size"])
        _features(plan.training, own["arch"], own["weights"]).open(rows["file"], cache)
    forget_peak()
    start = _now()
    with logged(folder/"log.txt"): train_cell(probe, cbs=[watch])
    whole, valid, scored = _now() - start, (rows["split"] == "valid").sum(), (rows["split"] != "train").sum()
    film = min(watch.tails)/valid
    return Speed(once=max(0., whole - watch.spent - film*scored), step=watch.step*t.bs/bs, film=film,
                 passes=_frozen(own, asked, watch), disk=_bytes(probe.folder), memory=peak_memory())

def _frozen(own, asked, watch):
    "Epochs that come before those of the plan, where there will be pretrained weights."
    if "views" in own: return 0 # nothing below a probe learns
    if asked == own.get("weights"): return len(watch.tails) - 1
    return int(asked == "imagenet" or not untrained([own["arch"]]))

def _cell_seconds(study, cell, speed):
    t, sides = study.plan.training, _sides(study)["split"].value_counts()
    train, valid = sides["train"] + cell.settings.get("n", 0), sides["valid"]
    epoch = max(1, train//t.bs)*speed.step + valid*speed.film
    return speed.once + (t.epochs + speed.passes)*epoch + (valid + sides["test"])*speed.film

def _judged(rows):
    "Films beside the synthetic ones that are looked at to judge these."
    return int((rows["split"] == "train").sum() + (positive(rows) & (rows["split"] == "valid")).sum())

def _gan_speed(study, gan, folder):
    "Of a CycleGAN and its films, on a few rows."
    rows, watch = _few(study, _rows(study), gan.training["bs"]), Watch()
    n = min(gan.synthetic, int((~positive(rows[rows["split"] == "train"])).sum()), FILMS)
    forget_peak()
    start = _now()
    with logged(folder/"log.txt"):
        few = gan.replace(epochs=1, synthetic=n, weights="none")
        made = synthetic_minority(rows, folder, few, cbs=[watch], aloud=False)
        whole, peak, files = _now() - start, peak_memory(), made["file"].tolist()
        pixels, judge = RadiographCache(files, gan.size).get(files), features_by(weights="none", size=gan.size)
        start = _now()
        watch.fitted.translate(pixels, "a2b")
        translated = (_now() - start)/n
        start = _now()
        judge.of(made, gan.size)
        looked = (_now() - start)/n
    place = Path(files[0]).parents[1]
    saved, films = sum(_bytes(o) for o in place.glob("checkpoints")), sum(Path(o).stat().st_size for o in files)
    once = whole - watch.spent - n*(translated + looked) - looked*_judged(rows)
    return Speed(once=max(0., once), step=watch.step, film=translated + looked, tail=watch.tails[0], disk=_bytes(place)
                 - saved - films, of_film=films//n, of_save=saved, memory=peak), looked

def _gan_seconds(study, gans, speed, looked):
    "Of one seed: its CycleGAN, and the films of each number and policy."
    own, train = gans[0].training, _rows(study).query("split == 'train'")
    longer = max(positive(train).sum(), (~positive(train)).sum())
    films = [speed.once + o.synthetic*speed.film + looked*_judged(_rows(study)) for o in gans]
    return own["epochs"]*(longer//own["bs"])*speed.step + _saves(own["epochs"])*speed.tail + sum(films)

def _saves(epochs): return -(-epochs//max(1, epochs//10))

def _gan_bytes(gans, speed):
    kept = min(2, _saves(gans[0].training["epochs"])) # checkpoints
    return speed.disk + kept*speed.of_save + speed.of_film*sum(o.synthetic for o in gans)

def _drawn(study):
    "Predictions as one backbone's cells would leave them, and their cells."
    rows, rng, parts = _sides(study), np.random.default_rng(0), []
    rows = rows[rows["split"] != "train"]
    label = positive(rows).astype(int)
    about = rows[["image", "patient_id"]].assign(side=rows["split"], label=label, synthetic=False)
    for arm, seed in product(study.arms, study.seeds):
        parts.append(about.assign(backbone="net", arm=arm, seed=seed, probability=(rng.random(len(rows)) + label)/2))
    cells = [dict(backbone="net", arm=a, seed=s, weights="none", train_prior=.3, prior=.3)
             for a, s in product(study.arms, study.seeds)]
    return pd.concat(parts, ignore_index=True), pd.DataFrame(cells)

def _tables_seconds(study, folder):
    "Of the tables and the report: of one backbone's, and of a figure."
    predictions, cells = _drawn(study)
    rows, names = _sides(study), [*study.plan.training.cat_names, *study.plan.training.cont_names]
    start = _now()
    metrics_table(score_tables(predictions, cells)[0])
    compare_arms(predictions, comparisons_of(study.arms))
    for o in subgroups, interactions: o(predictions, rows, names)
    tables = _now() - start
    start = _now()
    for o in "png", "svg": save_figure(plot_roc(predictions), folder/f"figure.{o}")
    figures = len(study.arms) + 5
    return len(study.backbones)*(len(study.splits)*tables + figures*(_now() - start))

def _line(job, number, todo, seconds, disk=0, memory=0):
    return dict(job=job, number=number, done=number - todo, to_do=todo, seconds=seconds, memory_gb=memory/GB,
                disk_gb=disk/GB)

def _features(t, arch, weights): return FrozenFeatures(arch, weights, t.size, t.views, precision=t.precision)

def _feature_lines(study):
    "Of a probe, a line a backbone: its features of all films, where none are kept yet."
    t, rows = study.plan.training, _rows(study)
    if t.mode != "probe" or all(parse_arm(o).use == "metadata" for o in study.arms): return
    some = rows["file"].head(FEW).tolist()
    cache = RadiographCache(some, t.size, progress=False)
    for arch, asked in study.plan.weights_of.items():
        weights = "none" if asked in ("auto", "imagenet") else asked # nothing is downloaded to be measured
        features = _features(t, arch, weights)
        start = _now()
        features.look(cache.get(some))
        each = (_now() - start)/FEW
        done = weights == asked and len(features.open([], cache)) >= len(rows)
        yield _line(f"features by {arch}", 1, int(not done), each*len(rows))

def _cell_lines(study, folder):
    "A line a kind of cell; nothing is measured of a kind that is done."
    cells = list({o.folder: o for o in study.cells.values()}.values())
    for kind in dict.fromkeys(o.kind for o in cells):
        own = [o for o in cells if o.kind == kind]
        todo = [o for o in own if not o.done]
        if not todo: yield _line(kind, len(own), 0, 0.)
        else:
            speed = _cell_speed(study, max(todo, key=lambda o: o.arm.use == "both"), folder) # the MLP costs little
            each = [_cell_seconds(study, o, speed) for o in todo]
            yield _line(kind, len(own), len(todo), float(np.mean(each)), speed.disk, speed.memory)

def _gan_lines(study, folder):
    "A line of the CycleGANs with their films, where an arm has any."
    cells = [o for o in study.cells.values() if o.gan]
    if not cells: return
    todo, number = {}, len({(c.seed, c.fold) for c in cells})
    for c in cells:
        if not c.done and not (study.out/study.place(c)).exists(): todo.setdefault((c.seed, c.fold), {})[c.gan] = None
    todo = {k: list(own) for k, own in todo.items()} # each number and policy once
    if not todo: return (yield _line(Synthesis.kind, number, 0, 0.))
    speed, looked = _gan_speed(study, next(iter(todo.values()))[0], folder)
    each = [_gan_seconds(study, own, speed, looked) for own in todo.values()]
    disk = max(_gan_bytes(own, speed) for own in todo.values())
    yield _line(Synthesis.kind, number, len(todo), float(np.mean(each)), disk, speed.memory)

def estimate(
    study:Study,   # its rows may be undecoded: those that are looked at are decoded
    workers:int=1, # cells at a time: each has its share of the threads
) -> pd.DataFrame: # a line a kind of job: `job number done to_do seconds memory_gb disk_gb`, each job's
    """What is left of a study, by steps that are measured here and now; nothing is written to its folder. Seconds are
    of a job on this machine as busy as it is."""
    before, threads = torch.get_num_threads(), threads_of(workers)
    with tempfile.TemporaryDirectory() as tmp:
        torch.set_num_threads(min(before, threads))
        try:
            lines = [*_gan_lines(study, Path(tmp)), *_feature_lines(study), *_cell_lines(study, Path(tmp))]
            lines.append(_line("tables and report", 1, 1, _tables_seconds(study, Path(tmp))))
        finally: torch.set_num_threads(before)
    return pd.DataFrame(lines)

def whole(
    table:pd.DataFrame, # of `estimate`
    workers:int=1,      # cells at a time
) -> dict:              # `seconds memory_gb disk_gb` of all that is to do
    "What a run takes: its longest row of jobs, as many processes as it has, and what they leave."
    alone = table["job"] == "tables and report"
    jobs, last = table[~alone], table[alone]
    at_once = np.ceil(jobs["to_do"]/workers) if workers > 1 else jobs["to_do"]
    total = lambda what: float(what.sum())
    return dict(seconds=total(at_once*jobs["seconds"]) + total(last["seconds"]),
                memory_gb=float(workers*table["memory_gb"].max()), disk_gb=total(table["to_do"]*table["disk_gb"]))

def _moment(seconds): return duration(seconds) if seconds >= 10 else f"{seconds:.1f} s" if seconds else "-"

def gigabytes(
    number:float, # of them
) -> str:
    "In words: as many digits as are of use; '-' for none."
    return f"{number:.2f}" if number >= .1 else f"{number:.2g}" if number else "-"

def jobs_text(
    table:pd.DataFrame, # of `estimate`
) -> str:
    "What is to do of each kind, and how long one takes."
    return ", ".join(f"{o.job} {o.to_do} x {_moment(o.seconds)}" for o in table[table["to_do"] > 0].itertuples())

def cells_table(
    study:Study, # that may have begun
) -> pd.DataFrame: # a line a backbone and arm: its seeds that are done, and to do
    "What a study's cells are."
    lines = []
    for b, a in product(study.backbones, study.arms):
        left = {key[2] for key, c in study.cells.items() if key[:2] == (b, a) and not c.done} # a fold of them, at least
        done = {s: s not in left for s in study.seeds}
        names = lambda which: ", ".join(str(s) for s, o in done.items() if o == which) or "-"
        lines.append(dict(backbone=b, arm=arm_title(a), seeds_done=names(True), seeds_to_do=names(False)))
    return pd.DataFrame(lines)

def estimate_text(
    study:Study,   # that may have begun
    workers:int=1, # cells at a time
) -> str:
    "The cells, done and to do; what each kind of job takes; and all of it in a sentence."
    table = estimate(study, workers)
    took = whole(table, workers)
    shown = table.assign(seconds=table["seconds"].map(_moment), memory_gb=table["memory_gb"].map(gigabytes),
                         disk_gb=table["disk_gb"].map(gigabytes))
    heads = dict(seconds="each", memory_gb="GB of memory", disk_gb="GB of disk, each", to_do="to do")
    cells = cells_table(study).rename(columns=dict(seeds_done="seeds done", seeds_to_do="seeds to do"))
    return (f"{to_markdown(cells)}\n\n{to_markdown(shown.rename(columns=heads))}\n\nAbout "
            f"{_moment(took['seconds'])} on this machine as busy as it is, {gigabytes(took['memory_gb'])} GB of memory "
            f"and {gigabytes(took['disk_gb'])} GB in {study.out}. Nothing was written there.")
