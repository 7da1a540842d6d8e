"""The metadata of synthetic rows, of which the paper says nothing: policies that give it, and a probe that says how
well it alone tells synthetic rows from real ones."""
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from ..arms import POLICIES
from ..cohort.rows import columns_of, is_image_only, is_synthetic
from ..settings import CAT_NAMES, CONT_NAMES
from ..core.files import say
from ..data.metadata import MetadataTransform

__all__ = ["Columns", "metadata_probe"]

class Columns(NamedTuple):
    "Metadata columns of rows, and how near two of their numbers are that match."
    cat_names:tuple=CAT_NAMES   # of words
    cont_names:tuple=CONT_NAMES # of numbers
    within:float=5.             # largest difference of a number in a matched pair; for age, years

    @property
    def names(self): return [*self.cat_names, *self.cont_names]

TOLD = .55 # the probe's AUC above which metadata tells synthetic rows from real ones

def _costs(donor, source, columns):
    """Cost `[n,m]` of each pair, and whether it is a match. Fewest different words come first, then fewest numbers
    further apart than `columns.within`, then the least sum of differences. Missing is like missing only."""
    n = len(donor)
    words, far, apart = (np.zeros((n, len(source))) for _ in range(3))
    for name in columns.cat_names:
        code = pd.factorize(pd.concat([donor[name], source[name]]))[0] # missing: -1
        words += code[:n, None] != code[n:]
    for name in columns.cont_names:
        of_donor, of_source = (pd.to_numeric(rows[name]).to_numpy(float, na_value=np.nan) for rows in (donor, source))
        both_missing = np.isnan(of_donor)[:, None] & np.isnan(of_source)
        gap = np.where(both_missing, 0, abs(of_donor[:, None] - of_source)) # nan where one is missing
        far += ~(gap <= columns.within)
        apart += np.nan_to_num(gap)
    big = n*(apart.max() + 1) # more than all differences together
    return apart + big*(far + (n*len(columns.cont_names) + 1)*words), words + far == 0

def match_sources(donor, sources, columns, rng):
    "A source for each donor, none more often than is needed; those of one cost are drawn."
    times = -(-len(donor) // len(sources))
    sources = sources.iloc[np.tile(rng.permutation(len(sources)), times)]
    cost, match = _costs(donor, sources, columns)
    i, j = linear_sum_assignment(cost)
    if lost := (~match[i, j]).sum():
        wanted = [f"the same {o}" for o in columns.cat_names]
        wanted += [f"{o} within {columns.within:g}" for o in columns.cont_names]
        say(f"{lost:,} of {len(donor):,} rows have no unused source that matches ({', '.join(wanted)}): "
            "the nearest was taken.")
    return sources.iloc[j]

def metadata_probe(
    rows:pd.DataFrame,         # with the real training rows
    synth:pd.DataFrame,        # synthetic rows of one label
    cat_names=None,            # metadata columns of words; those that `rows` remember, where not given
    cont_names=None,           # metadata columns of numbers; likewise
) -> float: # nan where the rows are image-only, or too few to tell
    """Cross-validated AUC of synthetic rows against the real training rows of their label, by a logistic regression on
    metadata alone, its squares and its products. All that one patient's metadata went to is in one fold: a donor's
    copies are never learned from where they are tested. Below .5 is chance, and not turned over to look like a leak."""
    synth = synth[~is_image_only(synth)]
    real = rows[(rows["split"] == "train") & rows["label"].isin(synth["label"].unique()) & ~is_synthetic(rows)]
    columns = columns_of(rows, cat_names, cont_names)
    names = sum(columns.values(), [])
    if not names or min(len(real), len(synth)) < 10: return np.nan
    owner = dict(zip(rows["image"], rows["patient_id"].astype(str)))
    who = [*real["image"].map(owner), *synth["donor_image"].fillna(synth["source_image"]).map(owner)]
    table = pd.concat([o[names] for o in (real, synth)], ignore_index=True)
    x = np.asarray(MetadataTransform(**columns).fit(table)(table))
    y, aucs = np.repeat([0, 1], [len(real), len(synth)]), []
    model = make_pipeline(PolynomialFeatures(2), StandardScaler(), LogisticRegression(C=.1, max_iter=1000))
    for train, test in StratifiedGroupKFold(5, shuffle=True, random_state=0).split(x, y, who):
        if len(set(y[train])) < 2 or len(set(y[test])) < 2: continue
        aucs.append(roc_auc_score(y[test], model.fit(x[train], y[train]).decision_function(x[test])))
    return float(np.mean(aucs)) if aucs else np.nan

def verdict(metadata, auc, n, real):
    "The probe in a sentence; by chance alone its AUC would have this standard deviation, or a smaller one."
    if POLICIES[metadata].image_only: return "not used, these rows train the image branch alone."
    if np.isnan(auc): return "too few rows or columns to probe."
    text = f"it tells synthetic from real rows of this label with an AUC of {auc:.3f}"
    if auc > TOLD: text += " (WARNING: a model can read from the metadata which rows are synthetic, and so the label)"
    return f"{text}; chance is .5 +- {((n + real + 1)/(12*n*real))**.5:.2f}."
