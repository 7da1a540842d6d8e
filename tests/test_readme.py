import re, runpy, shutil
from pathlib import Path
import pandas as pd, pytest
import cxr_fastai
from cxr_fastai.cli import main
from cxr_fastai.cohort.rows import save_rows
from conftest import make_rows, ROOT

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

def small(command, places):
    "A command as printed, with places that exist, in words; further flags overrule the printed ones."
    for word, place in places.items(): command = command.replace(word, str(place))
    program, verb, *rest = command.split()
    if "resnet10t" in rest: rest[rest.index("resnet10t")] = "test_resnet"
    more = [] if "--help" in rest else SMALL.get(Path(verb).stem, [])
    for o in [o for o in more if o.startswith("--") and o in rest]: del rest[(i := rest.index(o)):i + 2]
    return program, verb, *rest, *more

def run(program, verb, *rest):
    "In this process: the verb, or the recipe as a script; gives what the process would end with."
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", [verb, *rest])
        try:
            if program.endswith("cxr-fastai"): return main([verb, *rest])
            runpy.run_path(str(ROOT/verb), run_name="__main__")
        except SystemExit as e: return e.code

@pytest.mark.slow
def test_every_command_runs_in_small(tmp_path, monkeypatch, capsys, small_gan):
    "In the order of the page; the study that is printed last stands for the one that explanation and prediction need."
    monkeypatch.chdir(tmp_path)
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
        code, said = run(*small(o, places)), capsys.readouterr()
        assert not code, f"{o}\n{said.out[-2000:]}\n{said.err[-2000:]}"
    assert len(pd.read_csv(tmp_path/"predictions.csv")) == 3

def test_every_folder_stands_in_the_readmes_plan():
    for o in (ROOT/"cxr_fastai").glob("[a-z]*/__init__.py"): assert f"\n{o.parent.name}/ " in README, o

def test_versions_agree():
    assert f"## {cxr_fastai.__version__}" in (ROOT/"CHANGELOG.md").read_text()
    assert f"\nversion: {cxr_fastai.__version__}\n" in (ROOT/"CITATION.cff").read_text()

def test_the_places_to_contribute_at_exist():
    for place in re.findall(r"`([\w/]+\.py)`", (ROOT/"CONTRIBUTING.md").read_text()):
        assert (ROOT/place).exists() or (ROOT/"cxr_fastai"/place).exists(), place
