"""What a translator's history.csv says beside its losses: by what its epoch was picked, and which alarms went off."""
from pathlib import Path

import pandas as pd

from ..core.csvs import read_csv
from ..core.files import read_json

__all__ = ["NOTED", "alarm_notes", "epoch_taken", "pick_note", "translator_notes"]

NOTED = ["kernel", "floor", "untouched", "features", "alarm"] # columns of epochs at which something was noted

def epoch_taken(
    history:pd.DataFrame, # a line an epoch; `kernel` and `floor` where it was looked
):                        # its line's index, or None
    "The last epoch as near to real films as these are to one another; where none is, the nearest of all."
    looked = history[history["kernel"].notna()]
    within = looked[looked["kernel"] <= looked["floor"]]
    if len(within): return within.index[-1]
    return looked["kernel"].idxmin() if len(looked) else None

def pick_note(
    history:pd.DataFrame, # as for `epoch_taken`, with `untouched` and `features`
    positive:str,         # the minority's name
) -> str:                 # '' where nothing was picked
    "Which epoch translates, and why, in a sentence."
    if "kernel" not in history or (at := epoch_taken(history)) is None: return ""
    looked = history[history["kernel"].notna()]
    line, last = looked.loc[at], looked.iloc[-1]
    within = line["kernel"] <= line["floor"]
    why = f"within the {line['floor']:.3g} that real ones are from one another" if within else (
        f"and the nearest, but real ones are no more than {line['floor']:.3g} from one another")
    others = [f"of the last epoch {last['kernel']:.3g}"] if at != last.name else []
    others.append(f"before translation {line['untouched']:.3g}")
    return (f"Epoch {at + 1} translates: films of valid were then {line['kernel']:.3g} from real {positive} of valid, "
            f"{why} (kernel distance; {line['features']}; {', '.join(others)}).")

def alarm_notes(
    folder:str|Path, # of a translator, with history.csv
) -> list:
    "What went wrong while it was trained, a line an epoch."
    file = Path(folder)/"history.csv"
    history = read_csv(file) if file.exists() else pd.DataFrame()
    if "alarm" not in history: return []
    return [f"ALARM: {Path(folder).name}, epoch {i + 1}, {o}" for i, o in history["alarm"].dropna().items()]

def translator_notes(
    folder:str|Path, # of a translator
    positive:str,    # the minority's name
) -> list:
    "A sentence on how its epoch was picked, as far as that is told; on few films; and on whom it was picked by."
    folder, said = Path(folder), []
    own = read_json(folder/"settings.json") if (folder/"settings.json").exists() else {}
    note = pick_note(read_csv(folder/"history.csv"), positive) if (folder/"history.csv").exists() else ""
    if note: said.append(f"{folder.name}: {note} The films below are judged by the same real films, which flatters "
                         "them a little.")
    elif own.get("select") == "last": said.append(f"{folder.name}: its last epoch translates.")
    if own.get("diffaug"): said.append(f"{folder.name}: discriminators saw changed films ({own['diffaug']}).")
    return said
