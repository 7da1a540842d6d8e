"""A study's folder as one html page that needs no network, and its figures one by one as png and svg.
Reads files, trains nothing."""
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import pandas as pd

from ..arms import arm_title, parse_arm
from ..cohort.phantom import is_drawn
from ..cohort.rows import read_rows
from ..cohort.synthetic import read_manifest
from ..core.csvs import read_csv
from ..core.files import atomic, few, read_json
from ..stats.compare import verdict
from ..stats.ledger import looks, PRIMARY, read_plan
from ..stats.prevalence import sampling_note
from .checklist import characteristics, checklist
from .figures import (doses_of, plot_calibration, plot_confusion, plot_curves, plot_decision, plot_dose, plot_groups,
    plot_pr, plot_roc)
from .films import plot_memorised, plot_synthetic
from .html import Page
from .notes import drawn_note, leaky_note, shortcut_note, split_note

__all__ = ["report"]

TABLES = "flow", "cells", "predictions", "table1", "metrics", "comparisons", "subgroups", "interactions"
OWN, BOTH = "[95% interval of these models: the luck of the test patients]", "procedure: the luck of training, too"
DEFINED = "a mean is over the seeds where a figure is defined"
WORDS = dict.fromkeys(("image", "patient_id", "backbone", "arm", "error", "gan", "folder", "group"), str)
def _read(folder):
    "A study's files by name. FileNotFoundError for a folder that isn't a study's."
    if lost := [o for o in ("settings.json", "rows.csv", *(f"{o}.csv" for o in TABLES)) if not (folder/o).exists()]:
        raise FileNotFoundError(f"{folder} holds no {few(lost)}: report takes the folder that run_study gives.")
    about = dict(settings=read_json(folder/"settings.json"), rows=read_rows(folder/"rows.csv"))
    return SimpleNamespace(out=folder.parent, **about, **{o: read_csv(folder/f"{o}.csv", WORDS) for o in TABLES})

def _what(study):
    "What was run, from the settings."
    s, done = study.settings, study.cells["error"].isna().sum()
    synth = any(parse_arm(o).synth for o in s["arms"])
    films = f"Films of {s['size']} x {s['size']} pixels, " * any(parse_arm(o).use != "metadata" for o in s["arms"])
    how = split_note(s) or "How rows came to their sides wasn't stored"
    clean = ", the CycleGAN saw its training rows only" * synth + ", and every arm is scored on the same real test rows"
    return (f"{s['positive']} against {s['negative']} in {s['data'] or 'a table'}. "
            f"Backbones: {_listed(s['backbones'])}; arms: {_listed(map(arm_title, s['arms']))}; seeds: "
            f"{_listed(s['seeds'])}. {done} of {len(study.cells)} cells are finished. {films}{s['epochs']} epoch"
            f"{'s' * (s['epochs'] != 1)}, batches of {s['bs']}, base rate {s['lr']:g}; the {s['epoch_rule']} epoch is "
            f"scored, at a threshold of .5 where nothing else is said. {how}{clean * (s['protocol'] == 'clean')}.")

def _not_compared(study, pair):
    "Why there is no verdict on a planned comparison, a sentence a backbone that lacks it; none where it is there."
    if not pair: return
    told = lambda arm, own: (f"{arm_title(arm)} is no arm of this study" if arm not in study.settings["arms"] else
                             f"no cell of {arm_title(arm)} is finished" if arm not in own else None)
    table, title = study.comparisons, " and ".join(map(arm_title, pair))
    there = set(zip(table["backbone"], table["before"], table["after"])) if len(table) else set()
    for backbone in study.settings["backbones"]:
        if (backbone, *pair) in there: continue
        own = set(study.predictions["arm"][study.predictions["backbone"] == backbone])
        why = [o for o in (told(arm, own) for arm in pair) if o] or ["no seed of both is finished"]
        yield f"{backbone}: {title} aren't compared, as {' and '.join(why)}."

def _planned(study, p):
    "What was said before the first cell, and how often its test rows were looked at."
    seen, asked = looks(study.out, p["test_rows"]), "no primary comparison"
    if p["primary"]: asked = (f"primary comparison: {' to '.join(map(arm_title, p['primary']))}, by AUC, two-sided at "
                              f"{p['alpha']:.1%} over the backbones")
    return (f"The plan ({p['digest']}) was written at {p['time']}: backbones {', '.join(p['backbones'])}; arms "
            f"{', '.join(map(arm_title, p['arms']))}; seeds {', '.join(map(str, p['seeds']))}; {asked}. "
            f"All else is exploratory. Results on these test rows that {study.out.name} knows of: {seen}.")

def _families(arms):
    "Arms that belong in one figure: the plain ones; and variants, beside the plain ones that they are compared with."
    plain, res = [o for o in arms if "+" not in o], {}
    kinds = dict(rival="rivals of synthesis", dose="by synthetic films", policy="by their metadata", fusion="fusions")
    for name in (o for o in arms if "+" in o):
        arm = parse_arm(name)
        kind = next(k for k in kinds if getattr(arm, k) is not None)
        pair = ("real-meta", "real-synth-meta") if arm.use == "both" else ("real", "real-synth")
        title = kinds[kind] + (kind == "rival") * (" without metadata" if arm.use == "image" else " with metadata")
        res.setdefault(title, [o for o in pair if o in plain]).append(name)
    return ({"plain arms": plain} if plain else {}) | res

def _each(study, plot, name, caption):
    "(name, figure, caption) of each backbone and family of arms."
    for backbone, rows in study.predictions.groupby("backbone", sort=False):
        for i, (family, arms) in enumerate(_families(rows["arm"].unique()).items()):
            fig = plot(rows[rows["arm"].isin(arms)])
            yield f"{name}-{backbone}" + f"-{family}" * (i > 0), fig, f"{caption}; {backbone}, {family}."

def _epochs(study):
    "(name, figure, caption) of each backbone and arm, from the histories of its cells."
    for (backbone, arm), cells in study.cells[study.cells["error"].isna()].groupby(["backbone", "arm"], sort=False):
        files = {o.seed: study.out/o.folder/"history.csv" for o in cells.itertuples()}
        tables = [read_csv(file).assign(seed=seed) for seed, file in files.items() if file.exists()]
        title = f"{backbone}, {arm_title(arm)}"
        if tables: yield f"epochs-{backbone}-{arm}", plot_curves(pd.concat(tables), title=title), f"Epochs of {title}."

def _gan_figures(study, made, page):
    "(name, figure, caption) of the CycleGAN that made a folder of synthetic films."
    gan, others = made.parent, {*plt.get_fignums()}
    try:
        fig = plot_synthetic(study.rows, read_manifest(made), n=2)
        yield f"fig2-{gan.name}", fig, f"Real and synthetic films of {gan.name}/{made.name}, as the paper's Fig. 2."
        if (near := made/"memorised.csv").exists():
            fig = plot_memorised(read_csv(near))
            yield f"memorised-{gan.name}", fig, f"Synthetic films of {gan.name}/{made.name} nearest to training films."
    except (OSError, ValueError) as e:
        for o in {*plt.get_fignums()} - others: plt.close(o) # begun, then left at a film that has gone
        page.text(f"The films of {gan.name} can't be shown: {e}", "warn")
    for file in gan.glob("history.csv"):
        fig = plot_curves(o := read_csv(file), [name for name in o if not name.startswith("acc")], gan.name)
        yield f"epochs-{gan.name}", fig, f"Losses of {gan.name}, and how often its discriminators are right."

def _gans(study, page):
    "The figures of each CycleGAN, and every quality.csv."
    folders = [study.out/o for o in study.cells["gan"].dropna().unique()]
    if not folders: return page.text("No arm has synthetic films.")
    for made in {o.parent: o for o in reversed(folders)}.values(): page.figures(_gan_figures(study, made, page))
    judged = [o for o in folders if (o/"quality.csv").exists()]
    unseen = study.settings["protocol"] == "clean"
    for o in sorted({*folders} - {*judged}):
        page.text(f"{o.parent.name}/{o.name} holds no quality.csv: " + ("there were too few films to judge by, or it "
                  "has gone." if unseen else "its CycleGAN saw every row, and no real film is left to judge by."))
    if not judged: return
    ends = dict(low="value_low", high="value_high")
    tables = [read_csv(o/"quality.csv").rename(columns=ends).assign(of=f"{o.parent.name}/{o.name}") for o in judged]
    table = pd.concat(tables)
    rows = _listed(table.get("judged_on", pd.Series("valid and test", table.index)).fillna("valid and test"))
    caption = f"Synthetic films against real ones of the {rows} rows; floor: real ones against one another"
    page.table(table, caption, "of")

def _listed(words): return ", ".join(dict.fromkeys(map(str, words)))

def _at_prevalence(study, page, table):
    "Predictive values, net benefit and decision curves."
    draw = partial(plot_decision, cells=study.cells, prevalence=table["prevalence"].iloc[0])
    page.section("At another prevalence", scores=True)
    page.table(table, f"Predictive values and net benefit {OWN}; {DEFINED}")
    page.figures(_each(study, draw, "decision", "Net benefit over the threshold, with 95% bands of patients"))

def report(
    folder:str|Path, # that `run_study` gave
) -> Path:           # report.html in it
    "Write a study's page, and its figures under figures/ as png and svg. FileNotFoundError for any other folder."
    study = _read(folder := Path(folder))
    s, cells, rows, predictions = study.settings, study.cells, study.rows, study.predictions
    names = [*s.get("cat_names", ("sex", "view")), *s.get("cont_names", ("age",))]
    drawn = drawn_note(s) or drawn_note(s | dict(drawn=is_drawn(rows)))
    page = Page(folder/"figures", [o for o in (drawn, leaky_note(s, rows)) if o])
    plan = read_plan(file) if (file := folder/"plan.json").exists() else None
    over = "mean over seeds" if predictions["seed"].nunique() > 1 else f"seed {predictions['seed'].iloc[0]}"
    page.section("What was run", scores=True).text(_what(study))
    for o in verdict(study.comparisons, plan=plan).splitlines(): page.text(o, "verdict")
    for o in _not_compared(study, plan["primary"] if plan else PRIMARY): page.text(o)
    if plan: page.text(_planned(study, plan))
    page.section("Cohort").table(study.flow.convert_dtypes(), "Rows left at each step, and on each side")
    marked = "; protocol 'paper'" * (s["protocol"] == "paper")
    page.table(characteristics(rows, names), f"Who is on which side{marked}")
    page.text(sampling_note(study.flow))
    if (file := folder/"prevalence.csv").exists(): _at_prevalence(study, page, read_csv(file, WORDS))
    page.section("Table 1", scores=True).table(study.table1, f"Recall on the test rows at .5 {OWN}; {BOTH}; and gains")
    caption = ("Differences [95% interval of patients, and of seeds where there are several]; at 90: 90% specificity "
               "on valid; holm: over the backbones of the primary comparison; no other p is corrected")
    page.section("Comparisons").table(study.comparisons, caption)
    several = f" sd; {DEFINED}; {BOTH}" * over.startswith("mean")
    caption = (f"{over.capitalize()} {OWN}{several}; at 90: 90% specificity on valid; "
               "corrected: after the prior shift")
    page.section("All metrics", scores=True).table(study.metrics, caption)
    if doses_of(predictions["arm"].unique()):
        zero = "; 0 is Real-Meta" * ("real-meta" in s["arms"])
        dose = "dose", plot_dose(predictions), f"Scores over the number of synthetic films{zero}."
        page.section("Dose and response", scores=True).figures([dose])
    calibrated = partial(plot_calibration, cells=cells)
    called = partial(plot_confusion, names=(s["negative"], s["positive"]))
    for title, name, plot, caption in (
        ("ROC curves", "roc", plot_roc, f"ROC, {over} and 95% band of resampled patients"),
        ("Precision and recall", "pr", plot_pr, f"Precision over recall, {over} and 95% band of resampled patients"),
        ("Calibration", "calibration", calibrated, f"Calibration, {over} and 95% band of resampled patients"),
        ("Confusion matrices", "confusion", called, f"Called at .5, {over}")):
        page.section(title, scores=True).figures(_each(study, plot, name, caption))
    page.section("Epochs").figures(_epochs(study))
    _gans(study, page.section("Synthetic films"))
    page.section("Subgroups", scores=True).text(shortcut_note(s, rows))
    page.figures((f"groups-{o}", plot_groups(part, rows, names), f"Called positive at .5 by {o} {OWN}.")
                 for o, part in predictions.groupby("backbone", sort=False))
    groups = study.subgroups.sort_values([o for o in ("column", "group") if o in study.subgroups], kind="stable")
    page.table(groups, f"Scores by group {OWN}; to the rest: difference to all others, p by Holm's correction")
    page.table(study.interactions,
               "Does an arm gain more in a group? [95% interval of patients, and seeds from two on]")
    failed = cells.loc[cells["error"].notna(), ["backbone", "arm", "seed", "error"]]
    page.section("Failed cells").table(failed, "Failed cells", kind="words")
    words = {k: ", ".join(map(str, o)) if isinstance(o, list) else str(o) for k, o in (s | s["versions"]).items()}
    settings = pd.Series(words, name="value").drop("versions").rename_axis("of").reset_index()
    page.section("Settings and versions").table(settings, "settings.json", kind="words")
    asked, said = checklist(s, rows, study.flow, cells, plan), "CLAIM 2024 and TRIPOD+AI, in our own words"
    page.section("Checklist").table(asked, said, "checklist", kind="words")
    with atomic(folder/"report.html") as tmp: tmp.write_text(page.html(folder.name), encoding="utf-8")
    return folder/"report.html"
