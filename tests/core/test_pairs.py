from cxr_fastai.core.pairs import pairs_of

def test_pairs_come_once_and_those_that_are_given_first():
    arms = ["real", "real-synth", "real-synth@a", "real-synth@a+1/8", "real-synth@b"]
    pairs = pairs_of(arms, [("real", "real-synth")])
    assert pairs[0] == ("real", "real-synth") and len(pairs) == len({*pairs})
    others = {("real-synth", "real-synth@a"), ("real-synth", "real-synth@b"), ("real-synth@a", "real-synth@b")}
    assert {*pairs} == others | {("real", o) for o in arms[1:]}

def test_a_part_of_the_change_is_compared_with_the_real_arm_with_all_of_it_and_with_duplicates():
    arms = ["real", "real+duplicate", "real-synth", "real-synth+local", "real-synth@a", "real-synth@a+local",
            "real-synth+1/8", "real-synth+1/8+local"]
    pairs = pairs_of(arms, [])
    own = {pair for pair in pairs if pair[1].endswith("local")}
    assert own == {("real", "real-synth+local"), ("real", "real-synth@a+local"), ("real", "real-synth+1/8+local"),
                   ("real-synth", "real-synth+local"), ("real-synth@a", "real-synth@a+local"),
                   ("real-synth+1/8", "real-synth+1/8+local"), ("real+duplicate", "real-synth+local"),
                   ("real+duplicate", "real-synth@a+local"), ("real-synth+local", "real-synth@a+local")}

def test_pretraining_on_a_part_is_compared_with_its_control_and_with_all_of_the_change():
    arms = ["real", "real+pretrain-duplicate", "real+pretrain", "real+pretrain+local", "real-synth+local"]
    own = {a for a, b in pairs_of(arms, []) if b == "real+pretrain+local"}
    assert own == {"real", "real+pretrain-duplicate", "real+pretrain", "real-synth+local"}

def test_one_arm_has_no_pair(): assert pairs_of(["real"], []) == []
