"""What a study prints: its plan before the first job; at the end the verdict, Table 1, and where things are."""
from pathlib import Path


from ..arms import arm_title
from ..cohort.rows import classes, read_rows
from ..core.csvs import read_csv
from ..core.files import few, line_width, read_json, say
from ..report.changed import films_words
from ..report.elsewhere import external_words
from ..report.notes import counted, drawn_note, leaky_note, sources_note
from ..report.translators import alarm_notes
from ..stats.compare import verdict
from ..stats.formats import to_columns
from ..stats.ledger import looks, read_plan
from ..stats.prevalence import sampling_note
from ..stats.scoring import title_of
from ..stats.shortcuts import RULE, SHORTCUTS
from ..stats.subgroups import small_groups
from .grid import Study

__all__ = ["plan_text", "print_study"]

HEADLINES = ["recall", "specificity", "rocauc", "recall_at_90", # of the many metrics, what is printed
             "recall_with_synthetic", "positives_with_synthetic", "positives_synthetic"] # the last by protocol 'paper'
RESTS_ON = ["weights", "seeds", "exploratory"] # a column where it isn't of all arms; else it is said once

def _names(words): return few(map(str, words), 6)

def plan_text(
    study:Study, # that may have begun
) -> str:
    "What will be run, in three lines; the last says how much of it is new."
    plan, t, (neg, pos) = study.plan, study.plan.training, classes(study.rows)
    cells = {c.folder: c for c in study.cells.values()}.values()
    folds = f"; {counted(plan.folds, 'fold')} x {plan.repeats}" if plan.folds else ""
    films = f"films of {t.size} px, weights {_names(dict.fromkeys(plan.weights_of.values()))}, " if plan.sees else ""
    made = any(c.gan for c in cells)
    gan = f"; {plan.gan.translator.title} of {counted(plan.gan.training['epochs'], 'epoch')} at {plan.gan.size} px"
    return (f"Plan: {pos} against {neg} by {_names(study.backbones)}; arms {_names(map(arm_title, study.arms))}\n"
            f"seeds {_names(study.seeds)}{folds}; {films}{counted(t.epochs, 'epoch')}, batches of "
            f"{t.bs}{gan if made else ''}\n{counted(len(study.cells), 'cell')}; protocol '{plan.protocol}', scored at "
            f"the {t.epoch_rule} epoch; {counted(sum(not c.done for c in cells), 'new cell')} to run")

def _table1(metrics, over):
    "Every arm's headlines, and what they rest on."
    shown = [o for o in HEADLINES if o in metrics]
    rests = [o for o in RESTS_ON if metrics[o].nunique() > 1]
    told = [f"{o} {metrics[o].iloc[0]}" for o in RESTS_ON[:1] if o not in rests]
    titles = dict(rocauc=title_of("rocauc"), recall_at_90="recall at 90% spec.")
    table = metrics[["backbone", "arm", *shown, *rests]].astype(str).replace(r" sd [\d.]+$", "", regex=True)
    n, ill = (f"{metrics[o].iloc[0]:,}" for o in ("n", "positives"))
    say(f"\nTable 1: every arm on {n} test films, {ill} positive; {', '.join([over, *told])} [95% interval]\n"
        f"{to_columns(table.rename(columns=titles), line_width(), by='backbone')}")

def _gains(table1):
    "The relative gains of recall, by backbone."
    names = [o for o in table1 if o.startswith("Gain ")]
    if names: say(f"\nGain of recall\n{to_columns(table1[['Model', *names]].rename(columns=_shorter), line_width())}")

def _shorter(name): return name.removeprefix("Gain ")

def _beaten_by(own, n):
    "Which arms beat a shortcut, of those that are held against it."
    arms = [arm_title(o) for o in own["arm"][own["beats"] == "yes"]]
    if not arms: return "no arm"
    if n > 1 or len(arms) > 3: return f"{len(arms)} of {counted(len(own), 'arm')}"
    return ", ".join(arms)

def _shortcuts(folder):
    "What probes reach that see no disease, and which arms beat them."
    if not (folder/"shortcut_table.csv").exists(): return
    table, against = (read_csv(folder/f"{o}.csv") for o in ("shortcut_table", "against_shortcuts"))
    shown, names = table[["shortcut", "AUC"]].rename(columns=dict(AUC="ROC-AUC")), against["backbone"].unique()
    key = {o.title: k for k, o in SHORTCUTS.items()}
    for backbone in names:
        held = against[against["backbone"] == backbone].groupby("shortcut")
        words = {k: _beaten_by(own, len(names)) for k, own in held}
        shown[f"beaten by {backbone}" if len(names) > 1 else "beaten by"] = [
            words.get(key.get(o), "-") for o in shown["shortcut"]]
    say(f"\nShortcuts, probes on the same split that see no disease. {RULE}.\n{to_columns(shown, line_width())}")

def _notes(folder, about):
    "What stands by all scores of these rows."
    rows = read_rows(folder/"rows.csv")
    yield from (drawn_note(about), leaky_note(about, rows), sources_note(about))
    yield from small_groups(rows, about.get("groups", []))
    if about["protocol"] == "paper":
        yield "Recall is over the real positives alone, recall_with_synthetic over the synthetic ones, too."
    yield sampling_note(read_csv(folder/"flow.csv"))

def print_study(
    folder:str|Path, # of a study
):
    "What the data support; Table 1, each figure once; what must be known beside it; and which cells are missing."
    folder, out = Path(folder), Path(folder).parent
    table = {o: read_csv(folder/f"{o}.csv") for o in ("table1", "metrics", "comparisons", "cells")}
    about, plan = read_json(folder/"settings.json"), read_plan(folder/"plan.json")
    seeds = table["cells"].loc[table["cells"]["error"].isna(), "seed"].unique()
    over = "mean over seeds" if len(seeds) > 1 else f"seed {seeds[0]}"
    say("", verdict(table["comparisons"], plan=plan), sep="\n")
    _table1(table["metrics"], over)
    _gains(table["table1"])
    _shortcuts(folder)
    if (file := folder/"prevalence.csv").exists():
        at = read_csv(file)
        say(f"\nAt a prevalence of {at['prevalence'].iloc[0]:g} [95% intervals of patients]\n"
            f"{to_columns(at.drop(columns='prevalence'), line_width(), by='backbone')}")
    say(f"\nTest rows, {over} [95% interval of these models]: the luck of the test patients. That of training, and all "
        f"else, is in {folder}/metrics.md")
    for o in filter(None, _notes(folder, about)): say(o)
    say(f"Results on these test rows that {out} knows of: {looks(out, plan['test_rows'])}.")
    if (file := folder/"relabel.csv").exists(): say(f"{len(read_csv(file)):,} films to read again: {file}")
    for o in (*films_words(folder), *external_words(folder)): say(o)
    for made in dict.fromkeys((out/o).parent for o in table["cells"]["gan"].dropna()):
        for o in alarm_notes(made): say(o)
    for o in table["cells"]["error"].dropna().unique(): say(f"MISSING {o}")
