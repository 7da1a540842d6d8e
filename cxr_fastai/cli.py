"""The command line: `cxr-fastai` lists its verbs, `cxr-fastai VERB --help` explains one. Each is a door to a function.

A verb here gives that door, whose flags come from the heads of what is behind it: help, and words that aren't
understood, come at once. What is behind is imported when the door is opened."""
import inspect, os, signal, sys, threading
from functools import partial
from pathlib import Path
from typing import Annotated

from . import __version__
from .core.files import lenient, plain_warnings, say
from .core.shell import header_of, parse_flags, without_warnings
from .core.terminal import still
from .core.words import known_word, nearest_word, WordError, Words

__all__ = ["main"]

TORCHS_OWN = "`torch.jit.script` is deprecated", # opens every command, and is nobody's but torch's

def _takes(module, name, **kwargs):
    "The flags of a function that isn't imported yet."
    from .settings import takes
    return takes(header_of(module, name), **kwargs)

def _settle(source, flags):
    """What `source`, a light function or class of settings, makes of flags. WordError for those that it doesn't take:
    before torch is loaded."""
    from .settings import listed, TRACKERS, Training
    own = {*inspect.signature(source).parameters, *Training.fields()}
    for o in listed(flags.get("track", "")): known_word("track", o, TRACKERS)
    try: return source(**{k: o for k, o in flags.items() if k in own})
    except ValueError as e: raise WordError(str(e)) from e

def cohort():
    "Read any table of films, draw a cohort, split it by patient; print its flow, write its rows."
    @_takes("cohort.folder", "load_cohort")
    def door(
        out:str="cohort.csv", # the rows, for `read_rows`
        **flags,
    ):
        from .cohort.folder import flow_text, load_cohort
        from .cohort.rows import save_rows
        save_rows(rows := load_cohort(**flags), out)
        print(f"\n{flow_text(rows)}\n\nThe rows are in {out}")
    return door

def _study(*backbones, **flags):
    "Run it and write its report; gives 1 where a cell is missing."
    from .settings import plan_of
    _settle(plan_of, flags | (dict(backbones=backbones) if backbones else {}))
    from .core.csvs import read_csv
    from .fit.distributed import is_first
    from .report.page import report
    from .study.run import run_study
    folder = run_study(*backbones, **flags)
    if folder is None or not is_first(): return # a dry run leaves none
    print(f"The report is {report(folder)}")
    return int(read_csv(folder/"cells.csv")["error"].notna().any())

def train():
    "Train the paper's arms with one backbone; print their epoch tables and Table 1's row, write a report."
    @_takes("study.run", "run_study", but=["backbones"])
    def door(
        backbone:str="resnet50", # any timm name; resnet50=FILE has weights of its own
        **flags,
    ): return _study(backbone, **flags)
    return door

def gan():
    "Train the CycleGAN (or a CUT) or go on where it was; make synthetic films of both classes, and judge them."
    @_takes("gan.pipeline", "run_gan")
    def door(
        dry_run:bool=False, # say what there is to do, its minutes and GB by a few measured steps, and do none of it
        **flags,
    ):
        from .settings import Gan
        _settle(Gan, flags)
        from .gan.pipeline import run_gan
        from .report.films import plot_gan
        from .study.estimate import gan_estimate_text
        print(f"\n{gan_estimate_text(**flags)}") if dry_run else plot_gan(run_gan(**flags))
    return door

def study():
    "Run a grid of backbones, arms and seeds, or go on with it; print Table 1, write tables and a report."
    @_takes("study.run", "run_study")
    def door(
        seeds:Annotated[Words, "of every arm; a verdict needs three", "arms"]="0,1,2",
        **flags,
    ): return _study(seeds=seeds, **flags)
    return door

def rerun():
    "Run the command of a study again: what is missing of it, or nothing."
    from .settings import plan_of
    settled = [o for f in (plan_of, header_of("cohort.folder", "load_cohort")) for o in inspect.signature(f).parameters]
    @_takes("study.run", "run_study", but=[*settled, "out", "prevalence", "groups", "relabel", "external"])
    def door(
        study:str, # its folder, as runs/study-1a2b3c4d
        **flags,
    ):
        if not (Path(study)/"settings.json").is_file():
            raise FileNotFoundError(f"{study} is no study: it holds no settings.json; rerun takes the folder of "
                                    "one, as runs/study-1a2b3c4d.")
        _, before = _given("study", ["--config", str(Path(study)/"settings.json")])
        return _study(**before | flags | dict(out=str(Path(study).absolute().parent)))
    return door

def plan():
    "Say before a study what it would find: power, intervals, false verdicts, and how large a validation must be."
    @_takes("report.planned", "plan_study")
    def door(**flags):
        from .report.planned import plan_study
        print(f"\nThe figure is {plan_study(**flags)}, its numbers are beside it")
    return door

def report():
    "Write a study's page and figures again."
    def door(
        folder:str, # a study's, as runs/study-1a2b3c4d
    ):
        from .report.page import report
        print(f"The report is {report(folder)}")
    return door

def predict():
    "Predict new patients with a bundle: a row an image, in a csv."
    @_takes("trained.predict", "predict_patients", but=["bundle", "images"])
    def door(
        bundle:str, # a cell's `bundle` folder, or a .safetensors file
        images:str=None, # an image (png, jpeg, tiff, DICOM), a folder of them, or a csv that names them; or --data
        **flags,
    ):
        from .settings import PRECISIONS
        known_word("precision", flags.get("precision", "auto"), PRECISIONS)
        from .trained.predict import predict_patients
        print(f"The predictions are in {predict_patients(bundle, images, **flags)}")
    return door

def explain():
    "Explain what a bundle says of test patients: heat over the film, beside the metadata's contributions."
    @_takes("trained.explain", "explain_bundle", but=["bundle", "csv"])
    def door(
        bundle:str, # a cell's `bundle` folder, or a .safetensors file
        csv:str=None, # rows of `save_rows`, as a study's rows.csv; those of its test split; or --data
        **flags,
    ):
        from .trained.explain import explain_bundle
        print(explain_bundle(bundle, csv, **flags))
    return door

def validate():
    "Validate a bundle on rows from elsewhere, at its own threshold: figures, sites, and what is wrong."
    @_takes("trained.validate", "validate_bundle", but=["bundle"])
    def door(
        bundle:str, # a cell's `bundle` folder, or a .safetensors file
        **flags,
    ):
        from .trained.validate import validate_bundle
        validate_bundle(bundle, **flags)
    return door

def demo():
    "Serve a page to try a bundle in a browser, or write it as a Space of the Hugging Face hub."
    @_takes("trained.demo", "serve_demo", but=["bundle"])
    def door(
        bundle:str, # a cell's `bundle` folder, or a .safetensors file
        space:str=None, # a new folder for the files of a Space; nothing is served then
        **flags,
    ):
        if space is None:
            from .trained.demo import serve_demo
            return serve_demo(bundle, **flags)
        if flags: raise WordError(f"--space writes files and serves nothing: leave out --{next(iter(flags))}.")
        from .trained.space import write_space
        print(f"{write_space(bundle, space)} holds the Space: make one on the hub, then hf upload OWNER/NAME {space} . "
              "--repo-type space")
    return door

def bundle():
    "Make one bundle of the models of a study's arm, all its folds and seeds: their mean, for predict and the others."
    @_takes("study.bundled", "bundle_study", but=["study"])
    def door(
        study:str, # its folder, as runs/study-1a2b3c4d
        **flags,
    ):
        from .study.bundled import bundle_study
        print(f"The bundle is {bundle_study(study, **flags)}")
    return door

def doctor():
    "Say what would go wrong before it does: packages, device, data, weights, memory, disk. Takes a study's flags."
    @_takes("doctor", "doctor")
    def door(
        json:bool=False, # print it as json
        **flags,
    ):
        from .core.installed import Finding, installed
        from .settings import plan_of
        asked = _settle(plan_of, flags)
        try:
            from .doctor import doctor
            from .models.weights import check_arch
        except (ImportError, OSError) as e: # whatever the flags, nothing else can be looked at
            print(installed() + [Finding("imports", "FAIL", _said(e), "--debug shows where")])
            raise SystemExit(1) from e
        if asked.sees: list(map(check_arch, asked.weights_of))
        found = doctor(**flags)
        print(found.json if json else found)
        return int(found.failed)
    return door

VERBS = {o.__name__: o for o in (cohort, train, gan, study, rerun, plan, report, bundle, predict, explain, validate,
                                     demo, doctor)}
OPTIONAL = dict(train=["backbone"], predict=["images"], explain=["csv"]) # verb -> flags that need no name
PLANNED = "train", "study", "doctor" # what they are given makes a plan
OF_STUDY = *PLANNED, "cohort", "gan" # take their flags from a study's settings.json, too
UNLISTED = dict(cat_names=Words, cont_names=Words, tuned=Words) # of a plan: the table's and a search's, but in Python

def _listing():
    lines = "\n".join(f"  {name:<10}{o.__doc__}" for name, o in VERBS.items())
    return ("usage: cxr-fastai VERB [...]\n\nHow much does the minority class of a set of radiographs gain from "
            f"metadata and from synthetic images?\n\n{lines}\n\ncxr-fastai VERB --help explains a verb's flags; "
            f"--debug shows where an error came from. cxr-fastai {__version__}; nothing here is a medical device.")

def _of_study(verb, settings):
    "A study's settings as flags of a verb."
    from .settings import GAN_FLAGS, study_flags
    flags, data = study_flags(settings), settings["cohort"]
    if verb == "cohort": return data | dict(split_seed=flags["split_seed"])
    if verb == "gan":
        own = {o: flags.get(flag) for o, flag in GAN_FLAGS.items()} | dict(precision=flags["precision"])
        judge = "none" if flags["weights"] == "none" else "auto"
        return data | own | dict(size=settings["gan_size"], weights=judge, seed=flags["split_seed"])
    if verb == "train":
        backbone, *more = flags.pop("backbones")
        if more: raise WordError(f"it is of {1 + len(more)} backbones, and train takes one; study takes them.")
        flags |= dict(backbone=backbone)
    return flags

def _given(verb, args):
    "A verb's door, and what it is given."
    door = VERBS[verb]()
    door.__doc__ = VERBS[verb].__doc__
    of_study = partial(_of_study, verb) if verb in OF_STUDY else None
    return door, parse_flags(verb, door, args, OPTIONAL.get(verb, ()), of_study, UNLISTED if verb in PLANNED else None)

def _run(verb, args):
    door, flags = _given(verb, args)
    return door(**flags)

def _said(error):
    "An error's sentence, on one line."
    why, file = (getattr(error, o, None) for o in ("strerror", "filename"))
    if why and file: return f"{why}: {file}"
    return " ".join(str(error).split()) or type(error).__name__

def _mendable(error):
    "Whether its sentence is what the user needs: bad input, a missing file or package, a full disk or memory; ours."
    kinds = OSError, ValueError, ImportError, MemoryError
    return isinstance(error, kinds) or type(error).__name__ in ("CellError", "OutOfMemoryError")

def _end(said, code):
    "Say what comes last, on stderr where the code is an error's, and give the code."
    still()
    say(said, file=sys.stderr if code else sys.stdout)
    return code

def _terminated(*_):
    "SIGTERM ends a run as Ctrl-C does: its workers end, and what is unfinished goes."
    raise SystemExit(143)

def main(
    args:list=None, # words after `cxr-fastai`; None: those it was started with
) -> int:           # 0; 1 for an error or a FAIL, 2 for words that aren't understood, 130 for Ctrl-C
    "Run a verb. An error the user can mend is one sentence on stderr; any other keeps its traceback."
    lenient()
    plain_warnings()
    if threading.current_thread() is threading.main_thread(): signal.signal(signal.SIGTERM, _terminated)
    verb, *args = (sys.argv[1:] if args is None else args) or ["--help"]
    if verb == "help" and args: verb, args = args[0], ["--help"]
    if verb in ("-h", "--help", "help"): return _end(_listing(), code=0)
    if verb == "--version": return _end(f"cxr-fastai {__version__}", code=0)
    if verb not in VERBS:
        hint = nearest_word(verb, [*VERBS, "help", "--help", "--version"]) or f"there are {', '.join(VERBS)}."
        return _end(f"cxr-fastai: {verb!r} is no verb; {hint}", code=2)
    try:
        with without_warnings(*TORCHS_OWN): return _run(verb, args) or 0
    except KeyboardInterrupt: # what is whole stays
        return _end(f"\ncxr-fastai {verb}: stopped; the same command does what is missing.", code=130)
    except BrokenPipeError: # a reader such as `head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as e:
        if "--debug" in args or os.environ.get("CXR_FASTAI_DEBUG") or not _mendable(e):
            still()
            raise
        return _end(f"cxr-fastai {verb}: {_said(e)}", code=2 if isinstance(e, WordError) else 1)

if __name__ == "__main__": sys.exit(main())
