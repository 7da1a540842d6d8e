"""A figure's svg as part of a page: in the page's own font and inks, which change where it is dark. No torch."""
import re
from xml.etree import ElementTree

from markupsafe import Markup

LINK = "{http://www.w3.org/1999/xlink}href"
LEFT_OUT = "metadata", "style" # matplotlib's own: what the page says, and what would hold for all of it

def ink_of(
    colour:str, # '#rrggbb', lower case
) -> str:
    "A colour as css: grays are the page's inks, others those that `style.css` has for a dark page, else themselves."
    r, g, b = (int(colour[i:i + 2], 16) for i in (1, 3, 5))
    if colour == "#ffffff": return colour # of a word on a coloured ground
    if max(r, g, b) - min(r, g, b) > 8: return f"var(--on-{colour[1:]}, {colour})"
    return "currentColor" if r < 60 else "var(--soft)" if r < 140 else "var(--line)"

def _short(number): return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")

def _styled(tag, style):
    "A style in the page's inks; a font is its size alone, and a white ground is the page's."
    style = re.sub(r"font: [^;]*?([\d.]+px)[^;]*", r"font-size: \1", style) # older and newer matplotlibs
    style = re.sub(r"font-family: [^;]*(; |$)", "", style)
    if tag != "text": style = style.replace("fill: #ffffff", "fill: none")
    return re.sub("#[0-9a-f]{6}", lambda o: ink_of(o[0]), style)

def _known(attributes):
    "Names that are referred to in an element."
    return [o for text in attributes.values() for o in re.findall(r"^#(.+)$|url\(#([^)]+)\)", text)]

def page_svg(
    text:str,  # of an svg file, as matplotlib writes it
    name:str,  # of the figure on the page: no other has it
    title:str, # what it shows, for those who don't see it
) -> Markup:   # for a template: its words are escaped
    "An svg element, as wide as there is room, whose ids are the page's own, and whose words are text."
    root = ElementTree.fromstring(text)
    wanted = {k for o in root.iter() for pair in _known(o.attrib) for k in pair if k}
    for parent in list(root.iter()):
        for o in [o for o in parent if o.tag.rpartition("}")[2] in LEFT_OUT]: parent.remove(o)
    for o in root.iter():
        o.tag = o.tag.rpartition("}")[2]
        if LINK in o.attrib: o.set("href", o.attrib.pop(LINK))
        o.attrib = {k: _attribute(o.tag, k, word, name) for k, word in o.attrib.items()
                    if k != "id" or word in wanted}
    box = root.attrib["viewBox"]
    most = f"max-width: {1.4*float(box.split()[2]):.0f}px"
    root.attrib = {"viewBox": box, "role": "img", "aria-label": title, "style": most}
    return Markup(ElementTree.tostring(root, encoding="unicode"))

def _attribute(tag, key, word, name):
    "One, with short numbers and the page's own names."
    if key == "id": return f"{name}-{word}"
    if key == "href" and not word.startswith("#"): return word # a film
    word = re.sub(r"(^#|url\(#)", rf"\1{name}-", word) if key in ("href", "clip-path", "style") else word
    if key == "style": word = _styled(tag, word)
    return re.sub(r"-?\d+\.\d{3,}", _short, word) if key != "viewBox" else word
