"Other generators than the study's own, by name: how an arm names one, and where its films are. No torch."
import re
from pathlib import Path

from ..arms import ARMS, parse_arm, PRETRAININGS
from .files import few

__all__ = ["check_generator", "check_generators", "places_of", "whose_films"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}") # it stands in arms and in names of files

def check_generator(
    name:str, # of whoever made films, as a study calls it
) -> str:     # the same
    "ValueError for a name that can't stand in an arm's."
    if NAME.fullmatch(name): return name
    raise ValueError(f"{name!r} can't name a generator: it is of letters, digits, '.', '_' and '-', 40 at most, and "
                     "begins with a letter or digit.")

def whose_films(
    name:str,   # of an arm
    words:list, # of its name, maybe with a generator after an @
) -> tuple:     # the words alone, and the generator; None where none is named
    "Who made an arm's synthetic films. ValueError for a generator after a word that has none, and for two."
    parts = [o.partition("@") for o in words]
    found = [(word, check_generator(films)) for word, at, films in parts if at]
    of_films = [k for k, o in ARMS.items() if o.real] + [k for k, o in PRETRAININGS.items() if not o.again]
    if len(found) > 1 or any(word not in of_films for word, _ in found):
        raise ValueError(f"The arm {name!r} makes no sense: @ names who made its synthetic films, once, and stands "
                         f"after one of {', '.join(of_films)}.")
    return [word for word, _, _ in parts], found[0][1] if found else None

def check_generators(
    given:tuple,  # NAME=FOLDER_OR_CSV each
    arms:list,    # of the study
    protocol:str, # of the study
) -> tuple:       # the same, found from any folder
    "ValueError for a name that is none or is given twice, and where arms and films don't fit."
    parts, known = [o.partition("=") for o in given], list(map(parse_arm, arms))
    names, used = [check_generator(o[0]) for o in parts], {o.films for o in known} - {None}
    for wrong, why in (
        ([o[0] for o in parts if not o[2]], "write NAME=FOLDER, or a csv's name, for each generator"),
        ([o for o in names if names.count(o) > 1], "name each generator once"),
        (used - {*names}, "an arm has films of it, and it isn't said where they are: NAME=FOLDER"),
        ({*names} - used, "no arm has these films; add real-synth@NAME, or leave them out"),
        (used if protocol == "paper" else (), "the protocol 'paper' is of the paper's own arms; take 'clean'")):
        if wrong: raise ValueError(f"--synthetic-from {few(sorted({*wrong}))}: {why}.")
    if protocol == "paper" and any(o.pretraining for o in known):
        raise ValueError("The protocol 'paper' is of the paper's own arms, without pretraining; take 'clean'.")
    return tuple(f"{name}={Path(place).absolute()}" for name, _, place in parts)

def places_of(
    given:tuple, # NAME=FOLDER_OR_CSV each
) -> dict:
    "Name of a generator -> where its films are."
    return dict(o.split("=", 1) for o in given)
