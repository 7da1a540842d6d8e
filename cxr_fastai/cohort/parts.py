"""A film that was given to a translator beside the one it made of it, and parts of what it changed. No torch.

The change has tone and texture. Tone is what a Gaussian with a deviation of a 16th of the side leaves of it: exposure,
a darker lung, a shade. It leaves half of a wave that fits three times into a film, and a sixteenth of one that fits
six times; of a round spot in its middle half, where that has the same deviation, and less the smaller it is."""
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy.ndimage import affine_transform, gaussian_filter

from ..core.files import few, named_errors
from .cache import RadiographCache

__all__ = ["JITTER", "each_pair", "film_tone", "fine_change", "has_source", "moved_sources", "write_films"]

JITTER = ["zoom", "angle", "shift_x", "shift_y"] # of an augmented source: times, degrees clockwise, shares of the side
WIDE = 16 # the deviation of the Gaussian is one of so many parts of a side

def _jittered(pixels, zoom, angle, shift_x, shift_y):
    "Film `[h,w]` enlarged and turned about its middle, then moved; what comes in at the edges is its mirror image."
    if (zoom, angle, shift_x, shift_y) == (1, 0, 0, 0): return pixels
    t, side = np.deg2rad(angle), np.array(pixels.shape)
    turn, middle = np.array([[np.cos(t), -np.sin(t)], [np.sin(t), np.cos(t)]])/zoom, (side - 1)/2
    shift = middle + side*[shift_y, shift_x]
    return affine_transform(pixels, turn, middle - turn@shift, order=1, mode="reflect")

def moved_sources(
    pixels:np.ndarray,  # uint8 `[n,h,w]`, of sources
    lines:pd.DataFrame, # of a manifest; of films that weren't moved, without the columns `JITTER`
) -> np.ndarray:        # as `pixels`
    "Sources as their translator was given them."
    if not {*JITTER} <= {*lines} or not len(lines): return pixels
    return np.stack([_jittered(x, *jitter) for x, jitter in zip(pixels, lines[JITTER].to_numpy(float))])

def film_tone(
    pixels:np.ndarray, # `[n,h,w]`, or differences of such
) -> np.ndarray:       # float, as `pixels`
    "Low frequencies alone."
    return gaussian_filter(pixels.astype(np.float32), (0, *(o/WIDE for o in pixels.shape[1:])), mode="nearest")

def fine_change(
    source:np.ndarray, # uint8 `[n,h,w]`
    film:np.ndarray,   # the same translated
) -> np.ndarray:       # uint8, as both
    "The low frequencies of the source, and the film's above them."
    change = film.astype(np.float32) - source
    return (film - film_tone(change)).round().clip(0, 255).astype(np.uint8)

def _files(rows): return dict(zip(rows["image"].astype(str), rows["file"].astype(str)))

def has_source(
    rows:pd.DataFrame,  # real ones
    synth:pd.DataFrame, # synthetic ones
) -> np.ndarray:        # bool `[n]`
    "Of which films it is known which of the rows they were made from."
    own = synth.get("source_image", pd.Series(np.nan, synth.index, dtype=object))
    return (own.notna() & own.astype(str).isin({*rows["image"].astype(str)})).to_numpy()

def each_pair(
    rows:pd.DataFrame,  # real ones, all that the translator's were decoded with: they say what white is
    synth:pd.DataFrame, # synthetic ones, with `file`, and `source_image` where that is known
    size:int,           # side of the square images, pixels
    bs:int=64,          # films at a time
) -> Iterator:          # of (known `[b]`, sources `[k,h,w]`, films `[b,h,w]`), uint8
    "Every film in its order, and the sources of those whose source is known."
    known, place = has_source(rows, synth), _files(rows)
    real = RadiographCache(rows["file"].astype(str).tolist() if known.any() else [], size)
    made = RadiographCache(synth["file"].astype(str).tolist(), size)
    for i in range(0, len(synth), bs):
        lines, at = synth.iloc[i:i+bs], known[i:i+bs]
        sources = real.get([place[str(o)] for o in lines.loc[at, "source_image"]]) if at.any() else real.pixels[:0]
        yield at, moved_sources(sources, lines[at]), made.get(lines["file"])

def write_films(
    folder:str|Path,    # for the films, as png; there
    rows:pd.DataFrame,  # as in `each_pair`
    synth:pd.DataFrame, # as there
    names:list,         # of the new films
    size:int,           # side of the square images, pixels
    part:Callable,      # (sources, films) -> new films, uint8 `[n,h,w]`
):
    "Write films that have a part of the change alone. ValueError where it isn't known which source one is of."
    if not (known := has_source(rows, synth)).all():
        raise ValueError(f"Of {(~known).sum():,} of {len(synth):,} synthetic films ({few(synth['image'][~known])}) it "
                         "isn't known which of the rows they were made from, so that there is no part of a change.")
    left = iter(names)
    for _, source, film in each_pair(rows, synth, size):
        for pixels in part(source, film):
            with named_errors(file := Path(folder)/next(left)): Image.fromarray(pixels).save(file, compress_level=1)
