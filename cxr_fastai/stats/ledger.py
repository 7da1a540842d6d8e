"""What a study said before its first cell that it would do, and every look at its test rows: `plan.json`, `ledger.csv`.

A plan is written once for a set of test rows and never changed: what comes later is held against it, and whatever it
doesn't name is exploratory. A line of the ledger is a look: results that nobody had seen before. No torch."""
import hashlib, json
from datetime import datetime, timezone
from pathlib import Path

import pandas as pd
from filelock import FileLock

from ..arms import primary_of
from ..core.csvs import read_text, write_csv
from ..core.files import few, write_json
from ..settings import PRIMARY

__all__ = ["declare_plan", "last_look", "look_at", "looks", "mark_plan", "mark_scores", "read_plan",
           "rows_digest"]

ALPHA = .05 # where nobody says another
SETTLED = ("folds repeats protocol size epochs bs lr precision epoch_rule fusion ps tuned synthetic metadata "
           "cat_names cont_names split_seed gan gan_epochs gan_size "
           "data_digest").split() # changed after a look: another study

def rows_digest(
    rows:pd.DataFrame, # test rows, with `image` and `patient_id`
) -> str:              # 16 hex letters
    "Which rows they are, in whatever order; it names nobody."
    names = sorted(f"{image}\t{who}" for image, who in zip(rows["image"], rows["patient_id"]))
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]

def _now(): return datetime.now(timezone.utc).isoformat(timespec="seconds")

def _plain(settings): return json.loads(json.dumps(settings, default=str))

def _digest(plan):
    text = json.dumps({k: v for k, v in plan.items() if k != "digest"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]

def read_plan(
    file:str|Path, # plan.json
) -> dict:
    "A plan as it was written. ValueError where it was changed since, or is none."
    try: plan = json.loads(Path(file).read_text(encoding="utf-8"))
    except ValueError: plan = {}
    if isinstance(plan, dict) and plan.get("digest") == _digest(plan): return plan
    raise ValueError(f"{file} isn't as it was written before the study began: put it back, or begin in another folder.")

def _file(out, test):
    "Of the plan for these test rows: `plan.json` for the first that a folder holds, another name for others."
    first = Path(out)/"plan.json"
    return first if not first.exists() or read_plan(first)["test_rows"] == test else Path(out)/f"plan-{test}.json"

def _alone(out):
    Path(out).mkdir(parents=True, exist_ok=True)
    return FileLock(Path(out)/".plan.lock")

def declare_plan(
    out:str|Path,      # folder of everything
    about:dict,        # `Study.about`: backbones, arms, seeds, and all settings
    test:pd.DataFrame, # the test rows
    *,
    primary:tuple=None,# (before, after), the one comparison that the verdict is about; None: `arms.primary_of`
    alpha:float=None,  # its error rate, two-sided, over the backbones; None: .05
    finished:int=0,    # cells of the study that are finished already
) -> dict:             # the plan: this one, or that which stood before
    "Write what is planned for these test rows, with a digest and the time; a plan that is there is kept."
    rows, about = rows_digest(test), _plain(about)
    with _alone(out):
        if (file := _file(out, rows)).exists(): return read_plan(file)
        pair = primary or primary_of(about["arms"])
        asked = {o: about[o] for o in ("backbones", "arms", "seeds")}
        plan = dict(time=_now(), **asked, primary=pair and list(pair), alpha=alpha or ALPHA, test_rows=rows,
                    test_images=len(test), finished_before=finished, looks_before=looks(out, rows), settings=about)
        plan |= dict(digest=_digest(plan))
        write_json(file, plan)
        return plan

def looks(
    out:str|Path, # folder of everything
    test:str,     # `rows_digest` of the test rows
) -> int:
    "How many results of these test rows were looked at, as far as this folder knows."
    file = Path(out)/"ledger.csv"
    return int((read_text(file, strip=False)["test_rows"] == test).sum()) if file.exists() else 0

def last_look(
    out:str|Path, # folder of everything
    study:str,    # the study's folder
) -> str:         # a time, None where the ledger doesn't know
    "When a study's results were found."
    file = Path(out)/"ledger.csv"
    if not file.exists(): return None
    table = read_text(file, strip=False)
    times = table.loc[table["study"] == study, "time"]
    return None if times.empty else times.iloc[-1]

def look_at(
    out:str|Path,      # folder of everything
    test:pd.DataFrame, # the test rows
    *,
    study:str,         # the study's folder
    settings:str,      # a digest of its settings
    results:str,       # and of what was found
) -> int:              # looks at these rows, with this one
    "Add a line to the ledger, unless these very results stand in it."
    line = pd.DataFrame([dict(time=_now(), test_rows=rows_digest(test), test_images=len(test), study=study,
                              settings=settings, results=results)])
    file, same = Path(out)/"ledger.csv", ["test_rows", "results"]
    with _alone(out):
        known = read_text(file, strip=False) if file.exists() else line.head(0)
        if not (known[same] == line[same].iloc[0]).all(axis=1).any():
            write_csv(pd.concat([known, line]), file)
        return looks(out, line["test_rows"][0])

def _departures(plan, about):
    "What holds for all of a study, and isn't as planned."
    if n := plan["finished_before"]: yield f"the plan was written when {n} cells were finished"
    if n := plan["looks_before"]: yield f"the plan was written after {n} looks at these test rows"
    for o in SETTLED:
        was = plan["settings"].get(o, about.get(o)) # a plan of before knew no such setting
        if was != about.get(o): yield f"{o} {about.get(o)}, planned {was}"
    for o, file in about["weights_of"].items():
        was = plan["settings"]["weights_of"].get(o, file)
        if was != file: yield f"weights of {o} {file}, planned {was}"

def _added(plan, backbone, arms, seeds):
    "What of a line of a table wasn't planned."
    asked = dict(backbones=[backbone], arms=arms, seeds=seeds)
    for what, names in asked.items():
        if extra := [o for o in names if o not in plan[what]]: yield f"{what[:-1]} {few(extra)} added"

def mark_plan(
    comparisons:pd.DataFrame, # of `compare_arms`
    plan:dict,                # of `declare_plan`
    about:dict,               # `Study.about`
    *,
    primary:tuple=None,       # another primary comparison than the plan's: it is exploratory
    alpha:float=None,         # another error rate: so is this
) -> pd.DataFrame:            # and `primary exploratory interim alpha planned_backbones protocol`
    """Hold comparisons against the plan: which is the primary one; what is exploratory, and why; of which planned seeds
    nothing is known yet. 'no' where all is as planned."""
    about, planned = _plain(about), plan["primary"] and tuple(plan["primary"])
    pair, all_of_it = tuple(primary or planned or PRIMARY), list(_departures(plan, about))
    if pair != planned: all_of_it.append("the primary comparison wasn't planned")
    if alpha and alpha != plan["alpha"]: all_of_it.append(f"alpha {alpha:g}, planned {plan['alpha']:g}")
    lines = []
    for row in comparisons.itertuples():
        seeds = [int(o) for o in row.of_seeds.split(", ")]
        why = [*_added(plan, row.backbone, [row.before, row.after], seeds), *all_of_it]
        lost = [o for o in plan["seeds"] if o not in seeds]
        lines.append(dict(primary="yes" if (row.before, row.after) == pair else "no", exploratory=few(why) or "no",
                          interim=f"seed {few(lost)} missing" if lost else "no"))
    marks = pd.DataFrame(lines, comparisons.index, ["primary", "exploratory", "interim"]).assign(
        alpha=alpha or plan["alpha"], planned_backbones=len(plan["backbones"]), protocol=about["protocol"])
    which = ["backbone", "before", "after"]
    return pd.concat([comparisons[which], marks, comparisons.drop(columns=which)], axis=1)

def mark_scores(
    table:pd.DataFrame,       # of `score_table`
    predictions:pd.DataFrame, # that it was made of
    plan:dict,                # of `declare_plan`
    about:dict,               # `Study.about`
) -> pd.DataFrame:            # and `exploratory`: why an arm's scores are, or 'no'
    "What of an arm's scores wasn't planned."
    general, why = list(_departures(plan, _plain(about))), {}
    for (backbone, arm), own in predictions.groupby(["backbone", "arm"]):
        why[backbone, arm] = few([*_added(plan, backbone, [arm], own["seed"].unique().tolist()), *general]) or "no"
    return table.assign(exploratory=[why[o] for o in zip(table["backbone"], table["arm"])])
