from cxr_fastai.core.pairs import pairs_of

def test_pairs_come_once_and_those_that_are_given_first():
    arms = ["real", "real-synth", "real-synth@a", "real-synth@a+1/8", "real-synth@b"]
    pairs = pairs_of(arms, [("real", "real-synth")])
    assert pairs[0] == ("real", "real-synth") and len(pairs) == len({*pairs})
    others = {("real-synth", "real-synth@a"), ("real-synth", "real-synth@b"), ("real-synth@a", "real-synth@b")}
    assert {*pairs} == others | {("real", o) for o in arms[1:]}

def test_one_arm_has_no_pair(): assert pairs_of(["real"], []) == []
