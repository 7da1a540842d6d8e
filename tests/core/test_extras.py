import sys
import json, pytest
from cxr_fastai.core.extras import install_command, need

def test_what_is_there_is_imported(): assert need("json", extra="any", what="A test") is json

def test_what_is_not_there_is_told_with_its_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "some_package.part", None)
    with pytest.raises(ImportError, match=r"A test needs some-package: pip install 'cxr_fastai\[any\]'$"):
        need("some_package.part", extra="any", what="A test")

def test_several_extras_are_one_command(): assert install_command("a", "b") == "pip install 'cxr_fastai[a,b]'"
