"A function as a command: flags from its head, the file of settings below them, and what isn't understood."
import json, os, subprocess, sys, warnings
from importlib import import_module
from inspect import signature
from typing import Annotated
import pytest
from fastcore.docments import docments
from cxr_fastai.core.shell import header_of, parse_flags, read_config, without_warnings
from cxr_fastai.core.words import WordError, Words

def door(
    film:str,              # a place
    seeds:Words="0,1",     # of everything
    bs:int=32,             # 100% of a batch
    lr:float=1e-3,         # steps
    followups:bool=False,  # later visits, too
    gan_size:Annotated[int, "pixels", "synthesis"]=None,
    gan_epochs:int=None,   # of it
): "What it does."

def given(*args, **kwargs): return parse_flags("verb", door, list(args), **kwargs)

HEADS = [("study.run", "run_study"), ("gan.pipeline", "run_gan"), ("doctor", "doctor"),
         ("cohort.folder", "load_cohort"), ("trained.predict", "predict_patients"),
         ("trained.explain", "explain_bundle")]

@pytest.mark.parametrize("module, name", HEADS)
def test_a_header_is_the_function_but_for_what_it_does(module, name):
    head, whole = header_of(module, name), getattr(import_module(f"cxr_fastai.{module}"), name)
    assert str(signature(head)).split(" -> ")[0] == str(signature(whole)).split(" -> ")[0]
    assert docments(head, returns=False) == docments(whole, returns=False) and docments(head, returns=False)

def test_what_is_not_given_is_left_to_the_function():
    assert given("x.png") == dict(film="x.png")
    assert given("x.png", "--bs", "4", "--followups") == dict(film="x.png", bs=4, followups=True)
    assert given("--no-followups", "--seeds=3", "x.png") == dict(film="x.png", followups=False, seeds="3")

@pytest.mark.parametrize("args, why", [
    (["x", "--seed", "3"], r"^--seed is no flag of verb; did you mean --seeds\?$"),
    (["x", "--gan", "3"], r"^--gan is no flag of verb; did you mean --gan-size or --gan-epochs\?$"),
    (["x", "--gan_size", "3"], r"did you mean --gan-size\?"), (["x", "--BS=3"], r"^--BS is .*did you mean --bs\?"),
    (["x", "-seeds", "3"], r"did you mean --seeds\?"), (["x", "--zzz"], "verb --help lists them"),
    (["--seed", "x"], r"did you mean --seeds\?"), (["x", "--no-followup"], r"did you mean --no-followups\?"),
    (["x", "--bs", "big"], "--bs: invalid int value: 'big'"), (["x", "--bs"], "--bs: expected one argument"),
    (["x", "y"], "unrecognized arguments: y"), ([], "^film must be given: cxr-fastai verb film$")])
def test_what_is_not_understood_gets_one_sentence(args, why):
    with pytest.raises(WordError, match=why): given(*args)

def test_help_has_headings_every_default_and_fits(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "50")
    with pytest.raises(SystemExit) as e: given("--help")
    said = capsys.readouterr().out
    assert e.value.code == 0 and max(map(len, said.splitlines())) <= 50
    assert said.index("\nsynthesis:") < said.index("--gan-size") < said.index("\nrunning:") < said.index("--bs N")
    assert "100% of a batch" in said and "(default: 0.001)" in said and "default: None" not in said

def write(folder, text, name="c.toml"):
    (folder/name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(folder/name)

def test_flags_stand_over_a_file(tmp_path):
    file = write(tmp_path, "seeds = [0, 1]\r\nbs = 8\r\ngan-size = 64\r\nlr = 1\r\nfilm = 'é.png'\r\n")
    assert given("--config", file) == dict(film="é.png", seeds="0,1", bs=8, gan_size=64, lr=1.)
    assert given("--config", file, "--bs", "4", "y.png")["film"] == "y.png"
    assert given("--config", file, "--bs", "4")["bs"] == 4
    off = write(tmp_path, "followups = true", "d.toml")
    assert given("x", "--config", off)["followups"] and not given("x", "--config", off, "--no-followups")["followups"]

def test_a_file_may_be_json_begin_with_a_mark_or_hold_nothing(tmp_path):
    assert given("x", "--config", write(tmp_path, json.dumps(dict(bs=8, lr=None)), "c.JSON")) == dict(film="x", bs=8)
    assert given("x", "--config", write(tmp_path, b"\xef\xbb\xbfbs = 8")) == dict(film="x", bs=8)
    assert given("x", "--config", write(tmp_path, "")) == dict(film="x")

@pytest.mark.parametrize("text, why", [
    ("epoch = 3", "'epoch' is no flag of verb; "), ("gan_sise = 3", r"did you mean gan_size\?"),
    ("bs = 'big'", "bs is 'big' and must be a whole number"), ("bs = true", "bs is True and must be a whole"),
    ("bs = 8.5", "must be a whole number"), ("lr = '1e-3'", "lr is '1e-3' and must be a number"),
    ("film = 3", "film is 3 and must be text"), ("film = ['a']", "must be text"), ("film = 1979-05-27", "must be text"),
    ("followups = 1", "followups is 1 and must be true or false"), ("followups = 'yes'", "must be true or false"),
    ("seeds = [[1]]", "seeds is .* and must be words, as a list"), ("seeds = true", "must be words"),
    ("[bs]\nx = 1", "bs is a table"), ("[model]\nbs = 1", "'model' is no flag"), ("bs = ", "can't be read: "),
    ("bs = 1\nbs = 2", "can't be read: "), ("gan-size = 1\ngan_size = 2", "has gan_size twice"),
    (b"\xff\xfe\x00", "can't be read: "), ("config = 'x'", "'config' is no flag"),
    ('weights_of = "x"', "is a study's, and verb takes none")])
def test_a_wrong_file_gets_one_sentence_with_its_key(tmp_path, text, why):
    file = write(tmp_path, text)
    with pytest.raises(WordError, match=why) as e: given("x", "--config", file)
    assert str(e.value).startswith(file)

@pytest.mark.parametrize("text", ["[1]", "{", "", "3", "[" * 100_000])
def test_json_that_is_no_table_gets_one(tmp_path, text):
    with pytest.raises(WordError, match="c.json"): given("x", "--config", write(tmp_path, text, "c.json"))

def test_a_study_that_does_not_fit_gets_one(tmp_path):
    file = write(tmp_path, '{"weights_of": 3}', "settings.json")
    with pytest.raises(WordError, match="settings.json"):
        read_config(file, dict(bs=int), "verb", lambda o: o["weights_of"].items())

def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.toml"): given("x", "--config", str(tmp_path/"nowhere.toml"))

def test_a_warning_is_kept_from_this_process_and_those_it_starts_unless_asked_for():
    code = "import warnings; warnings.warn('`a` is old', FutureWarning); warnings.warn('b', FutureWarning)"
    before = os.environ.get("PYTHONWARNINGS")
    with warnings.catch_warnings(record=True) as seen:
        warnings.resetwarnings()
        with without_warnings("`a` is old"):
            exec(code)
            child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr
    assert [str(o.message) for o in seen] == ["b"] and "FutureWarning: b" in child and "is old" not in child
    assert os.environ.get("PYTHONWARNINGS") == before
    with warnings.catch_warnings(), pytest.raises(FutureWarning):
        warnings.simplefilter("error")
        with without_warnings("`a` is old"): exec(code)
