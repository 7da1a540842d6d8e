"""Predictions for new patients, as a stream: decoded in threads while the model runs, in constant memory, resumable.

A picture that can't be read is a row with its reason. Rows are written in whole batches, and a run that is killed goes
on after the last of them, so that it gives the unbroken run's bits."""
import csv, itertools, shutil
from concurrent.futures import ThreadPoolExecutor

from .basics import *
from .bundle import *
from .cache import ahead, progress
from .data import *
from .intake import *
from .learner import RadiographLearner
from .metadata import *
from .radiograph import RadiographError, read_radiograph
from .show import TensorRadiograph
from .typical import atypical

__all__ = ["Predictor", "predict_patients"]

class Predictor:
    "A bundle that predicts batches of decoded rows."
    def __init__(self,
        learn:RadiographLearner, # of `load_bundle`
        threshold:float=None,    # above it is positive; None: the bundle's
    ):
        self.learn, self.card = learn, learn.card
        self.threshold = ifnone(threshold, self.card["threshold"])
        self.metadata = learn.dls.transform(MetadataTransform)
        self.size = self.card["size"] if learn.dls.transform(RadiographTransform) else None
        learn.model.eval()

    @property
    def names(self):
        "The model's metadata columns."
        return self.metadata.names if self.metadata else []

    @property
    def columns(self):
        "Of the table of predictions."
        return ["image", *self.names, "missing", "probability", "decision", "flag", "error", "threshold", "model"]

    def decode(self,
        row:dict, # of `new_patients`
    ) -> dict:    # with `pixels`, or `error`, and with its flags
        "Read one row's picture, where the model looks at pictures."
        if self.size is None: return row | dict(pixels=None)
        try: pixels = read_radiograph(row["file"], self.size)
        except RadiographError as e: return row | dict(error=str(e))
        flags = [row["flag"], "in colour" if colourful(row["file"]) else "", atypical(pixels, self.card["typical"])]
        return row | dict(pixels=pixels, flag="; ".join(filter(None, flags)))

    @torch.no_grad()
    def probabilities(self,
        rows:list, # of `decode`, at most a batch
    ) -> list:     # probability of the positive class, one a row
        "As `learn.get_preds`, to the bit, in batches of the same rows."
        if not rows: return []
        batch = [TensorRadiograph(torch.from_numpy(np.stack([o["pixels"] for o in rows]))[:, None])] if self.size else []
        if self.metadata: batch.append(self.metadata(pd.DataFrame(rows)[self.names]))
        self.learn.dls.valid.before_iter() # which tells the transforms that this is no training
        batch = self.learn.dls.valid.after_batch(to_device(tuple(batch), self.learn.dls.device))
        logits = self.learn.model(*(o.as_subclass(torch.Tensor) for o in batch))
        return self.learn.loss_func.activation(logits)[:, 1].tolist()

    def table(self,
        rows:list, # of `decode`
    ) -> list:     # of dicts of `columns`
        "Rows with what the model says of those that could be read."
        said = iter(self.probabilities([o for o in rows if "error" not in o]))
        about = dict(threshold=f"{self.threshold:g}", model=self.card["sha256"][:12])
        res = []
        for o in rows:
            line = {k: o.get(k) for k in ("image", *self.names, "flag", "error")} | about
            line["missing"] = " ".join(k for k in self.names if o.get(k) is None)
            if "error" not in o:
                line["probability"] = f"{(p := next(said)):.9g}"
                line["decision"] = self.card["classes"][p > self.threshold]
            res.append(line)
        return res

def _is_whole(good, n, bs): return good == bs or n == 16*bs # where hardly any can be read, memory must not fill

def _batches(rows, bs):
    "Lists of `bs` readable rows, the last one fewer, with the unreadable ones among them."
    some, good = [], 0
    for o in rows:
        some, good = [*some, o], good + ("error" not in o)
        if _is_whole(good, len(some), bs):
            yield some
            some, good = [], 0
    if some: yield some

def _decoded(predictor, rows, workers, bs):
    "In order, at most two batches ahead of the model."
    with ThreadPoolExecutor(workers) as pool:
        try: yield from (job.result() for _, job in ahead(pool, predictor.decode, rows, 2*bs))
        finally: pool.shutdown(cancel_futures=True)

# What an earlier run left

def _lines(file, columns):
    "The rows of a table of predictions, and where each ends; a last line that was cut off isn't one."
    with open(file, newline="", encoding="utf-8") as f:
        head = f.readline()
        if head.endswith("\n") and next(csv.reader([head])) != columns:
            raise ValueError(f"{file} is no table of this model's predictions: delete it, or name another.")
        for line in iter(f.readline, ""):
            if line.endswith("\n"): yield dict(zip(columns, next(csv.reader([line])))), f.tell()

def _kept(file, predictor, rows, bs, total):
    "Rows that stand, and their bytes: all `total` of a finished table, whole batches of another."
    found, whole, good, since = (0, 0), (0, 0), 0, 0
    for n, (line, size) in enumerate(_lines(file, predictor.columns), 1):
        about = dict(threshold=f"{predictor.threshold:g}", model=predictor.card["sha256"][:12])
        if other := [f"{k} {line[k]}, not {v}" for k, v in about.items() if line[k] != v]:
            raise ValueError(f"{file} was made with {'; '.join(other)}: delete it, or name another.")
        found, good, since = (n, size), good + (not line["error"]), since + 1
        if _is_whole(good, since, bs): whole, good, since = found, 0, 0
    return found if found[0] == total else whole

def _skip(file, n, predictor, rows):
    "Take the first `n` off `rows`, which must be those of the file."
    for (line, _), row in zip(itertools.islice(_lines(file, predictor.columns), n), rows):
        if line["image"] != row["image"]:
            raise ValueError(f"{file} holds '{line['image']}' where '{row['image']}' would come: delete it, or name another.")

def predict_patients(
    bundle:str,              # of `save_bundle`: a folder, or a .safetensors file
    images:str,              # an image (png, jpeg, tiff, DICOM), a folder of them, or a csv that names them
    out:str="predictions.csv", # the table; OUT.part until it is whole
    folder:str=None,         # of a csv's images; the csv's own where not given
    threshold:float=None,    # a probability above it is positive; the bundle's where not given
    bs:int=None,             # images a batch; as in training where not given: another gives other last bits
    workers:int=None,        # threads that decode; as many as there are cores where not given
    device:str=None,         # 'cpu' or 'cuda'; fastai's default where not given
    precision:str=None,      # 'bf16' or 'fp32'; as it was trained where not given
) -> Path:                   # `out`
    """Predict every image, a row each: the metadata that was used and what of it was `missing`, `probability` of the
    positive class, `decision`, a `flag` (values or pictures unlike the training rows'), or the `error` why it couldn't be
    read. Killed and run again, it goes on where it was. BundleError, FileNotFoundError, or ValueError for a table of
    another model, threshold or list of images."""
    predictor, out = Predictor(load_bundle(bundle, device, precision), threshold), Path(out)
    bs, total, part = bs or predictor.card["bs"], count_patients(images, folder), out.with_name(f"{out.name}.part")
    rows = new_patients(images, predictor.card.get("metadata"), folder)
    old, n, size = part if part.exists() else out, 0, 0
    if old.exists():
        n, size = _kept(old, predictor, rows, bs, total)
        _skip(old, n, predictor, rows)
    if n == total and old == out:
        print(f"{out} is finished: {n:,} rows")
        return out
    if n: print(f"{n:,} of {total:,} rows are there already")
    if old == out and n: shutil.copyfile(out, part)
    out.parent.mkdir(parents=True, exist_ok=True)
    with open(part, "r+" if part.exists() else "w", newline="", encoding="utf-8") as f:
        f.seek(size)
        f.truncate()
        table = csv.DictWriter(f, predictor.columns, lineterminator="\n")
        if not size: table.writeheader()
        seen = progress(_decoded(predictor, rows, workers or os.cpu_count(), bs), total - n, "Predicting")
        for batch in _batches(seen, bs):
            table.writerows(predictor.table(batch))
            f.flush()
    os.replace(part, out)
    return out
