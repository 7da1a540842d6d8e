"""Do a study's intervals, tests and verdicts keep what they promise? Simulated studies, whose truth is known: `--help`.

A film's score is normal, with unit spread and a mean that an arm's skill shifts for the ill; half of its variance is
the film's own (of a patient's films, most of it the patient's), a fifth the arm's view of it, the rest each training's.
Luck moves each model's skill. Valid rows are half as many other patients. Backbones of a study share no patient here,
so that all three may err."""
import gc, time
import numpy as np, pandas as pd
from fastcore.basics import store_attr
from fastcore.script import bool_arg, call_parse
from scipy.stats import norm
from cxr_fastai.stats.areas import delong
from cxr_fastai.stats.compare import verdict
from cxr_fastai.stats.differences import differences
from cxr_fastai.stats.formats import to_markdown
from cxr_fastai.stats.draws import at_specificity_draws, resample
from cxr_fastai.stats.intervals import percentiles, spread

CUT, STEEP = .6, 1.5 # where .5 lies on the scale of scores: specificity .73, and recall .72 at an AUC of .80
FIGURES = "recall", "specificity", "rocauc", "pr_auc", "brier", "recall_at_90"
PAIR, GAP = ("real-meta", "real-synth-meta"), .03 # of AUC, from .80
skill = lambda auc: 2**.5 * norm.ppf(auc)
probability = lambda score: 1/(1 + np.exp(-STEEP*(score - CUT)))

class Setting:
    "What is simulated: sizes of the classes in test, trainings an arm, their luck, and films a patient."
    def __init__(self,
        positives:int=64,   # positive test patients; 30% of the paper's 212
        negatives:int=210,  # negative ones; 30% of its 700
        seeds:int=3,        # trainings an arm
        luck:float=.1,      # sd of a model's skill over trainings, in spreads of a score (.1: .02 of an AUC of .80)
        heavy:bool=False,   # luck of Student's t with 3 degrees of freedom
        films:str="one",    # a patient: 'one', 'four', or 'unequal': one to nine, two on average
    ): store_attr()

    def __repr__(self):
        tail = ", of heavy tails" * (self.heavy and self.luck > 0)
        films = dict(one="", four=", 4 films each", unequal=", 1 to 9 films each")[self.films]
        seeds = f"{self.seeds} seed" + "s"*(self.seeds > 1)
        return f"{self.positives} + {self.negatives} patients{films}, {seeds}, luck {self.luck:g}{tail}"

    def lucks(self, rng, shape):
        "Of trainings, sd `luck`."
        drawn = rng.standard_t(3, shape)/3**.5 if self.heavy else rng.normal(size=shape)
        return self.luck*drawn

    def patients(self, rng, share):
        "Label and patient of every film of a side."
        label = np.repeat([1, 0], [max(2, round(o*share)) for o in (self.positives, self.negatives)])
        many = dict(one=1, four=4).get(self.films) or np.minimum(rng.geometric(.5, len(label)), 9)
        return np.repeat(label, many), np.repeat(np.arange(len(label)), many)

    def draw(self, rng, d, moved=0., sizes=(1, .5)):
        """Test and valid rows of one backbone whose arms have skills d `[arms, seeds]`: label and patients `[n]`, and
        probabilities `[arms, seeds, n]`; `moved` is added to the last arm's scores."""
        sides = []
        for share in sizes:
            label, who = self.patients(rng, share)
            n, (arms, seeds) = len(label), d.shape
            own = .8**.5*rng.normal(size=who.max() + 1)[who] + .2**.5*rng.normal(size=n)
            view, noise = rng.normal(size=(arms, 1, n)), rng.normal(size=(arms, seeds, n))
            score = d[..., None]*label + .5**.5*own + .2**.5*view + .3**.5*noise
            score[-1] += moved
            sides.append((label, who, probability(score)))
        return sides

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
    gc.freeze() # statsmodels collects garbage in every correction
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
    add({"+.05 AUC planted: found": reported(rng, Setting(), sets, .05, nets=1)["gain"]}, Setting(), any_share)
    if large:
        more = Setting(320, 1050, 9)
        add({"+.05 AUC planted: found": reported(rng, more, sets, .05, nets=1)["gain"]}, more, (.8, 1))
    print(to_markdown(pd.DataFrame(lines)))
    print(f"\n{sets:,} simulated studies a line; {time.time() - start:.0f} s")
