"""What a study's settings and rows say of its scores, in sentences that stand beside them: what was run and planned,
films that are drawn, leaks by protocol, how rows came to their sides, groups that stand for the illness. No torch."""
import re
from itertools import combinations
from pathlib import Path

import pandas as pd
from scipy.stats import fisher_exact

from ..arms import arm_title, parse_arm
from ..cohort.rows import positive
from ..cohort.sampling import folds_of, test_rows
from ..core.generators import places_of
from ..settings import Gan
from ..stats.ledger import looks

__all__ = ["drawn_note", "generator_notes", "leaky_note", "shortcut_note", "sources_mark", "sources_note", "split_note"]

def uses(settings, what):
    "Whether an arm reads 'image' or 'metadata'."
    return any(parse_arm(o).use in (what, "both") for o in settings["arms"])

def has_synth(settings): return any(parse_arm(o).own for o in settings["arms"])
def translator_of(settings): return Gan(settings.get("gan", "fast")).translator
def listed(words): return ", ".join(dict.fromkeys(map(str, words)))
def counted(n, word): return f"{n:,} {word}" if n == 1 else f"{n:,} {word}s"
def column_names(settings): return [*settings.get("cat_names", ()), *settings.get("cont_names", ())]

def on_several_sides(rows):
    "How many patients are; of folds, in the test of more than one of a repeat."
    return (rows.groupby("patient_id")[folds_of(rows) or ["split"]].nunique() > 1).any(axis=1).sum()

def is_drawn_study(settings):
    if "drawn" in settings: return settings["drawn"]
    return settings["data"].split(" ")[0] == "phantom" # of a version before

def drawn_note(
    settings:dict, # of a study
) -> str:          # '' for real films
    "What stands by every score of drawn films."
    if not is_drawn_study(settings): return ""
    return "These films are drawn: the absolute scores of this study say nothing about pneumonia."

def leaky_note(
    settings:dict,     # of a study
    rows:pd.DataFrame, # as they were split
) -> str:              # '' by the protocol 'clean'
    "What is wrong on purpose with a study by the protocol 'paper', as far as it is so in these rows."
    if settings["protocol"] != "paper": return ""
    found, twice = [], on_several_sides(rows)
    if twice: found.append(f"{twice:,} of {rows['patient_id'].nunique():,} patients are on several sides of its split")
    if has_synth(settings): found.append(f"its {translator_of(settings).title} saw every row, and synthetic "
                                          "films are on every side")
    if not found: return ("Protocol 'paper' splits by image and allows leaks: in these rows no patient is on two "
                          "sides, and no arm has synthetic films.")
    return (f"Protocol 'paper' is leaky on purpose: {'; '.join(found)}, as the paper's figures imply, so that its "
            "scores flatter.")

def unknown_sources(settings):
    "Generators of whose films it isn't known for all what they were made from."
    return [f"@{name}" for name, o in settings.get("generators", {}).items() if o["sources"] < sum(o["films"].values())]

def sources_note(
    settings:dict, # of a study
) -> str:          # '' where no arm has films of unknown sources
    "What stands by every score of an arm with films whose sources aren't known."
    if not (names := unknown_sources(settings)): return ""
    return (f"What the films of {listed(names)} were made from, and whom their generator saw, isn't known: none is a "
            "copy of a valid or test film by perceptual hash, which knows films and no patients.")

def sources_mark(
    settings:dict,      # of a study
    table:pd.DataFrame, # of its results
) -> pd.Series:         # a word a line, '' where there is nothing to say; None where there is nowhere
    "In lines of an arm with films of unknown sources, or in each of a table of no arm, that hashes stand in for them."
    if not (names := unknown_sources(settings)): return None
    own = [o for o in ("arm", "before", "after") if o in table]
    said = lambda found: f"unknown of {listed(found)}: no copies by hash" if found else ""
    if not own: return pd.Series(said(names), table.index)
    words = table[own].astype(str).agg(" ".join, axis=1)
    return words.map(lambda o: said([name for name in names if re.search(rf"{re.escape(name)}(?![\w.-])", o)]))

def generator_notes(
    settings:dict, # of a study
) -> list:
    "A sentence on the films of each other generator."
    places = places_of(settings.get("synthetic_from", ()))
    return [f"@{name}: films of {listed(f'{k} {n:,}' for k, n in o['films'].items())} in "
            f"{places.get(name, 'a folder')}; of {o['sources']:,} it is known which film they were made from. Arms "
            "have as many of each generator's."
            for name, o in settings.get("generators", {}).items()]

def _again(repeats): return "" if repeats == 1 else f" a repeat, of which there are {repeats}"

def split_note(
    settings:dict, # of a study
):
    "How rows came to their sides; None where it isn't known."
    how = settings.get("split")
    if how is None: return
    if not how: return "The table came with its split; how that was made is for the author to say"
    stratified = ", stratified by label" if how.get("stratified") else ""
    if "test" in how: share = f"{how['test']:.0%} to test"
    elif "fold" in how: share = f"fold {how['fold']} of {how['folds']} to test"
    else: share = f"in {how['folds']} folds, each in test once{_again(how['repeats'])},"
    rest = "of all" if how["method"] == "by image" else "of the rest"
    return (f"At random {how['method']}{stratified}, {share} and {how['valid']:.0%} {rest} to valid "
            f"(seed {how['seed']})")

def _contrasts(rows, name):
    "(p of Fisher's exact test, column, rows of the iller group, rows of the other) of each pair of a column's groups."
    groups = [rows[rows[name] == word] for word in sorted(rows[name].dropna().unique())]
    for pair in combinations(groups, 2):
        more, less = sorted(pair, key=lambda o: -positive(o).mean())
        counts = [[positive(o).sum(), (~positive(o)).sum()] for o in (more, less)]
        yield fisher_exact(counts).pvalue, name, more, less

def _share(rows): return f"{positive(rows).sum():,} of {len(rows):,}"

def shortcut_note(
    settings:dict,     # of a study
    rows:pd.DataFrame, # as they were split
) -> str:
    """What subgroups are there for, with the pair of groups whose shares of positives among the test rows are furthest
    apart, where that is beyond chance (Fisher's exact test, 5% over all pairs)."""
    test = test_rows(rows)
    of_words = [o for o in column_names(settings) if o in test and not pd.api.types.is_numeric_dtype(test[o])]
    found = [pair for name in of_words for pair in _contrasts(test, name)]
    said = "An arm that takes a group for the illness calls more of its negatives positive, too."
    p, name, more, less = min(found, key=lambda o: o[0], default=(1, None, None, None))
    if p * len(found) < .05 and found:
        said += (f" Here {settings['positive']} is commoner where {name} is {more[name].iloc[0]} ({_share(more)} test "
                 f"rows) than where it is {less[name].iloc[0]} ({_share(less)}).")
    if "meta" in settings["arms"]: said += " Meta, which sees no film, shows how far such a shortcut goes."
    return said

def run_note(
    settings:dict,      # of a study
    cells:pd.DataFrame, # of its cells.csv
) -> str:
    "What was run."
    side, done = settings["size"], cells["error"].isna().sum()
    searched = " (a search chose others, below)" if settings.get("tuned") else ""
    films = f"Films of {side} x {side} pixels, " if uses(settings, "image") else ""
    sides = split_note(settings) or "How rows came to their sides wasn't stored"
    if settings["protocol"] == "clean":
        if has_synth(settings): sides += f", the {translator_of(settings).title} saw its training rows only"
        sides += ", and every arm is scored on the same real test rows"
    return (f"{settings['positive']} against {settings['negative']} in {settings['data'] or 'a table'}. "
            f"Backbones: {listed(settings['backbones'])}; arms: {listed(map(arm_title, settings['arms']))}; seeds: "
            f"{listed(settings['seeds'])}. {done} of {len(cells)} cells are finished. "
            f"{films}{counted(settings['epochs'], 'epoch')}, batches of {settings['bs']}, base rate "
            f"{settings['lr']:g}{searched}; the {settings['epoch_rule']} epoch is scored, at a threshold of .5 where "
            f"nothing else is said. {sides}.")

def plan_note(
    plan:dict, # of `read_plan`
    out:Path,  # folder of all studies, which knows what was looked at
) -> str:
    "What was said before the first cell, and how often its test rows were looked at, where the ledger is there."
    known = "The ledger of looks at these test rows isn't beside this study's folder."
    if (out/"ledger.csv").exists():
        known = f"Results on these test rows that {out.resolve().name} knows of: {looks(out, plan['test_rows'])}."
    asked = "no primary comparison"
    if plan["primary"]: asked = (f"primary comparison: {' to '.join(map(arm_title, plan['primary']))}, by AUC, "
                                 f"two-sided at {plan['alpha']:.1%} over the backbones")
    return (f"The plan ({plan['digest']}) was written at {plan['time']}: backbones {listed(plan['backbones'])}; arms "
            f"{listed(map(arm_title, plan['arms']))}; seeds {listed(plan['seeds'])}; {asked}. All else is "
            f"exploratory. {known}")

def _lacking(arm, settings, finished):
    "Why an arm of a backbone can't be compared; '' where nothing is in the way."
    if arm not in settings["arms"]: return f"{arm_title(arm)} is no arm of this study"
    if arm not in finished: return f"no cell of {arm_title(arm)} is finished"
    return ""

def not_compared(
    study:object, # with `settings comparisons predictions`
    pair:tuple,   # of arms; none where nothing was planned
):
    "Why there is no verdict on a planned comparison, a sentence a backbone that lacks it; none where it is there."
    if not pair: return
    table, title = study.comparisons, " and ".join(map(arm_title, pair))
    there = set(zip(table["backbone"], table["before"], table["after"])) if len(table) else set()
    for backbone in study.settings["backbones"]:
        if (backbone, *pair) in there: continue
        finished = set(study.predictions["arm"][study.predictions["backbone"] == backbone])
        why = filter(None, (_lacking(arm, study.settings, finished) for arm in pair))
        yield f"{backbone}: {title} aren't compared, as {' and '.join(why) or 'no seed of both is finished'}."
