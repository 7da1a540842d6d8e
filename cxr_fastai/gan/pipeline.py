"""The translator of a study and its synthetic minority rows (paper section 3.3): trained once per cohort, split, seed
and settings, translated once per number and metadata policy, judged once; whoever asks again is given what is there."""
import inspect
from functools import partial
from pathlib import Path

import pandas as pd
from fastcore.basics import ifnone
from filelock import FileLock

from ..cohort.folder import data_digest, load_cohort
from ..cohort.rows import classes, columns_of, save_rows
from ..cohort.synthetic import read_manifest
from ..core.csvs import read_csv
from ..core.files import check_keywords, say, write_json
from ..core.words import Words
from ..fit.callbacks import HistoryWriter
from ..fit.checkpoint import Checkpoint
from ..fit.precision import computing
from ..fit.tracking import tracked
from ..settings import Gan, settings_digest, takes, versions
from ..stats.films import quality_words
from .callbacks import SaveGrids
from .features import features_by
from .judge import figure_meanings, judge_films, judged_rows
from .selection import KernelPick
from .suited import suited, suited_words
from .synthesis import part_of, synthesise, write_note
from .unpaired import UnpairedDataLoaders

__all__ = ["epochs_trained", "gan_asked", "gan_each_way", "gan_folder", "gan_training", "made_name", "run_gan",
           "synthetic_folder", "synthetic_minority", "train_gan"]

TOLD = "lr lam identity pool patches temperature ngf ndf residual upsample ema".split() # of a learner's settings

def gan_training(
    gan:Gan, # its settings
) -> dict:   # name -> value
    "How a translator is trained: its settings, and the learner's own where it has none."
    own = inspect.signature(gan.translator.learner()).parameters
    res = {o: own[o].default for o in TOLD if o in own}
    return res | {k: v for k, v in gan.training.items() if k not in ("size", "precision")}

def gan_folder(
    rows:pd.DataFrame, # after `split_patients`
    out:str|Path,      # folder of the runs
    gan:Gan,           # its settings
    seed:int=0,        # of everything
) -> Path:
    "Where the translator of these rows and settings is, or will be."
    own = suited(gan, rows).training
    about = own | computing(gan.precision) | dict(seed=seed, data=data_digest(rows, size=own["size"]))
    return Path(out)/f"{gan.kind}-{settings_digest(about)}"

def train_gan(
    rows:pd.DataFrame, # after `split_patients`
    out:str|Path,      # folder of the runs
    gan:Gan,           # its settings
    seed:int=0,        # of initialisation, pools, augmentation and pairs
    track:str="",      # trackers, as in `tracked`
    cbs=(),            # further callbacks
) -> tuple:            # the learner, and its folder with checkpoints, grids and history
    "Train the translator of a cohort, split, seed and settings, or go on where it was; finished, it is only loaded."
    folder, words, gan = gan_folder(rows, out, gan, seed), suited_words(gan, rows), suited(gan, rows)
    if not (folder/"checkpoints").exists(): say(*words, sep="\n", end="\n"*bool(words), flush=True)
    own = {k: o for k, o in gan.training.items() if k not in ("steps", "select", "judge")}
    epochs, bs, size = map(own.pop, ("epochs", "bs", "size"))
    dls = UnpairedDataLoaders.from_df(rows, folder, size=size, bs=bs, seed=seed)
    learn = gan.translator.learner()(dls, seed=seed, **own)
    save_rows(rows, folder/"rows.csv")
    told = dict(gan=gan.gan, epochs=epochs, steps=gan.steps, bs=bs, select=gan.select, versions=versions())
    write_json(folder/"settings.json", learn.settings | told)
    every = max(1, epochs // 10)
    cbs = [Checkpoint(folder/"checkpoints", every), SaveGrids(folder/"grids", every),
           HistoryWriter(folder/"history.csv"), *cbs]
    judge = partial(features_by, weights="none" if gan.weights == "none" else "auto", size=size)
    if gan.select == "kid": cbs.append(KernelPick(rows, judge, every, seed))
    with tracked(track, folder, folder.name, learn.settings) as trackers:
        learn.fit_flat_lin(epochs - epochs//2, epochs//2, steps=gan.steps, cbs=[*cbs, *trackers])
    return learn, folder

def _judge(rows, synth, folder, weights, aloud):
    "Write how good `synth` is beside it, unless it stands there, and print it where that is asked for."
    if (real := judged_rows(rows, synth)) is None:
        held = (rows["split"] == "valid") & (rows["label"] == synth["label"].iloc[0])
        return aloud and say(f"{len(synth)} synthetic and {held.sum()} real valid rows are too few to judge by.")
    file = folder/"quality.csv"
    if not file.exists() or "meaning" not in read_csv(file): # of before: nothing of what was changed
        judge_films(rows, synth, folder, int(synth["size"].iloc[0]), weights)
    if not aloud: return
    say(quality_words(file, real["label"].iloc[0]))

def _number(rows, n, direction):
    "Synthetic rows: half the majority's training rows, as the paper, where not said; at most one a minority row."
    neg, pos = ((rows["label"] == o) & (rows["split"] == "train") for o in classes(rows))
    n = ifnone(n, int(neg.sum()) // 2)
    return n if direction == "a2b" else min(n, int(pos.sum()))

def gan_each_way(
    rows:pd.DataFrame, # after `split_patients`
    gan:Gan,           # settings of a run
) -> dict:             # direction -> its settings with the number of films, and their folder's name
    "What a run makes, each way that it translates."
    numbers = {o: _number(rows, gan.synthetic, o) for o in gan.translator.ways}
    return {o: (gan.replace(synthetic=n), made_name(rows, n, gan.metadata, o)) for o, n in numbers.items()}

def epochs_trained(
    folder:str|Path, # of `gan_folder`
) -> int:
    "After how many epochs a translator would go on."
    return max((int(o.stem.rpartition("-")[2]) for o in Path(folder).glob("checkpoints/checkpoint-*.pt")), default=0)

def made_name(
    rows:pd.DataFrame,   # with their metadata columns
    n:int,               # synthetic rows
    policy:str,          # of their metadata
    direction:str="a2b", # or 'b2a'
    part:str=None,       # of the change, a key of `PARTS`; None: all of it
) -> str:
    "A folder of synthetic rows within its translator's, by all that tells them from others; usual columns go unsaid."
    columns, usual = columns_of(rows), columns_of(pd.DataFrame())
    own = settings_digest(columns) if columns != usual else None
    return "-".join(filter(None, [direction, str(n), policy, own, part]))

def synthetic_folder(
    rows:pd.DataFrame,   # after `split_patients`
    out:str|Path,        # folder of the runs
    gan:Gan,             # its settings
    seed:int=0,          # of everything
    direction:str="a2b", # 'b2a': of the majority, at most one a minority row
    part:str=None,       # of the change, a key of `PARTS`; None: all of it
) -> Path:
    "Where these synthetic rows are, or will be."
    made = made_name(rows, _number(rows, gan.synthetic, direction), gan.metadata, direction, part)
    return gan_folder(rows, out, gan, seed)/made

def synthetic_minority(
    rows:pd.DataFrame,   # after `split_patients`
    out:str|Path,        # folder of the runs
    gan:Gan,             # its settings, number and metadata policy of the rows
    seed:int=0,          # of everything
    direction:str="a2b", # 'b2a': of the majority, at most one a minority row
    track:str="",        # trackers of its training, as in `tracked`
    cbs=(),              # further callbacks of its training
    wait:bool=True,      # for another process that makes them; else `filelock.Timeout`
    aloud:bool=True,     # print how good they are
    part:str=None,       # of the change, a key of `PARTS`: made of the films with all of it, by no second training
) -> pd.DataFrame:       # for `add_synthetic`
    "Synthetic rows of this cohort and split, made by one process at a time. ValueError for a way it doesn't translate."
    gan.translator.check(direction, *classes(rows))
    made = whole = synthetic_folder(rows, out, gan, seed, direction)
    if part: made = synthetic_folder(rows, out, gan, seed, direction, part)
    made.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(made.parent/".lock", timeout=-1 if wait else 0):
        if not (made.exists() or whole.exists()):
            learn, _ = train_gan(rows, out, gan, seed=seed, track=track, cbs=cbs)
            synthesise(learn, rows, _number(rows, gan.synthetic, direction), direction=direction, out=whole,
                       metadata=gan.metadata, seed=seed)
        if not made.exists(): part_of(rows, read_manifest(whole), part, made)
        synth = read_manifest(made)
        write_note(made, synth) # that of an older version was untrue
        _judge(rows, synth, made, gan.weights, aloud)
    return synth

def gan_asked(
    seed:int,   # of cohort and split
    flags:dict, # of `run_gan`
) -> tuple:     # the rows, after the split, and the `Gan`
    "What a run is of."
    check_keywords(flags, inspect.signature(run_gan).parameters, "run_gan")
    gan = Gan(**{k: flags[k] for k in Gan.fields() if k in flags})
    return load_cohort(**{k: o for k, o in flags.items() if k not in Gan.fields()}, split_seed=seed), gan

@takes(load_cohort, Gan, but=["split_seed"])
def run_gan(*,
    seed:int=0,     # of cohort, split, initialisation, augmentation and pairs
    track:Words="", # watch it in 'tensorboard', 'wandb', 'mlflow', or several with commas
    out:str="runs", # folder for the runs; each run makes one of its own inside
    **flags,
) -> Path:          # the run's folder
    "Train the translator, or go on with it; translate training radiographs each way it has; say how good they are."
    rows, gan = gan_asked(seed, flags)
    say(f"\n{rows.groupby(['split', 'label'], observed=True).size().unstack()}\n")
    made = [synthetic_minority(rows, out, gan, seed, direction=o, track=track) for o in gan.translator.ways]
    if len(made) == 1: say(f"A {gan.translator.title} translates one way: no {classes(rows)[0]} film is synthesised.")
    first = Path(made[0]["file"].iloc[0]).parent
    if (file := first/"quality.csv").exists(): say(*figure_meanings(read_csv(file)), "", sep="\n")
    say(f"Everything is in {first.parent}")
    return first.parent
