"""The manual's page of public names, from docstrings' first sentences: `python recipes/names.py --help`."""
import importlib, inspect, pkgutil
from pathlib import Path
from fastcore.script import call_parse

FOLDERS = "arms settings core cohort stats report fit data models gan trained study doctor cli".split()
HEAD = """# Names

Public names by folder, in the order of the data flow; `from cxr_fastai.all import *` brings all. `doc(name)` in a
notebook shows every parameter, as do the pages of `python recipes/api.py`. This page is made by `recipes/names.py`."""

def sentence(o):
    "The first of its docstring, as a cell of a table: without bars and html."
    text = " ".join((inspect.getdoc(o) or "").split("\n\n")[0].split()).split(". ")[0].rstrip(".:")
    return text.replace("|", r"\|").replace("<", "&lt;")

def public(*modules):
    names = {k: vars(o)[k] for o in modules for k in getattr(o, "__all__", [])}
    return dict(sorted(names.items(), key=lambda o: (o[0].lower(), o[0])))

def section(folder):
    "A folder's face as a table, or all its files' names where it has no face; then what else its files have."
    face = importlib.import_module(f"cxr_fastai.{folder}")
    below = [o.name for o in pkgutil.iter_modules(getattr(face, "__path__", []))]
    files = {o: importlib.import_module(f"{face.__name__}.{o}") for o in below} or {folder: face}
    names = public(face) or public(*files.values())
    shown = [o for o in names if callable(names[o])]
    rest = {k: [o for o in public(file) if o not in shown] for k, file in files.items()}
    more = [f"- `{k}`: {', '.join(f'`{o}`' for o in left)}" for k, left in rest.items() if left]
    return "\n".join([f"\n## {folder}\n\n{sentence(face)}.\n\n| | |\n|---|---|",
                      *(f"| `{o}` | {sentence(names[o])} |" for o in shown), "", *more])

@call_parse
def main(
    out:str=str(Path(__file__).parent/"manual"/"api.md"), # the page
):
    "Write the page of names; what stands below its line, which leads to other pages, is left as it is."
    below = Path(out).read_text().partition("\n---\n") if Path(out).exists() else [""]
    Path(out).write_text("\n".join([HEAD, *map(section, FOLDERS), ""]) + "".join(below[1:]))
