from cxr_fastai.core.installed import installed
from test_doctor import of

def test_packages_are_held_against_their_bounds():
    found = installed(["torch>=1", "numpy>=99", "nowhere>=1", "pytest>=1; extra == 'ray'"])
    assert found.failed and "numpy>=99 is needed and" in of(found, "packages").found
    assert "nowhere is missing" in of(found, "packages").found
    assert not installed(["torch>=1"]).failed and "ray" in of(installed(["pytest>=1; extra == 'ray'"]), "extras").found
