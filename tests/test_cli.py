import json, os, re, subprocess, sys
import pandas as pd, pytest
import cxr_fastai
from cxr_fastai.cli import VERBS, main
from conftest import ROOT


def run(*words, **env):
    return subprocess.run([sys.executable, "-W", "ignore", "-m", "cxr_fastai.cli", *map(str, words)],
                          capture_output=True, text=True,
                          env=os.environ | dict(PYTHONPATH=str(ROOT)) | env, timeout=200)

def test_the_verbs_are_listed_without_torch():
    done = run("--help")
    assert done.returncode == 0
    assert all(f"\n  {o} " in done.stdout for o in "cohort train gan study report predict explain doctor".split())
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
    places = dict(predict=["bundle", "images"], explain=["bundle", "csv"], report=["folder"],
                  train=["backbone"]).get(verb, [])
    assert all(re.search(rf"^  {o} ", said, re.M) for o in places)

def test_an_unknown_verb_is_answered_with_a_near_one(capsys):
    assert main(["predcit"]) == 2 and "did you mean predict?" in capsys.readouterr().err
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
