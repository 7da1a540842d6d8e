"""Do shortcuts carry over? Probes fitted on a study's rows, asked about rows from elsewhere: where they fall, an arm
that falls with them had learnt what they see. No torch."""
import pandas as pd

from .shortcuts import scored_shortcuts, SHORTCUTS, shortcut_predictions

__all__ = ["carried_shortcuts", "carried_words"]

AWAY = "elsewhere " # before the name of a film, which may be that of another inside

def _judged_there(rows, others):
    "The rows that a probe is fitted and chosen on, and the others as its test rows."
    others = others.assign(split="test", image=AWAY + others["image"].astype(str))
    joined = pd.concat([rows[rows["split"].isin(["train", "valid"])], others], ignore_index=True)
    joined.attrs = rows.attrs
    return joined.assign(label=joined["label"].astype(rows["label"].dtype))

def carried_shortcuts(
    rows:pd.DataFrame,   # a study's, or {fold: rows}
    others:pd.DataFrame, # rows from elsewhere, with a label in the study's words
    inside:pd.DataFrame, # the study's own `scored_shortcuts`
    size:int,            # of its films, pixels
) -> pd.DataFrame:       # a line a probe: `shortcut inside inside_low inside_high outside outside_low outside_high`
    "AUC of every probe on a study's test rows and on rows from elsewhere. One that can say nothing there has none."
    splits = {k: _judged_there(o, others) for k, o in rows.items()} if isinstance(rows, dict) else (
        _judged_there(rows, others))
    sides, lines = dict(inside=inside, outside=scored_shortcuts(shortcut_predictions(splits, size)[0])), []
    for name, probe in SHORTCUTS.items():
        line = dict(shortcut=probe.title)
        for side, scores in sides.items():
            found = scores[(scores["arm"] == name) & (scores["metric"] == "rocauc")]
            ends = found[["mean", "low", "high"]].iloc[0] if len(found) else (None, None, None)
            line |= dict(zip((side, f"{side}_low", f"{side}_high"), ends))
        lines.append(line)
    return pd.DataFrame(lines)

def carried_words(
    table:pd.DataFrame, # of `carried_shortcuts`
) -> list:              # at most one sentence
    "Shortcuts that work inside and not there: the upper end there lies below the lower end inside."
    lost = table[table["outside_high"] < table["inside_low"]].sort_values("inside", ascending=False, kind="stable")
    told = ", ".join(f"{o.shortcut} (AUC {o.inside:.3f} inside, {o.outside:.3f} there)" for o in lost.itertuples())
    return [f"Shortcuts that do not carry over: {told}; what an arm owes to them is lost there, too."] if told else []
