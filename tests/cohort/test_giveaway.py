import numpy as np, pandas as pd, pytest
from cxr_fastai.cohort.rows import positive
from cxr_fastai.cohort.sampling import split_patients
from cxr_fastai.cohort.giveaway import feature_leak

def table(n=240, seed=0):
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(n), rng.integers(1, 4, n))
    label = pd.Categorical.from_codes((rng.random(n) < .3)[who].astype(int), ["Normal", "Pneumonia"], ordered=True)
    rows = pd.DataFrame(dict(image=[f"{i}.png" for i in range(len(who))], patient_id=1000 + who, label=label,
                             follow_up=pd.Series(who).groupby(who).cumcount()))
    return split_patients(rows, seed=seed)

ROWS, RNG = table(400), np.random.default_rng(1)
HIT, N = positive(ROWS), len(ROWS)
flipped = HIT ^ (RNG.permutation(N) < N//100)
PLANTED = {
    "1% flipped": (flipped.astype(float), "tells the target"),
    "1% flipped, in words": (np.where(flipped, "ill", "well"), "tells the target"),
    "noised": (HIT + RNG.normal(0, .2, N), "tells the target"),
    "behind the comma": (RNG.integers(20, 90, N) + .01*HIT, "tells the target"),
    "parity": (2*RNG.integers(0, 500, N) + HIT, "tells the target"),
    "many words": ([f"w{i*7 % 41}" for i in RNG.integers(0, 20, N)*2 + HIT], "is the target in other words"),
    "many words, 1% flipped": ([f"w{i*7 % 41}" for i in RNG.integers(0, 20, N)*2 + flipped], "tells the target"),
    "missing where ill": (np.where(HIT, np.nan, RNG.normal(size=N)), "tells by its absence"),
    "missing where well, 1% flipped": (np.where(flipped, RNG.normal(size=N), np.nan), "tells by its absence"),
    "visit": (np.log1p(ROWS["follow_up"]), "is a copy of 'follow_up'"),
    "visit, noised": (ROWS["follow_up"] + RNG.normal(0, .1, N), "is a copy of 'follow_up'"),
    "visit in words": (np.array([*"first second third".split()])[ROWS["follow_up"]], "is a copy of 'follow_up'"),
    "patient": (3.*ROWS["patient_id"]**2, "is a copy of 'patient_id'"),
    "patient, downwards": (-ROWS["patient_id"]//2, "is a copy of 'patient_id'"),
    "row": (np.sqrt(np.arange(N)), "rises or falls with the order of the rows|is a copy of 'patient_id'"),
    "side": (ROWS["split"].map(dict(train=0, valid=5, test=9)), "is a copy of 'split'"),
    "side in words": (ROWS["split"].map(dict(train="x", valid="a", test="k")), "tells the sides|is a copy of 'split'")}

@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_feature_is_refused(name):
    values, words = PLANTED[name]
    why, _ = feature_leak(ROWS.assign(extra=values), "extra")
    assert why and any(o in why for o in words.split("|")), why

def test_a_row_number_among_shuffled_patients():
    rows = ROWS.sample(frac=1, random_state=0)
    assert "order of the rows" in feature_leak(rows.assign(extra=np.arange(N)), "extra")[0]

def test_what_nearly_tells_is_suspect():
    values = HIT + np.random.default_rng(2).normal(0, .5, N)
    why, told = feature_leak(ROWS.assign(extra=values), "extra")
    assert why is None and "with an AUC of .9" in told.replace("0.9", ".9")

def test_distinct_whole_numbers_are_laboratory_values():
    values = np.random.default_rng(3).permutation(10**6)[:10**4][ROWS["patient_id"]]
    assert feature_leak(ROWS.assign(extra=values), "extra") == (None, None)

@pytest.mark.parametrize("seed", range(12))
def test_harmless_features_of_a_split_are_neither_refused_nor_told_of(seed):
    rng, rows = np.random.default_rng(seed), table(40 + 20*seed, seed)
    who, n = rows["patient_id"] - 1000, len(rows)
    age = rng.integers(1, 90, 1000)[who] + rows["follow_up"]/2
    rows = rows.assign(age=age, sick=rng.normal(60, 9, n) + 9*positive(rows), sex=rng.choice([*"FM"], 1000)[who],
                       site=np.array([*"abcdef"])[who*6//(who.max() + 1)], few=rng.choice(["x", "y", None], n),
                       many=rng.choice([f"w{i}" for i in range(n//4)], n), lab=rng.permutation(10**5)[:n],
                       rare=np.where(rng.random(n) < .05, 1., np.nan))
    for o in "age sick sex site few many lab rare".split(): assert feature_leak(rows, o) == (None, None), o
    assert feature_leak(rows.sort_values("age"), "age") == (None, None)
