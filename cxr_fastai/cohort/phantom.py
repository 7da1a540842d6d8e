"""Drawn chest films for the demo and the tests: no patient, nothing to fetch, the same pixels on every run.

Each structure is a function of `x` (-1 at the viewer's left, the patient's right, to 1), `y` (-1 at the top to 1) and
`p`, one body's proportions; `s` is a side, -1 or 1 in `x`. It returns what it adds to the beam's path [size, size];
`draw_radiograph` sums and `_film` exposes. The label reaches `_opacities` alone."""
import argparse
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
from PIL import Image
from scipy.ndimage import gaussian_filter

from ..core.files import atomic_folder, named_errors, say

__all__ = ["draw_radiograph", "is_drawn", "make_phantom"]

MARK = "DRAWN.txt"
NOTE = "Drawn by cxr_fastai/phantom.py: no patient is shown. A folder that holds this file may be drawn anew.\n"
CSV, IMAGES = "Data_Entry_2017_v2020.csv", "images_001/images"
HEADER = ("Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
          "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]\n")  # NIH's own, commas in brackets included
# Measured at follow-up 0 of NIH's v2020 table; first the 21,403 'No Finding', then the 174 with Pneumonia.
AGES = (0, 16, 22, 32, 45, 56, 64, 69, 95), (3, 6, 11, 29, 47, 58, 68, 74, 84)
QUANTILES, MALE, AP = (0, .05, .1, .25, .5, .75, .9, .95, 1), (.538, .557), (.108, .184)
DENSITY = .06, 1.9  # of an opacity: 1 - exp(-density) of the lung's air is gone, from 6% to 85%
LIKE = .5  # correlation of a film's corner with WORD above which it is drawn; 617 NIH films have .23 at most
WORD = ("##. #.# .#. #..# ### ### #...#",
        "#.# #.# #.# ##.# .#. #.# ##.##",
        "##. ### ### #.## .#. #.# #.#.#",
        "#.. #.# #.# #..# .#. #.# #...#",
        "#.. #.# #.# #..# .#. ### #...#")

def _rng(*key): return np.random.default_rng(key)
def _lobar(seed, visit): return _rng(seed, 2, visit).random() < .5  # lobar pneumonia, else patchy
def _in(d, w=.03): return 1 / (1 + np.exp(-np.clip(d/w, -50, 50)))  # 1 where d > 0, else 0, with an edge of width w

def _clouds(rng, size, sigma):  # smooth noise of mean 0 and sd 1; `sigma` in units of half the image
    z = gaussian_filter(rng.standard_normal((size, size)), sigma*size/2, mode="wrap")
    return (z - z.mean()) / z.std()

def _body(seed, age, sex, view):  # AP (lying, plate at the back): a wider heart, a higher diaphragm, less air
    u, ap = _rng(seed, 0).uniform, view == "AP"
    return SimpleNamespace(
        lung_x=u(.39, .45), lung_w=u(.32, .38), apex=u(-.84, -.74), air=u(.72, .92) - .08*ap, flesh=u(.9, 1.25),
        wall=u(.82, 1.), shoulder=u(-.78, -.66), dome={-1: u(.38, .54) - .12*ap, 1: u(.45, .61) - .12*ap},
        heart=u(.88, 1.1)*(1 + .14*ap), tilt=u(.45, .85), knob=u(.06, .1) + .0005*age, hilum=u(.12, .3),
        rib=u(.05, .13), rib0=u(-.88, -.72), rib_dy=u(.155, .19), rib_drop=u(.3, .55), spine=u(.15, .35),
        clav=u(-.62, -.5) - .12*ap, rise=u(.05, .25), scapula=u(.02, .12) + .06*ap, bubble=u(-.4, .8),
        twist=u(-.04, .04), breast=u(.12, .45)*(sex == "F" and age > 13), breast_y=u(.25, .5), breast_r=u(.26, .38),
        nipple=u(-.1, .14))

def _grid(seed, visit, view, size):  # pixels in body coordinates: turned, scaled, shifted, a little warped
    r, (y, x) = _rng(seed, 1, visit), np.mgrid[:size, :size]*2/(size - 1) - 1
    t, k, dx, dy = r.normal(0, .05 if view == "AP" else .03), r.uniform(.92, 1.1), *r.normal(0, .05, 2)
    x, y = ((x - dx)*np.cos(t) + (y - dy)*np.sin(t))*k, ((y - dy)*np.cos(t) - (x - dx)*np.sin(t))*k
    return x + .02*_clouds(r, size, .4), y + .03*_clouds(r, size, .4)

def _flesh(x, y, p):  # neck, shoulders and chest wall: 1 inside the outline
    top = p.shoulder - .22*_in(.45 - abs(x), .1) + .35*np.clip(abs(x) - .45, 0, 1)**1.3
    trunk = _in(y - top, .025)*_in(p.wall + .3*_in(-y - .05, .12) - abs(x), .02)
    return np.maximum(trunk, .8*_in(.24 - abs(x), .03))

def _above(x, y, p, s): return p.dome[s] + .9*(s*x - .36)**2 + .5*np.clip(s*x - .62, 0, 1) - y  # the domed diaphragm
def _trachea(x, y, p): return _in(.035 - abs(x - .6*p.twist), .012)*_in(-.2 - y, .03)
def _spine(x, y, p): return p.spine*_in(.085 - abs(x - .3*p.twist), .02)*(.75 + .25*np.cos(2*np.pi*y/.13))
def _scapulae(x, y, p): return p.scapula*_in(abs(x) - .66 - .12*(y + .6), .02)*_in(.05 - y, .1)*_in(y + .66, .04)

def _abdomen(x, y, p):  # liver and bowel below the domes, at times with air in the stomach under the left one
    below = sum(_in(-_above(x, y, p, s), .02)*_in(s*x, .03) for s in (-1, 1))
    return .6*below - max(p.bubble, 0)*_in(1 - ((x - .4)/.16)**2 - ((y - p.dome[1] - .14)/.07)**2, .2)

def _heart(x, y, p):  # an egg leaning to the patient's left: its apex is on the viewer's right
    c, q, dx, dy = np.cos(p.tilt), np.sin(p.tilt), x - p.twist - .11*p.heart, y - p.dome[1] + .2*p.heart
    return _in(1 - ((dx*c + dy*q)/(.38*p.heart))**2 - ((dy*c - dx*q)/(.26*p.heart))**2, .07)

def _mediastinum(x, y, p):  # great vessels, widening towards the heart, and the aortic knob on the viewer's right
    band = _in(.13 + .1*np.clip(y + .3, 0, .5) - abs(x - p.twist - .02), .025)*_in(.5 - y, .1)
    return np.maximum(band, _in(1 - ((x - p.twist - .09)/p.knob)**2 - ((y + .27)/p.knob)**2, .15))

def _lungs(x, y, p):  # aerated lung, 0..1: ellipses cut by diaphragm, heart and mediastinum
    mid, half = (p.apex + .75)/2, (.75 - p.apex)/2
    lobe = lambda s: _in(1 - abs((s*x - p.lung_x - .1*y)/p.lung_w)**2.3 - abs((y - mid)/half)**2.6, .05)
    both = sum(lobe(s)*_in(_above(x, y, p, s), .015)*_in(s*(x - p.twist) - .1, .02) for s in (-1, 1))
    return both*(1 - _heart(x, y, p))*(1 - .7*_mediastinum(x, y, p))

def _ribs(x, y, p):  # the posterior ones fall outwards from the spine, the fainter anterior ones inwards
    u = abs(x)
    band = lambda d, w: _in(w - abs((d/p.rib_dy + .5) % 1 - .5)*p.rib_dy, .008)
    back = band(y - p.rib0 + .12*np.sin(4*u) - p.rib_drop*u**2, .03)*_in(u - .07, .02)
    front = band(y - p.rib0 - .06 - .55*(.8 - u), .034)*_in(u - .36, .06)*_in(y + .45, .05)
    return p.rib*(back + .55*front)*_in(1 - abs(x/(p.lung_x + p.lung_w + .05))**3 - abs(y/.9)**4, .06)

def _clavicles(x, y, p):  # two S-shaped bars from the breastbone up to the shoulders
    u = abs(x - p.twist)
    line = p.clav - p.rise*(u - .1) - .035*np.sin(7*(u - .1))
    return .32*_in(.032 - abs(y - line), .01)*_in(u - .09, .015)*_in(.8 - u, .03)

def _breasts(x, y, p):  # two rounded shadows, densest at their lower rim, and nipples in either sex
    u, dy, above = abs(x), y - p.breast_y, _in(max(p.dome.values()) - y, .1)
    disc = _in(1 - ((u - .44)**2 + dy**2)/p.breast_r**2, .08)*(.35 + .65*_in(dy, .12))
    return p.breast*disc*above + max(p.nipple, 0)*np.exp(-((u - .46)**2 + (dy - .1)**2)/.03**2)

def _hila(x, y, p, r):  # the lung roots and the vessels that leave them, fainter outwards
    out = np.zeros_like(x)
    for s in (-1, 1):
        dx, dy = s*(x - p.twist) - .17, y + .02 + .03*s
        out += p.hilum*np.exp(-(dx/.07)**2 - (dy/.12)**2)
        for i in np.linspace(-1.4, 1.4, 9):
            a, bend, w = i + r.normal(0, .15), r.normal(0, .6), r.uniform(.012, .022)
            along, across = dx*np.cos(a) + dy*np.sin(a), dy*np.cos(a) - dx*np.sin(a)
            out += .17*np.exp(-((across - bend*along**2)/w)**2 - np.clip(along, 0, 2)/.25)*_in(along - .06, .02)
    return out

def _opacities(x, y, lung, seed, visit):  # share of air lost: 1-3 lobes cut at a fissure, or clusters of patches
    r, out, weight = _rng(seed, 3, visit), 0, np.where(lung > .7, lung, 0).cumsum()
    density = r.uniform(*DENSITY)*np.exp(.3*_clouds(r, len(x), .04))
    for _ in range(r.choice([1, 2, 3], p=[.4, .35, .25])):
        i = np.searchsorted(weight, r.random()*weight[-1])
        dx, dy, big, t, up = x - x.flat[i], y - y.flat[i], r.uniform(.6, 1.2), r.uniform(-.5, .5), r.choice([-1, 1])
        lobe = _in(1 - (dx**2 + dy**2)/(.28*big)**2, .25)*_in(up*(dy + np.sin(t)*dx) + .08, .015)
        spots = zip(*r.normal(0, .15*big, (2, 9)), r.uniform(.04, .1, 9))
        patch = sum(np.exp(-((dx - a)**2 + (dy - b)**2)/w**2) for a, b, w in spots).clip(0, 1)
        out = np.maximum(out, lobe if _lobar(seed, visit) else patch)
    return lung*(1 - np.exp(-density*out))

def _ink(k): return np.kron([[c == "#" for c in row] for row in WORD], np.ones((k, k))) > 0

def _film(v, seed, visit, size):  # film saturates, kilovolts and processing differ, focus blurs, grain is everywhere
    r, k = _rng(seed, 4, visit), max(size//128, 1)
    v = gaussian_filter(v, r.uniform(.35, .6)*size/128)
    g = (1 - np.exp(-r.uniform(1.05, 1.3)*np.clip(v, 0, None)))**r.uniform(.9, 1.2)
    g = r.uniform(205, 250)*g + r.uniform(2, 12) + r.normal(0, r.uniform(1.5, 3), v.shape)
    g[3*k:8*k, 3*k:33*k][_ink(k)] = 240
    return np.clip(g.round(), 0, 255).astype(np.uint8)

def draw_radiograph(
    label:int,    # 1 adds the opacities of pneumonia, and changes nothing else
    age:int,      # years
    sex:str,      # F or M
    view:str,     # PA (standing) or AP (lying)
    seed:int,     # the patient: same seed, same body
    visit:int=0,  # the follow-up: same body; another pose, exposure and disease
    size:int=128, # pixels a side
) -> np.ndarray:  # uint8 [size, size], bone is bright
    "One frontal film of a drawn chest, stamped PHANTOM; ValueError on a label, sex, view or size out of range."
    if label not in (0, 1) or sex not in ("F", "M") or view not in ("PA", "AP") or size < 40:
        raise ValueError(f"cannot draw {label=}, {sex=}, {view=}, {size=}: use 0 or 1, F or M, PA or AP, 40 or more")
    p, (x, y), r = _body(seed, age, sex, view), _grid(seed, visit, view, size), _rng(seed, 5, visit)
    haze = r.uniform(.01, .06)*_clouds(r, size, .12) + r.uniform(.01, .03)*_clouds(r, size, .025)
    lung, bones = _lungs(x, y, p), sum(f(x, y, p) for f in (_ribs, _clavicles, _scapulae, _spine))
    dense = bones + .25*_heart(x, y, p) + .15*_mediastinum(x, y, p)
    v = _flesh(x, y, p)*(p.flesh*(1 - p.air*lung - .3*_trachea(x, y, p)) + dense)
    v = v + _abdomen(x, y, p) + _breasts(x, y, p) + lung*(_hila(x, y, p, r) + haze)
    if label: v = v + p.flesh*p.air*_opacities(x, y, lung, seed, visit)
    return _film(v, seed, visit, size)

def _findings(label, seed, visit):  # in NIH's words; half of the positives also name the form that was drawn
    second, named = "Consolidation|" if _lobar(seed, visit) else "Infiltration|", _rng(seed, 6, visit).random() < .5
    if not label: return "No Finding"
    return second + "Pneumonia" if named else "Pneumonia"

def _rows(n, seed):  # one row an image, a quarter positive; one patient in 20 returns, with either label
    r, quarter = _rng(seed, 7), lambda k: r.permutation(np.arange(k) % 4 == 0).astype(int)
    first = pd.DataFrame(dict(patient=np.arange(1, n + 1), visit=0, label=quarter(n)))
    for c, who in first.groupby("label").groups.items():
        at = (np.arange(len(who)) + .5)/len(who)  # evenly spaced quantiles: shares as NIH's, not as luck has it
        first.loc[who, "age"] = r.permutation(np.interp(at, QUANTILES, AGES[c]).round())
        first.loc[who, "sex"] = r.permutation(np.where(at < MALE[c], "M", "F"))
        first.loc[who, "view"] = r.permutation(np.where(at < AP[c], "AP", "PA"))
    again = first.iloc[r.permutation(n)[:n//20]]
    more = pd.concat([again.assign(visit=1), again.iloc[:n//60].assign(visit=2)])
    more["label"], more["age"] = quarter(len(more)), more.age + more.visit//2
    return pd.concat([first, more]).sort_values(["patient", "visit"]).astype(dict(age=int))

def _draw_set(folder, n, seed, size):
    (folder/IMAGES).mkdir(parents=True)
    lines = [HEADER]
    for o in _rows(n, seed).itertuples():
        name, key = f"{o.patient:08d}_{o.visit:03d}.png", seed*10**6 + o.patient
        film = draw_radiograph(o.label, o.age, o.sex, o.view, key, o.visit, size)
        with named_errors(folder/IMAGES/name): Image.fromarray(film).save(folder/IMAGES/name, optimize=True)
        lines.append(f"{name},{_findings(o.label, key, o.visit)},{o.visit},{o.patient},{o.age},{o.sex},{o.view},"
                     f"{size},{size},{350/size},{350/size}\n")  # a film of 350 mm
    for name, text in ((CSV, "".join(lines)), (MARK, NOTE)): (folder/name).write_text(text, encoding="utf-8")

def make_phantom(
    folder:str|Path,    # made, or drawn anew where an earlier drawing stands; any other content is refused
    n_patients:int=300, # a quarter have pneumonia at follow-up 0; n//20 of them come again
    seed:int=0,         # same seed, same films
    size:int=128,       # pixels a side
) -> Path:              # `folder`
    "Draw a demo set in NIH's layout (images_001/images/*.png and the v2020 csv), whole or not at all."
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()) and not (folder/MARK).exists():
        raise FileExistsError(f"{folder} holds files that were not drawn here: name a new or empty folder")
    with atomic_folder(folder) as tmp: _draw_set(tmp, n_patients, seed, size)
    return folder

def _stamped(file):
    "Whether a film carries the word that every drawn one does, at its own size or brought to 128 pixels."
    try:
        with Image.open(file) as im: film = im.convert("L")
    except (OSError, ValueError): return False
    for o in film, film.resize((128, 128), Image.Resampling.BILINEAR):
        k = max(o.width//128, 1)
        box, ink = np.asarray(o, float)[3*k:8*k, 3*k:33*k], _ink(k)
        if box.shape == ink.shape and box.std() > 0 and np.corrcoef(box.ravel(), ink.ravel())[0, 1] > LIKE: return True
    return False

def is_drawn(
    rows:pd.DataFrame, # with `file`; without it nothing is known, and they count as real
    n:int=5,           # films looked at, evenly over the table
) -> bool:
    """Whether most films are drawn ones: told by the word in their pixels, or by the note in their folder, whatever
    folder and table are called. Drawn films that were shrunk below 100 pixels and have no such note pass."""
    files = rows["file"].dropna() if "file" in rows else []
    if not len(files): return False
    some = [Path(files.iloc[i]) for i in np.unique(np.linspace(0, len(files) - 1, n).round().astype(int))]
    near = lambda file: any((o/MARK).exists() for o in file.absolute().parents[:3])
    return 2*sum(near(o) or _stamped(o) for o in some) > len(some)

def main():
    "Draw the demo radiographs from a shell."
    parser = argparse.ArgumentParser(description="Draw the demo radiographs.")
    parser.add_argument("folder", help="where they go; an earlier drawing there is replaced")
    say(f"drawn: {make_phantom(parser.parse_args().folder)}")

if __name__ == "__main__": main()
