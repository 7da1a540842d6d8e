"""A study from a folder of radiographs to its tables: the paper's Table 1, all metrics, comparisons, subgroups."""
import hashlib, inspect, time
from pathlib import Path

import pandas as pd

from ..arms import comparisons_of, is_plain, parse_arm
from ..cohort.folder import data_digest, DATA_FLAGS, flow_table, flow_text, load_cohort
from ..cohort.groups import with_groups
from ..cohort.rows import columns_of, save_rows
from ..cohort.sampling import test_rows
from ..core.csvs import write_csv
from ..core.extras import need
from ..core.files import atomic, bar_fits, few, say, write_json
from ..core.progress import duration
from ..core.words import Words
from ..fit.distributed import agreed, is_first
from ..models.weights import check_names
from ..settings import listed, Plan, PRIMARY, plan_of, settings_digest, takes
from ..stats.compare import compare_arms, correct
from ..stats.folds import fold_table
from ..stats.formats import save_table
from ..stats.labels import films_to_reread, label_noise, noise_table
from ..stats.ledger import look_at, mark_plan, mark_scores
from ..stats.predictions import seeds_of_all_arms
from ..stats.prevalence import check_prevalence, prevalence_table
from ..stats.shortcuts import shortcut_tables
from ..stats.subgroups import interactions, subgroups
from ..stats.tables import gains_of, metrics_table, score_tables, table1
from .cell import CellError
from .estimate import estimate_text
from .external import read_external, recorded_external, save_external
from .films import marked
from .grid import Study
from .judged import save_films
from .printed import plan_text, print_study
from .tune import trials_of, tuned_plan

__all__ = ["run_study", "save_study"]

def _pairs(study, declared):
    "What is compared; the primary comparison first."
    primary = tuple(study.plan.primary or declared["primary"] or PRIMARY)
    others = [o for o in comparisons_of(study.arms) if tuple(o) != primary]
    return [primary, *others] if set(primary) <= set(study.arms) else others

def _table1(predictions, scored, compared, score):
    "Table 1 over the seeds that all its arms have, so that a gain is over the seeds of its recalls."
    plain = predictions[predictions["arm"].map(is_plain)]
    kept = seeds_of_all_arms(plain)
    if len(kept) == len(plain): return table1(scored, compared)
    return table1(score(kept), compare_arms(kept, gains_of(kept["arm"])))

def _tables(study, rows, predictions, cells, declared, prevalence, groups, relabel):
    "All that a study prints, and what lies behind it, by name."
    plan, about = study.plan, study.about
    own = dict(primary=plan.primary, alpha=plan.alpha)
    compared = correct(mark_plan(compare_arms(predictions, _pairs(study, declared)), declared, about, **own))
    def score(lines):
        known = pd.MultiIndex.from_frame(lines[study.keys]).unique()
        mine = cells[pd.MultiIndex.from_frame(cells[study.keys]).isin(known)]
        both = score_tables(lines, mine, epoch_rule=plan.training.epoch_rule, protocol=plan.protocol)
        return [mark_scores(o, lines, declared, about) for o in both]
    scored, by_seed = score(predictions)
    names = list(dict.fromkeys([*plan.training.cat_names, *plan.training.cont_names, *groups]))
    noise = label_noise(scored)
    plain = dict(flow=flow_table(rows), cells=cells, predictions=predictions, scores=scored, scores_by_seed=by_seed,
                 label_noise=noise)
    printed = dict(table1=_table1(predictions, scored, compared, lambda o: score(o)[0]), metrics=metrics_table(scored),
                   comparisons=compared, subgroups=subgroups(predictions, rows, names),
                   interactions=interactions(predictions, rows, names), noise_table=noise_table(noise))
    if plan.folds: printed |= dict(folds=fold_table(predictions))
    if prevalence is not None: printed |= dict(prevalence=prevalence_table(predictions, cells, prevalence))
    if len(trials := trials_of(plan, study.out)): plain |= dict(tune=trials)
    if relabel: plain |= dict(relabel=films_to_reread(predictions))
    kept, shown = shortcut_tables(study.splits if plan.folds else rows, predictions, plan.training.size)
    return plain | kept, printed | shown

def save_study(
    study:Study, # after `run`
    prevalence:float=None, # share of positives where a model would be used; None: nothing is said about it
    groups=(),   # columns of its rows, or of their csv, that make subgroups beside the metadata
    relabel:bool=False, # write `relabel.csv`, the films to read again, too; needs the extra `labels`
    external=(), # NAME=TABLE of rows from elsewhere, on which every cell is validated
) -> Path:       # the study's folder
    """Collect, make the tables, write them; gives the study's folder. Tables of the same cells are not made again.
    CellError where no cell is finished; ValueError for a column of `groups` that isn't there."""
    rows, groups = with_groups(study.split_rows, groups), list(dict.fromkeys(listed(groups or ())))
    outside = read_external(external, study.rows, study.plan)
    predictions, cells = study.collect()
    if predictions is None:
        what = "No seed of an arm has all of its folds" if study.plan.folds else "No cell is finished"
        raise CellError(f"{what}: {few(cells['error'].dropna())}")
    folder, declared, about, plan = study.folder, study.declare(), study.about, study.plan
    if prevalence is not None: about |= dict(prevalence=check_prevalence(prevalence))
    if groups: about |= dict(groups=groups)
    if relabel: about |= dict(relabel=True)
    if outside: about |= dict(external=recorded_external(external))
    results, lines = (hashlib.sha256(o.to_csv().encode()).hexdigest()[:16] for o in (predictions, cells))
    stamp = settings_digest(dict(results=results, cells=lines, plan=declared["digest"], primary=plan.primary,
                                 alpha=plan.alpha, version=about["versions"]["cxr_fastai"], prevalence=prevalence,
                                 groups=groups, relabel=relabel, tuned=plan.training.tuned,
                                 external={k: data_digest(o) for k, o in outside.items()}))
    if (folder/"stamp").exists() and (folder/"stamp").read_text() == stamp: return folder
    others = "stamp relabel.csv tune.csv quality.csv prevalence.* figures/decision-* figures/changed-*".split()
    for o in [file for name in others for file in folder.glob(name)]: o.unlink(missing_ok=True) # of other results
    test, digest = test_rows(rows), settings_digest(about)
    look_at(study.out, test, study=folder.name, settings=digest, results=results)
    for name, o in dict(settings=about, plan=declared).items(): write_json(folder/f"{name}.json", o)
    save_rows(rows, folder/"rows.csv")
    plain, printed = _tables(study, rows, predictions, cells, declared, prevalence, groups, relabel)
    for name, table in plain.items(): write_csv(marked(table, study), folder/f"{name}.csv")
    for name, table in printed.items(): save_table(marked(table, study), folder/name)
    save_films(study, folder)
    pairs = _pairs(study, declared)
    save_external(study, predictions, cells, plain["scores"], plain["shortcut_scores"], pairs, outside, groups, folder)
    with atomic(folder/"stamp") as tmp: tmp.write_text(stamp, encoding="utf-8")
    return folder

PLACES = "data", "images" # data flags that name files

def _recorded(cohort):
    "Every data flag, for `settings.json`: as it finds the same rows from any folder."
    own = inspect.signature(load_cohort).parameters
    every = {o: cohort.get(o, own[o].default) for o in DATA_FLAGS}
    where = {o: every.get(o) for o in PLACES if every.get(o) not in (None, "phantom")}
    return every | {k: str(Path(o).absolute()) for k, o in where.items() if Path(o).exists()}

def without_metadata(
    plan:Plan,         # of a study
    rows:pd.DataFrame, # its cohort
) -> Plan:             # the same, unless the rows have no metadata
    "Leave out, aloud, the arms that read metadata, where the rows have none. ValueError where no other is asked for."
    if sum(columns_of(rows).values(), []): return plan
    seeing = [o for o in plan.arms if parse_arm(o).use == "image"]
    if not (blind := [o for o in plan.arms if o not in seeing]): return plan
    said = f"These data have no metadata, which the arms {few(blind, 9)} read"
    if not seeing: raise ValueError(f"{said}: ask for arms of the image alone, as --arms real,real-synth.")
    say(f"{said}: they are left out.")
    return plan.replace(arms=seeing)

@takes(plan_of, load_cohort)
def run_study(
    backbones:Words="resnet50,densenet121,vgg16", # timm names; resnet50=FILE has weights of its own
    *,
    workers:int=1,         # cells at a time on this machine
    ray:str=None,          # address of a Ray cluster to run on: 'auto', 'host:port', 'local'
    gpus:float=None,       # that each cell asks Ray for; one where the cluster has any, if not given
    track:Words="",        # watch it in 'tensorboard', 'wandb', 'mlflow', or several with commas
    out:str="runs",        # folder of everything
    prevalence:float=None, # share of positives where a model would be used, for predictive values and net benefit
    groups:Words="",       # columns of the table that make subgroups beside the metadata, with commas: 'site,source'
    relabel:bool=False,    # write relabel.csv, the films whose label is to be read again (extra labels)
    external:Words="",     # NAME=TABLE,...: labelled rows from elsewhere, on which every cell is validated, too
    dry_run:bool=False,    # say what there is to do, its minutes and GB by a few measured steps, and do none of it
    **flags,
) -> Path:                 # the study's folder, for `report`; None of a dry run
    "Run a grid of backbones, arms and seeds on one split, or go on with it; print Table 1 and what the data support."
    start = time.time()
    if prevalence is not None: check_prevalence(prevalence)
    if flags.get("tune"): need("optuna", extra="tune", what="--tune")
    if relabel: need("cleanlab", extra="labels", what="--relabel")
    cohort = {o: flags.pop(o) for o in DATA_FLAGS if o in flags}
    plan = plan_of(backbones=backbones, **flags)
    if plan.sees: check_names(plan.weights_of) # before a table is read
    if plan.folds and cohort.get("split_column"):
        raise ValueError("--split-column is one split, and --folds makes others: give one of both.")
    rows = load_cohort(**cohort, split_seed=plan.split_seed)
    with_groups(rows, groups) # a wrong name is said now
    plan = without_metadata(plan, rows)
    read_external(external, rows, plan) # so is what is wrong with another table
    if plan.tune: plan = tuned_plan(plan, rows, out, search=not dry_run)
    data = cohort.get("data", "phantom")
    study = Study(rows, plan, out, data="phantom (drawn)" if data == "phantom" else data, track=track,
                  cohort=_recorded(cohort))
    flow = flow_text(study.rows if plan.folds else rows) # of one split, as it was made
    say(f"\n{flow}\n\n{plan_text(study)}", flush=True)
    if dry_run: return say(f"\n{estimate_text(study, workers)}")
    one = len(study.backbones) == len(study.seeds) == 1 # its epochs are of interest, where no bar shows them
    study.run(workers=workers, ray=ray, gpus=gpus, loud=one and workers == 1 and not ray and not bar_fits())
    folder = agreed(lambda: save_study(study, prevalence, groups, relabel, external))
    if not is_first(): return folder
    print_study(folder)
    say(f"\n{duration(time.time() - start)}. Everything is in {folder}")
    return folder
