"""What would go wrong in a run, before it does: packages, device, data, weights, memory and disk, for a study's flags.

Memory of training is weights, gradients and Adam's two moments (16 bytes a parameter), what autograd keeps of a forward
pass (counted on two small batches, which gives bytes an image), and what Python and torch take already. What is kept of
a step of the CycleGAN is counted likewise, from one generator and one discriminator."""
import contextlib, inspect, io, os, shutil, time
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import timm
import torch
import numpy as np
import pandas as pd
from fastai.imports import noop
from fastai.torch_core import default_device
from fastcore.basics import ifnone
from fastcore.meta import delegates
from torch import nn

from .arms import expand_arms, parse_arm
from .cohort.cache import cache_root
from .cohort.folder import load_cohort
from .cohort.radiograph import read_radiograph
from .cohort.rows import classes, positive
from .cohort.signs import RadiographError
from .core.extras import install_command
from .core.files import few
from .core.installed import Finding, Findings, installed
from .core.memory import free_memory
from .core.workers import threads_of
from .fit.precision import computes_bf16, use_bf16
from .gan.networks import Discriminator, Generator
from .models.backbone import _hub_has, create_backbone
from .models.fusion import ImageModel
from .settings import GANS
from .study.run import run_study

__all__ = ["doctor", "kept_bytes", "needs"]

SPARE, BESIDE = 1.3, int(1e8) # of memory: a factor, and bytes that convolutions and allocators take beside
LOOKED_AT = 8 # films read as a sample
GB = 1e9
SMALLER, UNTRAINED = "--bs smaller, --size smaller", "; it would start untrained"

def _listed(text): return [o.strip() for o in text.split(",") if o.strip()]

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

def _classifier(backbone, size, bs, bf16):
    "Bytes of weights, and of training."
    model = ImageModel(backbone, 2, .5, bf16).train()
    each, fixed = _line(model, size)
    return dict(weights=4 * _count(model), training=16 * _count(model) + bs*each + fixed)

def _cyclegan(run, bf16):
    "Bytes of a checkpoint, and of training: each generator and discriminator several times in one graph."
    preset, size = GANS[run.gan], ifnone(run.gan_size, run.size)
    own = {o: preset[o] for o in ("residual", "upsample") if o in preset}
    g = Generator(9 if size >= 256 else 6, preset.get("ngf", 64), bf16=bf16, **own)
    d = Discriminator(preset.get("ndf", 64), bf16=bf16)
    times = 4 if preset.get("identity") == 0 else 6 # two translations, two cycles, with two identities or without
    kept = times * _line(g, size)[0] + 6 * _line(d, size)[0] # of fakes for the generators; of both kinds for itself
    trained, mean = 2 * _count(g, d), 2 * _count(g)
    return dict(checkpoint=12*trained + 4*mean, training=16*trained + 4*mean + preset["bs"] * kept)

def needs(
    rows:pd.DataFrame, # of `load_cohort`
    bodies:dict,       # name -> Backbone; {} for arms of metadata alone
    bf16:bool=False,   # whether forward passes are in bfloat16
    **flags,           # of `run_study`
) -> dict:             # bytes: `memory` of a cell at its peak beside Python's own, `out` and `cache` on disk; `cells`
    "What a run takes at most. ValueError for arms, seeds or a GAN that aren't known."
    run = _flags(flags)
    arms = list(map(parse_arm, _arms(run)))
    seeds, train = _listed(run.seeds), rows[rows["split"] == "train"]
    cells = len(seeds) * sum(1 if o.use == "metadata" else len(_listed(run.backbones)) for o in arms)
    each = {k: _classifier(o, run.size, run.bs, bf16) for k, o in bodies.items()}
    memory = max((o["training"] for o in each.values()), default=0)
    seen = len(seeds) * sum(o.use != "metadata" for o in arms)
    out = 2e5 * cells + seen * sum(o["weights"] for o in each.values())
    films, sets = len(rows), {o.dose or run.synthetic for o in arms if o.synth}
    if sets:
        gan, neg = _cyclegan(run, bf16), int((~positive(train)).sum())
        made = len(seeds) * len(sets) * max(neg, run.synthetic or 0)
        out += len(seeds) * 3*gan["checkpoint"] + made * ifnone(run.gan_size, run.size)**2
        memory, films = max(memory, gan["training"]), films + made
    if run.epoch_rule == "best": out += max((o["weights"] for o in each.values()), default=0) * run.workers
    return dict(memory=int(SPARE * memory) + BESIDE, out=int(out), cache=films * run.size**2, cells=cells)

# What there is

def _flags(given):
    "All flags of `run_study`, those that weren't given as they are by default."
    bound = inspect.signature(run_study).bind(**given)
    bound.apply_defaults()
    return SimpleNamespace(**bound.arguments)

def _arms(run):
    return expand_arms(*(_listed(getattr(run, o)) for o in ("arms", "rivals", "doses", "policies", "fusions")))

def _own_memory():
    "What Python and torch take in this process already; a usual figure where the system doesn't say."
    try: return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError: return int(.9 * GB)

def _device(run):
    device, cores = default_device(), threads_of(1)
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        yield Finding("device", "ok", f"{torch.cuda.get_device_name(device)}, {free/GB:.1f} of {total/GB:.1f} GB free")
    elif shutil.which("nvidia-smi"):
        cuda = torch.version.cuda
        why = f"torch's CUDA {cuda} can't use it" if cuda else "torch was built without CUDA"
        yield Finding("device", "warn", f"{device}: an NVIDIA driver is there, but {why}", "update driver or torch")
    else: yield Finding("device", "ok", f"{device}: no GPU was found; {cores} cores, {torch.get_num_threads()} threads")
    if run.workers > cores:
        yield Finding("workers", "warn", f"{run.workers} cells at a time on {cores} cores", f"--workers {cores}")

def _precision(run):
    bf16, has = use_bf16(run.precision, default_device()), computes_bf16(default_device())
    why = f"this device {'multiplies' if has else 'does not multiply'} bfloat16 in hardware"
    slow = bf16 and not has
    told = f"{'bf16' if bf16 else 'fp32'}: --precision {run.precision}, and {why}"
    yield Finding("precision", "warn" if slow else "ok", told,
                  "--precision fp32 is faster here" if slow else "")

def _unreadable(file, size):
    try: read_radiograph(file, size)
    except RadiographError as e: return str(e)

def _data(run, found):
    "Fills `found` with the rows."
    with contextlib.redirect_stdout(said := io.StringIO()):
        rows = found["rows"] = load_cohort(run.data, run.normals, not run.followups, run.split_seed)
    lost = [o for o in said.getvalue().splitlines() if "are not in" in o]
    sides = "; ".join(f"{o} {n}" for o, n in rows["split"].value_counts().items())
    told = f"{run.data}: {len(rows):,} films, {positive(rows).sum():,} {classes(rows)[1]} ({sides})"
    yield Finding("data", "warn" if lost else "ok", "; ".join([told, *lost]), "download the others" if lost else "")
    files, start = rows["file"].iloc[np.linspace(0, len(rows) - 1, LOOKED_AT).round().astype(int)], time.time()
    if bad := [why for o in files if (why := _unreadable(o, run.size))]:
        yield Finding("films", "FAIL", f"{len(bad)} of {LOOKED_AT} can't be read: {few(bad)}", "mend or leave them out")
        return
    each = (time.time() - start) / LOOKED_AT
    whole = each * len(rows) / threads_of(1)
    yield Finding("films", "ok", f"{LOOKED_AT} were read; {each*1000:.0f} ms each, {whole:.0f} s for all, once")

def _weights(run, found):
    "Fills `found` with the backbones."
    if all(parse_arm(o).use == "metadata" for o in _arms(run)): return
    for name in _listed(run.backbones):
        arch, _, file = name.partition("=")
        weights, pretrained = file or run.weights, ("imagenet", "auto")
        backbone = create_backbone(arch, "none" if weights in pretrained else weights, run.size)
        found["backbones"][arch] = backbone
        if weights not in pretrained: yield Finding("weights", "ok", f"{arch}: {backbone.weights}")
        elif _hub_has(timm.get_pretrained_cfg(arch)):
            yield Finding("weights", "ok", f"{arch}: imagenet's, from the local cache or the model hub")
        else:
            must = weights == "imagenet"
            told = f"{arch}: not in the local cache, and the model hub can't be reached" + UNTRAINED * (not must)
            yield Finding("weights", "FAIL" if must else "warn", told, f"--backbones {arch}=FILE, or --weights none")

def _memory(run, need):
    workers, own = run.workers, _own_memory()
    cuda = default_device().type == "cuda"
    each = own if cuda else own + need["memory"]
    total, free = max(1, workers)*each + own*(workers > 1), free_memory()
    told = f"about {total/GB:.1f} GB at its peak ({workers} x {each/GB:.1f})"
    if free is None: yield Finding("memory", "warn", f"{told}; how much is free can't be seen here")
    else: yield _fits("memory", told, total - own, free, SMALLER + ", --workers fewer" * (workers > 1))
    if cuda:
        told = f"about {workers * need['memory'] / GB:.1f} GB at its peak"
        yield _fits("GPU memory", told, workers * need["memory"], torch.cuda.mem_get_info()[0], SMALLER)

def _fits(what, told, need, free, todo):
    "A finding: FAIL where `need` is more than is free, a warning from .8 on."
    status = "FAIL" if need > free else "warn" if need > .8*free else "ok"
    return Finding(what, status, f"{told}; {free/GB:.1f} GB free", todo if status != "ok" else "")

def _disk(run, need):
    "Where a run writes; places on one disk share its room."
    where = {"out": (Path(run.out), "--out", need["out"]), "cache": (cache_root(), "CXR_FASTAI_CACHE", need["cache"])}
    places = {k: next(o for o in [p.absolute(), *p.absolute().parents] if o.exists()) for k, (p, _, _) in where.items()}
    disk = lambda k: places[k].stat().st_dev
    for k, (path, flag, own) in where.items():
        if not os.access(places[k], os.W_OK):
            yield Finding(k, "FAIL", f"{places[k]} can't be written to", f"another {flag}")
        every = sum(o[2] for other, o in where.items() if disk(other) == disk(k))
        told = f"{path}: at most {own/GB:.2f} GB" + f" for {need['cells']} cells" * (k == "out")
        yield _fits(k, told, every, shutil.disk_usage(places[k]).free, f"another {flag}, on a disk with more room")

def _looked(name, look):
    "What a look found; an error the run would end in is a finding, too."
    found = []
    try: found.extend(look())
    except (OSError, ValueError, ImportError) as e: found.append(Finding(name, "FAIL", " ".join(str(e).split())))
    return found

@delegates(run_study)
def doctor(**kwargs) -> Findings:
    """What a run of these flags would meet: packages and their bounds, device and precision, data and a sample of its
    films, weights, and what it needs of memory and disk against what is free. Nothing is trained, downloaded or written
    (but for the drawn demo set, where it isn't there). Estimates are upper bounds of a run that begins with nothing."""
    run, res, there = _flags(kwargs), installed(), dict(backbones={})
    res += _looked("device", lambda: _device(run)) + _looked("precision", lambda: _precision(run))
    res += _looked("data", lambda: _data(run, there)) + _looked("weights", lambda: _weights(run, there))
    for o in ["ray"] * bool(run.ray) + _listed(run.track):
        if not find_spec(o): res += [Finding(o, "FAIL", f"{o} is asked for and isn't there", install_command(o))]
    if "rows" not in there: return res
    def room():
        need = needs(there["rows"], there["backbones"], use_bf16(run.precision, default_device()), **kwargs)
        yield from _memory(run, need)
        yield from _disk(run, need)
    return res + _looked("flags", room)
