"""Why a classifier said what it said: Grad-CAM over the radiograph beside the contributions of the metadata.

All is in log-odds of the positive class, which contributions add up in. Heat outside the lungs is shown: it is a
finding."""
from dataclasses import dataclass
from pathlib import Path

import torch
import numpy as np
import pandas as pd
from scipy.stats import rankdata

from ..cohort.folder import load_cohort, one_source
from ..cohort.rows import read_rows
from ..core.csvs import read_csv, write_csv
from ..core.files import atomic, few
from ..data.given import as_rows
from ..data.metadata import TensorMetadata
from ..models.learner import RadiographLearner
from ..settings import takes
from ..stats.draws import resample
from ..stats.intervals import percentiles
from ..stats.scoring import called, weighted_metrics
from .ask import ask, encoded, shapley
from .bundle import load_bundle
from .plots import border_heat, border_ring, plot_explained, plot_patient

__all__ = ["Explanation", "explain", "explain_bundle"]

BACKGROUND = 32  # rows that stand for 'another patient' in Shapley values
REPEATS = 8      # shufflings behind a permutation importance
RESAMPLES = 1000 # of patients, behind an interval

def _labels(rows, vocab):
    "0/1 `[n]`, None for rows without labels."
    if "label" not in rows or rows["label"].isna().all(): return
    label = rows["label"].astype(str)
    if len(other := set(label) - set(vocab)):
        raise ValueError(f"The label {few(sorted(other))} is none of this model's classes, {few(vocab)}.")
    return label.eq(vocab[1]).to_numpy(int)

def _mean(weights, x):
    "Of the values that aren't nan, `[b]`."
    known = ~np.isnan(x)
    with np.errstate(invalid="ignore"): return weights[:, known] @ x[known] / weights[:, known].sum(1)

def _lines(table, said, label, weights):
    "Measure, input and value `[b]` by lines of weights."
    def auc(odds): return weighted_metrics(label, rankdata(odds)/len(odds), weights, calibration=False)["rocauc"]
    own, shuffled = table["log_odds"].to_numpy(), {}
    whole = auc(own) if label is not None else None # by order alone
    if whole is not None: yield "rocauc", "model", whole
    for (name, how, _), odds in said.items():
        if how == "shuffled": shuffled.setdefault(name, []).append(odds)
    for name, each in shuffled.items():
        if whole is not None: yield "auc_drop", name, np.mean([whole - auc(odds) for odds in each], 0)
        yield "log_odds_change", name, _mean(weights, np.abs(own - np.array(each)).mean(0))
    if "from_image" in table:
        image, metadata = (_mean(weights, table[o].abs().to_numpy()) for o in ("from_image", "from_metadata"))
        with np.errstate(invalid="ignore"): yield "decision_share", "image", image / (image + metadata)
    if "border_heat" in table: yield "border_heat", "image", _mean(weights, table["border_heat"].to_numpy())

def _importance(table, said, label, seed):
    "The lines with their intervals."
    who, n = table.get("patient_id", pd.Series(table.index)), len(table)
    draws = resample(who, np.zeros(n) if label is None else label, RESAMPLES, seed=seed)
    lines = _lines(table, said, label, np.concatenate([np.ones((1, n), np.float32), draws]))
    return pd.DataFrame([(measure, name, drawn[0], *percentiles(drawn[1:])) for measure, name, drawn in lines],
                        columns=["measure", "input", "value", "low", "high"])

@dataclass(repr=False)
class Explanation:
    "What `explain` found; print it to read it in a sentence."
    table:pd.DataFrame      # a line a row: `probability log_odds`, what the inputs added to it, `border_heat`
    importance:pd.DataFrame # `measure input value low high`, over all rows
    heat:torch.Tensor       # `[n, 1, h, w]`, at the feature map's size; None without images
    film:torch.Tensor       # the mean film `[size, size]`, 0..1; None without images
    files:list              # of the radiographs; of None without images
    words:list              # each row's metadata, column -> value or None
    classes:tuple           # (negative, positive)
    threshold:float=.5      # above it is called positive
    beside:dict=None        # what else is known of shortcuts: in words -> AUC, low, high

    def of(self,
        measure:str,      # as in `importance`
        name:str="image", # 'image', 'metadata' or one of its columns
    ) -> tuple:           # value, low, high; None where it wasn't measured
        "One line of `importance`."
        found = self.importance[(self.importance["measure"] == measure) & (self.importance["input"] == name)]
        return tuple(found[["value", "low", "high"]].iloc[0]) if len(found) else None

    def __repr__(self):
        share, border, area = self.of("decision_share"), self.of("border_heat"), self.of("rocauc", "model")
        said = [f"{len(self.table):,} rows explained"]
        if area: said.append("AUC on them {:.2f} ({:.2f} to {:.2f})".format(*area))
        if share: said.append("{:.0%} ({:.0%} to {:.0%}) of the decision is the image's".format(*share))
        if border: said.append("{:.0%} ({:.0%} to {:.0%}) of the heat is in the outer ring, which is "
                               .format(*border) + f"{border_ring(len(self.film)).mean():.0%} of the film")
        return f"{'; '.join(said)}. {' '.join(self.limits)}"

    @property
    def limits(self):
        "Sentences on what this can't show, and what is known of shortcuts beside it."
        area, said = self.of("rocauc", "model"), []
        if area and not area[1] > .5:
            said.append("The model ranks these rows no better than chance, for all that is known: there is nothing of "
                        "the illness to explain.")
        said.append("What a model uses isn't shown to be the illness: a shortcut may lie within the lungs, and little "
                    "heat outside says nothing against one.")
        return said + ["{}: AUC {:.2f} ({:.2f} to {:.2f}).".format(k, *v) for k, v in (self.beside or {}).items()]

    def show(self,
        i:int=None, # a row's number; None: the summary of all
    ):              # a matplotlib figure
        "Film, heat over it and contributions of one patient; or mean heat, importances and the image's share."
        return plot_explained(self) if i is None else plot_patient(self, i)

    def save(self,
        out:str|Path,       # folder
        max_figures:int=12, # of patients, spread evenly over the probabilities
    ) -> Path:              # the folder
        """Write `explanations.csv importance.csv limits.txt summary.png patients/*.png`, each atomically; figures of
        before go."""
        out, n = Path(out), len(self.table)
        for name, table in (("explanations", self.table), ("importance", self.importance)):
            write_csv(table, out/f"{name}.csv", float_format="%.6g")
        with atomic(out/"limits.txt") as tmp: tmp.write_text(f"{self!r}\n", encoding="utf-8")
        chosen = np.argsort(self.table["probability"].to_numpy(), kind="stable")
        chosen = chosen[np.linspace(0, n - 1, min(n, max_figures)).round().astype(int)].tolist()
        figures = {out/"summary.png": None}
        figures |= {out/"patients"/f"{i:05}-{Path(self.files[i] or 'row').stem}.png": i for i in chosen}
        for old in set((out/"patients").glob("?????-*.png")) - figures.keys(): old.unlink()
        for file, i in figures.items():
            with atomic(file) as tmp: self.show(i).savefig(tmp, dpi=110)
        return out

def explain(
    learn:RadiographLearner, # trained, or of `load_bundle`
    rows:pd.DataFrame,       # patients, best the whole test set: they are compared to one another
    out:str|Path=None,       # folder for tables and figures; None: write nothing
    max_figures:int=12,      # of patients, spread evenly over the probabilities
    seed:int=0,              # of shufflings, of the rows to compare to, and of the bootstrap
    beside:dict=None,        # what else is known of shortcuts, as the AUC of metadata alone: words -> (AUC, low, high)
) -> Explanation:
    """Explain what a classifier says of `rows`, in log-odds of the positive class.

    Heat is Grad-CAM (Selvaraju 2017, arXiv:1610.02391) at the feature map, with the patient's own metadata: where
    something speaks for the positive class and, as its ReLU is left out, where against it. `border_heat` is the share
    of the heat, whatever its sign, in the outer tenth of the film, where little lung is; that it is small says neither
    that a model sees anything nor that it uses no shortcut: `rocauc` stands beside it where there are labels.
    `knowing_*` is what a value adds beyond its being missing. `auc_drop` and `log_odds_change` are what shuffling an
    input among the rows takes off the AUC (Breiman 2001; needs labels), and moves on average: an input may be used and
    of no use.

    `decision_share` is the image's part of the decision: image and metadata are two players, absent when another row's
    stand in (up to 32 rows in turn); their exact Shapley values `from_image` and `from_metadata` sum to a row's
    log-odds less the mean of those others, and the share is mean |from_image| over the sum of both means (as MM-SHAP,
    Parcalabescu & Frank 2023, arXiv:2212.08158). Intervals (95%) are a bootstrap of patients, for this model and these
    draws. ValueError without rows or for labels that aren't the model's classes; LeakError for
    labelled rows that the model was fitted on and aren't said to be of train; ImportError without captum."""
    rows = as_rows(rows).reset_index(drop=True)
    if not (n := len(rows)): raise ValueError("There are no rows to explain.")
    label, rng = _labels(rows, learn.dls.vocab), np.random.default_rng(seed)
    if label is not None: learn.check_unseen(rows) # the AUC is a score
    tfm, coded = encoded(learn, rows)
    shuffles = [torch.from_numpy(rng.permutation(n)) for _ in range(REPEATS)]
    others = rng.choice(n, min(n, BACKGROUND), replace=False).tolist()
    prob, said, heat, film = ask(learn, rows, coded, tfm, shuffles, others)
    own = said.pop(("own", "as is", 0))
    table = rows[[o for o in ("image", "patient_id", "label") if o in rows]]
    hit = called(prob, learn.threshold).astype(int)
    table = table.assign(probability=prob, log_odds=own, decision=[learn.dls.vocab[o] for o in hit])
    if heat is not None and tfm: table = table.assign(**shapley(own, said, others))
    for name, how, k in said:
        if how == "missing": table[f"knowing_{name}"] = own - said[name, how, k]
    if heat is not None: table["border_heat"] = border_heat(heat, len(film))
    res = Explanation(
        table=table, importance=_importance(table, said, label, seed), heat=heat, film=film,
        files=rows["file"].tolist() if heat is not None else [None]*n,
        words=[tfm.decode(TensorMetadata(o)) if tfm else {} for o in coded],
        classes=tuple(learn.dls.vocab), threshold=learn.threshold, beside=beside)
    if out is not None: res.save(out, max_figures)
    return res

@takes(load_cohort, but=["data"])
def explain_bundle(
    bundle:str,               # of `save_bundle`: a cell's `bundle` folder, or a .safetensors file
    csv:str=None,             # of `save_rows`, as a study's rows.csv; of its rows the test split, where it is split
    out:str="runs/explained", # folder for tables and figures
    max_figures:int=12,       # of patients, spread evenly over the probabilities
    seed:int=0,               # of shufflings, of the rows to compare to, and of the bootstrap
    *,
    data:str=None,            # instead of a csv of `save_rows`, what a study takes; its cohort's test split
    **flags,
) -> Explanation:
    "`explain` from files. ValueError for another csv; BundleError for another bundle."
    one_source(csv, data, flags, "Explained are rows of save_rows, CSV")
    learn, rows = load_bundle(bundle), read_rows(csv) if data is None else load_cohort(data, **flags)
    if "split" in rows: rows = rows[rows["split"] == "test"]
    beside = _shortcuts(Path(csv).parent) if data is None else {}
    return explain(learn, rows, out, max_figures=max_figures, seed=seed, beside=beside)

def _shortcuts(folder):
    "How far metadata alone goes, where the rows are a study's that has such an arm."
    if not (folder/"scores.csv").exists(): return {}
    scores = read_csv(folder/"scores.csv")
    own = scores[(scores["arm"] == "meta") & (scores["metric"] == "rocauc")].head(1)
    if own.empty: return {}
    o = next(own.itertuples())
    return {"Metadata alone, the study's arm Meta": (o.mean, o.low, o.high)}
