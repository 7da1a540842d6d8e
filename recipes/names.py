"""The manual's page of public names, from docstrings' first sentences: `python recipes/names.py --help`."""
import importlib, inspect, pkgutil
from pathlib import Path
from fastcore.script import call_parse

FOLDERS = "arms settings core cohort stats report fit data models gan trained study doctor cli".split()
HEAD = """# Names

What the package has, folder by folder, in the order of the data flow: each name with its docstring's first sentence,
and below a folder's table the other names of its files. `from cxr_fastai.all import *` brings all of them.
`doc(name)` in a notebook shows every parameter; `python recipes/api.py` (`pip install "cxr_fastai[docs]"`) writes
it all as pages for a browser. This page is made by `python recipes/names.py`, and a test says when it is old."""

def sentence(o):
    "The first of its docstring, as a cell of a table: without bars and html."
    text = " ".join((inspect.getdoc(o) or "").split("\n\n")[0].split()).split(". ")[0].rstrip(".:")
    return text.replace("|", r"\|").replace("<", "&lt;")

def order(name): return name.lower(), name

def public(module): return {k: vars(module)[k] for k in getattr(module, "__all__", [])}

def section(folder):
    "A folder's face as a table, or all its files' names where it has no face; then what else its files have."
    face = importlib.import_module(f"cxr_fastai.{folder}")
    below = [o.name for o in pkgutil.iter_modules(getattr(face, "__path__", []))]
    files = {o: public(importlib.import_module(f"{face.__name__}.{o}")) for o in below} or {folder: public(face)}
    names = public(face) or {k: o for file in files.values() for k, o in file.items()}
    shown = sorted((o for o in names if callable(names[o])), key=order)
    rest = {k: sorted(set(file) - set(shown), key=order) for k, file in files.items()}
    lines = [f"| `{o}` | {sentence(names[o])} |" for o in shown]
    more = [f"- `{k}`: {', '.join(f'`{o}`' for o in left)}" for k, left in rest.items() if left]
    return "\n".join([f"\n## {folder}\n\n{sentence(face)}.\n\n| | |\n|---|---|", *lines, "", *more])

@call_parse
def main(
    out:str=str(Path(__file__).parent/"manual"/"api.md"), # the page
):
    "Write the page of names; what stands below its line, which leads to other pages, is left as it is."
    _, line, below = Path(out).read_text().partition("\n---\n") if Path(out).exists() else ("", "", "")
    Path(out).write_text("\n".join([HEAD, *map(section, FOLDERS), ""]) + line + below)
