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
from ..settings import CAT_NAMES, CONT_NAMES
from ..cohort.synthetic import read_manifest
from ..core.csvs import read_csv
from ..core.files import atomic, few, read_json
from ..stats.compare import verdict
from ..stats.ledger import PRIMARY, read_plan
from ..stats.prevalence import sampling_note
from ..stats.shortcuts import shortcut_verdict
from ..stats.subgroups import small_groups
from .changed import changed_section
from .checklist import characteristics, checklist
from .elsewhere import external_sections
from .figures import (doses_of, plot_calibration, plot_confusion, plot_curves, plot_decision, plot_dose, plot_groups,
    plot_pr, plot_roc)
from .films import plot_memorised, plot_synthetic
from .forest import plot_folds
from .html import Page
from .notes import (drawn_note, generator_notes, leaky_note, not_compared, plan_note, run_note, shortcut_note,
                    sources_note, translator_of)
from .searched import tuning

__all__ = ["report"]

TABLES = "flow", "cells", "predictions", "table1", "metrics", "comparisons", "subgroups", "interactions"
OWN, BOTH = "[95% interval of these models: the luck of the test patients]", "procedure: the luck of training, too"
DEFINED = "a mean is over the seeds where a figure is defined"
WORDS = dict.fromkeys(("image", "patient_id", "backbone", "arm", "error", "gan", "folder", "group"), str)

def _read(folder):
    "A study's files by name. FileNotFoundError for a folder that isn't a study's."
    if lost := [o for o in ("settings.json", "rows.csv", *(f"{o}.csv" for o in TABLES)) if not (folder/o).exists()]:
        raise FileNotFoundError(f"{folder} holds no {few(lost)}: report takes the folder that run_study gives.")
    tables = {o: read_csv(folder/f"{o}.csv", WORDS) for o in TABLES}
    plan = read_plan(folder/"plan.json") if (folder/"plan.json").exists() else None
    return SimpleNamespace(folder=folder, out=folder.parent, settings=read_json(folder/"settings.json"), plan=plan,
                           rows=read_rows(folder/"rows.csv"), **tables)

def _warnings(study):
    "What stands again in every section with absolute scores."
    settings, rows = study.settings, study.rows
    drawn = drawn_note(settings) or drawn_note(settings | dict(drawn=is_drawn(rows)))
    return [o for o in (drawn, leaky_note(settings, rows), sources_note(settings)) if o]

def _names(settings):
    own = [*settings.get("cat_names", CAT_NAMES), *settings.get("cont_names", CONT_NAMES)]
    return list(dict.fromkeys([*own, *settings.get("groups", ())]))

def _table_of(study, name):
    "One that studies of before don't have: None there."
    return read_csv(file, WORDS) if (file := study.folder/f"{name}.csv").exists() else None

def _over(study):
    seeds = study.predictions["seed"].unique()
    return "mean over seeds" if len(seeds) > 1 else f"seed {seeds[0]}"

# A section a function of the study, which writes it on the page

def _run(study, page):
    page.section("What was run", scores=True).text(run_note(study.settings, study.cells))
    for o in verdict(study.comparisons, plan=study.plan).splitlines(): page.text(o, "verdict")
    _against_shortcuts(study, page)
    for o in not_compared(study, study.plan["primary"] if study.plan else PRIMARY): page.text(o)
    if study.plan: page.text(plan_note(study.plan, study.out))

def _against_shortcuts(study, page):
    if (table := _table_of(study, "against_shortcuts")) is None: return
    for o in shortcut_verdict(table): page.text(o, "warn" if (table["beats"] == "no").any() else "said")

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
    page.section("At another prevalence", scores=True)
    page.table(table, f"Predictive values and net benefit {OWN}; {DEFINED}")
    page.figures(_each(study, draw, "decision", "Net benefit over the threshold, with 95% bands of patients"))

def _table1(study, page):
    page.section("Table 1", scores=True).table(study.table1, f"Recall on the test rows at .5 {OWN}; {BOTH}; and gains")
    if (probes := _table_of(study, "shortcut_table")) is None: return
    page.table(probes, f"Shortcuts: probes on the same split that see no disease {OWN}; recall and specificity at .5, "
                       "and at 90: 90% specificity on valid", by=None)

def _comparisons(study, page):
    page.section("Comparisons").table(study.comparisons,
        "Differences [95% interval of patients, and of seeds where there are several]; at 90: 90% specificity "
        "on valid; holm: over the backbones of the primary comparison; no other p is corrected")

def _folds(study, page):
    "Each fold beside the verdict's figures: what another split alone would have said."
    if not (file := study.folder/"folds.csv").exists(): return
    page.section("Folds", scores=True).table(read_csv(file, WORDS),
        "AUC over all films out of fold, each ranked within its fold [95% interval of patients]; then of single folds, "
        "mean over seeds: their mean, deviation, least and most")
    if not (pair := study.plan["primary"] if study.plan else PRIMARY): return # of one arm, nothing is compared
    page.figures((f"folds-{o}", plot_folds(part, *pair), f"Difference of AUC, {o}: fold by fold, and over all of them.")
                 for o, part in study.predictions.groupby("backbone", sort=False) if {*pair} <= {*part["arm"]})

def _metrics(study, page):
    over = _over(study)
    several = f" sd; {DEFINED}; {BOTH}" if over.startswith("mean") else ""
    page.section("All metrics", scores=True).table(study.metrics,
        f"{over.capitalize()} {OWN}{several}; at 90: 90% specificity on valid; corrected: after the prior shift")

def _doses(study, page):
    if not doses_of(study.predictions["arm"].unique()): return
    zero = "; 0 is Real-Meta" if "real-meta" in study.settings["arms"] else ""
    dose = "dose", plot_dose(study.predictions), f"Scores over the number of synthetic films{zero}."
    page.section("Dose and response", scores=True).figures([dose])

def _curves(study, page):
    over, band = _over(study), f"{_over(study)} and 95% band of resampled patients"
    calibrated = partial(plot_calibration, cells=study.cells)
    called = partial(plot_confusion, names=(study.settings["negative"], study.settings["positive"]))
    for title, name, plot, caption in (
        ("ROC curves", "roc", plot_roc, f"ROC, {band}"),
        ("Precision and recall", "pr", plot_pr, f"Precision over recall, {band}"),
        ("Calibration", "calibration", calibrated, f"Calibration, {band}"),
        ("Confusion matrices", "confusion", called, f"Called at .5, {over}")):
        page.section(title, scores=True).figures(_each(study, plot, name, caption))

def _epochs(study, page): page.section("Epochs").figures(_histories(study))

def _synthetic(study, page):
    "The figures of each translator, and every quality.csv."
    page.section("Synthetic films")
    folders = [study.out/o for o in study.cells["gan"].dropna().unique()]
    for o in (others := generator_notes(study.settings)): page.text(o)
    if not folders: return None if others else page.text("No arm has synthetic films.")
    for made in {o.parent: o for o in reversed(folders)}.values(): page.figures(_gan_figures(study, made, page))
    unseen = study.settings["protocol"] == "clean"
    why = ("there were too few films to judge by, or it has gone." if unseen else
           f"its {translator_of(study.settings).title} saw every row, and no real film is left to judge by.")
    judged = [o for o in folders if (o/"quality.csv").exists()]
    for o in sorted({*folders} - {*judged}): page.text(f"{o.parent.name}/{o.name} holds no quality.csv: {why}")
    if judged: page.table(*_quality(judged), "of")

def _quality(judged):
    "The quality.csv of all folders as one table, and its caption."
    ends = dict(low="value_low", high="value_high")
    tables = [read_csv(o/"quality.csv").rename(columns=ends).assign(of=f"{o.parent.name}/{o.name}") for o in judged]
    table, before = pd.concat(tables), "valid and test" # of a version that didn't say
    table = table.drop(columns="meaning", errors="ignore")
    sides = table["judged_on"].fillna(before).unique() if "judged_on" in table else [before]
    return table, (f"Synthetic films against real ones of the {', '.join(sides)} rows; floor: real ones against one "
                   "another")

def _subgroups(study, page):
    if not (names := _names(study.settings)):
        return page.section("Subgroups").text("The table has no metadata, by which patients could be grouped.")
    page.section("Subgroups", scores=True).text(shortcut_note(study.settings, study.rows))
    page.figures((f"groups-{o}", plot_groups(part, study.rows, names), f"Called positive at .5 by {o} {OWN}.")
                 for o, part in study.predictions.groupby("backbone", sort=False))
    groups = study.subgroups.sort_values([o for o in ("column", "group") if o in study.subgroups], kind="stable")
    for o in small_groups(study.rows, names): page.text(o)
    page.table(groups, f"Scores by group {OWN}; to the rest: difference to all others, p by Holm's correction")
    page.table(study.interactions,
               "Does an arm gain more in a group? [95% interval of patients, and seeds from two on]")

def _labels(study, page):
    if (noise := _table_of(study, "noise_table")) is None: return
    page.section("Wrong labels", scores=True)
    page.table(noise, "The AUC were labels wrong at random, whatever the film: what would be seen at a share of "
                      f"flipped test labels, and what is behind it if that share is wrong now {OWN}")
    if (films := _table_of(study, "relabel")) is None: return
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

SECTIONS = (_run, _cohort, tuning, _at_prevalence, _table1, _comparisons, _folds, _metrics, _doses, _curves, _epochs,
            _synthetic, changed_section, _subgroups, external_sections, _labels, _failed, _settings, _checklist)

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

def _gan_figures(study, made, page):
    "The figures of the translator that made a folder of synthetic films; `page` is told where they can't be drawn."
    gan, others = made.parent, {*plt.get_fignums()}
    try:
        fig = plot_synthetic(read_rows(gan/"rows.csv"), read_manifest(made), n=2)
        yield f"fig2-{gan.name}", fig, f"Real and synthetic films of {gan.name}/{made.name}, as the paper's Fig. 2."
        if (near := made/"memorised.csv").exists():
            fig = plot_memorised(read_csv(near))
            yield f"memorised-{gan.name}", fig, f"Synthetic films of {gan.name}/{made.name} nearest to training films."
    except (OSError, ValueError) as e:
        for o in {*plt.get_fignums()} - others: plt.close(o) # begun, then left at a film that has gone
        page.text(f"The films of {gan.name} can't be shown: {e}", "warn")
    for file in gan.glob("history.csv"):
        history = read_csv(file)
        losses = [o for o in history if not o.startswith("acc")]
        yield f"epochs-{gan.name}", plot_curves(history, losses, gan.name), (
            f"Losses of {gan.name}, and how often its discriminators are right.")

def report(
    folder:str|Path, # that `run_study` gave
) -> Path:           # report.html in it
    "Write a study's page, and its figures under figures/ as png and svg. FileNotFoundError for any other folder."
    study = _read(Path(folder))
    page = Page(study.folder/"figures", _warnings(study))
    for section in SECTIONS: section(study, page)
    file = study.folder/"report.html"
    with atomic(file) as tmp: tmp.write_text(page.html(study.folder.name), encoding="utf-8")
    return file
