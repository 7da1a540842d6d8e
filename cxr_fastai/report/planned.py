"""A study before it is run: how often it would find a gain, and what a validation of its model needs. No torch."""
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from ..core.csvs import write_csv
from ..core.style import PAIR, save_figure, STYLE
from ..settings import check_primary
from ..stats.expected import expected_power, smallest_gain
from ..stats.formats import number, to_columns
from ..stats.ledger import ALPHA
from ..stats.power import power_table, setting_of
from ..stats.sizes import validation_sizes

__all__ = ["plan_study", "plot_power"]

WANTED = .8 # share of studies that should find a gain that is there

@mpl.rc_context(STYLE)
def plot_power(
    table:pd.DataFrame, # of `power_table`, with `expected`
    gain:float=None,    # that is marked; None: none
):                      # the figure
    "How many studies find a gain, over its size: simulated, with a band of simulation's own error, and as expected."
    fig = Figure(figsize=(4.6, 3.4), layout="constrained")
    ax = fig.subplots()
    ax.fill_between(table["gain"], table["found_low"], table["found_high"], alpha=.2, lw=0, color=PAIR[0])
    ax.plot(table["gain"], table["found"], "o-", ms=4, color=PAIR[0],
            label=f"{table['studies'].iloc[0]:,} simulated each")
    ax.plot(table["gain"], table["expected"], ls="--", lw=1, color="0.4", label="normal approximation")
    ax.axhline(WANTED, ls=":", lw=1, color="0.4")
    if gain is not None: ax.axvline(gain, ls=":", lw=1, color="0.4")
    ax.set(ylim=(-.02, 1.02), xlabel="true gain of AUC", ylabel="studies that find it")
    ax.legend(loc="best")
    return fig

def _gains(gain, auc, smallest):
    "Gains that are simulated: none, the one that is asked about, and others up to where most studies find one."
    most = min(max(2*gain, 1.2*np.nan_to_num(smallest)), .99*(1 - auc))
    return sorted({0., gain, *(o for o in np.linspace(0, most, 5)[1:] if abs(o - gain) > gain/20)})

def _percent(value): return f"{100*value:.1f}%"

def _share(o, name):
    return f"{_percent(o[name])} ({_percent(o[f'{name}_low'])} to {_percent(o[f'{name}_high'])})"

def _told(auc, gain, smallest, table):
    "What the simulation says, in sentences."
    at, none = (table[table["gain"] == o].iloc[0] for o in (gain, 0))
    least = "No gain up to a perfect ranking" if np.isnan(smallest) else f"A gain of {number(smallest, 3)}"
    yield f"A gain of {gain:g} AUC, from {auc:g} on, is found in {_share(at, 'found')} of studies."
    yield f"Where there is none, a gain or a loss is found in {_share(none, 'false')} of them."
    yield (f"95% intervals are {number(at['difference_width'], 3)} wide on average, of the difference, and "
           f"{number(at['auc_width'], 3)} of the AUC.")
    yield f"{least} is found in {WANTED:.0%} of studies (normal approximation)."

def _shown(table):
    "The table of power as it is printed."
    shares = {k: [_share(o, k) for _, o in table.iterrows()] for k in ("found", "false")}
    return pd.DataFrame({"true gain": table["gain"].map("{:.3f}".format), "found": shares["found"],
                         "false verdict": shares["false"], "found, approximately": table["expected"].map(_percent)})

def plan_study(
    positives:int=174,     # patients of the minority class, in the whole cohort
    negatives:int=700,     # of the other
    auc:float=.8,          # expected of the arm before
    gain:float=.05,        # of AUC, which the study should find
    seeds:int=3,           # trainings an arm, in each fold
    folds:int=None,        # of a cross-validation; one split where not given
    test:float=None,       # share of patients in test, of one split; .3 where not given
    backbones:int=1,       # over which the verdict is Holm's
    luck:float=.1,         # sd of training's luck, in spreads of a score (.1: .02 of an AUC of .80)
    films:str="one",       # a patient: 'one', 'four', or 'unequal' (one to nine, two on average)
    alpha:float=None,      # error rate of the verdict, two-sided; .05 where not given
    prevalence:float=None, # share of positives where a model is validated; the cohort's where not given
    threshold:float=.5,    # probability above which is treated there, for net benefit
    studies:int=1000,      # simulated for each gain
    seed:int=0,            # of the simulation
    out:str="power",       # folder: power.csv, power.png, power.svg, validation.csv
) -> Path:                 # of the figure
    """Print and write what a study of this size would find: how often a gain, and one that isn't there; how wide its
    intervals are; which gain it finds in 80%; and Riley's four criteria for the size of a validation (`sizes`).
    ValueError for numbers that are none, and for a study too small for any verdict."""
    if not 0 < auc < 1: raise ValueError(f"auc={auc:g} must be above 0 and below 1.")
    if not 0 < gain < 1 - auc: raise ValueError(f"gain={gain:g} must be above 0 and below 1 - auc, {1 - auc:g}.")
    for name, (o, least) in dict(studies=(studies, 1), backbones=(backbones, 1), seed=(seed, 0)).items():
        if o < least: raise ValueError(f"{name}={o} must be {least} or more.")
    check_primary(None, alpha, [])
    setting = setting_of(positives, negatives, test=test, folds=folds, seeds=seeds, luck=luck, films=films)
    share = positives/(positives + negatives) if prevalence is None else prevalence
    sizes = validation_sizes(auc + gain, share, threshold, setting.positives + setting.negatives)
    asked, simulate = dict(backbones=backbones, alpha=alpha or ALPHA), dict(studies=studies, seed=seed)
    smallest = smallest_gain(setting, auc, **asked)
    Path(out).mkdir(parents=True, exist_ok=True) # what can't be written is said before the simulation
    print(f"In test: {setting}. {studies:,} studies a line are simulated; brackets hold what their number leaves open.",
          flush=True)
    table = power_table(setting, auc, _gains(gain, auc, smallest), **asked, **simulate)
    table = table.assign(expected=[expected_power(setting, auc, o, **asked) for o in table["gain"]])
    print("\n".join(_told(auc, gain, smallest, table)), to_columns(_shown(table)), sep="\n\n")
    print(f"\nPatients that are needed to validate a model of AUC {auc + gain:g} where {_percent(share)} are ill,\n"
          "for 95% intervals of a width (Riley et al. 2021); `width_here` is of this test set.\n",
          to_columns(sizes), sep="\n")
    return _write(out, table, sizes, plot_power(table, gain))

def _write(out, table, sizes, fig):
    "The tables, and the figure twice."
    folder = Path(out)
    write_csv(table, folder/"power.csv")
    write_csv(sizes, folder/"validation.csv")
    save_figure(fig, folder/"power.svg", metadata={"Date": None})
    save_figure(fig, folder/"power.png", dpi=170)
    return folder/"power.png"
