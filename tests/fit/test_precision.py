import pytest, torch
from torch import nn
from fastai.vision.all import Adam
from cxr_fastai.fit.precision import as_device, computes_bf16, in_precision, seeded, fused_adamw, use_bf16
from cxr_fastai.data.loaders import RadiographDataLoaders
from cxr_fastai.models.learner import fusion_learner, metadata_learner

CPU = torch.device("cpu")

@pytest.fixture
def make(tiny_dls): return lambda **kwargs: metadata_learner(tiny_dls("metadata"), **kwargs)

# forward passes

class Doubled(nn.Module):
    def __init__(self, bf16):
        super().__init__()
        self.layer, self.bf16, self.seen = nn.Linear(2, 2), bf16, None
    @in_precision
    def forward(self, x):
        out = self.layer(x)
        self.seen = out.dtype
        return out

def test_a_forward_pass_is_in_its_own_precision_or_in_its_callers():
    half, full = torch.bfloat16, torch.float32
    for bf16, outer, want in ((False, False, full), (True, False, half), (False, True, half)):
        model = Doubled(bf16)
        with torch.autocast("cpu", torch.bfloat16, enabled=outer): out = model(torch.ones(1, 2))
        assert model.seen == want and out.dtype == torch.float32

def test_what_is_seeded_is_fp32_where_it_says_so(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    seeded(3)
    a = torch.rand(2)
    assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
    seeded(3)
    assert torch.equal(torch.rand(2), a)

# device

def test_a_device_by_its_name():
    assert as_device("cpu") == as_device(CPU) == CPU and as_device("meta").type == "meta"
    assert as_device() == torch.ones(1).to(as_device()).device

@pytest.mark.parametrize("device, why", [("gpu", "is not known; use 'cpu'"), (3.5, "is not known"),
                                         (f"cuda:{torch.cuda.device_count()}", "torch sees")])
def test_a_device_that_isnt_there_gets_one_sentence(device, why):
    with pytest.raises(ValueError, match=why): as_device(device)

def test_a_learner_is_where_its_rows_are(rows, tmp_path):
    dls = RadiographDataLoaders.from_df(rows, tmp_path, size=32, bs=8, device="meta")
    for learn in fusion_learner(dls, "test_resnet", weights="none"), metadata_learner(dls):
        assert {o.device.type for o in [*learn.model.parameters(), *learn.model.buffers()]} == {"meta"}

# precision

def test_auto_is_bf16_where_the_cpu_multiplies_it(monkeypatch):
    for has in (True, False):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has)
        assert computes_bf16(CPU) is has and use_bf16("auto", CPU) is has
        assert use_bf16("bf16", CPU) is True and use_bf16("fp32", CPU) is False

def test_auto_is_bf16_on_a_gpu_since_ampere(monkeypatch):
    for capability in ((7, 5), (8, 0), (9, 0)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        assert use_bf16("auto", torch.device("cuda", 0)) is (capability >= (8, 0))
    assert not computes_bf16(torch.device("mps"))

@pytest.mark.parametrize("name", ["fp16", "", None, "BF16"])
def test_unknown_precision_is_refused(name):
    with pytest.raises(ValueError, match=r"precision=.* is not known; use 'auto', 'bf16' or 'fp32'"):
        use_bf16(name, CPU)

# the optimizer

def test_fused_adamw_takes_fastais_default_steps(make):
    "Except that it decays norms and biases too."
    def steps(opt_func, **kwargs):
        learn = make(opt_func=opt_func, **kwargs)
        learn.fit_one_cycle(3, 1e-2, wd=.3)
        return nn.utils.parameters_to_vector(learn.model.parameters()).detach()
    fused = steps(fused_adamw)
    assert torch.equal(fused, steps(fused_adamw)) and make().opt_func is fused_adamw
    torch.testing.assert_close(fused, steps(Adam, wd_bn_bias=True), atol=1e-4, rtol=0)
    assert not torch.allclose(fused, steps(Adam, wd_bn_bias=True, moms=(.5, .5, .5)), atol=1e-2)


