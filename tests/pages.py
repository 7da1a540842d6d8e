"The README and the manual's pages, in the order of its index: what stands in their blocks, links and headings."
import re
from pathlib import Path
from conftest import ROOT

MANUAL = ROOT/"recipes"/"manual"
INDEX = MANUAL/"README.md"
LINK = r"\]\(([^)\s]+)\)"

def beside(text): return re.sub(r"^```.*?^```$", "", text, flags=re.S | re.M)

def links(page):
    "What a page's links lead to: a file, or None outside, and an anchor."
    for target in re.findall(LINK, beside(page.read_text())):
        if re.match(r"\w+:", target): continue
        name, _, anchor = target.partition("#")
        yield (page.parent/name if name else page).resolve(), anchor

def anchors(page):
    "As code hosts name headings: in small letters, without signs, with '-' for each blank; a second one is `-1`."
    found = []
    for title in re.findall(r"^#+ (.+)$", beside(page.read_text()), re.M):
        plain = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title).lower()).replace(" ", "-")
        n = sum(o == plain or re.fullmatch(rf"{re.escape(plain)}-\d+", o) is not None for o in found)
        found.append(f"{plain}-{n}" if n else plain)
    return found

CHAPTERS = [o for o, _ in links(INDEX) if o.parent == MANUAL]
READ = [ROOT/"README.md", INDEX, *CHAPTERS] # in this order

def blocks(page, kind):
    "Its blocks of a kind ('sh', 'python'), with the line that each begins at."
    text = page.read_text()
    return [(text.count("\n", 0, o.start(1)), o[1]) for o in re.finditer(rf"^```{kind}\n(.*?)^```$", text, re.S | re.M)]

def place(page): return str(Path(page).relative_to(ROOT))
