"""Is a set of synthetic radiographs any good? What the paper names as missing (section 6: FID and Inception Score), and
what those hide: likeness beside the likeness of real images to one another, images learnt by heart, and how easily
real and synthetic are told apart.

Every figure names the features it was measured on. A Fréchet distance is called FID on Inception's alone."""
import torch
import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist
from scipy.stats import rankdata
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ..cohort.cache import RadiographCache
from ..core.files import few
from ..stats.scoring import weighted_metrics
from .features import both_features, INCEPTION, inception, radiograph_features, standardised

__all__ = ["FEWEST", "MEANINGS", "by_heart", "frechet_distance", "kernel_distance", "memorisation", "quality",
           "told_apart"]

FEWEST = 8 # patients of either kind below which nothing is said
THUMB = 32 # side of the thumbnails that are compared pixel by pixel

MEANINGS = { # a line a figure; the features beside it say which network looked
    "Fréchet distance": "difference in mean and spread of features: the nearer to its floor, the better; falls with n",
    "kernel distance": "difference of the features' distributions: about 0 for like sets, whatever their n",
    "FID": "the Fréchet distance on Inception's features, as it is published; falls with n, as its floor does",
    "KID": "the kernel distance on Inception's features, as it is published",
    "Inception Score": "how sure and how varied Inception's classes are: made for photographs; near its floor is best",
    "precision": "share of synthetic films that lie among real ones: low where films look like none that there is",
    "recall": "share of real films that lie among synthetic ones: low where a generator makes a few kinds alone",
    "density": "how many real neighbourhoods a synthetic film lies in, 1 expected: precision that outliers don't lift",
    "coverage": "share of real films with a synthetic one next to them: recall that outliers don't lift",
    "told apart (AUC)": "how well a classifier tells synthetic from real: 1 at sight, .5 never",
    "nearer to a stranger than two real patients ever are, by features":
        "share of films that are another patient's training film learnt by heart, by what the network sees; best 0",
    "nearer to a stranger than two real patients ever are, by pixels": "the same, by thumbnails of 32 x 32 pixels",
    "nearer to its source than two real patients ever are, by features":
        "share of films that are hardly more than their source, by what the network sees: little was changed",
    "nearer to its source than two real patients ever are, by pixels": "the same, by thumbnails of 32 x 32 pixels"}

def _refuse(**tables):
    for name, rows in tables.items():
        if lost := [o for o in ("file", "patient_id", "image") if o not in rows]:
            raise ValueError(f"The {name} rows have no column {few(lost)}.")
        if (n := rows["patient_id"].nunique()) < FEWEST:
            raise ValueError(f"{n} patients in the {name} rows are too few to judge by; {FEWEST} are needed.")

def _inception_score(rows, weights, size):
    "exp of the mean divergence between an image's predicted classes and all images' (Salimans 2016, arXiv:1606.03498)."
    logits, _ = radiograph_features(rows, inception(weights, layer="logits_unbiased"), size=size)
    prob = torch.from_numpy(logits).softmax(1)
    return float((prob * (prob / prob.mean(0)).log()).sum(1).mean().exp())

def frechet_distance(
    x:np.ndarray, # features `[n, d]`
    y:np.ndarray, # features `[m, d]`
) -> float:
    """Between the Gaussians fitted to two sets (Heusel 2017, arXiv:1706.08500, eq. 6). The trace of the root of the
    covariances' product is the nuclear norm of the centred sets' product, exact for fewer rows than columns too."""
    a, b = ((o - o.mean(0)) / np.sqrt(len(o) - 1) for o in (x, y))
    root = np.linalg.norm(a @ b.T, "nuc")
    return float(((x.mean(0) - y.mean(0))**2).sum() + (a**2).sum() + (b**2).sum() - 2*root)

def kernel_distance(
    x:np.ndarray, # features `[n, d]`, standardised
    y:np.ndarray, # features `[m, d]`, standardised alike
) -> float:
    "Unbiased squared MMD with the kernel (x.y/d + 1)^3 (Binkowski 2018, arXiv:1801.01401): 0 on average for like sets."
    def kernel(one, two): return (one @ two.T / x.shape[1] + 1)**3
    def within(one):
        pairs = kernel(one, one)
        return (pairs.sum() - np.trace(pairs)) / (len(one)*(len(one) - 1))
    return float(within(x) + within(y) - 2*kernel(x, y).mean())

def _manifold(real, fake, k=5):
    "Precision and recall (Kynkäänniemi 2019, arXiv:1904.06991), density and coverage (Naeem 2020, arXiv:2002.09797)."
    k = min(k, len(real) - 1, len(fake) - 1)
    radius = lambda o: np.sort(cdist(o, o), axis=1)[:, k] # column 0 is the image itself
    apart, of_real, of_fake = cdist(real, fake), radius(real), radius(fake)
    within = apart <= of_real[:, None]
    return dict(precision=within.any(0).mean(), recall=(apart <= of_fake).any(1).mean(),
                density=within.sum(0).mean()/k, coverage=(apart.min(1) <= of_real).mean())

def _figures(real, fake):
    distances = {"Fréchet distance": frechet_distance(real, fake), "kernel distance": kernel_distance(real, fake)}
    return distances | _manifold(real, fake)

def _halves(rows, rng):
    "Two lists of row numbers, no patient in both and neither empty, as nearly equal as whole patients allow."
    who = pd.factorize(rows["patient_id"])[0]
    turn = rng.permutation(who.max() + 1)[who]
    ends = np.bincount(turn).cumsum()[:-1] # a cut is between two patients
    return np.split(np.argsort(turn, kind="stable"), [ends[abs(ends - len(rows)/2).argmin()]])

def quality(
    real_rows:pd.DataFrame,  # best valid rows: not seen by the generator, and not kept to judge the study's end by
    synth_rows:pd.DataFrame, # of the same label
    features="resnet18",     # as in `radiograph_features`
    weights:str="auto",      # as there
    size:int=128,            # side of the square images, pixels
    repeats:int=20,          # halvings of the real rows
    seed:int=0,              # of halvings and untrained weights
) -> pd.DataFrame:           # one row a figure: mean and 5-95% range over halvings, and the same of real against real
    """Likeness of synthetic to real images, beside that of real ones to one another at the same number of images: one
    half of the real patients against as many synthetic images, and against the other half (the floor). ValueError for
    fewer than 8 patients in either table."""
    _refuse(real=real_rows, synthetic=synth_rows)
    real, fake, name = both_features(real_rows, synth_rows, features=features, weights=weights, size=size,
                                     seed=seed)
    proper, rng, found = name == INCEPTION, np.random.default_rng(seed), []
    if not proper: real, fake = standardised(real, fake) # FID and KID are defined on the features as they are
    parts = [_halves(real_rows, rng) for _ in range(repeats)]
    n = min(len(fake), *(len(o) for pair in parts for o in pair)) # one n: the Fréchet distance falls with it
    for one, two in parts:
        one, two = rng.permutation(one)[:n], rng.permutation(two)[:n]
        found.append((_figures(real[one], fake[rng.permutation(len(fake))[:n]]), _figures(real[one], real[two])))
    row = lambda values: (np.mean(values), *np.quantile(values, [.05, .95]))
    heads = "value low high floor floor_low floor_high".split()
    table = [{"figure": o} | dict(zip(heads, row([a[o] for a, _ in found]) + row([b[o] for _, b in found])))
             for o in found[0][0]]
    if proper:
        for o, short in zip(table, ("FID", "KID")): o["figure"] = short
        score = {k: _inception_score(o, weights, size) for k, o in (("value", synth_rows), ("floor", real_rows))}
        table.append(dict(figure="Inception Score") | score)
    return pd.DataFrame(table).assign(n=n, features=name)

def told_apart(
    real_rows:pd.DataFrame,  # real images
    synth_rows:pd.DataFrame, # synthetic ones
    features="resnet18",     # as in `radiograph_features`
    weights:str="auto",      # as there
    size:int=128,            # side of the square images, pixels
    seed:int=0,              # of folds, bootstrap and untrained weights
) -> pd.DataFrame:           # one row, in `quality`'s columns; the interval is a bootstrap over patients, 5-95%
    """AUC of a real-or-synthetic classifier (logistic regression on the features) on held-out rows: cross-validated, no
    patient in two folds; a synthetic image's patient is its source's. 1: told apart at sight; .5, the floor: never."""
    _refuse(real=real_rows, synthetic=synth_rows)
    real, fake, name = both_features(real_rows, synth_rows, features=features, weights=weights, size=size,
                                     seed=seed)
    x, y = np.concatenate([real, fake]), np.repeat([0, 1], [len(real), len(fake)])
    who = pd.factorize(pd.concat([real_rows["patient_id"], synth_rows["patient_id"]]).astype(str))[0]
    prob = np.zeros(len(y))
    for train, test in StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(x, y, who):
        model = make_pipeline(StandardScaler(), PCA(min(50, len(train) - 1, x.shape[1]), random_state=seed),
                              LogisticRegression(C=.1, max_iter=1000, class_weight="balanced"))
        prob[test] = model.fit(x[train], y[train]).decision_function(x[test])
    rng, n = np.random.default_rng(seed), who.max() + 1
    times = np.stack([np.bincount(rng.integers(0, n, n), minlength=n) for _ in range(500)])[:, who]
    aucs = weighted_metrics(y, rankdata(prob)/len(y), times, calibration=False)["rocauc"]
    low, high = np.nanquantile(aucs, [.05, .95]) # nan: only one kind was drawn
    return pd.DataFrame([dict(figure="told apart (AUC)", value=roc_auc_score(y, prob), low=low, high=high, floor=.5,
                              floor_low=np.nan, floor_high=np.nan, n=min(len(real), len(fake)), features=name)])

def _thumbs(rows):
    "Thumbnails of mean 0 and deviation 1, `[n, pixels]`, scaled so that distances are root mean squares."
    x = RadiographCache(rows["file"].tolist(), THUMB).get(rows["file"].tolist()).reshape(len(rows), -1).astype(float)
    x = x - x.mean(1, keepdims=True)
    return x / (x.std(1, keepdims=True) + 1e-6) / np.sqrt(x.shape[1])

def _nearest(train, synth, x, y, own):
    """Of each synthetic image: the nearest training image and the distances to it, to its source and to the nearest of
    anyone else; and the least distance between real patients."""
    apart, who = cdist(y, x), train["patient_id"].astype(str).to_numpy()
    among = np.where(who[:, None] == who, np.inf, cdist(x, x))
    near = apart.argmin(1)
    source = np.array([apart[i, j] if j >= 0 else np.nan for i, j in enumerate(own)])
    other = np.where(who == synth["patient_id"].astype(str).to_numpy()[:, None], np.inf, apart)
    return near, apart.min(1), source, other.min(1), among.min()

def memorisation(
    train_rows:pd.DataFrame, # the training rows, of both classes
    synth_rows:pd.DataFrame, # from `synthesise`
    features="resnet18",     # as in `radiograph_features`
    weights:str="auto",      # as there
    size:int=128,            # side of the square images, pixels
    seed:int=0,              # of untrained weights
) -> pd.DataFrame: # one row a synthetic image
    """The nearest training image of each synthetic one, by features and by pixels (standardised thumbnails), with the
    distance to its own source and to the nearest image of anyone else. `real_*` is the least distance between real
    images of two patients; `closer_*` says that someone else's image is nearer than that: learnt by heart;
    `copied_*` that its own source is."""
    _refuse(training=train_rows, synthetic=synth_rows)
    train, synth = (o.reset_index(drop=True) for o in (train_rows, synth_rows))
    at = dict(zip(train["image"], train.index))
    own = [at.get(o, -1) for o in synth.get("source_image", pd.Series(-1, synth.index))]
    x, y, name = both_features(train, synth, features=features, weights=weights, size=size, seed=seed)
    spaces = dict(features=standardised(x, y), pixels=(_thumbs(train), _thumbs(synth)))
    table = synth[["image", "file"]].copy()
    for space, (a, b) in spaces.items():
        near, least, source, other, real = _nearest(train, synth, a, b, own)
        for o in "image", "file": table[f"nearest_{o}_{space}"] = train[o][near].array
        table[f"distance_{space}"], table[f"source_{space}"], table[f"other_{space}"] = least, source, other
        table[f"real_{space}"], table[f"closer_{space}"] = real, other < real
        table[f"copied_{space}"] = source < real
    return table.assign(features=name)

def by_heart(
    near:pd.DataFrame, # of `memorisation`
) -> pd.DataFrame:     # four rows, in `quality`'s columns; of its source, blank where no source is known
    "How many synthetic images are nearer to a training image than two real patients ever are."
    known = near["source_pixels"].notna()
    said = lambda flag, o: near.loc[known | (flag == "closer"), f"{flag}_{o}"].mean()
    return pd.DataFrame([dict(figure=f"nearer to {who} than two real patients ever are, by {o}", floor=0., n=len(near),
                              value=said(flag, o), features=near["features"].iloc[0])
                         for flag, who in (("closer", "a stranger"), ("copied", "its source"))
                         for o in ("features", "pixels")])
