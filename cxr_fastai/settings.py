"""What a study is set to, and what names a folder: every setting that determines what is in it."""
import hashlib, platform
from importlib.metadata import version
from pathlib import Path

from fastcore.basics import ifnone

from . import __version__
from .core.files import few

__all__ = ["PAPER_ARMS", "GANS", "settings_digest", "versions"]

PROTOCOLS, EPOCH_RULES = ("clean", "paper"), ("last", "best")
PAPER_ARMS = "real", "meta", "real-meta", "real-synth-meta"
VERSIONS = "torch", "fastai", "timm" # another version is another cell

def _named(weights):
    "A weights file by its content, so that another file of that name is another cell."
    return hashlib.sha256(Path(weights).read_bytes()).hexdigest()[:16] if Path(weights).is_file() else weights

GANS = { # settings by name: what small compute was measured to do best with, and the reference's own (and the paper's)
    "fast": dict(epochs=30, bs=4, ngf=32, ndf=32, residual=True, upsample="resize", lam=2., identity=0.),
    "reference": dict(epochs=200, bs=1)}

def _settings(gan, size, epochs, seed, precision):
    if gan not in GANS: raise ValueError(f"gan={gan!r} is not known; use {' or '.join(GANS)}.")
    preset = GANS[gan] | dict(size=size, seed=seed, precision=precision)
    return preset | dict(epochs=ifnone(epochs, preset["epochs"]))

PACKAGES = "torch", "fastai", "timm", "pandas", "scikit-learn", "pillow", "numpy"

def settings_digest(
    settings:dict, # anything with a text
) -> str:          # eight hex letters
    "What names a folder: every setting that determines what is in it."
    return hashlib.sha256(repr(sorted(settings.items())).encode()).hexdigest()[:8]

def versions(
    packages=PACKAGES, # beside this package
) -> dict:
    "Versions by package."
    return dict(cxr_fastai=__version__, python=platform.python_version()) | {o: version(o) for o in packages}

def _listed(text): return [o.strip() for o in text.split(",") if o.strip()]

def _numbers(text):
    if wrong := [o for o in _listed(text) if not o.isdecimal()]:
        raise ValueError(f"--seeds: {few(wrong)} is no whole number; write them as 0,1,2.")
    return [int(o) for o in _listed(text)]
