"""Predictions for new patients, as a stream: decoded in threads while the model runs, in constant memory, resumable.

A picture that can't be read is a row with its reason. Rows are written in whole batches, and a run that is killed goes
on after the last of them, so that it gives the unbroken run's bits. A row that stands is compared with the one that
would come, its metadata and its file's size and time included: no patient is given another's prediction."""
import itertools, os, shutil
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from zlib import crc32

import torch
import numpy as np
import pandas as pd
from fastai.torch_core import to_device
from fastcore.basics import ifnone

from ..cohort.folder import load_cohort, one_source, rows_of
from ..cohort.radiograph import decode_radiograph, is_one_gray, THREAD_BYTES
from ..cohort.signs import RadiographError
from ..cohort.sources import read_new
from ..core.csvs import csv_line, read_lines
from ..core.files import named_errors, say
from ..core.memory import threads_within
from ..core.progress import ahead, progress
from ..data.show import TensorRadiograph
from ..models.learner import NO_NUMBER, RadiographLearner
from ..settings import takes
from ..stats.scoring import called
from .bundle import load_bundle
from .lookalike import atypical
from .overall import labelled_as, summarised
from .patients import colourful, count_patients, kept_columns, new_patients, passed_over

__all__ = ["Predictor", "predict_patients"]

def _said(o):
    "In UTF-8, which a name from another system needn't be."
    return "" if o is None else str(o).encode("utf-8", "backslashreplace").decode()

def _stamp(file):
    "Eight digits of a file's size and time of change: two wards' films may have the same names."
    try: told = os.stat(file)
    except (OSError, ValueError): return "" # reading its pixels will say why
    if not os.path.isfile(file): return ""
    return f"{crc32(f'{told.st_size} {told.st_mtime_ns}'.encode()):08x}"

class Predictor:
    "A bundle that predicts batches of decoded rows."
    def __init__(self,
        learn:RadiographLearner, # of `load_bundle`
        threshold:float=None,    # above it is positive; None: the learner's, which is its bundle's
        kept:list=(),            # columns of the table that are kept beside what the model reads
    ):
        self.learn, self.card, self.kept = learn, learn.card, list(kept)
        self.threshold = ifnone(threshold, learn.threshold)
        if not 0 <= self.threshold <= 1: raise ValueError(f"threshold is {self.threshold} and must be from 0 to 1.")
        self.metadata = learn.dls.metadata
        self.size = self.card["size"] if learn.dls.radiograph else None
        learn.model.eval()

    @property
    def names(self):
        "The model's metadata columns."
        return self.metadata.names if self.metadata else []

    @property
    def columns(self):
        "Of the table of predictions."
        words = ["missing", "probability", "decision", "flag", "error", "threshold", "model", "stamp"]
        return ["image", *self.kept, *self.names, *words]

    def known(self,
        row:dict, # of `new_patients`
    ) -> dict:    # words
        "What its row of the table says whatever the model may say: who, with what, by which model."
        missing = " ".join(o for o in self.names if row.get(o) is None)
        about = dict(missing=missing, threshold=f"{self.threshold:.9g}", model=self.card["sha256"][:12])
        own = {o: _said(row.get(o)) for o in ("image", *self.kept, *self.names)}
        return own | about | dict(stamp=_stamp(row["file"]))

    def decode(self,
        row:dict, # of `new_patients`
    ) -> dict:    # with `pixels`, or `error`, and with its flags
        "Read one row's picture, where the model looks at pictures."
        if "error" in row: return row
        if self.size is None: return row | dict(pixels=None)
        white = self.card.get("white")
        try: pixels, taken = decode_radiograph(row["file"], self.size, white)
        except RadiographError as e: return row | dict(error=str(e))
        flags = [row["flag"], "in colour" if colourful(row["file"]) else "",
                 "of one gray" if is_one_gray(pixels) else atypical(pixels, self.card["typical"]),
                 f"doesn't say what white is: {2**taken-1:,} was taken" if taken and not white else ""]
        return row | dict(pixels=pixels, flag="; ".join(filter(None, flags)))

    @torch.no_grad()
    def probabilities(self,
        rows:list, # of `decode`, at most a batch
    ) -> list:     # probability of the positive class, one a row
        "As `learn.get_preds`, to the bit, in batches of the same rows."
        if not rows: return []
        batch = []
        if self.size: batch.append(TensorRadiograph(torch.from_numpy(np.stack([o["pixels"] for o in rows]))[:, None]))
        if self.metadata: batch.append(self.metadata(pd.DataFrame(rows)[self.names]))
        self.learn.dls.valid.before_iter() # which tells the transforms that this is no training
        batch = self.learn.dls.valid.after_batch(to_device(tuple(batch), self.learn.dls.device))
        logits = self.learn.model(*(o.as_subclass(torch.Tensor) for o in batch))
        return self.learn.loss_func.activation(logits)[:, 1].tolist()

    def table(self,
        rows:list, # of `decode`
    ) -> list:     # of dicts of `columns`
        "Rows with what the model says of those that could be read."
        probabilities = iter(self.probabilities([o for o in rows if "error" not in o]))
        return [self._line(row, None if "error" in row else next(probabilities)) for row in rows]

    def _line(self, row, p):
        "A row of the table; `p` is None where its picture couldn't be read."
        line = self.known(row) | {k: _said(row.get(k)) for k in ("flag", "error")}
        if p is None: return line
        if not 0 <= p <= 1: return line | dict(error=NO_NUMBER)
        return line | dict(probability=f"{p:.9g}", decision=self.card["classes"][int(called(p, self.threshold))])

def _is_whole(good, n, bs): return good == bs or n == 16*bs # where hardly any can be read, memory must not fill

def _batches(rows, bs):
    "Lists of `bs` readable rows, the last one fewer, with the unreadable ones among them."
    batch, good = [], 0
    for row in rows:
        batch.append(row)
        if "error" not in row: good += 1
        if _is_whole(good, len(batch), bs):
            yield batch
            batch, good = [], 0
    if batch: yield batch

def _decoded(predictor, rows, workers, bs):
    "In order, at most two batches ahead of the model."
    with ThreadPoolExecutor(workers) as pool:
        try: yield from (job.result() for _, job in ahead(pool, predictor.decode, rows, 2*bs))
        finally: pool.shutdown(cancel_futures=True)

# What an earlier run left

def _lines(file, columns):
    "The rows of a table of predictions, and where each ends; a last line that was cut off isn't one."
    for i, (words, end) in enumerate(read_lines(file)):
        if i == 0 and words != columns:
            raise ValueError(f"{file} is no table of this model's predictions: delete it, or name another.")
        if i: yield dict(zip(columns, words)), end

def _kept(file, predictor, rows, bs, total):
    "Rows that stand, and their bytes: all `total` of a finished table, whole batches of another."
    found, whole, good, since = (0, 0), (0, 0), 0, 0
    for n, (line, size) in enumerate(_lines(file, predictor.columns), 1):
        if (row := next(rows, None)) is None:
            raise ValueError(f"{file} has more rows than the {total:,} images: delete it, or name another.")
        if other := [f"{k} '{line.get(k)}', not '{v}'" for k, v in predictor.known(row).items() if line.get(k) != v]:
            raise ValueError(f"{file} has in row {n:,} {'; '.join(other)}: it is of another model, or of images or "
                             "metadata that are others now; delete it, or name another.")
        found, good, since = (n, size), good + (line.get("error") in ("", NO_NUMBER)), since + 1
        if _is_whole(good, since, bs): whole, good, since = found, 0, 0
    return found if found[0] == total else whole

def _rows_of(data, folder, flags, vocab):
    "All rows of a table, with labels in the model's words, or without any."
    new = None if data == "phantom" else read_new(data, folder, **flags)
    return new if new is not None else labelled_as(rows_of(data, images=folder, **flags)[0], vocab)

@takes(load_cohort, but=["data", "images", "normals", "followups", "split_column", "split_seed"])
def predict_patients(
    bundle:str,              # of `save_bundle`: a folder, or a .safetensors file
    images:str=None,         # an image (png, jpeg, tiff, DICOM), a folder of them, or a csv that names them
    out:str="predictions.csv", # the table; OUT.part until it is whole
    folder:str=None,         # of a csv's images; the csv's own where not given
    threshold:float=None,    # a probability above it is positive; the bundle's where not given
    bs:int=None,             # images a batch; as in training where not given: another gives other last bits
    workers:int=None,        # threads that decode, as far as memory goes; as many as there are cores where not given
    device:str=None,         # 'cpu' or 'cuda'; fastai's default where not given
    precision:str=None,      # 'bf16', 'fp16' or 'fp32'; as it was trained where not given
    *,
    data:str=None,           # instead of images, what a study takes, with labels or without: every film of it
    **flags,
) -> Path:                   # `out`
    """Predict every image, a row each: the metadata that was used and what of it was `missing`, `probability` of the
    positive class, `decision`, a `flag` (values or pictures unlike the training rows'), or the `error` why it couldn't
    be read; `stamp` stands for the file's size and time. Killed and run again, it goes on where it was, and so with a
    longer list. BundleError, FileNotFoundError, or ValueError for a table of another model, threshold, list of images,
    or of images or metadata that have changed since.

    A table's `patient_id` and `label` are kept. At the end stands what the table says as a whole, printed and as
    OUT.summary.csv: the share that is called positive beside training's, quartiles of the probabilities, flags by kind,
    and, where there are labels of patients that it wasn't trained on, its scores."""
    one_source(images, data, flags, "Predicted are IMAGES")
    learn, out = load_bundle(bundle, device, precision), Path(out)
    if data is not None: images = _rows_of(data, folder, flags, learn.dls.vocab)
    predictor = Predictor(learn, threshold, kept_columns(images))
    bs, part = ifnone(bs, predictor.card["bs"]), out.with_name(f"{out.name}.part")
    if bs < 1: raise ValueError(f"bs is {bs} and must be at least 1.")
    if not (total := count_patients(images, folder)):
        raise FileNotFoundError(f"'{data or images}' holds no png, jpeg, tiff or DICOM image to predict.")
    if predictor.size and not predictor.card["typical"]:
        say(f"{bundle} doesn't know what films look like: no picture is flagged as unlike the training films")
    n, names = passed_over(images)
    if n: say(f"{n:,} files of {images} are passed over, for they don't begin as png, jpeg, tiff or DICOM: {names}")
    patients = partial(new_patients, images, predictor.card.get("metadata"), folder)
    old, n, size = part if part.exists() else out, 0, 0
    if old.exists(): n, size = _kept(old, predictor, patients(), bs, total)
    rows = itertools.islice(patients(), n, None)
    if n == total and old == out:
        say(f"{out} is finished: {n:,} rows")
        return summarised(predictor, out)
    if n: say(f"{n:,} of {total:,} rows are there already")
    if old == out and n: shutil.copyfile(out, part)
    out.parent.mkdir(parents=True, exist_ok=True)
    with named_errors(part), open(part, "r+" if part.exists() else "w", newline="", encoding="utf-8") as f:
        f.seek(size)
        f.truncate()
        if not size: f.write(csv_line(predictor.columns))
        seen = progress(_decoded(predictor, rows, threads_within(workers, THREAD_BYTES), bs), total - n, "Predicting")
        for batch in _batches(seen, bs):
            f.writelines(csv_line([o.get(c) for c in predictor.columns]) for o in predictor.table(batch))
            f.flush()
    os.replace(part, out)
    return summarised(predictor, out)
