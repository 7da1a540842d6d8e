"""The CycleGAN of a study and its synthetic minority rows (paper section 3.3): trained once per cohort, split, seed and
settings, translated once per number and metadata policy, judged once; whoever asks again is given what is there."""
import inspect
from pathlib import Path

import pandas as pd
from fastcore.basics import ifnone
from filelock import FileLock

from ..arms import POLICIES
from ..cohort.folder import data_digest, load_cohort
from ..cohort.rows import classes, save_rows
from ..cohort.synthetic import read_manifest
from ..core.csvs import read_csv, write_csv
from ..core.files import say, write_json
from ..fit.callbacks import HistoryWriter
from ..fit.checkpoint import Checkpoint
from ..fit.tracking import tracked
from ..settings import _settings, GANS, settings_digest, versions
from ..stats.formats import to_markdown
from .cyclegan import cyclegan_learner, DIRECTIONS, SaveGrids
from .quality import FEWEST, memorisation, quality, told_apart
from .synthesis import synthesise, write_note
from .unpaired import UnpairedDataLoaders

__all__ = ["gan_folder", "gan_training", "run_gan", "synthetic_folder", "synthetic_minority", "train_gan"]

def gan_training(
    gan:str="fast",  # a key of `GANS`
    epochs:int=None, # None: as many as `gan` has
) -> dict:           # name -> value
    "How a CycleGAN is trained: the settings of `gan`, and the learner's own where it has none."
    own = inspect.signature(cyclegan_learner).parameters
    res = {o: own[o].default for o in ("lr", "lam", "identity", "pool", "ngf", "ndf", "residual", "upsample", "ema")}
    res |= GANS[gan]
    return res | dict(epochs=ifnone(epochs, res["epochs"]))

def gan_folder(
    rows:pd.DataFrame,    # after `split_patients`
    out:str|Path,         # folder of the runs
    gan:str="fast",       # a key of `GANS`
    size:int=128,         # side of the square images, pixels
    epochs:int=None,      # None: as many as `gan` has
    seed:int=0,           # of everything
    precision:str="auto", # as in `use_bf16`
) -> Path:
    "Where the CycleGAN of these rows and settings is, or will be."
    about = _settings(gan, size, epochs, seed, precision) | dict(data=data_digest(rows, size=size))
    return Path(out)/f"cyclegan-{settings_digest(about)}"

def train_gan(
    rows:pd.DataFrame,    # after `split_patients`
    out:str|Path,         # folder of the runs
    gan:str="fast",       # a key of `GANS`
    size:int=128,         # side of the square images, pixels
    epochs:int=None,      # half of them flat, half falling; None: as many as `gan` has
    seed:int=0,           # of initialisation, pools, augmentation and pairs
    precision:str="auto", # as in `use_bf16`
    track:str="",         # trackers, as in `tracked`
) -> tuple:               # the learner, and its folder with checkpoints, grids and history
    "Train the CycleGAN of a cohort, split, seed and settings, or go on where it was; finished, it is only loaded."
    folder = gan_folder(rows, out, gan, size, epochs, seed, precision)
    preset = _settings(gan, size, epochs, seed, precision)
    epochs, bs, size = map(preset.pop, ("epochs", "bs", "size"))
    learn = cyclegan_learner(UnpairedDataLoaders.from_df(rows, folder, size=size, bs=bs, seed=seed), **preset)
    save_rows(rows, folder/"rows.csv")
    write_json(folder/"settings.json", learn.settings | dict(gan=gan, epochs=epochs, bs=bs, versions=versions()))
    every = max(1, epochs // 10)
    cbs = Checkpoint(folder/"checkpoints", every), SaveGrids(folder/"grids", every), HistoryWriter(folder/"history.csv")
    with tracked(track, folder, folder.name, learn.settings) as trackers:
        learn.fit_flat_lin(epochs - epochs//2, epochs//2, cbs=[*cbs, *trackers])
    return learn, folder

def _by_heart(near):
    "How many synthetic images are nearer to a training image than two real patients ever are, as rows of a table."
    return pd.DataFrame([dict(figure=f"nearer to {who} than two real patients ever are, by {o}", floor=0., n=len(near),
                              value=near[f"{flag}_{o}"].mean(), features=near["features"].iloc[0])
                         for flag, who in (("closer", "a stranger"), ("copied", "its source"))
                         for o in ("features", "pixels")])

def _judge(rows, synth, folder, weights):
    "Write how good `synth` is beside it, and print it. The real rows are valid's: test rows judge a study's end alone."
    real = rows[(rows["split"] == "valid") & rows["label"].isin(synth["label"].unique())]
    if min(o["patient_id"].nunique() for o in (synth, real)) < FEWEST:
        return say(f"{len(synth)} synthetic and {len(real)} real valid rows are too few to judge by.")
    file = folder/"quality.csv"
    if not file.exists() or "judged_on" not in read_csv(file): # of before: valid and test rows together
        kwargs = dict(weights="none" if weights == "none" else "auto", size=int(synth["size"].iloc[0]))
        near = memorisation(rows[rows["split"] == "train"], synth, **kwargs)
        write_csv(near, folder/"memorised.csv")
        table = pd.concat([quality(real, synth, **kwargs), told_apart(real, synth, **kwargs), _by_heart(near)])
        write_csv(table.assign(judged_on="valid"), file)
    label = synth["label"].iloc[0]
    say(f"\nSynthetic against real {label} of the valid rows, which the GAN never saw\n{to_markdown(read_csv(file))}\n")

def _number(rows, n, direction):
    "Synthetic rows: half the majority's training rows, as the paper, where not said; at most one a minority row."
    neg, pos = ((rows["label"] == o) & (rows["split"] == "train") for o in classes(rows))
    n = ifnone(n, int(neg.sum()) // 2)
    return n if direction == "a2b" else min(n, int(pos.sum()))

def synthetic_folder(
    rows:pd.DataFrame,      # after `split_patients`
    out:str|Path,           # folder of the runs
    n:int=None,             # rows; None: half the majority's training rows, as the paper
    direction:str="a2b",    # 'b2a': of the majority, at most one a minority row
    metadata:str="matched", # a key of `POLICIES`
    **kwargs,               # of `gan_folder`
) -> Path:
    "Where these synthetic rows are, or will be."
    if metadata not in POLICIES: raise ValueError(f"metadata={metadata!r} is not known; use {', '.join(POLICIES)}.")
    return gan_folder(rows, out, **kwargs)/f"{direction}-{_number(rows, n, direction)}-{metadata}"

def synthetic_minority(
    rows:pd.DataFrame,      # after `split_patients`
    out:str|Path,           # folder of the runs
    n:int=None,             # rows; None: half the majority's training rows, as the paper
    direction:str="a2b",    # 'b2a': of the majority, at most one a minority row
    metadata:str="matched", # a key of `POLICIES`
    weights:str="auto",     # of the network that judges them: 'none', anything else is 'auto'
    seed:int=0,             # of everything
    track:str="",           # trackers of its training, as in `tracked`
    **kwargs,               # of `train_gan`
) -> pd.DataFrame:          # for `add_synthetic`
    "Synthetic rows of this cohort and split, made by one process while the others wait."
    made = synthetic_folder(rows, out, n, direction, metadata, seed=seed, **kwargs)
    made.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(made.parent/".lock"):
        if not made.exists():
            learn, _ = train_gan(rows, out, seed=seed, track=track, **kwargs)
            synthesise(learn, rows, _number(rows, n, direction), direction, made, metadata, seed)
        synth = read_manifest(made)
        write_note(made, synth) # that of an older version was untrue
        _judge(rows, synth, made, weights)
    return synth

def run_gan(
    data:str="phantom",     # 'phantom' (the drawn demo set, not patients) or a folder with NIH's csv and images
    gan:str="fast",         # 'fast' (for small compute) or 'reference' (as the paper's source: 9 blocks, 200 epochs)
    size:int=256,           # side of the square images, pixels
    epochs:int=None,        # half of them at 2e-4, half falling to zero; None: as many as `gan` has
    synthetic:int=None,     # synthetic minority rows; None: half the majority's training rows
    metadata:str="matched", # of synthetic rows: 'matched', 'source', 'donor', 'missing' or 'image-only'
    seed:int=0,             # of cohort, split, initialisation, augmentation and pairs
    weights:str="auto",     # of the network that judges: 'auto' (imagenet if it can be had) or 'none'
    normals:int=700,        # normals drawn (the paper's 700); all there are where fewer
    followups:bool=False,   # take follow-up visits too, not only the first as the paper does
    precision:str="auto",   # 'auto' (bf16 where the hardware has it), 'bf16' or 'fp32'
    track:str="",           # watch it in 'tensorboard', 'wandb', 'mlflow', or several with commas
    out:str="runs",         # folder for the runs; each run makes one of its own inside
) -> Path:                  # the run's folder
    "Train the CycleGAN, or go on with it; translate training radiographs both ways; say how good they are."
    rows = load_cohort(data, normals, not followups, seed)
    say(f"\n{rows.groupby(['split', 'label'], observed=True).size().unstack()}\n")
    kwargs = dict(n=synthetic, metadata=metadata, weights=weights, gan=gan, size=size, epochs=epochs, seed=seed,
                  precision=precision, track=track)
    both = [synthetic_minority(rows, out, direction=o, **kwargs) for o in DIRECTIONS]
    folder = Path(both[0]["file"].iloc[0]).parents[1]
    say(f"Everything is in {folder}")
    return folder
