"""Where a backbone's first weights lie: a file, a bundle, a folder of timm's, torchxrayvision's releases, a model hub.

And how gray is normalised for them: learners, bundles and ONNX files have it among their tensors."""
import json, warnings
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

import timm
import numpy as np
from filelock import FileLock
from huggingface_hub import constants, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, HFValidationError, LocalEntryNotFoundError

from ..core.extras import need
from ..core.files import few, one_line
from ..core.words import WordError

__all__ = ["Gray", "as_text", "check_arch", "check_names", "find_weights", "gray_of", "pinned_weights"]

WORDS = "auto", "imagenet", "none"
XRV, HUB, FOLDER = "xrv:", "hf-hub:", "local-dir:"
FORMS = f"{XRV}NAME", f"{HUB}OWNER/NAME", f"{FOLDER}FOLDER"
FILES = "model.safetensors", "pytorch_model.bin" # of a folder, as timm writes it
HARMLESS = {"img_size", "num_classes", "in_chans", "global_pool", "dynamic_img_size", "drop_rate", "drop_path_rate"}
DINO, PREPARED = "dinov2", "preprocessor_config.json" # RAD-DINO as transformers has it; its normalisation
PATIENCE = 5 # seconds that a hub is waited for

class Gray(NamedTuple):
    "How gray, 0..1, is normalised: (gray - mean) / std."
    mean:float # subtracted
    std:float  # divided by

def gray_of(
    mean:list, # of each channel
    std:list,  # of each channel
) -> Gray:
    "Of three channels, as timm has them; equal ones give what a gray image gave."
    return Gray(*(float(np.mean(o, dtype=np.float32)) for o in (mean, std)))

XRV_GRAY = Gray(.5, 1/2048) # torchxrayvision's -1024..1024

class Source(NamedTuple):
    "A file of weights."
    file:Path      # there
    name:str       # in words, for tables and cards
    gray:Gray=None # as it wants its images; None: it doesn't say

def check_arch(
    arch:str, # of a backbone
):
    "WordError, with the nearest names, for one that timm doesn't have."
    if not isinstance(arch, str):
        raise ValueError(f"arch is the name of a timm model, as 'resnet50', not {getattr(arch, '__name__', arch)!r}.")
    if timm.is_model(arch) and not timm.get_pretrained_cfg(arch):
        raise WordError(f"timm tells no configuration of {arch!r}: an old name, for which it has another, or one of "
                        "your own, which needs default_cfgs.")
    if not timm.is_model(arch):
        near = get_close_matches(arch.lower(), timm.list_models(), 4, cutoff=0)
        raise WordError(f"timm has no model {arch!r}; did you mean {near[0]}? timm.list_models() names them all, such "
                        f"as {few(near, 4)}.")

def as_text(
    weights:str|Path, # as a person gave them
) -> str:
    "ValueError for what is neither a word nor a path."
    if isinstance(weights, (str, Path)) and str(weights).strip(): return str(weights)
    raise ValueError(f"weights={weights!r} should be one of {', '.join(map(repr, WORDS))}, a file, {', '.join(FORMS)}.")

def _plain(arch): return arch.split(".")[0]

def _check_own(weights, theirs, arch):
    "ValueError for weights of another architecture, which says how to write them."
    if _plain(theirs) != _plain(arch):
        raise ValueError(f"weights={weights!r} are of {theirs}, not of {arch}; as a backbone with weights of its own, "
                         f"write {_plain(theirs)}={weights}.")

# torchxrayvision

def _xrv():
    with warnings.catch_warnings(): # it turns all of Python's warnings off when it is imported
        return need("torchxrayvision.models", extra="xrv", what=f"weights='{XRV}NAME'")

def _from_xrv(weights, arch, fetch):
    "One of its releases, downloaded by it into its cache, a process at a time; or a file that wants its normalisation."
    name = weights.removeprefix(XRV)
    if Path(name).is_file(): return Source(Path(name), f"{XRV}{Path(name).name}", XRV_GRAY)
    xrv = _xrv()
    if name not in xrv.model_urls:
        near = get_close_matches(name, xrv.model_urls, 3, cutoff=0)
        raise ValueError(f"torchxrayvision has no weights {name!r}, and no such file is there; did you mean "
                         f"{' or '.join(XRV + o for o in near)}?")
    url = xrv.model_urls[name]["weights_url"]
    _check_own(weights, "resnet50" if "resnet50" in url else "densenet121", arch)
    file = Path(xrv.utils.get_cache_dir())/Path(url).name
    if not file.is_file() and not fetch: return
    if not file.is_file(): _download(xrv, name, url, file)
    return Source(file, weights, XRV_GRAY)

def _download(xrv, name, url, file):
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(f"{file}.lock"): xrv.get_weights(name)
    except OSError as e:
        raise OSError(f"{XRV}{name} can't be had from {url} ({one_line(e)[:100]}): fetch that file elsewhere and put "
                      f"it at {file}.") from e

# timm's folders, and the hub's

def _split(weights):
    repo, _, revision = weights.removeprefix(HUB).partition("@")
    return repo, revision or None

def _fetched(weights, *names, fetch=True):
    "The first of these files that a repository has, in the local cache. OSError or ValueError where it has none."
    repo, revision = _split(weights)
    for name in names:
        try:
            return Path(hf_hub_download(repo, name, revision=revision, etag_timeout=PATIENCE,
                                        local_files_only=not fetch))
        except EntryNotFoundError as e: why = e
        except HFValidationError as e: raise ValueError(f"{weights} doesn't name a repository as OWNER/NAME.") from e
        except OSError as e:
            raise OSError(f"{weights} can't be had from {constants.ENDPOINT}: {one_line(e)[:160]}") from e
    if isinstance(why, LocalEntryNotFoundError): # not asked, or not reached
        raise OSError(f"{weights} is not in the local cache, and {constants.ENDPOINT} can't be reached: download it "
                      f"elsewhere and write {FOLDER}FOLDER.") from why
    raise ValueError(f"{weights} has no {' or '.join(names)}, as timm writes them.")

def pinned_weights(
    weights:str, # any
) -> str:        # those of a hub with the revision that they have now; others as given
    "What names weights for good. OSError where a hub has to be asked and can't be reached."
    if not weights.startswith(HUB): return weights
    return f"{HUB}{_split(weights)[0]}@{_fetched(weights, 'config.json').parent.name}"

def _from_hub(weights, arch, fetch):
    try: config = _fetched(weights, "config.json", fetch=fetch)
    except OSError:
        if fetch: raise
        return
    pinned = f"{HUB}{_split(weights)[0]}@{config.parent.name}"
    try: file = _fetched(pinned, *FILES, fetch=fetch)
    except OSError:
        if fetch: raise
        file = None
    if fetch and _table(pinned, config).get("model_type") == DINO: _fetched(pinned, PREPARED)
    found = _of_timm(pinned, arch, config, file)
    return found if file else None

def _from_folder(weights, arch, fetch):
    folder = Path(weights.removeprefix(FOLDER))
    if not folder.is_dir(): raise FileNotFoundError(f"weights={weights!r}: there is no such folder.")
    file = next((folder/o for o in FILES if (folder/o).is_file()), None)
    if not file or not (folder/"config.json").is_file():
        raise ValueError(f"weights={weights!r}: timm's folder holds config.json and {' or '.join(FILES)}, this one "
                         f"{few(sorted(o.name for o in folder.iterdir())) or 'nothing'}.")
    return _of_timm(weights, arch, folder/"config.json", file)

def _table(weights, file):
    "Of a json file; {} for another thing."
    try: told = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as e: raise ValueError(f"weights={weights!r}: {file.name} can't be read ({one_line(e)}).") from e
    return told if isinstance(told, dict) else {}

def _of_timm(weights, arch, config, file):
    "What timm's config.json says of the file beside it."
    told = _table(weights, config)
    if told.get("model_type") == DINO: return Source(file, weights, _prepared(weights, config.with_name(PREPARED)))
    if not isinstance(told.get("architecture"), str):
        raise ValueError(f"weights={weights!r}: config.json names no architecture of timm's.")
    _check_own(weights, told["architecture"], arch)
    if odd := set(told.get("model_args") or {}) - HARMLESS:
        raise ValueError(f"weights={weights!r} are of a {arch} of another make ({few(sorted(odd))}).")
    own = told.get("pretrained_cfg") or told
    return Source(file, weights, gray_of(own["mean"], own["std"]) if "mean" in own else None)

def _prepared(weights, file):
    "The normalisation that transformers has beside its config.json."
    told = _table(weights, file) if file.is_file() else {}
    if not {"image_mean", "image_std"} <= set(told):
        raise ValueError(f"weights={weights!r}: {file.name} isn't there, or tells no image_mean and image_std.")
    return gray_of(told["image_mean"], told["image_std"])

# All

def _from_file(weights, arch, fetch):
    "A file, or that of a bundle's folder."
    path = Path(weights)
    if path.is_dir() and not (path/"model.safetensors").is_file():
        raise ValueError(f"weights={weights!r} is a folder without model.safetensors, and no bundle; of timm's folders "
                         f"write {FOLDER}{weights}.")
    if path.is_dir(): path = path/"model.safetensors"
    if not path.is_file():
        near = get_close_matches(weights.strip().lower(), [*WORDS, *FORMS], 1, cutoff=.6)
        raise FileNotFoundError(f"weights={weights!r} is neither a file nor one of 'imagenet', 'none', 'auto', "
                                f"{', '.join(FORMS)}{f'; did you mean {near[0]}?' if near else '.'}")
    return Source(path, path.name)

FINDERS = {XRV: _from_xrv, HUB: _from_hub, FOLDER: _from_folder, "": _from_file}

def find_weights(
    weights:str,     # none of `WORDS`
    arch:str,        # that they are for
    fetch:bool=True, # download what isn't here
) -> Source:         # None where it would have to be downloaded first
    "The file that is meant. ValueError, FileNotFoundError and OSError say in a sentence what is wrong."
    find = next(f for start, f in FINDERS.items() if weights.startswith(start))
    return find(weights, arch, fetch)

def check_names(
    weights_of:dict, # architecture -> weights, as a plan has them
):
    "ValueError or FileNotFoundError for a name that isn't known, with the nearest; nothing is downloaded."
    for arch, weights in weights_of.items():
        check_arch(arch)
        if weights not in WORDS: find_weights(weights, arch, fetch=False)
