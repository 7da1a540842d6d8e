"""What is said of a set of synthetic films in a line; all of its figures stand in its quality.csv."""
from pathlib import Path

from ..core.csvs import read_csv

__all__ = ["quality_words"]

FIGURES, APART = ("FID", "Fréchet distance"), "told apart (AUC)" # of a table, which has either

def _three(x): return f"{x:,.0f}" if abs(x) >= 100 else f"{x:.3g}"

def quality_words(
    file:str|Path, # quality.csv, as it lies beside synthetic films
    label:str,     # theirs
) -> str:
    "How far synthetic films are from real ones, how far these are from each other, and what that says."
    table, said = read_csv(file).set_index("figure"), []
    for name in [o for o in FIGURES if o in table.index]:
        o = table.loc[name]
        ends = lambda value, low, high: f"{_three(o[value])} [{_three(o[low])}, {_three(o[high])}]"
        farther = "farther than they are" if o["low"] > o["floor_high"] else "not shown to be farther than they are"
        said.append(f"{name} {ends('value', 'low', 'high')}, of real ones among themselves (the floor) "
                    f"{ends('floor', 'floor_low', 'floor_high')}: {farther}")
    if APART in table.index: said.append(f"told apart by a classifier of AUC {table['value'][APART]:.2f} (chance .5)")
    return (f"Synthetic against real {label} of the valid rows, which the GAN never saw: {'; '.join(said)}. All is in "
            f"{file}")
