"""What is installed, against what this package asks for. None of it is imported: what can't be is said all the same."""
import json, platform, sys
from importlib.metadata import PackageNotFoundError, requires, version
from textwrap import fill
from typing import NamedTuple

from .extras import install_command
from .files import line_width

__all__ = ["Finding", "Findings", "installed", "pinned"]

USES = dict( # what each extra is for
    dicom="DICOM films", explain="heat maps", quality="FID and Inception Score proper", ray="--ray",
    distributed="several processes a cell", onnx="ONNX export", tensorboard="--track", wandb="--track",
    mlflow="--track", tune="--tune", demo="a page to try a model", notebooks="notebooks")
SHOWN = "torch", "fastai", "timm", "pandas", "numpy"

class Finding(NamedTuple):
    "One line of a doctor's table."
    check:str   # what was looked at
    status:str  # 'ok', 'warn' or 'FAIL'
    found:str   # what is there
    todo:str="" # what to do about it

class Findings(list):
    "Findings as a table for a terminal; `failed` where a run would end in an error."
    @property
    def failed(self): return any(o.status == "FAIL" for o in self)

    def __add__(self, other): return Findings([*self, *other])

    @property
    def json(self): return json.dumps([o._asdict() for o in self], indent=2)

    def __repr__(self):
        lines, wide = [], line_width()
        for o in self:
            lines.append(fill(o.found, wide, initial_indent=f"{o.status:<6}{o.check:<11}", subsequent_indent=" "*17))
            if o.todo: lines.append(fill(o.todo, wide, initial_indent=" "*14 + "-> ", subsequent_indent=" "*17))
        return "\n".join(lines)

def _wrong(needed):
    "What is wrong with one requirement in words; '' where nothing is."
    try: there = version(needed.name)
    except PackageNotFoundError: return f"{needed.name} is missing"
    return "" if needed.specifier.contains(there, prereleases=True) else f"{needed} is needed and {there} installed"

def _packages(needed):
    wrong = {o: why for o in needed if (why := _wrong(o))}
    if not wrong:
        shown = [f"{o.name} {version(o.name)}" for o in sorted(needed, key=lambda o: o.name) if o.name in SHOWN]
        return Finding("packages", "ok", f"all {len(needed)}, within bounds: {', '.join(shown)}")
    todo = "pip install " + " ".join(f"'{o.name}{o.specifier}'" for o in wrong)
    return Finding("packages", "FAIL", "; ".join(wrong.values()), todo)

def _extras(needed):
    "Which extras are complete; a package that is there but outside its bounds is a warning."
    there, absent, old = [], [], []
    for extra in USES:
        own = [o for o in needed if o.marker and o.marker.evaluate(dict(extra=extra))]
        wrong = [why for o in own if (why := _wrong(o))]
        if own: (absent if wrong else there).append(extra)
        old += [o for o in wrong if not o.endswith("missing")]
    told = [f"there: {', '.join(there) or 'none'}", *old]
    if absent: told.append(f"not there: {', '.join(f'{o} ({USES[o]})' for o in absent)}")
    todo = f"where one is wanted: {install_command(*absent)}" if absent else ""
    return Finding("extras", "warn" if old else "ok", "; ".join(told), todo)

def pinned(
    extra:str, # of setup.cfg
) -> list:     # 'name==version'
    "What this package and one of its extras need, as it is installed here. ImportError where something isn't."
    from packaging.requirements import Requirement
    from packaging.version import Version
    try:
        needed = list(map(Requirement, requires("cxr_fastai")))
        plain, both = ([o.name for o in needed if not o.marker or o.marker.evaluate(dict(extra=name))]
                       for name in ("", extra))
        if plain == both: raise ImportError(f"cxr_fastai is installed as before it had '{extra}': "
                                            f"{install_command(extra)}")
        return sorted(f"{o}=={Version(version(o)).public}" for o in both)
    except PackageNotFoundError as e:
        raise ImportError(f"{e.name} isn't installed, so that its version can't be told: "
                          f"{install_command(extra)}") from None

def installed(
    needed:list=None, # requirements, as in setup.cfg; None: this package's own
) -> Findings:
    "Python, and every package against its bounds. Nothing is imported."
    from packaging.requirements import Requirement
    words = f"{platform.python_version()} on {platform.system()} {platform.machine()}, {sys.executable}"
    res = Findings([Finding("python", "ok" if sys.version_info >= (3, 10) else "FAIL", words)])
    try: needed = list(map(Requirement, requires("cxr_fastai") if needed is None else needed))
    except PackageNotFoundError:
        told = "cxr_fastai itself isn't installed: versions can't be checked"
        return res + [Finding("packages", "warn", told, "pip install -e . in its folder")]
    always = [o for o in needed if not o.marker or o.marker.evaluate(dict(extra=""))]
    return Findings([*res, _packages(always), _extras([o for o in needed if o not in always])])
