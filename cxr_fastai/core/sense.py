"Which words of an arm's name go together, and which numbers make a cross-validation. No torch."
from ..arms import Arm, POLICIES, RIVALS

__all__ = ["sensible"]

def sensible(
    name:str, # of an arm
    arm:Arm,  # what it says
) -> Arm:     # the same
    "The arm, or one sentence on why nobody could train it as its name says."
    mixes = arm.rival and RIVALS[arm.rival].mixes
    image_only = arm.policy and POLICIES[arm.policy].image_only
    for wrong, why in (
        (arm.rival and arm.use == "metadata", "rivals of synthesis are for arms with images"),
        (arm.policy and not arm.reads_synth, "a metadata policy is for synthetic rows, and it has none"),
        (arm.policy and arm.films and POLICIES[arm.policy].matched,
         f"{arm.policy!r} chooses which films are translated, and those of {arm.films} are there; take donor"),
        (arm.part and not arm.reads_synth, f"{arm.part!r} is a part of the change in synthetic films, and it has none"),
        (arm.pretraining and arm.use == "metadata", "pretraining is on films, and it reads none"),
        (arm.pretraining and arm.synth, "synthetic films are mixed with the real ones, or come before them; take one"),
        (arm.pretraining and arm.again, f"{arm.rival!r} is the control for rows that are mixed in; take one of both"),
        (arm.policy and arm.use == "image", "a metadata policy changes nothing where no metadata is read"),
        (arm.fusion and arm.use != "both", "a fusion needs image and metadata"),
        (mixes and image_only, "rows mixed with image-only ones lose their partner's metadata"),
        (arm.again and arm.synth, f"{arm.rival!r} is the control for synthetic rows; take one of both"),
        (arm.dose is not None and not arm.more, "a dose is of synthetic or duplicated rows, and it has none")):
        if wrong: raise ValueError(f"The arm {name!r} makes no sense: {why}.")
    return arm

def check_folds(
    folds:int,    # or None
    repeats:int,  # of them
    protocol:str, # of the study
):
    "ValueError for numbers that make no cross-validation, and for the protocol that has a split of its own."
    if folds is not None and folds < 3:
        raise ValueError(f"folds={folds}: one part is for test, one for valid, the rest to train: 3 or more.")
    if repeats < 1: raise ValueError(f"repeats={repeats} must be 1 or more.")
    if folds is None and repeats > 1: raise ValueError(f"repeats={repeats} is of folds, and there are none; name both.")
    if folds and protocol == "paper": raise ValueError("The protocol 'paper' has one split of its own, and no folds.")
