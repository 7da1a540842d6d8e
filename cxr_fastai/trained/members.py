"""A bundle of several members: cards and weights of single models as those of one, whose probability is their mean.

Members are alike in all but what they learnt. Backbones that are equal to the bit, as probes' are, are kept once."""
import torch

from ..cohort.seen import Seen
from ..core.files import few
from ..data.metadata import fitted_metadata, JoinedMetadata
from .card import BundleError, MAX_MEMBERS, OWN

__all__ = ["backbones_in", "joined_card", "joined_state", "temperatures_of"]

ALIKE = dict(kind="inputs", classes="classes", arch="backbone", size="size of images", white="white of 16-bit films",
             fusion="fusion", n_meta="width of metadata", ps="dropout", meta_dropout="dropout of metadata",
             precision="precision", cat_names="columns of words", cont_names="columns of numbers")
BELOW = "backbone."

def _check_alike(cards):
    "BundleError where members differ in more than what they learnt."
    if not 0 < len(cards) <= MAX_MEMBERS:
        raise BundleError(f"A bundle has 1 to {MAX_MEMBERS} members, and {len(cards)} were given.")
    if any("members" in o for o in cards):
        raise BundleError("A member is a bundle of several itself: give its members one by one, for the mean of means "
                          "isn't the mean.")
    for name, words in ALIKE.items():
        values = [(o | o.get("metadata", {})).get(name) for o in cards]
        if any(o != values[0] for o in values):
            said = few(dict.fromkeys(", ".join(map(str, o)) if isinstance(o, list) else str(o) for o in values))
            raise BundleError(f"The members' {words} must be one, and is {said}: a bundle is of one arm's folds and "
                              "seeds.")

def _trained_on(cards):
    "The mean of the members' numbers of rows; what is said of any is said of all."
    res = {}
    for name in dict.fromkeys(k for o in cards for k in o["training"] if k != "last_epoch"):
        values = [o["training"].get(name, 0) for o in cards]
        res[name] = max(values) if name in ("drawn", "leaky") else round(sum(values)/len(values))
    return res

def _threshold(cards, given):
    if given is not None: return float(given)
    if all(o["threshold"] == cards[0]["threshold"] for o in cards): return cards[0]["threshold"]
    raise ValueError(f"The members' thresholds differ ({few(sorted({o['threshold'] for o in cards}))}): give one of "
                     "their mean, as in threshold=.5.")

def _seen(cards):
    "Whom any of them was trained on."
    res = Seen()
    for o in cards: res |= Seen.from_card(o.get("seen"))
    return res.card()

def joined_card(
    cards:list,           # of single models, as of `bundle_card`
    threshold:float=None, # of their mean; theirs where not given
    summary:dict=None,    # what to tell of its making
) -> dict:                # without `backbones` and checksum
    """The card of their bundle: what is alike; `members`, with what is each one's own; and of all, mean numbers of
    training rows, every word and the widest range of the metadata, everyone seen, the films of the member with most.
    BundleError for members that differ in more than what they learnt; ValueError for a threshold they don't share."""
    _check_alike(cards)
    card = {k: o for k, o in cards[0].items() if k not in (*OWN, "chosen", "sha256")}
    card |= dict(
        threshold=_threshold(cards, threshold), summary=summary or {}, training=_trained_on(cards),
        versions=cards[0]["versions"], weights="; ".join(dict.fromkeys(o["weights"] for o in cards)),
        licence="; ".join(dict.fromkeys(o["licence"] for o in cards)), seen=_seen(cards),
        typical=max((o["typical"] for o in cards), key=lambda o: o.get("films", 0)),
        members=[{k: o[k] for k in OWN if k in o} for o in cards])
    if "metadata" in cards[0]:
        joined = JoinedMetadata([fitted_metadata(**o["metadata"]) for o in cards])
        card["metadata"] = {o: getattr(joined, o) for o in ("cat_names", "cont_names", "stats")}
    return card

def _below(state): return {k: o for k, o in state.items() if k.startswith(BELOW)}

def _equal(a, b): return a.keys() == b.keys() and all(torch.equal(o, b[k]) for k, o in a.items())

def joined_state(
    states:list, # name -> tensor, of each member
) -> dict:       # of an `Ensemble`
    "The weights of all; backbones that are equal, once."
    below = [_below(o) for o in states]
    if all(_equal(o, below[0]) for o in below): res = dict(below[0])
    else: res = {f"{BELOW}{i}.{k.removeprefix(BELOW)}": o for i, own in enumerate(below) for k, o in own.items()}
    return res | {f"members.{i}.{k}": o for i, own in enumerate(states) for k, o in own.items() if k not in below[i]}

def backbones_in(
    state:dict, # of `joined_state`
) -> int:
    "How many there are: one, or one a member."
    numbers = {k.split(".")[1] for k in _below(state)}
    return len(numbers) if all(o.isdecimal() for o in numbers) else 1

def temperatures_of(
    card:dict, # of a bundle of several
) -> list:
    "By which each member's log odds are divided."
    return [o.get("temperature", 1.) for o in card["members"]]
