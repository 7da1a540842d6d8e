import copy, math, pickle
import pytest, torch, torch.nn.functional as F
from cxr_fastai.gan.losses import CycleGANLoss, DIFFAUG, ImagePool, diff_augment
from cxr_fastai.gan.networks import CycleGAN, Discriminator, Generator, from_reference
from .test_networks import discriminator_state, generator_state, image, reference_discriminator, reference_generator

def cyclegan(seed=0, **kwargs):
    torch.manual_seed(seed)
    return CycleGAN(lambda: Generator(1, 4, **kwargs), lambda: Discriminator(4))

def parts(loss, a, b, identity=True):
    total = loss(loss.model(a, b, identity), a, b)
    return total, loss.parts

def grads(nets): return [p.grad for net in nets for p in net.parameters()]

# the reference's numbers

def reference_losses(g_a, g_b, d_a, d_b, a, b):
    "The eight losses under the reference's names: netG_A makes B of A, netD_A judges B; lambda 10, identity .5."
    gen, dis = lambda s, x: reference_generator(s, x, 1), reference_discriminator
    real = lambda logits: ((logits - 1)**2).mean()
    fake = lambda logits: (logits**2).mean()
    fake_b, fake_a = gen(g_a, a), gen(g_b, b)
    l1 = lambda x, y: (x - y).abs().mean()
    return dict(G_A=real(dis(d_a, fake_b)), G_B=real(dis(d_b, fake_a)),
                cycle_A=10*l1(gen(g_b, fake_b), a), cycle_B=10*l1(gen(g_a, fake_a), b),
                idt_A=5*l1(gen(g_a, b), b), idt_B=5*l1(gen(g_b, a), a),
                D_A=(real(dis(d_a, b)) + fake(dis(d_a, fake_b)))/2, D_B=(real(dis(d_b, a)) + fake(dis(d_b, fake_a)))/2)

OURS = dict(G_A="adv_ab", G_B="adv_ba", cycle_A="cyc_a", cycle_B="cyc_b", idt_A="idt_b", idt_B="idt_a", D_A="d_b",
            D_B="d_a")

@pytest.mark.parametrize("n", [1, 2])
def test_the_eight_losses_are_the_references(n):
    g_a, g_b = (generator_state(1, 4, o) for o in (0, 1))
    d_a, d_b = (discriminator_state(4, o) for o in (2, 3))
    m, a, b = cyclegan(), image(n, 64), image(n, 64, 1)
    for net, state in (m.g_ab, g_a), (m.g_ba, g_b), (m.d_b, d_a), (m.d_a, d_b):
        net.load_state_dict(from_reference(state))
    total, found = parts(CycleGANLoss(m), a, b)
    expected = reference_losses(g_a, g_b, d_a, d_b, a, b)
    for theirs, ours in OURS.items():
        assert float(found[ours]) == pytest.approx(float(expected[theirs]), rel=1e-5, abs=1e-5), theirs
    assert float(total) == pytest.approx(sum(map(float, expected.values())), rel=1e-5)

def test_each_direction_may_have_a_weight_of_its_own():
    "The reference's lambda_A weighs the cycle from A and the identity of A, lambda_B those of B."
    a, b = image(1), image(1, seed=1)
    one, two, same = (parts(CycleGANLoss(cyclegan(), lam=o), a, b) for o in (1., (3., 7.), (1., 1.)))
    for name, part in one[1].items():
        times = dict(cyc_a=3, idt_a=3, cyc_b=7, idt_b=7).get(name, 1)
        assert float(two[1][name]) == pytest.approx(times*float(part), rel=1e-5), name
        assert torch.equal(same[1][name], part)
    total = sum(float(part) for name, part in two[1].items() if not name.startswith("acc"))
    assert float(two[0].detach()) == pytest.approx(total, rel=1e-5) and torch.equal(one[0], same[0])

@pytest.mark.parametrize("lam", [(1,), (1, 2, 3), (), -1., (1, -1), "10", None, (1, None), float("nan"), (1, math.inf),
                                 True, [1., "2"]])
def test_a_weight_that_is_none_is_refused(lam):
    with pytest.raises(ValueError, match="is neither a number from 0 up nor two of them"): CycleGANLoss(None, lam=lam)

def adam(*nets): return torch.optim.Adam([p for o in nets for p in o.parameters()], 2e-4, betas=(.5, .999))

def test_one_backward_and_one_adam_of_two_groups_are_the_references_two_steps():
    one, two = cyclegan(), cyclegan()
    loss, same = CycleGANLoss(one), CycleGANLoss(two) # the second for its pools and its discriminators' part
    opt = torch.optim.Adam([dict(params=o) for o in one.groups()], 2e-4, betas=(.5, .999))
    opt_g, opt_d = adam(two.g_ab, two.g_ba), adam(two.d_a, two.d_b)
    for step in range(3):
        a, b = image(2, 32, 2*step), image(2, 32, 2*step + 1)
        opt.zero_grad()
        parts(loss, a, b)[0].backward()
        opt.step()
        # the reference: generators first, then discriminators on the fakes from before the generators' step
        fake_b, fake_a, same_a, same_b = two(a, b)
        for d in (two.d_a, two.d_b): d.requires_grad_(False)
        mse = lambda logits, y: F.mse_loss(logits, torch.full_like(logits, y))
        opt_g.zero_grad()
        (mse(two.d_b(fake_b), 1.) + mse(two.d_a(fake_a), 1.) + 10*F.l1_loss(two.g_ba(fake_b), a)
         + 10*F.l1_loss(two.g_ab(fake_a), b) + 5*F.l1_loss(same_a, a) + 5*F.l1_loss(same_b, b)).backward()
        opt_g.step()
        for d in (two.d_a, two.d_b): d.requires_grad_(True)
        opt_d.zero_grad()
        for d, real, fake, pool in (two.d_a, a, fake_a, same.pool_a), (two.d_b, b, fake_b, same.pool_b):
            on_real, on_fake = d(torch.cat([real, pool(fake.detach())])).chunk(2)
            ((mse(on_real, 1.) + mse(on_fake, 0.)) / 2).backward()
        opt_d.step()
    for p, q in zip(one.parameters(), two.parameters()): assert torch.equal(p, q)
    assert not torch.equal(one.g_ab.layers[1].weight, cyclegan().g_ab.layers[1].weight)

def test_no_loss_reaches_the_other_players():
    m, a, b = cyclegan(), image(1), image(1, seed=1)
    loss = CycleGANLoss(m)
    fake_b, fake_a, *_ = m(a, b)
    (loss._fool(m.d_b, fake_b) + loss._fool(m.d_a, fake_a)).backward()
    assert all(g is None for g in grads([m.d_a, m.d_b])) and all(g is not None for g in grads([m.g_ab, m.g_ba]))
    m.zero_grad(set_to_none=True)
    (loss._tell(m.d_b, b, fake_b.detach())[0] + loss._tell(m.d_a, a, fake_a.detach())[0]).backward()
    assert all(g is None for g in grads([m.g_ab, m.g_ba])) and all(g is not None for g in grads([m.d_a, m.d_b]))

def test_the_sum_gives_each_player_its_own_gradient_alone():
    m, a, b = cyclegan(), image(1), image(1, seed=1)
    loss = CycleGANLoss(m, pool=0)
    parts(loss, a, b)[0].backward()
    whole = [g.clone() for g in grads([m.d_a, m.d_b])]
    m.zero_grad(set_to_none=True)
    fake_b, fake_a, *_ = m(a, b)
    sum(loss._tell(d, real, fake.detach())[0] for d, real, fake in ((m.d_a, a, fake_a), (m.d_b, b, fake_b))).backward()
    for x, y in zip(whole, grads([m.d_a, m.d_b])): assert torch.equal(x, y)

def test_discriminators_learn_again_after_an_error():
    m = cyclegan()
    low, high = image(1, 32)[:, :, :3], image(1)
    with pytest.raises(RuntimeError): CycleGANLoss(m)((low, high, None, None), high, high)
    assert all(p.requires_grad for p in m.d_b.parameters())

# switches

def test_identity_every_so_many_steps_has_as_many_times_the_weight():
    m, a, b = cyclegan(), image(1), image(1, seed=1)
    loss = CycleGANLoss(m, idt_every=3, pool=0)
    for step in range(5):
        assert loss.takes_identity == (step % 3 == 0)
        total, found = parts(loss, a, b, loss.takes_identity)
        assert ("idt_a" in found) == (step % 3 == 0)
        weights = {k: 3 if k.startswith("idt") else 0 if k.startswith("acc") else 1 for k in found}
        assert float(total) == pytest.approx(sum(float(v)*weights[k] for k, v in found.items()), rel=1e-5)

def test_without_identity_there_is_none():
    loss = CycleGANLoss(cyclegan(), identity=0.)
    assert not loss.takes_identity and not [o for o in loss.names if o.startswith("idt")]
    assert len(CycleGANLoss(cyclegan()).names) == 10

def test_bce_by_hand():
    m, a, b = cyclegan(), image(1), image(1, seed=1)
    _, found = parts(CycleGANLoss(m, gan="bce", pool=0), a, b)
    logits = m.d_b(m.g_ab(a))
    assert float(found["adv_ab"]) == pytest.approx(float(-logits.sigmoid().log().mean()), rel=1e-4)
    real = m.d_b(b)
    assert float(found["d_b"]) == pytest.approx(
        float(-real.sigmoid().log().mean() - (1 - logits.sigmoid()).log().mean())/2, rel=1e-4)

class Says(torch.nn.Module):
    "A discriminator of one opinion on a bright image and another on a dark one."
    def __init__(self, bright, dark):
        super().__init__()
        self.weight, self.bright, self.dark = torch.nn.Parameter(torch.ones(())), bright, dark
    def forward(self, x):
        return torch.where(x.mean((1, 2, 3)) > 0, self.bright, self.dark)[:, None, None, None] * self.weight

@pytest.mark.parametrize("bright, dark, loss, acc",
                         [(1., 0., 0., 1.), (0., 1., 1., 0.), (.5, .5, .25, .5), (.9, .8, .325, .5)])
def test_a_discriminators_loss_and_accuracy_by_hand(bright, dark, loss, acc):
    found, right = CycleGANLoss(cyclegan())._tell(Says(bright, dark), image(2).abs(), -image(2).abs())
    assert float(found) == pytest.approx(loss) and float(right) == acc # .25: where nothing can be told, the equilibrium

def test_unknown_words_are_named():
    with pytest.raises(ValueError, match="gan='wgan' is not known; use lsgan or bce"):
        CycleGANLoss(cyclegan(), gan="wgan")
    with pytest.raises(ValueError, match="diffaug: flip is not known; there are brightness, contrast"):
        CycleGANLoss(cyclegan(), diffaug="cutout,flip")

# the pool

def numbered(*ns): return torch.tensor(ns, dtype=torch.float)[:, None, None, None].expand(-1, 1, 2, 2)

def test_a_pool_fills_then_gives_old_images_half_the_time():
    pool, back = ImagePool(10, seed=0), []
    assert torch.equal(pool(numbered(*range(10))), numbered(*range(10)))
    for i in range(10, 1010):
        back.append(int(pool(numbered(i))[0, 0, 0, 0]))
        assert len(pool.images) == 10
    old = [o for o, i in zip(back, range(10, 1010)) if o != i]
    assert 430 < len(old) < 570 and len(set(old)) == len(old) # an old one is given once

def test_a_pool_of_none_gives_everything_back():
    x = numbered(1, 2)
    assert ImagePool(0)(x) is x

def test_a_pool_goes_on_from_its_state():
    pool, other = ImagePool(5, seed=1), ImagePool(5, seed=2)
    for i in range(20): pool(numbered(i))
    other.load_state_dict(copy.deepcopy(pool.state_dict()))
    for i in range(20, 60): assert torch.equal(pool(numbered(i)), other(numbered(i)))

def test_a_pickled_loss_carries_no_image():
    loss = CycleGANLoss(cyclegan())
    parts(loss, image(1), image(1, seed=1))
    assert loss.pool_a.images and not pickle.loads(pickle.dumps(loss.pool_a)).images

# differentiable augmentation

@pytest.mark.parametrize("name", DIFFAUG)
def test_augmentation_passes_gradients_and_treats_each_image_its_own_way(name):
    torch.manual_seed(0)
    x = (image(1, 32).repeat(8, 1, 1, 1) + .01).requires_grad_()
    y = diff_augment(x, name)
    assert y.shape == x.shape and not all(torch.equal(y[0], o) for o in y[1:])
    y.sum().backward()
    assert x.grad.abs().sum() > 0

def test_translation_moves_by_at_most_an_eighth_and_zeros_come_in():
    torch.manual_seed(0)
    x = torch.zeros(200, 1, 32, 32)
    x[:, :, 16, 16] = 1
    _, _, i, j = DIFFAUG["translation"](x).nonzero(as_tuple=True)
    assert len(i) == 200 and set((i - 16).tolist()) == set((j - 16).tolist()) == set(range(-4, 5))
    assert (DIFFAUG["translation"](torch.ones(50, 1, 32, 32)) == 0).any()

def test_cutout_takes_at_most_a_quarter():
    torch.manual_seed(0)
    gone = (DIFFAUG["cutout"](torch.ones(200, 1, 32, 32)) == 0).float().mean((1, 2, 3))
    assert gone.max() <= .25 and gone.max() > .2 and gone.min() > 0

def test_no_policy_changes_nothing():
    x = image(2)
    assert diff_augment(x, "") is x
