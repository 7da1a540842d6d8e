"""Packages that come with an extra: there, or the sentence that says how to get them. No torch."""
import importlib
from types import ModuleType

__all__ = ["install_command", "need"]

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
    except ImportError as e:
        package = module.split(".")[0].replace("_", "-")
        raise ImportError(f"{what} needs {package}: {install_command(extra)}") from e
