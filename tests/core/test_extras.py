import sys
import json, pytest
from cxr_fastai.core.extras import folder_of, install_command, need

def test_what_is_there_is_imported(): assert need("json", extra="any", what="A test") is json

def test_what_is_not_there_is_told_with_its_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "some_package.part", None)
    with pytest.raises(ImportError, match=r"A test needs some-package: pip install 'cxr_fastai\[any\]'$"):
        need("some_package.part", extra="any", what="A test")

def test_several_extras_are_one_command(): assert install_command("a", "b") == "pip install 'cxr_fastai[a,b]'"

def test_a_package_is_found_and_not_imported(tmp_path, monkeypatch):
    (tmp_path/"some_package").mkdir()
    (tmp_path/"some_package"/"__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert folder_of("some_package", extra="any", what="A test") == tmp_path/"some_package"
    for absent in "no_package", "colorsys": # which is no folder
        with pytest.raises(ImportError, match="A test needs .*any"): folder_of(absent, extra="any", what="A test")
