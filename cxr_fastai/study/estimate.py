"""How long a study will take, and what of memory and disk, by a few measured steps of each kind of its jobs."""
import tempfile
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ..arms import arm_title, comparisons_of, parse_arm
from ..cohort.cache import RadiographCache
from ..cohort.rows import classes, positive
from ..core.progress import duration
from ..core.style import save_figure
from ..core.tuned import choices
from ..core.workers import threads_of
from ..gan.pipeline import epochs_trained, gan_asked, gan_each_way, gan_folder, run_gan
from ..report.figures import plot_roc
from ..settings import Gan, takes
from ..stats.compare import compare_arms
from ..stats.formats import to_markdown
from ..stats.subgroups import interactions, subgroups
from ..stats.tables import metrics_table, score_tables
from .grid import Study
from .speed import (begun_seconds, cell_seconds, cell_speed, clock, epoch_seconds, features_for, few_films, gan_bytes,
    gan_seconds, gan_speed, scored_rows, typical_rows)
from .tune import Search

__all__ = ["cells_table", "estimate", "estimate_text", "gan_estimate", "gan_estimate_text", "gigabytes", "jobs_text",
           "whole"]

FEW = 32 # films whose features are timed: a batch of them
GB = 1e9

def _drawn(study):
    "Predictions as one backbone's cells would leave them, and their cells."
    rows, rng, parts = scored_rows(study), np.random.default_rng(0), []
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
    rows, names = scored_rows(study), [*study.plan.training.cat_names, *study.plan.training.cont_names]
    start = clock()
    metrics_table(score_tables(predictions, cells)[0])
    compare_arms(predictions, comparisons_of(study.arms))
    for o in subgroups, interactions: o(predictions, rows, names)
    tables = clock() - start
    start = clock()
    for o in "png", "svg": save_figure(plot_roc(predictions), folder/f"figure.{o}")
    figures = len(study.arms) + 5
    return len(study.backbones)*(len(study.splits)*tables + figures*(clock() - start))

def _line(job, number, todo, seconds, disk=0, memory=0):
    return dict(job=job, number=number, done=number - todo, to_do=todo, seconds=seconds, memory_gb=memory/GB,
                disk_gb=disk/GB)

def _feature_lines(study):
    "Of a probe, a line a backbone: its features of all films, where none are kept yet."
    t, rows = study.plan.training, typical_rows(study)
    if t.mode != "probe" or all(parse_arm(o).use == "metadata" for o in study.arms): return
    some = rows["file"].head(FEW).tolist()
    cache = RadiographCache(some, t.size, progress=False)
    for arch, asked in study.plan.weights_of.items():
        weights = "none" if asked in ("auto", "imagenet") else asked # nothing is downloaded to be measured
        features = features_for(t, arch, weights)
        start = clock()
        features.look(cache.get(some))
        each = (clock() - start)/FEW
        done = weights == asked and len(features.open([], cache)) >= len(rows)
        yield _line(f"features by {arch}", 1, int(not done), each*len(rows))

def _search_lines(study, folder):
    "Of settings that are searched first, a line a backbone: a trial is of some seeds, and of a quarter more epochs."
    plan, known = study.plan, choices(study.plan.training.tuned)
    for o in plan.backbones if plan.tune else ():
        search = Search(study.rows, plan, o, study.out, make=type(study))
        cells, here = list(search.study.cells.values()), folder/search.name
        done = plan.tune if search.backbone in known else search.done
        job, left = f"trials of {search.backbone}", max(0, plan.tune - done)
        if not left:
            yield _line(job, plan.tune, 0, 0.)
            continue
        here.mkdir()
        speed = cell_speed(study, cells[0], here)
        yield _line(job, plan.tune, left, 1.25*len(cells)*cell_seconds(study, cells[0], speed), memory=speed.memory)

def _cell_lines(study, folder):
    "A line a kind of cell; nothing is measured of a kind that is done."
    cells = list({o.folder: o for o in study.cells.values()}.values())
    for kind in dict.fromkeys(o.kind for o in cells):
        own = [o for o in cells if o.kind == kind]
        todo = [o for o in own if not o.done]
        if not todo: yield _line(kind, len(own), 0, 0.)
        else:
            speed = cell_speed(study, max(todo, key=lambda o: o.arm.use == "both"), folder) # the MLP costs little
            each = [cell_seconds(study, o, speed) for o in todo]
            yield _line(kind, len(own), len(todo), float(np.mean(each)), speed.disk, speed.memory)

def _gan_lines(study, folder):
    "A line of the translators with their films, where an arm has any."
    cells = [o for o in study.cells.values() if o.gan]
    if not cells: return
    todo, number, kind = {}, len({(c.seed, c.fold) for c in cells}), f"{study.plan.gan.translator.title}s"
    for c in cells:
        if c.done or (study.out/study.place(c)).exists(): continue
        todo.setdefault((c.seed, c.fold), {}).update(dict.fromkeys(gan for gan, *_ in c.syntheses))
    todo = {k: list(own) for k, own in todo.items()} # each number and policy once
    if not todo: return (yield _line(kind, number, 0, 0.))
    first, rows = next(iter(todo.values()))[0], typical_rows(study)
    speed, looked = gan_speed(rows, first, folder, few_films(first.training["bs"], study))
    each = [gan_seconds(rows, own, speed, looked) for own in todo.values()]
    disk = max(gan_bytes(own, speed) for own in todo.values())
    yield _line(kind, number, len(todo), float(np.mean(each)), disk, speed.memory)

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
            lines = [*_search_lines(study, Path(tmp)), *_gan_lines(study, Path(tmp)), *_feature_lines(study),
                     *_cell_lines(study, Path(tmp))]
            lines.append(_line("tables and report", 1, 1, _tables_seconds(study, Path(tmp))))
        finally: torch.set_num_threads(before)
    return pd.DataFrame(lines)

def whole(
    table:pd.DataFrame, # of `estimate`
    workers:int=1,      # cells at a time
) -> dict:              # `seconds memory_gb disk_gb` of all that is to do
    "What a run takes: its longest row of jobs, as many processes as it has, and what they leave."
    alone = table["job"].str.match("tables and report|trials of ") # one after another, in one process
    jobs, last = table[~alone], table[alone]
    at_once = np.ceil(jobs["to_do"]/workers) if workers > 1 else jobs["to_do"]
    total = lambda what: float(what.sum())
    return dict(seconds=total(at_once*jobs["seconds"]) + total(last["to_do"]*last["seconds"]),
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

def _told(table, workers, place):
    "The jobs, and all of them in a sentence."
    took = whole(table, workers)
    shown = table.assign(seconds=table["seconds"].map(_moment), memory_gb=table["memory_gb"].map(gigabytes),
                         disk_gb=table["disk_gb"].map(gigabytes))
    heads = dict(seconds="each", memory_gb="GB of memory", disk_gb="GB of disk, each", to_do="to do")
    return (f"{to_markdown(shown.rename(columns=heads))}\n\nAbout {_moment(took['seconds'])} on this machine as busy "
            f"as it is, {gigabytes(took['memory_gb'])} GB of memory and {gigabytes(took['disk_gb'])} GB in {place}. "
            "Nothing was written there.")

def estimate_text(
    study:Study,   # that may have begun
    workers:int=1, # cells at a time
) -> str:
    "The cells, done and to do; what each kind of job takes; and all of it in a sentence."
    cells = cells_table(study).rename(columns=dict(seeds_done="seeds done", seeds_to_do="seeds to do"))
    return f"{to_markdown(cells)}\n\n{_told(estimate(study, workers), workers, study.out)}"

def gan_estimate(
    rows:pd.DataFrame, # after `split_patients`
    out:str|Path,      # folder of the runs
    gan:Gan,           # settings of `run_gan`
    seed:int=0,        # of everything
) -> pd.DataFrame:     # as of `estimate`: epochs, films of each class, and what is beside both
    "What is left of a translator and its films, by steps that are measured here and now; nothing is written to `out`."
    ways, title, folder = gan_each_way(rows, gan), gan.translator.title, gan_folder(rows, out, gan, seed)
    there, epochs = {o: (folder/name).exists() for o, (_, name) in ways.items()}, gan.training["epochs"]
    left = max(0, epochs - epochs_trained(folder)) if not all(there.values()) else 0
    with tempfile.TemporaryDirectory() as tmp:
        speed, looked = gan_speed(rows, ways["a2b"][0], Path(tmp), few_films(gan.training["bs"]))
    names, steps, own = dict(zip(("b2a", "a2b"), classes(rows))), epoch_seconds(rows, gan, speed), ways["a2b"][0]
    made = {o: (gan.synthetic, 0 if there[o] else gan.synthetic) for o, (gan, _) in ways.items()}
    kept, each = gan_bytes([own], speed) - own.synthetic*speed.of_film, begun_seconds(rows, speed, looked)
    todo = sum(not o for o in there.values())
    lines = [_line(f"epochs of the {title}", epochs, left, steps, memory=speed.memory),
             *[_line(f"films of {names[o]}", *n, speed.film, speed.of_film) for o, n in made.items()],
             _line("begun, saved and judged", len(ways), todo, each, kept/len(ways), speed.memory)]
    return pd.DataFrame(lines)

@takes(run_gan)
def gan_estimate_text(*,
    seed:int=0,     # of cohort and split
    out:str="runs", # folder for the runs
    **flags,
) -> str:
    "What `run_gan` would make of these flags: minutes, GB, and what of it is there."
    rows, gan = gan_asked(seed, {k: o for k, o in flags.items() if k != "track"})
    return _told(gan_estimate(rows, out, gan, seed), 1, gan_folder(rows, out, gan, seed))
