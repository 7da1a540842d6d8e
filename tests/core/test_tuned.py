import pytest
from cxr_fastai.core.tuned import check_tune, choice_text, choices, tuned_training
from cxr_fastai.settings import plan_of, Training

CHOSEN = dict(lr=1/3000, epochs=12, ps=.1 + .2, fusion="film", trials=30, search="resnet50-real-meta-1a2b3c4d")

def test_a_choice_is_read_back_to_the_bit():
    text = choice_text("hf-hub:me/net", **CHOSEN), choice_text("vgg16", lr=1e-3, epochs=1)
    assert choices(text) == {"hf-hub:me/net": CHOSEN, "vgg16": dict(lr=1e-3, epochs=1)} and choices(None) == {}
    t = Training(tuned=text, bs=7)
    assert tuned_training(t, "vgg16") == Training(lr=1e-3, epochs=1, bs=7) and tuned_training(t, "other") == t
    assert tuned_training(t, "hf-hub:me/net") == Training(lr=1/3000, epochs=12, ps=.1 + .2, fusion="film", bs=7)

@pytest.mark.parametrize("text", ["", "net", "net:epochs=3", "net:lr=", "net:lr=x", ":lr=1", "net:lr=1:what=2",
                                  "net:lr=1:epochs=1.5", "net:lr=1:"])
def test_a_text_that_is_none_is_refused_by_itself(text):
    with pytest.raises(ValueError, match="is not as --tune writes it"): choices((text,))

@pytest.mark.parametrize("flags, why", [
    (dict(tune=3, folds=5), "valid rows of a fold are test rows of another"), (dict(tune=0), "there must be 1 or more"),
    (dict(tuned=["vgg16:lr=1"], folds=5), "one split"), (dict(tune=3, protocol="paper"), "of the protocol 'clean'"),
    (dict(tune=3, epochs=0), "epochs=0"), (dict(tune=3, lr=0.), "lr=0"), (dict(ps=1.), "ps=1 is a dropout"),
    (dict(tuned=["vgg16:lr=1:fusion=cat"]), "fusion='cat' is not known"), (dict(tuned=["no:lr=1"]), "tuned is of no,")])
def test_a_search_that_can_t_be_is_refused_in_a_sentence(flags, why):
    with pytest.raises(ValueError, match=why): plan_of(backbones="vgg16", **flags)

def test_nothing_is_asked_where_nothing_is_searched():
    check_tune(None, Training(lr=9.), ["vgg16"], 5, "paper")
