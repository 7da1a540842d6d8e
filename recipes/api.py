"""The API page, from signatures, docstrings and the comments beside parameters: `python recipes/api.py --help`."""
import importlib, inspect, pkgutil, re
from pathlib import Path
import pdoc
from fastcore.docments import DocmentTbl
from fastcore.script import call_parse
import cxr_fastai

def explain(o):
    "Put the comments beside a function's parameters, or those of a class's methods, into the docstring as a table."
    if inspect.isclass(o): return [explain(getattr(m, "__func__", m)) for m in vars(o).values()]
    if not inspect.isfunction(inspect.unwrap(o)): return
    try: table = str(DocmentTbl(o, verbose=False))
    except (OSError, TypeError): return # written by no one, as a dataclass's __init__
    if "**Details**" not in table: return
    told = re.sub(r"\n\|[^|]*\| *\|(?=\n|$)", "", table) # without lines that say nothing
    inspect.unwrap(o).__doc__ = f"{inspect.getdoc(o) or ''}\n\n{told}" # pdoc looks beneath decorators

@call_parse
def main(
    out:str="site", # folder of the pages; index.html is the first
):
    "Write the API page with pdoc. No network is needed, neither to make it nor to read it."
    names = [o.name for o in pkgutil.walk_packages(cxr_fastai.__path__, "cxr_fastai.") if o.name != "cxr_fastai.all"]
    for name in names:
        for o in vars(importlib.import_module(name)).values():
            if getattr(o, "__module__", None) == name: explain(o)
    pdoc.render.configure(docformat="markdown", show_source=False, footer_text=f"cxr_fastai {cxr_fastai.__version__}")
    pdoc.pdoc("cxr_fastai", "!cxr_fastai.all", *names, output_directory=Path(out)) # by name: pdoc keeps to `__all__`
    print(f"The page is {Path(out)/'index.html'}")
