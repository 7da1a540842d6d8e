"README and manual as pages: short, linked, each found from the others; what they name is there."
import re, runpy
from configparser import ConfigParser
import pytest
from cxr_fastai.arms import parse_arm
from cxr_fastai.cli import _given, main
from conftest import ROOT
from pages import anchors, beside, blocks, CHAPTERS, INDEX, links, MANUAL, place, READ

PAGES = [o for folder in (ROOT, ROOT/"data", ROOT/"recipes", MANUAL) for o in sorted(folder.glob("*.md"))]
LONGEST = 130 # lines of a page of the manual: a task

def test_the_readme_is_short():
    assert len((ROOT/"README.md").read_text().splitlines()) <= 200

@pytest.mark.parametrize("page", CHAPTERS, ids=lambda o: o.stem)
def test_a_page_is_a_task(page):
    lines = page.read_text().splitlines()
    assert [o for o in lines if o.startswith("# ")] == lines[:1] or "```" in page.read_text()
    assert page.name == "api.md" or len(lines) <= LONGEST

@pytest.mark.parametrize("page", PAGES, ids=place)
def test_every_link_leads_somewhere(page):
    for file, anchor in links(page):
        assert file.exists(), f"{place(page)}: {file}"
        assert not anchor or anchor in anchors(file), f"{place(page)}: {file.name} has no heading #{anchor}"

def test_every_page_is_in_the_index_once_and_the_index_in_the_readme():
    assert sorted(CHAPTERS) == sorted(set(MANUAL.glob("*.md")) - {INDEX})
    assert INDEX in [o for o, _ in links(ROOT/"README.md")]

@pytest.mark.parametrize("page", CHAPTERS, ids=lambda o: o.stem)
def test_a_page_leads_to_the_one_before_the_index_and_the_next(page):
    "Its last line, in the index's order."
    title, i = lambda o: o.read_text().splitlines()[0].removeprefix("# "), CHAPTERS.index(page)
    before = [f"← [{title(o)}]({o.name})" for o in CHAPTERS[:i][-1:]]
    after = [f"[{title(o)}]({o.name}) →" for o in CHAPTERS[i + 1:][:1]]
    assert page.read_text().endswith(f"\n\n---\n\n{' · '.join([*before, '[Manual](README.md)', *after])}\n")

@pytest.mark.parametrize("page", READ, ids=place)
def test_what_a_page_names_is_there(page):
    text = page.read_text()
    for name in re.findall(r"recipes/\w+\.py|recipes/notebooks|data/[\w.]+\.md|cxr_fastai/[\w/]+\.py", text):
        assert (ROOT/name).exists(), name
    config = ConfigParser()
    config.read(ROOT/"setup.cfg")
    assert set(re.findall(r"cxr_fastai\[(\w+)\]", text)) <= set(config["options.extras_require"])

def test_commands_within_sentences_have_verbs_and_flags_that_are_there(capsys):
    "Those in blocks are run by tests/test_readme.py."
    said = [o for page in READ for o in re.findall(r"`cxr-fastai (\w[^`]*)`", beside(page.read_text()))]
    assert len(said) > 8
    for verb, *rest in (o.split() for o in said if not o.startswith("VERB")):
        with pytest.raises(SystemExit, match="^0$"): main([verb, "--help"])
        flags = set(re.findall(r"--[\w-]+", capsys.readouterr().out))
        assert {o for o in rest if o.startswith("--")} <= flags, (verb, rest)

def test_commands_of_the_findings_have_flags_and_arms_that_are_there():
    "Their films aren't here, so that they are not run."
    lines = "".join(text for _, text in blocks(ROOT/"recipes"/"findings.md", "sh")).replace("\\\n", " ").splitlines()
    assert len(lines) == 6
    for verb, *words in (o.split()[1:] for o in lines):
        _, flags = _given(verb, words)
        for o in flags.get("arms", "real").split(","): parse_arm(o)

def test_every_folder_stands_in_the_plan():
    text = (MANUAL/"design.md").read_text()
    for o in (ROOT/"cxr_fastai").glob("[a-z]*/__init__.py"): assert f"\n{o.parent.name}/ " in text, o

def test_the_places_to_contribute_at_exist():
    for name in re.findall(r"`([\w/]+\.py)`", (ROOT/"CONTRIBUTING.md").read_text()):
        assert (ROOT/name).exists() or (ROOT/"cxr_fastai"/name).exists(), name

@pytest.mark.slow
def test_the_page_of_names_is_what_the_recipe_makes(tmp_path, monkeypatch):
    "Else `python recipes/names.py` makes it anew."
    page = MANUAL/"api.md"
    (new := tmp_path/"api.md").write_text(page.read_text())
    monkeypatch.setattr("sys.argv", ["names.py", "--out", str(new)])
    runpy.run_path(str(ROOT/"recipes"/"names.py"), run_name="__main__")
    assert new.read_text() == page.read_text()

def test_headings_are_named_as_code_hosts_do(tmp_path):
    (page := tmp_path/"a.md").write_text("# It's `x`, 2 & 3\n## Twice\n```\n# not this\n```\n## Twice\n")
    assert anchors(page) == ["its-x-2--3", "twice", "twice-1"]
    assert blocks(page, "sh") == []
