"""Packages that come with an extra: there, or the sentence that says how to get them. No torch."""
import importlib
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

__all__ = ["folder_of", "install_command", "need"]

def install_command(
    *extras:str, # of setup.cfg
) -> str:
    "What brings these extras, for a shell."
    return f"pip install 'cxr_fastai[{','.join(extras)}]'"

def need(
    module:str, # dotted
    *,
    extra:str,  # that brings it
    what:str,   # needs it, as the sentence begins
) -> ModuleType:
    "An optional module, imported. ImportError says what needs it and how to get it."
    try: return importlib.import_module(module)
    except ImportError as e: raise _absent(module, extra, what) from e

def folder_of(
    package:str, # that is installed, and not imported
    *,
    extra:str,   # that brings it
    what:str,    # needs it, as the sentence begins
) -> Path:
    "Where an optional package lies, for the files that it carries. ImportError as of `need`."
    spec = find_spec(package)
    if not spec or not spec.submodule_search_locations: raise _absent(package, extra, what)
    return Path(spec.submodule_search_locations[0])

def _absent(module, extra, what):
    package = module.split(".")[0].replace("_", "-")
    return ImportError(f"{what} needs {package}: {install_command(extra)}")
