"""Unpaired batches for translators (paper section 4.3): A, the majority's radiographs, beside B, the minority's.

Only training rows are ever loaded, so that nothing synthetic can show a test patient to a classifier."""
import hashlib, random
from pathlib import Path

import pandas as pd
from fastai.data.core import DataLoaders, TfmdDL
from fastai.data.transforms import IntToFloatTensor
from fastai.torch_core import concat
from fastai.vision.augment import aug_transforms
from fastcore.basics import store_attr
from fasttransform.transform import DisplayedTransform

from ..cohort.leaks import check_leaks, LeakError
from ..cohort.rows import classes, is_synthetic
from ..core.files import few
from ..data.batches import RadiographTransform, training_only
from ..data.show import show_columns, TensorRadiograph
from ..fit.precision import as_device

__all__ = ["UnpairedDL", "UnpairedDataLoaders", "unpaired_tfms"]

class Signed(DisplayedTransform):
    "0..1 to the generators' -1..1."
    order = 100
    def encodes(self, x:TensorRadiograph): return x * 2 - 1
    def decodes(self, x:TensorRadiograph): return (x + 1) / 2

def unpaired_tfms() -> list:
    "Mild zoom, shift and lighting; no flip (the heart is on the left), no rotation (black corners would be learnt)."
    return aug_transforms(do_flip=False, max_rotate=0., max_zoom=1.12, max_lighting=.1, max_warp=0., p_affine=1.)

class UnpairedRows:
    "The rows of both domains; item (i, j) is image i of A and image j of B."
    n_inp = 2
    def __init__(self, a, b, tfm, split_idx): store_attr()
    def __len__(self): return max(len(self.a), len(self.b))
    def new_empty(self):
        "For `export`: the columns' names alone, for a Categorical keeps its words."
        return UnpairedRows(*(pd.DataFrame(columns=o.columns) for o in (self.a, self.b)), self.tfm, self.split_idx)
    def __getitem__(self, pair): return tuple(o[0] for o in self.load([pair]))
    def load(self, pairs):
        i, j = map(list, zip(*pairs))
        return self.tfm(self.a.iloc[i]), self.tfm(self.b.iloc[j])

class UnpairedDL(TfmdDL):
    "Batches (a, b), float `[n, 1, h, w]` in -1..1. An epoch is as long as the larger domain; B is drawn anew in each."
    def __init__(self, dataset, *args, **kwargs):
        super().__init__(dataset, *args, **kwargs)
        if self.drop_last and 0 < self.n < self.bs:
            raise ValueError(f"bs={self.bs} is more than the {self.n} rows of the larger domain; take bs <= {self.n}.")

    def _order(self, n):
        "As many numbers below `n` as the epoch has pairs: all of them in turn, shuffled anew at each turn."
        turns = (self.rng.sample(range(n), n) if self.shuffle else range(n) for _ in range(-(-self.n // n)))
        return list(concat(*turns))[:self.n]

    def get_idxs(self): return list(zip(self._order(len(self.dataset.a)), self._order(len(self.dataset.b))))
    def create_batches(self, samps): yield from map(self.dataset.load, self.chunkify(samps))
    def _one_pass(self): self._n_inp, self._types = 2, {tuple: [TensorRadiograph, TensorRadiograph]}

    def show_batch(self, b=None, max_n=4, **kwargs):
        "Pairs side by side, as the networks see them."
        a, b = self.decode(self.one_batch() if b is None else b)
        return show_columns({"A": a[:max_n], "B": b[:max_n]}, **kwargs)

class UnpairedDataLoaders(DataLoaders):
    "`train` is augmented and shuffled; `valid` is the same training rows as they are, in order, to look at."
    def __init__(self, *loaders, rows=None, size=None, seed=0, vocab=None, **kwargs):
        super().__init__(*loaders, **kwargs)
        self.rows, self.size, self.seed, self.vocab = rows, size, seed, vocab

    @classmethod
    def from_df(cls,
        rows:pd.DataFrame, # the cohort after `split_patients`; only the split 'train' is loaded
        path=".",          # where the learner saves; images are looked for here where `rows` has no `file`
        size:int=256,      # side of the square image, pixels: a multiple of 4, 24 or more
        bs:int=1,          # pairs a batch; the reference takes 1
        seed:int=0,        # of the pairs and of learners that are given none
        augment=None,      # batch augmentations; `unpaired_tfms()` where None, [] for none
        cache=True,        # decode once: True (user's cache) or a folder
        device=None,       # as in fastai
    ):
        """DataLoaders of (a, b): the majority's and the minority's training images. ValueError for a size the networks
        can't halve twice, a domain without training rows, or bs > the larger domain; `LeakError` as for classifiers."""
        if size % 4 or size < 24: raise ValueError(f"size={size}: the networks take multiples of 4 from 24 up.")
        if "split" not in rows: raise ValueError("The table has no column 'split'; split_patients gives it.")
        if is_synthetic(rows).any():
            raise ValueError("The table holds synthetic rows; a translator is trained on real ones.")
        if "file" not in rows: rows = rows.assign(file=[str(Path(path)/str(o)) for o in rows["image"]])
        tfm = RadiographTransform(size)
        tfm.open(rows["file"].tolist(), None if cache is True else cache)
        check_leaks(rows, hashes=tfm.hashes(rows["file"].tolist()))
        own = rows[rows["split"] == "train"]
        domains = [own[own["label"] == o] for o in classes(rows)]
        for name, o in zip(classes(rows), domains):
            if not len(o): raise ValueError(f"There is no training row of {name}; both domains are needed.")
        device = as_device(device)
        dl = lambda split_idx, tfms, **kwargs: UnpairedDL(
            UnpairedRows(*domains, tfm, split_idx), bs=bs, num_workers=0, device=device,
            after_batch=[IntToFloatTensor(), *map(training_only, tfms), Signed()], **kwargs)
        train = dl(0, unpaired_tfms() if augment is None else augment, shuffle=True, drop_last=True)
        train.rng = random.Random(seed)
        return cls(train, dl(1, []), rows=rows, size=size, seed=seed, vocab=classes(rows), path=path, device=device)

    def new_empty(self):
        "For `export`: no rows."
        loaders = super().new_empty().loaders
        return type(self)(*loaders, size=self.size, seed=self.seed, vocab=self.vocab, path=self.path,
                          device=self.device)

    @property
    def train_rows(self): return pd.concat([self.train_ds.a, self.train_ds.b])

    def check_leaks(self):
        "LeakError where what is loaded now isn't training rows alone, or shares a patient or an image with other rows."
        if self.rows is None:
            raise ValueError("An exported learner has no rows to train on; set its dls to new UnpairedDataLoaders.")
        loaded, others = self.train_rows, self.rows[self.rows["split"] != "train"]
        if bad := loaded["image"][loaded["split"] != "train"].tolist():
            raise LeakError(f"A translator is given training rows only; {few(bad)} are of another split.")
        rows = pd.concat([loaded, others])
        check_leaks(rows, hashes=self.train_ds.tfm.hashes(rows["file"].tolist()))

    @property
    def digest(self):
        "16 hex letters that name the training rows of both domains, in order."
        names = [o["image"].tolist() for o in (self.train_ds.a, self.train_ds.b)]
        return hashlib.sha256(repr(names).encode()).hexdigest()[:16]

    @property
    def patients(self): return sorted(self.train_rows["patient_id"].astype(str).unique())
