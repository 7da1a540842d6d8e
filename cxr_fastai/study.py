"""Run a backbone through the paper's arms on one honest split, an arm a folder; killed and started again, it goes on.

`protocol` is 'clean': one patient-grouped split made before anything else, every arm scored on the same test rows."""
import hashlib, platform
from importlib.metadata import version

from . import __version__
from .basics import *
from .cache import cache_root
from .cohort import *
from .data import RadiographDataLoaders
from .learner import *
from .phantom import make_phantom
from .tables import *

__all__ = ["run_backbone", "load_cohort", "run_arm"]

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
        raise FileNotFoundError(f"{folder} holds no Data_Entry*.csv or .csv.gz; --data takes 'phantom' or NIH's folder.")
    rows = read_nih(tables[-1], images=folder, missing="drop")
    pool = rows[rows["follow_up"] == 0] if first_visit else rows
    n_normal = min(n_normal, (pool["label"] == classes(rows)[0]).sum())
    return split_patients(paper_cohort(rows, n_normal=n_normal, first_visit=first_visit, seed=seed), seed=seed)

def _digest(rows, settings):
    "Eight letters for what determines the result: every setting, and which image is on which side."
    table = pd.util.hash_pandas_object(rows[["image", "label", "split"]].astype(str), index=False).to_numpy()
    return hashlib.sha256(repr(sorted(settings.items())).encode() + table.tobytes()).hexdigest()[:8]

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

def run_backbone(
    arch:str="resnet50",   # timm name of the backbone
    data:str="phantom",    # 'phantom' (the drawn demo set, not patients) or a folder with NIH's csv and images
    size:int=256,          # side of the square images, pixels
    epochs:int=10,         # training epochs (after a frozen one where the weights are pretrained)
    bs:int=32,             # images a batch
    lr:float=1e-3,         # largest learning rate of the one-cycle schedule
    seed:int=0,            # of cohort, split, initialisation, augmentation and shuffling
    arms:str="real,meta,real-meta", # which of the paper's arms, in order
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
    versions = dict(cxr_fastai=__version__, python=platform.python_version()) | {o: version(o) for o in PACKAGES}
    write_json(folder/"settings.json", settings | dict(positive=classes(rows)[1], protocol="clean", epoch_rule="last",
                                                versions=versions))
    results = {}
    for arm in arms.split(","):
        print(f"{arch}, {arm} ({data})", flush=True)
        results[arm] = run_arm(arm, rows, folder/arm, arch, weights, epochs, lr, size, bs, seed, precision)
    # a run resumed with another network can mix weights; the table names them all
    used = ", ".join(dict.fromkeys(r["weights"] for arm, r in results.items() if ARMS[arm] != "metadata")) or "none"
    shown = "phantom (drawn)" if data == "phantom" else data
    table = table1_row(arch, results, data=shown, seed=seed, weights=used, epoch="last", protocol="clean")
    with atomic(folder/"table1.csv") as tmp: table.to_csv(tmp, index=False)
    print(f"\nTable 1: recall on the test rows at .5 [95% Wilson interval]\n{to_markdown(table)}")
    every = arms_table(results).assign(weights=[r["weights"] for r in results.values()])
    print(f"\nAll metrics on the test rows\n{to_markdown(every)}")
    print(f"\n{time.time() - start:.0f} s. Everything is in {folder}")
    return folder
