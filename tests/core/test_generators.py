from pathlib import Path
import pytest
from cxr_fastai.core.generators import check_generators

def test_places_are_found_from_any_folder():
    assert check_generators(("a=x", "b=/y=z"), ["real-synth@a", "real+pretrain@b"], "clean") == (
        f"a={Path('x').absolute()}", "b=/y=z")
    assert check_generators((), ["real", "real+pretrain"], "clean") == ()

@pytest.mark.parametrize("given, arms, protocol, said", [
    (("a",), ["real-synth@a"], "clean", "a: write NAME=FOLDER"), (("a=",), ["real-synth@a"], "clean", "a: write NAME"),
    (("a=x", "a=y"), ["real-synth@a"], "clean", "once"), ((), ["real-synth@a"], "clean", "a: an arm has films of it"),
    (("a=x",), ["real"], "clean", "a: no arm has"), (("a/b=x",), ["real"], "clean", "can't name a generator"),
    (("a=x",), ["real-synth@a"], "paper", "take 'clean'"),
    ((), ["real+pretrain-duplicate"], "paper", "without pretrain")])
def test_what_does_not_fit_is_one_sentence(given, arms, protocol, said):
    with pytest.raises(ValueError, match=said): check_generators(given, arms, protocol)
