"""Do the study's intervals and tests keep what they promise? Simulated studies whose truth is known: `--help`.

A patient's score is normal, with unit spread and a mean that an arm's skill shifts for the ill; half of its variance is
the patient's own, a fifth the arm's view of that patient, the rest each training's. Luck moves each model's skill."""
from cxr_fastai.all import *
from scipy.stats import norm
from statsmodels.stats.multitest import multipletests

CUT = .6 # where .5 lies on the scale of scores: specificity .73, and recall .72 at an AUC of .80
skill = lambda auc: 2**.5 * norm.ppf(auc)
probability = lambda score: 1/(1 + np.exp(-1.5*(score - CUT)))

def simulate(rng, label, skills, seeds, luck, moved=0.):
    "Scores `[arms, seeds, n]` and the skills `[arms, seeds]` of the models; `moved`: added to the last arm's scores."
    n, arms = len(label), len(skills)
    own, view, noise = rng.normal(size=n), rng.normal(size=(arms, 1, n)), rng.normal(size=(arms, seeds, n))
    d = np.array(skills)[:, None] + luck*rng.normal(size=(arms, seeds))
    score = d[..., None]*label + .5**.5*own + .2**.5*view + .3**.5*noise
    score[-1] += moved
    return score, d

def study(label, score, names):
    "Predictions of one backbone, as a study has them; another draw of the same patients would be its valid rows."
    parts = [pd.DataFrame(dict(backbone="net", arm=a, seed=s, side=side, image=np.arange(len(label)),
                               patient_id=np.arange(len(label)), label=label,
                               probability=probability(score[i, s]), synthetic=False))
             for i, a in enumerate(names) for s in range(score.shape[1]) for side in ("valid", "test")]
    return pd.concat(parts, ignore_index=True)

def covered(rng, label, seeds, luck, sets, draws):
    "(1) How often 95% intervals hold the truth: of these models, and of the difference that training gives on average."
    hits = {k: [] for k in ("recall", "specificity", "AUC", "difference of recall", "difference of AUC")}
    for _ in range(sets):
        score, d = simulate(rng, label, [skill(.80), skill(.83)], seeds, luck)
        at = resample(np.arange(len(label)), label, draws, rng.integers(2**31))
        found = spread(label, probability(score[0]), at, calibration=False)
        truth = dict(recall=norm.cdf(d[0] - CUT).mean(), specificity=norm.cdf(CUT), rocauc=norm.cdf(d[0]/2**.5).mean())
        for k, (name, v) in zip(hits, truth.items()): hits[k].append(found.low[name] <= v <= found.high[name])
        names = ["real", "real-meta"]
        o = compare_arms(study(label, score, names), [tuple(names)], draws, int(rng.integers(2**31))).iloc[0]
        mean = lambda auc: (norm.cdf((skill(auc) - CUT)/(1 + luck**2)**.5), norm.cdf(skill(auc)/(2 + luck**2)**.5))
        recall, area = np.subtract(mean(.83), mean(.80))
        hits["difference of recall"].append(o.recall_low <= recall <= o.recall_high)
        hits["difference of AUC"].append(o.rocauc_low <= area <= o.rocauc_high)
    return {f"95% interval of {k} holds the truth": np.mean(v) for k, v in hits.items()}

def false_alarms(rng, label, seeds, luck, sets, backbones=3):
    "(2) Studies of which any Holm-corrected p-value is below .05 though all arms are alike."
    pairs, wrong = [(0, 1), (0, 2), (1, 2)], 0
    for _ in range(sets):
        p = []
        for _ in range(backbones):
            prob = probability(simulate(rng, label, [skill(.80)]*3, seeds, luck)[0])
            p += [f(label, prob[i], prob[j]) for i, j in pairs for f in (lambda *o: delong(*o)["p"], mcnemar)]
        wrong += multipletests(p, method="holm")[1].min() < .05
    return wrong/sets

def reported(rng, label, seeds, luck, sets, gain, moved):
    "Studies whose verdict is a gain of synthesis, by AUC."
    names, found = ["real-meta", "real-synth-meta"], 0
    for _ in range(sets):
        score, _ = simulate(rng, label, [skill(.80), skill(.80 + gain)], seeds, luck, moved)
        found += "the data support a gain" in verdict(compare_arms(study(label, score, names), [tuple(names)], n=4))
    return found/sets

@call_parse
def main(
    sets:int=1000,      # simulated studies of each kind
    positives:int=64,   # positive test patients; 30% of the paper's 212
    negatives:int=210,  # negative ones; 30% of its 700
    seeds:int=3,        # trainings an arm
    luck:float=.1,      # sd of a model's skill over trainings, in spreads of a score (.1 moves an AUC of .80 by .02)
    draws:int=400,      # resamples of an interval
    seed:int=0,         # of everything
):
    "Simulate studies and print how often their intervals, tests and verdicts are right."
    rng, start = np.random.default_rng(seed), time.time()
    label, large = (np.repeat([1, 0], o) for o in ((positives, negatives), (5*positives, 5*negatives)))
    patients = f"{positives} + {negatives} patients"
    here, more = f"{patients}, {seeds} seeds", f"{5*positives} + {5*negatives} patients, {3*seeds} seeds"
    rows = [(k, here, v, "93-97%") for k, v in covered(rng, label, seeds, luck, sets, draws).items()]
    rows += [(f"one seed: {k}", patients, v, "93-97%") for k, v in covered(rng, label, 1, 0., sets, draws).items()]
    alarms, nothing = (partial(false_alarms, rng, label, seeds), 1 - reported(rng, label, seeds, luck, sets, 0., .5))
    rows += [("any false alarm in 3 backbones x 3 comparisons x 2 tests", here, alarms(0., sets), "<= 5.5%"),
             ("the same, with training luck", here, alarms(luck, sets), ""),
             ("synthesis adds nothing but a lower threshold: no gain reported", here, nothing, ">= 95%"),
             ("+.05 AUC planted: found", more, reported(rng, large, 3*seeds, luck, sets, .05, 0.), ">= 80%"),
             ("+.05 AUC planted: found", here, reported(rng, label, seeds, luck, sets, .05, 0.), "")]
    table = [dict(what=k, size=n, share=f"{v:.1%} +- {(v*(1 - v)/sets)**.5:.1%}", bar=bar) for k, n, v, bar in rows]
    print(to_markdown(pd.DataFrame(table)))
    print(f"\n{sets:,} simulated studies a line, luck {luck}; {time.time() - start:.0f} s")
