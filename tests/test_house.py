"The folders: one arrow each along the data flow, four that need no torch, a face each; and what is allowed in a file."
import ast, subprocess, sys
from graphlib import TopologicalSorter
import pytest
from conftest import ROOT

PACKAGE = ROOT/"cxr_fastai"
FLOW = "core cohort stats report fit data models gan trained study".split() # a folder imports from those before it
FIRST, LAST = ["arms", "settings"], ["doctor", "cli", "all", "phantom"] # files; `phantom` is a name of before
LIGHT = FIRST + "core cohort stats report".split()
HEAVY = {"torch", "torchvision", "fastai", "timm"}
APART = {"models.backbone"} # all that `gan` takes of `models`: two ways to train, one kind of body

def dotted(file): return ".".join(file.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")

FILES = {dotted(o): o for o in sorted(PACKAGE.rglob("*.py"))}

def imports(source, module, folder=False):
    """Top-level names of other packages that `source` imports, anywhere in it, and dotted names of this one's modules.
    What an entry of `arms` trains by, it imports when it does, within a function: no arrow between folders."""
    outside, own, tree = set(), set(), ast.parse(source)
    here = ["cxr_fastai", *module.split(".")][:1 if module == "__init__" else None]
    for node in tree.body if module == "arms" else ast.walk(tree):
        if isinstance(node, ast.Import): names = [o.name for o in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            names = [o.value for o in node.args[:1] if isinstance(o, ast.Constant)]
        elif isinstance(node, ast.ImportFrom):
            up = here[:len(here) - node.level + folder] if node.level else []
            base = ".".join([*up, *filter(None, [node.module])])
            names = [f"{base}.{o.name}" for o in node.names]
        else: continue
        for name in names:
            top, *rest = name.split(".")
            if top != "cxr_fastai": outside.add(top)
            else: own.add(next((o for n in range(len(rest), 0, -1) if (o := ".".join(rest[:n])) in FILES), ""))
    return outside, own - {""}

IMPORTS = {k: imports(o.read_text(), k, o.stem == "__init__") for k, o in FILES.items()}

def place(module): return module.split(".")[0]

def test_the_folders_are_these():
    there = {o.name for o in PACKAGE.iterdir() if o.is_dir() and o.name != "__pycache__"}
    assert there == set(FLOW) and len([o for o in PACKAGE.iterdir() if o.name != "__pycache__"]) <= 18
    assert {o.stem for o in PACKAGE.glob("*.py")} == {*FIRST, *LAST, "__init__"}

@pytest.mark.parametrize("module", IMPORTS)
def test_a_folder_imports_from_those_before_it(module):
    order = {o: i for i, o in enumerate(["arms", "core", "__init__", "settings", *FLOW[1:], *LAST])}
    wrong = [o for o in IMPORTS[module][1] if place(o) != place(module) and order[place(o)] > order[place(module)]]
    assert not wrong, f"{module} imports {wrong}"

def test_no_two_files_import_each_other():
    "Nor a file and the face of its folder, which imports it."
    whole = {k: own for k, (_, own) in IMPORTS.items() if k != "all"}
    assert list(TopologicalSorter(whole).static_order()) # CycleError names them

def test_two_ways_to_train_know_nothing_of_each_other():
    for k, (_, own) in IMPORTS.items():
        if place(k) == "gan": assert {o for o in own if place(o) == "models"} <= APART, k

@pytest.mark.parametrize("module", [o for o in IMPORTS if place(o) in [*LIGHT, "__init__"]])
def test_no_torch_up_to_the_report(module): assert not IMPORTS[module][0] & HEAVY

def test_a_report_and_its_verb_load_no_torch():
    light = ", ".join(f"cxr_fastai.{o}" for o in [*LIGHT, "cli"])
    code = f"import sys, {light}; print({HEAVY} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr

@pytest.mark.parametrize("module", [o for o in FILES if o != "all"])
def test_imports_are_by_name(module):
    for node in ast.walk(ast.parse(FILES[module].read_text())):
        assert not (isinstance(node, ast.ImportFrom) and node.names[0].name == "*"), node.lineno

@pytest.mark.parametrize("file", [*FILES.values(), *(ROOT/"tests").rglob("*.py"), *(ROOT/"recipes").glob("*.py")],
                         ids=lambda o: str(o.relative_to(ROOT)))
def test_a_file_fits_in_a_head(file):
    lines = file.read_text().splitlines()
    assert max(map(len, lines), default=0) <= 120 and (len(lines) <= 300 or PACKAGE not in file.parents)

@pytest.mark.parametrize("folder", FLOW)
def test_a_face_shows_what_is_there(folder):
    "What it imports from its own files, by name; `core` and `fit` are entered by file."
    face = ast.parse((PACKAGE/folder/"__init__.py").read_text())
    doors = [o for o in face.body if isinstance(o, ast.ImportFrom) and o.level]
    shown = [ast.literal_eval(o.value) for o in face.body if isinstance(o, ast.Assign)]
    assert ast.get_docstring(face) and all(o.level == 1 and o.module for o in doors)
    assert bool(doors) != (folder in ("core", "fit"))
    assert sorted(sum(shown, [])) == sorted(name.name for o in doors for name in o.names)

@pytest.mark.parametrize("module", [o for o in FILES if o != "all"])
def test_imports_stand_in_three_groups(module):
    "Python's own, others', ours, as far as they stand at the top."
    def group(node):
        if isinstance(node, ast.ImportFrom) and node.level: return 2
        name = node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
        return 0 if name.split(".")[0] in sys.stdlib_module_names else 1
    found = [group(o) for o in ast.parse(FILES[module].read_text()).body if isinstance(o, (ast.Import, ast.ImportFrom))]
    assert found == sorted(found)

BESIDE = { # files that are tested by the one that they do their work for
    "cohort/synthetic": "gan/synthesis", "gan/callbacks": "gan/cyclegan", "gan/translator": "gan/cyclegan",
    "models/ensemble": "trained/members", "models/predictions": "study/cell", "study/jobs": "study/grid",
    "trained/ask": "trained/explain", "trained/card": "trained/bundle", "trained/overall": "trained/predict",
    "trained/tensors": "trained/bundle"}

def test_tests_mirror_the_folders():
    rooms = {o.replace(".", "/") for o in FILES if "." in o}
    tests = {str(o.relative_to(ROOT/"tests").with_suffix("")).replace("test_", "")
             for o in (ROOT/"tests").glob("*/test_*.py")}
    assert rooms - tests == set(BESIDE) and tests <= rooms and set(BESIDE.values()) <= tests

def test_tests_of_one_name_are_told_apart():
    "Each folder of tests is a package, so that two of them may hold a file of one name."
    assert all((o.parent/"__init__.py").exists() for o in (ROOT/"tests").glob("*/test_*.py"))

def test_imports_are_read_in_every_form():
    outside, own = imports("""
import os.path, torch.nn as nn
import cxr_fastai.data
from timm.models import x
from ..core.files import few
from . import cell, nothing
from cxr_fastai import arms, __version__
from cxr_fastai.data.show import y
def f():
    from .grid import z
    importlib.import_module("cxr_fastai.gan.losses")
""", "study.run")
    assert outside == {"os", "torch", "timm"}
    assert own == {"data", "core.files", "study", "study.cell", "arms", "data.show", "study.grid", "gan.losses"}
