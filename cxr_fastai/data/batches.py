"""A row of the table, or many, to pixels and a label; and batches, made by indexing the table once.

Each transform takes one row (a Series) or many (a DataFrame), so that a batch is made by indexing the table and the
pixel cache once, and an image can't be paired with another patient's metadata."""
from collections.abc import Callable

import torch
import numpy as np
import pandas as pd
from fastai.data.core import TfmdDL
from fastai.data.transforms import Category, CategoryMap, ToTensor
from fastai.torch_core import TensorCategory, TensorImage
from fastai.vision.augment import AffineCoordTfm, affine_grid
from fastcore.basics import tuplify
from fasttransform.transform import Transform
from torch.nn.functional import grid_sample

from ..cohort.cache import RadiographCache
from ..cohort.radiograph import read_radiograph, white_of
from .given import is_picture, read_picture
from .show import RadiographInput, TensorRadiograph

__all__ = ["check_batch", "FeatureTransform", "LabelTransform", "RadiographDL", "RadiographTransform", "TrainingAffine",
           "training_only"]

class RadiographTransform(Transform):
    "A row's image file to pixels: from the decode-once cache where it is there, else by reading the file."
    out_type, by_batch = TensorRadiograph, True # the pixels of a whole table needn't fit in memory
    def __init__(self,
        size:int=256, # side of the square image, pixels
    ):
        self.size, self.cache, self.white = size, None, None # white: bits, of 16-bit files that don't say; once known
        super().__init__()

    def open(self,
        files:list,   # every file that will be asked for
        folder=None,  # the cache's folder; None for the user's own
    ):
        "Decode what no run has decoded yet, and serve it from memory maps."
        self.cache = RadiographCache(files, self.size, folder, white=self.white)
        self.white = self.cache.white

    def look(self,
        files:list, # every file that will be asked for
    ):
        "Without a cache: what white is, where files don't say."
        self.white = self.white or white_of(files)

    def hashes(self,
        files:list, # of every row that is loaded now; those that came later are decoded first
    ):
        "Perceptual hashes for the leak check, made when decoding; None without a cache."
        if not self.cache: return
        if any(f not in self.cache for f in files): self.open(files, self.cache.folder)
        return self.cache.hashes(files)

    def films(self,
        files:list, # as for `hashes`, after it
    ):
        "Row numbers to cached pixels `[m,h,w]`, for the leak check."
        return lambda at: self.cache.get([files[i] for i in at])

    def _read(self, file):
        if is_picture(file): return read_picture(file, self.size, self.white)
        if self.cache and file in self.cache: return self.cache[file]
        return read_radiograph(file, self.size, self.white)

    def encodes(self, o:pd.DataFrame|pd.Series):
        if isinstance(o, pd.Series): return TensorRadiograph(torch.from_numpy(np.array(self._read(o["file"])))[None])
        files = o["file"].tolist()
        cached = self.cache and all(not is_picture(f) and f in self.cache for f in files)
        pixels = self.cache.get(files) if cached else np.stack([self._read(f) for f in files])
        return TensorRadiograph(torch.from_numpy(pixels)[:, None])

class FeatureTransform(RadiographTransform):
    """A row's film to its mean features by a frozen backbone, `[width, 1, 1]`, a map of one place: of one of its views
    in training, drawn each epoch, else as it is."""
    out_type, by_batch = torch.Tensor, False # a type of its own would cost more than a step
    def __init__(self,
        pixels:RadiographTransform, # whose films they are
        features:Callable,          # (files, cache of their pixels) -> `[n, views, width]`
    ):
        super().__init__(pixels.size)
        self.cache, self.white, self.features, self.training = pixels.cache, pixels.white, features, False

    def __call__(self, x, split_idx=None, **kwargs):
        self.training = split_idx == 0
        return super().__call__(x, split_idx=split_idx, **kwargs)

    def encodes(self, o:pd.DataFrame|pd.Series):
        one = isinstance(o, pd.Series)
        files = [o["file"]] if one else o["file"].tolist()
        if any(f not in self.cache for f in files): self.open(files, self.cache.folder)
        x = self.features(files, self.cache)
        n, views = x.shape[:2]
        view = torch.randint(views, (n,)) if self.training and views > 1 else torch.zeros(n, dtype=torch.long)
        x = x[torch.arange(n), view][..., None, None]
        return x[0] if one else x

class LabelTransform(Transform):
    "A row's label to 0 (negative) or 1 (positive)."
    out_type = TensorCategory
    def __init__(self,
        vocab:list, # (negative, positive)
    ):
        self.vocab, self.c = CategoryMap(list(vocab), sort=False), len(vocab)
        super().__init__()
    def encodes(self, o:pd.DataFrame|pd.Series):
        if isinstance(o, pd.Series): return TensorCategory(self.vocab.o2i[o["label"]])
        return TensorCategory([self.vocab.o2i[c] for c in o["label"]])
    def decodes(self, o:TensorCategory): return Category(self.vocab[int(o)])

class TrainingAffine(AffineCoordTfm):
    """fastai's, in training alone: it resamples what is only predicted by the identity, slower and other in the last
    bits. Nor does it ask the device how far it zooms, which matters to an image that is made larger."""
    def before_call(self, b, split_idx):
        super().before_call(b, split_idx)
        self.do = not split_idx

    def _encode(self, x, mode, reverse=False):
        if not isinstance(x, TensorImage): return super()._encode(x, mode, reverse)
        at = affine_grid(self.mat, x.shape, align_corners=self.align_corners)
        for f in self.coord_fs: at = f(at)
        return TensorImage(grid_sample(x, at, mode=mode, padding_mode=self.pad_mode, align_corners=self.align_corners))

def training_only(
    t:Callable, # a batch transform
) -> Callable: # the same, fastai's affine ones as `TrainingAffine`
    "Augmentations are of training rows."
    if not isinstance(t, AffineCoordTfm) or t.size: return t # one with a size makes every image that large
    return TrainingAffine(t.aff_fs, t.coord_fs, mode=t.mode, pad_mode=t.pad_mode, align_corners=t.align_corners)

def _at(whole, at):
    "Rows of what was encoded whole; who of them is image-only stays known."
    res = whole[torch.from_numpy(at)]
    if getattr(whole, "only", None) is not None: res.only = whole.only[at]
    return res

def check_batch(
    bs:int, # rows a batch
    n:int,  # training rows
):
    "ValueError where no batch would be full: training leaves out the last, smaller one."
    if 0 < n < bs:
        raise ValueError(f"bs={bs} is more than the {n} training rows, so that no batch would be full; choose bs <= "
                         f"{n}.")

class RadiographDL(TfmdDL):
    "Batches by indexing: `bs` rows go through each pipeline together. `wgts`, one a row, draw rows with replacement."
    wgts = None
    def __init__(self, dataset, *args, **kwargs):
        super().__init__(dataset, *args, **kwargs)
        if not isinstance(self.bs, int) or self.bs < 1:
            raise ValueError(f"bs={self.bs!r} is no number of rows, 1 or more.")
        if self.drop_last: check_batch(self.bs, self.n)

    def get_idxs(self):
        if self.wgts is None: return super().get_idxs()
        return self.rng.choices(range(self.n), weights=self.wgts, k=self.n)

    def create_batches(self, samps):
        if any(not isinstance(t, ToTensor) for t in self.after_item.fs + self.before_batch.fs): # they need single items
            yield from super().create_batches(samps)
            return
        whole = {}
        for idxs in self.chunkify(samps):
            whole, at = whole or self._encoded(), np.array(idxs)
            rows = self.dataset.items.iloc[idxs] if len(whole) < len(self.dataset.tls) else None
            yield tuple(_at(whole[i], at) if i in whole else tl.tfms(rows) for i, tl in enumerate(self.dataset.tls))

    def _encoded(self):
        "Metadata, labels and features of all rows: by the batch it takes longer than a step on a GPU."
        return {i: tl.tfms(self.dataset.items) for i, tl in enumerate(self.dataset.tls)
                if not getattr(tl.tfms[0], "by_batch", False)}

    def _one_pass(self):
        "The batch's types are known; fastai would read an image to find them."
        self._n_inp, self._types = self.dataset.n_inp, {tuple: [tl.tfms[-1].out_type for tl in self.dataset.tls]}

    def _pre_show_batch(self, b, max_n=9):
        x, y, its = super()._pre_show_batch(b, max_n)
        return RadiographInput(tuplify(x)), y, its
