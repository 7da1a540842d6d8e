"""Do a study's intervals, tests and verdicts keep what they promise? Simulated studies, whose truth is known: `--help`.

They are those of `cxr_fastai.stats.power`. Backbones of a study share no patient here, so that all three may err."""
import time
import numpy as np, pandas as pd
from fastcore.script import bool_arg, call_parse
from scipy.stats import norm
from cxr_fastai.stats.areas import delong
from cxr_fastai.stats.compare import verdict
from cxr_fastai.stats.differences import differences
from cxr_fastai.stats.formats import to_markdown
from cxr_fastai.stats.draws import at_specificity_draws, resample
from cxr_fastai.stats.folds import fold_differences
from cxr_fastai.stats.intervals import percentiles, spread
from cxr_fastai.stats.power import CUT, power_table, probability, Setting, skill

FIGURES = "recall", "specificity", "rocauc", "pr_auc", "brier", "recall_at_90"
PAIR, GAP = ("real-meta", "real-synth-meta"), .03 # of AUC, from .80

class Truth:
    "What the figures of a model are among all patients, by its skill."
    def __init__(self, share):
        s, d = np.linspace(-8, 12, 4001), np.linspace(-3, 6, 901)[:, None]
        step, ill, well = s[1] - s[0], norm.pdf(s - d), norm.pdf(s)
        tp, fp = share*norm.sf(s - d), (1 - share)*norm.sf(s)
        self.d = d[:, 0]
        self.of = dict(
            recall=norm.cdf(d - CUT), specificity=np.full(d.shape, norm.cdf(CUT)), rocauc=norm.cdf(d/2**.5),
            pr_auc=(ill*tp/np.maximum(tp + fp, 1e-300)).sum(1)*step, recall_at_90=norm.cdf(d - norm.ppf(.9)),
            brier=((share*ill*(1 - probability(s))**2 + (1 - share)*well*probability(s)**2).sum(1)*step))

    def __call__(self, name, d): return np.interp(d, self.d, self.of[name].ravel())

def truths(truth, d):
    "Differences of the last axis' means between two arms `[2, n]`, and the gain of recall."
    mean = {k: truth(k, d).mean(-1) for k in FIGURES}
    return {k: b - a for k, (a, b) in mean.items()} | dict(gain=mean["recall"][1]/mean["recall"][0] - 1)

def compared(test, valid, draws, seed, backbone="net0"):
    "A line of `compare_arms`, whose functions these are, without the table that it joins by image."
    label, who, (a, b) = test
    found = differences(label, who, a, b, valid and (*valid[:2], *valid[2]), n=draws, seed=seed)
    area = delong(label, a, b, who)
    found["rocauc"] = dict(value=area["difference"], low=area["low"], high=area["high"])
    sizes = {k: len(np.unique(who[label == o])) for k, o in dict(negative_patients=0, positive_patients=1).items()}
    row = dict(backbone=backbone, before=PAIR[0], after=PAIR[1], seeds=len(a), p_delong=area["p"],
               p_verdict=area["p_verdict"], p_recall=found["recall"]["p"], **sizes)
    for k, o in found.items(): row |= {k: o["value"], f"{k}_low": o["low"], f"{k}_high": o["high"]}
    return row

def single(test, valid, draws, seed):
    "Intervals of one arm, as `score_table` makes them: name -> (low, high)."
    (label, who, (prob, _)), (fixed, theirs, (other, _)) = test, valid
    at = resample(who, label, draws, seed=seed)
    table = spread(label, prob, at, calibration=False, patients=who)
    names = "recall", "specificity", "pr_auc", "brier", "rocauc"
    found = {k: (table.low[k], table.high[k]) for k in names}
    if len(prob) > 1: found |= {f"{k} procedure": (table.proc_low[k], table.proc_high[k]) for k in names}
    there = resample(theirs, fixed, draws, seed=seed + 1)
    moved = at_specificity_draws(label, prob, at, fixed, other, there)["recall"]
    return found | dict(recall_at_90=percentiles(moved.mean(0)))

def covered(rng, setting, sets, draws):
    "How often 95% intervals hold the truth: of one arm's models, and of the difference (one seed: of these models)."
    hits, truth = {}, Truth(setting.positives/(setting.positives + setting.negatives))
    skills = np.array([skill(.80), skill(.80 + GAP)])[:, None]
    many = skills + setting.lucks(rng, (2, 100_000))
    usual = truths(truth, many)
    for i in range(sets):
        d = skills + setting.lucks(rng, (2, setting.seeds))
        test, valid = setting.draw(rng, d)
        o = compared(test, valid, draws, i)
        for k, v in (usual if setting.seeds > 1 else truths(truth, d)).items():
            hits.setdefault(f"difference of {k}" if k != "gain" else k, []).append(o[f"{k}_low"] <= v <= o[f"{k}_high"])
        for k, (low, high) in single(test, valid, draws, i).items():
            name, *procedure = k.split() # which is of any training, not of these models
            hits.setdefault(k, []).append(low <= truth(name, many[0] if procedure else d[0]).mean() <= high)
    return {k: np.mean(v) for k, v in hits.items()}

def covered_by_folds(rng, setting, sets):
    "How often the corrected t's 95% interval of the difference of AUC holds the truth, and misses none where none is."
    hits, skills = [], np.array([skill(.80), skill(.80 + GAP)])[:, None, None]
    spread = (setting.luck**2 + setting.shared**2)**.5
    usual = truths(Truth(.2), skills[..., 0] + spread*rng.normal(size=(2, 100_000)))["rocauc"]
    for _ in range(sets):
        (a, valid_a), (b, valid_b) = setting.draw_folds(rng, skills + setting.lucks(rng, (2, *setting.trainings)))
        o = fold_differences(a, b, valid_a, valid_b)["rocauc"]
        hits.append(o["low"] <= usual <= o["high"])
    return {"95% interval of difference of rocauc": np.mean(hits)}

def reported(rng, setting, sets, gain=0., moved=0., nets=3):
    "Shares of studies with a gain or a loss of any backbone, and whose first recalls are called different."
    found = dict(gain=0, loss=0, recall=0)
    skills = np.array([skill(.80), skill(.80 + gain)])[:, None]
    for i in range(sets):
        drawn = (setting.draw(rng, skills + setting.lucks(rng, (2, setting.seeds)), moved, [1]) for _ in range(nets))
        table = pd.DataFrame([compared(test, None, 0, i, f"net{k}") for k, (test, *_) in enumerate(drawn)])
        said = verdict(table)
        found["gain"] += ": the data support a gain" in said
        found["loss"] += ": the data show a loss" in said
        found["recall"] += table["p_recall"][0] < .05
    return {k: v/sets for k, v in found.items()}

def false_verdicts(rng, setting, sets):
    "Any verdict but 'no gain', though the arms are alike; and any difference of the first backbone's recalls."
    found = reported(rng, setting, sets)
    return {"a false verdict for any of 3 backbones": found["gain"] + found["loss"],
            "a false p of the recall": found["recall"]}

def planted(setting, sets, seed):
    "How often a gain of .05 AUC is found, and how often one that isn't there, or a loss."
    none, some = power_table(setting, .80, (0, .05), studies=sets, seed=seed).to_dict("records")
    return {"+.05 AUC planted: found": some["found"]}, {"a false verdict": none["false"]}

def _line(what, setting, value, bar, sets):
    error, low, high = (value*(1 - value)/sets)**.5, *bar
    kept = "" if bar == (0, 1) else "kept" if low <= value <= high else "NOT KEPT"
    words = "" if bar == (0, 1) else f"{low:.1%} to {high:.1%}".replace(".0%", "%")
    return dict(what=what, studies=str(setting), share=f"{value:.1%} +- {error:.1%}", bar=words, outcome=kept)

@call_parse
def main(
    sets:int=1000,    # simulated studies a line
    draws:int=400,    # resamples of an interval that needs them
    large:bool_arg=True, # also the study of five times as many patients and nine seeds
    seed:int=0,       # of everything
):
    "Simulate studies and print how often their intervals, tests and verdicts are right."
    rng, start, lines = np.random.default_rng(seed), time.time(), []
    usual, few, any_share, alarm = (.93, .97), (.92, .99), (0, 1), (0, .055)
    def add(found, setting, bar):
        for k, v in found.items():
            lines.append(_line(k, setting, v, bar, sets))
            told = f"{lines[-1]['share']:>16}  {lines[-1]['outcome']:<8}  {k}: {setting}"
            print(f"{time.time() - start:6.0f} s  {told}", flush=True)
    for setting, bar in ((Setting(), usual), (Setting(12, 40), few), (Setting(films="unequal"), usual),
                         (Setting(heavy=True), usual), (Setting(seeds=1), usual), (Setting(luck=.3), usual)):
        add({f"95% interval of {k}": v for k, v in covered(rng, setting, sets, draws).items()}, setting, bar)
    for setting in (Setting(), Setting(films="four"), Setting(12, 40), Setting(heavy=True, luck=.3),
                    Setting(films="unequal"), Setting(seeds=1), Setting(6, 40)):
        add(false_verdicts(rng, setting, sets), setting, alarm)
    moved = reported(rng, Setting(), sets, moved=.5, nets=1)
    add({"nothing but a lower threshold: a gain reported": moved["gain"]}, Setting(), alarm)
    cohort = Setting(52, 210), Setting(174, 700, folds=5) # 174 + 700 patients: one split's test, and five folds
    for setting in (Setting(), *cohort, *([Setting(320, 1050, 9)] if large else [])):
        for found, bar in zip(planted(setting, sets, seed), ((.8, 1) if setting.seeds > 3 else any_share, alarm)):
            add(found, setting, bar)
    for shared in (.1, .15, .2): # nobody knows how much of it there is: a fold's training patients are the others' too
        setting = Setting(174, 700, folds=5, shared=shared)
        add(covered_by_folds(rng, setting, sets), setting, usual)
        for found, bar in zip(planted(setting, sets, seed), (any_share, alarm)): add(found, setting, bar)
    print(to_markdown(pd.DataFrame(lines)))
    print(f"\n{sets:,} simulated studies a line; {time.time() - start:.0f} s")
