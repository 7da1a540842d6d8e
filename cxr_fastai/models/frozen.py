"""What a frozen backbone makes of each film, computed once and kept: the inputs of a probe.

A film is known by its pixels, the backbone by its weights; files are written whole (`core.files.atomic`), so that a
killed run loses the last few seconds, and several processes may fill one store."""
import hashlib
from functools import lru_cache
from pathlib import Path
from time import monotonic
from zlib import crc32

import torch
import numpy as np
from fastai.torch_core import no_random, TensorImage
from filelock import FileLock

from ..cohort.cache import cache_root, RadiographCache
from ..cohort.radiograph import READER_VERSION
from ..core.files import atomic, say
from ..core.progress import progress
from ..data.loaders import radiograph_tfms
from ..fit.precision import as_device, casting, precision_on
from ..settings import versions
from .backbone import Backbone, create_backbone

__all__ = ["FrozenFeatures", "frozen_backbone"]

BS = 32        # films a batch, always: another number may give other last bits
EVERY = 3.     # seconds between two files of a store while it is filled: the work that a kill may cost

@lru_cache(4) # a grid asks for the same few again and again
def frozen_backbone(
    arch:str,      # any timm name
    weights:str,   # as for `create_backbone`
    size:int,      # side of the images, pixels
) -> Backbone:     # in evaluation
    "A backbone to look at films with, the same for every seed: without pretrained weights it is drawn from seed 0."
    with no_random(0): backbone = create_backbone(arch, weights, size)
    return backbone.eval().requires_grad_(False)

def _digest(backbone):
    "Of all its weights."
    res = hashlib.sha256()
    for name, o in backbone.state_dict().items(): res.update(name.encode() + o.detach().cpu().numpy().tobytes())
    return res.hexdigest()

def _key(pixels): return hashlib.blake2b(np.ascontiguousarray(pixels).tobytes(), digest_size=16).digest()

class FrozenFeatures:
    "Mean features of a backbone's map, `views` of each film: as it is, then augmented ones. Called with files."
    def __init__(self,
        arch:str,             # any timm name
        weights:str="auto",   # as for `create_backbone`
        size:int=256,         # side of the images, pixels
        views:int=1,          # of each film; 1: as it is
        tfms=None,            # what makes the others; `radiograph_tfms()` where not given
        precision:str="auto", # that the backbone computes in
        device=None,          # where; fastai's default where not given
        folder:str=None,      # of all stores; None: the user's cache
    ):
        "ValueError for fewer than one view."
        if views < 1: raise ValueError(f"views={views}: each film is looked at at least once, as it is.")
        self.made_by = arch, weights, size
        self.backbone, self.size, self.views = frozen_backbone(*self.made_by), size, views
        self.tfms, self.device = radiograph_tfms() if tfms is None else tfms, as_device(device)
        self.precision = precision_on(precision, self.device)
        about = dict(weights=_digest(self.backbone), size=size, precision=self.precision, device=self.device.type,
                     reader=READER_VERSION, torch=versions(["torch"])["torch"])
        if views > 1: about |= dict(views=views, tfms=self._pattern())
        name = hashlib.sha256(repr(sorted(about.items())).encode()).hexdigest()[:16]
        self.store = Path(folder or cache_root())/"features"/f"{arch}-{size}px-{name}"
        self.at, self.read, self.keys = {}, set(), {}
        self.values = np.empty((0, views, self.width), np.float32)

    def _pattern(self):
        "What the augmentations make of a drawn film: they have no other name that says all they do."
        drawn = np.arange(64*64, dtype=np.uint8).reshape(64, 64)
        film = torch.from_numpy(drawn)[None].float()/255
        made = [self._seen(film[None], drawn, view).numpy().tobytes() for view in range(1, self.views)]
        return hashlib.sha256(b"".join(made)).hexdigest()

    @property
    def width(self): return self.backbone.width

    def __len__(self): return len(self.at)

    def open(self,
        files:list,            # every file that will be asked for
        cache:RadiographCache, # which has their pixels
    ):
        "Compute what no run has computed yet."
        new = [o for o in map(str, files) if o not in self.keys]
        for i in range(0, len(new), 512):
            some = new[i:i+512]
            self.keys.update(zip(some, map(_key, cache.get(some))))
        self._load()
        if any(self.keys[o] not in self.at for o in new): self._compute(cache)
        return self

    def __call__(self,
        files:list,            # of films
        cache:RadiographCache, # which has their pixels
    ) -> torch.Tensor: # float32 `[n, views, width]`
        "Their features, in their order."
        if any(str(o) not in self.keys for o in files): self.open(files, cache)
        return torch.from_numpy(self.values[[self.at[self.keys[str(o)]] for o in files]])

    def _load(self):
        "Read the files of the store that this process hasn't; one that is damaged is computed again."
        if not self.store.exists(): return
        for file in sorted({*self.store.glob("*.npz")} - self.read):
            self.read.add(file)
            try:
                with np.load(file, allow_pickle=False) as z: keys, values = z["keys"], z["values"]
                if (len(keys), *self.values.shape[1:]) != values.shape: raise ValueError("another shape")
            except Exception as e: # damaged bytes raise of every kind
                say(f"{file} is damaged ({e}): its features are computed again", flush=True)
                file.unlink()
                continue
            self._add(list(map(bytes, keys)), values)

    def _add(self, keys, values):
        for key in keys: self.at.setdefault(key, len(self.at))
        fresh = [i for i, key in enumerate(keys) if self.at[key] >= len(self.values)]
        self.values = np.concatenate([self.values, values[fresh]])

    def _compute(self, cache):
        "Under a lock, batch by batch; what another process computed meanwhile is only read."
        self.store.mkdir(parents=True, exist_ok=True)
        with FileLock(self.store/".lock"):
            self._load()
            todo = list({key: o for o, key in self.keys.items() if key not in self.at}.items())
            keys, values, last = [], [], monotonic()
            starts = range(0, len(todo), BS)
            for i in progress(starts, len(starts), f"Features of {len(todo):,} films by {self.store.name}"):
                some = todo[i:i+BS]
                values.append(self.look(cache.get([file for _, file in some])))
                keys += [key for key, _ in some]
                if monotonic() - last < EVERY and i + BS < len(todo): continue
                self._write(keys, np.concatenate(values))
                keys, values, last = [], [], monotonic()

    def _write(self, keys, values):
        file = self.store/f"{hashlib.sha256(b''.join(keys)).hexdigest()[:16]}.npz"
        with atomic(file) as tmp: np.savez(tmp, keys=np.array([list(o) for o in keys], np.uint8), values=values)
        self.read.add(file)
        self._add(keys, values)

    @torch.no_grad()
    def look(self,
        pixels:np.ndarray, # uint8 `[n, h, w]`, at most 32
    ) -> np.ndarray:       # float32 `[n, views, width]`
        "Features of films, kept nowhere; the backbone's batch is always of one size."
        full = np.concatenate([pixels, pixels[:1].repeat(BS - len(pixels), 0)])
        plain = torch.from_numpy(full)[:, None].to(self.device).float()/255
        backbone, res = self.backbone.to(self.device), []
        for view in range(self.views):
            x = plain if not view else torch.cat([self._seen(o[None], p, view) for o, p in zip(plain, full)])
            with casting(self.precision, self.device): res.append(backbone(x).float().mean((2, 3)))
        return torch.stack(res, 1)[:len(pixels)].cpu().numpy()

    def _seen(self, film, pixels, view):
        "One film augmented, as its pixels and the number of the view draw it."
        with no_random(crc32(pixels.tobytes()) + view):
            x = TensorImage(film)
            for o in self.tfms: x = o(x, split_idx=0)
        return x.as_subclass(torch.Tensor)
