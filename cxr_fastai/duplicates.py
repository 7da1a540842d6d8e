"""Copies of a film: perceptual hashes, and the pairs of near-duplicates that lie on two sides of a split."""
import numpy as np, pandas as pd

__all__ = ["NEAR", "near_duplicates", "perceptual_hash"]

# Bits of 256 that differ, in 617 NIH films of 434 patients. Two films: 63 or more (one patient's: 65 or more). A film
# and its copy: resized to 128..1024 pixels at most 9; as JPEG of quality 75 at most 7; brighter or darker by 20 of 255,
# or with 0.8 to 1.2 times the contrast, at most 12; of 256 pixels, shifted by one each way 29 (99.7% within 24),
# by two along one side 34 (97% within 24), by two each way 49 (half within 24). Two drawn films, whose outlines have
# much in common: 27 or more. Hence 24.
NEAR = 24
_THUMB, _EDGE = 64, 1 # thumbnail's side; cells left out around it, where a shifted film is filled in

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
    u, v = np.indices((n, n))
    return np.lexsort((u.ravel(), np.hypot(u, v).ravel()))[1:count+1]

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
        t = rows @ pixels[i:i+some].astype(np.float32) @ cols
        t = (t - t.mean((1, 2), keepdims=True)) / (t.std((1, 2), keepdims=True) + 1) # +1: an image of one gray stays 0
        f = (dct @ np.tanh(t) @ dct.T).reshape(len(t), -1)[:,low] # tanh: blacks and whites weigh little, clipped or not
        bits[i:i+some] = f > .5 # more than rounding, far less than the coefficients of a film
    mixed = bits.reshape(n, 16, 16).transpose(0, 2, 1) # 16 bands, each of low and high frequencies: see near_duplicates
    return np.packbits(mixed.reshape(n, 256), axis=1).view(np.uint64)

def near_duplicates(
    hashes:np.ndarray, # [n,4] uint64 of `perceptual_hash`
    sides:list,        # [n] split, or patient: only pairs with two different values are looked for
) -> tuple:            # pairs [m,2] of row numbers, nearest first; bits [m] in which they differ
    """All pairs on two sides within `NEAR` bits, without comparing each with each: hashes that differ in at most 31
    bits differ in at most one of some band's 16. Of the rows with one hash on one side, the first stands for all."""
    sides = pd.factorize(np.asarray(sides))[0]
    _, first = np.unique(np.column_stack([hashes, sides.astype(np.uint64)]), axis=0, return_index=True)
    hashes, side, n = np.ascontiguousarray(hashes[first]), sides[first], len(first)
    words, bands = np.ascontiguousarray(hashes.T), hashes.view(np.uint16).reshape(n, 16)
    ask = np.flatnonzero(side != np.bincount(side).argmax()) if n else first # a pair has one row off the largest side
    flips, found = np.r_[0, 1 << np.arange(16)].astype(np.uint16), [np.empty((0, 3), int)]
    for key in bands.T:
        order, start = np.argsort(key, kind="stable"), np.r_[0, np.bincount(key, minlength=1<<16).cumsum()]
        probe = (key[ask,None] ^ flips).astype(int)
        begin, count = start[probe], start[probe+1] - start[probe]
        for part in np.array_split(np.arange(len(ask)), 1 + (count.sum() >> 20)): # a million candidates at a time
            c, b = count[part].ravel(), begin[part].ravel()
            i = ask[np.repeat(part, count[part].sum(1))]
            j = order[np.arange(c.sum()) + np.repeat(b - c.cumsum() + c, c)]
            i, j = (o[side[i] != side[j]] for o in (i, j))
            bits = np.zeros(len(i), int)
            for w in words:
                bits += np.bitwise_count(w[i] ^ w[j])
                i, j, bits = (o[bits <= NEAR] for o in (i, j, bits))
            i, j = first[i], first[j]
            found.append(np.unique(np.stack([bits, np.minimum(i, j), np.maximum(i, j)], axis=1), axis=0))
    found = np.unique(np.concatenate(found), axis=0)
    return found[:,1:], found[:,0]
