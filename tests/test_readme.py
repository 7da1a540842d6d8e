"The commands and blocks of the README and the manual, run in small, in the order of the pages."
import runpy, shutil
from pathlib import Path
import pandas as pd, pytest
import cxr_fastai
from cxr_fastai.cli import main
from cxr_fastai.cohort.rows import save_rows
from conftest import make_rows, ROOT
from pages import blocks, place, READ

SETUP = [text.strip() for _, text in blocks(READ[0], "sh")][:2] # the README's first two commands
COMMANDS = [o for page in READ for _, text in blocks(page, "sh") for o in text.splitlines() if o not in SETUP]

def test_ci_runs_the_readmes_test_command(): assert SETUP[1] in (ROOT/".ci"/"run").read_text()

def smaller(code):
    "A block of Python with smaller networks and fewer steps."
    for printed, less in {'"resnet50"': '"test_resnet"', '"resnet10t"': '"test_resnet"', "fine_tune(4)": "fine_tune(1)",
                          "seeds=[0, 1]": "seeds=[0]", "lr_find()": "lr_find(num_it=20)",
                          "ngf=16, ndf=16": "ngf=4, ndf=4"}.items(): code = code.replace(printed, less)
    return code

@pytest.mark.slow
def test_every_block_of_python_runs_in_order(tmp_path, monkeypatch, small_gan):
    "All pages are one notebook; a traceback says which page and line."
    monkeypatch.chdir(tmp_path)
    (tmp_path/"data").symlink_to(ROOT/"data")
    names = {}
    for page in READ:
        for line, code in blocks(page, "python"): exec(compile("\n"*line + smaller(code), place(page), "exec"), names)
    assert names["mine"].smoker.eq("unknown").all() and names["again"].card["threshold"] == .4

TINY = "--size 32 --bs 16 --epochs 1 --gan-epochs 1 --weights none --seeds 0 --arms real-meta".split()
SMALL = dict(train=TINY, resnet50=TINY, table1=[*TINY, "--backbones", "test_resnet"],
             doctor=[*TINY, "--backbones", "test_resnet"],
             cyclegan=["--size", "32", "--epochs", "1", "--weights", "none"], plan=["--studies", "9"],
             demo=["--space", "a-space"]) # which ends

def small(command, places):
    "A command as printed, with places that exist, in words; further flags overrule the printed ones."
    for word, there in places.items(): command = command.replace(word, str(there))
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
    "In the order of the pages; those that need a study's folder come last, and take one that was made before them."
    monkeypatch.chdir(tmp_path)
    films = ROOT/"data"/"phantom"
    places = {"path/to/nih": films}
    (tmp_path/"films").mkdir()
    for o in sorted(films.rglob("*.png"))[:3]: shutil.copy(o, tmp_path/"films")
    (tmp_path/"theirs").mkdir()
    theirs = make_rows(tmp_path/"theirs", 12).assign(hospital="A")
    save_rows(theirs.assign(patient_id=theirs.patient_id + 90_000_000), tmp_path/"theirs.csv")
    assert len(COMMANDS) > 12
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

def test_versions_agree():
    assert f"## {cxr_fastai.__version__}" in (ROOT/"CHANGELOG.md").read_text()
    assert f"\nversion: {cxr_fastai.__version__}\n" in (ROOT/"CITATION.cff").read_text()
