import io, pickle, zipfile
import numpy as np, pytest, timm, torch
from PIL import Image
from safetensors.torch import save, save_file
from cxr_fastai.models.backbone import create_backbone
from cxr_fastai.models.statefile import read_state, StateError

@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return timm.create_model("test_resnet")

def saved(o, **kwargs):
    torch.save(o, f := io.BytesIO(), **kwargs)
    return f.getvalue()

def image(kind):
    Image.new("L", (8, 8)).save(f := io.BytesIO(), kind)
    return f.getvalue()

def archive(*names):
    with zipfile.ZipFile(f := io.BytesIO(), "w") as z:
        for o in names: z.writestr(o, "x" * 5000)
    return f.getvalue()

class Code:
    def __reduce__(self): return print, ("code was run",)

def others(net):
    "Files that are no weights of the network: bytes, and what is said of them."
    state = net.state_dict()
    adam = torch.optim.Adam(net.parameters())
    return {
        "empty.pth": (b"", "it is empty"),
        "text.pth": (b"hello\r\nthere", "it is text, which begins 'hello'"),
        "blank.pth": (b"\n \n", "it is text"), "letters.pth": ("\ufeff\u0416\u00e4".encode(), "it is text"),
        "page.pth": (b"\n<!DOCTYPE html>\n<html>Sign in</html>", "it is a web page; download the file itself"),
        "table.csv": (b"image,label\n1.png,0\n", "a table or other text, which begins 'image,label'"),
        "lfs.safetensors": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
        "cut.pth": (saved(state)[:5000], "the beginning of a zip archive: truncated"),
        "cut_old.pth": (saved(state, _use_new_zipfile_serialization=False)[:9000], "truncated or damaged"),
        "cut.safetensors": (save(state)[:-9], "safetensors that is truncated or damaged"),
        "header.safetensors": (save(state)[:200], "safetensors that is truncated or damaged"),
        "other.zip": (archive("a.txt", "b.txt"), "a zip archive of other things (a.txt, b.txt)"),
        "script.pt": (archive("m/data.pkl", "m/constants.pkl", "m/code/__torch__.py"), "TorchScript, which is code"),
        "image.pth": (image("PNG"), "it is an image"), "film.pth": (image("JPEG"), "it is an image"),
        "dicom.pth": (bytes(128) + b"DICM" + bytes(99), "a radiograph (DICOM)"),
        "keras.h5": (b"\x89HDF\r\n\x1a\n" + bytes(99), "HDF5"), "zipped.pth.gz": (b"\x1f\x8b" + bytes(99), "packed"),
        "array.npy": (b"\x93NUMPY" + bytes(99), "a numpy array"),
        "noise.pth": (bytes(range(255, 0, -1)), "no known kind"),
        "net.onnx": (b"\x08\x08\x12\x07pytorch" + bytes(99), "an ONNX file"),
        "code.pth": (saved(dict(a=Code())), "print, which is code or of a class of its own and isn't run"),
        "plain.pkl": (pickle.dumps(Code()), "a pickle of other things than torch's tensors"),
        "sklearn.pkl": (pickle.dumps(np.random.default_rng(0)), "nothing of it is run"),
        "module.pth": (saved(torch.nn.Bilinear(2, 2, 2)), "torch.nn.modules.linear.Bilinear, which is code"),
        "adam.pth": (saved(adam.state_dict()), "an optimizer's state and no network's"),
        "adams.pth": (saved(dict(optimizer=adam.state_dict(), epoch=3)), "an optimizer's state and no network's"),
        "list.pth": (saved([1, 2]), "it is a list, not tensors by name"), "number.pth": (saved(3.), "it is a float"),
        "tensor.pth": (saved(torch.zeros(2, 3)), "it is one tensor [2, 3]"),
        "history.pth": (saved(dict(loss=[.1], epoch=3)), "it holds no tensors by name, but 'loss', 'epoch'"),
        "nothing.pth": (saved({}), "it holds nothing")}

@pytest.mark.parametrize("name", others(timm.create_model("test_resnet")))
def test_what_a_file_is_instead_is_said_in_one_sentence(net, tmp_path, capsys, name):
    data, said = others(net)[name]
    (tmp_path/name).write_bytes(data)
    with pytest.raises(StateError) as e: read_state(tmp_path/name)
    assert said in str(e.value) and len(str(e.value)) < 200 and "\n" not in str(e.value)
    assert "code was run" not in capsys.readouterr().out
    with pytest.raises(ValueError) as e: create_backbone("test_resnet", str(tmp_path/name), 32)
    assert str(e.value).startswith(f"{tmp_path/name} does not hold the weights of test_resnet: it ")

def wrapped(state):
    "State dicts as training scripts save them."
    yield from (state, dict(state_dict=state, epoch=3), dict(model=dict(state_dict=state)), dict(teacher=state))
    yield dict(model=state, opt=dict(state={}, param_groups=[])) # fastai's `save`
    yield dict(net=state, best=np.float64(.5), step=torch.tensor(3))

def test_tensors_come_out_of_what_training_wrapped_them_in_whatever_the_files_name(net, tmp_path):
    state = net.state_dict()
    for o in wrapped(state):
        torch.save(o, tmp_path/"a.safetensors") # is none
        found = read_state(tmp_path/"a.safetensors")
        assert list(found) == list(state) and all(torch.equal(found[k], v) for k, v in state.items())
    save_file(state, tmp_path/"a.pth")
    assert read_state(tmp_path/"a.pth").keys() == state.keys()

def test_running_means_of_weights_go_before_them(net, tmp_path):
    torch.save(dict(state_dict=dict(a=torch.zeros(1)), state_dict_ema=dict(a=torch.ones(1))), tmp_path/"a.pth")
    assert read_state(tmp_path/"a.pth")["a"] == 1
