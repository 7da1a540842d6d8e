"""A study from a folder of radiographs to its tables: the paper's Table 1, all metrics, comparisons, subgroups."""
import hashlib, time
from pathlib import Path

import pandas as pd

from ..arms import ARMS, comparisons_of, expand_arms
from ..cohort.folder import flow_table, flow_text, load_cohort
from ..cohort.rows import read_rows, save_rows
from ..core.csvs import read_csv, write_csv
from ..core.files import atomic, few, read_json, say, write_json
from ..fit.distributed import agreed, is_first
from ..report.notes import drawn_note, leaky_note
from ..settings import _listed, _numbers, settings_digest
from ..stats.compare import compare_arms, correct, verdict
from ..stats.formats import save_table, to_markdown
from ..stats.ledger import look_at, looks, mark_plan, mark_scores, PRIMARY, read_plan
from ..stats.predictions import seeds_of_all_arms
from ..stats.prevalence import check_prevalence, prevalence_table, sampling_note
from ..stats.subgroups import interactions, subgroups
from ..stats.tables import GAINS, metrics_table, score_tables, table1
from .cell import CellError
from .grid import Study

__all__ = ["print_study", "run_study", "save_study"]

def _pairs(study, plan):
    "What is compared; the primary comparison first."
    primary = tuple(study.primary or plan["primary"] or PRIMARY)
    pairs = comparisons_of(study.arms)
    return [primary] * (set(primary) <= set(study.arms)) + [o for o in pairs if tuple(o) != primary]

def _table1(predictions, scored, compared, score):
    "Table 1 over the seeds that all its arms have, so that a gain is over the seeds of its recalls."
    plain = predictions[predictions["arm"].isin(ARMS)]
    kept = seeds_of_all_arms(plain)
    if len(kept) == len(plain): return table1(scored, compared)
    return table1(score(kept), compare_arms(kept, GAINS))

def _leaky(table, study):
    "By the protocol 'paper', the table with a column that says so, where it has none."
    if study.protocol == "clean" or table.empty or "protocol" in table: return table
    return table.assign(protocol=study.protocol)

def save_study(
    study:Study, # after `run`
    prevalence:float=None, # share of positives where a model would be used; None: nothing is said about it
) -> Path:       # the study's folder
    """Collect, make the tables, write them; gives the study's folder. Tables of the same cells are not made again.
    CellError where no cell is finished."""
    predictions, cells = study.collect()
    if predictions is None: raise CellError(f"No cell is finished: {few(cells['error'])}")
    folder = study.out/f"study-{settings_digest({str(k): c.folder.name for k, c in study.cells.items()})}"
    plan, about = study.plan(), study.about
    if prevalence is not None: about |= dict(prevalence=check_prevalence(prevalence))
    results, listed = (hashlib.sha256(o.to_csv().encode()).hexdigest()[:16] for o in (predictions, cells))
    stamp = settings_digest(dict(results=results, cells=listed, plan=plan["digest"], primary=study.primary,
                                 alpha=study.alpha, version=about["versions"]["cxr_fastai"],
                                 prevalence=prevalence))
    if (folder/"stamp").exists() and (folder/"stamp").read_text() == stamp: return folder
    for o in (folder/"stamp", *folder.glob("prevalence.*"), *folder.glob("figures/decision-*")): # of other results
        o.unlink(missing_ok=True)
    rows = study.split_rows
    test = rows[rows["split"] == "test"]
    look_at(study.out, test, study=folder.name, settings=settings_digest(about), results=results)
    for name, o in dict(settings=about, plan=plan).items(): write_json(folder/f"{name}.json", o)
    save_rows(rows, folder/"rows.csv")
    marked = lambda table: mark_plan(table, plan, about, primary=study.primary, alpha=study.alpha)
    compared = correct(marked(compare_arms(predictions, _pairs(study, plan))))
    def score(lines):
        known = pd.MultiIndex.from_frame(lines[["backbone", "arm", "seed"]]).unique()
        own = cells[pd.MultiIndex.from_frame(cells[["backbone", "arm", "seed"]]).isin(known)]
        both = score_tables(lines, own, epoch_rule=study.epoch_rule, protocol=study.protocol)
        return [mark_scores(o, lines, plan, about) for o in both]
    scored, by_seed = score(predictions)
    names = [*study.cat_names, *study.cont_names]
    plain = dict(flow=flow_table(rows), cells=cells, predictions=predictions, scores=scored, scores_by_seed=by_seed)
    for name, table in plain.items():
        write_csv(_leaky(table, study), folder/f"{name}.csv")
    printed = dict(table1=_table1(predictions, scored, compared, lambda o: score(o)[0]), metrics=metrics_table(scored),
                   comparisons=compared,
                   subgroups=subgroups(predictions, rows, names), interactions=interactions(predictions, rows, names))
    if prevalence is not None: printed |= dict(prevalence=prevalence_table(predictions, cells, prevalence))
    for name, table in printed.items(): save_table(_leaky(table, study), folder/name)
    with atomic(folder/"stamp") as tmp: tmp.write_text(stamp, encoding="utf-8")
    return folder

def run_study(
    backbones:str="resnet50,densenet121,vgg16", # timm names; resnet50=FILE has weights of its own
    data:str="phantom",    # 'phantom' (the drawn demo set, not patients) or a folder with NIH's csv and images
    size:int=256,          # side of the square images, pixels
    epochs:int=10,         # training epochs (after a frozen one where the weights are pretrained)
    bs:int=32,             # images a batch
    lr:float=1e-3,         # largest learning rate of the one-cycle schedule
    seeds:str="0",         # of the CycleGAN, initialisation, augmentation and shuffling; '0,1,2' repeats every arm
    arms:str="real,meta,real-meta,real-synth-meta", # which arms, in order; there is real-synth, too
    primary:str="",        # the comparison of the verdict, 'before,after'; the plan's, or Real-Meta to Ensemble
    alpha:float=None,      # its two-sided error rate over the backbones; the plan's, or .05
    rivals:str="",         # of synthesis, without and with metadata: class-weights, oversample, focal, logit-adjust,
                           # mixup, augment, duplicate
    doses:str="",          # Ensembles with that share of the rows that would balance the classes: '0,1/8,1/4,1/2,1'
    policies:str="",       # Ensembles with that metadata of synthetic rows: matched, source, donor, missing, image-only
    fusions:str="",        # Real-Metas that merge so: concat, logits, gated, film, attention
    protocol:str="clean",  # or 'paper': as its figures imply, leaks and all
    epoch_rule:str="last", # the epoch that is scored: 'last' as the paper, or 'best' by the valid rows' AUC
    synthetic:int=None,    # synthetic minority rows; half the majority's training rows where not given
    gan:str="fast",        # 'fast' (for small compute) or 'reference' (as the paper's source: 9 blocks, 200 epochs)
    gan_epochs:int=None,   # epochs of the CycleGAN; as many as `gan` has where not given
    gan_size:int=None,     # side of its images, pixels; `size` where not given
    metadata:str="matched", # of synthetic rows: 'matched', 'source', 'donor', 'missing' or 'image-only'
    fusion:str="concat",   # how image and metadata merge: 'concat', 'logits', 'gated', 'film' or 'attention'
    weights:str="auto",    # 'imagenet', 'none', a local .pth/.safetensors file, or 'auto': imagenet if it can be had
    normals:int=700,       # normals drawn (the paper's 700); all there are where fewer
    followups:bool=False,  # take follow-up visits too, not only the first as the paper does
    split_seed:int=0,      # of the cohort's draw and of the split
    precision:str="auto",  # 'auto' (bf16 where the hardware has it), 'bf16' or 'fp32'
    workers:int=1,         # cells at a time on this machine
    ray:str=None,          # address of a Ray cluster to run on: 'auto', 'host:port', 'local'
    gpus:float=0,          # that each cell asks Ray for
    track:str="",          # watch it in 'tensorboard', 'wandb', 'mlflow', or several with commas
    out:str="runs",        # folder of everything
    prevalence:float=None, # share of positives where a model would be used, for predictive values and net benefit
) -> Path:                 # the study's folder, for `report`
    "Run a grid of backbones, arms and seeds on one split, or go on with it; print Table 1 and what the data support."
    start = time.time()
    if prevalence is not None: check_prevalence(prevalence)
    rows = load_cohort(data, normals, not followups, split_seed)
    names = expand_arms(_listed(arms), _listed(rivals), _listed(doses), _listed(policies), _listed(fusions))
    study = Study(rows, _listed(backbones), names, _numbers(seeds), protocol, out, size, epochs, bs, lr, weights,
                  precision, epoch_rule, fusion, synthetic, metadata, gan, gan_epochs, gan_size, split_seed=split_seed,
                  data="phantom (drawn)" if data == "phantom" else data, track=track,
                  primary=tuple(_listed(primary)) or None, alpha=alpha)
    say(f"\n{flow_text(rows)}\n\n{len(study.cells)} cells; protocol '{protocol}', "
        f"scored at the {epoch_rule} epoch\n", flush=True)
    one = len(study.backbones) == len(study.seeds) == 1 # its epochs are of interest
    loud = one and workers == 1 and not ray
    study.run(workers, ray, gpus=gpus, loud=loud)
    folder = agreed(lambda: save_study(study, prevalence))
    if not is_first(): return folder
    print_study(folder)
    say(f"\n{time.time() - start:.0f} s. Everything is in {folder}")
    return folder

HEADLINES = ["recall", "specificity", "rocauc", "brier", "recall_at_90", # of the many metrics, what is printed
             "recall_with_synthetic", "positives_with_synthetic", "positives_synthetic"] # the last by protocol 'paper'

def print_study(
    folder:str|Path, # of a study
):
    "Table 1, what every arm scored, what the data support, and which cells are missing."
    table = {o: read_csv(Path(folder)/f"{o}.csv") for o in ("table1", "metrics", "comparisons", "cells")}
    say("\nTable 1: recall on the test rows at .5 [95% interval of these models: the luck of the test patients]; "
        f"procedure: the luck of training, too, from two seeds on\n{to_markdown(table['table1'])}")
    seeds = table["cells"].loc[table["cells"]["error"].isna(), "seed"].unique()
    over = "mean over seeds" if len(seeds) > 1 else f"seed {seeds[0]}"
    say(f"\nTest rows, {over} [95% interval of these models]; all else is in {folder}/metrics.md")
    shown = [o for o in HEADLINES if o in table["metrics"]]
    say(to_markdown(table["metrics"][["backbone", "arm", *shown, "weights"]]) + "\n")
    about = read_json(Path(folder)/"settings.json")
    for o in drawn_note(about), leaky_note(about, read_rows(Path(folder)/"rows.csv")): say(o, end="\n" * bool(o))
    if "positives_synthetic" in shown:
        say("Recall is over the real positives alone, recall_with_synthetic over the synthetic ones, too.")
    say(sampling_note(read_csv(Path(folder)/"flow.csv")))
    if (file := Path(folder)/"prevalence.csv").exists():
        at = read_csv(file)
        say(f"\nAt a prevalence of {at['prevalence'].iloc[0]:g} [95% intervals of patients]\n{to_markdown(at)}\n")
    plan = read_plan(Path(folder)/"plan.json")
    say(verdict(table["comparisons"], plan=plan))
    out = Path(folder).parent
    say(f"Results on these test rows that {out} knows of: {looks(out, plan['test_rows'])}.")
    for o in table["cells"]["error"].dropna().unique(): say(f"MISSING {o}")
