"A browser for tests: pages as people see them, and what is wrong with one. Debian's chromium, driven by playwright."
import shutil
from contextlib import contextmanager
import pytest

class Browser:
    "What `browser` of conftest gives: `open` a page, `check` what is there."
    def __init__(self, chromium): self.chromium, self.tabs = chromium, []

    def open(self, url, width, **kwargs):
        "A tab of that width; `errors` are what its console says, `asked` what it asks the network for."
        tab = self.chromium.new_page(viewport=dict(width=width, height=800), **kwargs)
        tab.errors, tab.asked = [], []
        tab.on("console", lambda o: tab.errors.append(o.text) if o.type in ("error", "warning") else None)
        tab.on("pageerror", lambda o: tab.errors.append(str(o)))
        tab.on("request", lambda o: tab.asked.append(o.url) if not o.url.startswith("data:") else None)
        tab.goto(url)
        self.tabs.append(tab)
        return tab

    def close(self):
        for o in self.tabs: o.close()
        self.tabs = []

@contextmanager
def chromium():
    "Skips where there is no browser."
    sync_api = pytest.importorskip("playwright.sync_api")
    if not (where := shutil.which("chromium")): pytest.skip("needs chromium")
    with sync_api.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=where, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield Browser(browser)
        browser.close()

# Each gives what is wrong, some of it; nothing where all is well

SHOWN = "const shown = [...document.querySelectorAll('body *')].filter(o => o.checkVisibility());"
TOLD = "const told = o => `${o.tagName} ${(o.textContent || '').trim().slice(0, 60)}`;"

def _of(body): return f"(() => {{{SHOWN}{TOLD}{body}}})()"

def beside(boxes=".scroll, nav"):
    "What lies beside the page's edge, or a cell's, but for `boxes` that scroll by themselves."
    return _of(f"""
        const wide = document.documentElement.clientWidth, found = [];
        if (document.documentElement.scrollWidth > wide) found.push("the page scrolls sideways");
        for (const o of shown) {{
            if (o.closest("{boxes}") || o.closest(".hidden")) continue;
            const r = o.getBoundingClientRect();
            if (r.width > 1 && (r.right > wide + 1 || r.left < -1)) found.push(told(o));
            if (o.matches("td, th") && o.scrollWidth > o.clientWidth + 1) found.push("cell: " + told(o));
        }}
        return found.slice(0, 5);""")

NAMELESS = _of("""
    const found = shown.filter(o => o.matches("img") && !o.alt || o.matches("svg[role=img]") && !o.ariaLabel
        || o.matches("svg:not([role]):not([aria-hidden])")
        || o.matches("a, button, summary, th") && !o.textContent.trim()
        || o.matches("[aria-labelledby]") && !document.getElementById(o.getAttribute("aria-labelledby"))
        || o.matches("[tabindex], [role=region]") && !o.hasAttribute("aria-labelledby") && !o.ariaLabel).map(told);
    const ids = [...document.querySelectorAll("[id]")].map(o => o.id);
    const heads = [...document.querySelectorAll("h1, h2, h3, h4, h5")].map(o => +o.tagName[1]);
    if (new Set(ids).size < ids.length) found.push("an id twice");
    if (heads[0] !== 1 || heads.some((o, i) => i && (o === 1 || o > heads[i - 1] + 1))) found.push(`heads ${heads}`);
    if (!document.documentElement.lang || !document.title) found.push("no language, or no title");
    return found.slice(0, 5);""")

SMALL = _of("""
    const scale = o => o.getScreenCTM ? Math.hypot(o.getScreenCTM().a, o.getScreenCTM().b) : 1;
    const size = o => parseFloat(getComputedStyle(o).fontSize)*scale(o);
    const words = shown.filter(o => [...o.childNodes].some(k => k.nodeType === 3 && k.data.trim()));
    return words.filter(o => size(o) < 9.5).map(o => `${size(o)} ${told(o)}`).slice(0, 5);""")

PALE = _of("""
    const parts = text => (text.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
    const over = ([r, g, b, a = 1], ground) => [r, g, b].map((x, i) => a*x + (1 - a)*ground[i]);
    const grounds = new Map();
    const ground = o => {
        if (!o) return [255, 255, 255];
        if (!grounds.has(o)) {
            const own = parts(getComputedStyle(o).backgroundColor);
            grounds.set(o, own[3] === 0 ? ground(o.parentElement) : over(own, ground(o.parentElement)));
        }
        return grounds.get(o);
    };
    const light = rgb => rgb.map(x => x/255).map(x => x <= .04045 ? x/12.92 : ((x + .055)/1.055)**2.4)
        .reduce((sum, x, i) => sum + x*[.2126, .7152, .0722][i], 0);
    const contrast = o => {
        const style = getComputedStyle(o), under = ground(o);
        const ink = over(parts(o instanceof SVGElement ? style.fill : style.color), under);
        const [a, b] = [light(ink), light(under)].sort((x, y) => y - x);
        return (a + .05)/(b + .05);
    };
    const words = shown.filter(o => [...o.childNodes].some(k => k.nodeType === 3 && k.data.trim()));
    return words.map(o => [contrast(o), told(o)]).filter(o => o[0] < 4.5).slice(0, 5);""")
