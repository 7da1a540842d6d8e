"""A function as a command: its parameters are flags, their comments the help, and a file's settings stand below them.

What only has to be explained isn't imported: `header_of` reads it from its source, where comments are read anyhow."""
import argparse, ast, builtins, importlib, inspect, json, os, re, sys, textwrap, warnings
from collections.abc import Callable
from contextlib import contextmanager
from importlib.util import resolve_name
from pathlib import Path

from fastcore.docments import ann_parts, docments

from .files import one_line
from .words import nearest_word, WordError, Words

__all__ = ["header_of", "parse_flags", "read_config", "without_warnings"]

PACKAGE = __package__.split(".")[0]
GROUPS = "data", "model", "arms", "synthesis", "running" # of flags in a help, in this order
KINDS = { # of values: in a help, in a sentence
    int: ("N", "a whole number"), float: ("X", "a number"), str: ("TEXT", "text"), bool: ("", "true or false"),
    Words: ("WORDS", "words, as a list or as text with commas")}

# A function without what it imports

def _imported(name, tree, package):
    "What a file imports as `name`: the thing itself where it is loaded or another's, else its header."
    for o in tree.body:
        if isinstance(o, ast.ImportFrom) and name in [a.name for a in o.names]:
            module = resolve_name("."*o.level + (o.module or ""), package)
            if module in sys.modules or not o.level: return getattr(importlib.import_module(module), name)
            return header_of(module, name)
    raise NameError(f"{name} stands in the head of a command of {package}, where it isn't imported by name.")

def header_of(
    module:str, # dotted, within the package
    name:str,   # of a function of it
) -> Callable:  # that does nothing
    "A function's parameters, with comments and decorators, from its source: nothing that its body needs is imported."
    parts = module.removeprefix(f"{PACKAGE}.").split(".")
    file = Path(__file__).parents[1].joinpath(*parts).with_suffix(".py")
    tree = ast.parse(file.read_text(encoding="utf-8"))
    node = next(o for o in tree.body if isinstance(o, ast.FunctionDef) and o.name == name)
    node.body, node.returns = [ast.copy_location(ast.Pass(), node.body[0])], None
    words = {o.id for o in ast.walk(node) if isinstance(o, ast.Name) and not hasattr(builtins, o.id)}
    space = {o: _imported(o, tree, ".".join([PACKAGE, *parts[:-1]])) for o in words}
    exec(compile(ast.Module([node], []), file, "exec"), space)
    return space[name]

# Flags

class Help(argparse.HelpFormatter):
    "Words with a hyphen stay whole."
    def _split_lines(self, text, width): return textwrap.wrap(text, width, break_on_hyphens=False)

class Parser(argparse.ArgumentParser):
    "What isn't understood is a WordError of one sentence."
    def error(self, message): raise WordError(message)

def _told(door):
    "Parameter -> kind, default (None: it has none), comment, heading."
    told = docments(door, full=True, returns=False)
    for name, o in inspect.signature(door).parameters.items():
        if o.kind == o.VAR_KEYWORD: continue
        kind, more = ann_parts(o.annotation)
        yield name, kind, o.default, told[name]["docment"], more[1] if len(more) > 1 else GROUPS[-1]

def _flag(name): return f"--{name.replace('_', '-')}"

def _add(group, name, kind, default, comment, place):
    "One flag, or a place without a name. What isn't given isn't there afterwards: the function has its defaults."
    untold = default is inspect.Parameter.empty or default is None or default is False or default == ""
    stated = "" if untold else f" (default: {default})"
    about = dict(help=f"{comment}{stated}".replace("%", "%%"), default=argparse.SUPPRESS)
    if place: group.add_argument(name, nargs="?", type=kind, **about)
    elif kind is bool: group.add_argument(_flag(name), action=argparse.BooleanOptionalAction, **about)
    else: group.add_argument(_flag(name), type=kind, metavar=KINDS[kind][0], **about)

def _parser(prog, door, told, places):
    "Of a command, its flags under their headings."
    parser = Parser(prog, " ".join([prog, *places, "[--flag ...]"]), door.__doc__, allow_abbrev=False,
                    formatter_class=Help)
    parser.add_argument("--config", metavar="FILE", help="flags from a toml file, or a study's settings.json; those "
                        "that are given beside it are over it")
    parser.add_argument("--debug", action="store_true", help="where an error came from, not only what it says")
    for name in places: _add(parser, *next(o for o in told if o[0] == name)[:-1], place=True)
    for title in GROUPS:
        own = [o for o in told if o[-1] == title and o[0] not in places]
        group = parser.add_argument_group(title) if own else None
        for o in own: _add(group, *o[:-1], place=False)
    return parser

def _refuse(args, told, verb):
    "WordError for a flag that isn't there, before argparse gives its value to another place, and for one given twice."
    names = [_flag(o[0]) for o in told] + [f"--no-{_flag(o[0])[2:]}" for o in told if o[1] is bool]
    names += ["--config", "--debug", "--help", "-h"]
    seen = set()
    for word in args[:args.index("--") if "--" in args else None]:
        if not re.match("--?[A-Za-z]", word): continue
        if (name := word.split("=")[0]) in names:
            if (one := name.replace("--no-", "--")) in seen: raise WordError(f"{one} is given twice; give it once.")
            seen.add(one)
            continue
        near = nearest_word(f"--{name.lstrip('-')}".replace("_", "-"), names)
        raise WordError(f"{name} is no flag of {verb}; {near or f'cxr-fastai {verb} --help lists them.'}")

def parse_flags(
    verb:str,      # its name
    door:Callable, # what it calls; a parameter's comment may have a heading beside it, as `settings.takes` gives it
    args:list,     # words after the verb
    places=(),     # parameters with a default that need no flag's name, beside those without a default
    of_study=None, # a study's settings -> flags of this verb
    unlisted=None, # name -> type of what a file alone may have
) -> dict:         # keyword arguments: what was given, over what its file says
    "What a command is given. WordError, or an OSError for its file; SystemExit after its help."
    told = list(_told(door))
    places = [o[0] for o in told if o[2] is inspect.Parameter.empty or o[0] in places]
    _refuse(args, told, verb)
    given = vars(_parser(f"cxr-fastai {verb}", door, told, places).parse_args(args))
    file, _ = given.pop("config"), given.pop("debug")
    if file is not None: given = read_config(file, dict(o[:2] for o in told) | (unlisted or {}), verb, of_study) | given
    if empty := [o[0] for o in told if o[1] is str and o[2] != "" and not str(given.get(o[0], "x")).strip()]:
        raise WordError(f"{' and '.join(empty)} is empty: say what it is, or leave it out.")
    if lost := [o[0] for o in told if o[2] is inspect.Parameter.empty and o[0] not in given]:
        raise WordError(f"{' and '.join(lost)} must be given: cxr-fastai {verb} {' '.join(places)}")
    return given

# A file of settings

def _table(file):
    "What a toml or json file holds. WordError for one that can't be read, with its place."
    try:
        text = Path(file).read_bytes().decode("utf-8-sig")
        if Path(file).suffix.lower() == ".json": res = json.loads(text)
        else: res = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli").loads(text)
    except (ValueError, RecursionError) as e:
        raise WordError(f"{file} can't be read: {e}") from e
    if not isinstance(res, dict): raise WordError(f"{file} holds no names and values.")
    return res

def _value(file, name, value, kind):
    "As a flag's. WordError for another type."
    def plain(o): return isinstance(o, (str, int, float)) and not isinstance(o, bool)
    if kind is Words and isinstance(value, list) and all(map(plain, value)): return Words(",".join(map(str, value)))
    fits = dict.fromkeys((str, Words), str) | {int: int, float: (int, float), bool: bool}
    if isinstance(value, fits[kind]) and isinstance(value, bool) == (kind is bool): return kind(value)
    shown = "a table" if isinstance(value, dict) else repr(value)
    raise WordError(f"{file}: {name} is {shown} and must be {KINDS[kind][1]}.")

def read_config(
    file:str|Path, # toml; or json, as a study's settings.json
    kinds:dict,    # flag -> type: those that the verb takes
    verb:str,      # whose they are
    of_study:Callable=None, # a study's settings -> flags
) -> dict:
    "Flags from a file; a hyphen is an underscore. WordError for a key that is no flag and for a value of another type."
    table, res = _table(file), {}
    if "weights_of" in table:
        if of_study is None: raise WordError(f"{file} is a study's, and {verb} takes none of its settings.")
        try: table = of_study(table)
        except ValueError as e: raise WordError(f"{file}: {e}") from e
        except (KeyError, TypeError, AttributeError) as e:
            raise WordError(f"{file} isn't as a study wrote it: {one_line(e)}.") from e
    for key, value in table.items():
        name = key.replace("-", "_")
        if name not in kinds:
            near = nearest_word(name, kinds) or f"there are {', '.join(kinds)}."
            raise WordError(f"{file}: {key!r} is no flag of {verb}; {near}")
        if name in res: raise WordError(f"{file} has {name} twice.")
        if value is not None: res[name] = _value(file, key, value, kinds[name])
    return res

# What others say

@contextmanager
def without_warnings(
    *starts:str, # of warnings that aren't the user's; a FutureWarning's, without commas and colons
):
    "Context without these warnings, in this process and in those that it starts; whoever asks for them has them."
    own = os.environ.get("PYTHONWARNINGS")
    with warnings.catch_warnings():
        for o in starts: warnings.filterwarnings("ignore", re.escape(o), FutureWarning, append=True)
        os.environ["PYTHONWARNINGS"] = ",".join([*(f"ignore:{o}:FutureWarning" for o in starts), *filter(None, [own])])
        try: yield
        finally:
            if own is None: del os.environ["PYTHONWARNINGS"]
            else: os.environ["PYTHONWARNINGS"] = own
