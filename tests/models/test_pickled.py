from pickle import UnpicklingError
import pytest, torch, torchvision
from cxr_fastai.models import pickled
from cxr_fastai.models.pickled import is_older, load_older, load_tensors, Part, tensors_of
from cxr_fastai.models.statefile import read_state

@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    net = torchvision.models.resnet18(num_classes=3).half()
    net.epochs, net.note = 3, torch.nn.Parameter(torch.ones(2, 3).t(), requires_grad=False) # not contiguous
    return net

def older(o, file):
    torch.save(o, file, _use_new_zipfile_serialization=False)
    return file

def same(found, net):
    state = net.state_dict()
    assert found.keys() == state.keys() and all(torch.equal(found[k], v) for k, v in state.items())
    assert all(found[k].dtype == v.dtype for k, v in state.items())

def test_a_whole_network_is_read_as_tensors_in_either_form(net, tmp_path):
    torch.save(net, tmp_path/"new.pt")
    same(tensors_of(load_tensors(tmp_path/"new.pt")), net)
    file = older(net, tmp_path/"old.pt")
    assert is_older(file.read_bytes()) and not is_older((tmp_path/"new.pt").read_bytes())
    with pytest.raises(UnpicklingError): load_tensors(file) # or torch can, and nothing here is needed
    same(load_older(file), net)
    for o in "new.pt", "old.pt": same(read_state(tmp_path/o), net)
    same(read_state(older(torch.nn.DataParallel(net), tmp_path/"p.pt")), torch.nn.DataParallel(net))

class Evil(torch.nn.Linear):
    "Writes a file where a pickle of it is loaded as code."
    def __reduce__(self): return open, (self.mark, "w")

def test_a_class_of_its_own_and_code_are_refused_by_name_and_nothing_is_run(net, tmp_path):
    class Own(torch.nn.Module): pass
    Own.__qualname__, globals()["Own"] = "Own", Own
    evil = Evil(1, 1)
    evil.mark = str(tmp_path/"mark")
    for o in Own(), torch.nn.Sequential(evil), torch.nn.Sequential(torch.nn.ReLU(), Own()):
        with pytest.raises(UnpicklingError, match="GLOBAL (.*Own|_?io.open|__builtin__.open) is not known"):
            load_older(older(o, tmp_path/"a.pt"))
        with pytest.raises(ValueError, match="is code or of a class of its own"): read_state(tmp_path/"a.pt")
    assert not (tmp_path/"mark").exists()

def test_stand_ins_do_nothing(tmp_path):
    part = Part(1, a=2)
    part.__setstate__([1])
    assert part.held == {} and tensors_of(part) == {}
    made = {o if isinstance(o, type) else type(o) for o in pickled.KNOWN.values()} - {dict}
    assert {o.__module__ for o in made} <= {pickled.__name__, "collections", "builtins"}
    assert {o.__name__ for o in pickled.KNOWN.values() if not isinstance(o, type) and callable(o)} == {"_parameter"}

@pytest.mark.parametrize("share", [.1, .3, .6, .99])
def test_what_is_cut_off_is_no_network(net, tmp_path, share):
    data = older(net, tmp_path/"a.pt").read_bytes()
    (tmp_path/"a.pt").write_bytes(data[:int(share * len(data))])
    with pytest.raises(ValueError, match="truncated or damaged"): read_state(tmp_path/"a.pt")

def test_a_tensor_beyond_its_storage_is_refused(tmp_path):
    "as_strided would read others' memory if torch didn't look."
    data = older(torch.nn.Linear(3, 5, bias=False), tmp_path/"a.pt").read_bytes()
    (tmp_path/"a.pt").write_bytes(data.replace(b"K\x05K\x03\x86", b"K\x50K\x30\x86"))
    with pytest.raises(ValueError, match="truncated or damaged"): read_state(tmp_path/"a.pt")
