import multiprocessing, os, signal, tempfile
from functools import cache
from pathlib import Path
os.environ.setdefault("OMP_NUM_THREADS", "1") # nets this small only wait for a second thread; subprocesses inherit it
import matplotlib
matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np, pandas as pd, pytest, torch
from PIL import Image
from browser import chromium as open_chromium
from cxr_fastai.cohort.sampling import split_patients

ROOT = Path(__file__).parents[1]
SIDE = 48
SHARED = Path(os.environ.get("CXR_FASTAI_SHARED")
              or Path(__file__).parents[2]/"shared"/"data") # real films, beside the checkout
needs_nih = pytest.mark.skipif(not (SHARED/"nih_sample").exists(), reason="needs the NIH sample")

def draw(label, rng):
    "A smooth random field, no two alike, with a bright blob low down where `label` is 1."
    coarse = Image.fromarray(rng.integers(40, 170, (10, 10), dtype=np.uint8))
    image = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC)).astype(float)
    y, x = np.mgrid[:SIDE, :SIDE]
    cy, cx, r = rng.uniform(28, 38), rng.uniform(10, 38), rng.uniform(5, 7)
    image += label * 110 * np.exp(-((y - cy)**2 + (x - cx)**2) / (2*r*r))
    return image.clip(0, 255).astype(np.uint8)

def make_rows(folder, n_patients=64, seed=0):
    "Images on disk and their table: a third positive, some patients with two films, age and view a little informative."
    rng, rows = np.random.default_rng(seed), []
    for patient in range(n_patients):
        label = int(patient % 3 == 0)
        age, sex = rng.normal(48 + 8*label, 12), rng.choice(["F", "M"])
        for k in range(1 + patient % 4 // 3):
            name = f"pat{patient:03}_{k}.png"
            Image.fromarray(draw(label, rng)).save(folder/name)
            rows.append(dict(image=name, patient_id=7_000_000 + patient, age=round(age) + k, sex=sex, label=label,
                             view=rng.choice(["AP", "PA"], p=[.3 + .3*label, .7 - .3*label]), file=str(folder/name)))
    rows = pd.DataFrame(rows)
    rows.loc[rng.choice(len(rows), 6, replace=False), "age"] = np.nan
    return rows.assign(label=pd.Categorical.from_codes(rows["label"], ["Normal", "Pneumonia"], ordered=True))

SLOW = """test_readme test_notebooks test_recipes study/test_grid trained/test_onnx study/test_run gan/test_pipeline
fit/test_distributed fit/test_tracking gan/test_cyclegan report/test_page gan/test_quality gan/test_features
study/test_external study/test_films study/test_judged core/test_workers study/test_cell trained/test_explain
fit/test_checkpoint""".split() # files, the longest first
QUICK = "test_readme", "core/test_workers" # of these, single tests are slow

def pytest_collection_modifyitems(items):
    "Slow tests are marked so, and come first: no worker is then left alone with one at the end."
    file = lambda item: str(item.path.relative_to(ROOT/"tests").with_suffix(""))
    for o in items:
        if file(o) in SLOW and file(o) not in QUICK: o.add_marker("slow")
    place = {o: i for i, o in enumerate(SLOW)}
    items.sort(key=lambda o: place.get(file(o), len(SLOW)))

SMALL_GAN = "from cxr_fastai.settings import GANS; GANS['fast'] |= dict(ngf=4, ndf=4, n_blocks=1)\n" # for a new process

@pytest.fixture(scope="module")
def small_gan():
    "`gan='fast'` is of one thin block, where a CycleGAN only has to be there."
    from cxr_fastai.settings import GANS
    before = dict(GANS["fast"])
    exec(SMALL_GAN)
    yield
    GANS["fast"] = before

BEGIN = """
import os, runpy, sys, warnings
os.chdir(FOLDER)
os.environ.clear()
os.environ.update(ENV)
for i in 1, 2: os.dup2(os.open(f"{OUT}/{i}", os.O_CREAT | os.O_WRONLY | os.O_APPEND), i)
warnings.simplefilter("ignore")
sys.argv = ["-c", *ARGS]
"""

class Process:
    "What `start_python` gives, as of `subprocess.Popen`."
    def __init__(self, process, out): self.process, self.out, self.pid = process, out, process.pid
    @property
    def returncode(self): return self.process.exitcode
    def poll(self): return self.returncode
    def send_signal(self, sign): os.kill(self.pid, sign)
    def kill(self): self.send_signal(signal.SIGKILL)
    def wait(self, timeout=None):
        self.process.join(timeout)
        return self.returncode
    def said(self, i): return (Path(self.out.name)/str(i)).read_text()
    @property
    def stdout(self): return self.said(1)
    @property
    def stderr(self): return self.said(2)
    def communicate(self, timeout=None):
        self.wait(timeout)
        return self.stdout, self.stderr

def start_python(code, *args, cwd=None, env=()):
    """As `python -W ignore -c code args`, for a Path `python file args`, in a new process that has imported the package
    already, which else takes seconds: it is forked from one that did this and nothing else."""
    if isinstance(code, Path):
        args, code = (code, *args), "sys.argv.pop(0)\nrunpy.run_path(sys.argv[0], run_name='__main__')"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["cxr_fastai.all"])
    out, env = tempfile.TemporaryDirectory(), os.environ | dict(env)
    about = dict(__name__="__main__", FOLDER=str(cwd or os.getcwd()), ENV=env, OUT=out.name,
                 ARGS=[str(o) for o in args])
    process = context.Process(target=exec, args=(BEGIN + code, about))
    process.start()
    return Process(process, out)

def run_python(*args, timeout=300, **kwargs):
    "As `start_python`, when it has ended; it is killed after `timeout` seconds."
    process = start_python(*args, **kwargs)
    if process.wait(timeout) is None: process.kill()
    process.wait()
    return process

@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    "Each device that is here; bits are asserted on a CPU alone."
    if request.param == "cuda" and not torch.cuda.is_available(): pytest.skip("needs an NVIDIA GPU")
    return request.param

def look(x):
    "Brightness and roughness on a grid of 8x8: 128 features that see both contrast and blur."
    x = x.float()
    rough = torch.nn.functional.pad((x[..., 1:] - x[..., :-1]).abs(), (0, 1))
    return torch.nn.functional.adaptive_avg_pool2d(torch.cat([x, 4*rough], 1), 8).flatten(1)

LOOK = dict(features=look, size=48)

def ordinary_predictions():
    "Two arms of three seeds: ties, patients with two films. What version 0.2.0 made of them is frozen in tests."
    rng, parts = np.random.default_rng(7), []
    for side, n in ("valid", 60), ("test", 120):
        label, hard = (rng.random(n) < .35).astype(int), rng.normal(size=n)
        about = pd.DataFrame(dict(backbone="net", side=side, image=[f"{side}{i:03}.png" for i in range(n)],
                                  patient_id=np.arange(n)*3//4,
                                  label=label, synthetic=False))
        for k, arm in enumerate(("real", "real-synth")):
            for seed in range(3):
                prob = (1/(1 + np.exp(-((1 + .4*k)*label + hard + .7*rng.normal(size=n) - 1)))).round(3)
                parts.append(about.assign(arm=arm, seed=seed, probability=prob))
    return pd.concat(parts, ignore_index=True)

def folded_predictions(n=150, k=5, repeats=1, seeds=2, level=0., gap=.8, seed=0):
    "Predictions of two arms: every film is in test once a repeat, by a model that is `level` apart from its neighbour."
    rng, parts = np.random.default_rng(seed), []
    label, hard = np.arange(n) % 3 == 0, rng.normal(size=n)
    for f in range(k*repeats):
        fold = np.random.default_rng(f // k).permutation(n) % k
        for side, at in ("test", fold == f % k), ("valid", fold == (f + 1) % k):
            about = pd.DataFrame(dict(backbone="net", side=side, fold=f, image=[f"{i}.png" for i in np.flatnonzero(at)],
                                      patient_id=np.flatnonzero(at), label=label[at].astype(int), synthetic=False))
            for a, arm in enumerate(("real-meta", "real-synth-meta")):
                for s in range(seeds):
                    z = (1 + gap*a)*label[at] + hard[at] + .5*rng.normal(size=at.sum()) - .6 + level*(f - k//2)
                    parts.append(about.assign(arm=arm, seed=s, probability=1/(1 + np.exp(-z))))
    return pd.concat(parts, ignore_index=True)

@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory):
    "No test decodes into the user's own cache."
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("CXR_FASTAI_CACHE", str(folder))
        yield folder

@pytest.fixture(scope="module") # a second one in a process needs the first to have ended
def chromium():
    with open_chromium() as browser: yield browser

@pytest.fixture
def browser(chromium):
    "As `browser.Browser` says; its tabs are closed after each test."
    yield chromium
    chromium.close()

@pytest.fixture
def unasked(monkeypatch):
    "Nobody asks for plain lines, as whoever runs these tests may."
    for o in "CI", "NO_COLOR", "TERM": monkeypatch.delenv(o, raising=False)

@pytest.fixture(autouse=True)
def no_figures_left():
    "Figures that a test leaves open are not the next one's."
    yield
    plt.close("all")

@pytest.fixture
def broken_resnet10t(monkeypatch):
    "A backbone whose cells fail."
    from cxr_fastai.study import cell
    make = cell.LEARNERS["image"]
    def image_learner(dls, arch, **kwargs):
        if arch == "resnet10t": raise RuntimeError("resnet10t fails here")
        return make(dls, arch, **kwargs)
    monkeypatch.setitem(cell.LEARNERS, "image", image_learner)

@pytest.fixture(scope="session")
def rows(tmp_path_factory):
    "80 small drawn images of 64 patients, split by patient; about 45 train, 11 valid, 24 test. Not to be changed."
    return split_patients(make_rows(tmp_path_factory.mktemp("images")), seed=0)

@pytest.fixture(scope="session")
def tiny_dls(rows, tmp_path_factory):
    "`tiny_dls(use)`: DataLoaders of `rows`, made once. Not to be changed."
    from cxr_fastai.data.loaders import RadiographDataLoaders
    folder = tmp_path_factory.mktemp("tiny")
    return cache(lambda use="both": RadiographDataLoaders.from_df(rows, folder, size=SIDE, bs=8, use=use))

@pytest.fixture(scope="session")
def tiny_learner(tiny_dls):
    "`tiny_learner(use)`: an untrained learner of 'image', 'metadata' or 'both', made once. Not to be trained."
    from cxr_fastai.models import learner
    small = dict(arch="test_resnet", weights="none", precision="fp32")
    make = dict(image=learner.image_learner, both=learner.fusion_learner, metadata=learner.metadata_learner)
    return cache(lambda use="both": make[use](tiny_dls(use), **({} if use == "metadata" else small)))
