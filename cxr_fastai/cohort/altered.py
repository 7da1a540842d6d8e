"""Copies of a film that its perceptual hash misses: cropped, turned or shifted a little, bordered, marked.

Three steps, each for fewer pairs. A film's middle, as 256 numbers, is compared with the middles of all films of other
sides, seen through windows as crops, borders and shifts have them. Of the most alike, nine patches are looked for near
their places in the other film; then once more at twice the resolution. Patches of a copy are found again, and have
moved as one; those of another film are not."""
from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view
from scipy.ndimage import gaussian_filter

from ..core.files import say
from .duplicates import _box

__all__ = ["altered_copies"]

# Coarse and fine: thumbnail's side, window's side, patch, and how far it is looked for, in cells; the band of
# frequencies, by the sd of two blurs; least correlation of the third and the fifth worst of nine patches; and how far
# these may be from moving as one, in cells. The third worst patch of NIH films of two patients: at most .72, of drawn
# films .86; of copies, turned by 3 degrees, cropped by 10% of each edge or moved by 4 of 256 pixels: .91 or more.
COARSE = dict(thumb=64, side=40, patch=10, far=3, band=(.5, 2), third=.8, median=.85, apart=.8)
FINE = dict(thumb=128, side=96, patch=24, far=7, band=(1, 3), third=.9, median=.9, apart=1.)
LIKELY, ALIKE = 4, .85  # of each film so many of the others are looked at, if so alike
PAIRS = 4e7             # of films, at most, in the first step: of a larger table, a part is asked about, which is said
MIDDLE = .12, .88       # of a film, in which it is compared

def _windows():
    "[k,4]: top, bottom, left, right of the part of a film that shows what another has in its middle."
    half, at = (MIDDLE[1] - MIDDLE[0])/2, []
    def add(high, wide, down=0., right=0.): at.append((.5+down-half*high, .5+down+half*high,
                                                       .5+right-half*wide, .5+right+half*wide))
    for o in (.8, .87, .93, 1, 1.07, 1.15, 1.25): add(o, o) # cut off or bordered evenly
    for d in (1, -1):                                       # at one edge, or two
        for o, by in ((1.1, .045*d), (.9, .05*d)):
            add(o, 1, by)
            add(1, o, 0, by)
            for e in (1, -1): add(o, o, by, by*e)
        for e in (1, -1): add(1, 1, .02*d, .02*e)           # moved
    return np.array(at)

WINDOWS = _windows()

def _cells(low, high, n, k):
    "[n,k] weights that average `k` cells over `n` equal parts of the stretch `low` to `high`, shares of the whole."
    ends, i = np.linspace(low, high, n+1)*k, np.arange(k)
    over = (np.minimum(ends[1:,None], i+1) - np.maximum(ends[:-1,None], i)).clip(0)
    return (over / over.sum(1, keepdims=True)).astype(np.float32)

def _seen(thumbs, window, side, band):
    "Thumbnails `[n,k,k]` through a window, [n,side,side], without their shades coarser or finer than `band`."
    top, bottom, left, right = window
    k = thumbs.shape[1]
    x = _cells(top, bottom, side, k) @ thumbs.astype(np.float32) @ _cells(left, right, side, k).T
    x = gaussian_filter(x, (0, band[0], band[0])) - gaussian_filter(x, (0, band[1], band[1]))
    return x / (x.std((1, 2), keepdims=True) + .5)

def _numbers(thumbs, window):
    "[n,256] of length 1: thumbnails through a window, coarsely; blacks and whites weigh little."
    if len(thumbs) > 1024: # as many at a time
        return np.concatenate([_numbers(thumbs[i:i+1024], window) for i in range(0, len(thumbs), 1024)])
    x = np.tanh(_seen(thumbs, window, 20, (.7, 3)))[:,2:-2,2:-2].reshape(len(thumbs), -1)
    x = x - x.mean(1, keepdims=True)
    return x / np.linalg.norm(x, axis=1, keepdims=True).clip(1e-6)

MIDST = (*MIDDLE, *MIDDLE)

def _thumbs(films, at, k):
    "[n,k,k] of the rows `at`; `films` gives the pixels of a few."
    res = np.empty((len(at), k, k), np.float16)
    for i in range(0, len(at), 64):
        x = films(at[i:i+64])
        res[i:i+64] = _box(x.shape[1], k) @ x.astype(np.float32) @ _box(x.shape[2], k).T
    return res

def _likely(thumbs, ask, side):
    "Pairs worth a closer look: row asked, other row, and the window in which they are most alike; [m] each."
    ref, found = _numbers(thumbs, MIDST), []
    most = min(LIKELY, len(thumbs))
    for w, window in enumerate(WINDOWS):
        s = _numbers(thumbs[ask], window) @ ref.T
        s[side[ask][:,None] == side] = -1
        top = np.argpartition(-s, most - 1, axis=1)[:,:most]
        s = np.take_along_axis(s, top, 1)
        a, b = np.nonzero(s > ALIKE)
        found.append(np.stack([ask[a], top[a,b], np.full(len(a), w), -1e6*s[a,b]]).astype(int))
    found = np.concatenate(found, axis=1)
    found = found[:,np.lexsort(found[[3, 1, 0]])] # of each pair, the window in which it is most alike
    found = found[:,np.unique(found[:2], axis=1, return_index=True)[1]]
    found = found[:,np.lexsort(found[[3, 0]])]    # of each row, the others that are most alike
    rank = np.arange(found.shape[1]) - np.searchsorted(found[0], found[0])
    return found[:3, rank < LIKELY]

def _norms(x, p):
    "The norm, about its mean, of each p x p patch of `[n,side,side]`."
    def sums(o):
        c = np.pad(o.astype(np.float64).cumsum(1).cumsum(2), ((0, 0), (1, 0), (1, 0)))
        return c[:,p:,p:] - c[:,:-p,p:] - c[:,p:,:-p] + c[:,:-p,:-p]
    mean = sums(x)/p**2
    return np.sqrt((sums(x*x) - (p*mean)**2).clip(1e-3)).astype(np.float32)

def _found_again(ref, seen, norm, patch, far):
    "Of nine patches of each `ref` `[n,side,side]`: how well the best place in `seen` agrees [n,9], and where [n,9,2]."
    edge = (ref.shape[1] - 3*patch)//2
    a = ref[:,edge:edge+3*patch,edge:edge+3*patch].reshape(-1, 3, patch, 3, patch).transpose(0, 1, 3, 2, 4)
    a = a.reshape(len(ref), 9, -1)
    a = a - a.mean(2, keepdims=True)
    a /= np.linalg.norm(a, axis=2, keepdims=True).clip(1e-3)
    there, wide = sliding_window_view(seen, (patch, patch), (1, 2)), 2*far + 1
    agree, place = np.empty((len(ref), 9)), np.empty((len(ref), 9, 2))
    for j in range(9):
        y, x = (edge - far + patch*o for o in divmod(j, 3))
        area = np.s_[:,y:y+wide,x:x+wide]
        c = (there[area].reshape(len(ref), wide**2, -1) @ a[:,j,:,None])[...,0] / norm[area].reshape(len(ref), -1)
        agree[:,j], place[:,j] = c.max(1), np.stack(np.divmod(c.argmax(1), wide), axis=1)
    return agree, place

GRID = np.column_stack([np.ones(9), *np.divmod(np.arange(9), 3)])
AS_ONE = np.eye(9) - GRID @ np.linalg.pinv(GRID) # nine places less the affine map that is nearest to them

def _same(thumbs, pairs, thumb, side, patch, far, band, third, median, apart):
    "bool [m]: which `pairs` (row of `thumbs` asked, other row, window) are of one film."
    res, rows = np.zeros(pairs.shape[1], bool), max(1, 2**22 // (2*far + 1)**2 // patch**2)
    for w in np.unique(pairs[2]):
        at = np.flatnonzero(pairs[2] == w)
        for some in np.array_split(at, 1 + len(at)//rows):
            if not len(some): continue
            seen, ref = (_seen(thumbs[pairs[k, some]], o, side, band) for k, o in ((0, WINDOWS[w]), (1, MIDST)))
            agree, place = _found_again(ref, seen, _norms(seen, patch), patch, far)
            moved = np.median(np.linalg.norm(AS_ONE @ place, axis=2), axis=1)
            agree.sort(axis=1)
            res[some] = (agree[:,2] > third) & (agree[:,4] > median) & (moved < apart)
    return res

def altered_copies(
    films:Callable,  # row numbers [m] to their pixels, uint8 [m,h,w]
    sides:list,      # [n] split, or patient: only pairs with two different values are looked for
    pairs:float=PAIRS, # at most so many are compared: of more, rows off the largest side are drawn by a seed, and said
) -> np.ndarray:     # [m,2] of row numbers
    """Pairs on two sides that are one film, cropped or bordered by up to 10% of each edge, turned by up to 3 degrees,
    moved by up to 4 of 256 pixels, marked, or some of these. Not a mirrored film, which `turned_duplicates` finds."""
    side = pd.factorize(np.asarray(sides))[0]
    if len(np.unique(side)) < 2: return np.empty((0, 2), int)
    ask = np.flatnonzero(side != np.bincount(side).argmax())
    if len(ask)*len(side) > pairs:
        some = max(1, int(pairs/len(side)))
        say(f"{len(side):,} films are many: crops, small turns and shifts are looked for of {some:,} of the "
              f"{len(ask):,} of the smaller sides, drawn at random; whole copies of all.")
        ask = np.sort(np.random.default_rng(0).choice(ask, some, replace=False))
    thumbs = _thumbs(films, np.arange(len(side)), COARSE["thumb"])
    near = _likely(thumbs, ask, side)
    near = near[:,_same(thumbs, near, **COARSE)]
    rows, at = np.unique(near[:2], return_inverse=True)
    fine = _same(_thumbs(films, rows, FINE["thumb"]), np.vstack([at.reshape(2, -1), near[2]]), **FINE)
    return np.unique(np.sort(near[:2,fine].T, axis=1), axis=0)
