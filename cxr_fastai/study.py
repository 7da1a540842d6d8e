"""Run a backbone through the paper's arms on one honest split, an arm a folder; killed and started again, it goes on.

`protocol` is 'clean': one patient-grouped split made before anything else, a CycleGAN that sees training rows only, and
every arm scored on the same real test rows."""
import hashlib, platform
from importlib.metadata import version

from . import __version__
from .basics import *
from .cache import cache_root
from .checkpoint import Checkpoint
from .cohort import *
from .cyclegan import *
from .data import RadiographDataLoaders
from .learner import *
from .phantom import make_phantom
from .quality import *
from .synthesis import *
from .tables import *
from .unpaired import UnpairedDataLoaders

__all__ = ["GANS", "load_cohort", "run_arm", "run_backbone", "run_gan", "synthetic_minority", "train_gan"]

GANS = { # settings by name: what small compute was measured to do best with, and the reference's own (and the paper's)
    "fast": dict(epochs=30, bs=4, ngf=32, ndf=32, residual=True, upsample="resize", lam=2., identity=0.),
    "reference": dict(epochs=200, bs=1)}
PACKAGES = "torch", "fastai", "timm", "pandas", "scikit-learn", "pillow", "numpy"
LEARNERS = {"image": image_learner, "metadata": metadata_learner, "both": fusion_learner}

def _phantom():
    "The drawn demo set: beside the package in a checkout, else drawn once into the user's cache."
    here, drawn = Path(__file__).parents[1]/"data"/"phantom", cache_root()/"phantom"
    if here.exists(): return here
    if not drawn.exists(): make_phantom(drawn)
    return drawn

def load_cohort(
    data:str="phantom",     # 'phantom' (drawn, not patients) or a folder with NIH's csv and images
    n_normal:int=700,       # normals drawn; all there are where fewer
    first_visit:bool=True,  # follow-up 0 only, as the paper
    seed:int=0,             # of the draw and of the split
) -> pd.DataFrame:          # the paper's cohort, split by patient 56:14:30 into train, valid and test
    "Read a folder in NIH's layout, take the paper's cohort and split it. FileNotFoundError without a Data_Entry csv."
    folder = _phantom() if data == "phantom" else Path(data)
    tables = sorted(folder.glob("Data_Entry*.csv*"))
    if not tables:
        raise FileNotFoundError(f"{folder} holds no Data_Entry*.csv(.gz); --data takes 'phantom' or NIH's folder.")
    rows = read_nih(tables[-1], images=folder, missing="drop")
    pool = rows[rows["follow_up"] == 0] if first_visit else rows
    n_normal = min(n_normal, (pool["label"] == classes(rows)[0]).sum())
    return split_patients(paper_cohort(rows, n_normal=n_normal, first_visit=first_visit, seed=seed), seed=seed)

def _digest(rows, settings):
    "Eight letters for what determines the result: every setting, and which image is on which side."
    table = pd.util.hash_pandas_object(rows[["image", "label", "split"]].astype(str), index=False).to_numpy()
    return hashlib.sha256(repr(sorted(settings.items())).encode() + table.tobytes()).hexdigest()[:8]

def _versions():
    return dict(cxr_fastai=__version__, python=platform.python_version()) | {o: version(o) for o in PACKAGES}

def train_gan(
    rows:pd.DataFrame,    # after `split_patients`
    out:Path,             # folder of the runs
    gan:str="fast",       # a key of `GANS`
    size:int=128,         # side of the square images, pixels
    epochs:int=None,      # half of them flat, half falling; None: as many as `gan` has
    seed:int=0,           # of initialisation, pools, augmentation and pairs
    precision:str="auto", # as in `use_bf16`
) -> tuple:               # the learner, and its folder with checkpoints, grids and history
    "Train the CycleGAN of a cohort, split, seed and settings, or go on where it was; finished, it is only loaded."
    if gan not in GANS: raise ValueError(f"gan={gan!r} is not known; use {' or '.join(GANS)}.")
    preset = GANS[gan] | dict(size=size, seed=seed, precision=precision)
    preset["epochs"] = ifnone(epochs, preset["epochs"])
    folder = Path(out)/f"cyclegan-{_digest(rows, preset)}"
    epochs, bs, size = map(preset.pop, ("epochs", "bs", "size"))
    learn = cyclegan_learner(UnpairedDataLoaders.from_df(rows, folder, size=size, bs=bs, seed=seed), **preset)
    save_rows(rows, folder/"rows.csv")
    write_json(folder/"settings.json", learn.settings | dict(gan=gan, epochs=epochs, bs=bs, versions=_versions()))
    every = max(1, epochs // 10)
    cbs = Checkpoint(folder/"checkpoints", every), SaveGrids(folder/"grids", every), HistoryWriter(folder/"history.csv")
    learn.fit_flat_lin(epochs - epochs//2, epochs//2, cbs=cbs)
    return learn, folder

def _judge(rows, synth, folder, weights):
    "Write how good `synth` is beside it, and print it. The real rows are of patients that the GAN never saw."
    real = rows[(rows["split"] != "train") & rows["label"].isin(synth["label"].unique())]
    if min(o["patient_id"].nunique() for o in (synth, real)) < FEWEST:
        return print(f"{len(synth)} synthetic and {len(real)} held-out real rows are too few to judge by.")
    file = folder/"quality.csv"
    if not file.exists():
        kwargs = dict(weights="none" if weights == "none" else "auto", size=int(synth["size"].iloc[0]))
        near = memorisation(rows[rows["split"] == "train"], synth, **kwargs)
        with atomic(folder/"memorised.csv") as tmp: near.to_csv(tmp, index=False)
        by_heart = [dict(figure=f"nearer to {who} than two real patients ever are, by {o}", floor=0., n=len(near),
                         value=near[f"{flag}_{o}"].mean(), features=near["features"].iloc[0])
                    for flag, who in (("closer", "a stranger"), ("copied", "its source")) for o in ("features", "pixels")]
        table = pd.concat([quality(real, synth, **kwargs), told_apart(real, synth, **kwargs), pd.DataFrame(by_heart)])
        with atomic(file) as tmp: table.to_csv(tmp, index=False)
    label = synth["label"].iloc[0]
    print(f"\nSynthetic against real {label} that the GAN never saw\n{to_markdown(pd.read_csv(file))}\n")

def synthetic_minority(
    rows:pd.DataFrame,      # after `split_patients`
    out:Path,               # folder of the runs
    n:int=None,             # rows; None: half the majority's training rows, as the paper
    direction:str="a2b",    # 'b2a': of the majority, at most one a minority row
    metadata:str="matched", # a key of `POLICIES`
    weights:str="auto",     # of the network that judges them: 'none', anything else is 'auto'
    seed:int=0,             # of everything
    **kwargs,               # of `train_gan`
) -> pd.DataFrame:          # for `add_synthetic`
    "Synthetic rows of this cohort and split, by a CycleGAN that is trained once; made once, judged once."
    learn, folder = train_gan(rows, out, seed=seed, **kwargs)
    n = ifnone(n, len(learn.dls.train_ds.a) // 2)
    if direction == "b2a": n = min(n, len(learn.dls.train_ds.b))
    made = folder/f"{direction}-{n}-{metadata}"
    synth = read_manifest(made) if made.exists() else synthesise(learn, rows, n, direction, made, metadata, seed)
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
    out:str="runs",         # folder for the runs; each run makes one of its own inside
) -> Path:                  # the run's folder
    "Train the CycleGAN, or go on with it; translate training radiographs both ways; say how good they are."
    rows = load_cohort(data, normals, not followups, seed)
    print(f"\n{rows.groupby(['split', 'label'], observed=True).size().unstack()}\n")
    kwargs = dict(n=synthetic, metadata=metadata, weights=weights, gan=gan, size=size, epochs=epochs, seed=seed,
                  precision=precision)
    both = [synthetic_minority(rows, out, direction=o, **kwargs) for o in DIRECTIONS]
    folder = Path(both[0]["file"].iloc[0]).parents[1]
    print(f"Everything is in {folder}")
    return folder

def run_arm(
    arm:str,              # a key of `ARMS`
    rows:pd.DataFrame,    # after `split_patients`
    folder:Path,          # where history, predictions, scores and the model go
    arch:str="resnet50",  # timm name of the backbone, for arms with images
    weights:str="auto",   # of the backbone, as in `create_backbone`
    epochs:int=10,        # of `fine_tune`
    lr:float=1e-3,        # its base rate
    size:int=256,         # side of the square images, pixels
    bs:int=32,            # images a batch
    seed:int=0,           # of initialisation, augmentation and shuffling
    precision:str="auto", # as in `use_bf16`
) -> dict:                # `scores` on the test rows, and the weights used
    "Train and test one arm; finished before, it is read back. `scores.json` is written last and says that it is whole."
    done = folder/"scores.json"
    if done.exists(): return json.loads(done.read_text())
    use, start = ARMS[arm], time.time()
    dls = RadiographDataLoaders.from_df(rows, folder, size=size, bs=bs, seed=seed, use=use)
    kwargs = {} if use == "metadata" else dict(arch=arch, weights=weights, precision=precision)
    learn = LEARNERS[use](dls, seed=seed, cbs=HistoryWriter(folder/"history.csv"), **kwargs)
    learn.fine_tune(epochs, lr)
    test = rows[rows["split"] == "test"]
    prob, label = learn.get_preds(dl=dls.test_dl(test, with_labels=True))
    table = test[["image", "patient_id", "label"]].assign(probability=prob[:, 1].numpy())
    with atomic(folder/"test_predictions.csv") as tmp: table.to_csv(tmp, index=False, float_format="%.6f")
    with atomic(folder/"model.pkl") as tmp: learn.export(tmp.absolute())
    result = scores(label.numpy(), prob[:, 1].numpy())
    result |= dict(weights=learn.weights, seconds=round(time.time() - start, 1))
    write_json(done, result)
    return result

def _predictions(folder, positive):
    table = pd.read_csv(folder/"test_predictions.csv")
    return table.assign(label=(table["label"] == positive).astype(int))

def run_backbone(
    arch:str="resnet50",   # timm name of the backbone
    data:str="phantom",    # 'phantom' (the drawn demo set, not patients) or a folder with NIH's csv and images
    size:int=256,          # side of the square images, pixels
    epochs:int=10,         # training epochs (after a frozen one where the weights are pretrained)
    bs:int=32,             # images a batch
    lr:float=1e-3,         # largest learning rate of the one-cycle schedule
    seed:int=0,            # of cohort, split, initialisation, augmentation and shuffling
    arms:str="real,meta,real-meta,real-synth-meta", # which arms, in order; there is real-synth, too
    synthetic:int=None,    # synthetic minority rows; half the majority's training rows where not given
    gan:str="fast",        # 'fast' (for small compute) or 'reference' (as the paper's source: 9 blocks, 200 epochs)
    gan_epochs:int=None,   # epochs of the CycleGAN; as many as `gan` has where not given
    gan_size:int=None,     # side of its images, pixels; `size` where not given
    metadata:str="matched", # of synthetic rows: 'matched', 'source', 'donor', 'missing' or 'image-only'
    weights:str="auto",    # 'imagenet', 'none', a local .pth/.safetensors file, or 'auto': imagenet if it can be had
    normals:int=700,       # normals drawn (the paper's 700); all there are where fewer
    followups:bool=False,  # take follow-up visits too, not only the first as the paper does
    precision:str="auto",  # 'auto' (bf16 where the hardware has it), 'bf16' or 'fp32'
    out:str="runs",        # folder for the runs; each run makes one of its own inside
) -> Path:                 # the run's folder
    "Train the paper's arms with one backbone, print their epoch tables and Table 1's row, save everything in a folder."
    settings, start = {k: v for k, v in locals().items() if k != "out"}, time.time()
    if unknown := set(arms.split(",")) - set(ARMS):
        raise ValueError(f"--arms: {few(unknown)} is not known; there are {', '.join(ARMS)}.")
    rows = load_cohort(data, normals, not followups, seed)
    print(f"\n{rows.groupby(['split', 'label'], observed=True).size().unstack()}\n")
    folder = Path(out)/f"{arch}-{_digest(rows, settings)}"
    write_json(folder/"settings.json", settings | dict(positive=classes(rows)[1], protocol="clean", epoch_rule="last",
                                                versions=_versions()))
    results, enlarged = {}, None
    for arm in arms.split(","):
        if "synth" in arm and enlarged is None:
            synth = synthetic_minority(rows, out, synthetic, metadata=metadata, weights=weights, seed=seed, gan=gan,
                                       size=ifnone(gan_size, size), epochs=gan_epochs, precision=precision)
            enlarged = add_synthetic(rows, synth)
        print(f"{arch}, {arm} ({data})", flush=True)
        table = enlarged if "synth" in arm else rows
        results[arm] = run_arm(arm, table, folder/arm, arch, weights, epochs, lr, size, bs, seed, precision)
    # a run resumed with another network can mix weights; the table names them all
    used = ", ".join(dict.fromkeys(r["weights"] for arm, r in results.items() if ARMS[arm] != "metadata")) or "none"
    shown = "phantom (drawn)" if data == "phantom" else data
    predictions = {o: _predictions(folder/o, classes(rows)[1]) for o in results}
    table = table1_row(arch, results, predictions, data=shown, seed=seed, weights=used, epoch="last", protocol="clean")
    with atomic(folder/"table1.csv") as tmp: table.to_csv(tmp, index=False)
    print(f"\nTable 1: recall on the test rows at .5 [95% interval]\n{to_markdown(table)}")
    every = arms_table(results).assign(weights=[r["weights"] for r in results.values()])
    print(f"\nAll metrics on the test rows\n{to_markdown(every)}")
    print(f"\n{time.time() - start:.0f} s. Everything is in {folder}")
    return folder
