"""Synthetic films on a study's page: beside the films they were made from, beside the nearest of training, and judged.
No torch."""
import numpy as np
import pandas as pd

from ..cohort.radiograph import read_radiograph
from ..cohort.synthetic import read_manifest
from ..core.csvs import read_csv
from .figures import plot_curves
from .html import Page, page_film
from .notes import generator_notes, translator_of
from .translators import alarm_notes, NOTED, translator_notes

SIDE, SHOWN = 192, 4 # pixels of a film, and how many are shown

def synthetic_sections(
    study:object, # its files, as `report` reads them
    page:Page,    # to which it is written
):
    "Films of each translator, and every quality.csv."
    page.section("Synthetic films")
    folders = [study.out/o for o in study.cells["gan"].dropna().unique()]
    for o in (others := generator_notes(study.settings)): page.text(o)
    if not folders: return None if others else page.text("No arm has synthetic films.")
    for made in {o.parent: o for o in reversed(folders)}.values():
        for o in translator_notes(made.parent, study.settings.get("positive", "minority")): page.text(o)
        for o in alarm_notes(made.parent): page.text(o, "warn")
        _shown(made, page)
    unseen = study.settings["protocol"] == "clean"
    why = ("there were too few films to judge by, or it has gone." if unseen else
           f"its {translator_of(study.settings).title} saw every row, and no real film is left to judge by.")
    judged = [o for o in folders if (o/"quality.csv").exists()]
    for o in sorted({*folders} - {*judged}): page.text(f"{o.parent.name}/{o.name} holds no quality.csv: {why}")
    if judged: page.table(*_quality(judged), "of", main=("figure", "value", "floor", "n", "features"))

def _quality(judged):
    "The quality.csv of all folders as one table, and its caption."
    ends = dict(low="value_low", high="value_high")
    tables = [read_csv(o/"quality.csv").rename(columns=ends).assign(of=f"{o.parent.name}/{o.name}") for o in judged]
    table, before = pd.concat(tables), "valid and test" # of a version that didn't say
    table = table.drop(columns="meaning", errors="ignore")
    sides = table["judged_on"].fillna(before).unique() if "judged_on" in table else [before]
    return table, (f"Synthetic films against real ones of the {', '.join(sides)} rows; floor: real ones against one "
                   "another")

def _film(file, title, caption): return page_film(read_radiograph(file, SIDE), title, caption)

def _pairs(made):
    "Each film, then what was made of it: some, the same each time."
    synth = read_manifest(made)
    for o in synth.iloc[np.random.default_rng(0).permutation(len(synth))[:SHOWN]].itertuples():
        moved = ", a little moved" if o.zoom != 1 else ""
        yield _film(o.source_file, "Real", o.source_image)
        yield _film(o.file, f"Synthetic {o.label}", f"{o.image}, made of {o.source_image}{moved}")

def _nearest(table):
    "The synthetic films that are nearest to a training film, each before that film."
    for o in table.nsmallest(SHOWN, "distance_features").itertuples():
        far = f"{o.distance_features:.2f} by features, {o.distance_pixels:.2f} by pixels"
        yield _film(o.file, "Synthetic", f"the nearest training film is {far} away")
        yield _film(o.nearest_file_features, "Nearest", "of training")

def _shown(made, page):
    "What the translator of a folder of films did; `page` is told where films can't be shown."
    gan = made.parent
    try:
        pairs = [*_pairs(made)]
        page.text(f"Films of {gan.name}/{made.name}, each behind the real one that it was made of, as the paper's "
                  "Fig. 2.")
        page.films(pairs)
        if (near := made/"memorised.csv").exists():
            table = read_csv(near)
            pairs = [*_nearest(table)]
            page.text(f"Those nearest to a training film. Two real patients are at least "
                      f"{table['real_features'].iloc[0]:.2f} (features: {table['features'].iloc[0]}) and "
                      f"{table['real_pixels'].iloc[0]:.2f} (pixels) apart.")
            page.films(pairs)
    except (OSError, ValueError) as e: page.text(f"The films of {gan.name} can't be shown: {e}", "warn")
    for file in gan.glob("history.csv"):
        history = read_csv(file).drop(columns=NOTED, errors="ignore")
        losses = [o for o in history if not o.startswith("acc")]
        page.figures([(f"epochs-{gan.name}", plot_curves(history, losses, gan.name),
                       f"Losses of {gan.name}, and how often its discriminators are right.")])
