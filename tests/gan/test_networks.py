import copy
from itertools import product
import pytest, torch, torch.nn.functional as F
from cxr_fastai.gan.networks import CycleGAN, Discriminator, Generator, from_reference

def count(net): return sum(p.numel() for p in net.parameters())
def image(n=1, size=32, seed=0):
    return torch.rand(n, 1, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1

@pytest.mark.parametrize("n_blocks, ngf, n", [(9, 64, 11_365_633), (6, 64, 7_825_153), (6, 32, 1_958_785)])
def test_generators_are_as_large_as_the_references(n_blocks, ngf, n): assert count(Generator(n_blocks, ngf)) == n

@pytest.mark.parametrize("ndf, n", [(64, 2_762_689), (32, 693_217)])
def test_discriminators_are_as_large_as_the_references(ndf, n): assert count(Discriminator(ndf)) == n

def test_weights_start_normal_and_biases_zero():
    for net in Generator(6, 32), Discriminator(32):
        weights = torch.cat([p.detach().flatten() for name, p in net.named_parameters() if name.endswith("weight")])
        assert weights.mean().abs() < 2e-4 and weights.std() == pytest.approx(.02, rel=.01)
        assert all((p == 0).all() for name, p in net.named_parameters() if name.endswith("bias"))

@pytest.mark.parametrize("upsample", ["transpose", "resize"])
@pytest.mark.parametrize("size", [24, 32, 60])
def test_a_translation_has_its_images_size_and_range(upsample, size):
    out = Generator(1, 4, upsample=upsample)(image(2, size))
    assert out.shape == (2, 1, size, size) and out.abs().max() <= 1

@pytest.mark.parametrize("upsample", ["transpose", "resize"])
def test_a_residual_generator_starts_as_the_identity(upsample):
    x = image(2)
    assert torch.equal(Generator(1, 4, residual=True, upsample=upsample)(x), x)

def test_the_discriminator_judges_patches_of_70_pixels():
    net, x = Discriminator(4).double(), image(1, 128).double().requires_grad_()
    out = net.layers[0](x)
    for layer in net.layers[1:]: # an instance norm sees the whole image: left out, as for the name
        if not isinstance(layer, torch.nn.InstanceNorm2d): out = layer(out)
    out[0, 0, 7, 7].backward()
    rows = x.grad[0, 0].abs().sum(1).nonzero()
    assert rows.max() - rows.min() + 1 == 70

@pytest.mark.parametrize("n_layers, patches, widths", [
    (1, 15, [4, 8, 1]), (2, 14//2, [4, 8, 16, 1]), (3, 2, [4, 8, 16, 32, 1]), (4, 2, [4, 8, 16, 32, 32, 1])])
def test_layers_of_a_discriminator(n_layers, patches, widths):
    size = {1: 34, 2: 36, 3: 32, 4: 64}[n_layers]
    net = Discriminator(4, n_layers)
    convs = [o for o in net.layers if isinstance(o, torch.nn.Conv2d)]
    assert [o.out_channels for o in convs] == widths
    assert [o.stride[0] for o in convs] == [2]*n_layers + [1, 1]
    assert net(image(1, size)).shape[2:] == (patches, patches)

def test_unknown_upsampling_is_named():
    with pytest.raises(ValueError, match="upsample='bilinear' is not known; use transpose or resize"):
        Generator(upsample="bilinear")

# the reference's state dicts: its key names, run by an oracle of plain functions

def reference_generator(s, x, n_blocks):
    w = lambda k: (s[f"model.{k}.weight"], s[f"model.{k}.bias"])
    norm = F.instance_norm
    x = norm(F.conv2d(F.pad(x, [3]*4, mode="reflect"), *w(1))).relu()
    for k in 4, 7: x = norm(F.conv2d(x, *w(k), stride=2, padding=1)).relu()
    for k in range(10, 10 + n_blocks):
        y = norm(F.conv2d(F.pad(x, [1]*4, mode="reflect"), *w(f"{k}.conv_block.1"))).relu()
        x = x + norm(F.conv2d(F.pad(y, [1]*4, mode="reflect"), *w(f"{k}.conv_block.5")))
    for k in 10 + n_blocks, 13 + n_blocks:
        x = norm(F.conv_transpose2d(x, *w(k), stride=2, padding=1, output_padding=1)).relu()
    return F.conv2d(F.pad(x, [3]*4, mode="reflect"), *w(17 + n_blocks)).tanh()

def reference_discriminator(s, x):
    w = lambda k: (s[f"model.{k}.weight"], s[f"model.{k}.bias"])
    x = F.leaky_relu(F.conv2d(x, *w(0), stride=2, padding=1), .2)
    for k, stride in (2, 2), (5, 2), (8, 1):
        x = F.leaky_relu(F.instance_norm(F.conv2d(x, *w(k), stride=stride, padding=1)), .2)
    return F.conv2d(x, *w(11), padding=1)

def generator_state(n_blocks, ngf, seed):
    g = torch.Generator().manual_seed(seed)
    shapes = {"1": (ngf, 1, 7, 7), "4": (2*ngf, ngf, 3, 3), "7": (4*ngf, 2*ngf, 3, 3)}
    for k in range(10, 10 + n_blocks):
        for i in 1, 5: shapes[f"{k}.conv_block.{i}"] = (4*ngf, 4*ngf, 3, 3)
    shapes |= {f"{10 + n_blocks}": (4*ngf, 2*ngf, 3, 3), f"{13 + n_blocks}": (2*ngf, ngf, 3, 3),
               f"{17 + n_blocks}": (1, ngf, 7, 7)}
    state = {}
    for k, shape in shapes.items():
        n_out = shape[1] if k in (f"{10 + n_blocks}", f"{13 + n_blocks}") else shape[0] # transposed: in, out
        state[f"model.{k}.weight"] = torch.randn(shape, generator=g) * .1
        state[f"model.{k}.bias"] = torch.randn(n_out, generator=g) * .1
    return state

def discriminator_state(ndf, seed):
    g = torch.Generator().manual_seed(seed)
    shapes = {0: (ndf, 1), 2: (2*ndf, ndf), 5: (4*ndf, 2*ndf), 8: (8*ndf, 4*ndf), 11: (1, 8*ndf)}
    return {f"model.{k}.{part}": torch.randn(*o, 4, 4, generator=g) * .1
            if part == "weight" else torch.randn(o[0], generator=g) * .1
            for k, o in shapes.items() for part in ("weight", "bias")}

@pytest.mark.parametrize("n_blocks", [1, 3])
def test_a_reference_generator_loads_and_gives_its_outputs(n_blocks):
    state, net, x = generator_state(n_blocks, 4, 0), Generator(n_blocks, 4), image(2)
    net.load_state_dict(from_reference(state))
    torch.testing.assert_close(net(x), reference_generator(state, x, n_blocks), atol=1e-5, rtol=1e-5)

def test_a_reference_discriminator_loads_and_gives_its_outputs():
    state, net, x = discriminator_state(4, 1), Discriminator(4), image(2, 64)
    net.load_state_dict(from_reference(state))
    torch.testing.assert_close(net(x), reference_discriminator(state, x), atol=1e-5, rtol=1e-5)

def test_old_files_and_parallel_ones_load_too():
    state, net = generator_state(1, 4, 0), Generator(1, 4)
    old = {f"module.{k}": v for k, v in state.items()} | {"module.model.2.running_mean": torch.zeros(4),
           "module.model.2.running_var": torch.ones(4), "module.model.2.num_batches_tracked": torch.tensor(3)}
    net.load_state_dict(from_reference(old))
    assert torch.equal(net.layers[1].weight, state["model.1.weight"])

def test_another_networks_file_is_refused():
    with pytest.raises(RuntimeError): Generator(2, 4).load_state_dict(from_reference(generator_state(1, 4, 0)))

# gradients against float64

def gradients(net, x):
    "Of the convolutions' weights; a bias before an instance norm has a true gradient of 0."
    net.zero_grad()
    (net(x) * torch.linspace(-1, 1, x.shape[-1], dtype=x.dtype)).mean().backward()
    return [p.grad.double() for name, p in net.named_parameters() if name.endswith("weight")]

NETS = {"transpose": lambda precision: Generator(1, 8, precision=precision),
        "resize": lambda precision: Generator(1, 8, upsample="resize", precision=precision),
        "residual": lambda precision: Generator(1, 8, residual=True, precision=precision)}

FAR, ALIKE = dict(fp32=1e-4, bf16=.25, fp16=.06), dict(fp32=1 - 1e-6, bf16=.97, fp16=.998)

def close(a, b, precision):
    cosine = F.cosine_similarity(a.flatten(), b.flatten(), 0)
    return (a - b).norm() / b.norm() < FAR[precision] and cosine > ALIKE[precision]

@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_gradients_agree_with_float64(name, n, precision):
    torch.manual_seed(0)
    net = NETS[name](precision)
    if name == "residual": torch.nn.init.normal_(net.layers[-2].weight, 0, .02) # all zeros would pass no gradient
    exact = copy.deepcopy(net).double()
    exact.precision = "fp32"
    x = image(n, 32)
    for a, b in zip(gradients(net, x), gradients(exact, x.double())): assert close(a, b, precision)

def test_channels_last_is_refused_for_its_gradients_would_be_wrong():
    for net in Generator(1, 4), Discriminator(4):
        with pytest.raises(ValueError, match="never channels-last"):
            net.to(memory_format=torch.channels_last)(image(1, 64))

def test_a_discriminators_gradients_agree_with_float64():
    torch.manual_seed(0)
    for n, precision in product((1, 3), FAR):
        net = Discriminator(8, precision=precision)
        exact = copy.deepcopy(net).double()
        exact.precision = "fp32"
        x = image(n, 64)
        weight = lambda out: torch.linspace(-1, 1, out.shape[-1], dtype=out.dtype)
        def grads(net, x):
            out = net(x)
            (out * weight(out)).mean().backward()
            return [p.grad.double() for name, p in net.named_parameters() if name.endswith("weight")]
        for a, b in zip(grads(net, x), grads(exact, x.double())): assert close(a, b, precision)

# the four together

def cyclegan(): return CycleGAN(lambda: Generator(1, 4), lambda: Discriminator(4))

def test_forward_translates_both_ways_and_takes_identities_in_the_same_pass():
    m, a, b = cyclegan(), image(2), image(2, seed=1)
    fake_b, fake_a, same_a, same_b = m(a, b)
    for out, net, x in (fake_b, m.g_ab, a), (fake_a, m.g_ba, b), (same_a, m.g_ba, a), (same_b, m.g_ab, b):
        torch.testing.assert_close(out, net(x), atol=1e-5, rtol=1e-5)
    assert m(a, b, False)[2:] == (None, None)

def test_groups_are_a_partition_of_what_is_trained():
    m = cyclegan()
    ids = [id(p) for group in m.groups() for p in group]
    assert len(set(ids)) == len(ids) and set(ids) == {id(p) for p in m.parameters() if p.requires_grad}

def test_patients_seen_travel_in_the_state_dict():
    m, other = cyclegan(), cyclegan()
    m.seen = ["3", "17"]
    other.load_state_dict(m.state_dict())
    assert other.seen == ["3", "17"]
