"""A bundle on rows from elsewhere, at the threshold that it came with: what carries over, and what is wrong."""
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ..cohort.folder import load_cohort, rows_of
from ..cohort.groups import with_groups
from ..cohort.leaks import LeakError
from ..cohort.words import fold_ids
from ..core.csvs import write_csv
from ..core.files import atomic, few, say
from ..data.given import as_rows
from ..models.learner import RadiographLearner
from ..report.elsewhere import outside_page
from ..settings import takes
from ..stats.outside import findings, histogram, Inside, outside_table, site_table
from ..stats.scoring import called, title_of
from .bundle import load_bundle
from .lookalike import atypical, grays_of, RARE
from .overall import labelled_as, training_share

__all__ = ["Validation", "films_unlike", "inside_of", "missing_note", "unseen_rows", "validate", "validate_bundle"]

FILMS = 500 # that are in memory at once
SHOWN = "rocauc", "recall", "recall_refitted", "specificity", "calibration_slope", "calibration_intercept"

def inside_of(
    learn:RadiographLearner, # of `load_bundle`
) -> Inside:
    "What a bundle's card says of its training rows. ValueError for a learner that is none of a bundle's."
    if not (card := learn.card):
        raise ValueError("validate takes the learner of a bundle: save_bundle, then load_bundle.")
    chosen, typical = card.get("chosen", {}), card["typical"]
    gray = (*typical["gray"], typical["films"]) if "gray" in typical else None
    wanted = chosen.get("wanted", chosen["specificity"] if "threshold" in chosen else None)
    patients = card["training"].get("patients", 0)
    return Inside(training_share(card["training"]), patients, learn.threshold, wanted, gray, RARE)

def unseen_rows(
    learn:RadiographLearner, # of `load_bundle`
    rows:pd.DataFrame,       # with `label`
    leave_out:bool=False,    # rows of patients and films that it was trained on; else they are refused
) -> pd.DataFrame:           # those with a label, in the model's words
    "Rows that can be scored. LeakError for rows that were trained on; ValueError where none is left."
    rows = as_rows(rows).drop(columns="split", errors="ignore")
    if "label" not in rows: raise ValueError("These rows have no labels, without which nothing can be validated.")
    rows = labelled_as(rows[rows["label"].notna()].reset_index(drop=True), learn.dls.vocab)
    if learn.dls.radiograph and len(rows): learn.dls.open(rows)
    hit = learn.seen.hits(rows, learn.dls.hashes(rows))
    if not learn.seen.known: say("Which patients this model was fitted on isn't known, or not of all of them; if any "
                                 "is among these, the figures flatter.")
    if hit.any() and not leave_out:
        raise LeakError(f"The model was trained on {hit.sum():,} of these {len(rows):,} films, or on their patients: "
                        f"{few(rows['image'][hit].astype(str))}; --leave-out leaves them out.")
    if hit.any(): say(f"{hit.sum():,} of {len(rows):,} films are left out: they or their patients were trained on.")
    if hit.all(): raise ValueError("No row with a label is left to validate on.")
    return rows[~hit].reset_index(drop=True)

def films_unlike(
    learn:RadiographLearner, # of `load_bundle`
    rows:pd.DataFrame,       # with `file`
) -> tuple:                  # mean gray of each film; bool, which are unlike the training ones; None where not known
    "How films look beside those that a model was trained on."
    grays, why = _films(learn, rows)
    return grays, np.array([bool(o) for o in why]) if why and learn.card["typical"] else None

def _films(learn, rows):
    "The mean gray of each film, and why it is unlike the training ones ('' for one that isn't); None without films."
    if not (tfm := learn.dls.radiograph): return None, None
    grays, why = [], []
    for i in range(0, len(rows), FILMS):
        pixels = tfm(rows.iloc[i:i + FILMS])[:, 0].numpy()
        grays.append(grays_of(pixels))
        why += [atypical(o, learn.card["typical"]) for o in pixels]
    return np.concatenate(grays), why

def missing_note(
    learn:RadiographLearner, # of `load_bundle`
    rows:pd.DataFrame,       # to be predicted
) -> list:                   # a sentence; none where nothing lacks
    "Which metadata a model reads, and most of the rows don't have."
    names = learn.dls.metadata.names if learn.dls.metadata else []
    lost = [o for o in names if o not in rows or rows[o].isna().mean() > .5]
    if not lost: return []
    return [f"Missing metadata: the model reads {few(names, 9)}, and most of these rows have no {few(lost, 9)}."]

@dataclass(repr=False)
class Validation:
    "What `validate` found; print it to read it in sentences."
    findings:list             # sentences, each of which names what is wrong; or one, that nothing is seen
    figures:pd.DataFrame      # a line a figure, `figure value low high inside`
    predictions:pd.DataFrame  # a line a film: `image patient_id label probability decision flag`, and `site`
    histogram:pd.DataFrame    # `site label low high films`
    sites:pd.DataFrame=None   # of `site_table`; None without sites
    classes:tuple=("0", "1")  # (negative, positive)

    def __repr__(self):
        table = self.figures.set_index("figure")
        said = [f"{title_of(k)} {table['value'][k]:.3f} [{table['low'][k]:.3f}, {table['high'][k]:.3f}]"
                for k in SHOWN if k in table.index and not np.isnan(table["value"][k])]
        n, ill, at = (table["value"][o] for o in ("films", "positives", "threshold"))
        first = f"{n:,.0f} films, {ill:,.0f} positive; at the carried threshold of {at:.3g}: {', '.join(said)}."
        return "\n".join([first, *self.findings])

    def save(self,
        out:str|Path, # folder
    ) -> Path:        # its page, validation.html
        "Write `predictions figures histogram sites` as csv, `findings.txt` and a page."
        out = Path(out)
        tables = {o: getattr(self, o) for o in ("predictions", "figures", "histogram", "sites")}
        for name, table in tables.items():
            if table is not None: write_csv(table, out/f"{name}.csv", float_format="%.9g")
            else: (out/f"{name}.csv").unlink(missing_ok=True) # of another validation
        with atomic(out/"findings.txt") as tmp: tmp.write_text("\n".join(self.findings) + "\n", encoding="utf-8")
        return outside_page(self, out)

def _inside(card, figures, threshold):
    "What the bundle's own test rows gave, where that is of the same threshold and the same probabilities."
    test, own = card["summary"].get("test", {}), []
    for k in figures["figure"]:
        same = k in ("rocauc", "pr_auc") or threshold == .5 and "temperature" not in card
        own.append(test.get(k) if same else np.nan)
    return pd.to_numeric(pd.Series(own, figures.index, object))

def validate(
    learn:RadiographLearner, # of `load_bundle`
    rows:pd.DataFrame,       # from elsewhere, with labels
    site:str=None,           # a column of them, whose values are set side by side
    leave_out:bool=False,    # leave out the patients and films that it was trained on, aloud; else they are refused
    n:int=1000,              # resamples of patients
    seed:int=0,              # of them
) -> Validation:
    """What a model is worth on rows from elsewhere, at the threshold that it came with: figures with 95% intervals of
    these patients, as `scores` has them; calibration in the large (`calibration_intercept`) and slope; recall at this
    threshold and at one that is fitted anew; films unlike the training ones; sites; and what is wrong. LeakError for
    rows that it was trained on; ValueError without labels, or for a column that isn't there."""
    inside, rows = inside_of(learn), unseen_rows(learn, rows, leave_out)
    with learn.no_bar(): prob, label = learn.get_preds(dl=learn.dls.test_dl(rows, with_labels=True))
    prob, label = prob[:, 1].numpy().astype(float), label.numpy().astype(int)
    who = pd.factorize(fold_ids(rows["patient_id"]))[0] if "patient_id" in rows else np.arange(len(rows))
    grays, why = _films(learn, rows)
    figures = outside_table(label, prob, who, inside, n, seed)
    table = rows[[o for o in ("image", "patient_id") if o in rows]].assign(
        label=[learn.dls.vocab[o] for o in label], probability=prob,
        decision=[learn.dls.vocab[int(o)] for o in called(prob, inside.threshold)], flag=why if why else "")
    known = bool(why) and bool(learn.card["typical"])
    unlike = np.array([bool(o) for o in why]) if known else None
    if known: figures.loc[len(figures)] = dict(figure="share_unlike", value=unlike.mean())
    sites = None
    if site is not None:
        words = with_groups(rows, site, "--site")[site].map(str, na_action="ignore")
        table["site"] = words.fillna("missing").to_numpy()
        sites = site_table(label, prob, who, inside.threshold, table["site"], seed=seed)
    said = missing_note(learn, rows) + findings(label, prob, who, inside, grays, unlike, figures)
    return Validation(
        findings=said, predictions=table, sites=sites,
        figures=figures.assign(inside=_inside(learn.card, figures, inside.threshold)),
        histogram=histogram(label, prob, table.get("site")), classes=tuple(learn.dls.vocab))

@takes(load_cohort, but=["data", "normals", "followups", "split_column", "split_seed"])
def validate_bundle(
    bundle:str,               # of `save_bundle`: a cell's `bundle` folder, or a .safetensors file
    data:str=None,            # rows from elsewhere, with labels: what a study takes; every film of it
    site:str=None,            # a column of the table, whose values are set side by side
    leave_out:bool=False,     # leave out the patients and films that it was trained on; else they are refused
    out:str="runs/validated", # folder for tables and the page
    device:str=None,          # 'cpu' or 'cuda'; fastai's default where not given
    seed:int=0,               # of the resamples behind intervals
    **flags,
) -> Validation:
    "`validate` from files, said and written."
    if data is None: raise ValueError("--data names the rows from elsewhere, and must be given.")
    learn = load_bundle(bundle, device)
    found = validate(learn, with_groups(rows_of(data, **flags)[0], site, "--site"), site, leave_out, seed=seed)
    page = found.save(out)
    say(f"\n{found!r}\n\nThe page is {page}")
    return found
