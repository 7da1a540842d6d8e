"""Decode once: radiographs at the working size, kept as one memory-mapped uint8 array that any number of runs share.

One store per working size and reader version holds `pixels.u8` (slots of size x size bytes, appended) and `index.npz`
(a row a slot). A slot's key is the file's absolute path, length and mtime: a changed file gets a new slot, and any set
of files shares the store. Pixels reach the disk before the index that names them: a kill costs the last seconds' work
and nothing else. One process builds at a time (a file lock, which dies with its process); reading takes no lock.
What a changed or deleted file leaves behind stays until the folder is deleted, safely while nothing runs.

A 16-bit file that doesn't say what white is gets the white of its set: the bits of the film that needs most. Each is
first decoded by its own values; those that need fewer bits than the set are decoded again, into slots of their own."""
import io, os, shutil, time
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path
from zlib import crc32

import numpy as np
from filelock import FileLock, Timeout

from ..core.files import atomic, few, named_errors, say
from ..core.memory import threads_within
from ..core.progress import ahead, progress
from .duplicates import perceptual_hash
from .radiograph import decode_radiograph, is_one_gray, READER_VERSION, THREAD_BYTES
from .signs import RadiographError

__all__ = ["RadiographCache", "cache_root"]

SLOT = np.dtype([("key", "V16"), ("crc", "u4"), ("hash", "u8", 4), ("bits", "u1")])
COMMIT_EVERY = 2.  # seconds between two indices on disk while building: the work that a kill may cost

def cache_root() -> Path:
    "Where what can be made again is kept: $CXR_FASTAI_CACHE, else ~/.cache/cxr_fastai."
    return Path(os.environ.get("CXR_FASTAI_CACHE") or Path.home()/".cache"/"cxr_fastai")

def _key(file):
    s = os.stat(file)
    return blake2b(os.fsencode(f"{os.path.abspath(file)}\0{s.st_size}\0{s.st_mtime_ns}"), digest_size=16).digest()

def _keys(files):
    "Each file's key; ONE FileNotFoundError for all that are not there."
    keys, missing = {}, []
    for f in files:
        try: keys[f] = _key(f)
        except (FileNotFoundError, NotADirectoryError, ValueError): missing.append(f)  # ValueError: no name at all
    if not missing: return keys
    raise FileNotFoundError(f"{len(missing):,} of {len(files):,} radiographs do not exist ({few(missing)}): is "
                            f"{os.path.dirname(os.path.abspath(missing[0]))} the folder they are in?")

def _with_white(key, white): return blake2b(key + bytes([white]), digest_size=16).digest()

class RadiographCache:
    """The radiographs `files` at `size`, decoded where no run has done it yet: `cache.get(batch_of_files)`. Forked
    workers share its pixels. Pickled it is a size and a folder, unpickled it is empty: a model carries no patient."""
    def __init__(
        self,
        files:list,         # image files, in any order
        size:int,           # side of the square, pixels
        folder=None,        # where stores are; None: `cache_root()`
        progress:bool=True, # show how far the decoding is
        white:int=None,     # bits of white for 16-bit files that don't say; None: the most that one of `files` needs
    ):
        """Raises ONE FileNotFoundError or RadiographError for all files missing or unreadable; the good stay cached.
        `white` is then the bits that were taken, None where each file says itself what white is."""
        if size < 1: raise ValueError(f"size is the side of a square in pixels, not {size}")
        self.size, self.folder, self.progress, self.white, self.dark = size, folder, progress, None, set()
        self.store = Path(folder or cache_root())/f"{size}px-v{READER_VERSION}"
        self.keys, self.pixels = _keys([str(f) for f in files]), np.empty((0, size, size), np.uint8)
        self._open(self._load() if self.keys else np.empty(0, SLOT))
        said = self._complete()
        self._take_white(white)
        if self._complete() or said: self._say_white()

    def _complete(self):
        "Decode what isn't there; whether anything was."
        if lost := any(k not in self.slot for k in self.keys.values()): self._build()
        return lost

    def _bits(self): return self.rows["bits"][self._slots(self.keys)]

    def _take_white(self, white):
        "The set's white, and the keys of films that need fewer bits by themselves."
        bits = self._bits()
        self.white = white or int(bits.max(initial=0)) or None
        if beyond := [f for f, o in zip(self.keys, bits) if o > (self.white or 0)]:
            raise RadiographError(f"{len(beyond):,} radiographs hold values beyond {2**self.white-1:,}, the white of "
                                  f"the films they are to be like: {few(beyond)}. Save them with the PNG's sBIT, or "
                                  "with 8 bits")
        self.dark = {f for f, o in zip(self.keys, bits) if 0 < o < (self.white or 0)}
        self.keys = self._of_set(self.keys)

    def _of_set(self, keys): return {f: _with_white(k, self.white) if f in self.dark else k for f, k in keys.items()}

    def _say_white(self):
        if n := int((self._bits() > 0).sum()):
            say(f"{n:,} of {len(self):,} radiographs have 16 bits and don't say what white is: {2**self.white-1:,} "
                f"({self.white} bits) was taken, by the greatest value of them all")

    def __len__(self): return len(self.keys)
    def __contains__(self, file): return str(file) in self.keys
    def __getitem__(self, file): return self.get([file])[0]
    def __getstate__(self): return dict(size=self.size, folder=self.folder, white=self.white)
    def __setstate__(self, state): self.__init__([], **state)

    def _slots(self, files):
        try: return np.array([self.slot[self.keys[str(f)]] for f in files], int)
        except KeyError as e: raise KeyError(f"{e.args[0]} is not in this cache; name it when making it") from None

    def get(
        self,
        files:list,  # a batch of the files the cache was made with
    ) -> np.ndarray: # uint8 [n,size,size], a copy
        "The pixels of `files`, in their order; a slot that differs from its crc at its first reading is decoded again."
        files = [str(f) for f in files]
        for _ in range(2):
            at = self._slots(files)
            x = self.pixels[at]
            bad = [files[j] for j in np.flatnonzero(~self.checked[at]) if crc32(x[j]) != self.rows["crc"][at[j]]]
            if not bad:
                self.checked[at] = True
                return x
            say(f"{self.store} is damaged at {few(bad)}: decoding {len(bad):,} again", flush=True)
            self._build(bad)
        raise OSError(f"{self.store} does not give back what was written to it; check its disk, or name another folder")

    def hashes(
        self,
        files:list,  # as for `get`
    ) -> np.ndarray: # uint64 [n,4]
        "The perceptual hashes of `files`, made when they were decoded (`duplicates.perceptual_hash`)."
        return self.rows["hash"][self._slots(files)]

    def crcs(
        self,
        files:list,  # as for `get`
    ) -> np.ndarray: # uint32 [n]
        "A checksum of the pixels of each of `files`."
        return self.rows["crc"][self._slots(files)]

    def _load(self):
        "The index's rows whose pixels are there; none where it is missing, or damaged, which is said."
        try:
            index = io.BytesIO((self.store/"index.npz").read_bytes())
            whole = (self.store/"pixels.u8").stat().st_size // self.size**2
        except FileNotFoundError: return np.empty(0, SLOT)
        try:
            with np.load(index, allow_pickle=False) as z: rows = z["slots"]
            if rows.dtype != SLOT or rows.ndim != 1: raise ValueError("another layout")
        except Exception as e:  # damaged bytes raise of every kind
            say(f"{self.store/'index.npz'} is damaged ({e}): building the store anew", flush=True)
            return np.empty(0, SLOT)
        if whole < len(rows): say(f"{self.store} lacks pixels: {len(rows)-whole:,} slots are dropped", flush=True)
        return rows[:whole]

    def _open(self, rows):
        "Map the pixels that `rows` describe; forked workers share them."
        self.rows, self.checked = rows, np.zeros(len(rows), bool)
        self.slot = {k: i for i,k in enumerate(rows["key"].tolist())}
        if not len(rows): return
        shape = len(rows), self.size, self.size
        self.pixels = np.asarray(np.memmap(self.store/"pixels.u8", np.uint8, "r", shape=shape))

    def _build(self, again=()):
        "Under the lock: decode what no process has yet, and the files `again`, each into the slot it has."
        self.store.mkdir(parents=True, exist_ok=True)
        self.keys.update(self._of_set(_keys(again)))
        again = {self.keys[f] for f in again}
        with self._lock():
            for tmp in self.store.glob(".index.*.npz"): tmp.unlink()  # of a process killed while it wrote its index
            self._open(self._load())
            todo = {k: f for f,k in self.keys.items() if k not in self.slot or k in again}
            errors = self._fill(todo) if todo else []
            self._open(self._load())
        if errors: self._refuse(errors)

    def _refuse(self, errors):
        with atomic(self.store/"unreadable.txt") as tmp:
            tmp.write_text("\n".join(errors) + "\n", "utf-8", "backslashreplace")
        every = f" ({self.store/'unreadable.txt'} names all)" if len(errors) > 3 else ""
        raise RadiographError(f"{len(errors):,} of {len(self):,} radiographs cannot be read: {few(errors)}{every}. The "
                              "others are cached; mend these or leave them out")

    def _fill(self, todo):
        "Decode the files of `todo` (key: file) in threads, as Pillow frees the GIL, into their slots; the errors met."
        n, errors, blank, last = len(self.rows), [], [], time.monotonic()
        workers = threads_within(None, THREAD_BYTES)
        rows, file = np.concatenate([self.rows, np.zeros(len(todo), SLOT)]), self.store/"pixels.u8"
        if (need := len(todo)*self.size**2) > (free := shutil.disk_usage(self.store).free):
            raise OSError(f"{self.store} needs {need/1e9:.1f} GB and its disk has {free/1e9:.1f} GB left: name another "
                          "folder with CXR_FASTAI_CACHE")
        if not n: file.unlink(missing_ok=True)  # unlinked, not overwritten: a process that maps it goes on reading it
        with named_errors(file), open(file, "r+b" if n else "w+b") as f, ThreadPoolExecutor(workers) as pool:
            done = ahead(pool, lambda o: self._decode(o[1]), todo.items(), 16*workers)
            if self.progress: done = progress(done, len(todo), f"Decoding radiographs to {self.size} px")
            try:
                for (key,name),job in done:
                    try: pixels, *rest = job.result()
                    except RadiographError as e: errors.append(str(e)); continue
                    if is_one_gray(pixels): blank.append(name)
                    i = self.slot.get(key, n)
                    f.seek(i * self.size**2)
                    f.write(pixels)
                    rows[i], n = (key, *rest), max(n, i+1)
                    if time.monotonic()-last > COMMIT_EVERY: last = self._commit(f, rows[:n])
            finally: self._commit(f, rows[:n])
        if blank: say(f"{len(blank):,} of {len(todo):,} radiographs are of one gray: {few(blank)}")
        return errors

    def _decode(self, file):
        "Pixels and what the index says of them; the set's white is for the films that would take another."
        pixels, bits = decode_radiograph(file, self.size, self.white if file in self.dark else None)
        return pixels, crc32(pixels), perceptual_hash(pixels[None])[0], bits

    def _commit(self, f, rows):
        "Pixels first, then the index that vouches for them; gives the time."
        f.flush()
        os.fsync(f.fileno())
        with atomic(self.store/"index.npz") as tmp: np.savez(tmp, slots=rows)
        return time.monotonic()

    def _lock(self):
        "Held by at most one process; whoever waits is told so."
        lock = FileLock(self.store/"lock")
        try: return lock.acquire(timeout=1)
        except Timeout: say(f"Waiting for another process that is filling {self.store}", flush=True)
        return lock.acquire()
