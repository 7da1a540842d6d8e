import pytest
from cxr_fastai.core.words import known_word, nearest_word, WordError
from cxr_fastai.settings import Gan, plan_of

RIVALS = "class-weights", "oversample", "focal", "mixup"

@pytest.mark.parametrize("word, near", [
    ("focl", "did you mean focal?"), ("mix", "did you mean mixup?"), ("Focal", "did you mean focal?"), ("zzz", ""),
    ("", ""), ("--", ""), ("o" * 10_000, "")])
def test_the_nearest_word_is_one_that_begins_so_or_is_spelled_so(word, near): assert nearest_word(word, RIVALS) == near

def test_of_several_that_begin_so_three_are_named():
    assert nearest_word("gan", ["gan-a", "gan-b", "gan-c", "gan-d", "gan-a"]) == "did you mean gan-a or gan-b or gan-c?"

def test_a_known_word_is_given_back_and_another_gets_one_sentence():
    assert known_word("rival", "focal", RIVALS) == "focal"
    with pytest.raises(WordError, match=r"rival='focl' is not known; use .* \(did you mean focal\?\)\.$"):
        known_word("rival", "focl", RIVALS)

@pytest.mark.parametrize("make, near", [
    (lambda: plan_of(arms="rael"), "real"), (lambda: plan_of(arms="real+focl"), "focal"),
    (lambda: plan_of(rivals="mixupp"), "mixup"), (lambda: plan_of(policies="doner"), "donor"),
    (lambda: plan_of(fusion="fillm"), "film"), (lambda: plan_of(epoch=3), "epochs or epoch_rule"),
    (lambda: plan_of(precision="fp23"), "fp32"), (lambda: Gan(gan="refrence"), "reference")])
def test_every_choice_of_a_study_names_the_nearest(make, near):
    with pytest.raises(ValueError, match=rf"did you mean {near}\?"): make()
