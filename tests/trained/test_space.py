import ast
import huggingface_hub as hub, pytest
from cxr_fastai.core import installed
from cxr_fastai.trained.bundle import BundleError, read_card, save_bundle
from cxr_fastai.trained.space import write_space

pytest.importorskip("gradio")

@pytest.fixture
def bundle(tiny_learner, tmp_path): return save_bundle(tiny_learner("metadata"), tmp_path/"b", licence="CC0")

@pytest.fixture(autouse=True)
def needed(monkeypatch): # whatever the environment was installed from
    monkeypatch.setattr(installed, "requires", lambda _: [
        "torch>=2", "pandas>=2", "gradio>=6; extra == 'demo'", "ray>=2; extra == 'ray'",
        "tomli>=2; python_version < '3.10'"])

def test_a_space_holds_all_that_it_runs(bundle, tmp_path):
    folder = write_space(bundle, tmp_path/"space")
    assert {o.name for o in folder.iterdir()} == {"app.py", "requirements.txt", "README.md", "bundle", "cxr_fastai"}
    data = hub.SpaceCard.load(folder/"README.md").data
    assert data.sdk == "gradio" and data.app_file == "app.py" and hub.metadata_load(folder/"README.md")
    lines = (folder/"requirements.txt").read_text().splitlines()
    assert [o.split("==")[0] for o in lines] == ["gradio", "pandas", "torch"] and f"gradio=={data.sdk_version}" in lines
    assert not any("+" in o for o in lines)
    assert read_card(folder/"bundle") == read_card(bundle)
    assert "Not a medical device" in (folder/"README.md").read_text()
    assert (folder/"cxr_fastai"/"trained"/"templates"/"patient.html.j2").exists()
    assert not list(folder.rglob("__pycache__")) and not list(tmp_path.glob(".*unfinished*"))
    calls = [o for o in ast.walk(ast.parse((folder/"app.py").read_text())) if isinstance(o, ast.Call)]
    assert [ast.literal_eval(o.args[0]) for o in calls] == ["bundle"]

def test_what_is_there_is_not_overwritten(bundle, tmp_path):
    (tmp_path/"full").mkdir()
    (tmp_path/"full"/".mine").write_text("mine")
    for o in ("full", "full/.mine"):
        with pytest.raises(FileExistsError, match="name a new one"): write_space(bundle, tmp_path/o)
    assert (tmp_path/"full"/".mine").read_text() == "mine"
    (tmp_path/"empty").mkdir()
    assert (write_space(bundle, tmp_path/"empty")/"app.py").exists()

def test_a_broken_bundle_or_an_absent_package_leaves_nothing(bundle, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(installed, "requires", lambda _: ["no-such-package>=1; extra == 'demo'"])
        with pytest.raises(ImportError, match="no-such-package isn't installed"): write_space(bundle, tmp_path/"space")
        patch.setattr(installed, "requires", lambda _: ["torch>=2"])
        with pytest.raises(ImportError, match="as before it had 'demo'"): write_space(bundle, tmp_path/"space")
    (bundle/"model.safetensors").write_bytes(b"x"*100)
    with pytest.raises(BundleError): write_space(bundle, tmp_path/"space")
    assert {o.name for o in tmp_path.iterdir()} == {"b"}
