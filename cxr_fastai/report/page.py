"""A study's folder as one html page that needs no network, and its figures one by one as png and svg.
Reads files, trains nothing."""
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pandas as pd

from ..arms import arm_title, parse_arm
from ..cohort.phantom import is_drawn
from ..cohort.rows import read_rows
from ..settings import CAT_NAMES, CONT_NAMES
from ..core.csvs import read_csv
from ..core.files import atomic, few, read_json
from ..stats.ledger import PRIMARY, read_plan
from ..stats.prevalence import sampling_note
from ..stats.shortcuts import shortcut_verdict
from ..stats.subgroups import small_groups
from .changed import changed_section
from .checklist import characteristics, checklist
from .elsewhere import external_sections
from .figures import (doses_of, plot_calibration, plot_confusion, plot_curves, plot_decision, plot_dose, plot_groups,
    plot_pr, plot_roc)
from .forest import plot_folds
from .html import COMPARED, Page
from .notes import drawn_note, leaky_note, plan_note, run_note, shortcut_note, sources_note
from .opening import about_study, BOTH, opening, OWN, study_title
from .searched import tuning
from .synthetic import synthetic_sections

__all__ = ["report"]

TABLES = "flow", "cells", "predictions", "table1", "metrics", "comparisons", "subgroups", "interactions"
DEFINED = "a mean is over the seeds where a figure is defined"
WORDS = dict.fromkeys(("image", "patient_id", "backbone", "arm", "error", "gan", "folder", "group"), str)

def _read(folder):
    "A study's files by name. FileNotFoundError for a folder that isn't a study's."
    if lost := [o for o in ("settings.json", "rows.csv", *(f"{o}.csv" for o in TABLES)) if not (folder/o).exists()]:
        raise FileNotFoundError(f"{folder} holds no {few(lost)}: report takes the folder that run_study gives.")
    tables = {o: read_csv(folder/f"{o}.csv", WORDS) for o in TABLES}
    plan = read_plan(folder/"plan.json") if (folder/"plan.json").exists() else None
    def table(name):
        "One that studies of before don't have: None there."
        return read_csv(file, WORDS) if (file := folder/f"{name}.csv").exists() else None
    return SimpleNamespace(folder=folder, out=folder.parent, settings=read_json(folder/"settings.json"), plan=plan,
                           rows=read_rows(folder/"rows.csv"), table=table, **tables)

def _warnings(study):
    "What must be known wherever its scores are read."
    settings, rows = study.settings, study.rows
    drawn = drawn_note(settings) or drawn_note(settings | dict(drawn=is_drawn(rows)))
    return [o for o in (drawn, leaky_note(settings, rows), sources_note(settings)) if o]

def _names(settings):
    own = [*settings.get("cat_names", CAT_NAMES), *settings.get("cont_names", CONT_NAMES)]
    return list(dict.fromkeys([*own, *settings.get("groups", ())]))

def _over(study):
    seeds = study.predictions["seed"].unique()
    return "mean over seeds" if len(seeds) > 1 else f"seed {seeds[0]}"

# A section a function of the study, which writes it on the page

def _run(study, page):
    page.section("What was run").text(run_note(study.settings, study.cells))
    if study.plan: page.text(plan_note(study.plan, study.out))

def _cohort(study, page):
    marked = "; protocol 'paper'" if study.settings["protocol"] == "paper" else ""
    page.section("Cohort").table(study.flow.convert_dtypes(), "Rows left at each step, and on each side")
    page.table(characteristics(study.rows, _names(study.settings)), f"Who is on which side{marked}")
    page.text(sampling_note(study.flow))

def _at_prevalence(study, page):
    "Predictive values, net benefit and decision curves, where a prevalence was stated."
    if not (study.folder/"prevalence.csv").exists(): return
    table = read_csv(study.folder/"prevalence.csv", WORDS)
    draw = partial(plot_decision, cells=study.cells, prevalence=table["prevalence"].iloc[0])
    page.section("At another prevalence")
    page.table(table, f"Predictive values and net benefit {OWN}; {DEFINED}",
               main=("arm", "rule", "ppv", "npv", "net_benefit", "treat_all"))
    page.figures(_each(study, draw, "decision", "Net benefit over the threshold, with 95% bands of patients"))

def _shortcuts(study, page):
    if (probes := study.table("shortcut_table")) is None: return
    page.section("Shortcuts").table(probes, f"Probes on the same split that see no disease {OWN}; recall and "
        "specificity at .5, and at 90: 90% specificity on valid", by=None,
        main=("shortcut", "AUC", "recall", "specificity", "recall_at_90", "note"))
    if (table := study.table("against_shortcuts")) is not None:
        for o in shortcut_verdict(table): page.text(o)

def _comparisons(study, page):
    page.section("Comparisons").table(study.comparisons,
        "Differences [95% interval of patients, and of seeds where there are several]; at 90: 90% specificity "
        "on valid; holm: over the backbones of the primary comparison; no other p is corrected",
        main=COMPARED)

def _folds(study, page):
    "Each fold beside the verdict's figures: what another split alone would have said."
    if not (file := study.folder/"folds.csv").exists(): return
    table = read_csv(file, WORDS).rename(columns=dict(low="pooled_low", high="pooled_high"))
    page.section("Folds").table(table,
        "AUC over all films out of fold, each ranked within its fold [95% interval of patients]; then of single folds, "
        "mean over seeds: their mean, deviation, least and most", main=("arm", "pooled", "mean", "sd", "least", "most"))
    if not (pair := study.plan["primary"] if study.plan else PRIMARY): return # of one arm, nothing is compared
    page.figures((f"folds-{o}", plot_folds(part, *pair), f"Difference of AUC, {o}: fold by fold, and over all of them.")
                 for o, part in study.predictions.groupby("backbone", sort=False) if {*pair} <= {*part["arm"]})

def _metrics(study, page):
    over = _over(study)
    several = f" sd; {DEFINED}; {BOTH}" if over.startswith("mean") else ""
    page.section("All metrics").table(study.metrics,
        f"{over.capitalize()} {OWN}{several}; at 90: 90% specificity on valid; corrected: after the prior shift",
        main=("arm", "rocauc", "recall", "specificity", "brier", "recall_at_90"))

def _doses(study, page):
    if not doses_of(study.predictions["arm"].unique()): return
    zero = "; 0 is Real-Meta" if "real-meta" in study.settings["arms"] else ""
    dose = "dose", plot_dose(study.predictions), f"Scores over the number of synthetic films{zero}."
    page.section("Dose and response").figures([dose])

def _curves(study, page):
    over, band = _over(study), f"{_over(study)} and 95% band of resampled patients"
    calibrated = partial(plot_calibration, cells=study.cells)
    called = partial(plot_confusion, names=(study.settings["negative"], study.settings["positive"]))
    for title, name, plot, caption in (
        ("ROC curves", "roc", plot_roc, f"ROC, {band}"),
        ("Precision and recall", "pr", plot_pr, f"Precision over recall, {band}"),
        ("Calibration", "calibration", calibrated, f"Calibration, {band}"),
        ("Confusion matrices", "confusion", called, f"Called at .5, {over}")):
        page.section(title).figures(_each(study, plot, name, caption))

def _epochs(study, page): page.section("Epochs").figures(_histories(study))

def _subgroups(study, page):
    if not (names := _names(study.settings)):
        return page.section("Subgroups").text("The table has no metadata, by which patients could be grouped.")
    page.section("Subgroups").text(shortcut_note(study.settings, study.rows))
    page.figures((f"groups-{o}", plot_groups(part, study.rows, names), f"Called positive at .5 by {o} {OWN}.")
                 for o, part in study.predictions.groupby("backbone", sort=False))
    groups = study.subgroups.sort_values([o for o in ("column", "group") if o in study.subgroups], kind="stable")
    for o in small_groups(study.rows, names): page.text(o)
    page.table(groups, f"Scores by group {OWN}; to the rest: difference to all others, p by Holm's correction",
               main=("arm", "column", "group", "recall", "specificity", "rocauc"))
    page.table(study.interactions,
               "Does an arm gain more in a group? [95% interval of patients, and seeds from two on]",
               main=("before", "column", "group", "metric", "more", "holm"))

def _labels(study, page):
    if (noise := study.table("noise_table")) is None: return
    page.section("Wrong labels")
    page.table(noise, "The AUC were labels wrong at random, whatever the film: what would be seen at a share of "
                      f"flipped test labels, and what is behind it if that share is wrong now {OWN}",
               main=("arm", "wrong", "AUC", "seen at 5%", "seen at 10%", "true if 10%"))
    if (films := study.table("relabel")) is None: return
    page.text(f"{len(films):,} valid and test films have a label that the models doubt: relabel.csv, the most doubtful "
              "first. They are to be read again, not wrong for that.")

def _failed(study, page):
    about = [o for o in ("backbone", "arm", "seed", "fold", "error") if o in study.cells]
    failed = study.cells.loc[study.cells["error"].notna(), about]
    page.section("Failed cells").table(failed, "Failed cells", kind="words")

def _settings(study, page):
    said = {k: o for k, o in (study.settings | study.settings["versions"]).items() if k != "versions"}
    lines = [(k, ", ".join(map(str, o)) if isinstance(o, list) else str(o)) for k, o in said.items()]
    table = pd.DataFrame(lines, columns=["of", "value"])
    page.section("Settings and versions").table(table, "settings.json", kind="words")

def _checklist(study, page):
    table = checklist(study.settings, study.rows, study.flow, study.cells, study.plan)
    page.section("Checklist").table(table, "CLAIM 2024 and TRIPOD+AI, in our own words", by="checklist", kind="words")

SECTIONS = (opening, _run, _cohort, tuning, _at_prevalence, _shortcuts, _comparisons, _folds, _metrics, _doses, _curves,
            _epochs, synthetic_sections, changed_section, _subgroups, external_sections, _labels, _failed, _settings,
            _checklist)

# Figures for a section: a name, the figure, its caption

VARIANTS = dict(rival="rivals of synthesis", pretraining="pretraining", dose="by synthetic films",
                policy="by their metadata", fusion="fusions", part="by part of the change")

def _family(arm):
    "What is told apart in an arm's figure."
    kind = next(o for o in VARIANTS if getattr(arm, o) is not None)
    if kind != "rival": return VARIANTS[kind]
    return f"{VARIANTS[kind]} without metadata" if arm.use == "image" else f"{VARIANTS[kind]} with metadata"

def _families(arms):
    "Arms that belong in one figure: the plain ones; and variants, beside the plain ones that they are compared with."
    plain, variants = [o for o in arms if "+" not in o], [o for o in arms if "+" in o]
    res = {"plain arms": plain} if plain else {}
    for name in variants:
        arm = parse_arm(name)
        pair = ("real-meta", "real-synth-meta") if arm.use == "both" else ("real", "real-synth")
        res.setdefault(_family(arm), [o for o in pair if o in plain]).append(name)
    return res

def _each(study, plot, name, caption):
    "A figure of each backbone and family of arms; the first family needs no name."
    for backbone, rows in study.predictions.groupby("backbone", sort=False):
        for i, (family, arms) in enumerate(_families(rows["arm"].unique()).items()):
            file = f"{name}-{backbone}-{family}" if i else f"{name}-{backbone}"
            yield file, plot(rows[rows["arm"].isin(arms)]), f"{caption}; {backbone}, {family}."

def _histories(study):
    "A figure of each backbone and arm, from the histories of its cells."
    for (backbone, arm), cells in study.cells[study.cells["error"].isna()].groupby(["backbone", "arm"], sort=False):
        files = [study.out/o/"history.csv" for o in cells["folder"]]
        tables = [read_csv(file).assign(seed=i) for i, file in enumerate(files) if file.exists()]
        title = f"{backbone}, {arm_title(arm)}"
        if tables: yield f"epochs-{backbone}-{arm}", plot_curves(pd.concat(tables), title=title), f"Epochs of {title}."

def report(
    folder:str|Path, # that `run_study` gave
) -> Path:           # report.html in it
    "Write a study's page, and its figures under figures/ as png and svg. FileNotFoundError for any other folder."
    study = _read(Path(folder))
    page = Page(study.folder/"figures", _warnings(study))
    for section in SECTIONS: section(study, page)
    file = study.folder/"report.html"
    html = page.html(study_title(study.settings), study.folder.name, about_study(study))
    with atomic(file) as tmp: tmp.write_text(html, encoding="utf-8")
    return file
