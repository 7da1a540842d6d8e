"Which arms of a study are compared, by what their names say. No torch."
from ..arms import Arm, ARMS, is_plain, parse_arm

__all__ = ["pairs_of"]

def _plain_of(name, arm):
    "The arm of one thing less: without the last word, without a dose's rows, or without those of another generator."
    if arm.synth and (is_plain(name) or arm.dose is not None): return ARMS[arm.base].real
    return name.partition("+")[0]

def _asked(a, b):
    """Whether `b` is compared with `a`, what is cheaper: a rival, the control of pretraining, the same films mixed in;
    and films of a part of the change with those of all of it."""
    if b.part and a == b._replace(part=None): return True
    films = dict(films=b.films, part=b.part)
    if b.pretraining and b.reads_synth:
        mixed = a == Arm(a.base, **films) and ARMS[a.base].real == b.base
        control = a.pretraining and not a.reads_synth
        return mixed or control and b == a._replace(pretraining=b.pretraining, policy=b.policy, **films)
    return bool(a.rival) and b == Arm(b.base, **films) and ARMS[b.base].real == a.base

def pairs_of(
    arms:list, # names of a study
    first:list, # pairs of it that come first
) -> list: # (before, after), each once
    "As `arms.comparisons_of`: an arm with its plain one, with what is cheaper, with the same one of another generator."
    known = {o: parse_arm(o) for o in arms}
    pairs = list(first)
    for i, (name, arm) in enumerate(known.items()):
        if (plain := _plain_of(name, arm)) in known and plain != name: pairs.append((plain, name))
        pairs += [(name, o) for o, other in known.items() if _asked(arm, other)]
        same = arm._replace(films=None)
        pairs += [(name, o) for o, other in list(known.items())[i+1:]
                  if arm.reads_synth and other.films != arm.films and other._replace(films=None) == same]
    return list(dict.fromkeys(pairs))
