import numpy as np, pandas as pd, pytest, torch
from torch import nn
from cxr_fastai.models.backbone import create_backbone
from cxr_fastai.models.fusion import FusionModel, FUSIONS, ImageModel, MetadataMLP, MetadataModel, parameter_groups
from cxr_fastai.data.metadata import MetadataTransform

TABLE = pd.DataFrame(dict(sex=["F", "M", "F", None], view=["PA", "PA", "AP", "AP"], age=[20, 60, np.nan, 35]))
N = 12

@pytest.fixture(scope="module")
def tfm(): return MetadataTransform().fit(TABLE)

@pytest.fixture
def batch(tfm):
    torch.manual_seed(1)
    return torch.rand(N, 1, 64, 64), tfm(TABLE.iloc[np.arange(N) % 4]).as_subclass(torch.Tensor)

def nothing(tfm, n=N): return tfm(pd.DataFrame(index=range(n))).as_subclass(torch.Tensor)

def make(tfm, fusion="concat", precision="fp32", p_missing=0., arch="test_resnet", ps=0.):
    torch.manual_seed(0)
    backbone = create_backbone(arch, "none", 64)
    mlp = MetadataMLP(tfm, 6, p_missing=p_missing)
    return FusionModel(backbone, mlp, FUSIONS[fusion](backbone.width, 6, 2, ps), precision)

def models(tfm, precision):
    backbone = create_backbone("test_resnet", "none", 64)
    alone = ImageModel(backbone, 2, .5, precision), MetadataModel(MetadataMLP(tfm, 2))
    return [*alone, *(make(tfm, o, precision) for o in FUSIONS)]

# the MLP and its missing token

def test_mlp_has_three_fully_connected_layers_of_the_given_widths(tfm):
    mlp = MetadataMLP(tfm, 5, hidden=(16, 8))
    linear = [m for m in mlp.modules() if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linear] == [(10, 16), (16, 8), (8, 5)]

def test_a_patient_without_metadata_gets_the_token_whatever_the_layers_say(tfm):
    mlp = MetadataMLP(tfm, 5).eval()
    nn.init.normal_(mlp.token)
    x = torch.cat([nothing(tfm, 3), tfm(TABLE)])
    before = mlp(x)
    for p in [*mlp.hidden.parameters(), *mlp.out.parameters()]: nn.init.normal_(p)
    after = mlp(x)
    assert torch.equal(before[:3], mlp.token.expand(3, 5)) and torch.equal(after[:3], before[:3])
    assert (after[3:] != before[3:]).any(1).all() # those with any metadata are read by the layers

def seen_by_layers(mlp, x):
    "What the first layer is given."
    got = []
    handle = mlp.hidden.register_forward_pre_hook(lambda m, args: got.append(args[0].detach()))
    out = mlp(x)
    handle.remove()
    return got[0], out

def test_dropout_masks_whole_columns_as_missing_in_training_only(tfm):
    torch.manual_seed(0)
    mlp, row = MetadataMLP(tfm, 5, p_missing=.3), tfm(TABLE.iloc[[0]])
    x = row.repeat(4000, 1).as_subclass(torch.Tensor)
    assert torch.equal(seen_by_layers(mlp.eval(), x)[0], x)
    masked, out = seen_by_layers(mlp.train(), x)
    columns = [masked[:, tfm.column == c] for c in range(3)]
    for c, o in enumerate(columns):
        as_given = (o == x[:, tfm.column == c]).all(1)
        as_missing = (o == torch.tensor([0.] * (o.shape[1] - 1) + [1.])).all(1)
        assert (as_given ^ as_missing).all() and abs(as_missing.float().mean() - .3) < .03
    both = (columns[0][:, -1] * columns[1][:, -1]).mean()
    assert abs(both - .09) < .02 # columns are masked independently
    token = (out == mlp.token).all(1).float().mean()
    assert abs(token - .3) < .03 # whole patients too

def test_no_dropout_masks_nothing(tfm):
    x = tfm(TABLE).as_subclass(torch.Tensor)
    assert torch.equal(seen_by_layers(MetadataMLP(tfm, 5), x)[0], x)

def test_slots_of_the_columns_move_and_are_saved_with_the_model(tfm):
    assert {"column", "missing"} <= MetadataMLP(tfm, 5).state_dict().keys()

# fusions

@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_parameter_gets_a_gradient_the_token_too(tfm, batch, fusion):
    model, (image, meta) = make(tfm, fusion), batch
    meta = torch.cat([meta[:8], nothing(tfm, 4)])
    opt = torch.optim.SGD(model.parameters(), lr=.1)
    for _ in range(2): # FiLM starts as the image alone: its MLP learns from the second step on
        opt.zero_grad()
        nn.functional.cross_entropy(model(image, meta), torch.arange(N) % 2).backward()
        opt.step()
    without = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    assert not without
    assert model.mlp.token.any()

@pytest.mark.parametrize("fusion", FUSIONS)
def test_each_reads_both_inputs(tfm, batch, fusion):
    model, (image, meta) = make(tfm, fusion).eval(), batch
    if fusion == "film": nn.init.normal_(model.head.film.weight)
    out = model(image, meta)
    assert out.shape == (N, 2)
    for other in (model(image.flip(0), meta), model(image, meta.roll(1, 0))): assert not torch.allclose(out, other)

def test_image_model_reads_no_metadata_and_metadata_model_no_image(tfm, batch):
    image, meta = batch
    alone, words, *_ = [m.eval() for m in models(tfm, "fp32")]
    assert torch.equal(alone(image), alone(image, meta)) and torch.equal(words(meta), words(image, meta))

def test_logits_is_the_mean_of_both_and_film_starts_as_the_image(tfm, batch):
    image, meta = batch
    model = make(tfm, "logits").eval()
    pooled = model.backbone(image).mean((2, 3))
    torch.testing.assert_close(model(image, meta), (model.head.image(pooled) + model.head.meta(model.mlp(meta))) / 2)
    model = make(tfm, "film").eval()
    torch.testing.assert_close(model(image, meta), model.head.head(model.backbone(image).mean((2, 3))))

def test_attention_looks_where_its_weights_say():
    torch.manual_seed(0)
    head = FUSIONS["attention"](8, 6, 2, 0.).eval()
    fmap, meta = torch.randn(3, 8, 2, 5), torch.randn(3, 6)
    places = fmap.flatten(2).transpose(1, 2)
    w = (head.key(places) @ head.query(meta)[..., None] / 64**.5).softmax(1)
    want = head.head(torch.cat([fmap.mean((2, 3)), (w * places).sum(1), meta], 1))
    torch.testing.assert_close(head(fmap, meta), want)

def test_gate_chooses_between_the_two():
    head = FUSIONS["gated"](8, 6, 2, 0.).eval()
    fmap, meta = torch.randn(3, 8, 2, 2), torch.randn(3, 6)
    nn.init.zeros_(head.gate.weight)
    for bias, own in (50., head.image(fmap.mean((2, 3)))), (-50., head.meta(meta)):
        nn.init.constant_(head.gate.bias, bias)
        torch.testing.assert_close(head(fmap, meta), head.head(own.tanh()))

@pytest.mark.parametrize("arch", ["test_vit", "test_efficientnet", "test_mambaout"])
def test_any_kind_of_backbone_fits_every_fusion(tfm, batch, arch):
    for fusion in FUSIONS: assert make(tfm, fusion, arch=arch)(*batch).isfinite().all()

# rows that train the image branch alone

def grads(module): return [p.grad for p in module.parameters()]
def none_at_all(module): return all(g is None or not g.any() for g in grads(module))

def prepared(tfm, fusion, **kwargs):
    "A model whose token and FiLM layer would pass a gradient on, in training."
    model = make(tfm, fusion, **kwargs)
    nn.init.normal_(model.mlp.token)
    if fusion == "film": nn.init.normal_(model.head.film.weight)
    return model

def with_only(meta, *at):
    meta = meta.clone()
    meta[list(at)] = torch.nan
    return meta

@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("only", [(1, 4, 5), range(N), range(1, N)])
def test_only_the_backbone_learns_from_an_image_only_row(tfm, batch, fusion, only, precision):
    model, (image, meta) = prepared(tfm, fusion, precision=precision), batch
    out = model(image, with_only(meta, *only))
    assert out.shape == (N, 2) and out.dtype == torch.float32 and out.isfinite().all()
    nn.functional.cross_entropy(out[list(only)], torch.ones(len(only), dtype=torch.long)).backward()
    assert none_at_all(model.mlp) and none_at_all(model.head)
    assert all(g is not None and g.isfinite().all() for g in grads(model.backbone))
    assert sum(g.abs().sum() for g in grads(model.backbone)) > 0

@pytest.mark.parametrize("fusion", FUSIONS)
def test_an_image_only_row_is_a_patient_without_metadata_to_the_head(tfm, batch, fusion):
    model, (image, meta) = prepared(tfm, fusion).eval(), batch
    absent = meta.clone()
    absent[[0, 7]] = nothing(tfm, 2)
    torch.testing.assert_close(model(image, with_only(meta, 0, 7)), model(image, absent))
    everyone = model(image, with_only(meta, *range(N)))
    torch.testing.assert_close(everyone, model(image, nothing(tfm)))

@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_mlp_and_its_batch_norm_see_the_other_rows_only(tfm, batch, fusion):
    model, twin, (image, meta) = prepared(tfm, fusion), prepared(tfm, fusion), batch
    real = [i for i in range(N) if i not in (2, 3, 9)]
    out = model(image, with_only(meta, 2, 3, 9))
    want = twin.head(twin.backbone(image)[real], twin.mlp(meta[real]))
    torch.testing.assert_close(out[real], want)
    for o in (out[real], want): o.square().sum().backward()
    for a, b in zip(grads(model), grads(twin)): torch.testing.assert_close(a, b)
    for a, b in zip(model.buffers(), twin.buffers()): torch.testing.assert_close(a, b)

def test_a_lone_row_beside_image_only_ones_is_a_patient_without_metadata(tfm, batch):
    model, (image, meta) = prepared(tfm, "concat"), batch
    before = [o.clone() for o in model.mlp.buffers()]
    out = model(image, with_only(meta, *range(1, N)))
    out[0].sum().backward()
    assert none_at_all(model.mlp.hidden) and model.mlp.token.grad.any() and not none_at_all(model.head)
    assert all(torch.equal(a, b) for a, b in zip(before, model.mlp.buffers()))

@pytest.mark.parametrize("fusion", FUSIONS)
def test_without_image_only_rows_nothing_is_different(tfm, batch, fusion):
    model, twin, (image, meta) = *(prepared(tfm, fusion, p_missing=.2, ps=.3) for _ in range(2)), batch
    torch.manual_seed(3)
    out = model(image, meta)
    torch.manual_seed(3)
    want = twin.head(twin.backbone(image), twin.mlp(meta))
    assert torch.equal(out, want)
    for o in (out, want): o.square().sum().backward()
    assert all(torch.equal(a, b) for a, b in zip(grads(model), grads(twin)))
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), twin.buffers()))

def test_image_model_does_not_mind_image_only_rows_and_metadata_model_refuses_them(tfm, batch):
    (image, meta), (alone, words, *_) = batch, [m.eval() for m in models(tfm, "fp32")]
    assert torch.equal(alone(image, with_only(meta, 1)), alone(image))
    for inputs in ((image, with_only(meta, 1)), (with_only(meta, 1),)):
        with pytest.raises(ValueError, match="Image-only rows have no metadata"): words(*inputs)

# precision

def conv_dtypes(model, batch):
    "Dtypes in and out of the first convolution, and of the logits."
    conv, seen = next(m for m in model.modules() if isinstance(m, nn.Conv2d)), []
    handle = conv.register_forward_hook(lambda m, x, out: seen.extend([out.dtype]))
    out = model(*batch)
    handle.remove()
    return seen[0], out.dtype

def test_bf16_computes_in_bf16_and_gives_fp32_logits(tfm, batch):
    for m in models(tfm, "bf16"):
        if hasattr(m, "backbone"): assert conv_dtypes(m, batch) == (torch.bfloat16, torch.float32)
        out = m(*batch)
        out.sum().backward()
        grads = [p.grad for p in m.parameters() if p.grad is not None]
        assert {out.dtype, *(o.dtype for o in grads), *(p.dtype for p in m.parameters())} == {torch.float32} and grads

def test_fp32_computes_in_fp32(tfm, batch):
    for m in models(tfm, "fp32"):
        if hasattr(m, "backbone"): assert conv_dtypes(m, batch) == (torch.float32, torch.float32)

def test_float64_stays_float64(tfm, batch):
    image, meta = (o.double() for o in batch)
    for m in models(tfm, "fp32"):
        full, half = m.double().eval()(image, meta), m.float()(*batch)
        assert full.dtype == torch.float64 and half.dtype == torch.float32
        torch.testing.assert_close(full.float(), half, atol=1e-4, rtol=1e-4)
        assert not torch.equal(full, full.float().double()) # computed so, not only named so

@pytest.mark.parametrize("fusion", FUSIONS)
def test_bf16_and_fp16_are_near_fp32(tfm, batch, fusion):
    full = make(tfm, fusion).eval()
    for precision, far in dict(bf16=.05, fp16=.01).items():
        half = make(tfm, fusion, precision=precision).eval()
        torch.testing.assert_close(half(*batch), full(*batch), atol=far, rtol=far)

# parameter groups

def test_groups_are_early_body_late_body_and_the_rest(tfm):
    model = make(tfm)
    early, late, rest = parameter_groups(model)
    ids = [{id(p) for p in g} for g in (early, late, rest)]
    assert ids[0] | ids[1] == {id(p) for p in model.backbone.parameters()}
    assert ids[2] == {id(p) for m in (model.mlp, model.head) for p in m.parameters()}
    assert sum(map(len, ids)) == len(list(model.parameters())) == sum(map(len, (early, late, rest)))
    assert [len(parameter_groups(o)) for o in models(tfm, "fp32")] == [3, 1, 3, 3, 3, 3, 3]

def test_a_parameter_in_no_group_or_in_two_is_refused(tfm, monkeypatch):
    import cxr_fastai.models.fusion as module
    model, split = make(tfm), module.split_backbone
    early, late = split(model.backbone)
    for wrong in ((early + [nn.Parameter(torch.zeros(1))], late), (early, late + early[:1])):
        monkeypatch.setattr(module, "split_backbone", lambda backbone: wrong)
        with pytest.raises(RuntimeError, match="no partition"): parameter_groups(model)

def test_no_parameter_of_a_module_added_later_is_forgotten(tfm):
    model = make(tfm)
    model.extra = nn.Linear(2, 2)
    assert {id(p) for p in model.extra.parameters()} <= {id(p) for p in parameter_groups(model)[2]}
