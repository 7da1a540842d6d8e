"""Where films and tables are: all that lies below a folder, and films by the names that a csv gives them."""
import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from ..core.csvs import read_text
from ..core.files import few

__all__ = ["SUFFIXES", "films_below", "find_films", "csv_header", "index_films", "is_film", "tables_in"]

SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm", ".dicom"} # of films, in small letters
TABLES, PACKED = (".csv", ".tsv"), (".gz", ".bz2", ".xz", ".zip")

def _hidden(name): return name.startswith(".") or name == "__MACOSX"

def is_film(
    name:str, # a file's
) -> bool:
    "Whether a file is named as a film is."
    return os.path.splitext(name)[1].lower() in SUFFIXES

def films_below(
    root:str|Path, # a folder
) -> list:         # paths from there, '/' between, in the order of names
    "Every film below a folder, by its name's ending; links are followed once, what is hidden is left out."
    root, found, seen = str(root), [], set()
    for folder, below, files in os.walk(root, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:
            below.clear()
            continue
        seen.add(real)
        below[:] = sorted(o for o in below if not _hidden(o))
        own = os.path.relpath(folder, root).replace(os.sep, "/")
        found += [o if own == "." else f"{own}/{o}" for o in sorted(files) if is_film(o) and not _hidden(o)]
    return found

def _tails(path):
    "A path from each of its parts on: a/b/c, b/c, c."
    parts = path.split("/")
    return ["/".join(parts[i:]) for i in range(len(parts))]

def _keys(path):
    "What a csv may call a film: its path from any part on, with its ending or without."
    return [w for o in _tails(path) for w in (o, str(PurePosixPath(o).with_suffix("")))]

def _plain(name): return str(name).replace("\\", "/").removeprefix("./")

def _called(names, there):
    """{name: what is there under it}: the name itself, or for a path of another root, what it ends with; or either with
    another film's ending, as sets are converted."""
    for name in names:
        plain = _plain(name)
        ways = [plain, os.path.splitext(plain)[0]] if is_film(plain) else [plain]
        tails = [o for way in ways for o in _tails(way) if o == way or "/" in o]
        found = next((there[o] for o in tails if o in there), None)
        if found: yield name, found

def _same(root, paths): return len({os.path.getsize(os.path.join(root, o)) for o in paths}) == 1

def index_films(
    root:str|Path, # a folder
) -> dict:         # what a csv may call a film -> paths from `root`
    "The films below a folder by all names that they may have, for `find_films`; made once, asked often."
    there = {}
    for o in films_below(root):
        for key in _keys(o): there.setdefault(key, []).append(o)
    return there

def find_films(
    root:str|Path,  # a folder
    names:Iterable, # as a csv gives them: with folders and ending, or without
    index:dict=None, # of `index_films(root)`, where that is known
) -> dict:          # {name: path} of those that are there
    """Films by name, anywhere below a folder. ValueError for a name that two films have, unless one is a copy of the
    other: then the one that lies higher is meant."""
    found, twice = {}, []
    for name, paths in _called(names, index_films(root) if index is None else index):
        if len(paths) > 1 and not _same(root, paths): twice.append(name)
        found[name] = os.path.join(root, min(paths, key=lambda o: (o.count("/"), o)))
    if not twice: return found
    raise ValueError(f"{len(twice):,} images lie in more than one folder of '{root}': {few(sorted(twice))}; name the "
                     "folder that has each once by --images.")

def tables_in(
    folder:str|Path, # not what lies below it
) -> list:
    "The csv and tsv files of a folder, packed or not; no .bak, and no half download."
    def is_table(o):
        end = [s.lower() for s in o.suffixes[-2:]]
        return bool(end) and (end[-1] in TABLES or end[-1] in PACKED and end[0] in TABLES)
    return sorted(o for o in Path(folder).iterdir() if o.is_file() and not _hidden(o.name) and is_table(o))

def csv_header(
    csv:str|Path, # any file
) -> list:
    "Names of a table's columns; none for what is no table."
    try: return list(read_text(csv))
    except (ValueError, OSError): return []
