import re, shutil
from pathlib import Path
import pandas as pd, pytest
import cxr_fastai
from cxr_fastai.cohort.rows import save_rows
from conftest import make_rows, ROOT, run_python

README = (ROOT/"README.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.S)

def test_ci_runs_the_readmes_test_command():
    assert [o for kind, o in BLOCKS if kind == "sh"][1].strip() in (ROOT/".ci"/"run").read_text()

@pytest.mark.slow
def test_the_readmes_python_runs_in_order(tmp_path, monkeypatch, small_gan):
    "As printed, but for smaller networks and fewer steps."
    monkeypatch.chdir(tmp_path)
    (tmp_path/"data").symlink_to(ROOT/"data")
    names = {}
    for code in (o for kind, o in BLOCKS if kind == "python"):
        code = code.replace('"resnet50"', '"test_resnet"').replace(
            '"resnet10t"', '"test_resnet"').replace("fine_tune(4)", "fine_tune(1)").replace("seeds=[0, 1]", "seeds=[0]")
        code = code.replace("lr_find()", "lr_find(num_it=20)").replace("ngf=16, ndf=16", "ngf=4, ndf=4")
        exec(code, names)
    assert names["mine"].smoker.eq("unknown").all() and names["again"].card["threshold"] == .4

def test_every_file_the_readme_names_exists():
    for name in re.findall(r"\]\(([\w/.]+)\)", README) + re.findall(r"recipes/\w+\.py|data/[\w.]+\.md", README):
        assert (ROOT/name).exists(), name

COMMANDS = [o for kind, block in BLOCKS if kind == "sh" for o in block.splitlines()][2:] # but the two of the set-up
TINY = "--size 32 --bs 16 --epochs 1 --gan-epochs 1 --weights none --seeds 0 --arms real-meta".split()
SMALL = dict(train=TINY, resnet50=TINY, table1=[*TINY, "--backbones", "test_resnet"],
             doctor=[*TINY, "--backbones", "test_resnet"],
             cyclegan=["--size", "32", "--epochs", "1", "--weights", "none"], plan=["--studies", "9"])

CLI = "from cxr_fastai.cli import main\nsys.exit(main())" # what the console script does

def small(command, places):
    "A command as printed, for `run_python`, with places that exist; further flags overrule the printed ones."
    for word, place in places.items(): command = command.replace(word, str(place))
    program, verb, *rest = command.split()
    words = [CLI, verb] if program.endswith("cxr-fastai") else [ROOT/verb]
    if "resnet10t" in rest: rest[rest.index("resnet10t")] = "test_resnet"
    more = [] if "--help" in rest else SMALL.get(Path(verb).stem, [])
    for o in [o for o in more if o.startswith("--") and o in rest]: del rest[(i := rest.index(o)):i + 2]
    return [*words, *rest, *more]

@pytest.mark.slow
def test_every_command_runs_in_small(tmp_path):
    "In the order of the page; the study that is printed last stands for the one that explanation and prediction need."
    films = ROOT/"data"/"phantom"
    places = {"path/to/nih": films}
    (tmp_path/"films").mkdir()
    for o in sorted(films.rglob("*.png"))[:3]: shutil.copy(o, tmp_path/"films")
    (tmp_path/"theirs").mkdir()
    theirs = make_rows(tmp_path/"theirs", 12).assign(hospital="A")
    save_rows(theirs.assign(patient_id=theirs.patient_id + 90_000_000), tmp_path/"theirs.csv")
    assert len(COMMANDS) > 8
    needs_cells = [o for o in COMMANDS if "runs/" in o]
    for o in [o for o in COMMANDS if o not in needs_cells] + needs_cells:
        if o in needs_cells:
            places |= {
                "runs/cells/resnet50-real-meta-0-1a2b3c4d": next(tmp_path.glob("runs/cells/test_resnet-real-meta-0-*")),
                "runs/study-9c0d1e2f": next(tmp_path.glob("runs/study-*")), "path/to/films": tmp_path/"films",
                "path/to/theirs": tmp_path/"theirs"}
        done = run_python(*small(o, places), cwd=tmp_path)
        assert done.returncode == 0, f"{o}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert len(pd.read_csv(tmp_path/"predictions.csv")) == 3

def test_every_folder_stands_in_the_readmes_plan():
    for o in (ROOT/"cxr_fastai").glob("[a-z]*/__init__.py"): assert f"\n{o.parent.name}/ " in README, o

def test_versions_agree():
    assert f"## {cxr_fastai.__version__}" in (ROOT/"CHANGELOG.md").read_text()
    assert f"\nversion: {cxr_fastai.__version__}\n" in (ROOT/"CITATION.cff").read_text()

def test_the_places_to_contribute_at_exist():
    for place in re.findall(r"`([\w/]+\.py)`", (ROOT/"CONTRIBUTING.md").read_text()):
        assert (ROOT/place).exists() or (ROOT/"cxr_fastai"/place).exists(), place
