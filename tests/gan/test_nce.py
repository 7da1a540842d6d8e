import copy
import numpy as np, pytest, torch
from cxr_fastai.gan.cut import CUT
from cxr_fastai.gan.nce import CUTLoss, PatchHeads, checked_patches, patch_nce
from cxr_fastai.gan.networks import Discriminator, Generator

def image(n=2, size=24, seed=0):
    return torch.rand(n, 1, size, size, generator=torch.Generator().manual_seed(seed))*2 - 1

def cut(seed=0, **kwargs):
    torch.manual_seed(seed)
    return CUT(lambda: Generator(2, 4, **kwargs), lambda: Discriminator(4))

def by_hand(q, k, temperature):
    "Of each image: minus the mean log share that a patch gives to its own place."
    res = []
    for a, b in zip(q.double().numpy(), k.double().numpy()):
        shares = [np.exp(b @ x/temperature) for x in a]
        res.append(np.mean([-np.log(o[i]/o.sum()) for i, o in enumerate(shares)]))
    return np.array(res)

def vectors(seed, n=3, p=7, d=5):
    x = torch.randn(n, p, d, generator=torch.Generator().manual_seed(seed))
    return x/x.norm(dim=2, keepdim=True)

@pytest.mark.parametrize("temperature", [.07, .5, 1.])
def test_patch_nce_is_the_cross_entropy_by_hand(temperature):
    q, k = vectors(0), vectors(1)
    assert np.allclose(patch_nce(q, k, temperature), by_hand(q, k, temperature), rtol=1e-5)

def test_patches_that_are_all_alike_are_known_by_chance_and_orthogonal_ones_for_sure():
    alike = torch.ones(2, 16, 4)/2
    assert torch.allclose(patch_nce(alike, alike), torch.full((2,), np.log(16).item()))
    own = torch.eye(16)[None]
    assert patch_nce(own, own) < 1e-4 and patch_nce(own, own.roll(1, 1)) > 10

def test_other_images_are_no_negatives():
    q, k = vectors(0), vectors(1)
    assert torch.allclose(patch_nce(q, k)[:1], patch_nce(q[:1], k[:1]))

def test_heads_give_unit_vectors_of_like_places_in_all_images():
    heads, maps = PatchHeads([1, 8], width=6, patches=10), [image(2, 24), torch.randn(2, 8, 3, 3)]
    places = heads.places(maps)
    assert [len(o) for o in places] == [10, 9] and len(set(places[0].tolist())) == 10
    assert sorted(places[1].tolist()) == list(range(9)) # all that there are
    out = heads(maps, places)
    assert [o.shape for o in out] == [(2, 10, 6), (2, 9, 6)]
    for o in out: assert torch.allclose(o.norm(dim=2), torch.ones(o.shape[:2]), atol=1e-5)
    at = int(places[0][3]) # by hand
    vector = heads.heads[0](maps[0][1, :, at // 24, at % 24])
    assert torch.allclose(out[0][1, 3], vector/vector.norm(), atol=1e-6)
    assert not torch.equal(heads.places(maps)[0], places[0]) # anew

def test_a_gray_channel_has_more_than_two_directions_and_black_has_one():
    out = PatchHeads([1], width=16)([torch.linspace(-1, 1, 16).view(1, 1, 4, 4)*2], [torch.arange(16)])[0][0]
    likeness = out @ out.T
    assert (likeness.abs() < .999).float().mean() > .3 and torch.allclose(out.norm(dim=1), torch.ones(16), atol=1e-5)

@pytest.mark.parametrize("identity", [True, False])
def test_the_loss_by_hand(identity):
    m, a, b = cut(), image(), image(seed=1)
    loss = CUTLoss(m, lam=3., identity=identity)
    torch.manual_seed(7)
    total = loss(m(a, b, identity), a, b)
    torch.manual_seed(7) # of the patches
    with torch.no_grad():
        x = torch.cat([a, b]) if identity else a
        fake = m.g_ab(x)
        maps = [m.g_ab.maps(o, m.at) for o in (fake, x)]
        places = m.heads.places(maps[1])
        each = np.mean([by_hand(q, k, .07) for q, k in zip(*(m.heads(o, places) for o in maps))], axis=0)
        on_b, on_fake = m.d_b(b).numpy(), m.d_b(fake[:2]).numpy()
        expected = dict(adv_ab=((on_fake - 1)**2).mean(),
                        nce_a=3*each[:2].mean()/(1 + identity),
                        d_b=((on_b - 1)**2).mean()/2 + (on_fake**2).mean()/2)
        if identity: expected["nce_b"] = 3*each[2:].mean()/2
    found = {k: float(v) for k, v in loss.parts.items()}
    right = ((on_b > .5).mean() + (on_fake <= .5).mean())/2
    assert found == pytest.approx(expected | dict(acc_d_b=right), rel=1e-4) and set(loss.names) == set(found)
    assert float(total.detach()) == pytest.approx(sum(expected.values()), rel=1e-4)

def grads(net): return torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten()
                                  for p in net.parameters()])

def test_no_gradient_flows_into_the_sources_patches():
    "The same gradients where the sources' vectors are a frozen copy's, and others where they aren't cut off."
    a, b = image(), image(seed=1)
    def run(keys):
        m = cut()
        other = copy.deepcopy(m).requires_grad_(False)
        torch.manual_seed(3)
        fake, maps = m.g_ab.looked(a, m.at)
        places = m.heads.places(maps)
        queries = m.heads(m.g_ab.maps(fake, m.at), places)
        sources = dict(frozen=lambda: other.heads(other.g_ab.maps(a, m.at), places), own=lambda: m.heads(maps, places),
                       ours=lambda: None)[keys]()
        if keys == "ours":
            torch.manual_seed(3)
            pairs = m(a, b, identity=False)[1]
            assert not any(k.requires_grad for _, k in pairs) and all(q.requires_grad for q, _ in pairs)
        else: pairs = list(zip(queries, sources))
        torch.stack([patch_nce(q, k) for q, k in pairs]).mean().backward()
        return grads(m.g_ab), grads(m.heads)
    ours, frozen, own = map(run, ("ours", "frozen", "own"))
    for i in 0, 1:
        assert torch.allclose(ours[i], frozen[i], rtol=1e-3, atol=1e-6)
        assert not torch.allclose(ours[i], own[i], rtol=1e-2, atol=1e-5) and ours[i].abs().sum() > 0

def test_the_players_gradients_are_their_own():
    m, a, b = cut(), image(), image(seed=1)
    loss = CUTLoss(m)
    both = loss(m(a, b, True), a, b)
    both.backward()
    d, g = grads(m.d_b), grads(m.g_ab)
    m.zero_grad()
    with torch.no_grad(): fake = m.g_ab(a)
    loss._tell(m.d_b, b, fake)[0].backward()
    assert torch.allclose(grads(m.d_b), d, atol=1e-7) and g.any() and not grads(m.g_ab).any()
    assert all(p.requires_grad for p in m.d_b.parameters()) and not any(p.requires_grad for p in m.ema.parameters())

def test_identity_every_so_many_steps_weighs_as_much_more():
    m, a, b = cut(), image(), image(seed=1)
    loss, takes = CUTLoss(m, idt_every=3), []
    for _ in range(4):
        takes.append(loss.takes_identity)
        total = float(loss(m(a, b, loss.takes_identity), a, b).detach())
        times = dict(nce_b=3, acc_d_b=0)
        assert total == pytest.approx(sum(float(v)*times.get(k, 1) for k, v in loss.parts.items()), rel=1e-5)
        assert ("nce_b" in loss.parts) == takes[-1]
    assert takes == [True, False, False, True] and not CUTLoss(m, identity=False).takes_identity

def test_the_contrast_is_in_fp32_whatever_is_open_around_it():
    q, k, heads = vectors(0), vectors(1), PatchHeads([4], width=8)
    x = [torch.randn(2, 4, 3, 3)], [torch.arange(9)]
    plain = patch_nce(q, k), heads(*x)[0]
    with torch.autocast("cpu", torch.bfloat16): cast = patch_nce(q, k), heads(*x)[0]
    assert all(map(torch.equal, plain, cast))

def test_wrong_settings_are_one_sentence():
    for wrong, said in ((dict(lam=-1), "lam=-1 is no number from 0"), (dict(lam=(1, 2)), "lam="),
                        (dict(temperature=0), "temperature=0 is no number above 0"), (dict(lam=True), "lam=True"),
                        (dict(identity=.5), "identity=0.5: a CUT's is"), (dict(gan="wgan"), "gan='wgan' is not known"),
                        (dict(idt_every=0), "idt_every=0 is no whole number")):
        with pytest.raises(ValueError, match=said): CUTLoss(None, **wrong)
    for n in 0, 1, 2.5, True, None:
        with pytest.raises(ValueError, match="take 2 or more"): checked_patches(n)
