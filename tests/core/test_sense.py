import pytest
from cxr_fastai.arms import Arm
from cxr_fastai.core.sense import sensible

def test_words_that_go_together_are_the_arm():
    arm = Arm("real-meta", "focal", pretraining="pretrain", films="a")
    assert sensible("real-meta+focal+pretrain@a", arm) is arm

@pytest.mark.parametrize("arm, why", [
    (Arm("meta", pretraining="pretrain"), "it reads none"), (Arm("real-synth", pretraining="pretrain"), "take one"),
    (Arm("real", "duplicate", pretraining="pretrain"), "take one of both"),
    (Arm("real", policy="donor"), "it has none"), (Arm("real", part="local"), "'local' is a part of the change in"),
    (Arm("real", pretraining="pretrain-duplicate", part="local"), "and it has none"),
    (Arm("real-synth-meta", policy="matched", films="a"), "those of a are there; take donor"),
    (Arm("real-meta", policy="donor", pretraining="pretrain-duplicate"), "it has none")])
def test_words_that_do_not_are_one_sentence(arm, why):
    with pytest.raises(ValueError, match=f"The arm 'x' makes no sense: .*{why}"): sensible("x", arm)
