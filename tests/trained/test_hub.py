import base64, hashlib, json, pickle, threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import pandas as pd, pytest, torch
from huggingface_hub import ModelCard
from PIL import Image
from cxr_fastai.trained import hub as publish
from cxr_fastai.trained.bundle import read_card, save_bundle
from cxr_fastai.trained.card import BundleError
from cxr_fastai.data.loaders import RadiographDataLoaders
from cxr_fastai.stats.formats import without_html
from cxr_fastai.cohort.phantom import draw_radiograph
from cxr_fastai.models.learner import fusion_learner, image_learner, metadata_learner
from cxr_fastai.trained.hub import from_hub, model_card, push_to_hub
from conftest import SIDE

class Hub(BaseHTTPRequestHandler):
    "As much of the hub as these calls need; files by name in `server.files`."
    def log_message(self, *args): pass

    def answer(self, body, status=200, **headers):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for k, v in (dict(content_length=len(body)) | headers).items(): self.send_header(k.replace("_", "-"), str(v))
        self.end_headers()
        if self.command != "HEAD": self.wfile.write(body)

    def body(self):
        n = int(self.headers.get("content-length") or 0)
        if n: return self.rfile.read(n)
        data = b""
        while size := int(self.rfile.readline() or b"0", 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        return data

    def do_POST(self):
        sent, at = self.body(), self.path
        self.server.asked.append(at)
        if self.server.refuse: return self.answer(dict(error="no"), self.server.refuse)
        if at.endswith("/repos/create"):
            return self.answer(dict(url=f"{self.server.url}/me/it", id="me/it", name="me/it"))
        if "preupload" in at:
            files = [dict(path=o["path"], uploadMode="regular", shouldIgnore=False) for o in json.loads(sent)["files"]]
            return self.answer(dict(files=files))
        if "/commit/" in at:
            for line in map(json.loads, sent.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            return self.answer(dict(success=True, commitOid="a"*40,
                                    commitUrl=f"{self.server.url}/me/it/commit/{'a'*40}"))
        self.answer(dict(errors=[], warnings=[])) # validate-yaml

    def do_GET(self):
        if self.server.refuse: return self.answer(dict(error="no"), self.server.refuse)
        if "/resolve/" not in self.path:
            names = [dict(rfilename=o) for o in self.server.files]
            return self.answer(dict(id="me/it", modelId="me/it", sha="a"*40, siblings=names, private=True, downloads=0,
                                    likes=0, tags=[]))
        name = self.path.split("/resolve/")[1].split("/", 1)[1]
        if name not in self.server.files:
            return self.answer(dict(error="no"), 404, X_Error_Code="EntryNotFound", X_Repo_Commit="a"*40)
        self.server.fetched.add(name)
        body = self.server.files[name]
        self.answer(body, ETag=f'"{hashlib.sha256(body).hexdigest()}"', X_Repo_Commit="a"*40, X_Linked_Size=len(body))
    do_HEAD = do_GET

@pytest.fixture
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.url = f"http://127.0.0.1:{server.server_port}"
    server.files, server.asked, server.fetched, server.refuse = {}, [], set(), 0
    threading.Thread(target=server.serve_forever, args=(.02,), daemon=True).start()
    yield server
    server.shutdown()

TEST = dict(recall=.6, recall_low=.4, recall_high=.8, specificity=.9, rocauc=.8, n=24, positives=8)
CELL = dict(folder="a-0-1", backbone="test_resnet", arm="real-meta", seed=0, protocol="clean")
SETTINGS = dict(arm="real-meta", epochs=1, lr=1e-3, seed=0, protocol="clean", epoch_rule="last")

@pytest.fixture(scope="module")
def learn(rows, tmp_path_factory):
    dls = RadiographDataLoaders.from_df(rows, tmp_path_factory.mktemp("learn"), size=SIDE, bs=8)
    return fusion_learner(dls, "test_resnet", weights="none", precision="fp32")

@pytest.fixture
def bundle(learn, tmp_path):
    return save_bundle(learn, tmp_path/"b", summary=dict(settings=SETTINGS, test=TEST, cell=CELL), licence="CC0")

def said(learn, rows):
    with learn.no_bar(): return learn.get_preds(dl=learn.dls.test_dl(rows))[0]

def test_what_goes_up_comes_down_and_says_the_same(learn, rows, bundle, hub, tmp_path, capsys):
    (bundle/"patients.csv").write_text("not to be shared")
    assert push_to_hub(bundle, "me/it", datasets="me/films", token="hf_x", endpoint=hub.url).endswith("a"*40)
    assert set(hub.files) == {"bundle.json", "model.safetensors", "README.md"}
    assert b'from_hub("me/it")' in hub.files["README.md"]
    (tmp_path/"README.md").write_bytes(hub.files["README.md"])
    data = ModelCard.load(tmp_path/"README.md").data
    assert data.model_name == "me/it" and data.datasets == ["me/films"] and data.license_link.endswith("/me/it#licence")
    assert {o.metric_type: o.metric_value for o in data.eval_results} == dict(recall=.6, specificity=.9, roc_auc=.8)
    capsys.readouterr()
    again = from_hub("me/it", endpoint=hub.url, folder=tmp_path/"cache")
    told = capsys.readouterr().out
    assert "me/it" in told and "Not a medical device" in told and "sex, view, age may stand for the illness" in told
    assert all(line in hub.files["README.md"].decode().replace("**", "") for line in told.splitlines()[1:])
    assert torch.equal(said(learn, rows.head(9)), said(again, rows.head(9))) and again.card == read_card(bundle)

def test_only_the_bundles_two_files_are_fetched(bundle, hub, tmp_path):
    push_to_hub(bundle, "me/it", token="hf_x", endpoint=hub.url)
    hub.files |= {"evil.pkl": b"x", "../../evil.py": b"x", "modeling.py": b"x"}
    from_hub("me/it", endpoint=hub.url, folder=tmp_path/"cache")
    assert hub.fetched == {"bundle.json", "model.safetensors"}

@pytest.mark.slow
def test_a_pickle_under_a_bundles_name_and_a_repository_without_one_are_refused(bundle, hub, tmp_path):
    push_to_hub(bundle, "me/it", token="hf_x", endpoint=hub.url)
    hub.files["model.safetensors"] = pickle.dumps(dict(a=1)) * 9
    with pytest.raises(BundleError): from_hub("me/it", endpoint=hub.url, folder=tmp_path/"a")
    hub.files = {"pytorch_model.bin": b"x"}
    with pytest.raises(BundleError, match="me/it is no bundle: it needs bundle.json and model.safetensors"):
        from_hub("me/it", endpoint=hub.url, folder=tmp_path/"b")
    assert "pytorch_model.bin" not in hub.fetched

@pytest.mark.parametrize("status, match", [(401, "log in"), (403, "log in"), (404, "check the name")])
def test_a_hub_that_refuses_is_one_sentence(bundle, hub, tmp_path, status, match):
    hub.refuse = status
    with pytest.raises(ConnectionError, match=f"me/it .status {status}.: .*{match}"):
        push_to_hub(bundle, "me/it", token="hf_x", endpoint=hub.url)

def test_a_hub_that_is_not_there_is_one_sentence(bundle, tmp_path):
    with pytest.raises(ConnectionError, match="The hub can't be reached for me/it"):
        push_to_hub(bundle, "me/it", token="hf_x", endpoint="http://127.0.0.1:9")

def test_a_broken_bundle_is_not_sent(bundle, hub):
    (bundle/"model.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(BundleError): push_to_hub(bundle, "me/it", token="hf_x", endpoint=hub.url)
    assert not hub.asked

def test_no_word_is_html_a_link_or_a_cell_of_the_model_card(bundle, monkeypatch):
    card = read_card(bundle)
    odd = "<img src=x onerror=y>|[a](javascript:b)\n# head"
    card |= dict(classes=[odd, "b|c"], licence=odd, metadata=dict(cat_names=[odd], cont_names=[], stats={odd: [odd]}))
    monkeypatch.setattr(publish, "read_card", lambda _: card)
    text = model_card(bundle)
    assert "<img" not in text and "](javascript" not in text.replace(without_html(odd), "") and "\n# head|" not in text
    assert "b\\|c or" in text

def test_the_model_card_tells_what_is_known_and_what_is_not(learn, bundle, tmp_path):
    text = model_card(bundle)
    for o in ("Not a medical device", "| recall (sensitivity) at .5 | 0.600 | 0.400 to 0.800 (Wilson) |",
              "24 test rows, 8 positive, one seed: an anecdote", "training rows: ", "Real-Meta (real-meta)",
              "architecture: test_resnet", "CC0", "sex: one of F, M", "age: number, ", "license: other"):
        assert o in text, o
    assert text.startswith("---\n") and "        " not in text
    assert "None were stored" in model_card(save_bundle(learn, tmp_path/"c"))

def test_a_studys_intervals_are_quoted_and_another_study_is_refused(learn, bundle, tmp_path):
    with pytest.raises(ValueError, match="doesn't say which cell"):
        model_card(save_bundle(learn, tmp_path/"c"), tmp_path)
    line = dict(backbone="test_resnet", arm="real-meta", metric="rocauc", mean=.8123, low=.7, high=.9, n=90,
                positives=22, seeds=3, protocol="clean")
    cell = dict(backbone="test_resnet", arm="real-meta", seed=0, folder="cells/a-0-1")
    scores = lambda *o: pd.DataFrame(o).to_csv(tmp_path/"scores.csv", index=False)
    scores(line, line | dict(arm="real-meta+film", mean=.7))
    pd.DataFrame([cell]).to_csv(tmp_path/"cells.csv", index=False)
    assert "| area under the ROC curve | 0.812 | 0.700 to 0.900 |" in (text := model_card(bundle, tmp_path))
    assert "90 real test rows, 22 positive, mean over 3 seeds" in text and "over 3 seeds" not in model_card(bundle)
    assert [o.metric_value for o in ModelCard(text).data.eval_results] == [.8123]
    scores(line | dict(seeds=1, low=float("nan")))
    assert "| 0.812 | - |" in (text := model_card(bundle, tmp_path)) and "one seed: an anecdote" in text
    assert "mean" not in text
    scores(line | dict(backbone="vgg16"))
    with pytest.raises(ValueError, match="no scores of test_resnet"): model_card(bundle, tmp_path)
    pd.DataFrame([cell | dict(folder="cells/b")]).to_csv(tmp_path/"cells.csv", index=False)
    with pytest.raises(ValueError, match="no cell a-0-1: the bundle is of another study"): model_card(bundle, tmp_path)

@pytest.mark.parametrize("use, seen", [("metadata", "sex, view, age"), ("image", "a chest radiograph")])
def test_a_card_says_what_the_model_reads_and_how_to_ask_it(rows, tmp_path, use, seen):
    dls = RadiographDataLoaders.from_df(rows, tmp_path, size=SIDE, bs=8, use=use)
    learn = metadata_learner(dls) if use == "metadata" else image_learner(dls, "test_resnet", weights="none")
    text = model_card(save_bundle(learn, tmp_path/"b"))
    assert f"# Pneumonia or Normal, from {seen}\n" in text and "drawn" not in text and "leaky" not in text
    assert ("learn.predict(sex=..., view=..., age=...)"
            if use == "metadata" else 'learn.predict(image="film.png")') in text
    assert ("doesn't look like a training film" in text) == (use == "image")
    assert ("- sex, view, age may stand for" in text) == (use == "metadata")

def test_the_leaky_protocol_and_drawn_films_stand_in_bundle_and_card(rows, tmp_path):
    files = [str(tmp_path/o) for o in rows["image"]]
    for i, o in enumerate(files): Image.fromarray(draw_radiograph(i % 2, 50, "F", "PA", i, size=48)).save(o)
    dls = RadiographDataLoaders.from_df(rows.assign(file=files), tmp_path, size=SIDE, bs=8, use="image",
                                        protocol="paper")
    bundle = save_bundle(image_learner(dls, "test_resnet", weights="none"), tmp_path/"b")
    text, training = model_card(bundle), read_card(bundle)["training"]
    assert training["leaky"] == training["drawn"] == 1 and "Protocol 'paper', leaky on purpose" in text
    assert "Trained on drawn films: it says nothing about any illness" in text
