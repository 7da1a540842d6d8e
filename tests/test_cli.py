import json, os, re, subprocess, sys
import pandas as pd, pytest
import cxr_fastai
from cxr_fastai.arms import ARMS, FUSIONS, POLICIES, RIVALS
from cxr_fastai.cli import _of_study, main, VERBS
from cxr_fastai.cohort.folder import DATA_FLAGS
from cxr_fastai.core.words import WordError
from cxr_fastai.fit import tracking
from cxr_fastai.settings import EPOCH_RULES, GANS, PRECISIONS, PROTOCOLS, TRACKERS
from conftest import ROOT


def run(*words, **env):
    return subprocess.run([sys.executable, "-W", "ignore", "-m", "cxr_fastai.cli", *map(str, words)],
                          capture_output=True, text=True,
                          env=os.environ | dict(PYTHONPATH=str(ROOT)) | env, timeout=200)

def test_the_verbs_are_listed_without_torch():
    done = run("--help")
    assert done.returncode == 0
    assert all(f"\n  {o} " in done.stdout for o in "cohort train gan study plan report predict explain doctor".split())
    assert run().stdout == done.stdout and run("--version").stdout == f"cxr-fastai {cxr_fastai.__version__}\n"
    heavy = {"torch", "fastai", "pandas"}
    code = f"import sys, cxr_fastai.cli as c; c.main(['--help']); assert not {heavy} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=os.environ | dict(PYTHONPATH=str(ROOT)),
                          capture_output=True).returncode == 0

@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_explains_its_flags(verb, capsys):
    with pytest.raises(SystemExit) as e: main([verb, "--help"])
    said = capsys.readouterr().out
    assert e.value.code == 0 and said.startswith(f"usage: cxr-fastai {verb}") and "--debug" in said
    places = dict(predict=["bundle", "images"], validate=["bundle"], explain=["bundle", "csv"],
                  report=["folder"], rerun=["study"], train=["backbone"]).get(verb, [])
    assert all(re.search(rf"^  {o} ", said, re.M) for o in places)

@pytest.mark.parametrize("verb", VERBS)
def test_help_and_refusals_of_a_verb_load_no_torch(verb):
    "In one new process; the flags that settle a plan or a GAN are settled before it is loaded, too."
    wrong = dict(train="--rivals focl", study="--arms rael", doctor="--protocol papr", gan="--metadata doner",
                 predict="b i --precision fp23").get(verb, "--hellp").split()
    code = f"""import sys, cxr_fastai.cli as c
try: c.main([{verb!r}, "--help"])
except SystemExit: pass
assert c.main([{verb!r}, *{wrong}]) == c.main([{verb!r}, "--hellp"]) == 2
assert not {{"torch", "fastai", "timm", "pandas"}} & set(sys.modules)"""
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | dict(PYTHONPATH=str(ROOT)), text=True,
                          capture_output=True)
    assert done.returncode == 0 and done.stderr.count("did you mean") == 2, done.stderr

def test_help_prints_every_word_of_a_choice(capsys):
    with pytest.raises(SystemExit): main(["study", "--help"])
    said = capsys.readouterr().out
    words = [*ARMS, *RIVALS, *POLICIES, *FUSIONS, *GANS, *PRECISIONS, *TRACKERS, *PROTOCOLS, *EPOCH_RULES]
    assert not [o for o in words if not re.search(rf"(?<![\w-]){o}(?![\w-])", said)]
    assert [o for o in re.findall(r"^(\w+):$", said, re.M)] == "options data model arms synthesis running".split()

def test_trackers_have_the_names_that_are_explained(): assert tuple(tracking.TRACKERS) == TRACKERS

def test_help_of_a_verb_is_asked_for_either_way(capsys):
    for words in ["help", "predict"], ["predict", "--help"]:
        with pytest.raises(SystemExit): main(words)
    said = capsys.readouterr().out
    assert said[:len(said)//2] == said[len(said)//2:]
    assert main(["help", "predcit"]) == 2 and main(["help"]) == 0

@pytest.mark.parametrize("words, near", [
    ("train --arm real", "--arm is no flag of train; did you mean --arms?"), ("study --gan-epoch 3", "--gan-epochs?"),
    ("explain b c --max_figures 3", "--max-figures?"), ("cohort --normal 3", "--normals?"), ("rerun x --out y", "--"),
    ("report x --fold y", "--"), ("gan --track wandbb", "did you mean wandb?"),
    ("cohort --negatives al", "did you mean all?"), ("doctor --size=big", "int value"),
    ("study --config nowhere.toml", "nowhere.toml"), ("rerun nowhere", "settings.json"), ("predict", "must be given"),
    ("train --arms=real --epochs 1 --arms meta", "--arms is given twice"), ("rerun nowhere/x", "no study"),
    ("cohort --followups --no-followups", "--followups is given twice"), ("train --size 0", "size=0 must be 1 or"),
    ("train --epochs -1", "epochs=-1 must"), ("study --bs 0", "bs=0 must"), ("train --lr nan", "lr=nan must be above"),
    ("gan --epochs 0", "epochs=0 must"), ("cohort --out=", "out is empty"), ("train --data=", "data is empty")])
def test_what_is_not_understood_is_one_sentence(words, near, capsys):
    assert main(words.split()) == (1 if "nowhere" in words else 2)
    said = capsys.readouterr().err
    assert said.startswith(f"cxr-fastai {words.split()[0]}: ") and near in said and said.count("\n") == 1

@pytest.mark.parametrize("words", ["train resnt50", "study --backbones resnet50,resnt50", "doctor --backbones Resnt50"])
def test_a_backbone_that_is_not_known_is_refused_before_a_table_is_read(words, capsys):
    assert main([*words.split(), "--data", "nowhere", "--weights", "none"]) == 2
    said = capsys.readouterr()
    assert "did you mean resnet50?" in said.err and said.err.count("\n") == 1 and said.out == ""

TINY = dict(backbones=["test_resnet"], arms=["meta"], seeds=[0, 1], size=32, epochs=1, bs=16, weights="none",
            normals=60)

@pytest.fixture(scope="module")
def study(tmp_path_factory):
    "A small one, of a toml file."
    out = tmp_path_factory.mktemp("é runs")
    (out/"my.toml").write_text("".join(f"{k} = {json.dumps(o)}\n" for k, o in TINY.items()))
    assert main(["study", "--config", str(out/"my.toml"), "--out", str(out), "--epochs", "2"]) == 0
    return next(out.glob("study-*"))

def test_a_study_says_its_flags_and_is_run_again_by_them(study, capsys, monkeypatch, tmp_path):
    out, file = str(study.parent), str(study/"settings.json")
    settings = json.loads((study/"settings.json").read_text())
    assert settings["epochs"] == 2 and settings["cohort"]["normals"] == 60
    assert set(settings["cohort"]) == set(DATA_FLAGS)
    monkeypatch.chdir(tmp_path)
    for words in ["rerun", str(study)], ["study", "--config", file, "--out", out]:
        assert main(words) == 0
        said = capsys.readouterr().out
        assert "0 new cells" in said and f"Everything is in {study}\n" in said
    assert list(study.parent.glob("study-*")) == [study]

def test_flags_of_a_study_fit_the_other_verbs(study, tmp_path, capsys):
    file = str(study/"settings.json")
    assert main(["cohort", "--config", file, "--out", str(tmp_path/"c.csv")]) == 0
    rows = pd.read_csv(tmp_path/"c.csv")
    assert (rows.label == "Normal").sum() == 60 and list(rows.image) == list(pd.read_csv(study/"rows.csv").image)
    settings = json.loads((study/"settings.json").read_text())
    flags = dict(size=32, epochs=None, weights="none", seed=0, normals=60)
    assert _of_study("gan", settings).items() >= flags.items()
    assert _of_study("train", settings).items() >= dict(backbone="test_resnet", epochs=2, seeds=[0, 1]).items()
    two = settings | dict(backbones=["a", "b"], weights_of=dict(a="none", b="b.pth"))
    with pytest.raises(WordError, match="of 2 backbones"): _of_study("train", two)
    assert _of_study("study", two)["backbones"] == ["a", "b=b.pth"]
    assert main(["predict", "b", "i", "--config", file]) == 2 and "none of its settings" in capsys.readouterr().err

@pytest.mark.parametrize("change, why", [
    (dict(epochs="ten"), "epochs is 'ten' and must be a whole number"), (dict(epochz=3), "'epochz' is no flag"),
    (dict(arms=["meto"]), "'meto' is not known"), (dict(cohort=None), "settings.json isn't"),
    (dict(backbones=3), "isn't as a study wrote it"), (dict(cohort=dict(normal=3)), "did you mean normals?")])
def test_a_study_whose_settings_were_edited_wrongly_is_refused(study, tmp_path, capsys, change, why):
    settings = json.loads((study/"settings.json").read_text())
    (tmp_path/"settings.json").write_text(json.dumps(settings | change))
    for words in ["study", "--config", str(tmp_path/"settings.json")], ["rerun", str(tmp_path)]:
        assert main(words) == 2
        said = capsys.readouterr().err
        assert why in said and said.count("\n") == 1

def test_a_study_that_does_not_say_its_data_is_not_run_again(study, tmp_path, capsys):
    settings = json.loads((study/"settings.json").read_text())
    del settings["cohort"]
    (tmp_path/"settings.json").write_text(json.dumps(settings))
    assert main(["rerun", str(tmp_path)]) == 2 and "doesn't say which data" in capsys.readouterr().err

@pytest.mark.slow
def test_no_command_is_opened_by_torchs_own_warning(tmp_path):
    code = "import sys, cxr_fastai.cli as c; c.main(sys.argv[1:])"
    done = subprocess.run([sys.executable, "-c", code, "explain", str(tmp_path/"b"), "c.csv"], capture_output=True,
                          text=True, env=os.environ | dict(PYTHONPATH=str(ROOT)))
    assert done.stderr.startswith("cxr-fastai explain: ") and done.stderr.count("\n") == 1

def test_an_unknown_verb_is_answered_with_a_near_one(capsys):
    assert main(["predcit"]) == 2 and "did you mean predict?" in capsys.readouterr().err
    assert main(["--versoin"]) == 2 and "did you mean --version?" in capsys.readouterr().err
    assert main(["xyz"]) == 2 and "there are cohort, train" in capsys.readouterr().err

def test_what_the_user_can_mend_is_one_sentence(tmp_path, capsys, monkeypatch):
    assert main(["predict", str(tmp_path/"nowhere"), str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("cxr-fastai predict: ") and "is no bundle" in said and said.count("\n") == 1
    with pytest.raises(FileNotFoundError): main(["predict", str(tmp_path/"nowhere"), str(tmp_path), "--debug"])
    monkeypatch.setenv("CXR_FASTAI_DEBUG", "1")
    with pytest.raises(FileNotFoundError): main(["report", str(tmp_path/"nowhere")])

def test_a_cohort_is_written_and_printed(tmp_path, capsys):
    assert main(["cohort", "--normals", "30", "--out", str(tmp_path/"c.csv")]) == 0
    rows = pd.read_csv(tmp_path/"c.csv")
    assert (rows.label == "Normal").sum() == 30 and set(rows.split) == {"train", "valid", "test"}
    assert "drawn for the cohort" in capsys.readouterr().out

def test_ctrl_c_ends_in_one_line(monkeypatch, capsys):
    def stop(): raise KeyboardInterrupt
    monkeypatch.setitem(VERBS, "study", stop)
    assert main(["study"]) == 130 and "stopped; the same command" in capsys.readouterr().err

def test_an_error_of_the_program_keeps_its_traceback(monkeypatch):
    def wrong(): raise ZeroDivisionError
    monkeypatch.setitem(VERBS, "study", wrong)
    with pytest.raises(ZeroDivisionError): main(["study"])

@pytest.mark.slow
def test_the_doctor_speaks_json_and_ends_with_1_where_something_fails(tmp_path, capsys):
    assert main(["doctor", "--json", "--size", "32", "--backbones", "test_resnet", "--weights", "none", "--out",
                 str(tmp_path)]) == 0
    assert {"python", "packages", "device", "data", "weights",
            "memory"} <= {o["check"] for o in json.loads(capsys.readouterr().out)}
    assert main(["doctor", "--size", "32", "--data", str(tmp_path/"nowhere")]) == 1
    assert "FAIL" in capsys.readouterr().out
