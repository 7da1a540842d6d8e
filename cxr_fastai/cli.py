"""The command line: `cxr-fastai` lists its verbs, `cxr-fastai VERB --help` explains one. Each is a door to a function.

A verb here gives that door, and imports what is behind it: what needs no torch, as the list, comes at once."""
import os, signal, sys, threading
from difflib import get_close_matches

from . import __version__
from .core.files import lenient, plain_warnings

__all__ = ["main"]

def cohort():
    "Draw the paper's cohort from NIH's csv and images, split it by patient; print its flow, write its rows."
    from .cohort.folder import flow_text, load_cohort
    from .cohort.rows import save_rows
    from .settings import takes
    @takes(load_cohort)
    def door(
        out:str="cohort.csv", # the rows, for `read_rows`
        **flags,
    ):
        rows = load_cohort(**flags)
        save_rows(rows, out)
        print(f"\n{flow_text(rows)}\n\nThe rows are in {out}")
    return door

def _report(folder):
    "Of a study that ran; gives 1 where a cell is missing."
    from .fit.distributed import is_first
    from .core.csvs import read_csv
    from .report.page import report
    if not is_first(): return
    print(f"The report is {report(folder)}")
    return int(read_csv(folder/"cells.csv")["error"].notna().any())

def train():
    "Train the paper's arms with one backbone; print their epoch tables and Table 1's row, write a report."
    from fastcore.meta import delegates
    from .study.run import run_study
    @delegates(run_study, but="backbones")
    def door(
        backbone:str="resnet50", # any timm name; resnet50=FILE has weights of its own
        **kwargs,
    ): return _report(run_study(backbone, **kwargs))
    return door

def gan():
    "Train the CycleGAN or go on where it was; make synthetic films both ways, and judge them."
    from fastcore.meta import delegates
    from .gan.pipeline import run_gan
    from .report.films import plot_gan
    @delegates(run_gan)
    def door(**kwargs): plot_gan(run_gan(**kwargs))
    return door

def study():
    "Run a grid of backbones, arms and seeds, or go on with it; print Table 1, write tables and a report."
    from fastcore.meta import delegates
    from .study.run import run_study
    @delegates(run_study)
    def door(
        seeds:str="0,1,2", # of every arm; a verdict needs three
        **kwargs,
    ): return _report(run_study(seeds=seeds, **kwargs))
    return door

def report():
    "Write a study's page and figures again."
    from .report.page import report
    def door(
        folder:str, # a study's, as runs/study-1a2b3c4d
    ): print(f"The report is {report(folder)}")
    return door

def predict():
    "Predict new patients with a bundle: a row an image, in a csv."
    from fastcore.meta import delegates
    from .trained.predict import predict_patients
    @delegates(predict_patients, but=["bundle", "images"])
    def door(
        bundle:str, # a cell's `bundle` folder, or a .safetensors file
        images:str, # an image (png, jpeg, tiff, DICOM), a folder of them, or a csv that names them
        **kwargs,
    ): print(f"The predictions are in {predict_patients(bundle, images, **kwargs)}")
    return door

def explain():
    "Explain what a bundle says of test patients: heat over the film, beside the metadata's contributions."
    from fastcore.meta import delegates
    from .trained.explain import explain_bundle
    @delegates(explain_bundle, but=["bundle", "csv"])
    def door(
        bundle:str, # a cell's `bundle` folder, or a .safetensors file
        csv:str,    # rows of `save_rows`, as a study's rows.csv; those of its test split
        **kwargs,
    ): print(explain_bundle(bundle, csv, **kwargs))
    return door

def doctor():
    "Say what would go wrong before it does: packages, device, data, weights, memory, disk. Takes a study's flags."
    from fastcore.meta import delegates
    from .core.installed import Finding, installed
    try: from .doctor import doctor
    except (ImportError, OSError) as e: # whatever the flags, nothing else can be looked at
        print(installed() + [Finding("imports", "FAIL", _said(e), "--debug shows where")])
        raise SystemExit(1) from e
    @delegates(doctor)
    def door(
        json:bool=False, # print it as json
        **kwargs,
    ):
        found = doctor(**kwargs)
        print(found.json if json else found)
        return int(found.failed)
    return door

VERBS = {o.__name__: o for o in (cohort, train, gan, study, report, predict, explain, doctor)}
OPTIONAL = "backbone", # flags that need no name

def _listing():
    lines = "\n".join(f"  {name:<10}{o.__doc__}" for name, o in VERBS.items())
    return ("usage: cxr-fastai VERB [...]\n\nHow much does the minority class of a set of radiographs gain from "
            f"metadata and from synthetic images?\n\n{lines}\n\ncxr-fastai VERB --help explains a verb's flags; "
            f"--debug shows where an error came from. cxr-fastai {__version__}; nothing here is a medical device.")

def _parser(verb, door):
    from fastcore.script import anno_parser
    door.__doc__ = VERBS[verb].__doc__
    parser = anno_parser(door, f"cxr-fastai {verb}", [o for o in OPTIONAL if o in door.__annotations__])
    parser.epilog = None
    parser.add_argument("--debug", action="store_true", help="where an error came from, not only what it says")
    return parser

def _run(verb, args):
    door = VERBS[verb]()
    given = vars(_parser(verb, door).parse_args(args))
    return door(**{k: v for k, v in given.items() if k not in ("debug", "pdb", "xtra")})

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
    print(said, file=sys.stderr if code else sys.stdout)
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
    if verb in ("-h", "--help", "help"): return _end(_listing(), code=0)
    if verb == "--version": return _end(f"cxr-fastai {__version__}", code=0)
    if verb not in VERBS:
        near = get_close_matches(verb, VERBS, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(VERBS)}."
        return _end(f"cxr-fastai: {verb!r} is no verb; {hint}", code=2)
    try: return _run(verb, args) or 0
    except KeyboardInterrupt: # what is whole stays
        return _end(f"\ncxr-fastai {verb}: stopped; the same command does what is missing.", code=130)
    except BrokenPipeError: # a reader such as `head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as e:
        if "--debug" in args or os.environ.get("CXR_FASTAI_DEBUG") or not _mendable(e): raise
        return _end(f"cxr-fastai {verb}: {_said(e)}", code=1)

if __name__ == "__main__": sys.exit(main())
