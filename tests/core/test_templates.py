import pytest
from jinja2 import UndefinedError
from cxr_fastai.core.templates import fill_template

def test_html_is_escaped_and_other_text_is_not(tmp_path):
    for name in "page.html.j2", "card.md.j2":
        (tmp_path/name).write_text("{{ said }}\n")
        assert ("&lt;b&gt;\n" if "html" in name else "<b>\n") == fill_template(tmp_path/name, said="<b>")

def test_a_template_may_include_its_neighbour(tmp_path):
    (tmp_path/"style.css").write_text("p > a { color: red }")
    (tmp_path/"page.html.j2").write_text("<style>{% include 'style.css' %}</style>")
    assert fill_template(tmp_path/"page.html.j2") == "<style>p > a { color: red }</style>"

def test_a_word_that_is_missing_is_an_error(tmp_path):
    (tmp_path/"card.md.j2").write_text("{{ said }}")
    with pytest.raises(UndefinedError, match="said"): fill_template(tmp_path/"card.md.j2")
