import runpy, sys
import pandas as pd, pytest
from conftest import ROOT

RECIPES = ROOT/"recipes"
BACKBONES = ["resnet50", "densenet121", "vgg16"]

def recipe(name, *args):
    "Run a recipe as a script, in this process."
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"{name}.py", *map(str, args)])
        return runpy.run_path(str(RECIPES/f"{name}.py"), run_name="__main__")

@pytest.mark.parametrize("name", [*BACKBONES, "table1"])
def test_help_explains_every_flag(name, capsys):
    with pytest.raises(SystemExit): recipe(name, "--help")
    text = capsys.readouterr().out
    flags = """data size epochs bs seeds arms weights out lr precision synthetic gan gan-epochs gan-size metadata rivals
        doses policies fusions protocol epoch-rule workers ray"""
    for flag in flags.split():
        line = text.split(f"--{flag} ")[2] # after the usage line
        assert len(line.split("--")[0].split()) > 4, f"--{flag} is not explained"

def test_recipes_are_thin():
    for file in RECIPES.glob("*.py"):
        if file.stem not in ("bench", "calibrate_study"): assert len(file.read_text().splitlines()) < 40

def test_resnet50_prints_the_papers_tables_and_where_everything_is(tmp_path, capsys, small_gan):
    recipe("resnet50", "--size", 32, "--epochs", 1, "--bs", 16, "--weights", "none", "--normals", 60,
           "--gan-epochs", 1, "--synthetic", 12, "--out", tmp_path)
    out, folder = capsys.readouterr().out, next(tmp_path.glob("study-*"))
    assert out.count("train_loss  valid_loss  accuracy    precision   recall      rocauc") == 4
    assert "Real-Meta to Ensemble" in out and len(list(tmp_path.glob("cyclegan-*/a2b-12-matched/*.png"))) == 12
    assert "\nresnet50" in out and "a gain from Real-Meta to Ensemble" in out
    assert out.rstrip().endswith(f"The report is {folder}/report.html")
    assert (folder/"report.html").stat().st_size > 100_000

@pytest.mark.parametrize("name", BACKBONES[1:])
def test_the_other_backbones_run_their_own_name(name, tmp_path):
    recipe(name, "--arms", "meta", "--epochs", 1, "--bs", 16, "--normals", 60, "--out", tmp_path)
    assert pd.read_csv(next(tmp_path.glob("study-*"))/"table1.csv").Model.tolist() == [name]

def test_table1_is_quiet_and_its_flags_are_run_studys(tmp_path, capsys):
    args = "--backbones test_resnet,resnet10t --seeds 0,1 --arms real,meta --normals 60".split()
    recipe("table1", *args, *"--size 32 --epochs 1 --bs 16 --weights none".split(), "--out", tmp_path)
    out = capsys.readouterr().out
    assert "train_loss" not in out and "\nresnet10t" in out and "The report is" in out
    assert len(list(tmp_path.glob("cells/*/scores.json"))) == 6

def test_calibrate_study_prints_what_was_promised_and_what_is_kept(capsys):
    recipe("calibrate_study", "--sets", 4, "--draws", 20, "--large", "0")
    out = capsys.readouterr().out
    table = out[out.index("| what"):]
    assert table.count("95% interval of") == 6*18 - 5 + 3 and table.count("a false verdict for any of 3 backbones") == 7
    assert "NOT KEPT" in table
    told = "1 seed,|12 + 40 patients|1 to 9 films each|of heavy tails|4 films each|difference of recall_at_90"
    for o in told.split("|"): assert o in table

def test_cyclegan_trains_translates_and_judges(tmp_path, capsys):
    recipe("cyclegan", "--size", 32, "--epochs", 1, "--weights", "none", "--normals", 60, "--out", tmp_path)
    out, folder = capsys.readouterr().out, next(tmp_path.iterdir())
    assert "never saw" in out and "told apart" in out and out.rstrip().endswith(str(folder))
    assert (folder/"fig2.png").exists() and (folder/"grids"/"epoch-0001.png").exists()

def test_lr_find_suggests_rates_and_saves_its_curve(tmp_path, capsys):
    recipe("lr_find", "--arch", "test_resnet", "--size", 32, "--bs", 16, "--weights", "none", "--steps", 40, "--out",
           tmp_path)
    assert "valley" in capsys.readouterr().out and (tmp_path/"lr_find-test_resnet.png").stat().st_size > 5000

@pytest.fixture(scope="module")
def drawn(tmp_path_factory): return tmp_path_factory.mktemp("bench") # the films that each part asks for

def test_bench_prints_a_table(drawn, capsys):
    recipe("bench", "--arch", "test_resnet", "--size", 48, "--bs", 16, "--runs", 1, "--images", 60, "--folder", drawn,
           "--part", "classifiers")
    out = capsys.readouterr().out
    assert "| (a) fit, test_resnet 48 px bs 16" in out and "(c) DataLoaders of 112,120 rows" in out
    assert "(d) peak memory" in out

def test_bench_measures_the_gan(drawn, capsys):
    recipe("bench", "--part", "gan", "--size", 48, "--width", 4, "--films", 12, "--runs", 1, "--images", 60, "--folder",
           drawn)
    out = capsys.readouterr().out
    assert out.count("| (e) CycleGAN step") == 8 and out.count("| (f) ") == 5 and "| (g) synthesis of 12 images" in out
    assert out.count("ngf 4,") == 8
    assert "x faster than fp32" in out and "upsample=resize" in out and "residual=True" in out

def test_bench_sets_generators_side_by_side(drawn, capsys, small_gan, monkeypatch):
    from cxr_fastai.settings import GANS
    monkeypatch.setitem(GANS, "cut", GANS["cut"] | dict(n_blocks=1))
    recipe("bench", "--part", "generators", "--size", 32, "--width", 2, "--films", 8, "--runs", 1, "--steps", 2,
           "--folder", drawn)
    out = capsys.readouterr().out
    assert out.count("| (m) step of") == 4 and out.count("median of 1 pairs") == 2
    assert out.count("| (n) --gan fast, 2 steps") == 3 == out.count("| (n) --gan cut, 2 steps")
    assert out.count("kernel distance") == 6 and "nan" not in out

def test_bench_measures_one_step_for_a_process_of_its_own(drawn, capsys):
    recipe("bench", "--part", "step", "--size", 48, "--width", 4, "--bs", 4, "--images", 60, "--folder", drawn)
    assert 0 < float(capsys.readouterr().out.split()[-1]) < 60

def test_bench_measures_the_study(drawn, capsys):
    recipe("bench", "--part", "study", "--arch", "test_resnet", "--size", 48, "--bs", 8, "--runs", 1, "--images", 60,
           "--cells", 4, "--folder", drawn)
    out = capsys.readouterr().out
    assert "| (h) a cell of test_resnet" in out and "more than its training" in out and "the throughput of one" in out
    assert "| (j) resuming a finished grid of 4 cells" in out
    assert len(list(drawn.glob("grid/cells/*/scores.json"))) == 4
