"""The notebooks, run for real. `python tests/test_notebooks.py` runs them and keeps what they show in their files."""
import base64, io, os, re, sys, tempfile
from types import SimpleNamespace
import pytest
from PIL import Image
from conftest import ROOT

nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
BOOKS = sorted((ROOT/"recipes"/"notebooks").glob("*.ipynb"))
ENV = dict(PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
PLACES = r"/(?:home|root|Users|opt|tmp|work|usr|private|var)/.{,40}|site-packages|[A-Z]:\\" # of one machine

COLAB = "https://colab.research.google.com/"
BADGE = f"[![Open in Colab]({COLAB}assets/colab-badge.svg)]({COLAB})"
INSTALL = """\
# In Colab first upload the wheel that `pip wheel --no-deps .` makes in a clone; elsewhere this does nothing.
import importlib.util
if importlib.util.find_spec("cxr_fastai") is None:
    %pip install -q cxr_fastai-*.whl""" # each book's first cell of code

def read(file): return nbformat.read(file, as_version=4)

def code(book): return [o for o in book.cells if o.cell_type == "code"]

def tidy(outputs):
    "Without what libraries say of a machine's fonts and versions, and without bars that have gone."
    return [o for o in outputs if o.get("name") != "stderr"
            and o.get("data", {}).get("text/html") not in ("", "<div></div>")]

def shrink(png):
    "With 256 colours, if that is smaller."
    image = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    image.quantize(256, dither=Image.Dither.NONE).save(out := io.BytesIO(), "png", optimize=True)
    return min(png, base64.b64encode(out.getvalue()).decode(), key=len)

SMALLER = { # what a test runs in place of what is printed
    "01_first_run": {"size, bs, epochs = 64, 16, 6": "size, bs, epochs = 32, 16, 1", '"resnet10t"': '"test_resnet"'},
    "02_tune": {"size=64": "size=32", '"resnet10t"': '"test_resnet"', "fine_tune(8,": "fine_tune(1,",
                "num_it=80": "num_it=40"},
    "03_synthesis": {"ngf=16, ndf=16": "ngf=4, ndf=4", "gan.fit_flat_lin(2, 2)": "gan.fit_flat_lin(1, 1)",
                     "size=64": "size=32",
                     '"resnet10t"': '"test_resnet"', "fine_tune(4)": "fine_tune(1)"},
    "04_study": {"epochs=4": "epochs=1", '"resnet10t"': '"test_resnet"'}}

def small(book, name):
    for cell in code(book):
        for printed, less in SMALLER[name].items(): cell.source = cell.source.replace(printed, less)
    return book

def execute(book, km=None, **kwargs):
    nbclient.NotebookClient(book, km, timeout=600, kernel_name="python3", record_timing=False, **kwargs).execute()

def run(file, folder):
    "The notebook, executed in `folder`; an error in a cell is raised."
    execute(book := read(file), resources=dict(metadata=dict(path=str(folder))))
    return without_the_machine(book)

def without_the_machine(book):
    for cell in code(book):
        cell.outputs = tidy(cell.outputs)
        for o in cell.outputs:
            if "image/png" in o.get("data", {}): o.data["image/png"] = shrink(o.data["image/png"])
    book.metadata.pop("language_info") # of this interpreter
    return book

def texts(book):
    "What a book's outputs say, pictures aside."
    for o in (o for cell in code(book) for o in cell.outputs):
        yield from (str(v) for k, v in {**o.get("data", {}), "text": o.get("text", "")}.items() if "image" not in k)

def shown(book):
    "Whether each cell shows pictures, and a result; bars depend on the speed, and on what is decoded already."
    return [(sum("image/png" in o.get("data", {}) for o in cell.outputs), cell.outputs[-1:] and
             cell.outputs[-1].output_type == "execute_result") for cell in code(book)]

@pytest.fixture(scope="module")
def kernel():
    "One for all, as its start and its imports take longer than a notebook in small."
    from jupyter_core.utils import run_sync
    with pytest.MonkeyPatch.context() as patch:
        for k, v in ENV.items(): patch.setenv(k, v)
        km = nbclient.NotebookClient(nbformat.v4.new_notebook()).create_kernel_manager()
        yield km
        if km.has_kernel: run_sync(km.shutdown_kernel)(now=True)

@pytest.mark.parametrize("file", BOOKS, ids=lambda o: o.stem)
def test_a_notebook_runs_shows_what_is_committed_and_writes_to_runs_alone(file, tmp_path, kernel):
    "With a smaller network and fewer epochs than printed; nothing is left of the notebook before."
    printed = "\n".join(o.source for o in code(read(file)))
    assert all(o in printed for o in SMALLER[file.stem])
    clear = nbformat.v4.new_code_cell(f"%reset -f\nimport os\nos.chdir({str(tmp_path)!r})\ndel os")
    execute(nbformat.v4.new_notebook(cells=[clear]), kernel)
    execute(book := small(read(file), file.stem), kernel)
    book = without_the_machine(book)
    assert shown(book) == shown(read(file)), "What it shows isn't what is committed: run this file as a script."
    assert {o.name for o in tmp_path.iterdir()} <= {"runs"}

def test_there_are_four():
    assert [o.stem for o in BOOKS] == ["01_first_run", "02_tune", "03_synthesis", "04_study"]

@pytest.mark.parametrize("file", BOOKS, ids=lambda o: o.stem)
def test_the_committed_outputs_are_whole_small_and_of_no_machine(file):
    book = read(file)
    nbformat.validate(book)
    assert [o.execution_count for o in code(book)] == list(range(1, len(code(book)) + 1))
    assert not any(o.output_type == "error" for cell in code(book) for o in cell.outputs)
    assert not re.findall(PLACES, "\n".join(texts(book)))
    assert file.stat().st_size < 400_000
    assert sum(n for n, _ in shown(book)) >= 1

@pytest.mark.parametrize("file", BOOKS, ids=lambda o: o.stem)
def test_a_notebook_explains_itself_and_needs_one_import(file):
    book = read(file)
    assert code(book)[0].source == INSTALL and BADGE in book.cells[0].source
    source = "\n".join(o.source for o in code(book)[1:])
    assert book.cells[0].source.startswith("# ") and source.startswith("from cxr_fastai.all import *")
    assert source.count("import") == 1 and max(map(len, source.splitlines())) <= 120
    assert "drawn" in book.cells[0].source and sum(o.cell_type == "markdown" for o in book.cells) > len(code(book)) / 2

def test_the_first_cell_installs_only_where_the_package_is_missing(monkeypatch):
    from IPython.core.inputtransformer2 import TransformerManager
    asked, cell = [], TransformerManager().transform_cell(INSTALL)
    shell = SimpleNamespace(run_line_magic=lambda *o: asked.append(o))
    exec(cell, dict(get_ipython=lambda: shell))
    assert not asked
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    exec(cell, dict(get_ipython=lambda: shell))
    assert asked == [("pip", "install -q cxr_fastai-*.whl")]

if __name__ == "__main__":
    os.environ.update(ENV)
    for file in (o for o in BOOKS if not sys.argv[1:] or o.stem in sys.argv[1:]):
        with tempfile.TemporaryDirectory() as folder: nbformat.write(run(file, folder), file)
        print(f"{file.name} {file.stat().st_size:,} bytes", flush=True)
