"""Texts that are templates of jinja2 beside the code that fills them: how they read is changed there."""
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

__all__ = ["fill_template"]

def fill_template(
    file:Path, # of a folder of templates, which may include one another; one of html escapes all that it is given
    **words,   # what it names
) -> str:
    "A template, filled. jinja2's UndefinedError where it names what it isn't given."
    templates = Environment(loader=FileSystemLoader(file.parent), autoescape=".html" in file.suffixes,
                            undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
                            keep_trailing_newline=True)
    return templates.get_template(file.name).render(words)
