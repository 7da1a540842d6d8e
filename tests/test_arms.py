from fractions import Fraction
import pytest
from cxr_fastai.arms import (ARMS, Arm, FUSION_NAMES, POLICIES, RIVALS, TITLES, arm_title, comparisons_of, expand_arms,
                             parse_arm)
from cxr_fastai.models.fusion import FUSIONS

def test_the_papers_arms_and_what_they_read():
    assert ARMS == {"real": "image", "meta": "metadata", "real-meta": "both", "real-synth": "image",
                    "real-synth-meta": "both"}
    assert set(TITLES) == set(ARMS) and arm_title("real-synth-meta") == "Ensemble"

def test_no_word_means_two_things():
    words = [*RIVALS, *POLICIES, *FUSION_NAMES]
    assert len(words) == len(set(words)) and not set(words) & set(ARMS)

def test_fusions_are_those_that_can_be_built(): assert set(FUSION_NAMES) == set(FUSIONS)

@pytest.mark.parametrize("name, arm", [
    ("real", Arm("real")), ("real-meta+focal", Arm("real-meta", rival="focal")),
    ("real-synth-meta+1/8+donor+film", Arm("real-synth-meta", None, "donor", "film", Fraction(1, 8))),
    ("real+duplicate+1", Arm("real", "duplicate", dose=Fraction(1))), ("real-synth+mixup", Arm("real-synth", "mixup"))])
def test_a_name_says_what_differs(name, arm):
    assert parse_arm(name) == arm

def test_titles_say_it_too():
    assert arm_title("real-meta+focal") == "Real-Meta + focal" and arm_title("real-synth-meta+1/8+donor") == "Ensemble + dose 1/8 + donor"

def test_what_an_arm_reads_and_whether_rows_join_it():
    assert parse_arm("real-meta+film").use == "both" and not parse_arm("real-meta+film").more
    assert parse_arm("real+duplicate").more and not parse_arm("real+duplicate").synth
    assert parse_arm("real-synth").more and parse_arm("real-synth").synth

@pytest.mark.parametrize("name, why", [
    ("raal", "not known; there are real, meta"), ("real+focus", "'focus' is no rival"),
                                       ("real-synth+2", "'2' is no rival"),
    ("real-synth+0", "'0' is no rival"), ("real-synth+1/0", "'1/0' is no rival"), ("meta+focal", "arms with images"),
    ("real-meta+donor", "it has none"), ("real-synth+donor", "no metadata is read"),
                                       ("real+film", "needs image and metadata"),
    ("real-synth+duplicate", "take one of both"), ("real-meta+1/8", "it has none"),
                                       ("real+focal+mixup", "two kinds of rival"),
    ("real-synth-meta+1/8+1/4", "two kinds of dose"), ("real-synth-meta+image-only+mixup", "lose their partner")])
def test_a_name_that_makes_no_sense_gets_one_sentence(name, why):
    with pytest.raises(ValueError, match=why): parse_arm(name)

def test_flags_expand_to_arms_each_once():
    arms = expand_arms(["real", "real-meta"], ["focal"], ["0", "1/8", "1"], ["donor"], ["film"])
    assert arms == ["real", "real-meta", "real+focal", "real-meta+focal", "real-synth-meta+1/8", "real-synth-meta+1",
                    "real-synth-meta+donor", "real-meta+film"]
    assert parse_arm(expand_arms([], rivals=RIVALS)[-1]).rival == "duplicate" and len(expand_arms([],
                                                                                                  rivals=RIVALS)) == 14
    with pytest.raises(ValueError, match="'lots' is no rival"): expand_arms([], doses=["lots"])

def test_the_papers_gain_is_compared_first(): assert comparisons_of(ARMS)[0] == ("real-meta", "real-synth-meta")

def test_an_arm_is_compared_with_its_plain_one_a_dose_with_none_and_rivals_with_synthesis():
    arms = expand_arms(ARMS, ["focal"], ["1/8"], ["donor"], ["film"])
    pairs = comparisons_of(arms)
    for o in [("real", "real+focal"), ("real-meta", "real-meta+focal"), ("real-meta+focal", "real-synth-meta"),
              ("real+focal", "real-synth"), ("real-meta", "real-synth-meta+1/8"),
              ("real-synth-meta", "real-synth-meta+donor"),
              ("real-meta", "real-meta+film")]: assert o in pairs
    assert len(pairs) == len(set(pairs)) == 4 + 7 and all(set(o) <= set(arms) for o in pairs)

def test_only_arms_that_are_there_are_compared():
    assert comparisons_of(["real"]) == [] and comparisons_of(["real", "real-synth"]) == [("real", "real-synth")]
