import re, shutil, tempfile, threading
from pathlib import Path
import numpy as np, pandas as pd, pytest
from PIL import Image
from cxr_fastai.trained import demo as room
from cxr_fastai.trained.bundle import load_bundle, save_bundle
from cxr_fastai.trained.demo import Desk, serve_demo, served
from cxr_fastai.trained.predict import predict_patients
from films import dicom, png_header

pytest.importorskip("captum")
pytest.importorskip("gradio")
httpx, browser = pytest.importorskip("httpx"), shutil.which("chromium")

@pytest.fixture(scope="module")
def bundle(tiny_learner, tmp_path_factory):
    return save_bundle(tiny_learner("both"), tmp_path_factory.mktemp("bundle")/"b", threshold=.4)

@pytest.fixture(scope="module")
def desk(bundle): return Desk(load_bundle(bundle, "cpu"))

def text(html): return " ".join(re.sub(r"<style>.*?</style>|<[^>]*>", " ", html, flags=re.S).split())

def predicted(bundle, folder, **row):
    "What `predict` says of one row."
    pd.DataFrame([row]).to_csv(folder/"one.csv", index=False)
    return pd.read_csv(predict_patients(bundle, folder/"one.csv", folder/f"{Path(row['file']).stem}.csv")).iloc[0]

def test_one_film_is_answered_as_predict_answers(bundle, desk, rows, tmp_path):
    known = predicted(bundle, tmp_path, file=rows.file[0], age=99, sex="F")
    html = desk([rows.file[0]], "F", "", 99)
    assert f"Probability of Pneumonia: {known.probability:.3f} , called {known.decision}" in text(html)
    assert known.flag.split(";")[0].replace("'", "&#39;") in html and "age 99 is outside of" in known.flag
    assert html.count("<img") == 2 and "sex F" in html and "view" not in text(html)

def test_several_films_are_a_table_and_a_bad_one_is_a_line(bundle, desk, rows, tmp_path):
    (tmp_path/"bad.png").write_text("text")
    html = desk([*rows.file[:3], tmp_path/"bad.png"], "M", None, None)
    for file in rows.file[:3]:
        known = predicted(bundle, tmp_path, file=file, sex="M")
        said = f"{known.probability:.3f} {known.decision} sex M, view missing, age missing"
        assert f"{Path(file).name} {said}" in text(html)
    assert "bad.png bad.png is no PNG, JPEG, TIFF or DICOM image" in text(html) and str(tmp_path) not in html

def test_odd_files_are_a_film_or_a_sentence(desk, tmp_path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 2**16, (60, 60)).astype(np.uint16)).save(tmp_path/"deep.png")
    Image.fromarray(rng.integers(0, 255, (60, 60, 4)).astype(np.uint8)).save(tmp_path/"rgba.png")
    (tmp_path/"text.png").write_text("<b>no film</b>")
    (tmp_path/"empty.png").write_bytes(b"")
    png_header(tmp_path/"bomb.png", 60_000, 60_000)
    dicom(tmp_path/"frames.dcm", np.zeros((60, 60), np.uint16), NumberOfFrames=2)
    (tmp_path/"a<b>.png").write_text("no film")
    said = {o.name: desk([o], None, None, None) for o in tmp_path.iterdir()}
    for o in ("deep.png", "rgba.png"): assert "Probability of" in said.pop(o)
    for name, why in {"text.png": "is no PNG", "empty.png": "is empty (0 bytes)", "frames.dcm": "has 2 frames",
                      "bomb.png": "claims more than the 100 million pixels", "a<b>.png": "is no PNG"}.items():
        assert 'role="alert"' in said[name] and why in said[name] and str(tmp_path) not in said[name]
    assert "a&lt;b&gt;.png" in said["a<b>.png"]

def test_a_dicom_header_fills_in_what_is_not_known(desk, tmp_path):
    x = np.random.default_rng(0).integers(0, 4096, (60, 60)).astype(np.uint16)
    file = dicom(tmp_path/"a.dcm", x, PatientAge="061Y", PatientSex="F", Modality="CT")
    said = text(desk([file], "M", None, None))
    assert "sex M" in said and "age 61" in said and "modality CT: no radiograph" in said

def test_without_a_film_and_with_too_many(desk):
    for o in ([], None): assert "Choose a film first" in desk(o, None, None, None)
    assert "51 films, and 50 fit" in desk(["x.png"]*51, None, None, None)
    assert "kept for 10 minutes, and gone.png is gone: choose it again" in desk(["/gone.png"], None, None, None)

def test_a_model_of_metadata_alone_needs_no_film(tiny_learner, tmp_path):
    learn = load_bundle(save_bundle(tiny_learner("metadata"), tmp_path/"b"), "cpu")
    html = Desk(learn)(None, "F", "AP", 50)
    assert f"Probability of Pneumonia: {learn.predict(age=50, sex='F', view='AP')[2][1]:.3f}" in text(html)
    assert "<img" not in html and "all metadata" in html

@pytest.mark.parametrize("wrong, match", [
    (dict(port=0), "port is 0"), (dict(port=70_000), "port is 70000"), (dict(max_mb=0), "max_mb is 0"),
    (dict(host="no.such.host.invalid"), "No page can be served at no.such.host.invalid"),
    (dict(host="a"*70), "No page can be served at aaa")])
def test_a_place_that_is_none_is_one_sentence(desk, wrong, match):
    with pytest.raises((OSError, ValueError), match=match):
        with served(desk.learn, **wrong): pass

def fields(page): return {o["props"].get("label"): o["props"] for o in page.config["components"]}

def test_fields_are_the_bundles_own_words_and_no_name_is_markdown(desk, monkeypatch):
    monkeypatch.setitem(desk.learn.card["metadata"]["stats"], "view", ["AP", "<b>"])
    page = room.demo_page(desk.learn)
    known = fields(page)
    assert known["sex"]["choices"] == [("not known", ""), ("F", "F"), ("M", "M")]
    assert ("<b>", "<b>") in known["view"]["choices"] and known["Films"]["visible"]
    assert any(o and o.startswith("age, ") and o.endswith("in training") for o in known)
    assert page.config["analytics_enabled"] is False
    monkeypatch.setitem(desk.learn.card, "classes", ["[a](http://b)", "<img src=x>"])
    parts = room.demo_page(desk.learn).config["components"]
    texts = [o["props"].get("value") for o in parts if o["type"] == "markdown"]
    assert "Not a medical device" in texts[0] and "<img" not in texts[0] and "](http" not in texts[0]

@pytest.fixture(scope="module")
def tab():
    "A browser's tab."
    play = pytest.importorskip("playwright.sync_api")
    if not browser: pytest.skip("needs chromium")
    with play.sync_playwright() as p:
        chromium = p.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        tab = chromium.new_page()
        tab.set_default_timeout(30_000)
        yield tab
        chromium.close()

@pytest.mark.slow
def test_in_a_browser(tab, bundle, desk, rows, tmp_path, monkeypatch):
    (tmp_path/"bad.png").write_text("no film")
    (tmp_path/"large.png").write_bytes(b"\x89PNG" + bytes(2**20))
    (kept := tmp_path/"kept").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(kept))
    asked, films = [], tab.locator("input[type=file]")
    tab.on("request", lambda o: asked.append(o.url))
    ask = tab.get_by_role("button", name="Ask the model")

    def choose(*files):
        if (clear := tab.get_by_label("Clear")).count(): clear.first.click()
        films.set_input_files(files)
        for o in files: tab.get_by_text(Path(o).stem).first.wait_for()

    with served(desk.learn, max_mb=1) as address:
        assert address.startswith("http://127.0.0.1:")
        tab.goto(address)
        ask.wait_for()
        assert tab.get_by_text("Not a medical device.").first.is_visible()
        ask.click()
        tab.get_by_role("alert").get_by_text("Choose a film first").wait_for()

        choose(rows.file[0])
        ask.click()
        tab.locator(".probability").wait_for()
        assert tab.locator(".cxr-one tr").count() == 2 # what isn't filled in is missing
        tab.get_by_label("sex").click()
        tab.get_by_role("option", name="F").click()
        tab.get_by_label("age").fill("61")
        ask.click()
        known = predicted(bundle, tmp_path, file=rows.file[0], age=61, sex="F")
        tab.get_by_text("age 61").wait_for()
        assert tab.locator(".probability").inner_text() == f"{known.probability:.3f}"
        assert tab.locator(".decision").inner_text() == known.decision
        assert tab.locator(".cxr-one img").count() == 2 and tab.locator(".cxr-one tr").count() == 4

        choose(tmp_path/"bad.png")
        ask.click()
        tab.get_by_role("alert").get_by_text("bad.png is no PNG, JPEG, TIFF or DICOM image").wait_for()
        choose(*rows.file[:2])
        ask.click()
        tab.locator(".cxr-many td.probability").nth(1).wait_for()
        assert list(kept.rglob("*.png")) # uploads, while the page is there
        tab.get_by_label("Clear").first.click()
        films.set_input_files(tmp_path/"large.png")
        tab.get_by_text("exceed the maximum allowed size").first.wait_for()
        with open(tmp_path/"large.png", "rb") as f: # whoever goes round the page
            assert httpx.post(f"{address}gradio_api/upload", files=dict(files=f), trust_env=False).status_code == 413
    assert not list(kept.iterdir())
    assert all(o.startswith((address, "data:", "blob:")) for o in asked)

def test_it_is_served_until_it_is_stopped_and_says_who_may_use_it(bundle, monkeypatch, capsys):
    def stop(self, timeout=None): raise KeyboardInterrupt
    folders, page = [], type("Page", (), dict(close=lambda self, verbose: None,
        launch=lambda self, **kwargs: (None, f"http://{kwargs['server_name']}:1/", folders.append(kwargs))))
    monkeypatch.setattr(room, "demo_page", lambda learn: page())
    monkeypatch.setattr(threading.Event, "wait", stop)
    serve_demo(bundle)
    assert "http://127.0.0.1:1/ (Ctrl-C ends it)\nended" in capsys.readouterr().out
    serve_demo(bundle, host="0.0.0.0")
    assert "no password" in capsys.readouterr().out
    assert all(o["share"] is False and o["max_file_size"] == 100*2**20 for o in folders)
