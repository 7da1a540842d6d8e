import numpy as np, pandas as pd, pytest
from cxr_fastai.stats.areas import delong
from cxr_fastai.stats.compare import compare_arms
from cxr_fastai.stats.predictions import (check_predictions, check_scores, each_backbone, joined, paired, real_rows,
    seeds_of_all_arms, sides)
from cxr_fastai.stats.intervals import spread

@pytest.fixture(scope="module")
def table():
    "Two arms, two seeds, 30 test and 20 valid films; later films of a patient have other names."
    rng, parts = np.random.default_rng(0), []
    for side, n in ("test", 30), ("valid", 20):
        label = (np.arange(n) % 3 == 0).astype(int)
        about = pd.DataFrame(dict(backbone="net", side=side, image=[f"{side}{i:02}.png" for i in range(n)],
                                  patient_id=np.arange(n)*2//3 + 100*(side == "valid"), label=label, synthetic=False))
        for arm in "real-synth", "real":
            parts += [about.assign(arm=arm, seed=s, probability=(rng.random(n) + label)/2) for s in (0, 1)]
    return pd.concat(parts, ignore_index=True)

def test_scores_that_pair_come_back_as_they_are():
    label, prob = check_scores([1, 0, True], [[.1, .2, 1], [0, .5, .5]], ["a", "a", "b"])
    assert label.tolist() == [True, False, True] and prob.shape == (2, 3)
    assert check_scores(np.array([0, 1]), np.array([.25, .5], np.float32))[1].dtype == np.float32

@pytest.mark.parametrize("label, prob, patients, says", [
    ([0, 1], [.1, .2, .3], None, "label has 2 rows and prob 3"),
    ([0, 1], [.1, .2], [1], "label has 2 rows and patients 1"),
    ([0, 2, 1], [.1, .2, .3], None, "label must be 0 or 1; it is 2.0 in row 1"),
    ([0, np.nan], [.1, .2], None, "label must be 0 or 1; it is nan in row 1"),
    ([0, 1, 1], [.1, np.nan, .2], None, "prob must be from 0 to 1; it is nan in row 1"),
    ([0, 1, 1], [[.1, .2, .3], [.1, np.inf, 1.5]], None, "it is inf, 1.5 in row 1 of seed 1, 2 of seed 1"),
    ([0, 1], [-.1, .2], None, "it is -0.1 in row 0"), ([], [], None, "There are no rows"),
    ([0, 1], ["a", "b"], None, "prob must hold numbers"),
    ([0, 1], [.1, .2], ["a", None], "patients is missing in row 1")])
def test_scores_that_do_not_are_refused_by_row(label, prob, patients, says):
    with pytest.raises(ValueError, match=says): check_scores(label, prob, patients)
    with pytest.raises(ValueError, match=says): delong(label, prob, patients=patients)
    with pytest.raises(ValueError, match=says): spread(label, prob, np.ones((2, len(label))), patients=patients)

def change(table, at, **values):
    table = table.copy().astype(dict(label=float))
    for k, v in values.items(): table.loc[at, k] = v
    return table

@pytest.mark.parametrize("values, says", [
    (dict(probability=np.nan), r"from 0 to 1: test03.png \(net, real-synth, seed 0, test\)\."),
    (dict(probability=1.2), "from 0 to 1: test03.png"), (dict(label=7), "label must be 0 or 1: test03.png"),
    (dict(image="test04.png"), "an image stands twice: test04.png"),
    (dict(patient_id=99), r"test03.png has more than one patient_id: 99 for real-synth of net, 2 for real"),
    (dict(label=0), "test03.png has more than one label"), (dict(seed=np.nan), "seed is missing"),
    (dict(patient_id=np.nan), "patient_id is missing")])
def test_a_table_that_does_not_pair_is_refused_by_name(table, values, says):
    with pytest.raises(ValueError, match=says): check_predictions(change(table, 3, **values))
    with pytest.raises(ValueError, match=says): compare_arms(change(table, 3, **values), [("real", "real-synth")], n=4)

def test_columns_that_lack_are_named(table):
    with pytest.raises(ValueError, match="have no column image, label; they need backbone, arm"):
        check_predictions(table.drop(columns=["image", "label"]))
    with pytest.raises(ValueError, match="no line"): check_predictions(table.head(0))
    with pytest.raises(ValueError, match="synthetic must be True or False"):
        check_predictions(table.assign(synthetic="no"))

def test_synthetic_films_may_share_a_name(table):
    made = table[table.side == "test"].groupby(["arm", "seed"]).head(1)
    made = made.assign(image="a2b.png", synthetic=True, patient_id=[1, 2, 3, 4])
    assert len(check_predictions(pd.concat([table, made]))) == len(table) + 4

def test_arms_are_joined_by_image_in_whatever_order_the_lines_are(table):
    plain, mixed = joined(table), joined(table.sample(frac=1, random_state=0))
    assert list(plain) == list(mixed) == ["real", "real-synth"]
    for arm, o in plain.items():
        for a, b in zip(o, mixed[arm]): assert np.array_equal(a, b)
        own = table[(table.arm == arm) & (table.side == "test") & (table.seed == 1)].sort_values("image")
        assert o.seeds == [0, 1] and (o.prob[1] == own.probability).all() and (o.image == own.image).all()
        assert o.label.sum() == 10
    pair = [("real", "real-synth")]
    pd.testing.assert_frame_equal(compare_arms(table, pair, n=20),
                                  compare_arms(table.sample(frac=1, random_state=1), pair, n=20))

def test_arms_with_other_images_are_refused_by_name(table):
    lost = table.drop(index=table[(table.arm == "real") & (table.image == "test07.png")].index[:1])
    says = r"real \(seed 1\) of net and real \(seed 0\) of net were not asked about the same images: test07.png is in"
    with pytest.raises(ValueError, match=says): joined(lost)
    with pytest.raises(ValueError, match="test07.png"): compare_arms(lost, [("real", "real-synth")], n=4)

def test_one_backbone_at_a_time(table):
    two = pd.concat([table, table.assign(backbone="vgg")])
    with pytest.raises(ValueError, match="of net, vgg"): joined(two)
    assert [o for o, _, _ in each_backbone(two)] == ["net", "vgg"]

def test_sides_are_by_seed_and_of_real_rows(table):
    valid, test = sides(table.sample(frac=1, random_state=0), "net", "real")
    assert set(valid) == set(test) == {0, 1} and len(valid[0]) == 20 and test[1].image.is_monotonic_increasing

def test_real_rows_are_of_one_side_and_of_patients(table):
    mixed = table.assign(synthetic=table.image.eq("test03.png"))
    assert len(real_rows(mixed)) == 4*29 and set(real_rows(mixed).side) == {"test"}
    assert len(real_rows(mixed, "valid")) == 4*20

def test_two_arms_are_paired_by_the_seeds_that_both_have(table):
    arms = joined(table[~((table.arm == "real") & (table.seed == 0))])
    before, after = paired(arms, "real", "real-synth")
    assert before.seeds == after.seeds == [1] and (after.prob == arms["real-synth"].prob[[1]]).all()
    assert paired(arms, "real", "meta") is None
    assert paired(dict(a=before, b=arms["real-synth"].of_seeds([0])), "a", "b") is None

def test_seeds_of_one_arm_in_any_order(table):
    one = joined(table)["real"]
    other = one.of_seeds([1, 0])
    assert other.seeds == [1, 0] and (other.prob == one.prob[::-1]).all() and (other.image == one.image).all()
    assert len(set(one.who)) == len(set(one.patients)) == one.who.max() + 1

def test_lines_of_the_seeds_that_all_arms_of_a_backbone_have(table):
    lacks = table[~((table.arm == "real") & (table.seed == 0))]
    kept = seeds_of_all_arms(lacks)
    assert set(kept.seed) == {1} and set(kept.arm) == {"real", "real-synth"}
    apart = table[(table.arm == "real") == (table.seed == 0)].assign(backbone="vgg") # no seed in common
    both = seeds_of_all_arms(pd.concat([lacks, apart], ignore_index=True))
    assert set(both[both.backbone == "vgg"].seed) == {0, 1} and set(both[both.backbone == "net"].seed) == {1}
