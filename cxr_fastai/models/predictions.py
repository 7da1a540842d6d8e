"""What a learner says of rows, as the table that statistics and figures read."""
import pandas as pd

from ..cohort.rows import is_synthetic
from ..data.given import as_rows
from .learner import RadiographLearner

__all__ = ["predict_rows", "predictions_of"]

def predict_rows(
    learn:RadiographLearner, # a classifier
    rows:pd.DataFrame,       # with `label`; those of valid and test are taken
) -> pd.DataFrame:           # `side image patient_id label probability synthetic`, label 0 or 1
    "What a model says of its valid and test rows, real ones first."
    rows = rows[rows["split"] != "train"]
    rows = rows.assign(synthetic=is_synthetic(rows))
    rows = rows.sort_values(["split", "synthetic"], ascending=[False, True], kind="stable")
    with learn.no_bar(): prob, label = learn.get_preds(dl=learn.dls.test_dl(rows, with_labels=True))
    said = dict(label=label.numpy(), probability=prob[:, 1].numpy())
    res = rows[["split", "image", "patient_id"]].rename(columns=dict(split="side"))
    return res.assign(**said, synthetic=rows["synthetic"])

REAL = dict(image="real", metadata="meta", fusion="real-meta") # arms by kind of model
SYNTHETIC = REAL | dict(image="real-synth", fusion="real-synth-meta") # and where some training rows are synthetic

def _arm(learn):
    "Its cell's arm where it is a study's; else what its inputs, fusion and training rows make it."
    if arm := learn.card.get("summary", {}).get("cell", {}).get("arm"): return arm
    arms = SYNTHETIC if is_synthetic(learn.dls.train_ds.items).any() else REAL
    base, fusion = arms[learn.settings["kind"]], learn.settings.get("fusion", "concat")
    return base if fusion == "concat" else f"{base}+{fusion}"

def predictions_of(
    learn:RadiographLearner, # trained, or of `load_bundle`
    rows:pd.DataFrame,       # with labels
) -> pd.DataFrame: # `image patient_id label probability side synthetic backbone arm seed threshold`, label 0 or 1
    "What a learner says of `rows`, as the figures of a study take it. LeakError for synthetic rows, unless 'paper'."
    with learn.no_bar(): prob, label = learn.get_preds(dl=learn.dls.test_dl(rows, with_labels=True))
    res = as_rows(rows).reset_index(drop=True)
    said = dict(label=label.numpy(), probability=prob[:, 1].numpy(), side="test", synthetic=False, seed=learn.seed)
    named = dict(backbone=learn.settings.get("arch", "MLP"), arm=_arm(learn), threshold=learn.threshold)
    own = {o: res[o] if o in res else res.index for o in ("image", "patient_id")} # a row without one is its own
    return pd.DataFrame(own).assign(**said, **named)
