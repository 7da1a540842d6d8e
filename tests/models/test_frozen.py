import numpy as np, pytest, torch
from cxr_fastai.cohort.cache import RadiographCache
from cxr_fastai.models.frozen import frozen_backbone, FrozenFeatures

ARCH = "test_resnet.r160_in1k"

def features_of(tmp_path, **kwargs): return FrozenFeatures(ARCH, "none", 32, folder=tmp_path, **kwargs)

@pytest.fixture(scope="module")
def films(rows): return rows["file"].tolist()

@pytest.fixture(scope="module")
def cache(films): return RadiographCache(films, 32)

def test_a_feature_is_the_mean_of_the_backbones_map(films, cache, tmp_path):
    found = features_of(tmp_path, precision="fp32")(films[:5], cache)
    backbone = frozen_backbone(ARCH, "none", 32)
    with torch.no_grad(): fmap = backbone(torch.from_numpy(cache.get(films[:5]))[:, None].float()/255)
    assert found.shape == (5, 1, backbone.width) and torch.allclose(found[:, 0], fmap.mean((2, 3)), atol=1e-5)

def test_films_are_looked_at_once_and_give_the_same_bits(films, cache, tmp_path, monkeypatch):
    first = features_of(tmp_path)(films, cache)
    seen, real = [], FrozenFeatures.look
    monkeypatch.setattr(FrozenFeatures, "look", lambda self, x: seen.append(len(x)) or real(self, x))
    again = features_of(tmp_path)(films[::-1], cache)
    assert not seen and torch.equal(again.flip(0), first)
    alone = FrozenFeatures(ARCH, "none", 32, folder=tmp_path/"other")(films[3:4], cache)
    assert torch.equal(alone, first[3:4]) # in whatever company

def test_what_determines_them_names_the_store(tmp_path):
    names = {features_of(tmp_path, **o).store.name for o in ({}, dict(precision="fp32"), dict(precision="bf16"),
                                                            dict(views=2), dict(views=3), dict(views=2, tfms=[]))}
    assert len(names) == 5 # one precision is 'auto'
    assert FrozenFeatures(ARCH, "none", 64, folder=tmp_path).store.name not in names

def test_views_are_the_film_and_others_that_its_pixels_draw(films, cache, tmp_path):
    one, three = features_of(tmp_path)(films[:4], cache), features_of(tmp_path, views=3)(films[:4], cache)
    assert torch.equal(three[:, 0], one[:, 0]) and not torch.equal(three[:, 1], three[:, 0])
    assert not torch.equal(three[:, 1], three[:, 2])
    torch.manual_seed(5) # the user's own draws change nothing, and aren't changed
    state = torch.get_rng_state()
    again = FrozenFeatures(ARCH, "none", 32, views=3, folder=tmp_path/"other")(films[:4], cache)
    assert torch.equal(again, three) and torch.equal(torch.get_rng_state(), state)
    with pytest.raises(ValueError, match="looked at at least once"): features_of(tmp_path, views=0)

def test_a_damaged_file_is_said_and_computed_again(films, cache, tmp_path, capsys):
    before = features_of(tmp_path)(films, cache)
    file = next(features_of(tmp_path).store.glob("*.npz"))
    file.write_bytes(file.read_bytes()[:100])
    assert torch.equal(features_of(tmp_path)(films, cache), before) and "is damaged" in capsys.readouterr().out

def test_a_kill_loses_nothing_that_was_written(films, cache, tmp_path, monkeypatch):
    monkeypatch.setattr("cxr_fastai.models.frozen.EVERY", 0)
    monkeypatch.setattr("cxr_fastai.models.frozen.BS", 16)
    real, calls = FrozenFeatures.look, []
    def dies(self, x):
        calls.append(len(x))
        if len(calls) == 3: raise KeyboardInterrupt
        return real(self, x)
    monkeypatch.setattr(FrozenFeatures, "look", dies)
    with pytest.raises(KeyboardInterrupt): features_of(tmp_path)(films, cache)
    assert len(list(features_of(tmp_path).store.glob("*.npz"))) == 2
    whole, left = features_of(tmp_path)(films, cache), sum(calls[3:])
    assert len(whole) == len(films) and left == len(films) - 32

def test_the_same_film_twice_is_looked_at_once(films, cache, tmp_path):
    found = features_of(tmp_path)([films[0], films[0]], cache)
    kept = np.load(next(features_of(tmp_path).store.glob("*.npz")))
    assert torch.equal(found[0], found[1]) and len(kept["keys"]) == 1

def test_two_backbones_without_weights_are_one():
    frozen_backbone.cache_clear()
    torch.manual_seed(3)
    one = frozen_backbone(ARCH, "none", 32).state_dict()
    frozen_backbone.cache_clear()
    torch.manual_seed(4)
    assert all(torch.equal(o, one[k]) for k, o in frozen_backbone(ARCH, "none", 32).state_dict().items())
    assert not any(o.requires_grad for o in frozen_backbone(ARCH, "none", 32).parameters())
