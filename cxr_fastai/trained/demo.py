"""A page to try a bundle in a browser: a film or several, their metadata, what the model says and why.

It is served to this machine alone where nothing else is asked for, calls no other, and keeps nothing: uploads lie in a
folder that goes when the page does, each for ten minutes at most."""
import os, socket, threading
from contextlib import contextmanager
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import pandas as pd

from ..core.extras import need
from ..core.files import few, say
from ..core.templates import fill_template
from ..models.learner import RadiographLearner
from ..stats.formats import escape_markdown, number
from .bundle import load_bundle
from .front import limits_of
from .one import explained
from .patients import new_patients
from .plots import said_of
from .predict import Predictor

__all__ = ["Desk", "demo_page", "serve_demo", "served"]

_TEMPLATE = Path(__file__).parent/"templates"/"films.html.j2"
LOOPBACK = "127.0.0.1"
MOST = 50           # films at once
SWEEP, KEPT = 60, 600 # seconds: how often old uploads are looked for, and how old they may be
NOT_KNOWN = "not known"
QUIET = dict(GRADIO_ANALYTICS_ENABLED="False", GRADIO_RUN_HISTORY="False", HF_HUB_DISABLE_TELEMETRY="1",
             NO_PROXY="*", no_proxy="*") # no call is made but to itself, which no proxy must have
FORMS = "png, jpeg, tiff or DICOM; several make a table"
FILLED = "What isn't known is a DICOM header's, or missing. Of several films, what is filled in is taken for each."

def _alert(said): return f'<p class="cxr-alert" role="alert">{escape(said)}</p>'

class Desk:
    "What stands behind the page: a bundle that is asked of films and metadata, and answers in html."
    def __init__(self,
        learn:RadiographLearner, # of `load_bundle`
    ): self.learn, self.predictor = learn, Predictor(learn)

    @property
    def sees(self): return self.predictor.size is not None

    def _rows(self, films, values):
        "Of `new_patients`, decoded; what isn't filled in is a DICOM header's, or missing."
        said = {k: str(o) for k, o in zip(self.predictor.names, values) if o not in (None, "")}
        table = pd.DataFrame([dict(image=Path(o).name, file=str(o)) | said for o in films or [""]])
        return list(map(self.predictor.decode, new_patients(table, self.learn.card.get("metadata"))))

    def _lines(self, rows):
        "Of a table of `predict`; no sentence names the folder of the upload."
        bs = self.learn.card["bs"]
        lines = [line for i in range(0, len(rows), bs) for line in self.predictor.table(rows[i:i + bs])]
        return [line | dict(error=line["error"].replace(row["file"], line["image"])) for line, row in zip(lines, rows)]

    def _one(self, row, line):
        "A film with heat and contributions."
        if line["error"]: return _alert(line["error"])
        found = explained(self.learn, {o: row[o] for o in ("file", *self.predictor.names)})
        found.probability, found.flag, found.name = float(line["probability"]), line["flag"], line["image"]
        return found._repr_html_()

    def _many(self, rows, lines):
        films = [dict(name=line["image"], error=line["error"], flag=line["flag"], decision=line.get("decision"),
                      probability=number(float(line.get("probability", "nan")), 3),
                      words=", ".join(f"{o} {said_of(row[o])}" for o in self.predictor.names))
                 for row, line in zip(rows, lines)]
        return fill_template(_TEMPLATE, films=films, positive=self.learn.dls.vocab[1],
                             threshold=f"{self.predictor.threshold:.3g}")

    def __call__(self,
        films:list, # files; None: there is none
        *values,    # of the model's metadata columns, in their order; None or '': not known
    ) -> str:       # html
        "One film is explained, several are a table; what can't be read is a sentence."
        if self.sees and not films: return _alert(f"Choose a film first, as {FORMS}.")
        if films and len(films) > MOST: return _alert(f"These are {len(films):,} films, and {MOST} fit on this page: "
                                                      "cxr-fastai predict takes a folder.")
        if gone := [Path(o).name for o in films or [] if not Path(o).exists()]:
            return _alert(f"An upload is kept for {KEPT//60} minutes, and {few(gone)} is gone: choose it again.")
        try:
            lines = self._lines(rows := self._rows(films, values))
            return self._one(rows[0], lines[0]) if len(rows) == 1 else self._many(rows, lines)
        except (MemoryError, OSError, ValueError) as e: return _alert(f"{e}")

def _fields(gr, card):
    "A field for each metadata column: its training rows' words to choose from, or one for a number."
    metadata = card.get("metadata", dict(cat_names=[], cont_names=[], stats={}))
    for name in metadata["cat_names"]:
        words = metadata["stats"][name]
        yield gr.Dropdown([(NOT_KNOWN, ""), *((o, o) for o in words)], value="", label=name)
    for name in metadata["cont_names"]:
        low, high = metadata["stats"][name]
        yield gr.Textbox(label=f"{name}, {low:g} to {high:g} in training", placeholder=NOT_KNOWN) # Number begins as 0

def demo_page(
    learn:RadiographLearner, # of `load_bundle`
):                           # gradio's Blocks, not yet served
    "The page of a bundle. ImportError without gradio and captum."
    gr, desk = need("gradio", extra="demo", what="The page"), Desk(learn)
    if desk.sees: need("captum.attr", extra="demo", what="The page")
    (negative, positive), (cautions, limits) = learn.card["classes"], limits_of(learn.card)
    with gr.Blocks(title=f"{positive} or {negative}", analytics_enabled=False, delete_cache=(SWEEP, KEPT)) as page:
        gr.Markdown(f"# {escape_markdown(positive)} or {escape_markdown(negative)}?\n\n{cautions}")
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                films = gr.File(label="Films", file_count="multiple", visible=desk.sees)
                if desk.sees: gr.Markdown(f"Films as {FORMS}.")
                fields = list(_fields(gr, learn.card))
                if fields and desk.sees: gr.Markdown(FILLED)
                ask = gr.Button("Ask the model", variant="primary")
            with gr.Column(scale=2, min_width=300): answer = gr.HTML(label="Answer")
        gr.Markdown(f"## Limits\n\n{limits}\n\nThe model's sha256 is `{learn.card['sha256'][:12]}`. Uploads are "
                    f"deleted after {KEPT//60} minutes, and when this page's server ends.")
        ask.click(desk, [films, *fields], answer, api_visibility="private")
    return page.queue(max_size=20, api_open=False)

def _theme():
    "In the fonts of whoever looks: none of the web's, and none that has to be fetched."
    themes = need("gradio.themes", extra="demo", what="The page")
    return themes.Base(font=themes.Font("system-ui"), font_mono=themes.Font("monospace"))

def _check(host, port, max_mb):
    "What gradio says in words that aren't the user's."
    if max_mb < 1: raise ValueError(f"max_mb is {max_mb} and must be at least 1.")
    if port is not None and not 0 < port < 2**16: raise ValueError(f"port is {port} and must be from 1 to {2**16 - 1}.")
    try: socket.create_server((host, port or 0)).close()
    except (OSError, UnicodeError) as e: # UnicodeError: what can be no host's name
        at = host if port is None else f"{host}:{port}"
        why = getattr(e, "strerror", None) or "no such host"
        raise OSError(f"No page can be served at {at} ({why}): give another --host or --port.") from None

@contextmanager
def served(
    learn:RadiographLearner, # of `load_bundle`
    host:str=LOOPBACK, # address that it listens at
    port:int=None,     # None: the first that is free, from 7860 on
    max_mb:int=100,    # that a file may have
):
    """Context with a page's address; uploads and the server are gone after it. OSError for a port that is taken, and
    ValueError for a number that is none."""
    _check(host, port, max_mb)
    with TemporaryDirectory(prefix="cxr-demo-") as folder, patch.dict(os.environ, GRADIO_TEMP_DIR=folder, **QUIET):
        page = demo_page(learn)
        try:
            yield page.launch(server_name=host, server_port=port, share=False, quiet=True, prevent_thread_lock=True,
                              max_file_size=max_mb * 2**20, ssr_mode=False, footer_links=[],
                              enable_monitoring=False, inline=False, theme=_theme())[1]
        finally: page.close(verbose=False)

def serve_demo(
    bundle:str,        # a cell's `bundle` folder, or a .safetensors file
    host:str="127.0.0.1", # address that it listens at; 0.0.0.0: whoever reaches this machine may use it
    port:int=None,     # the first that is free from 7860 on, where not given
    max_mb:int=100,    # megabytes that a film's file may have
    device:str=None,   # 'cpu' or 'cuda'; fastai's default where not given
):
    """Serve a page to try a bundle until Ctrl-C: films, the model's metadata, and what it says and why. It calls no
    other machine, and keeps no upload."""
    with served(load_bundle(bundle, device), host, port, max_mb) as address:
        say(f"{address} (Ctrl-C ends it)", flush=True)
        if host not in (LOOPBACK, "localhost"): say("It asks for no password: whoever reaches it may use it.")
        try: threading.Event().wait()
        except KeyboardInterrupt: say("ended; no upload is kept")
