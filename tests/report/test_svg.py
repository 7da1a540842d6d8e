import io, re
import matplotlib as mpl
from matplotlib.figure import Figure
from cxr_fastai.arms import ARMS
from cxr_fastai.core.style import MORE, STYLE
from cxr_fastai.report.html import _TEMPLATES
from cxr_fastai.report.svg import ink_of, page_svg

def light(colour):
    rgb = [int(colour[i:i + 2], 16)/255 for i in (1, 3, 5)]
    return sum(w*(x/12.92 if x <= .04045 else ((x + .055)/1.055)**2.4) for w, x in zip((.2126, .7152, .0722), rgb))

def contrast(a, b):
    low, high = sorted([light(a), light(b)])
    return (high + .05)/(low + .05)

def test_every_colour_of_figures_stands_out_on_both_pages():
    "Of graphics, three to one is asked (WCAG 1.4.11)."
    style = (_TEMPLATES/"style.css").read_text()
    for theme in style[:style.index("@media")], style[style.index("@media"):style.index("/* The page")]:
        known = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", theme))
        page = known.get("page", "#ffffff")
        for o in [*(k.colour for k in ARMS.values()), *MORE]:
            if (ink := ink_of(o.lower())).startswith("var(--on-"):
                assert contrast(known.get(f"on-{o[1:].lower()}", o), page) >= 3, (o, page)
            else: assert ink in ("currentColor", "var(--soft)")

def test_grays_are_the_pages_inks():
    assert [ink_of(o) for o in ("#000000", "#4c4c4c", "#7f7f7f", "#b0b0b0", "#ffffff")] == [
        "currentColor", "var(--soft)", "var(--soft)", "var(--line)", "#ffffff"]

def drawn(title="x"):
    with mpl.rc_context(STYLE | {"svg.fonttype": "none", "svg.hashsalt": "x"}):
        fig, file = Figure(), io.StringIO()
        ax = fig.subplots()
        ax.plot([0, .123456789, 1], [0, 1, 0], "o-")
        ax.imshow([[0, 1]])
        ax.set_title(title)
        fig.savefig(file, format="svg")
    return file.getvalue()

def test_a_figure_takes_the_pages_font_and_names_of_its_own():
    text = drawn()
    one, two = (page_svg(text, o, "title") for o in ("a", "b"))
    ids = [set(re.findall(' id="([^"]+)"', o)) for o in (one, two)]
    assert ids[0] and not ids[0] & ids[1]
    for o, own in zip((one, two), ids):
        referred = {a or b for a, b in re.findall(r"url\(#([^)]+)\)|href=\"#([^\"]+)\"", o)}
        assert referred == own and "font-family" not in o and "DejaVu" not in o and "font-size: 9px" in o
    assert "<style" not in one and "#000000" not in one and "fill: #ffffff" not in one and len(one) < len(text)
    assert 'href="data:image/png;base64,' in one # pixels are in it

def test_words_stay_as_they_are():
    name = 'id="a" 0.123456 #000000 url(#b) <b>&amp;'
    assert 'id="a" 0.123456 #000000 url(#b) &lt;b&gt;&amp;amp;' in page_svg(drawn(name), "a", "t")
