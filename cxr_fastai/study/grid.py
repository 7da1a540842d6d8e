"""A study: backbones x arms x seeds on one split, a cell a folder; killed, moved or enlarged, it runs what is missing.

By the protocol 'clean', one patient-grouped split is made before anything else, the CycleGAN sees training rows only,
and every arm is scored on the same real test rows. 'paper' is what the paper's figures imply (`split_paper`): a
CycleGAN that saw every row, and synthetic images among those that are scored."""
import time
from collections import Counter
from functools import partial
from itertools import product
from pathlib import Path

import pandas as pd
from fastai.torch_core import num_distrib

from ..arms import parse_arm
from ..cohort.folder import data_digest
from ..cohort.phantom import is_drawn
from ..cohort.rows import classes, columns_of, fold_metadata, split_method, with_columns
from ..cohort.sampling import each_fold, split_paper, test_rows, with_folds
from ..core.board import Board
from ..core.files import few, say
from ..core.progress import TimeLeft
from ..core.tuned import choices, tuned_training
from ..core.workers import in_workers, on_ray
from ..data.batches import check_batch
from ..data.metadata import MetadataTransform
from ..fit.distributed import agreed, begin_distributed, is_first
from ..fit.precision import computing
from ..gan.pipeline import gan_folder, gan_training, made_name
from ..gan.suited import suited
from ..models.backbone import check_backbone, say_untrained, untrained
from ..models.learner import training_settings
from ..models.probe import check_probe
from ..models.weights import check_names, pinned_weights
from ..report.notes import counted
from ..report.searched import tuning_note
from ..settings import Plan, PS, named_by_content, settings_digest, versions
from ..stats.ledger import declare_plan
from .cell import Cell, CellError, read_cell
from .films import Generators
from .jobs import Synthesis, run_job
from .shown import study_html

__all__ = ["Study"]

VERSIONS = "torch", "fastai", "timm" # another version is another cell
FIGURES = ["weights", "train_prior", "prior", "seconds", "training", "device"] # of a cell, beside its scores
BEFORE = ["pretraining_films", "pretraining_steps"] # of one that was pretrained

class Study:
    "A grid of cells over one table of rows."
    def __init__(self,
        rows:pd.DataFrame, # after `split_patients`
        plan:Plan,         # backbones, arms, seeds and the rest, as of `plan_of`
        out:str|Path="runs", # folder of everything
        data:str="",       # what the rows are, for tables
        track:str="",      # trackers, as in `tracked`
        cohort:dict=None,  # flags of `load_cohort` that the rows are of, for `settings.json`
    ):
        """ValueError for metadata that no cell could learn, for backbones and weights that aren't known, and for a dose
        where the positives aren't fewer."""
        columns = columns_of(rows, plan.training.cat_names, plan.training.cont_names)
        rows, plan = with_columns(rows.copy(), **columns), plan.replace(training=plan.training.replace(**columns))
        fold_metadata(rows, **columns)
        if not sum(columns.values(), []) and (reads := [o for o in plan.arms if parse_arm(o).use != "image"]):
            raise ValueError(f"The table has no metadata column, which the arms {few(reads)} read: name some, or leave "
                             "these arms out.")
        if plan.training.mode == "probe":
            for o, t in product(plan.arms, [tuned_training(plan.training, b) for b in plan.weights_of]):
                check_probe(parse_arm(o), t.fusion, t.views)
        if plan.protocol == "paper": rows = rows.assign(split="train") # its CycleGAN sees all; then `split_paper`
        self.plan, self.out, self.data, self.track = plan, Path(out).absolute(), data, track
        self.cohort = dict(cohort=cohort) if cohort else {}
        self.backbones, self.arms, self.seeds = list(plan.weights_of), list(plan.arms), list(plan.seeds)
        self.splits = {None: rows} # by number of the fold, where there are folds
        if plan.folds: self.splits = each_fold(rows, plan.folds, plan.repeats, seed=plan.split_seed)
        self.rows = with_folds(rows, self.splits, plan.folds) if plan.folds else rows
        self._check(columns)
        self.generators = Generators(rows, plan, self.out)
        self.weights = {arch: pinned_weights(o) for arch, o in plan.weights_of.items()} if plan.sees else {}
        self.digests, self.errors = {}, {}
        self.cells = {(b, a, s) if f is None else (b, a, s, f): self._cell(b, a, s, f)
                      for f in self.splits for s in self.seeds for b in self.backbones for a in self.arms}

    @property
    def keys(self):
        "What tells its cells apart."
        return ["backbone", "arm", "seed", *(["fold"] if self.plan.folds else [])]

    @property
    def folder(self):
        "Of its tables, which `save_study` writes."
        return self.out/f"study-{settings_digest({str(k): c.folder.name for k, c in self.cells.items()})}"

    def _repr_html_(self): return study_html(self.folder, [c.done for c in self.cells.values()])

    def _check(self, columns):
        "What no cell could do with: names of metadata columns, backbones and their weights, a batch of too many rows."
        if any(parse_arm(o).use != "image" for o in self.arms):
            for rows in self.splits.values(): MetadataTransform(**columns).fit(rows[rows["split"] == "train"])
        if self.plan.sees: check_names(self.plan.weights_of)
        if not all(parse_arm(o).more for o in self.arms): # those have synthetic rows as well
            check_batch(self.plan.training.bs, min((o["split"] == "train").sum() for o in self.splits.values()))

    def _digest(self, size, fold=None):
        "Of the rows of a fold, or of all, at a size; read once."
        if (size, fold) not in self.digests:
            self.digests[size, fold] = data_digest(self.splits.get(fold, self.rows), size)
        return self.digests[size, fold]

    def _gan(self, rows, seed): return gan_folder(rows, self.out, self.plan.gan, seed).name
    def _suited(self):
        "The plan's translator, as it is for the first of its splits; as it was given, where no arm has films of it."
        gan = self.plan.gan
        return suited(gan, next(iter(self.splits.values()))) if any(parse_arm(o).own for o in self.arms) else gan
    def _films(self, name, size): return self.generators.digest(name, size)

    def _settings(self, backbone, arm, seed, fold):
        "All that determines what a cell finds."
        plan, t = self.plan, tuned_training(self.plan.training, backbone)
        where = computing(t.precision)
        columns = dict(cat_names=list(t.cat_names), cont_names=list(t.cont_names))
        made_by = {k: v for k, v in versions(VERSIONS).items() if k != "python"}
        s = dict(arm="+".join(filter(None, [arm.base, arm.rival, arm.pretraining])), seed=seed, epochs=t.epochs,
                 lr=t.lr, bs=t.bs, epoch_rule=t.epoch_rule, protocol=plan.protocol, columns=columns,
                 device=where["device"], versions=made_by)
        if num_distrib() > 1: s |= dict(processes=num_distrib()) # a step then sees that many batches
        if plan.protocol == "paper": s |= dict(split_seed=plan.split_seed)
        if arm.use != "metadata":
            s |= dict(arch=backbone, weights=self.weights[backbone], size=t.size, precision=where["precision"])
        if arm.use == "both": s |= dict(fusion=arm.fusion or t.fusion)
        if arm.use != "metadata" and t.ps != PS: s |= dict(ps=t.ps)
        if arm.use != "metadata" and t.mode == "probe": s |= dict(mode=t.mode, views=t.views)
        rows = self.splits[fold]
        if arm.more: s |= dict(zip(("n", "n_negative"), self.generators.numbers(arm, rows).values()))
        if arm.own: s |= dict(policy=arm.policy or plan.gan.metadata, gan=self._gan(rows, seed))
        elif arm.films: s |= dict(policy=self.generators.policy(arm), films=self._films(arm.films, s["size"]))
        if arm.part: s |= dict(part=arm.part)
        return s | dict(data=self._digest(s.get("size"), fold))

    def _cell(self, backbone, name, seed, fold):
        s = self._settings(backbone, parse_arm(name), seed, fold)
        named = settings_digest(s | dict(weights=named_by_content(s.get("weights", "none"))))
        model = backbone if "arch" in s else "metadata"
        folder = self.out/"cells"/f"{model}-{s['arm']}-{seed}-{named}"
        plan = self.plan.replace(training=tuned_training(self.plan.training, backbone))
        films = self.generators.films(parse_arm(name))
        return Cell(folder, self.splits[fold], plan, s, name=name, track=self.track, fold=fold, films=films)

    def run(self,
        workers:int=1,   # processes on this machine, the cores' threads divided among them
        ray:str=None,    # address of a Ray cluster instead: 'auto', 'host:port', 'local'
        cpus:int=1,      # that each cell asks Ray for
        gpus:float=None, # and of GPUs; a fraction shares one; None: one where the cluster has any
        loud:bool=False, # print the epoch tables here, not into each cell's log.txt; for one worker
    ):
        "Run what isn't done. A cell that fails is said and the others go on; the same call tries it again."
        if self.plan.tune and (lost := {*self.backbones} - {*choices(self.plan.training.tuned)}):
            raise ValueError(f"tune={self.plan.tune}, and nothing was searched for {few(sorted(lost))} yet: give Study "
                             "the plan of tuned_plan(plan, rows, out).")
        begin_distributed()
        todo = list({c.folder: c for c in self.cells.values() if not c.done}.values())
        for arch in {c.settings["arch"]: None for c in todo if "arch" in c.settings}:
            check_backbone(arch, self.weights[arch], self.plan.training.size)
        if any(c.arm.films for c in todo): agreed(lambda: self.generators.prepare(self.splits.values()))
        self.declare()
        self._say_untrained(todo)
        synth, plain = [c for c in todo if c.gan], [c for c in todo if not c.gan]
        engine = partial(on_ray, address=ray, cpus=cpus, gpus=gpus) if ray else partial(in_workers, workers=workers)
        self.errors, jobs = {}, self._syntheses(synth, loud)
        left = TimeLeft([o.kind for o in (*jobs, *todo)], workers)
        with Board(left, draws=not loud) as board:
            engine = partial(engine, partial(run_job, loud=loud, drawn=board.folder))
            for o in self._ended(engine, jobs + plain, synth, left): board.ended(*o)
        return self

    def _say_untrained(self, cells):
        "Before the first cell, for what cells print goes to their logs."
        found = {c.settings["arch"] for c in cells if c.settings.get("weights") == "auto"}
        if found and is_first(): say_untrained(untrained(sorted(found)))

    def _syntheses(self, cells, loud):
        "What comes before cells with synthetic rows: a job a seed and fold."
        gans = {}
        for c in cells: gans.setdefault((c.seed, c.fold), {}).update(dict.fromkeys(c.syntheses)) # each once, in order
        order = lambda made: (made[1], made[0].synthetic, made[0].metadata, made[2] or "")
        name = lambda seed, fold: f"synthesis-{seed}.txt" if fold is None else f"synthesis-{seed}-{fold}.txt"
        return [Synthesis(self.splits[fold], self.out, sorted(o, key=order), seed=seed, track=self.track, fold=fold,
                          log=None if loud else self.out/name(seed, fold)) for (seed, fold), o in gans.items()]

    @property
    def split_rows(self):
        "The rows on the sides that are scored."
        return self.rows if self.plan.protocol == "clean" else split_paper(self.rows, self.plan.split_seed)

    def declare(self) -> dict: # as `declare_plan` gives it
        "What was planned for these test rows: written now, before the first cell, where nothing was before."
        def write():
            finished = sum(c.done for c in self.cells.values())
            return declare_plan(self.out, self.about, test_rows(self.split_rows), primary=self.plan.primary,
                                alpha=self.plan.alpha, finished=finished)
        return agreed(write)

    def _ended(self, engine, jobs, after, left):
        """Run jobs, and cells that come `after` the synthesis of their seed when it is there; what another process runs
        is asked for again. Remember what failed. Yields jobs as they end, or can't begin: what `Board.ended` takes."""
        pause = 1
        while jobs:
            busy, ready = [], []
            for job, outcome in self._outcomes(engine, jobs, left):
                status = outcome["status"]
                if status == "busy":
                    busy.append(job)
                    continue
                if status == "failed": self._failed(job, outcome["error"])
                made = isinstance(job, Synthesis)
                own = [c for c in after if (c.seed, c.fold) == (job.seed, job.fold)] if made else []
                if status == "done": ready += own
                else: self.errors |= {c: f"{c}: not run, as the {self.errors[job]}" for c in own}
                yield job, outcome["seconds"] if status == "done" else None, outcome.get("told", "")
                for line in filter(None, outcome.get("said", ())): say(line, flush=True)
                if status == "failed": yield from self._given_up(own, left)
            if busy and not ready and len(busy) == len(jobs):
                if pause == 1: say(f"waiting for {counted(len(busy), 'job')} of another process", flush=True)
                time.sleep(pause)
                pause = min(15, 2*pause)
            else: pause = 1
            jobs = busy + ready

    def _outcomes(self, engine, jobs, left):
        "Job and outcome, as they end."
        for i, outcome in engine(jobs):
            job, done = jobs[i], outcome["status"] == "done"
            if outcome["status"] != "busy": left.ended(job.kind, outcome["seconds"] if done else None)
            yield job, outcome

    def _given_up(self, cells, left):
        for c in cells:
            left.ended(c.kind)
            yield c,

    def _failed(self, job, error):
        self.errors[job] = error if str(job) in error else f"{job}: {error}"
        if is_first(): say(f"FAILED {self.errors[job]}", flush=True)

    def collect(self) -> tuple: # `predictions` and `cells`, as DataFrames
        "What the finished cells left; one that failed, is damaged or wasn't run has an `error` in its line of `cells`."
        said, lines, read = {c.folder: e for c, e in self.errors.items() if isinstance(c, Cell)}, [], {}
        for key, c in self.cells.items():
            line = dict(zip(self.keys, key)) | dict(folder=c.folder.relative_to(self.out), gan=self.place(c))
            try:
                if c.folder in said: raise CellError(said[c.folder])
                if not c.folder.exists(): raise CellError(f"{c} was not run.")
                result, table = read_cell(c)
                line |= {o: result[o] for o in (*FIGURES, *BEFORE) if o in result or o in FIGURES}
                read[key] = table
            except CellError as e: line |= dict(error=str(e))
            lines.append(line)
        many = Counter(key[:3] for key in read) # a seed of an arm counts with all of its folds
        read = {key: o for key, o in read.items() if many[key[:3]] == len(self.splits)}
        predictions = pd.concat(read, names=self.keys).reset_index(self.keys).reset_index(drop=True) if read else None
        told = [o for o in BEFORE if any(o in line for line in lines)]
        return predictions, pd.DataFrame(lines).reindex(columns=[*self.keys, "folder", "gan", *FIGURES, *told, "error"])

    def _how(self):
        "How rows came to their sides."
        if not self.plan.folds: return split_method(self.split_rows)
        how = split_method(self.splits[0])
        return {k: o for k, o in how.items() if k != "fold"} | dict(repeats=self.plan.repeats)

    def place(self,
        cell:Cell, # of this study
    ) -> Path|None: # in `out`
        "The folder of a cell's synthetic rows; None where it has none."
        if not cell.gan: return None
        made = made_name(cell.rows, cell.gan.synthetic, cell.gan.metadata, part=cell.arm.part)
        return Path(cell.settings["gan"])/made

    @property
    def about(self):
        "Every setting, for `settings.json`."
        neg, pos = classes(self.rows)
        training = training_settings() | dict(ps=self.plan.training.ps)
        known = dict(split=self._how(), drawn=is_drawn(self.rows), training=training,
                     gan_training=gan_training(self._suited()), data_digest=self._digest(None))
        if note := tuning_note(self.plan.flags()): known |= dict(tuning=note)
        if self.generators.tables: known |= dict(generators=self.generators.about)
        return self.plan.flags() | known | self.cohort | dict(data=self.data, negative=neg, positive=pos,
                                                              versions=versions())
