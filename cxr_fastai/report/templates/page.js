"use strict";
// What is asked for is opened: by a link of the contents, by an address with a #, for printing.

const bar = [...document.querySelectorAll(".bar, .warnings")];
const folds = () => [...document.querySelectorAll("details:not([open])")];

function show() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  const own = target.querySelector(":scope > details");
  if (own) own.open = true;
  target.scrollIntoView();
}

addEventListener("hashchange", show);
document.querySelector("nav").addEventListener("click", () => setTimeout(show));

let opened = [];
addEventListener("beforeprint", () => (opened = folds()).forEach(o => (o.open = true)));
addEventListener("afterprint", () => opened.forEach(o => (o.open = false)));

// What stays above must not lie over what is asked for.
new ResizeObserver(() => {
  const high = bar.map(o => (getComputedStyle(o).position === "sticky" && o.offsetWidth > innerWidth / 2 ? o.offsetHeight : 0));
  const root = document.documentElement.style;
  root.setProperty("--bar", `${high[0]}px`);
  root.scrollPaddingTop = `${high.reduce((a, b) => a + b, 12)}px`;
}).observe(document.body);

// The contents know where one is.
const seen = new Map();
const links = new Map([...document.querySelectorAll("nav a")].map(o => [o.hash.slice(1), o]));
const watch = new IntersectionObserver(found => {
  for (const o of found) seen.set(o.target.id, o.isIntersecting);
  const first = [...links.keys()].find(o => seen.get(decodeURIComponent(o)));
  for (const [name, link] of links) {
    if (name === first) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
}, { rootMargin: "-15% 0px -70% 0px" });
document.querySelectorAll("main > section").forEach(o => watch.observe(o));

// Tables are sorted by their heads, each body by itself: numbers by size, the largest first, what has none last.
const value = cell => {
  const text = cell.textContent.trim();
  const number = parseFloat(text.replace(/^[<>]/, "").replace(/,/g, "").replace("−", "-"));
  return Number.isNaN(number) ? text : number;
};

function compared(a, b) {
  if (typeof a === typeof b) return typeof a === "number" ? b - a : a.localeCompare(b, "en", { numeric: true });
  return typeof a === "number" ? -1 : 1;
}

function sort(table, head, at) {
  const back = head.getAttribute("aria-sort") === "descending";
  table.querySelectorAll("[aria-sort]").forEach(o => o.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", back ? "ascending" : "descending");
  for (const body of table.tBodies) {
    const rows = [...body.rows].filter(o => !o.matches(".group"));
    rows.sort((a, b) => compared(value(a.cells[at]), value(b.cells[at])));
    if (back) rows.reverse();
    body.append(...rows);
  }
}

for (const table of document.querySelectorAll("table.numbers")) {
  if (![...table.tBodies].some(o => o.querySelectorAll("tr:not(.group)").length > 1)) continue;
  [...table.tHead.rows[0].cells].forEach((head, at) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(table, head, at));
    head.append(button);
  });
}

const all = document.createElement("button");
all.type = "button";
all.className = "all";
const told = () => (all.textContent = folds().length ? "Open all" : "Fold all");
all.addEventListener("click", () => {
  const open = folds().length > 0;
  document.querySelectorAll("details").forEach(o => (o.open = open));
});
addEventListener("toggle", told, true);
document.querySelector("nav").append(all);
told();
show();
