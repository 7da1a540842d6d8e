import re
from pathlib import Path
import cxr_fastai
from fastcore.docments import docments
from cxr_fastai.metadata import MetadataTransform
from cxr_fastai.minority import run_gan
from cxr_fastai.study import run_study

ROOT = Path(__file__).parents[1]
README = (ROOT/"README.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.S)

def test_ci_runs_the_readmes_test_command():
    assert [o for kind, o in BLOCKS if kind == "sh"][1].strip() in (ROOT/".ci"/"run").read_text()

def test_the_readmes_python_runs_in_order(tmp_path, monkeypatch):
    "As printed, but for a smaller backbone and fewer steps."
    monkeypatch.chdir(tmp_path)
    (tmp_path/"data").symlink_to(ROOT/"data")
    names = {}
    for code in (o for kind, o in BLOCKS if kind == "python"):
        code = code.replace('"resnet50"', '"test_resnet"').replace('"resnet10t"', '"test_resnet"').replace("fine_tune(4)", "fine_tune(1)").replace("seeds=[0, 1]", "seeds=[0]")
        code = code.replace("lr_find()", "lr_find(num_it=40)")
        exec(code, names)
    assert names["dls"].transform(MetadataTransform).names == ["smoker", "weight"]

def test_every_file_the_readme_names_exists():
    for name in re.findall(r"\]\(([\w/.]+)\)", README) + re.findall(r"recipes/\w+\.py|data/[\w.]+\.md", README):
        assert (ROOT/name).exists(), name

def test_every_flag_in_a_command_is_a_flag():
    takes = dict(cyclegan=run_gan)
    for command in (o for kind, o in BLOCKS if kind == "sh"):
        for name, flags in re.findall(r"recipes/(\w+)\.py(.*)", command):
            known = set(docments(takes.get(name, run_study)))
            assert {o.replace("-", "_") for o in re.findall(r"--([\w-]+)", flags)} <= known

def test_every_module_stands_in_the_readmes_plan():
    for file in (ROOT/"cxr_fastai").glob("[a-z]*.py"): assert f"`{file.stem}`" in README, file.stem

def test_versions_agree():
    assert f"## {cxr_fastai.__version__}" in (ROOT/"CHANGELOG.md").read_text()
