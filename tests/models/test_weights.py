import json, threading, warnings
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
import numpy as np, pytest, timm, torch, torchvision
from huggingface_hub import constants
from safetensors.torch import save_file
from cxr_fastai.models.backbone import check_backbone, create_backbone
from cxr_fastai.models.fusion import build_model
from cxr_fastai.models.weights import check_names, find_weights, Gray, gray_of, pinned_weights, XRV_GRAY

@pytest.fixture(scope="module")
def xrv():
    with warnings.catch_warnings(): return pytest.importorskip("torchxrayvision")

@pytest.fixture(autouse=True)
def quiet(recwarn): "That whom a file has seen isn't known is tested elsewhere."

@pytest.fixture
def home(tmp_path, monkeypatch):
    "Whose torchxrayvision has downloaded nothing yet."
    for o in "HOME", "USERPROFILE": monkeypatch.setenv(o, str(tmp_path/"home"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path/"home"

def unlike(net):
    "With statistics that differ from channel to channel."
    for o in net.modules():
        if isinstance(o, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(o.running_mean, std=.1)
            torch.nn.init.uniform_(o.running_var, .5, 2)
    return net.eval()

@pytest.fixture(scope="module")
def densenet(xrv):
    torch.manual_seed(0)
    return unlike(xrv.models.DenseNet())

@pytest.fixture(scope="module")
def film():
    "Gray, 0..1, `[1, 1, 64, 64]`."
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (1, 1, 64, 64), dtype=np.uint8)).float() / 255

def alike(got, want): # of features whose values may be thousands
    assert want.std() > 0
    torch.testing.assert_close(got, want, atol=1e-5 * float(want.abs().max()), rtol=0)

def planted(xrv, name):
    "Where torchxrayvision keeps the file of a release."
    file = Path(xrv.utils.get_cache_dir())/Path(xrv.models.model_urls[name]["weights_url"]).name
    file.parent.mkdir(parents=True, exist_ok=True)
    return file

# torchxrayvision's

@torch.no_grad()
def test_features_are_torchxrayvisions_own_of_its_tensors_and_of_its_pickled_network(xrv, densenet, film, home, capsys):
    want = densenet.features2(torch.from_numpy(xrv.utils.normalize(film.numpy() * 255, 255)))
    release = planted(xrv, "densenet121-res224-all")
    torch.save(densenet, release, _use_new_zipfile_serialization=False) # as its releases are
    torch.save(densenet.state_dict(), home/"own.pt")
    for name in str(home/"own.pt"), "xrv:densenet121-res224-all":
        net = create_backbone("densenet121", name, 64).eval()
        alike(net(film).mean((2, 3)), want)
        assert net.weights.endswith("; without classifier.weight, classifier.bias; gray -1024..1024)")
        assert net.normalisation == dict(mean=.5, std=1/2048, range=[-1024., 1024.])
    assert net.weights.startswith("xrv:densenet121-res224-all (sha256 ")
    said = "densenet121-res224-all: of its head nothing is used (classifier.weight, classifier.bias)."
    assert capsys.readouterr().out.count(said) == 1
    create_backbone("densenet121", name, 64)
    assert said not in capsys.readouterr().out # once is enough

@torch.no_grad()
def test_its_resnet50_too(xrv, home):
    net = torchvision.models.resnet50(num_classes=18)
    net.conv1 = torch.nn.Conv2d(1, 64, 7, 2, 3, bias=False)
    torch.save(unlike(net).state_dict(), planted(xrv, "resnet50-res512-all"))
    theirs = xrv.models.ResNet("resnet50-res512-all")
    torch.save(theirs.state_dict(), home/"own.pt") # by names that begin with 'model.', beside its thresholds
    film = torch.rand(1, 1, 512, 512) # the only side that it takes
    want = theirs.features((2*film - 1) * 1024)
    for name in "xrv:resnet50-res512-all", str(home/"own.pt"):
        net = create_backbone("resnet50", name, 512).eval()
        alike(net(film).mean((2, 3)), want)
    assert "without fc.weight, fc.bias, op_threshs" in net.weights

def test_a_file_of_fewer_findings_wants_that_normalisation_where_it_is_said(xrv, tmp_path, film):
    torch.save(xrv.models.DenseNet(num_classes=2).state_dict(), tmp_path/"two.pt")
    plain, said = (create_backbone("densenet121", f"{o}{tmp_path/'two.pt'}", 64) for o in ("", "xrv:"))
    assert said.normalisation["range"] == [-1024., 1024.] and said.weights.startswith("xrv:two.pt (sha256")
    assert plain.normalisation["mean"] == pytest.approx(.449) and "gray" not in plain.weights

def test_a_release_is_downloaded_by_torchxrayvision_once(xrv, densenet, home, monkeypatch, tmp_path):
    (tmp_path/"served").mkdir()
    torch.save(densenet, tmp_path/"served"/"nih.pt", _use_new_zipfile_serialization=False)
    asked = []
    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *args): asked.append(self.path)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path/"served")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setitem(xrv.models.model_urls["densenet121-res224-nih"], "weights_url", f"{url}/nih.pt")
    try:
        assert find_weights("xrv:densenet121-res224-nih", "densenet121", fetch=False) is None and not asked
        for _ in range(2): check_backbone("densenet121", "xrv:densenet121-res224-nih", 64)
        assert asked == ["/nih.pt"]
        monkeypatch.setitem(xrv.models.model_urls["densenet121-res224-nih"], "weights_url", f"{url}/gone.pt")
        with pytest.raises(OSError, match="xrv:densenet121-res224-nih can't be had .*gone.pt .*put it at .*gone.pt"):
            check_backbone("densenet121", "xrv:densenet121-res224-nih", 64)
    finally:
        server.shutdown()
        server.server_close()

def test_what_is_wrong_with_a_name_is_said_with_the_nearest(xrv, home, tmp_path):
    def said(arch, weights):
        with pytest.raises((ValueError, FileNotFoundError)) as e: check_names({arch: weights})
        assert "\n" not in str(e.value)
        return str(e.value)
    assert "did you mean xrv:densenet121-res224-nih" in said("densenet121", "xrv:densenet121-res224-nhi")
    of_other = said("resnet50", "xrv:all")
    assert "are of densenet121, not of resnet50" in of_other and "write densenet121=xrv:all" in of_other
    assert "are of resnet50, not of densenet121" in said("densenet121", "xrv:resnet50-res512-all")
    assert "neither a file nor one of 'imagenet', 'none', 'auto'" in said("resnet50", "imagnet")
    assert "did you mean imagenet?" in said("resnet50", "imagnet") and "did you mean none?" in said("resnet50", "NONE")
    assert "resnet50" in said("resnet5O", "none")
    assert "OWNER/NAME" in said("resnet50", "hf-hub:a/b/c")
    assert "there is no such folder" in said("resnet50", "local-dir:x")
    (tmp_path/"empty").mkdir()
    assert "no bundle; of timm's folders write local-dir:" in said("resnet50", str(tmp_path/"empty"))
    assert "this one nothing" in said("resnet50", f"local-dir:{tmp_path/'empty'}")

def test_weights_are_a_word_or_a_path(tmp_path):
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path/"a.pth")
    assert create_backbone("test_resnet", tmp_path/"a.pth", 32).weights.startswith("a.pth (sha256")
    for o in "", " ", None, 3:
        with pytest.raises(ValueError, match="should be one of 'auto', 'imagenet', 'none', a file, xrv:NAME"):
            create_backbone("test_resnet", o, 32)
    with pytest.raises(ValueError, match="tells no configuration of 'xception'"): check_names(dict(xception="none"))

def test_without_torchxrayvision_it_is_said(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torchxrayvision.models", None)
    with pytest.raises(ImportError, match="cxr_fastai\\[xrv\\]"): check_names(dict(densenet121="xrv:all"))

# heads, and names

@pytest.mark.parametrize("arch,n", [("resnet18", 1000), ("resnet18", 2), ("densenet121", 14),
                                     pytest.param("vgg11", 3, marks=pytest.mark.slow)])
@torch.no_grad()
def test_torchvisions_names_give_its_features_whatever_the_head(film, tmp_path, arch, n):
    net = unlike(torchvision.models.get_model(arch, num_classes=n))
    torch.save(dict(state_dict={f"module.{k}": v for k, v in net.state_dict().items()}), tmp_path/"a.pth")
    ours = create_backbone(arch, str(tmp_path/"a.pth"), 64).eval()
    body = torch.nn.Sequential(*list(net.children())[:-2]) if arch == "resnet18" else net.features
    want = body(((film - ours.mean)/ours.std).expand(-1, 3, -1, -1))
    alike(ours(film), want.relu() if arch == "densenet121" else want)
    assert ("without" in ours.weights) == (n != 1000)

def others(net):
    "A network's tensors among others, or under other names."
    state = net.state_dict()
    yield {k: v for k, v in state.items() if not k.startswith("fc.")}, ""
    yield state | {"fc.weight": torch.zeros(18, 64), "fc.bias": torch.zeros(18)}, "fc.weight, fc.bias"
    yield {f"encoder.{k}": v for k, v in state.items()} | {"decoder.up.weight": torch.ones(2)}, "decoder.up.weight"
    yield state | {"fc.weight": torch.full((2, 64), torch.nan), "aux.weight": torch.ones(1)}, "fc.weight, aux.weight"
    yield {f"_orig_mod.module.{k}": v for k, v in state.items()} | {"n_averaged": torch.tensor(3)}, "n_averaged"

@pytest.mark.parametrize("i", range(5))
def test_a_head_is_left_out_and_named(tmp_path, i):
    net = timm.create_model("test_resnet")
    state, without = list(others(net))[i]
    torch.save(state, tmp_path/"a.pth")
    ours = create_backbone("test_resnet", str(tmp_path/"a.pth"), 32)
    own = ours.body.state_dict()
    stem = next(k for k in own if k.endswith("weight"))
    assert not [k for k in own if k.startswith("fc")]
    assert all(torch.equal(v, net.state_dict()[k]) for k, v in own.items() if k != stem)
    assert ours.weights.endswith(f"; without {without})") if without else "without" not in ours.weights

def test_a_layer_too_few_too_many_or_of_nan_and_two_networks_are_refused(tmp_path):
    state = timm.create_model("test_resnet").state_dict()
    lost, more = state.copy(), state | {"layer4.9.conv1.weight": torch.ones(2)}
    del lost["layer2.0.conv1.weight"]
    bad = state | {"layer2.0.conv1.weight": torch.full_like(state["layer2.0.conv1.weight"], torch.inf)}
    two = {f"{o}.{k}": v for o in ("teacher", "student") for k, v in state.items()}
    larger = timm.create_model("resnet18").state_dict()
    quantised = {k: (9 * o).to(torch.int8) for k, o in state.items()}
    for o, why in ((quantised, "is of whole numbers"), (lost, "layer2.0.conv1.weight"),
                   (more, "layer4.9.conv1.weight"), (larger, "of another network"), (bad, "not a number, or infinite"),
                   (two, "holds 2 such networks \\(teacher., student.\\)")):
        torch.save(o, tmp_path/"a.pth")
        with pytest.raises(ValueError, match=f"does not hold the weights of test_resnet: .*{why}"):
            create_backbone("test_resnet", str(tmp_path/"a.pth"), 32)

def test_a_classifiers_own_weights_bring_their_normalisation_to_the_next(xrv, densenet, tmp_path):
    torch.save(densenet.state_dict(), tmp_path/"a.pt")
    first = build_model(dict(kind="image", ps=.5), create_backbone("densenet121", str(tmp_path/"a.pt"), 64), None, 2)
    torch.save(first.state_dict(), tmp_path/"learner.pth")
    again = create_backbone("densenet121", str(tmp_path/"learner.pth"), 64)
    assert again.normalisation == first.backbone.normalisation and "without" not in again.weights
    own = first.backbone.state_dict()
    assert all(torch.equal(own[k], v) for k, v in again.state_dict().items())

# timm's folders, and the hub

def folder_of(net, path, arch="test_resnet", **cfg):
    path.mkdir(parents=True)
    save_file(net.state_dict(), path/"model.safetensors")
    (path/"config.json").write_text(json.dumps(dict(architecture=arch, num_classes=5) | cfg))
    return path

CFG = dict(pretrained_cfg=dict(mean=[.1, .2, .3], std=[.2, .2, .2]), model_args=dict(num_classes=5))

def test_a_folder_of_timms_brings_its_normalisation(tmp_path):
    net = timm.create_model("test_resnet", num_classes=5)
    folder = folder_of(net, tmp_path/"o", **CFG)
    ours = create_backbone("test_resnet.r160_in1k", f"local-dir:{folder}", 32)
    assert ours.normalisation["mean"] == pytest.approx(.2) and ours.normalisation["std"] == pytest.approx(.2)
    assert torch.equal(ours.body.layer1[0].conv1.weight, net.layer1[0].conv1.weight) and "fc.weight" in ours.weights
    with pytest.raises(ValueError, match="are of test_resnet, not of resnet18"):
        check_names(dict(resnet18=f"local-dir:{folder}"))
    odd = json.dumps(dict(architecture="test_resnet", model_args=dict(act_layer="silu")))
    for told, why in (("[1]", "names no architecture"), ("{", "can't be read"), (odd, "another make .act_layer"),
                      ('{"model_type": "vit"}', "names no architecture")):
        (folder/"config.json").write_text(told)
        with pytest.raises(ValueError, match=why): check_names(dict(test_resnet=f"local-dir:{folder}"))

def test_a_hubs_weights_are_named_by_their_revision_and_taken_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    there, commit = tmp_path/"models--me--net", "c" * 40
    folder_of(net := timm.create_model("test_resnet", num_classes=5), there/"snapshots"/commit, **CFG)
    (there/"refs").mkdir()
    (there/"refs"/"main").write_text(commit)
    assert pinned_weights("hf-hub:me/net") == f"hf-hub:me/net@{commit}" == pinned_weights(f"hf-hub:me/net@{commit}")
    assert pinned_weights("a.pth") == "a.pth"
    check_names(dict(test_resnet="hf-hub:me/net"))
    ours = create_backbone("test_resnet", "hf-hub:me/net", 32)
    assert ours.weights.startswith(f"hf-hub:me/net@{commit} (sha256 ")
    assert ours.normalisation["mean"] == pytest.approx(.2)
    assert torch.equal(ours.body.layer1[0].conv1.weight, net.layer1[0].conv1.weight)
    assert find_weights("hf-hub:me/other", "test_resnet", fetch=False) is None
    for ask in pinned_weights, partial(create_backbone, "test_resnet"):
        with pytest.raises(OSError, match="hf-hub:me/other is not in the local cache.*local-dir:FOLDER"):
            ask("hf-hub:me/other")

# transformers

def test_a_vision_transformers_weights_fit_other_sizes_and_patches_leave_no_margin(tmp_path):
    net = timm.create_model("test_vit", num_classes=2)
    torch.save(net.state_dict() | {"mask_token": torch.zeros(1, 64)}, tmp_path/"a.pth") # as DINOv2 and RAD-DINO have
    ours = create_backbone("test_vit", str(tmp_path/"a.pth"), 64)
    assert ours.body.pos_embed.shape[1] == 1 + 16 and ours.width == 64 and "head.weight" in ours.weights
    for size, near in ((40, "size=32 or size=48"), (8, "size=16")):
        for weights in "none", str(tmp_path/"a.pth"):
            with pytest.raises(ValueError, match=f"patches of 16 pixels, and size={size} is no multiple.*{near}"):
                create_backbone("test_vit", weights, size)
    with pytest.raises(ValueError, match="patches of 14 .*size=252 or size=266"):
        check_backbone("vit_small_patch14_dinov2", "none", 256)

def of_transformers(state):
    "A timm network's tensors by the names of transformers' Dinov2Model, written out once more."
    for k, o in state.items():
        k = k.replace("blocks.", "encoder.layer.").replace("attn.proj", "attention.output.dense")
        for i in "12": k = k.replace(f"ls{i}.gamma", f"layer_scale{i}.lambda1")
        if k.startswith("norm."): k = f"layer{k}"
        if "attn.qkv" in k:
            for name, part in zip(("query", "key", "value"), o.chunk(3)):
                yield k.replace("attn.qkv", f"attention.attention.{name}"), part.clone()
        elif k == "cls_token": yield "embeddings.cls_token", o
        elif k == "pos_embed": yield "embeddings.position_embeddings", o
        elif k.startswith("patch_embed."): yield f"embeddings.patch_embeddings.projection.{k.split('.')[-1]}", o
        elif not k.startswith("head"): yield k, o

@torch.no_grad()
def test_rad_dinos_weights_are_read_by_transformers_names(tmp_path):
    torch.manual_seed(0)
    net = timm.create_model("vit_small_patch14_dinov2", img_size=56, in_chans=3).eval()
    for o in net.parameters(): torch.nn.init.normal_(o, std=.05)
    folder = folder_of(net, tmp_path/"dino")
    state = dict(of_transformers(net.state_dict())) | {"embeddings.mask_token": torch.zeros(1, 384)}
    save_file({k: v.contiguous() for k, v in state.items()}, folder/"model.safetensors")
    (folder/"config.json").write_text(json.dumps(dict(model_type="dinov2", architectures=["Dinov2Model"])))
    (folder/"preprocessor_config.json").write_text(json.dumps(dict(image_mean=[.53]*3, image_std=[.25]*3)))
    ours = create_backbone("vit_small_patch14_dinov2", f"local-dir:{folder}", 56).eval()
    film = torch.rand(1, 1, 56, 56)
    want = net.forward_features(((film - .53)/.25).expand(-1, 3, -1, -1)).transpose(1, 2)[..., None]
    alike(ours(film), want)
    with pytest.raises(ValueError, match="does not hold the weights of test_vit: it is of another network"):
        create_backbone("test_vit", str(folder/"model.safetensors"), 32)

def test_gray_is_the_mean_of_three_channels():
    assert gray_of([.485, .456, .406], [.229, .224, .225]) == pytest.approx(Gray(.449, .226))
    assert [(o - XRV_GRAY.mean)/XRV_GRAY.std for o in (0, 1)] == [-1024, 1024]
