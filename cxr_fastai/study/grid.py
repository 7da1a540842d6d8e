"""A study: backbones x arms x seeds on one split, a cell a folder; killed, moved or enlarged, it runs what is missing.

By the protocol 'clean', one patient-grouped split is made before anything else, the CycleGAN sees training rows only,
and every arm is scored on the same real test rows. 'paper' is what the paper's figures imply (`cohort.split_paper`): a
CycleGAN that saw every row, and synthetic images among those that are scored."""
import time
from functools import partial
from pathlib import Path

import pandas as pd
from fastai.torch_core import num_distrib
from fastcore.basics import ifnone, store_attr

from ..arms import FUSION_NAMES, parse_arm
from ..cohort.folder import data_digest
from ..cohort.phantom import is_drawn
from ..cohort.rows import CAT_NAMES, classes, CONT_NAMES, fold_metadata, split_method
from ..cohort.sampling import split_paper
from ..core.files import say
from ..core.progress import progress
from ..core.workers import in_workers, on_ray
from ..fit.distributed import agreed, begin_distributed, is_first
from ..gan.pipeline import gan_folder, gan_training
from ..models.learner import training_settings
from ..settings import _named, EPOCH_RULES, PAPER_ARMS, PROTOCOLS, settings_digest, VERSIONS, versions
from ..stats.ledger import check_primary, declare_plan
from .cell import Cell, CellError, read_cell
from .jobs import _work, Synthesis

__all__ = ["Study"]

FIGURES = ["weights", "train_prior", "prior", "seconds", "training"] # of a cell, beside its scores

class Study:
    "A grid of cells over one table of rows."
    def __init__(self,
        rows:pd.DataFrame,         # after `split_patients`
        backbones=("resnet50",),   # timm names; 'resnet50=FILE' or 'resnet50=none' has weights of its own
        arms=PAPER_ARMS,           # names, as in `arms`
        seeds=(0,),                # of the CycleGAN, initialisation, augmentation and shuffling
        protocol:str="clean",      # or 'paper'
        out="runs",                # folder of everything
        size:int=256,              # side of the square images, pixels
        epochs:int=10,             # of `fine_tune`
        bs:int=32,                 # images a batch
        lr:float=1e-3,             # base rate
        weights:str="auto",        # of the backbone, as in `create_backbone`
        precision:str="auto",      # as in `use_bf16`
        epoch_rule:str="last",     # the epoch that is scored: 'last' as the paper, or 'best' by the valid rows' AUC
        fusion:str="concat",       # how image and metadata merge, where an arm doesn't say
        synthetic:int=None,        # synthetic rows, where an arm has no dose; None: half the majority's training rows
        metadata:str="matched",    # their metadata policy, where an arm doesn't say
        gan:str="fast",            # a key of `GANS`
        gan_epochs:int=None,       # None: as many as `gan` has
        gan_size:int=None,         # side of its images, pixels; None: `size`
        cat_names=CAT_NAMES,       # metadata columns of words
        cont_names=CONT_NAMES,     # metadata columns of numbers
        split_seed:int=0,          # of the paper's split
        data:str="",               # what the rows are, for tables
        track:str="",              # trackers, as in `tracked`
        primary=None,              # (before, after): the comparison of the verdict; None: the plan's, in a new plan
                                   # Real-Meta to Ensemble
        alpha:float=None,          # its error rate; None: the plan's, in a new plan .05
    ):
        """ValueError for an arm, protocol, epoch rule, fusion or primary comparison that isn't known, and for a grid
        without cells."""
        given = dict(protocol=protocol, epoch_rule=epoch_rule, fusion=fusion)
        for name, known in dict(protocol=PROTOCOLS, epoch_rule=EPOCH_RULES, fusion=FUSION_NAMES).items():
            if given[name] not in known:
                raise ValueError(f"{name}={given[name]!r} is not known; use {' or '.join(known)}.")
        for o in arms: parse_arm(o)
        check_primary(primary, alpha, arms)
        fold_metadata(rows, cat_names, cont_names) # refuses what no cell could learn
        if not (backbones and arms and seeds): raise ValueError("A study needs at least a backbone, an arm and a seed.")
        if protocol == "paper": rows = rows.assign(split="train") # its CycleGAN sees all; `split_paper` comes after
        store_attr(but="gan,out,backbones,arms,seeds")
        own = [o.partition("=")[::2] for o in backbones]
        self.weights_of = {arch: file or weights for arch, file in own}
        self.backbones, self.arms, self.seeds = list(self.weights_of), list(arms), list(seeds)
        self.out = Path(out).absolute()
        self.gan = dict(out=self.out, gan=gan, size=ifnone(gan_size, size), epochs=gan_epochs, precision=precision,
                        weights="none" if weights == "none" else "auto")
        neg, pos = ((rows["split"] == "train") & (rows["label"] == o) for o in classes(rows))
        self.balance, self.half = int(neg.sum() - pos.sum()), int(neg.sum()) // 2
        self.cells = {(b, a, s): self._cell(b, a, s) for s in seeds for b in self.backbones for a in arms}
        self.errors = {}

    def _added(self, arm):
        "How many rows an arm adds to train. ValueError for a dose where the positives aren't fewer."
        if arm.dose is None: return ifnone(self.synthetic, self.half)
        n = round(arm.dose * self.balance)
        if n > 0: return n
        raise ValueError(f"The dose {arm.dose} of the {self.balance} rows that would balance the classes is no row.")

    @property
    def _computing(self): return {k: v for k, v in versions(VERSIONS).items() if k != "python"}

    def _digest(self, size):
        "Of the rows, at a size; read once."
        if not hasattr(self, "_digests"): self._digests = {}
        if size not in self._digests: self._digests[size] = data_digest(self.rows, size)
        return self._digests[size]

    def _cell(self, backbone, name, seed):
        arm = parse_arm(name)
        columns = dict(cat_names=list(self.cat_names), cont_names=list(self.cont_names))
        s = dict(arm="+".join(filter(None, [arm.base, arm.rival])), seed=seed, epochs=self.epochs, lr=self.lr,
                 bs=self.bs, epoch_rule=self.epoch_rule, protocol=self.protocol, columns=columns,
                 versions=self._computing)
        if num_distrib() > 1: s |= dict(processes=num_distrib()) # a step then sees that many batches
        if self.protocol == "paper": s |= dict(split_seed=self.split_seed)
        if arm.use != "metadata":
            s |= dict(arch=backbone, weights=self.weights_of[backbone], size=self.size, precision=self.precision)
        if arm.use == "both": s |= dict(fusion=arm.fusion or self.fusion)
        if arm.more: s |= dict(n=self._added(arm))
        if arm.synth:
            gan = {k: v for k, v in self.gan.items() if k != "weights"}
            s |= dict(policy=arm.policy or self.metadata, gan=gan_folder(self.rows, seed=seed, **gan).name)
        s |= dict(data=self._digest(s.get("size")))
        named = settings_digest(s | dict(weights=_named(s.get("weights", "none"))))
        model = backbone if "arch" in s else "metadata"
        folder = self.out/"cells"/f"{model}-{s['arm']}-{seed}-{named}"
        return Cell(folder, self.rows, s, self.gan, track=self.track, name=name)

    def _synthesis(self, cell):
        "The folder of a cell's synthetic rows; None where it has none."
        s = cell.settings
        if cell.arm.synth: return self.out/s["gan"]/f"a2b-{s['n']}-{s['policy']}"

    def run(self,
        workers:int=1,   # processes on this machine, the cores' threads divided among them
        ray:str=None,    # address of a Ray cluster instead: 'auto', 'host:port', 'local'
        cpus:int=1,      # that each cell asks Ray for
        gpus:float=0,    # and of GPUs; a fraction shares one
        loud:bool=False, # print the epoch tables here, not into each cell's log.txt; for one worker
    ):
        "Run what isn't done. A cell that fails is said and the others go on; the same call tries it again."
        begin_distributed()
        todo = {c.folder: c for c in self.cells.values() if not (c.folder/"scores.json").exists()}.values()
        for c in todo: c.loud = loud
        synth = [c for c in todo if c.arm.synth]
        sets = {}
        for c in synth: sets.setdefault(c.settings["seed"], set()).add((c.settings["n"], c.settings["policy"]))
        self.plan()
        log = lambda seed: None if loud else self.out/f"synthesis-{seed}.txt"
        jobs = [Synthesis(self.rows, seed, sorted(o), self.gan, log(seed), self.track)
                for seed, o in sets.items()]
        engine = partial(on_ray, address=ray, cpus=cpus, gpus=gpus) if ray else partial(in_workers, workers=workers)
        self.errors = {}
        plain = [c for c in todo if not c.arm.synth]
        self._all(engine, jobs + plain, "Synthesis, and cells without it" if jobs else "Cells")
        failed = {int(str(o).split()[-1]): e for o, e in self.errors.items() if isinstance(o, Synthesis)}
        for c in synth:
            if e := failed.get(c.settings["seed"]): self.errors[c] = f"{c}: not run, as the {e}"
        self._all(engine, [c for c in synth if c not in self.errors], "Cells with synthetic rows")
        return self

    @property
    def split_rows(self):
        "The rows on the sides that are scored."
        return self.rows if self.protocol == "clean" else split_paper(self.rows, self.split_seed)

    def plan(self) -> dict: # as `declare_plan` gives it
        "What was planned for these test rows: written now, before the first cell, where nothing was before."
        def declare():
            finished = sum((c.folder/"scores.json").exists() for c in self.cells.values())
            rows = self.split_rows
            return declare_plan(self.out, self.about, rows[rows["split"] == "test"], primary=self.primary,
                                alpha=self.alpha, finished=finished)
        return agreed(declare)

    def _all(self, engine, jobs, what):
        "Run jobs until none is busy elsewhere; remember what failed."
        while jobs:
            busy = []
            outcomes = engine(_work, jobs)
            for i, outcome in progress(outcomes, len(jobs), what) if is_first() else outcomes:
                if outcome["status"] == "busy": busy.append(jobs[i])
                if outcome["status"] == "failed": self._failed(jobs[i], outcome["error"])
            if busy and jobs != busy: say(f"{len(busy)} cells are run by another process; waiting for it", flush=True)
            if busy: time.sleep(1)
            jobs = busy

    def _failed(self, job, error):
        self.errors[job] = error if str(job) in error else f"{job}: {error}"
        if is_first(): say(f"FAILED {self.errors[job]}", flush=True)

    def collect(self) -> tuple: # `predictions` and `cells`, as DataFrames
        "What the finished cells left; one that failed, is damaged or wasn't run has an `error` in its line of `cells`."
        said, lines, read = {c.folder: e for c, e in self.errors.items() if isinstance(c, Cell)}, [], {}
        for (backbone, arm, seed), c in self.cells.items():
            line = dict(backbone=backbone, arm=arm, seed=seed)
            line |= dict(folder=c.folder.relative_to(self.out), gan=self._place(c))
            try:
                if c.folder in said: raise CellError(said[c.folder])
                if not c.folder.exists(): raise CellError(f"{c} was not run.")
                result, table = read_cell(c)
                line |= {o: result[o] for o in FIGURES}
                read[backbone, arm, seed] = table
            except CellError as e: line |= dict(error=str(e))
            lines.append(line)
        keys = ["backbone", "arm", "seed"]
        predictions = pd.concat(read, names=keys).reset_index(keys).reset_index(drop=True) if read else None
        return predictions, pd.DataFrame(lines).reindex(columns=[*keys, "folder", "gan", *FIGURES, "error"])

    def _place(self, cell):
        made = self._synthesis(cell)
        return made.relative_to(self.out) if made else None

    @property
    def about(self):
        "Every setting, for `settings.json`."
        names = ("backbones arms seeds protocol size epochs bs lr weights weights_of precision epoch_rule fusion "
                 "synthetic metadata cat_names cont_names split_seed data").split()
        neg, pos = classes(self.rows)
        gan = {f"gan_{k}" if k != "gan" else k: self.gan[k] for k in ("gan", "epochs", "size")}
        known = dict(split=split_method(self.split_rows), drawn=is_drawn(self.rows), training=training_settings(),
                     gan_training=gan_training(self.gan["gan"], self.gan["epochs"]), data_digest=self._digest(None))
        return {o: getattr(self, o) for o in names} | gan | known | dict(
            negative=neg, positive=pos, versions=versions())
