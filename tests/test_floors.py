import ast
from pathlib import Path
import pytest

PACKAGE = Path(__file__).parents[1]/"cxr_fastai"
FLOORS = { # a module imports only from lower floors; tenths are mezzanines
    0.0: ["__init__", "arms", "engines", "files", "signs", "typical"],
    0.02: ["answers", "csvs", "words"],
    0.03: ["claim"],
    0.05: ["predictions", "rows"],
    0.08: ["areas", "calibration", "plan", "scoring"],
    0.09: ["dicom", "draws", "memory", "progress"],
    0.1: ["audit", "basics", "duplicates", "formats", "installed", "intake", "intervals", "readers"],
    0.12: ["altered", "differences", "giveaway"],
    0.15: ["leaks"],
    0.16: ["seen"],
    0.2: ["cohort", "compare", "tables"],
    0.3: ["prevalence", "subgroups"],
    0.4: ["figures", "page"],
    1.0: ["backbone", "card", "distributed", "metadata", "metrics", "phantom", "networks", "radiograph", "rivals", "show"],
    1.05: ["given", "tensors"],
    1.1: ["cache", "checkpoint", "fusion", "losses"],
    2.0: ["batches", "features", "policies", "runs"],
    2.1: ["data", "unpaired"],
    3.0: ["cyclegan", "learner"],
    4.0: ["bundle", "interpret", "quality", "synthesis"],
    4.1: ["onnx_export", "publish", "tracking"],
    4.15: ["minority"],
    4.2: ["cell"],
    4.3: ["explain", "grid"],
    4.4: ["study"],
    5.0: ["doctor", "predict"],
    5.1: ["report"],
    6.0: ["all"],
    7.0: ["cli"],
}
FLOOR = {module: floor for floor, modules in FLOORS.items() for module in modules}
HEAVY = {"torch", "torchvision", "fastai", "timm"}
APART = {"learner", "cyclegan"} # two ways to train: neither knows of the other

def imports(source):
    "Top-level names of the packages that `source` imports from anywhere in it, and the modules of this package."
    outside, own = set(), set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import): names = [o.name for o in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(filter(None, ["cxr_fastai" if node.level else None, node.module]))
            names = [f"{base}.{o.name}" for o in node.names] if base == "cxr_fastai" else [base]
        else: continue
        for top, *rest in (o.split(".") for o in names):
            if top != "cxr_fastai": outside.add(top)
            else: own.add(rest[0] if rest and (PACKAGE/f"{rest[0]}.py").exists() else "__init__")
    return outside, own

def of(module): return imports((PACKAGE/f"{module}.py").read_text())

def test_every_module_has_a_floor():
    assert sorted(FLOOR) == sorted(o.stem for o in PACKAGE.glob("*.py"))
    assert not [o for o in PACKAGE.iterdir() if o.is_dir() and o.name != "__pycache__"] # flat

@pytest.mark.parametrize("module", FLOOR)
def test_imports_come_from_lower_floors(module):
    above = {o for o in of(module)[1] if FLOOR[o] >= FLOOR[module]}
    assert not above, f"{module} (floor {FLOOR[module]}) imports {', '.join(f'{o} ({FLOOR[o]})' for o in above)}"

@pytest.mark.parametrize("module", [o for o, floor in FLOOR.items() if floor < 1 and o != "basics"])
def test_the_ground_floor_needs_no_torch(module):
    outside, own = of(module)
    assert not outside & HEAVY and "basics" not in own

def test_learner_and_cyclegan_know_nothing_of_each_other():
    for module in APART & FLOOR.keys(): assert not of(module)[1] & APART - {module}

def test_imports_are_read_in_every_form():
    outside, own = imports("""
import os.path, torch.nn as nn
import cxr_fastai.data
from timm.models import x
from .files import few
from . import cohort, __version__
from cxr_fastai import leaks
from cxr_fastai.show import y
def f():
    from .learner import z
""")
    assert outside == {"os", "torch", "timm"}
    assert own == {"__init__", "data", "files", "cohort", "leaks", "show", "learner"}
