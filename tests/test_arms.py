from fractions import Fraction
import pandas as pd, pytest
from fastai.callback.core import Callback
from fastai.losses import LabelSmoothingCrossEntropyFlat
from torch import nn
from cxr_fastai.arms import (ARMS, Arm, arm_title, comparisons_of, expand_arms, Fusion, FUSIONS, is_plain, parse_arm,
                             Part, PARTS, POLICIES, Policy, primary_of, Rival, RIVALS)
from cxr_fastai.cohort.rows import is_image_only, positive
from cxr_fastai.cohort.synthetic import add_synthetic
from cxr_fastai.data.loaders import RadiographDataLoaders
from cxr_fastai.gan.synthesis import synthesise
from cxr_fastai.models.learner import fusion_learner
from cxr_fastai.models.rivals import rival_dls, rival_learner, train_prior

def test_the_papers_arms_and_what_they_read():
    assert {name: inputs.use for name, inputs in ARMS.items()} == {
        "real": "image", "meta": "metadata", "real-meta": "both", "real-synth": "image", "real-synth-meta": "both"}
    assert [name for name in ARMS if parse_arm(name).synth] == ["real-synth", "real-synth-meta"]
    assert arm_title("real-synth-meta") == "Ensemble"

def test_no_word_means_two_things():
    words = [*RIVALS, *POLICIES, *FUSIONS]
    assert len(words) == len(set(words)) and not set(words) & set(ARMS)

@pytest.mark.parametrize("name, arm", [
    ("real", Arm("real")), ("real-meta+focal", Arm("real-meta", rival="focal")),
    ("real-synth-meta+1/8+donor+film", Arm("real-synth-meta", None, "donor", "film", Fraction(1, 8))),
    ("real+duplicate+1", Arm("real", "duplicate", dose=Fraction(1))), ("real-synth+mixup", Arm("real-synth", "mixup"))])
def test_a_name_says_what_differs(name, arm):
    assert parse_arm(name) == arm

def test_titles_say_it_too():
    assert arm_title("real-meta+focal") == "Real-Meta + focal"
    assert arm_title("real-synth-meta+1/8+donor") == "Ensemble + dose 1/8 + donor"

def test_what_an_arm_reads_and_whether_rows_join_it():
    assert parse_arm("real-meta+film").use == "both" and not parse_arm("real-meta+film").more
    assert parse_arm("real+duplicate").more and not parse_arm("real+duplicate").synth
    assert parse_arm("real-synth").more and parse_arm("real-synth").synth

@pytest.mark.parametrize("name, why", [
    ("raal", "not known; there are real, meta"), ("real+focus", "'focus' is no rival"),
    ("real-synth+2", "'2' is no rival"), ("real-synth+0", "'0' is no rival"), ("real-synth+1/0", "'1/0' is no rival"),
    ("meta+focal", "arms with images"), ("real-meta+donor", "it has none"), ("real-synth+donor", "no metadata is read"),
    ("real+film", "needs image and metadata"), ("real-synth+duplicate", "take one of both"),
    ("real-meta+1/8", "it has none"), ("real+focal+mixup", "two kinds of rival"),
    ("real-synth-meta+1/8+1/4", "two kinds of dose"), ("real-synth-meta+image-only+mixup", "lose their partner")])
def test_a_name_that_makes_no_sense_gets_one_sentence(name, why):
    with pytest.raises(ValueError, match=why): parse_arm(name)

def test_flags_expand_to_arms_each_once():
    arms = expand_arms(["real", "real-meta"], ["focal"], ["0", "1/8", "1"], ["donor"], ["film"])
    assert arms == ["real", "real-meta", "real+focal", "real-meta+focal", "real-synth-meta+1/8", "real-synth-meta+1",
                    "real-synth-meta+donor", "real-meta+film"]
    assert parse_arm(expand_arms([], rivals=RIVALS)[-1]).rival == "duplicate"
    assert len(expand_arms([], rivals=RIVALS)) == 14
    with pytest.raises(ValueError, match="'lots' is no rival"): expand_arms([], doses=["lots"])

def test_without_synthesis_the_question_is_about_the_metadata():
    assert primary_of(ARMS) == ("real-meta", "real-synth-meta")
    assert primary_of(["real", "meta", "real-meta", "real-synth"]) == ("real", "real-meta")
    assert primary_of(["meta", "real-meta"]) == ("meta", "real-meta") and primary_of(["real", "real+focal"]) is None

def test_the_papers_gain_is_compared_first(): assert comparisons_of(ARMS)[0] == ("real-meta", "real-synth-meta")

def test_an_arm_is_compared_with_its_plain_one_a_dose_with_none_and_rivals_with_synthesis():
    arms = expand_arms(ARMS, ["focal"], ["1/8"], ["donor"], ["film"])
    pairs = comparisons_of(arms)
    for o in [("real", "real+focal"), ("real-meta", "real-meta+focal"), ("real-meta+focal", "real-synth-meta"),
              ("real+focal", "real-synth"), ("real-meta", "real-synth-meta+1/8"),
              ("real-synth-meta", "real-synth-meta+donor"), ("real-meta", "real-meta+film")]:
        assert o in pairs
    assert len(pairs) == len(set(pairs)) == 4 + 7 and all(set(o) <= set(arms) for o in pairs)

def test_only_arms_that_are_there_are_compared():
    assert comparisons_of(["real"]) == [] and comparisons_of(["real", "real-synth"]) == [("real", "real-synth")]

# an entry from outside: one source file, and everything knows it

class Fade:
    "A generator that was never trained: less contrast."
    size, seen = 32, frozenset()
    def digest(self, direction): return direction
    def translate(self, pixels, direction): return pixels // 2

def fitted(rows, rival=None, fusion="concat"):
    dls = RadiographDataLoaders.from_df(rows, size=32, **dict(bs=8) | rival_dls(rival))
    learn = rival_learner(fusion_learner(dls, "test_resnet", fusion=fusion, weights="none"), rival)
    with learn.no_bar(), learn.no_logging(): learn.fit(1, 1e-3)
    assert all(o.isfinite().all() for o in learn.model.parameters())
    return learn

def test_a_new_rival_trains_by_its_entry_alone(rows, monkeypatch):
    class Noted(Callback):
        def after_batch(self): self.learn.noted = True
    monkeypatch.setitem(RIVALS, "smooth", Rival(
        "smoothed labels", dls=lambda: dict(bs=9), loss=lambda prior: LabelSmoothingCrossEntropyFlat(eps=prior),
        callback=Noted, rows=lambda rows, n, seed: pd.concat([rows, rows[rows["split"] == "train"].head(n)]),
        balanced=True))
    arm = parse_arm("real-meta+smooth+1/2")
    assert arm.more and not arm.synth and arm_title("real-meta+smooth") == "Real-Meta + smooth"
    assert expand_arms([], rivals=["smooth"]) == ["real+smooth", "real-meta+smooth"]
    assert comparisons_of(["real", "real+smooth", "real-synth"])[1:] == [("real", "real+smooth"),
                                                                         ("real+smooth", "real-synth")]
    more = arm.again(rows, 7, 0)
    assert len(more) == len(rows) + 7 and train_prior(more, "smooth") == .5 != train_prior(more)
    learn = fitted(rows, "smooth")
    assert learn.noted and learn.dls.bs == 9
    assert learn.loss_func.func.eps == positive(learn.dls.train_ds.items).mean()

@pytest.mark.parametrize("policy", [
    Policy("its own, of a source like a donor", giver="source", matched=True), Policy("nobody's", masks=True),
    Policy("nobody's, and it isn't read", image_only=True)], ids=["giver", "masks", "image_only"])
def test_a_new_policy_makes_rows_and_trains_by_its_entry_alone(rows, monkeypatch, tmp_path, capsys, policy):
    monkeypatch.setitem(POLICIES, "new", policy)
    assert parse_arm("real-synth-meta+new").policy == "new"
    assert arm_title("real-synth-meta+new") == "Ensemble + new"
    assert expand_arms(["real-synth-meta"], policies=["new"])[-1] == "real-synth-meta+new"
    assert comparisons_of(["real-synth-meta", "real-synth-meta+new"]) == [("real-synth-meta", "real-synth-meta+new")]
    synth = synthesise(Fade(), rows, 9, out=tmp_path/"out", metadata="new")
    source = rows.set_index("image").loc[synth["source_image"], "age"]
    assert synth["age"].to_list() == pytest.approx(source if policy.giver else [float("nan")]*9, nan_ok=True)
    both = add_synthetic(rows, synth)
    masked = both["age"].iloc[:len(rows)].isna().sum() > rows["age"].isna().sum()
    assert (set(synth["metadata_policy"]), masked) == ({"new"}, policy.masks)
    assert is_image_only(both).sum() == 9*policy.image_only
    assert ("image branch alone" in capsys.readouterr().out) == policy.image_only
    fitted(both)

def test_a_new_fusion_trains_by_its_entry_alone(rows, monkeypatch):
    class Summed(nn.Module):
        def __init__(self, width, n_meta, n_out, ps):
            super().__init__()
            self.image, self.meta = nn.Linear(width, n_out), nn.Linear(n_meta, n_out)
        def forward(self, fmap, meta): return self.image(fmap.mean((2, 3))) + self.meta(meta)
    monkeypatch.setitem(FUSIONS, "sum", Fusion("the sum of their own logits", Summed))
    assert parse_arm("real-meta+sum").fusion == "sum" and arm_title("real-meta+sum") == "Real-Meta + sum"
    assert expand_arms([], fusions=["sum"]) == ["real-meta+sum"]
    assert comparisons_of(["real-meta", "real-meta+sum"]) == [("real-meta", "real-meta+sum")]
    assert isinstance(fitted(rows, fusion="sum").model.head, Summed)

# films of other generators, and pretraining

@pytest.mark.parametrize("name, arm, title", [
    ("real-synth@gan-2", Arm("real-synth", films="gan-2"), "Real-Synth @gan-2"),
    ("real-synth-meta@a+1/8+donor", Arm("real-synth-meta", None, "donor", None, Fraction(1, 8), films="a"),
     "Ensemble @a + dose 1/8 + donor"),
    ("real-meta+pretrain@a", Arm("real-meta", pretraining="pretrain", films="a"), "Real-Meta + pretrain@a"),
    ("real+pretrain-duplicate+focal", Arm("real", "focal", pretraining="pretrain-duplicate"),
     "Real + pretrain-duplicate + focal")])
def test_a_name_says_whose_films_they_are_and_what_comes_first(name, arm, title):
    assert parse_arm(name) == arm and arm_title(name) == title and arm.more

def test_whether_synthetic_films_are_read_and_are_the_studys_own():
    told = {o: (parse_arm(o).reads_synth, parse_arm(o).own) for o in (
        "real", "real-synth", "real-synth@a", "real+pretrain", "real+pretrain@a", "real+pretrain-duplicate")}
    assert list(told.values()) == [(False, False), (True, True), (True, False), (True, True), (True, False),
                                   (False, False)]

@pytest.mark.parametrize("name, why", [
    ("real@a", "stands after one of real-synth"), ("real-meta+focal@a", "stands after"),
    ("real-synth@a+pretrain@b", "once"), ("real+pretrain-duplicate@a", "stands after"), ("real-synth@", "can't name"),
    ("real-synth@a/b", "can't name"), ("real-synth+pretrain", "take one"), ("meta+pretrain", "it reads none"),
    ("real+duplicate+pretrain", "take one of both"), ("real-synth-meta@a+matched", "take donor"),
    ("real+pretrain+pretrain-duplicate", "two kinds of pretraining"), ("real+pretrian", "did you mean pretrain")])
def test_films_and_pretraining_that_make_no_sense(name, why):
    with pytest.raises(ValueError, match=why): parse_arm(name)

def test_generators_are_compared_with_each_other_and_pretraining_with_its_control():
    arms = ["real-meta", "real-synth-meta", "real-synth-meta@a", "real-synth-meta@b", "real-meta+duplicate",
            "real-meta+pretrain", "real-meta+pretrain@a", "real-meta+pretrain-duplicate"]
    pairs = comparisons_of(arms)
    ours, a, b, again, first, first_a, control = arms[1:]
    assert {*pairs} == {("real-meta", o) for o in arms[1:]} | {
        (ours, a), (ours, b), (a, b), (again, ours), (again, a), (again, b), (control, first), (control, first_a),
        (first, first_a), (ours, first), (a, first_a)} and len(pairs) == len({*pairs})

def test_a_generator_joins_as_two_arms_unless_one_names_it():
    assert expand_arms(["real"], synthetic_from=["a=x"]) == ["real", "real-synth@a", "real-synth-meta@a"]
    assert expand_arms(["real+pretrain@a"], synthetic_from=["a=x"]) == ["real+pretrain@a"]

def test_a_part_of_the_change_stands_in_table_1_beside_all_of_it():
    for name in "real-synth+local", "real-synth-meta+local", "real-synth@a+local", "real-synth-meta+1/8+local":
        arm = parse_arm(name)
        assert arm.part == "local" and arm.synth and is_plain(name) == ("1/8" not in name)
    assert arm_title("real-synth-meta@a+local") == "Ensemble @a + local" and parse_arm("real-synth").part is None
    for name, why in (("real+local", "it has none"), ("meta+local", "it has none"),
                      ("real-meta+duplicate+local", "it has none"), ("real-synth+local+local", "two kinds of part"),
                      ("real-synth+lokal", "did you mean local")):
        with pytest.raises(ValueError, match=why): parse_arm(name)

def test_a_new_part_makes_films_by_its_entry_alone(monkeypatch):
    monkeypatch.setitem(PARTS, "none", Part("films as their sources were", lambda source, film: source))
    assert parse_arm("real-synth+none").part == "none" and is_plain("real-synth+none")
    assert PARTS["none"].films("source", "film") == "source"
