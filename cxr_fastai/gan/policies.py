"""The metadata of synthetic rows, of which the paper says nothing: policies that give it, and a probe that says how
well it alone tells synthetic rows from real ones."""
import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from ..cohort.rows import is_synthetic
from ..core.files import say
from ..data.metadata import MetadataTransform

__all__ = ["metadata_probe"]

TOLD = .55 # the probe's AUC above which metadata tells synthetic rows from real ones

def draw_evenly(m, n, rng):
    "`n` numbers below `m`, each as often as any other; the remainder is drawn."
    return np.concatenate([rng.permutation(m) for _ in range(-(-n // m))])[:n]

def _costs(donor, source, cat_names, cont_names, within):
    """Cost `[n,m]` of each pair, and whether it is a match. Fewest different words come first, then fewest numbers
    further apart than `within`, then the least sum of differences. Missing is like missing only."""
    n = len(donor)
    words, far, apart = (np.zeros((n, len(source))) for _ in range(3))
    for o in cat_names:
        code = pd.factorize(pd.concat([donor[o], source[o]]))[0] # missing: -1
        words += code[:n, None] != code[n:]
    for o in cont_names:
        a, b = (pd.to_numeric(rows[o]).to_numpy(float, na_value=np.nan) for rows in (donor, source))
        gap = np.where(np.isnan(a)[:, None] & np.isnan(b), 0, abs(a[:, None] - b)) # nan where one is missing
        far += ~(gap <= within)
        apart += np.nan_to_num(gap)
    big = n*(apart.max() + 1) # more than all differences together
    return apart + big*(far + (n*len(cont_names) + 1)*words), words + far == 0

def match_sources(donor, sources, cat_names, cont_names, within, rng):
    "A source for each donor, none more often than is needed; those of one cost are drawn."
    times = -(-len(donor) // len(sources))
    sources = sources.iloc[np.tile(rng.permutation(len(sources)), times)]
    cost, match = _costs(donor, sources, cat_names, cont_names, within)
    i, j = linear_sum_assignment(cost)
    if lost := (~match[i, j]).sum():
        wanted = [f"the same {o}" for o in cat_names] + [f"{o} within {within:g}" for o in cont_names]
        say(f"{lost:,} of {len(donor):,} rows have no unused source that matches ({', '.join(wanted)}): "
            "the nearest was taken.")
    return sources.iloc[j]

def metadata_probe(
    rows:pd.DataFrame,         # with the real training rows
    synth:pd.DataFrame,        # synthetic rows of one label
    cat_names=("sex", "view"), # metadata columns of words
    cont_names=("age",),       # metadata columns of numbers
) -> float: # nan where the rows are image-only, or too few to tell
    """Cross-validated AUC of synthetic rows against the real training rows of their label, by a logistic regression on
    metadata alone, its squares and its products. All that one patient's metadata went to is in one fold: a donor's
    copies are never learned from where they are tested. Below .5 is chance, and not turned over to look like a leak."""
    synth = synth[synth["metadata_policy"] != "image-only"]
    real = rows[(rows["split"] == "train") & rows["label"].isin(synth["label"].unique()) & ~is_synthetic(rows)]
    names = [*cat_names, *cont_names]
    if not names or min(len(real), len(synth)) < 10: return np.nan
    owner = dict(zip(rows["image"], rows["patient_id"].astype(str)))
    who = [*real["image"].map(owner), *synth["donor_image"].fillna(synth["source_image"]).map(owner)]
    table = pd.concat([o[names] for o in (real, synth)], ignore_index=True)
    x = np.asarray(MetadataTransform(cat_names, cont_names).fit(table)(table))
    y, aucs = np.repeat([0, 1], [len(real), len(synth)]), []
    model = make_pipeline(PolynomialFeatures(2), StandardScaler(), LogisticRegression(C=.1, max_iter=1000))
    for train, test in StratifiedGroupKFold(5, shuffle=True, random_state=0).split(x, y, who):
        if len(set(y[train])) < 2 or len(set(y[test])) < 2: continue
        aucs.append(roc_auc_score(y[test], model.fit(x[train], y[train]).decision_function(x[test])))
    return float(np.mean(aucs)) if aucs else np.nan

def verdict(metadata, auc, n, real):
    "The probe in a sentence; by chance alone its AUC would have this standard deviation, or a smaller one."
    if metadata == "image-only": return "not used, these rows train the image branch alone."
    if np.isnan(auc): return "too few rows or columns to probe."
    text = f"it tells synthetic from real rows of this label with an AUC of {auc:.3f}"
    if auc > TOLD: text += " (WARNING: a model can read from the metadata which rows are synthetic, and so the label)"
    return f"{text}; chance is .5 +- {((n + real + 1)/(12*n*real))**.5:.2f}."
