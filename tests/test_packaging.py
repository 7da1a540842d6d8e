import os, re, shutil, subprocess, sys, zipfile
from configparser import ConfigParser
import pytest
from conftest import ROOT

PACKAGE = ROOT/"cxr_fastai"

@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    "Built of a source distribution of a copy, without a network: by the setuptools that is here."
    pytest.importorskip("setuptools", "77")
    folder = tmp_path_factory.mktemp("wheel")
    kept = shutil.ignore_patterns(".git", ".venv", "runs", "build", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, folder/"source", ignore=kept)
    code = f"from setuptools.build_meta import build_sdist; print(build_sdist({str(folder)!r}))"
    packed = folder/run([sys.executable, "-c", code], cwd=folder/"source").split()[-1]
    run([sys.executable, *"-m pip wheel --no-deps --no-build-isolation --no-index -q -w".split(), folder, packed])
    return zipfile.ZipFile(next(folder.glob("*.whl")))

def run(command, **kwargs):
    done = subprocess.run(command, capture_output=True, text=True, **kwargs)
    assert done.returncode == 0, done.stderr
    return done.stdout

@pytest.mark.slow
def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    names = {o for o in wheel.namelist() if ".dist-info/" not in o}
    there = [*PACKAGE.rglob("*.py"), *PACKAGE.glob("*/templates/*"), PACKAGE/"py.typed"]
    assert names == {str(o.relative_to(ROOT)) for o in there}

@pytest.mark.slow
def test_the_wheel_has_the_command_and_the_extras(wheel):
    info = {o.split("/")[-1]: wheel.read(o).decode() for o in wheel.namelist() if ".dist-info/" in o}
    assert "cxr-fastai = cxr_fastai.cli:main" in info["entry_points.txt"]
    extras = "dicom quality ray distributed explain onnx tensorboard wandb mlflow notebooks docs xrv labels tune test"
    for o in extras.split():
        assert f"Provides-Extra: {o}\n" in info["METADATA"]

def test_every_extra_that_a_sentence_names_is_there():
    config = ConfigParser()
    config.read(ROOT/"setup.cfg")
    text = "".join(o.read_text() for o in [*PACKAGE.rglob("*.py"), ROOT/"README.md", *ROOT.glob("recipes/manual/*.md")])
    named = set(re.findall(r"cxr_fastai\[(\w+)\]", text))
    assert named and named <= set(config["options.extras_require"])

@pytest.mark.slow
def test_without_any_extra_everything_is_imported():
    "As after a plain install: what only an extra brings is hidden."
    absent = ("accelerate captum onnx onnxruntime onnxscript pydicom imagecodecs ray tensorboard wandb mlflow "
              "torch_fidelity pdoc nbclient torchxrayvision cleanlab optuna").split()
    hidden = f"import sys; sys.modules.update(dict.fromkeys({absent}))"
    run([sys.executable, "-W", "ignore", "-c", f"{hidden}; import cxr_fastai.all, cxr_fastai.cli, cxr_fastai.doctor"],
        env=os.environ | dict(PYTHONPATH=str(ROOT)))
