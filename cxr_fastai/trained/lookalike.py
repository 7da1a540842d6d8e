"""Whether a picture looks like the films a model was trained on: a simple check, which lets some of the others pass.

A film shrunk to 16 x 16 mean grays, with mean 0 and length 1, is described by the training films' mean and their five
principal patterns (eigenfaces: Turk and Pentland 1991, doi:10.1162/jocn.1991.3.1.71). How far it stays from what these
can draw says whether it is turned, inverted, a photograph or a page of text. A mirrored film passes, and a lateral or
a cut one often may: a lateral is told by its DICOM header alone (`intake`). No torch."""
import numpy as np
from PIL import Image

__all__ = ["MIN_FILMS", "SIDE", "atypical", "grays_of", "typical_ranges"]

SIDE, PATTERNS = 16, 5
MIN_FILMS = 40 # fewer say too little of what is typical
RARE = .01     # share of typical films beyond the quantile that the limits start from
DARK = 4       # sd of the training films' mean grays, beyond which a film is too dark or too bright

def _shapes(pixels):
    "uint8 `[n, s, s]` to `[n, 256]`, mean 0 and length 1, and the contrast of each: its sd in gray levels."
    small = [np.asarray(Image.fromarray(o).resize((SIDE, SIDE), Image.Resampling.BOX), float).ravel() for o in pixels]
    x = np.stack(small) - np.mean(small, 1, keepdims=True)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9), np.std(small, 1)

def grays_of(
    pixels:np.ndarray, # uint8 `[n, s, s]`
) -> np.ndarray:       # 0 to 255, `[n]`
    "The mean gray of each film."
    return np.asarray(pixels).reshape(len(pixels), -1).mean(1)

def _patterns(x): return x.mean(0), np.linalg.svd(x - x.mean(0), full_matrices=False)[2][:PATTERNS]

def _distance(x, mean, patterns):
    "What the patterns can't draw: 0 is a typical film, 1 has nothing of one."
    rest = x - mean
    return np.linalg.norm(rest - rest @ patterns.T @ patterns, axis=1)

def typical_ranges(
    pixels:np.ndarray, # uint8 `[n, s, s]`: the training films, real ones
) -> dict:             # films, mean, patterns, far, flat, gray: for json; {} for fewer than `MIN_FILMS` films
    """What films look like, in patterns of 16 x 16, and the limits of it: the distance that one film in a hundred
    exceeds (of each half of the films, by the patterns of the other), half of the contrast that one lacks, and
    the mean and sd of their mean grays."""
    if len(pixels) < MIN_FILMS: return {}
    x, contrast = _shapes(pixels)
    order = np.random.default_rng(0).permutation(len(x))
    one, other = x[order[::2]], x[order[1::2]]
    far = np.concatenate([_distance(one, *_patterns(other)), _distance(other, *_patterns(one))])
    mean, patterns = _patterns(x)
    grays = grays_of(pixels)
    return dict(films=len(x), mean=mean.round(4).tolist(), patterns=patterns.round(4).tolist(),
                far=round(float(np.quantile(far, 1 - RARE)), 4),
                flat=round(float(np.quantile(contrast, RARE) / 2), 2),
                gray=[round(float(o), 2) for o in (grays.mean(), grays.std())])

def _too_dark(pixels, ranges):
    "Why a film that is like the others in shape isn't in brightness; '' where nothing is known of that."
    gray, (mean, sd) = grays_of(pixels[None])[0], ranges.get("gray", (0, np.inf))
    if abs(gray - mean) <= DARK*sd: return ""
    word = "brighter" if gray > mean else "darker"
    return f"{word} than the training films (mean gray {gray:.0f} of 255, theirs {mean:.0f} with an sd of {sd:.0f})"

def atypical(
    pixels:np.ndarray, # uint8 `[s, s]`, as the model gets it
    ranges:dict,       # of `typical_ranges`
) -> str:              # the reason in words; '' for a film like the others, or where nothing is known
    "Why a picture isn't like the training films."
    if not ranges: return ""
    x, contrast = _shapes(pixels[None])
    if contrast[0] < ranges["flat"]:
        return f"almost of one gray at {SIDE} x {SIDE} (contrast {contrast[0]:.1f}, at least {ranges['flat']:g})"
    far = _distance(x, np.array(ranges["mean"]), np.array(ranges["patterns"]))[0]
    if far <= ranges["far"]: return _too_dark(pixels, ranges)
    return (f"unlike the training films (distance {far:.2f}, at most {ranges['far']:.2f}): "
            "turned, inverted, cut, or no frontal radiograph?")
