import ast, errno, io, json, os, re, subprocess, sys, time, warnings
from pathlib import Path
import numpy as np, pandas as pd, pytest, torch
from PIL import Image
from cxr_fastai.core import files
from cxr_fastai.fit.checkpoint import atomic_torch
from cxr_fastai.cohort.cache import RadiographCache
from cxr_fastai.core.files import (atomic, atomic_folder, bar_fits, lenient, named_errors, plain_warnings, say,
                                   write_json)
from cxr_fastai.cohort.phantom import make_phantom

def hidden(folder): return [o.name for o in folder.rglob(".*")]

@pytest.fixture(autouse=True)
def fresh(monkeypatch): monkeypatch.setattr(files, "_swept", set()) # as in a new process

def test_a_file_is_whole_or_not_there(tmp_path):
    file = tmp_path/"new"/"a.json"
    write_json(file, dict(a="é"))
    with pytest.raises(RuntimeError), atomic(file) as tmp:
        tmp.write_text("half")
        raise RuntimeError
    assert json.loads(file.read_text()) == dict(a="é") and not hidden(tmp_path)

def test_a_folder_is_replaced_as_a_whole_or_left(tmp_path):
    folder = tmp_path/"set"
    for text in "first", "second":
        with atomic_folder(folder) as tmp: (tmp/text).write_text(text)
    with pytest.raises(RuntimeError), atomic_folder(folder) as tmp:
        (tmp/"third").touch()
        raise RuntimeError
    assert [o.name for o in folder.iterdir()] == ["second"] and not hidden(tmp_path)

def test_temporary_names_are_random_and_are_made_where_none_is(tmp_path, monkeypatch):
    names = set()
    for _ in range(3):
        with atomic(tmp_path/"a.csv") as tmp: names.add(tmp.name)
    assert len(names) == 3 and all(re.fullmatch(r"\.a\.[0-9a-f]{16}\.unfinished\.csv", o) for o in names)
    monkeypatch.setattr(files.secrets, "token_hex", lambda n: "0" * 2 * n)
    (tmp_path/"theirs").write_text("kept")
    (tmp_path/f".a.{'0' * 16}.unfinished.csv").symlink_to(tmp_path/"theirs") # laid by someone who guessed it
    with pytest.raises(FileExistsError, match="a.csv"), atomic(tmp_path/"a.csv") as tmp: tmp.write_text("x")
    assert (tmp_path/"theirs").read_text() == "kept"

def test_the_permissions_are_those_of_any_file(tmp_path):
    (tmp_path/"plain").touch()
    with atomic(tmp_path/"a") as tmp: tmp.write_text("x")
    assert (tmp_path/"a").stat().st_mode == (tmp_path/"plain").stat().st_mode

KILLED = """
import sys, time
from cxr_fastai.core.files import atomic, atomic_folder
with atomic(sys.argv[1] + "/a.csv") as a, atomic_folder(sys.argv[1] + "/set") as b:
    a.write_text("half")
    (b/"half").touch()
    print("in", flush=True)
    time.sleep(60)
"""

def test_what_a_killed_process_left_is_swept_by_the_next_and_nothing_else_is(tmp_path):
    dead, alive = (subprocess.Popen([sys.executable, "-c", KILLED, tmp_path], stdout=subprocess.PIPE) for _ in range(2))
    try:
        for o in dead, alive: o.stdout.readline()
        dead.kill()
        dead.wait()
        others = [".hidden", ".a.1234.csv", ".a.unfinished.csv", f".b.{'0' * 15}g.unfinished"]
        for o in others: (tmp_path/o).touch()
        for o in [*tmp_path.glob(".*"), *tmp_path.glob(".*/half")]: os.utime(o, (time.time() - 60,) * 2)
        assert len(hidden(tmp_path)) == 8
        with atomic(tmp_path/"b") as tmp: tmp.write_text("x")
        left = set(hidden(tmp_path)) - set(others)
        assert len(left) == 2 and all((tmp_path/o).exists() for o in others) # the living one's
    finally:
        alive.kill()
        alive.wait()

def test_where_there_are_no_locks_only_what_is_a_day_old_is_swept(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "fcntl", None)
    for name, age in ("new", 3600), ("old", 2 * files.DAY):
        (o := tmp_path/f".{name}.{'0' * 16}.unfinished").touch()
        os.utime(o, (time.time() - age,) * 2)
    with atomic(tmp_path/"a") as tmp: tmp.write_text("x")
    assert hidden(tmp_path) == [f".new.{'0' * 16}.unfinished"]

@pytest.mark.parametrize("error, kind", [
    (OSError(errno.ENOSPC, "No space left on device"), OSError), (OSError("800 requested and 24 written"), OSError),
    (PermissionError(errno.EACCES, "Permission denied"), PermissionError)])
def test_an_error_of_writing_names_the_file(tmp_path, error, kind):
    for context in atomic, named_errors:
        with pytest.raises(kind, match=re.escape(str(tmp_path/"a.csv"))), context(tmp_path/"a.csv"): raise error

def test_an_error_that_names_a_file_keeps_its_name(tmp_path):
    with pytest.raises(FileNotFoundError, match="other.png"), atomic(tmp_path/"a"): open(tmp_path/"other.png")
    with pytest.raises(ValueError, match="^x$"), atomic(tmp_path/"a"): raise ValueError("x")
    with pytest.raises(PermissionError, match="a/b'"), atomic(tmp_path/"a"/"b") as tmp:
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp))

# what is said

class Terminal(io.TextIOWrapper):
    def __init__(self, encoding): super().__init__(io.BytesIO(), encoding, newline="\n")
    def isatty(self): return True
    @property
    def said(self):
        self.flush()
        return self.buffer.getvalue().decode(self.encoding)

@pytest.mark.parametrize("encoding, text", [
    ("ascii", r"L\xe4sion \u2265 3, \u65e5\u672c"), ("cp1252", r"Läsion \u2265 3, \u65e5\u672c"),
    ("utf-8", "Läsion ≥ 3, 日本")])
@pytest.mark.usefixtures("unasked")
def test_no_terminal_is_too_poor_to_be_told(monkeypatch, encoding, text):
    monkeypatch.setattr(sys, "stdout", out := Terminal(encoding))
    say("Läsion", "≥ 3,", "日本", end="!\n")
    say(Path("x"), 1, sep="-", flush=True)
    assert out.said == text + "!\nx-1\n" and bar_fits() is (encoding == "utf-8")
    lenient()
    print("Läsion ≥ 3, 日本")
    assert out.said.endswith(text + "\n")

def test_whatever_is_written_as_text_names_its_encoding_and_whatever_is_said_is_said_by_say():
    "What Python takes otherwise is the user's locale, and its `print` ends a run where a letter is missing."
    found = []
    for file in sorted((Path(files.__file__).parent).glob("*.py")):
        for o in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(o, ast.Call): continue
            name, told = ast.unparse(o.func), {k.arg for k in o.keywords}
            mode = [a.value for a in o.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
            if "'/proc/" in ast.unparse(o) or "utf-8" in ast.unparse(o): continue
            binary = any("b" in m and len(m) < 4 for m in mode) or "'r+b'" in ast.unparse(o)
            text = name.endswith(".write_text") or name == "open" and not binary
            if text and "encoding" not in told or name == "print" and file.stem not in ("files", "cli"):
                found.append(f"{file.name}:{o.lineno} {name}")
    assert not found

# a full disk, by a limit of this process: the same errors from the same writers

def cached(folder): RadiographCache([str(folder/"film.png")], 400, folder, progress=False)
def torched(folder):
    with atomic_torch(folder/"a.pt") as tmp: torch.save(torch.zeros(60_000), tmp)
def listed(folder):
    with atomic(folder/"a.csv") as tmp: pd.DataFrame(dict(a=range(60_000))).to_csv(tmp)
def zipped(folder):
    with atomic(folder/"a.npz") as tmp: np.savez(tmp, a=np.zeros(60_000))
def drawn(folder):
    with atomic(folder/"a.png") as tmp: noise().save(tmp)
def described(folder): write_json(folder/"a.json", list(range(60_000)))
def phantom(folder): make_phantom(folder/"set", 1, size=900)
def noise(): return Image.fromarray(np.random.default_rng(0).integers(0, 255, (450, 450), dtype=np.uint8))

@pytest.mark.parametrize("write, name", [
    (cached, "pixels.u8"), (torched, "a.pt"), (listed, "a.csv"), (zipped, "a.npz"), (drawn, "a.png"),
    (described, "a.json"), (phantom, ".png")])
@pytest.mark.slow
def test_a_full_disk_names_the_file_and_leaves_no_half_of_it(tmp_path, write, name):
    resource = pytest.importorskip("resource")
    noise().save(tmp_path/"film.png")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        with pytest.raises(OSError) as e: write(tmp_path)
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert name in str(e.value) and "\n" not in str(e.value)
    assert not hidden(tmp_path) and not (tmp_path/name).exists()

def test_a_program_s_warning_is_its_sentence(capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        plain_warnings()
        warnings.warn("The sea is far.")
    assert capsys.readouterr().err == "The sea is far.\n"
