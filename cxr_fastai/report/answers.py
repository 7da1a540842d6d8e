"""What a study's files can answer to a reporting checklist: an answer a function of its settings and its tables.

An answer says what was done, as far as settings and tables tell; where they don't, there is none (None), and the item
is its author's. No torch."""
from ..arms import arm_title, parse_arm, PARTS, POLICIES, PRETRAININGS
from ..cohort.rows import positive
from ..cohort.sampling import sides_of
from ..stats.scoring import METRICS
from .notes import (column_names, counted, generator_notes, has_synth, is_drawn_study, listed, on_several_sides,
                    split_note, translator_of, unknown_sources, uses)
from .searched import tuned_words

KNOWN = "auto", "imagenet", "none" # weights of which it is known what they were fitted on

def _variants(settings): return [o for o in settings["arms"] if "+" in o]

def _unknown_weights(settings):
    "Backbones whose weights are a file's, of which nobody here knows what it was fitted on."
    if not uses(settings, "image"): return []
    return [arch for arch, weights in settings.get("weights_of", {}).items() if weights not in KNOWN]

def source(settings, tables):
    if is_drawn_study(settings): return "No patients: films that the toolkit drew."
    return f"Read from {settings['data'] or 'a table'}; what it is, and how it was collected, is for the author to say."

def aim(settings, tables):
    if not tables.plan: return
    if not tables.plan.get("primary"): return "No primary comparison was planned."
    before, after = map(arm_title, tables.plan["primary"])
    return (f"The primary comparison, as plan.json had it at {tables.plan['time']}: {before} against {after}, by the "
            f"difference of their AUC on the test rows, two-sided {tables.plan['alpha']:.0%} over the backbones.")

def eligible(settings, tables):
    sides = sides_of(tables.rows)
    return "; ".join(f"{o.step}: {o.rows:,} rows" for o in tables.flow.itertuples() if o.step not in sides) + "."

def prepared(settings, tables):
    said = []
    if uses(settings, "image"):
        side, augmented = settings["size"], any(parse_arm(o).rival == "augment" for o in settings["arms"])
        more = " (twice that and some warp in the arms '+augment')" if augmented else ""
        said.append(f"Films: one 8-bit gray channel, {side} x {side} pixels, normalised as the backbone expects; in "
                    f"training, small rotation, zoom and lighting{more}, no flip.")
    if uses(settings, "metadata"): said.append("Metadata: words one-hot, numbers to 0 to 1 by the training rows.")
    return " ".join(said)

def _masked(settings):
    "How metadata is masked in training."
    share = settings.get("training", {}).get("meta_dropout")
    said, both = "", [arm for arm in map(parse_arm, settings["arms"]) if arm.synth and arm.use == "both"]
    if share: said += (f" In training {share:.0%} of the values are masked as missing, and where films are read, as "
                       "many patients.")
    policies = {arm.policy or settings.get("metadata") for arm in both}
    for name in [name for name, policy in POLICIES.items() if policy.masks and name in policies]:
        said += f" Synthetic rows of the policy {name!r} have none; real rows of the other label are masked as often."
    return said

def missing(settings, tables):
    if not uses(settings, "metadata"): return "No arm reads metadata."
    rows = tables.rows
    gaps = [f"{o} in {rows[o].isna().sum():,}" for o in column_names(settings) if o in rows]
    return (f"Missing among {len(rows):,} rows: {', '.join(gaps)}. Nothing is imputed: 'missing' is encoded as such."
            f"{_masked(settings)}")

def _fitted(settings):
    "What was fitted on which rows, as far as that is known."
    gan = has_synth(settings) and translator_of(settings).title
    if settings["protocol"] == "paper":
        return f"; the {gan} saw every row, and synthetic films were split among all sides" if gan else ""
    models = f"no classifier here and no {gan}" if gan else "no classifier here"
    unknown = [f"the generators {listed(o)} were" for o in [unknown_sources(settings)] if o]
    unknown += [f"the weights that {listed(o)} began with were" for o in [_unknown_weights(settings)] if o]
    said = f"; {models} is fitted on a test row"
    return f"{said} (what {' and '.join(unknown)} fitted on isn't known)" if unknown else said

def assigned(settings, tables):
    how = split_note(settings)
    if how is None: return
    sides = ", ".join(f"{o} {len(own):,}" for o, own in sides_of(tables.rows).items())
    return f"{how}{_fitted(settings)}: {sides}."

def disjoint(settings, tables):
    twice, n = on_several_sides(tables.rows), tables.rows["patient_id"].nunique()
    if twice: return f"Not by patient: {twice:,} of {n:,} are on several sides."
    return f"By patient: none of {n:,} is on two sides, as counted in rows.csv."

def counts(settings, tables):
    said = (f"{o}: {len(rows):,} rows, {positive(rows).sum():,} positive" for o, rows in sides_of(tables.rows).items())
    return "; ".join(said) + "."

def size(settings, tables):
    return (f"{counts(settings, tables)} Whether a size was calculated is for the author; the intervals show what this "
            "one allows.")

def model(settings, tables):
    said, both = [], [arm for arm in map(parse_arm, settings["arms"]) if arm.use == "both"]
    if uses(settings, "image"): said.append(f"{listed(settings['backbones'])} of timm on one gray channel")
    if uses(settings, "metadata"): said.append("a perceptron on the metadata")
    merged = dict.fromkeys(arm.fusion or settings.get("fusion", "concat") for arm in both)
    if merged: said.append(f"both trained jointly and merged by {listed(map(repr, merged))}")
    if has_synth(settings):
        kind = translator_of(settings)
        said.append(f"synthetic films by a {kind.title} ('{settings['gan']}'): {kind.words}")
    return " ".join(["; ".join(said) + ".", *generator_notes(settings)])

def software(settings, tables): return ", ".join(f"{k} {v}" for k, v in settings["versions"].items()) + "."

def initial(settings, tables):
    word = "seeds" if len(settings["seeds"]) > 1 else "seed"
    seeds = f"at random from {listed(settings['seeds'])}, the {word}"
    if not uses(settings, "image"): return f"All {seeds}."
    found = list(tables.cells["weights"].dropna().unique())
    said = f"Weights of the backbones: {listed(found) or 'no cell is finished'}; all else {seeds}."
    if names := _unknown_weights(settings):
        said += f" What the weights of {listed(names)} were fitted on isn't known here."
    return said

def _frozen(settings, tables):
    n, began = settings.get("training", {}).get("freeze_epochs"), tables.cells["weights"].dropna()
    if not n or not uses(settings, "image") or not began.ne("none").any(): return ""
    where = " where the body's weights are pretrained" if began.eq("none").any() else ""
    return f"after {counted(n, 'epoch')} of the head alone with the body frozen{where}, "

def _gan(settings):
    if not has_synth(settings): return ""
    kind = translator_of(settings)
    if not (own := settings.get("gan_training")):
        return f" How the {kind.title} was trained stands in its folder's settings.json."
    side, residual = settings["gan_size"], ", which add to their input" if own["residual"] else ""
    return (f" {kind.title}: {counted(own['epochs'], 'epoch')}, half at the rate {own['lr']:g} and half falling to 0, "
            f"in batches of {own['bs']} at {side} x {side} pixels; {kind.told(own)}; "
            f"generators of {own['ngf']} first channels{residual}; one a seed.")

def _first(settings):
    "What is fitted before the real rows, and of which part of a change films are."
    words = dict.fromkeys(o.pretraining for o in map(parse_arm, settings["arms"]) if o.pretraining)
    said = "".join(f" Arms '+{o}': {PRETRAININGS[o].words}; as many epochs, as many films of a class." for o in words)
    parts = dict.fromkeys(o.part for o in map(parse_arm, settings["arms"]) if o.part)
    return said + "".join(f" Arms '+{o}': {PARTS[o].words}." for o in parts)

def training(settings, tables):
    done = int(tables.cells["error"].isna().sum()) if "error" in tables.cells else len(tables.cells)
    drop = settings.get("training", {}).get("ps")
    text = (f"{_frozen(settings, tables)}{counted(settings['epochs'], 'epoch')} in batches of {settings['bs']}, "
            f"one-cycle schedule, base rate {settings['lr']:g}, AdamW")
    if drop and uses(settings, "image"): text += f", dropout {drop:g} before the output"
    if settings.get("tuned"): text += "; in place of these, " + tuned_words(settings["tuned"])
    masked = _masked(settings) if uses(settings, "metadata") else ""
    return (f"{text[0].upper()}{text[1:]}. {counted(done, 'model')}, alike but for what an arm's name says.{masked}"
            f"{_first(settings)}{_gan(settings)} What was tried before is for the author.")

def selected(settings, tables):
    return "The last epoch." if settings["epoch_rule"] == "last" else "The best epoch by the valid rows' AUC."

def ensembling(settings, tables):
    named = any(parse_arm(o).base == "real-synth-meta" for o in settings["arms"])
    return ("None: 'Ensemble' is the paper's name of an arm, and each model predicts alone." if named else
            "None: each model predicts alone.")

def metrics(settings, tables):
    others = ", ".join(o.words for name, o in METRICS.items() if name != "recall")
    return (f"Recall at .5, the paper's; {others}, calibration; sensitivity at thresholds fixed on the valid rows; "
            "ROC, precision-recall and calibration curves.")

def statistics(settings, tables):
    many = len(settings["seeds"]) > 1
    seeds = "mean and deviation over seeds" if many else "one seed, so that no luck of training is covered"
    trainings = ", and over trainings, too" if many else ""
    said = f"95% intervals of each arm over the test patients{trainings}; {seeds}"
    if len(settings["arms"]) < 2: return f"{said}; no arms are compared."
    pairs = "DeLong's test of the AUC"
    if tables.plan:
        drawn = "patients and seeds" if many else "patients"
        pairs += f" and t tests of other figures, {drawn} being drawn; "
        pairs += ("the primary comparison with Holm's correction over the backbones, all else uncorrected"
                  if tables.plan["primary"] else "none is corrected")
    return f"{said}; arms in pairs on the same rows by {pairs}."

def robust(settings, tables):
    more = ", ".join(_variants(settings)) or "none"
    return f"Seeds: {len(settings['seeds'])}; backbones: {len(settings['backbones'])}; variants: {more}."

def imbalance(settings, tables):
    kinds = sorted({word for o in _variants(settings) for word in o.split("+")[1:] if not word[0].isdigit()})
    synth = ", ".join(o for o in settings["arms"] if parse_arm(o).reads_synth)
    return (f"{positive(tables.rows).mean():.0%} positive. Synthetic minority films: {synth or 'no arm'}; variants: "
            f"{', '.join(kinds) or 'none'}. Also shown with logits corrected for the shift of the prior.")

def output(settings, tables):
    return (f"A probability of {settings['positive']}; called so above .5, as the paper, and at thresholds from the "
            "valid rows.")

def internal(settings, tables):
    if not settings.get("split"): return
    return "On rows of the same table that were drawn at random."

def same(settings, tables):
    if not settings.get("split"): return
    return "None by design: one table, split at random. Section 'Cohort' shows the sides."

def groups(settings, tables):
    beside = ", beside metadata alone" if "meta" in settings["arms"] else ""
    return f"Section 'Subgroups'{beside}; nothing is done to even groups out."

def failures(settings, tables):
    return "Sections 'Confusion matrices' and 'Subgroups' count them; looking at the films is the author's."

def where(text): return lambda settings, tables: text

cohort = where("Section 'Cohort'.")
updating = where("The prior-shift correction alone, shown beside what is predicted.")
scored = where("Sections 'Table 1', 'Comparisons' and 'All metrics', with intervals.")
details = where("Section 'Settings and versions', and settings.json.")
