"""The patient's metadata as numbers: one-hot categories and min-max scaled numerics (paper section 4.2)."""
import warnings
from difflib import get_close_matches

import torch
import numpy as np
import pandas as pd
from fastai.torch_core import show_title, TensorBase
from fasttransform.transform import Transform

from ..cohort.rows import columns_of, is_image_only, numbers_of
from ..cohort.words import fold_words, known_word, OLDEST
from ..core.files import few

__all__ = ["JoinedMetadata", "MetadataTransform", "MetadataWords", "TensorMetadata", "fitted_metadata", "image_only"]

UNKNOWN = "#unknown" # a word that no training row had

class TensorMetadata(TensorBase):
    """Encoded metadata, float32 `[d]` for one patient or `[n, d]` for many. `only` says of each row whether it is
    image-only, as long as nothing but moves was done to them; None where that isn't known."""
    only = None
    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        res = super().__torch_function__(func, types, args, kwargs)
        changed = args[0] if func is torch.Tensor.__setitem__ else res
        if isinstance(changed, TensorMetadata) and func is not torch.Tensor.to: changed.only = None
        return res

def image_only(
    metadata:torch.Tensor, # `[n, d]`
) -> np.ndarray:           # bool `[n]`
    "Which rows are image-only: as the DataLoader said, or, where it didn't, those that are nan, which waits for a GPU."
    only = getattr(metadata, "only", None)
    return metadata.isnan().any(1).cpu().numpy() if only is None else only

class MetadataWords(dict):
    "One patient's metadata in words, column -> value; None where it is missing."
    def __str__(self): return ", ".join(f"{v:g}" if isinstance(v, float) else str(v or "?") for v in self.values())
    def show(self, ctx=None, **kwargs): return show_title(self, ctx=ctx)

class MetadataTransform(Transform):
    """Encode metadata columns. A category becomes one 0/1 slot a word, then one for an unknown word and one for a
    missing value; a number becomes (x - min)/(max - min) and one slot for a missing value. Words, minima and maxima are
    those of the rows it was fitted on, which must be training rows only (`leaks.check_leaks` looks). An image-only row
    (`is_image_only`) is all nan: `FusionModel` learns only its image."""
    out_type = TensorMetadata

    def __init__(self,
        cat_names=None,            # columns of words; those of the rows that it is fitted on, where not given
        cont_names=None,           # columns of numbers; likewise
    ):
        self.cat_names, self.cont_names = cat_names, cont_names
        self.stats, self.warned = {}, set()
        super().__init__()

    @property
    def names(self): return [*(self.cat_names or ()), *(self.cont_names or ())]

    def settle(self,
        rows:pd.DataFrame, # with their columns
    ) -> dict:             # `cat_names cont_names`
        "Take the names that weren't given from the table."
        own = columns_of(rows, self.cat_names, self.cont_names)
        self.cat_names, self.cont_names = own["cat_names"], own["cont_names"]
        return own

    def fit(self,
        rows:pd.DataFrame, # training rows
    ):
        "Learn words and ranges from `rows`. ValueError where a column is missing or holds no value at all."
        self.settle(rows)
        if absent := [o for o in self.names if o not in rows]:
            near = [o for name in absent for o in get_close_matches(str(name), map(str, rows.columns), 1)]
            raise ValueError(f"No metadata column {few(absent)}; the table has {few(rows.columns, 20)}"
                             f"{f'; did you mean {few(near)}?' if near else '.'}")
        values = {o: fold_words(rows[o], o) if o in self.cat_names else self._numbers(rows, o) for o in self.names}
        if empty := [o for o, v in values.items() if v.isna().all()]:
            raise ValueError(f"Metadata column {few(empty)} is empty in all {len(rows):,} training rows; leave it out.")
        self.stats = {o: sorted(values[o].dropna().unique()) for o in self.cat_names}
        for o in self.cont_names: self.stats[o] = float(values[o].min()), float(values[o].max())
        return self

    @property
    def widths(self):
        "Slots of each column."
        if not self.stats: raise ValueError("This MetadataTransform was not fitted; call fit(training_rows) first.")
        return [len(self.stats[o]) + 2 for o in self.cat_names] + [2] * len(self.cont_names)

    @property
    def column(self):
        "The column's number for each slot, int64 `[d]`."
        return torch.from_numpy(np.repeat(np.arange(len(self.names)), self.widths))

    @property
    def missing(self):
        "True for each slot that says 'this value is missing', bool `[d]`: the last of every column."
        missing = np.zeros(sum(self.widths), bool)
        missing[np.cumsum(self.widths) - 1] = True
        return torch.from_numpy(missing)

    def _once(self, name, said):
        "Warn of a column, the first time that there is something to warn of."
        if name not in self.warned: warnings.warn(f"{name}: {said}")
        self.warned.add(name)

    def _words(self, rows, name):
        "One-hot `[n, words + 2]` of a column of words."
        words, values = self.stats[name], fold_words(rows[name], name)
        absent, meant = values.isna().to_numpy(), {o: known_word(o, words, name) for o in values.dropna().unique()}
        codes = pd.Index(words).get_indexer(values.map(meant))
        unknown = (codes < 0) & ~absent
        if unknown.any():
            odd = few(values[unknown].unique())
            self._once(name, f"{odd} not among the training words {words}; encoded as unknown.")
        codes[unknown], codes[absent] = len(words), len(words) + 1
        return np.eye(len(words) + 2, dtype=np.float32)[codes]

    def _numbers(self, rows, name):
        numbers, old = numbers_of(rows, name)
        if old.any(): self._once(name, f"{few(rows[name][old].unique())} over {OLDEST} years; encoded as missing.")
        return numbers

    def _scaled(self, rows, name):
        "Scaled value and missing flag, `[n, 2]`, of a column of numbers."
        lo, hi = self.stats[name]
        scaled = (self._numbers(rows, name).to_numpy() - lo) / ((hi - lo) or 1)
        absent = np.isnan(scaled)
        return np.stack([np.where(absent, 0, scaled), absent], 1).astype(np.float32)

    def encodes(self, o:pd.DataFrame|pd.Series):
        if isinstance(o, pd.Series): return self.encodes(o.to_frame().T)[0]
        self.widths # refuses an unfitted transform
        known = o.reindex(columns=["image", *self.names])
        parts = [self._words(known, c) for c in self.cat_names] + [self._scaled(known, c) for c in self.cont_names]
        encoded = np.concatenate(parts, 1)
        only = is_image_only(o).to_numpy()
        encoded[only] = np.nan
        return TensorMetadata(torch.from_numpy(encoded), only=only)

    def decodes(self, o:TensorMetadata):
        parts = zip(self.names, torch.split(o.float().cpu(), self.widths))
        return MetadataWords({name: self._decode(name, part.tolist()) for name, part in parts})

    def _decode(self, name, slots):
        if slots[-1] != 0: return None # missing, or the nan of a row whose metadata isn't read
        if name in self.cat_names: return (self.stats[name] + [UNKNOWN])[int(np.argmax(slots))]
        lo, hi = self.stats[name]
        return round(lo + slots[0] * (hi - lo), 3)

def fitted_metadata(
    cat_names:list, # columns of words
    cont_names:list, # columns of numbers
    stats:dict,     # column -> words, or (min, max): what `fit` learnt
) -> MetadataTransform:
    "The transform that learnt this from rows which aren't here."
    res = MetadataTransform(cat_names, cont_names)
    res.stats = {k: tuple(o) if k in cont_names else list(o) for k, o in stats.items()}
    return res

class JoinedMetadata(MetadataTransform):
    """The encodings of several transforms side by side: of the same columns, each fitted on rows of its own. Its own
    `stats` are of all these rows: every word, and the widest range."""
    def __init__(self,
        parts:list, # fitted `MetadataTransform`s
    ):
        super().__init__(list(parts[0].cat_names), list(parts[0].cont_names))
        self.parts = parts
        for o in self.cat_names: self.stats[o] = sorted(set().union(*(part.stats[o] for part in parts)))
        for o in self.cont_names:
            lows, highs = zip(*(part.stats[o] for part in parts))
            self.stats[o] = min(lows), max(highs)
        for part in parts: part.warned = set(self.names) # what none of them knows is told here, once

    @property
    def column(self): return torch.cat([o.column for o in self.parts])
    @property
    def missing(self): return torch.cat([o.missing for o in self.parts])

    def encodes(self, o:pd.DataFrame|pd.Series):
        own = super().encodes(o)
        return TensorMetadata(torch.cat([part.encodes(o) for part in self.parts], -1), only=own.only)

    def decodes(self, o:TensorMetadata):
        each = zip(self.parts, o.split([len(part.column) for part in self.parts], -1))
        each = [part.decodes(x) for part, x in each]
        return MetadataWords({k: next((d[k] for d in each if d[k] != UNKNOWN), UNKNOWN) for k in self.names})
