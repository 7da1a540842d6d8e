import pytest
from cxr_fastai.core.settled import Settings

class Two(Settings):
    def __init__(self,
        one=1,   # a number
        two="b", # a word
    ): self._settle(locals())

def test_settings_are_compared_and_printed_by_value_and_stay():
    a, b = Two(), Two(two="c")
    assert a == Two(1, "b") and a != b and len({a, Two(), b}) == 2 and repr(b) == "Two(one=1, two='c')"
    assert Two.fields() == ["one", "two"] and b.asdict() == dict(one=1, two="c") and b.replace(one=3) == Two(3, "c")
    with pytest.raises(AttributeError, match=r"Two.one is settled; replace\(one=...\) gives another"): a.one = 2
    assert a.one == 1

def test_other_settings_of_the_same_values_are_others():
    class Other(Two): pass
    assert Two() != Other() and Two() != dict(one=1, two="b")
