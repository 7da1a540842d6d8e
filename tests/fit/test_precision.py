import pytest, torch
from torch import nn
from fastai.vision.all import Adam
from cxr_fastai.fit.precision import (as_device, computing, fastest_precision, fused_adamw, in_precision, precision_on,
                                      seeded)
from cxr_fastai.data.loaders import RadiographDataLoaders
from cxr_fastai.models.learner import fusion_learner, metadata_learner

CPU = torch.device("cpu")

@pytest.fixture
def make(tiny_dls): return lambda **kwargs: metadata_learner(tiny_dls("metadata"), **kwargs)

# forward passes

class Doubled(nn.Module):
    def __init__(self, precision):
        super().__init__()
        self.layer, self.precision, self.seen = nn.Linear(2, 2), precision, None
    @in_precision
    def forward(self, x):
        out = self.layer(x)
        self.seen = out.dtype
        return out

def test_a_forward_pass_is_in_its_own_precision_or_in_its_callers():
    bf16, fp16, full = torch.bfloat16, torch.float16, torch.float32
    for own, outer, want in (("fp32", False, full), ("bf16", False, bf16), ("fp32", True, bf16), ("fp16", True, fp16)):
        model = Doubled(own)
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
        assert fastest_precision(CPU) == precision_on("auto", CPU) == ("bf16" if has else "fp32")
        for o in "bf16", "fp16", "fp32": assert precision_on(o, CPU) == o == computing(o, "cpu")["precision"]

def test_auto_is_what_the_gpus_tensor_cores_have(monkeypatch):
    for capability, want in {(6, 1): "fp32", (7, 0): "fp16", (7, 5): "fp16", (8, 0): "bf16", (9, 0): "bf16"}.items():
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        assert precision_on("auto", torch.device("cuda", 0)) == want
    assert fastest_precision(torch.device("mps")) == "fp32"

@pytest.mark.parametrize("name", ["fp8", "", None, "BF16", torch.float16])
def test_unknown_precision_is_refused(name):
    with pytest.raises(ValueError, match=r"precision=.* is not known; use 'auto', 'bf16', 'fp16', 'fp32'"):
        precision_on(name, CPU)

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


