"""What a report opens with: whom a study is about, its verdict, one forest, Table 1, and four films. No torch."""
import re
from datetime import datetime
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pandas as pd

from ..arms import arm_title
from ..cohort.radiograph import read_radiograph
from ..cohort.sampling import test_rows
from ..core.style import arm_colours
from ..stats.compare import claims
from ..stats.ledger import last_look, PRIMARY
from ..stats.shortcuts import SHORTCUTS
from ..stats.tables import RESTS_ON
from .elsewhere import external_best
from .forest import Line, panel
from .html import Page, page_film
from .notes import column_names, counted, not_compared

OWN, BOTH = "[95% interval of these models: the luck of the test patients]", "procedure: the luck of training, too"
SIDE = 320 # of an example film, pixels

def study_title(
    settings:dict, # of a study
) -> str:
    "Positive against negative."
    return f"{settings['positive']} against {settings['negative']}"

def _date(study):
    "When its results were found; when it was planned, where no ledger knows; None of a version before."
    if time := last_look(study.out, study.folder.name): return f"results of {_day(time)}"
    return f"planned on {_day(study.plan['time'])}" if study.plan else None

def _day(time):
    day = datetime.fromisoformat(time)
    return f"{day.day} {day:%B %Y}"

def _patients(rows): return f"{counted(len(rows), 'film')} of {counted(rows['patient_id'].nunique(), 'patient')}"

def about_study(
    study:object, # its files, as `report` reads them
) -> list:        # lines
    "Which data, how many films, which models, and when."
    settings, test = study.settings, test_rows(study.rows)
    data = Path(settings["data"] or "a table").name
    asked = [counted(len(settings[o]), o[:-1]) for o in ("arms", "backbones", "seeds")]
    if settings.get("folds"): asked.append(counted(settings["folds"], "fold"))
    return [f"{data}: {_patients(study.rows)}; in test {_patients(test)}",
            "; ".join(filter(None, [", ".join(asked), _date(study)]))]

def opening(
    study:object, # its files, as `report` reads them
    page:Page,    # to which it is written
):
    "The sections that a report doesn't fold away."
    _verdict(study, page)
    _forest(study, page)
    page.section("Table 1", fold=False).table(*_table1(study), main=TABLE1)
    _films(study, page)

def _verdict(study, page):
    page.section("Verdict", fold=False)
    for claim, rest in claims(study.comparisons, plan=study.plan): page.text(claim, "verdict", rest)
    for o in not_compared(study, study.plan["primary"] if study.plan else PRIMARY): page.text(o)
    for o in _unbeaten(study): page.text(o, "warn")
    for o in external_best(study.folder): page.text(o)
    if failed := study.cells["error"].notna().sum():
        page.text(f"{counted(failed, 'cell')} of {len(study.cells)} failed, and no table counts them: 'Failed cells' "
                  "says why.", "warn")

def _unbeaten(study):
    "A sentence a backbone with arms that don't beat a shortcut: how many, and the strongest of these."
    if (table := study.table("against_shortcuts")) is None: return
    for backbone, own in table.groupby("backbone", sort=False):
        lost = own[own["beats"] == "no"].sort_values("auc_shortcut", ascending=False, kind="stable")
        if lost.empty: continue
        best = lost.iloc[0]
        yield (f"{backbone}: {lost['arm'].nunique()} of {counted(own['arm'].nunique(), 'arm')} do not beat a shortcut, "
               f"of which the strongest is {SHORTCUTS[best['shortcut']].title} (AUC {best['auc_shortcut']:.3f}): see "
               "'Shortcuts'.")

# The forest

def _ends(words):
    "A value and its interval of a table in words; nan where it has none."
    found = re.match(r"(-?[\d.]+)(?: \[(-?[\d.]+), (-?[\d.]+)\])?", str(words))
    return [float(o) if o else np.nan for o in (found.groups() if found else [None]*3)]

def _areas(study):
    "A group of lines a backbone, then the shortcuts."
    colours, groups = arm_colours(study.settings["arms"]), {}
    titles = {arm_title(o): colours[o] for o in study.settings["arms"]}
    for backbone, own in study.metrics.groupby("backbone", sort=False):
        groups[backbone] = [Line(arm, *_ends(area), titles.get(arm, "#000000"))
                            for arm, area in zip(own["arm"], own["rocauc"])]
    if (probes := study.table("shortcut_table")) is not None:
        groups["Shortcuts, which see no disease"] = [Line(o.shortcut, *_ends(o.AUC), "#808080")
                                                     for o in probes.itertuples() if o.AUC != "-"]
    return {title: kept for title, own in groups.items() if (kept := [o for o in own if not np.isnan(o.value)])}

def _line(label, o, value="rocauc", **kwargs):
    ends = (f"{value}_low", f"{value}_high") if value == "rocauc" else ("low", "high")
    return Line(label, getattr(o, value), *(getattr(o, k) for k in ends), **kwargs)

def _differences(study):
    "A group of lines a backbone: its comparisons; then each arm against the best shortcut."
    colours, groups = arm_colours(study.settings["arms"]), {}
    by = ["backbone", "before"]
    for (backbone, before), own in study.comparisons.groupby(by, sort=False) if len(study.comparisons) else ():
        groups[f"{backbone}, from {arm_title(before)}"] = [
            _line(arm_title(o.after), o, colour=colours[o.after]) for o in own.itertuples() if not np.isnan(o.rocauc)]
    if (table := study.table("against_shortcuts")) is not None:
        best = table.sort_values("auc_shortcut", ascending=False, kind="stable")
        best = best[~best.duplicated(["backbone", "arm"])].sort_index()
        for (backbone, shortcut), own in best.groupby(["backbone", "shortcut"], sort=False):
            groups[f"{backbone}, from the best shortcut: {SHORTCUTS[shortcut].title}"] = [
                _line(arm_title(o.arm), o, "difference", colour=colours[o.arm]) for o in own.itertuples()]
    return {title: own for title, own in groups.items() if own}

def _forest(study, page):
    areas, differences = _areas(study), _differences(study)
    panels = []
    if areas: panels.append(panel(f"Area under the ROC curve {OWN}; the line is guessing", areas, "arm", "ROC-AUC",
                                  marks=[.5], ends=[1]))
    if differences: panels.append(panel("Its difference [95% interval of patients, and of seeds where there are "
        "several]; left of the line is a loss", differences, "to", "difference", marks=[0], sign="+"))
    page.section("ROC-AUC by arm", fold=False).forest(panels)

# Table 1, a line an arm

TABLE1 = "arm", "recall", "procedure", "gain", "rocauc", "specificity"

def _table1(study):
    "The paper's table as it fits a page: an arm a line; all of it is `table1.csv`."
    by, lines = study.metrics.set_index(["backbone", "arm"]), []
    for o in study.table1.to_dict("records"):
        for arm in (k for k in o if f"{k} procedure" in o and not pd.isna(o[k])):
            gains = [f"{o[k]}" for k in o if re.fullmatch(rf"Gain .* to {re.escape(arm)}", k) and not pd.isna(o[k])]
            own = by.loc[(o["Model"], arm)]
            lines.append(dict(backbone=o["Model"], arm=arm, recall=o[arm], procedure=o[f"{arm} procedure"],
                              gain="; ".join(gains) or "-", rocauc=own["rocauc"], specificity=own["specificity"],
                              **{k: o[k] for k in RESTS_ON if k in o}))
    said = f"Recall on the test rows at .5 {OWN}; {BOTH}; gain: of recall, relative to the arm with one source less"
    return pd.DataFrame(lines), said

# Films

CASES = ((1, True, "found"), (1, False, "missed"), (0, True, "called wrongly"), (0, False, "cleared"))

def _focus(study):
    "The arm by which films are chosen: the one that the verdict is about, else the best by AUC; of its first backbone."
    there = study.predictions["arm"].unique()
    pair = (study.plan["primary"] if study.plan else PRIMARY) or ()
    if pair and pair[1] in there: return pair[1]
    areas = study.metrics.assign(area=[_ends(o)[0] for o in study.metrics["rocauc"]])
    best = areas.loc[areas["area"].idxmax(), "arm"] if areas["area"].notna().any() else None
    return next((o for o in there if arm_title(o) == best), there[0])

def _said(study):
    "Mean over seeds of each real test film: a line a film, columns (backbone, arm)."
    own = study.predictions[(study.predictions["side"] == "test") & ~study.predictions["synthetic"]]
    return own.groupby(["image", "label", "backbone", "arm"], sort=False)["probability"].mean().unstack([2, 3])

def _from_the_middle(films): return sorted(films, key=lambda o: abs(films.index(o) - (len(films) - 1)//2))

def _examples(said, focus):
    """(image, label, what it is) of four films: of each case the one whose probability is the middle one; where a case
    has none, another of those that have."""
    prob = said.xs(focus, axis=1, level=1).iloc[:, 0].dropna().sort_index().sort_values(kind="stable")
    label, called = prob.index.get_level_values("label"), prob > .5
    cases = [[(*o, what) for o in _from_the_middle([*prob.index[(label == k) & (called == hit)]])]
             for k, hit, what in CASES]
    shown = [o for rank in zip_longest(*cases) for o in rank if o][:len(CASES)]
    return sorted(shown, key=lambda o: [what for *_, what in CASES].index(o[2]))

def _films(study, page):
    said, focus = _said(study), _focus(study)
    page.section("Four films", fold=False).text(
        f"Of the test films that {arm_title(focus)} finds, misses, calls wrongly and clears, those in the middle by "
        f"their probability, with the probability of {study.settings['positive']} by each arm"
        f"{', mean over seeds' if study.predictions['seed'].nunique() > 1 else ''}"
        f"{', a dot a backbone' if study.predictions['backbone'].nunique() > 1 else ''}.")
    rows = study.rows.assign(image=study.rows["image"].astype(str)).drop_duplicates("image").set_index("image")
    shown, lost = [], []
    for image, label, what in _examples(said, focus):
        try: film = read_radiograph(rows.loc[image, "file"], SIDE)
        except (OSError, ValueError, KeyError) as e: lost.append(f"The film {image} can't be shown: {e}")
        else: shown.append(_film(study, rows.loc[image], film, said.loc[(image, label)], (label, what)))
    page.films(shown)
    for o in lost: page.text(o, "warn")

def _film(study, row, film, said, case):
    "One, with what is known of its patient, and what each arm said."
    label, what = case
    name, colours = study.settings["positive" if label else "negative"], arm_colours(study.settings["arms"])
    known = [f"{k} {row[k]:g}" if isinstance(row[k], (int, float)) else f"{k} {row[k]}"
             for k in column_names(study.settings) if k in row and not pd.isna(row[k])]
    lines = []
    for arm in said.index.get_level_values("arm").unique():
        dots = said.xs(arm, level="arm").dropna().tolist()
        if dots: lines.append(Line(arm_title(arm), np.mean(dots), colour=colours[arm], dots=tuple(dots)))
    said = panel("", {"": lines}, "arm", "said", marks=[.5], ends=[0, 1], most=2)
    return page_film(film, f"{name}, {what}", ", ".join([row.name, *known]), said)
