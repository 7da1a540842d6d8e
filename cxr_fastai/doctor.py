"""What would go wrong in a run, before it does: packages, device, data, weights, memory and disk, for a study's flags.

Memory of training is weights, gradients and Adam's two moments (16 bytes a parameter), what autograd keeps of a forward
pass (counted on two small batches, which gives bytes an image), and what Python and torch take already. What is kept of
a step of the translator is counted likewise, from one generator and one discriminator."""
import contextlib, io, os, shutil, time
from importlib.util import find_spec
from pathlib import Path

import timm
import torch
import numpy as np
import pandas as pd
from fastai.imports import noop
from fastai.torch_core import default_device
from torch import nn

from .arms import parse_arm
from .cohort.cache import cache_root
from .cohort.folder import DATA_FLAGS, load_cohort, named_tables
from .cohort.groups import with_groups
from .cohort.radiograph import read_radiograph
from .cohort.rows import classes, columns_of, positive
from .cohort.sampling import test_rows
from .cohort.signs import RadiographError
from .core.extras import install_command
from .core.files import few
from .core.installed import Finding, Findings, installed
from .core.memory import free_memory
from .core.progress import duration
from .core.threads import others, spin_said
from .core.workers import threads_of
from .core.words import Words
from .fit.precision import fastest_precision, precision_on
from .gan.networks import Discriminator, Generator
from .models.backbone import _hub_has, create_backbone
from .models.fusion import ImageModel
from .models.weights import check_names, find_weights, WORDS
from .stats.expected import smallest_gain
from .stats.ledger import ALPHA
from .stats.power import Setting
from .stats.prevalence import check_prevalence
from .report.notes import counted
from .settings import Plan, listed, plan_of, takes
from .study.estimate import estimate, gigabytes, jobs_text, whole
from .study.speed import Undecoded

__all__ = ["doctor", "kept_bytes", "needs"]

SPARE, BESIDE = 1.3, int(1e8) # of memory: a factor, and bytes that convolutions and allocators take beside
LOOKED_AT = 8 # films read as a sample
GB = 1e9
EXPECTED = .8 # AUC, before anything is trained
FASTEST = dict(bf16="this device multiplies bfloat16 in hardware",
               fp16="this GPU has tensor cores for float16, and none for bfloat16",
               fp32="this device does not multiply bfloat16 in hardware")
SMALLER = "--bs smaller, --size smaller"

# What a run needs

def kept_bytes(
    model:nn.Module, # in training mode
    x:torch.Tensor,  # a batch
) -> int:
    "Bytes that autograd keeps of a forward pass, each storage once and the weights not."
    own, kept = {o.untyped_storage().data_ptr() for o in model.parameters()}, {}
    def note(o):
        kept[o.untyped_storage().data_ptr()] = o.untyped_storage().nbytes()
        return o
    with torch.autograd.graph.saved_tensors_hooks(note, noop): out = model(x)
    held = sum(n for k, n in kept.items() if k not in own)
    del out # it must live until here: its storages would be given out again, and counted once
    return held

def _line(model, size):
    "What is kept of a batch of one model: bytes an image, and bytes whatever the batch."
    two, four = (kept_bytes(model, torch.zeros(n, 1, size, size)) for n in (2, 4))
    return (four - two) // 2, max(0, 2*two - four)

def _count(*models): return sum(o.numel() for m in models for o in m.parameters())

def _classifier(backbone, size, bs, precision):
    "Bytes of weights, and of training."
    model = ImageModel(backbone, 2, .5, precision).train()
    each, fixed = _line(model, size)
    return dict(weights=4 * _count(model), training=16 * _count(model) + bs*each + fixed)

def _translator(gan, precision):
    "Bytes of a checkpoint, and of training: each generator and discriminator several times in one graph."
    own, (times, judged) = gan.training, gan.translator.passes(gan.training)
    g = Generator(9 if own["size"] >= 256 else 6, own.get("ngf", 64), precision=precision,
                  **{o: own[o] for o in ("residual", "upsample") if o in own})
    d = Discriminator(own.get("ndf", 64), precision=precision)
    kept = times * _line(g, own["size"])[0] + judged * _line(d, own["size"])[0]
    trained, mean = (len(gan.translator.ways) * o for o in (_count(g, d), _count(g)))
    return dict(checkpoint=12*trained + 4*mean, training=16*trained + 4*mean + own["bs"] * kept)

def needs(
    rows:pd.DataFrame, # of `load_cohort`
    bodies:dict,       # name -> Backbone; {} for arms of metadata alone
    plan:Plan,         # of the study
    precision:str="fp32", # of forward passes
    workers:int=1,     # cells at a time
) -> dict:             # bytes: `memory` of a cell at its peak beside Python's own, `out` and `cache` on disk; `cells`
    "What a run takes at most."
    t, arms, seeds = plan.training, list(map(parse_arm, plan.arms)), len(plan.seeds)
    cells = seeds * sum(1 if o.use == "metadata" else len(plan.weights_of) for o in arms)
    each = {k: _classifier(o, t.size, t.bs, precision) for k, o in bodies.items()}
    memory = max((o["training"] for o in each.values()), default=0)
    seen = seeds * sum(o.use != "metadata" for o in arms)
    out = 2e5 * cells + seen * sum(o["weights"] for o in each.values())
    films, sets = len(rows), {o.dose or plan.gan.synthetic for o in arms if o.own}
    if sets:
        gan, majority = _translator(plan.gan, precision), int((~positive(rows[rows["split"] == "train"])).sum())
        made = seeds * len(sets) * max(majority, plan.gan.synthetic or 0)
        out += seeds * 3*gan["checkpoint"] + made * plan.gan.size**2
        memory, films = max(memory, gan["training"]), films + made
    if t.epoch_rule == "best": out += max((o["weights"] for o in each.values()), default=0) * workers
    return dict(memory=int(SPARE * memory) + BESIDE, out=int(out), cache=films * t.size**2, cells=cells)

# What there is

def _own_memory():
    "What Python and torch take in this process already; a usual figure where the system doesn't say."
    try: return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError: return int(.9 * GB)

def _device(workers):
    device, cores = default_device(), threads_of(1)
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        yield Finding("device", "ok", f"{torch.cuda.get_device_name(device)}, {free/GB:.1f} of {total/GB:.1f} GB free")
    elif shutil.which("nvidia-smi"):
        cuda = torch.version.cuda
        why = f"torch's CUDA {cuda} can't use it" if cuda else "torch was built without CUDA"
        yield Finding("device", "warn", f"{device}: an NVIDIA driver is there, but {why}", "update driver or torch")
    else: yield Finding("device", "ok", f"{device}: no GPU was found; {cores} cores, {torch.get_num_threads()} threads")
    busy = others()
    if busy < .5: yield Finding("threads", "ok", spin_said())
    else:
        told = f"other processes keep {busy:.1f} of {cores} cores busy; {spin_said()}"
        yield Finding("threads", "warn", told, f"OMP_NUM_THREADS={max(1, round(cores - busy))} may be faster")
    if workers > cores:
        yield Finding("workers", "warn", f"{workers} cells at a time on {cores} cores", f"--workers {cores}")

def _precision(precision):
    taken, best = precision_on(precision, default_device()), fastest_precision(default_device())
    slow = taken not in (best, "fp32")
    yield Finding("precision", "warn" if slow else "ok", f"{taken}: --precision {precision}, and {FASTEST[best]}",
                  f"--precision {best} is faster here" if slow else "")

def _gain(plan, rows):
    "The smallest gain that a study of these rows shows, or why it can't be said."
    if rows is None or len(plan.arms) < 2 or plan.protocol == "paper": return
    test, trainings = test_rows(rows), len(plan.seeds)*plan.repeats
    ill = test.loc[positive(test), "patient_id"].nunique()
    try:
        setting = Setting(ill, test["patient_id"].nunique() - ill, trainings, folds=plan.folds)
        gain = smallest_gain(setting, EXPECTED, backbones=len(plan.weights_of), alpha=plan.alpha or ALPHA)
    except ValueError as e:
        yield Finding("gain", "warn", str(e), "--seeds 0,1,2, --folds 5, or more patients")
        return
    found = "no gain of AUC" if np.isnan(gain) else f"a gain of {gain:.3f} AUC or more"
    yield Finding("gain", "ok", f"{found}, from {EXPECTED:g} on, is found in 80% of studies of {setting} (normal "
                  "approximation; cxr-fastai plan simulates)")

def _unreadable(file, size):
    try: read_radiograph(file, size)
    except RadiographError as e: return str(e)

def _data(cohort, size, found):
    "Fills `found` with the rows."
    with contextlib.redirect_stdout(said := io.StringIO()):
        rows = found["rows"] = load_cohort(**cohort)
    lost = [o for o in said.getvalue().splitlines() if "are not in" in o]
    sides = "; ".join(f"{o} {n}" for o, n in rows["split"].value_counts().items())
    told = f"{cohort['data']}: {len(rows):,} films, {positive(rows).sum():,} {classes(rows)[1]} ({sides})"
    yield Finding("data", "warn" if lost else "ok", "; ".join([told, *lost]), "download the others" if lost else "")
    if names := sum(columns_of(rows).values(), []): yield Finding("metadata", "ok", few(names, 12))
    else: yield Finding("metadata", "warn", "none: arms that read it are left out", "name some by --cat and --cont")
    files, start = rows["file"].iloc[np.linspace(0, len(rows) - 1, LOOKED_AT).round().astype(int)], time.time()
    if bad := [why for o in files if (why := _unreadable(o, size))]:
        yield Finding("films", "FAIL", f"{len(bad)} of {LOOKED_AT} can't be read: {few(bad)}", "mend or leave them out")
        return
    each = (time.time() - start) / LOOKED_AT
    every = duration(max(1, each*len(rows)/threads_of(1)))
    yield Finding("films", "ok", f"{LOOKED_AT} were read; {each*1000:.0f} ms each, {every} for all, once")

def _weights(plan, found):
    "Fills `found` with the backbones."
    if all(parse_arm(o).use == "metadata" for o in plan.arms): return
    for arch, weights in plan.weights_of.items():
        pretrained = weights in ("imagenet", "auto")
        check_names({arch: weights})
        elsewhere = weights not in WORDS and not find_weights(weights, arch, fetch=False)
        backbone = create_backbone(arch, "none" if pretrained or elsewhere else weights, plan.training.size)
        found["backbones"][arch] = backbone
        if elsewhere: yield Finding("weights", "warn", f"{arch}: {weights} isn't here yet; a run downloads it first")
        elif not pretrained: yield Finding("weights", "ok", f"{arch}: {backbone.weights}")
        elif _hub_has(timm.get_pretrained_cfg(arch)):
            yield Finding("weights", "ok", f"{arch}: imagenet's, from the local cache or the model hub")
        else:
            told = f"{arch}: not in the local cache, and the model hub can't be reached"
            if weights == "auto": told += "; it would start untrained"
            status = "FAIL" if weights == "imagenet" else "warn"
            yield Finding("weights", status, told, f"--backbones {arch}=FILE, or --weights none")

def _memory(workers, need):
    own, cuda = _own_memory(), default_device().type == "cuda"
    each = own if cuda else own + need["memory"]
    total, free = max(1, workers)*each, free_memory()
    if workers > 1: total += own # of the process that hands out cells
    told = f"about {total/GB:.1f} GB at its peak ({workers} x {each/GB:.1f})"
    smaller = f"{SMALLER}, --workers fewer" if workers > 1 else SMALLER
    if free is None: yield Finding("memory", "warn", f"{told}; how much is free can't be seen here")
    else: yield _fits("memory", told, need=total - own, free=free, todo=smaller)
    if cuda:
        told, free = f"about {workers * need['memory'] / GB:.1f} GB at its peak", torch.cuda.mem_get_info()[0]
        yield _fits("GPU memory", told, need=workers * need["memory"], free=free, todo=SMALLER)

def _fits(what, told, need, free, todo):
    "A finding: FAIL where `need` is more than is free, a warning from .8 on."
    status = "FAIL" if need > free else "warn" if need > .8*free else "ok"
    return Finding(what, status, f"{told}; {free/GB:.1f} GB free", todo if status != "ok" else "")

def _disk(out, need):
    "Where a run writes; places on one disk share its room."
    where = {"out": (Path(out), "--out", need["out"]), "cache": (cache_root(), "CXR_FASTAI_CACHE", need["cache"])}
    places = {k: next(o for o in [p.absolute(), *p.absolute().parents] if o.exists()) for k, (p, _, _) in where.items()}
    disk = lambda k: places[k].stat().st_dev
    for k, (path, flag, own) in where.items():
        if not os.access(places[k], os.W_OK):
            yield Finding(k, "FAIL", f"{places[k]} can't be written to", f"another {flag}")
        every = sum(o[2] for other, o in where.items() if disk(other) == disk(k))
        told = f"{path}: at most {gigabytes(own/GB)} GB"
        if k == "out": told += f" for {counted(need['cells'], 'cell')}"
        free = shutil.disk_usage(places[k]).free
        yield _fits(k, told, need=every, free=free, todo=f"another {flag}, on a disk with more room")

def _time(study, out, workers):
    table = estimate(study, workers)
    took = whole(table, workers)
    yield Finding("time", "ok", f"about {duration(took['seconds'])} with this machine as busy as it is, by a few "
                  f"measured steps: {jobs_text(table)}; they took {gigabytes(took['memory_gb'])} GB of memory, and "
                  f"would leave {gigabytes(took['disk_gb'])} GB in {out}")

def _looked(name, look):
    "What a look found; an error the run would end in is a finding, too."
    found = []
    try: found.extend(look())
    except (OSError, ValueError, ImportError) as e: found.append(Finding(name, "FAIL", " ".join(str(e).split())))
    return found

def _looks(plan, cohort, found):
    "What a plan would meet, by what is looked at."
    yield "precision", lambda: _precision(plan.training.precision)
    yield "data", lambda: _data(cohort, plan.training.size, found)
    yield "gain", lambda: _gain(plan, found.get("rows"))
    yield "weights", lambda: _weights(plan, found)

@takes(plan_of, load_cohort)
def doctor(
    workers:int=1,         # cells at a time
    ray:str=None,          # address of a Ray cluster
    gpus:float=None,       # that each cell asks Ray for
    track:Words="",         # trackers
    out:str="runs",        # folder of everything
    prevalence:float=None, # share of positives where a model would be used
    groups:Words="",       # columns of the table that make subgroups
    relabel:bool=False,    # films are listed whose label is to be read again
    external:Words="",     # NAME=TABLE of rows from elsewhere
    **flags,
) -> Findings:
    """What a run of these flags would meet: packages and their bounds, device and precision, data and a sample of its
    films, weights, what it needs of memory and disk against what is free, and how long it takes by a few measured
    steps. No training is kept, and nothing is downloaded or written but to the cache. Memory and disk are upper bounds
    of a run that begins with nothing."""
    res, found = installed() + _looked("device", lambda: _device(workers)), dict(backbones={})
    cohort = dict(data="phantom") | {o: flags.pop(o) for o in DATA_FLAGS if o in flags}
    try:
        plan = plan_of(**flags)
        if prevalence is not None: check_prevalence(prevalence)
    except ValueError as e: return res + [Finding("flags", "FAIL", str(e))]
    if gpus and not ray: res += [Finding("flags", "warn", f"--gpus {gpus:g} is for Ray, and there is no --ray")]
    cohort |= dict(split_seed=plan.split_seed)
    for name, look in _looks(plan, cohort, found): res += _looked(name, look)
    extras = dict(ray=("ray", ray), cleanlab=("labels", relabel), optuna=("tune", plan.tune))
    asked = {o: o for o in listed(track)} | {k: extra for k, (extra, flag) in extras.items() if flag}
    for o, extra in asked.items():
        if not find_spec(o): res += [Finding(o, "FAIL", f"{o} is asked for and isn't there", install_command(extra))]
    if "rows" not in found: return res
    def room():
        with_groups(found["rows"], groups)
        named_tables(external)
        precision = precision_on(plan.training.precision, default_device())
        need = needs(found["rows"], found["backbones"], plan, precision, workers)
        yield from [*_memory(workers, need), *_disk(out, need)]
    res += _looked("flags", room)
    if res.failed: return res
    return res + _looked("time", lambda: _time(Undecoded(found["rows"], plan, out), out, workers))
