"The API page holds every public name with its comments; docstrings, comments, hints and lists of names are all there."
import html, importlib, inspect, pkgutil, re
from functools import cache
import pytest
import cxr_fastai
from cxr_fastai.gan import cyclegan
from cxr_fastai.gan import unpaired
from fastcore.docments import MarkdownRenderer, docments
from conftest import ROOT, run_python

pdoc = pytest.importorskip("pdoc")
RECIPE = ROOT/"recipes"/"api.py"
NAMES = [o.name.removeprefix("cxr_fastai.") for o in pkgutil.walk_packages(cxr_fastai.__path__, "cxr_fastai.")]
HOOKS = "forward", "state_dict", "load_state_dict", "show"
MODULES = {o: importlib.import_module(f"cxr_fastai.{o}") for o in NAMES if o != "all"}

def own(module): return {k: o for k, o in vars(module).items() if getattr(o, "__module__", "") == module.__name__}

def names(module): return getattr(module, "__all__", []) # rooms behind a door list nothing

PUBLIC = {f"{k}.{o}": own(m)[o] for k, m in MODULES.items() for o in names(m) if callable(own(m).get(o))}

def known(cls, name, f):
    "Whether torch or fastai says what it is: a hook, another class's method, an `__init__` that hands all on."
    older = [o for o in cls.__mro__[1:] if not o.__module__.startswith("cxr_fastai")]
    if name == "__init__": return bool(inspect.unwrap(f).__code__.co_flags & inspect.CO_VARARGS)
    return any(hasattr(o, name) for o in older) or name.startswith(("_", "before_", "after_")) or name in HOOKS

def functions(name, o):
    "A function, or a class's own methods and its `__init__`."
    if not inspect.isclass(o): return {name: o} if inspect.isfunction(o) else {}
    written = lambda f: inspect.isfunction(f) and inspect.unwrap(f).__code__.co_filename.endswith(".py")
    methods = {k: f for k, v in vars(o).items() if written(f := getattr(v, "__func__", v))}
    return {f"{name}.{k}": f for k, f in methods.items() if not known(o, k, f)}

FUNCTIONS = {k: f for name, o in PUBLIC.items() for k, f in functions(name, o).items()}

@cache
def parameters(f):
    "Its own, with what is known of each; not those that it hands on."
    code, found = inspect.unwrap(f).__code__, docments(f, full=True)
    mine = code.co_varnames[:code.co_argcount + code.co_kwonlyargcount]
    return {o: found[o] for o in mine if o not in ("self", "cls")}

def test_every_public_name_is_explained():
    silent = [k for k, o in (PUBLIC | FUNCTIONS).items() if not k.endswith("__init__") and not inspect.getdoc(o)]
    assert len(PUBLIC) > 150 and not silent

def test_every_parameter_has_a_comment():
    assert len(FUNCTIONS) > 150
    assert not [f"{k}({o})" for k, f in FUNCTIONS.items() for o, v in parameters(f).items() if not v["docment"]]

def test_every_parameter_has_a_type_or_a_default():
    bare = lambda v: v["anno"] is inspect._empty and v["default"] is inspect._empty
    assert not [f"{k}({o})" for k, f in FUNCTIONS.items() for o, v in parameters(f).items() if bare(v)]

def test_every_list_of_names_is_true_and_the_wildcard_import_has_them_all():
    everything = vars(importlib.import_module("cxr_fastai.all"))
    for k, module in MODULES.items():
        assert not set(names(module)) - set(vars(module)), k
        assert k in ("cli", "doctor") or set(names(module)) <= set(everything), k

def test_doc_and_show_doc_can_show_every_name():
    for k, o in PUBLIC.items():
        text = MarkdownRenderer(o)._repr_markdown_()
        assert o.__name__ in text and (inspect.isclass(o) or inspect.getdoc(o).splitlines()[0] in text), k

@pytest.mark.parametrize("use", ["image", "metadata", "both"])
def test_summary_counts_the_models_weights(use, tiny_learner):
    text = tiny_learner(use).summary()
    assert "Total params" in text and (use == "metadata" or "Conv2d" in text) and "Linear" in text

def test_summary_of_a_cyclegan_is_of_both_kinds_of_network(rows):
    gan = cyclegan.cyclegan_learner(unpaired.UnpairedDataLoaders.from_df(rows, size=32, bs=2), ngf=8, ndf=8)
    before, text = gan.digest(), gan.summary()
    assert text.startswith("Generator (Input shape: 2 x 1 x 32 x 32)") and "\nDiscriminator (" in text
    assert f"Total params: {sum(p.numel() for p in gan.model.g_ab.parameters()):,}" in text and gan.digest() == before

@pytest.fixture(scope="module")
def site(tmp_path_factory):
    "The pages, made in a process of their own: the recipe writes into docstrings."
    folder = tmp_path_factory.mktemp("site")
    done = run_python(RECIPE, "--out", folder)
    assert done.returncode == 0, done.stderr
    return folder

@pytest.mark.slow
def test_every_name_is_on_its_page_with_its_comments(site):
    words = lambda text: " ".join(re.sub(r"[`*\\]|<[^>]+>", "", html.unescape(text)).split())
    page = lambda module: (site/"cxr_fastai"/f"{module.replace('.', '/')}.html").read_text()
    pages = {k: page(k) for k in MODULES}
    for k, module in MODULES.items():
        mine = [o for o in names(module) if own(module).get(o)]
        assert not [o for o in mine if f'id="{o}"' not in pages[k]], k
    told = {k: words(o) for k, o in pages.items()}
    module_of = lambda name: next(o for o in sorted(MODULES, key=len, reverse=True) if name.startswith(f"{o}."))
    lost = [(k, o) for k, f in FUNCTIONS.items() for o, v in parameters(f).items()
            if words(v["docment"] or "") not in told[module_of(k)]]
    assert not lost, lost

@pytest.mark.slow
def test_the_page_needs_no_network(site):
    assert (site/"index.html").exists() and not (site/"cxr_fastai"/"all.html").exists()
    for file in site.rglob("*.html"):
        page = file.read_text()
        assert not re.findall(r"<(?:script|img|link|iframe)[^>]+(?:src|href)=.(?:https?:)?//", page), file.name
        assert not re.findall(r"/(?:home|root|opt|work)/", page), file.name
