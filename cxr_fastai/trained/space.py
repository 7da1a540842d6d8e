"""The page of `demo` as a Space of the Hugging Face hub: a folder that holds all it runs, to be uploaded as it is."""
import platform, shutil
from importlib.metadata import version
from pathlib import Path

import huggingface_hub as hub

from ..core.extras import need
from ..core.files import atomic_folder
from ..core.installed import pinned
from ..core.templates import fill_template
from ..stats.formats import escape_markdown
from .bundle import load_bundle, save_bundle
from .front import limits_of

__all__ = ["write_space"]

_PACKAGE = Path(__file__).parents[1]
_TEMPLATE = Path(__file__).parent/"templates"/"space.md.j2"
APP = '''"A page to try the model in `bundle`, as the hub runs it. cxr_fastai lies beside it, as it wrote this."
from cxr_fastai.trained.demo import serve_demo

serve_demo("bundle", host="0.0.0.0", port=7860)
'''

def _front(card):
    "What the hub has to know of a Space."
    negative, positive = card["classes"]
    python = ".".join(platform.python_version_tuple()[:2])
    return hub.SpaceCardData(
        title=f"{positive} or {negative}", emoji="🩻", colorFrom="gray", colorTo="blue", sdk="gradio",
        sdk_version=version("gradio"), python_version=python, app_file="app.py", pinned=False,
        short_description="A classifier to try; not a medical device", tags=["chest-radiograph"]).to_yaml()

def _readme(card):
    cautions, limits = limits_of(card)
    return fill_template(_TEMPLATE, front=_front(card), negative=escape_markdown(card["classes"][0]),
                         positive=escape_markdown(card["classes"][1]), cautions=cautions, limits=limits)

def write_space(
    bundle:str|Path, # of `save_bundle`
    folder:str|Path, # that is new, or empty
) -> Path:           # `folder`
    """Write app.py, requirements.txt with the versions that are installed here, README.md with the hub's front matter,
    the bundle and this package: whole, or not at all. FileExistsError for a folder that holds something; BundleError;
    ImportError without gradio."""
    folder = Path(folder)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise FileExistsError(f"{folder} is there already and isn't an empty folder: name a new one.")
    need("gradio", extra="demo", what="A Space")
    learn, lines = load_bundle(bundle, "cpu"), pinned("demo")
    with atomic_folder(folder) as tmp:
        save_bundle(learn, tmp/"bundle", licence=learn.card["licence"])
        shutil.copytree(_PACKAGE, tmp/_PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
        for name, text in {"app.py": APP, "requirements.txt": "\n".join(lines) + "\n",
                           "README.md": _readme(learn.card)}.items():
            (tmp/name).write_text(text, encoding="utf-8")
    return folder
