"""What all settings are: values that are settled when they are made."""
import inspect

__all__ = ["Settings"]

class Settings:
    "Values that are settled when they are made: compared and printed by value; `replace` gives others."
    def _settle(self, given):
        for o in self.fields(): object.__setattr__(self, o, given[o])

    @classmethod
    def fields(cls) -> list:
        "Names of the settings."
        return list(inspect.signature(cls).parameters)

    def asdict(self) -> dict:
        "Name -> value."
        return {o: getattr(self, o) for o in self.fields()}

    def replace(self,
        **changes, # fields
    ):
        "The same but for these."
        return type(self)(**self.asdict() | changes)

    def __setattr__(self, name, value):
        raise AttributeError(f"{type(self).__name__}.{name} is settled; replace({name}=...) gives another.")
    def __eq__(self, other): return type(other) is type(self) and other.asdict() == self.asdict()
    def __hash__(self): return hash(repr(self))
    def __repr__(self): return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.asdict().items())})"
