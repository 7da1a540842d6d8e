"""Copies of a film by their perceptual hashes: resaved, resized, brighter, or turned over and inverted; on two sides.

What a hash can't tell (crops, small turns and shifts, borders, markers) is `altered`'s."""
import numpy as np
import pandas as pd

__all__ = ["NEAR", "near_duplicates", "perceptual_hash", "turned_duplicates"]

# Bits of 256 that differ, in 617 NIH films of 434 patients. Two films: 63 or more (one patient's: 65 or more). A film
# and its copy: resized to 128..1024 pixels at most 9; as JPEG of quality 75 at most 7; brighter or darker by 20 of 255,
# or with 0.8 to 1.2 times the contrast, at most 12; of 256 pixels, shifted by one each way 29 (99.7% within 24),
# by two along one side 34 (97% within 24), by two each way 49 (half within 24). Two drawn films, whose outlines have
# much in common: 27 or more. Hence 24.
NEAR = 24
_THUMB, _EDGE = 64, 1 # thumbnail's side; cells left out around it, where a shifted film is filled in
BUDGET = 2**22 # candidates of a band, and pairs in all: what films that are all alike may cost

def _box(n, k):
    "[k,n] weights that average `n` pixels over `k` equal cells, fractions of a pixel included."
    ends, i = np.linspace(0, n, k+1), np.arange(n)
    over = np.minimum(ends[1:,None], i+1) - np.maximum(ends[:-1,None], i)
    return (over.clip(0) * k/n).astype(np.float32)

def _dct(n):
    "[n,n] cosines of the DCT-II, not normalised: only signs are used."
    i = np.arange(n)
    return np.cos(np.pi * (2*i+1) * i[:,None] / (2*n)).astype(np.float32)

def _lowest(n, count=256):
    "Flat indices of the `count` lowest spatial frequencies of an [n,n] DCT, the mean left out."
    down, across = (o.ravel() for o in np.indices((n, n)))
    return np.lexsort((down, np.hypot(down, across)))[1:count+1]

def _packed(bits):
    "[n,256] bits, by frequency, to hashes [n,4] of 16 bands, each of low and high frequencies: see near_duplicates."
    mixed = bits.reshape(-1, 16, 16).transpose(0, 2, 1)
    return np.packbits(mixed.reshape(-1, 256), axis=1).view(np.uint64)

def _unpacked(hashes):
    "Bits [n,256], by frequency, of hashes [n,4]."
    mixed = np.unpackbits(np.ascontiguousarray(hashes).view(np.uint8).reshape(-1, 32), axis=1)
    return mixed.reshape(-1, 16, 16).transpose(0, 2, 1).reshape(-1, 256).astype(bool)

def perceptual_hash(
    pixels:np.ndarray, # [n,h,w] uint8; any size, a memory map too
) -> np.ndarray:       # [n,4] uint64
    """The signs of a radiograph's 256 lowest spatial frequencies, a pHash (https://www.phash.org). Copies of a film
    differ in few bits, whatever their size, contrast or compression; two films in about 120. One gray gives zeros."""
    if pixels.ndim != 3 or pixels.dtype != np.uint8:
        raise ValueError(f"perceptual_hash takes uint8 pixels [n,h,w], not {pixels.dtype} {list(pixels.shape)}.")
    n, h, w = pixels.shape
    side = _THUMB - 2*_EDGE
    rows, cols, dct, low = _box(h, _THUMB)[_EDGE:-_EDGE], _box(w, _THUMB)[_EDGE:-_EDGE].T, _dct(side), _lowest(side)
    bits, some = np.zeros((n, 256), bool), max(1, 2**22 // (h*w)) # as many at a time as are 16 MB of floats
    for i in range(0, n, some):
        thumbs = rows @ pixels[i:i+some].astype(np.float32) @ cols
        thumbs = (thumbs - thumbs.mean((1, 2), keepdims=True)) / (thumbs.std((1, 2), keepdims=True) + 1) # one gray: 0
        gray = np.tanh(thumbs) # blacks and whites weigh little, clipped or not
        waves = (dct @ gray @ dct.T).reshape(len(gray), -1)[:,low]
        bits[i:i+some] = waves > .5 # more than rounding, far less than the coefficients of a film
    return _packed(bits)

def _positions(words, asked, flips, budget):
    """Where candidates of `asked` stand in `words` (uint64, sorted): ranges, as begin and count `[n, probes]`. They
    agree in the first 16 bits, or in all of these but one. Too many: in all, then as many as may be, of the nearest."""
    head = lambda o: (o >> np.uint64(48)).astype(int)
    probe, there = head(asked)[:,None] ^ (np.r_[0, 1 << np.arange(16)] if flips else np.zeros(1, int)), head(words)
    if probe.size < 2**16: begin, end = (np.searchsorted(there, probe, o) for o in ("left", "right"))
    else:
        start = np.r_[0, np.bincount(there, minlength=1 << 16).cumsum()]
        begin, end = start[probe], start[probe+1]
    count = end - begin
    if count.sum() <= budget: return begin, count
    begin, count = begin[:,:1], count[:,:1]
    if count.sum() <= budget: return begin, count
    most = max(1, budget // len(asked))
    at = np.searchsorted(words, asked)[:,None] - most//2
    end = begin + count
    begin = np.clip(at, begin, np.maximum(begin, end - most))
    return begin, np.minimum(end - begin, most)

def _meetings(asked, hashes, flips, budget):
    "Candidates `i` of `asked`, `j` of `hashes`, band by band, a million at a time."
    bands = [o.view(np.uint16).reshape(-1, 16) for o in (hashes, asked)]
    for band in range(16): # the band in front, three more behind it
        words, own = (np.roll(o, -band, axis=1)[:,3::-1].copy().view(np.uint64).ravel() for o in bands)
        order = np.argsort(words, kind="stable")
        begin, count = _positions(words[order], own, flips, budget)
        for part in np.array_split(np.arange(len(asked)), 1 + (count.sum() >> 20)):
            many, first = count[part].ravel(), begin[part].ravel()
            i = np.repeat(part, count[part].sum(1))
            yield i, order[np.arange(many.sum()) + np.repeat(first - many.cumsum() + many, many)]

def _pairs_within(asked, ask, hashes, side, flips=True, budget=BUDGET):
    """[m,4] of bits, i < j, k: rows `ask`, whose hashes are now `asked` [k*len(ask),4], and rows of another side, at
    most `NEAR` bits apart."""
    found, n = [np.empty((0, 4), int)], 0
    for at, j in _meetings(asked, hashes, flips, budget):
        at, j = (o[side[ask[at % len(ask)]] != side[j]] for o in (at, j))
        bits = np.zeros(len(at), int)
        for w in range(4):
            bits += np.bitwise_count(asked[at,w] ^ hashes[j,w])
            at, j, bits = (o[bits <= NEAR] for o in (at, j, bits))
        k, i = at // len(ask), ask[at % len(ask)]
        found.append(np.unique(np.stack([bits, np.minimum(i, j), np.maximum(i, j), k], axis=1), axis=0))
        if (n := n + len(found[-1])) > budget: break
    return np.unique(np.concatenate(found), axis=0)

def _distinct(hashes, sides):
    """The first row of each hash and side, its hash, its side's code, and which are off the largest side: a pair has
    one."""
    sides = pd.factorize(np.asarray(sides))[0]
    _, first = np.unique(np.column_stack([hashes, sides.astype(np.uint64)]), axis=0, return_index=True)
    first.sort()
    side = sides[first]
    ask = np.flatnonzero(side != np.bincount(side).argmax()) if len(first) else first
    return first, np.ascontiguousarray(hashes[first]), side, ask

def near_duplicates(
    hashes:np.ndarray, # [n,4] uint64 of `perceptual_hash`
    sides:list,        # [n] split, or patient: only pairs with two different values are looked for
) -> tuple:            # pairs [m,2] of row numbers, nearest first; bits [m] in which they differ
    """The pairs on two sides within `NEAR` bits, without comparing each with each: hashes that differ in at most 31
    bits differ in at most one of some band's 16. Of the rows with one hash on one side, the first stands for all. All
    pairs, unless more than `BUDGET` rows agree so in a band: then those of 15 bits or less, which agree in some band
    fully; and of yet more, the ones that stand nearest in the order of their bits. That there are any is found
    still."""
    first, hashes, side, ask = _distinct(hashes, sides)
    found = _pairs_within(hashes[ask], ask, hashes, side)
    return first[found[:,1:3]], found[:,0]

def _turned(hashes):
    """{what was done: hashes of the films so changed}. A mirrored film has the signs of its odd columns' waves turned,
    an inverted one all, and one that lies on its side has rows' waves for columns'; so none is decoded again."""
    n = _THUMB - 2*_EDGE
    down, across = np.divmod(_lowest(n), n)
    place = {o: i for i, o in enumerate(zip(down.tolist(), across.tolist()))}
    on_side = [place.get(o[::-1], i) for o, i in place.items()]
    flips = {"": 0*down, "mirrored": across, "upside down": down, "turned by half": down + across}
    bits, res = _unpacked(hashes), {}
    for turn, source in (("", bits), ("on its side", bits[:,on_side])):
        for flip, waves in flips.items():
            for gray in ("", "inverted"):
                name = " and ".join(filter(None, [turn, flip, gray]))
                if name: res[name] = _packed(source ^ (waves % 2 > 0) ^ bool(gray))
    return res

def turned_duplicates(
    hashes:np.ndarray, # as for `near_duplicates`
    sides:list,        # as for `near_duplicates`
) -> tuple:            # pairs [m,2] of row numbers, nearest first; bits [m]; what was done to one of both [m], in words
    """The pairs on two sides of which one is the other mirrored, upside down, on its side, inverted, or several of
    these, within `NEAR` bits (15 for certain). Copies differ in 15 bits at most, two films in 73 or more."""
    first, hashes, side, ask = _distinct(hashes, sides)
    turned = _turned(hashes[ask])
    if not len(ask): return np.empty((0, 2), int), np.empty(0, int), np.empty(0, object)
    found = _pairs_within(np.concatenate([*turned.values()]), ask, hashes, side, flips=False)
    return first[found[:,1:3]], found[:,0], np.array([*turned], object)[found[:,3]]
