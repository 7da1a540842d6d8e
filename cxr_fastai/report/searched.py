"How a study's classifiers came to their settings, where `--tune` searched them: sentences, and the table of trials."
from ..arms import arm_title
from ..core.csvs import read_csv
from ..core.tuned import choices, searched_of
from .notes import counted

__all__ = ["SEEDS", "tuned_words", "tuning_note"]

SEEDS = 2 # of a study's, the first, over which a trial is the mean: seeds that a study gains later change nothing
WORDS = dict(lr="base rate {:.3g}".format, epochs=lambda o: counted(o, "epoch"), ps="dropout {:.3g}".format,
             fusion="fusion {!r}".format)

def tuned_words(
    tuned:list, # of a study's settings
) -> str:
    "What was chosen for each backbone."
    said = lambda chosen: ", ".join(o(chosen[k]) for k, o in WORDS.items() if k in chosen)
    return "; ".join(f"{arch}: {said(chosen)}" for arch, chosen in choices(tuned).items())

def tuning_note(
    settings:dict, # of a study
) -> str:          # '' without a search
    "What searched, by which rows, and what it chose."
    if not (tuned := settings.get("tuned")): return ""
    arm, seeds = searched_of(settings["arms"], settings["primary"]), settings["seeds"][:SEEDS]
    trials = dict.fromkeys(str(o["trials"]) for o in choices(tuned).values() if "trials" in o)
    return (f"Settings were searched by optuna's TPE, {' or '.join(trials) or 'some'} trials a backbone, with "
            f"{arm_title(arm)} alone: the highest AUC of the valid rows, mean over seeds {', '.join(map(str, seeds))}. "
            f"Test rows weren't in the search. All arms train by what was chosen. {tuned_words(tuned)}.")

def tuning(study, page):
    "The section: what was chosen, and every trial, where the search was run in this folder."
    if not (note := tuning_note(study.settings)): return
    page.section("Search of settings").text(note)
    if not (file := study.folder/"tune.csv").exists(): return
    table = read_csv(file, dict.fromkeys(("backbone", "arm", "fusion", "chosen"), str))
    table["lr"] = table["lr"].map("{:.3g}".format)
    page.table(table.drop(columns="search"), "Trials: AUC of the valid rows, which flatters the chosen one",
               main=("trial", "lr", "epochs", "ps", "rocauc", "chosen"))
