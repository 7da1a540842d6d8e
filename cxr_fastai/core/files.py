"""Files and folders that are either whole or not there: written under a random name, then renamed. And what is said
of them, in any terminal."""
import json, os, re, secrets, shutil, sys, textwrap, time, warnings
from collections.abc import Iterable
from contextlib import contextmanager, suppress
from pathlib import Path

from .words import nearest_word

__all__ = ["KeywordError", "atomic", "atomic_folder", "bar_fits", "check_keywords", "few", "lenient", "line_width",
           "named_errors", "one_line", "plain_warnings", "read_json", "say", "write_json"]

try: import fcntl
except ImportError: fcntl = None # Windows has no such locks: what is unfinished there is told by its age alone

UNFINISHED = re.compile(r"\..*\.[0-9a-f]{16}\.unfinished(\.[^.]*)?", re.DOTALL)
DAY = 86_400   # seconds; older ones are nobody's, where locks can't tell
_swept = set() # folders that this process has looked through

@contextmanager
def named_errors(
    path:str|Path,     # what is being written
    tmp:str|Path=None, # the name it has meanwhile
):
    "An OSError within that names no file, as that of a full disk, or the temporary one, is given the name of `path`."
    try: yield
    except OSError as e:
        if e.filename is not None and str(e.filename) != str(tmp): raise
        if e.errno: raise OSError(e.errno, e.strerror, str(path)) from e
        if type(e) is not OSError: raise
        raise OSError(f"{path} can't be written; is the disk full? ({e})") from e

def _lock(path):
    "A descriptor that holds `path`, a file or a folder, till it is closed or its process dies; None: another holds it."
    fd = os.open(path, os.O_RDONLY)
    try: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError: # or a file system has no locks
        os.close(fd)
        return None
    return fd

def _stale(path):
    "Whether it is of a killed process. One that was made this second may not be locked yet."
    age = time.time() - path.stat().st_mtime
    if age > DAY: return True
    if age < 1 or not fcntl or (fd := _lock(path)) is None: return False
    os.close(fd)
    return True

def _remove(path):
    if path.is_dir(): shutil.rmtree(path, ignore_errors=True)
    else: path.unlink(missing_ok=True)

def _sweep(folder):
    "Remove what killed runs left unfinished in `folder`; once a process, for a folder may be large."
    if folder in _swept: return
    _swept.add(folder)
    for o in os.scandir(folder):
        with suppress(OSError): # gone, or another's
            if UNFINISHED.fullmatch(o.name) and not o.is_symlink() and _stale(Path(o.path)): _remove(Path(o.path))

@contextmanager
def _unfinished(path, make):
    "A new random name beside `path`, made by `make`, which fails where there is one, and locked; it goes at the end."
    path = Path(path)
    tmp = path.with_name(f".{path.stem[:40]}.{secrets.token_hex(8)}.unfinished{path.suffix}")
    with named_errors(path, tmp):
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path.parent.absolute())
        make(tmp)
        fd = _lock(tmp) if fcntl else None
        try: yield tmp
        finally:
            _remove(tmp)
            if fd is not None: os.close(fd)

def _new_file(path): os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))

@contextmanager
def atomic(
    path:str|Path, # the file's final name; its folder is made where it is missing
):
    """Yield a temporary name beside `path`; it becomes `path` when the block ends, and goes when the block raises. What
    a killed process left so is removed by the next. OSError, of a full disk too, names `path`."""
    with _unfinished(path, _new_file) as tmp:
        yield tmp
        os.replace(tmp, path)

@contextmanager
def atomic_folder(
    path:str|Path, # the folder's final name; what stands there is replaced
):
    "As `atomic`, for a folder, which is made."
    with _unfinished(path, os.mkdir) as tmp:
        yield tmp
        old = tmp.with_name(f".{Path(path).stem[:40]}.{secrets.token_hex(8)}.unfinished")
        if os.path.lexists(path): os.rename(path, old)
        os.rename(tmp, path)
        _remove(old)

def write_json(
    path:str|Path, # the file
    obj:dict,      # anything json can hold; paths and numpy numbers become text
):
    "Write `obj` to `path` as indented json, atomically."
    with atomic(path) as tmp: tmp.write_text(json.dumps(obj, indent=2, default=str) + "\n", encoding="utf-8")

def read_json(
    path:str|Path, # of `write_json`
) -> dict:
    "What a json file holds. ValueError for one that is damaged, which says what to do; FileNotFoundError."
    if not Path(path).exists(): raise FileNotFoundError(f"There is no file '{path}'.")
    try: res = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as e: why = one_line(e)
    else:
        if isinstance(res, dict): return res
        why = "it holds no table of names and values"
    raise ValueError(f"{path} is damaged ({why}): delete it, and the command that wrote it makes it again.")

WIDEST = 100 # columns, in a wider terminal and where there is none

def line_width() -> int:
    "How wide a line may be that people read: as their terminal, and 100 at most."
    return min(WIDEST, shutil.get_terminal_size((WIDEST, 24)).columns or WIDEST) if sys.stdout.isatty() else WIDEST

def _wrapped(line):
    "A sentence in lines of whole words, below each other; a table's line stays as it is."
    if len(line) <= (width := line_width()) or "  " in line.strip() or line.lstrip().startswith("|"): return line
    indent = line[:len(line) - len(line.lstrip())]
    return textwrap.fill(line, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)

def _speaks():
    "Of several processes that train together, by torchrun or accelerate, the first."
    return not int(os.environ.get("RANK") or 0)

def say(
    *what,        # as `print` takes it
    sep:str=" ",  # between them
    file=None,    # stdout where not given
    **kwargs,     # `end` and `flush` of `print`
):
    r"""`print` for any terminal: a letter that its encoding lacks comes as \xe9, and no run ends by it; sentences are
    wrapped where a terminal is. Of several processes that train together, the first alone speaks."""
    if not _speaks(): return
    text, file = sep.join(map(str, what)), sys.stdout if file is None else file
    if file.isatty(): text = "\n".join(map(_wrapped, text.split("\n")))
    try: print(text, file=file, **kwargs)
    except UnicodeEncodeError as e:
        print(text.encode(e.encoding, "backslashreplace").decode(e.encoding), file=file, **kwargs)

def lenient():
    "Let stdout and stderr escape what their encoding lacks, whoever writes: for a program, which owns them."
    for o in sys.stdout, sys.stderr:
        if hasattr(o, "reconfigure"): o.reconfigure(errors="backslashreplace")

def plain_warnings():
    "Let a warning be its sentence, without a line of source: for a program, whose user has none."
    def show(message, category, filename, lineno, file=None, line=None): say(message, file=file or sys.stderr)
    warnings.showwarning = show

def _asked_plain():
    "Whether the environment asks for plain lines: a log of CI, no colours, a terminal that can't move its cursor."
    ci = os.environ.get("CI", "").lower() not in ("", "0", "false")
    return ci or bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") in ("dumb", "unknown")

def bar_fits() -> bool:
    "Whether stdout is a terminal that can draw a progress bar, and is asked for no plain lines."
    if not sys.stdout.isatty() or _asked_plain() or not _speaks(): return False
    try: return bool("█".encode(sys.stdout.encoding or "utf-8"))
    except UnicodeEncodeError: return False

def few(
    names:Iterable, # any iterable of names
    n:int=3,        # how many are spelled out
) -> str:
    "The first `n` names and how many more there are, for an error's one sentence."
    names = [str(o) for o in names]
    more = f" and {len(names)-n:,} more" if len(names) > n else ""
    return ", ".join(names[:n]) + more

class KeywordError(TypeError, ValueError): "A keyword that isn't known, which would otherwise change nothing."

def check_keywords(
    given:Iterable, # names
    known:Iterable, # names that have an effect
    who:str,        # takes them, as its sentence begins
    hints:dict=None, # name that users know from elsewhere -> what to write instead
):
    "KeywordError for a name that isn't known: nothing that is given is ignored."
    for o in given:
        if o not in known:
            near, every = nearest_word(o, known), f"it takes {few(dict.fromkeys(known), 30)}"
            instead = (hints or {}).get(o) or (f"{near} {every}" if near else every)
            raise KeywordError(f"{who} doesn't take {o!r}: {instead}.")

def one_line(
    error:Exception, # what was raised
) -> str:            # 'ValueError: what it says'
    "An error as one line; what fastai puts before one that a callback raised is left out."
    lines = [o.strip() for o in str(error).splitlines() if o.strip() and not o.startswith("Exception occured in")]
    return f"{type(error).__name__}: {(lines or ['no message'])[0]}"
