"""From a table of radiographs to fastai DataLoaders: one row feeds image, metadata and label (paper sections 3.2, 4).

What makes a batch of rows is in `batches`; here the table is checked, cached and fitted before anything is loaded."""
import inspect, random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from fastai.data.block import DataBlock, TransformBlock
from fastai.data.core import DataLoaders, Datasets, TfmdLists
from fastai.data.transforms import IntToFloatTensor
from fastai.layers import defaults
from fastai.vision.augment import aug_transforms
from fastcore.basics import first
from fastcore.foundation import L

from ..cohort.folder import DATA_FLAGS, load_cohort
from ..cohort.leaks import check_leaks, LeakError
from ..cohort.rows import classes, fold_metadata, is_synthetic, positive
from ..fit.precision import as_device
from ..cohort.seen import check_unseen, Seen
from ..cohort.words import fold_ids
from ..core.files import check_keywords, few, say
from .batches import FeatureTransform, LabelTransform, RadiographDL, RadiographTransform, training_only
from .given import as_rows, HINTS, HINTS_OF_FILES, OF_DLS, OF_ROWS, OF_TEST
from .metadata import MetadataTransform

__all__ = ["RadiographDataLoaders", "radiograph_block", "radiograph_tfms"]

OF_BLOCK = "tfms", "cache", "protocol" # of `radiograph_block`, beside what `from_df` names

class RadiographDataLoaders(DataLoaders):
    "DataLoaders of (image, metadata) -> label, or of either input alone, that know their table."
    seed = 0 # where no `from_df` was given another
    seen = Seen() # of the model that was loaded with them
    @classmethod
    def from_df(cls,
        rows:pd.DataFrame,         # the cohort after `split_patients`: `image patient_id label split`, metadata, `file`
        path=".",                  # where learners save; images are looked for here where `rows` has no `file`
        cat_names=None,            # metadata columns of words; those that the table remembers, where not given
        cont_names=None,           # metadata columns of numbers; likewise
        size:int=256,              # side of the square image, pixels
        bs:int=32,                 # images a batch
        seed:int=0,                # of shuffling, and of learners that are given none
        use:str="both",            # 'both', 'image' or 'metadata': the inputs
        weighted:bool=False,       # draw both classes equally often in training
        num_workers:int=None,      # 0 with a cache, all cores without
        **kwargs,                  # `tfms`, `cache` and `protocol` of `radiograph_block`; `val_bs`, `device`, ... of
                                   # fastai's `dataloaders`: what changes something here
    ):
        """Train and valid DataLoaders. Rows of the split 'test' are cached, and checked for leaks, but never loaded
        here: `dls.test_dl(rows)` loads them. ValueError for a table without both classes in train and valid, or bs >
        its training rows; `LeakError` where the sides share a patient, an image or a near-duplicate."""
        if "file" not in rows: rows = rows.assign(file=[str(Path(path)/str(o)) for o in rows["image"]])
        of_block = {name: kwargs.pop(name) for name in OF_BLOCK if name in kwargs}
        block = radiograph_block(cat_names=cat_names, cont_names=cont_names, size=size, use=use, **of_block)
        if num_workers is None: num_workers = 0 if block.cache is not False or use == "metadata" else defaults.cpus
        dls = block.dataloaders(rows, path=path, bs=bs, num_workers=num_workers, **kwargs)
        dls.train.rng, dls.seed = random.Random(seed), seed
        if weighted:
            hit = positive(dls.train_ds.items)
            dls.train.wgts = 1 / np.where(hit, hit.sum(), (~hit).sum())
        return dls

    @classmethod
    def from_csv(cls,
        csv:str|Path,         # any table of films, NIH's or another public set's too
        images:str|Path=None, # folder of the films, at any depth; the csv's own where not given
        seed:int=0,           # of the split, of shuffling, and of learners that are given none
        **kwargs,             # of `load_cohort`, what says how to read (`image patient label ...`); of `from_df`
    ):
        """Read a csv, its columns guessed aloud where they aren't named, split it by patient, which is said, and make
        DataLoaders. ValueError or FileNotFoundError for what isn't understood, fastai's `valid_pct` and its like."""
        return cls._from_data(csv, seed, kwargs | (dict(images=images) if images is not None else {}), "from_csv")

    @classmethod
    def from_folder(cls,
        folder:str|Path, # of class folders, as train/NORMAL or NORMAL alone; or with a csv
        seed:int=0,      # of the split, of shuffling, and of learners that are given none
        **kwargs,        # as of `from_csv`
    ):
        "As `from_csv`, of a folder; patients by the films' names where these tell."
        return cls._from_data(folder, seed, kwargs, "from_folder")

    @classmethod
    def _from_data(cls, data, seed, kwargs, who):
        own = [o for o in inspect.signature(cls.from_df).parameters if o not in ("rows", "kwargs")]
        check_keywords(kwargs, [*DATA_FLAGS[1:], *own, *OF_BLOCK, *OF_DLS], who, HINTS_OF_FILES)
        columns = {k: kwargs.pop(f"{k}_names") for k in ("cat", "cont") if f"{k}_names" in kwargs}
        flags = columns | {o: kwargs.pop(o) for o in DATA_FLAGS if o in kwargs}
        rows = load_cohort(data, **flags, split_seed=seed)
        sides = ", ".join(f"{n:,} {o}" for o, n in rows["split"].value_counts(sort=False).items())
        how = f"the table's own, {flags['split_column']}" if flags.get("split_column") else f"by patient, seed {seed}"
        say(f"Split, {how}: {sides} films; dls.test_rows are not loaded.")
        return cls.from_df(rows, seed=seed, **kwargs)

    def of_features(self,
        features:Callable, # (files, cache of their pixels) -> `[n, views, width]`
    ):
        "The same rows, batches and leak checks; a film is what a frozen backbone made of it, and isn't augmented here."
        tfms = [tl.tfms.fs[0] for tl in self.train_ds.tls]
        tfms = [FeatureTransform(t, features) if isinstance(t, RadiographTransform) else t for t in tfms]
        dsets = _datasets(self.train_ds.rows, tfms, self.n_inp, self.train_ds.protocol)
        dls = dsets.dataloaders(bs=self.train.bs, val_bs=self.valid.bs, path=self.path, device=self.device,
                                num_workers=0)
        dls.train.rng, dls.seed, dls.train.wgts = random.Random(self.seed), self.seed, self.train.wgts
        return dls

    def of_rows(self,
        rows:pd.DataFrame, # to train on in place of the own ones
    ):
        "Other training rows, encoded by the same transforms as they are fitted; leaks are looked for among all rows."
        own, start = self.train_ds, len(self.train_ds.rows)
        table = pd.concat([own.rows, rows.assign(split="train")], ignore_index=True)
        tls = [tl._new(table.iloc[start:], split_idx=0) for tl in own.tls]
        train = RadiographDatasets(tls=tls, n_inp=self.n_inp, rows=table, protocol=own.protocol)
        dls = type(self)(self.train.new(train), self.valid, path=self.path, device=self.device)
        dls.seed, dls.seen = self.seed, self.seen
        return dls

    def transform(self,
        kind:type, # RadiographTransform, MetadataTransform or LabelTransform
    ):             # the DataLoaders' own one, None where there is no such input
        "The transform of one kind."
        return first(t for tl in self.train_ds.tls for t in tl.tfms.fs if isinstance(t, kind))

    @property
    def metadata(self):
        "The fitted `MetadataTransform`; None where metadata is no input."
        return self.transform(MetadataTransform)

    @property
    def radiograph(self):
        "The `RadiographTransform`; None where the image is no input."
        return self.transform(RadiographTransform)

    @property
    def use(self):
        "'both', 'image' or 'metadata'."
        return {2: "both", 1: "image" if self.radiograph else "metadata"}[self.n_inp]

    def test_dl(self,
        rows,                   # new patients: a table, a row, an image's file or pixels, a list of these (`as_rows`)
        rm_type_tfms=None,      # fastai's protocol; rows always enter at the first transform
        with_labels:bool=False, # whether `rows` has labels to score against
        process=None,           # fastai's protocol for its own tables; nothing is processed here
        **kwargs,               # `bs`, `num_workers`, `device`, ... of fastai's
    ):
        """A DataLoader of new patients, in their order, by the training rows' statistics. Metadata may be missing.
        LeakError for rows with labels that are synthetic or were trained on (and aren't said to be of train): they may
        be predicted, and never scored on (but by 'paper')."""
        check_keywords(kwargs, OF_TEST, "test_dl", HINTS)
        if "device" in kwargs: kwargs["device"] = as_device(kwargs["device"])
        rows = as_rows(rows, self.columns)
        if self.radiograph and "file" not in rows:
            raise ValueError("These rows name no image: this model reads a radiograph, in a column 'image' or 'file'.")
        if with_labels and "label" not in rows: raise ValueError("with_labels=True: these rows have no column 'label'.")
        clean = self.train_ds.protocol == "clean"
        if clean and with_labels and (made := is_synthetic(rows)).any():
            raise LeakError(f"{made.sum():,} of these rows are synthetic and would be scored on: "
                            f"{few(rows['image'][made])}; leave them out.")
        if clean and with_labels: self._check_unseen(rows)
        tls = self.valid_ds.tls if with_labels else self.valid_ds.tls[:self.n_inp]
        test = Datasets(tls=[tl._new(rows, split_idx=1) for tl in tls], n_inp=self.n_inp)
        return self.valid.new(test, **kwargs)

    @property
    def columns(self):
        "What a row may have, that is read or is known to be of a table."
        names = self.metadata.names if self.metadata else []
        return list(dict.fromkeys([*names, *self.train_ds.items, *OF_ROWS]))

    def _check_unseen(self, rows):
        "LeakError where rows outside train are of patients of the training rows, or what a loaded model has seen."
        if "patient_id" in rows and len(self.train_ds): # an exported learner has none
            own = set(fold_ids(self.train_ds.items["patient_id"]))
            check_unseen(rows, fold_ids(rows["patient_id"]).isin(own).to_numpy(), "A model of these DataLoaders")
        if not self.seen: return
        if self.seen.films: self.open(rows)
        check_unseen(rows, self.seen.hits(rows, self.hashes(rows)), "This model")

    def open(self,
        rows:pd.DataFrame, # with `file`
    ):
        "Decode the films of `rows` into the user's cache, where none is open."
        if self.radiograph and not self.radiograph.cache: self.radiograph.open(rows["file"].tolist())

    def hashes(self,
        rows:pd.DataFrame, # with `file`
    ):
        "Perceptual hashes of their films; None without films or cache."
        if self.radiograph and len(rows): return self.radiograph.hashes(rows["file"].tolist())

    def check_leaks(self):
        "Put what is loaded now, and the table's test rows, through `leaks.check_leaks`; LeakError names the rows."
        if self.train_ds.protocol == "paper": return
        table, loaded = self.train_ds.rows, self.train_ds.items
        fitted = table[(table["split"] == "train") & ~table.index.isin(loaded.index)] # metadata was, of `of_rows`
        sides = [loaded.assign(split="train"), fitted, self.valid_ds.items.assign(split="valid"), self.test_rows]
        _check_leaks(pd.concat(sides, ignore_index=True), self.metadata, self.radiograph)

    @property
    def test_rows(self): return self.train_ds.rows[self.train_ds.rows["split"] == "test"]

def _check_leaks(rows, metadata, radiograph):
    features, stats = (metadata.names, metadata.stats) if metadata else ((), None)
    hashes = radiograph.hashes(rows["file"].tolist()) if radiograph else None
    check_leaks(rows, features, hashes, stats, None if hashes is None else radiograph.films(rows["file"].tolist()))

class RadiographDatasets(Datasets):
    "fastai's Datasets that remember the whole table, test rows included, and whether leaks are errors."
    _dbunch_type = RadiographDataLoaders
    def __init__(self, *args, rows=None, protocol="clean", **kwargs):
        super().__init__(*args, **kwargs)
        self.rows, self.protocol = rows, protocol
    def subset(self, i):
        tls = L(tl.subset(i) for tl in self.tls)
        return type(self)(tls=tls, n_inp=self.n_inp, rows=self.rows, protocol=self.protocol)

def _datasets(rows, tfms, n_inp, protocol):
    "Train and valid, a transform an input or label."
    splits = [np.flatnonzero(rows["split"] == o).tolist() for o in ("train", "valid")]
    tls = [TfmdLists(rows, [t], splits=splits, do_setup=False, dl_type=RadiographDL) for t in tfms]
    return RadiographDatasets(tls=tls, n_inp=n_inp, dl_type=RadiographDL, rows=rows, protocol=protocol)

class RadiographBlock(DataBlock):
    "A DataBlock over a table with a `split` column, which is checked, cached and fitted before anything is loaded."
    def __init__(self, blocks, cache, protocol="clean", **kwargs):
        self.cache, self.protocol = cache, protocol
        super().__init__(blocks, dl_type=RadiographDL, **kwargs)

    def dataloaders(self, source, path=".", verbose=False, **kwargs):
        check_keywords(kwargs, OF_DLS, "These DataLoaders", HINTS)
        return super().dataloaders(source, path, verbose, **kwargs | dict(device=as_device(kwargs.get("device"))))

    def datasets(self, source, verbose=False):
        tfms = {type(t): t for tt in self.type_tfms for t in tt}
        metadata, radiograph = tfms.get(MetadataTransform), tfms.get(RadiographTransform)
        if metadata: source = fold_metadata(source, **metadata.settle(source))
        else: source = fold_metadata(source) # refuses two columns of one name
        label, rows = LabelTransform(classes(source)), _refuse(source.reset_index(drop=True))
        if metadata: metadata.fit(rows[rows["split"] == "train"])
        if radiograph and self.cache is not False:
            radiograph.open(rows["file"].tolist(), None if self.cache is True else self.cache)
        elif radiograph: radiograph.look(rows["file"].tolist())
        if self.protocol == "clean": _check_leaks(rows, metadata, radiograph)
        else: say("protocol='paper': patients and synthetic images may be on two sides, and the scores flatter.")
        return _datasets(rows, [*tfms.values(), label], self.n_inp, self.protocol)


    def empty(self,
        vocab,       # (negative, positive)
        metadata=None, # the fitted `MetadataTransform`, where metadata is an input
        bs:int=32,   # rows a batch
        device=None, # fastai's default where not given
        white:int=None, # bits that were taken for white in 16-bit files that don't say
    ) -> RadiographDataLoaders:
        "DataLoaders without a row, that encode new patients as some training rows did: those of a loaded model."
        tfms = [t for tt in self.type_tfms for t in tt]
        for t in tfms:
            if isinstance(t, RadiographTransform): t.white = white
        tfms = [metadata if isinstance(t, MetadataTransform) else t for t in tfms]
        none = pd.DataFrame(columns=["image", "patient_id", "label", "split", "file"])
        dsets = _datasets(none, [*tfms, LabelTransform(vocab)], self.n_inp, self.protocol)
        return dsets.dataloaders(bs=bs, after_batch=self.batch_tfms, device=as_device(device), num_workers=0)

def _refuse(rows):
    "The table, or one sentence that says why nothing can be trained on it."
    if "split" not in rows: raise ValueError("The table has no column 'split'; put it through split_patients first.")
    if (unknown := rows["label"].isna()).any():
        raise ValueError(f"{unknown.sum():,} rows have no label ({few(rows.loc[unknown, 'image'])}); leave them out.")
    for side in "train", "valid":
        found = rows.loc[rows["split"] == side, "label"].value_counts()
        if (found == 0).any():
            raise ValueError(f"The {side} rows hold {found.to_dict()}: both classes are needed to train and to score.")
    return rows

def radiograph_tfms() -> list:
    "Augmentations that suit radiographs: a little rotation, zoom and lighting; no flip, for the heart is on the left."
    return aug_transforms(do_flip=False, max_rotate=7., max_zoom=1.1, max_lighting=.1, max_warp=0., pad_mode="zeros")

def radiograph_block(
    cat_names=None,            # metadata columns of words; those that the table remembers, where not given
    cont_names=None,           # metadata columns of numbers; likewise
    size:int=256,              # side of the square image, pixels
    use:str="both",            # 'both', 'image' or 'metadata': the inputs
    tfms=None,                 # batch augmentations; `radiograph_tfms()` where None, [] for none
    cache=True,                # decode once: True (user's cache), a folder, or False (decode at every use)
    protocol:str="clean",      # 'paper' lets leaks between the sides pass, said aloud: to show what the paper did
) -> RadiographBlock:          # `.dataloaders(rows)` gives `RadiographDataLoaders`
    "A DataBlock that pairs each radiograph with its metadata row: (image, metadata) -> label."
    if use not in ("both", "image", "metadata"):
        raise ValueError(f"use={use!r} is not known; use 'both', 'image' or 'metadata'.")
    if protocol not in ("clean", "paper"): raise ValueError(f"protocol={protocol!r} is neither 'clean' nor 'paper'.")
    batch_tfms = [IntToFloatTensor, *map(training_only, radiograph_tfms() if tfms is None else tfms)]
    pixels = TransformBlock(RadiographTransform(size), batch_tfms=batch_tfms)
    words = TransformBlock(MetadataTransform(cat_names=cat_names, cont_names=cont_names))
    inputs = {"both": [pixels, words], "image": [pixels], "metadata": [words]}[use]
    return RadiographBlock(inputs, cache=cache, protocol=protocol, n_inp=len(inputs))
