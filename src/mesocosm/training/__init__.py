"""How it learns: populations in lockstep, one loop for all, and the methods it takes as arguments."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mesocosm.pieces import lazy

if TYPE_CHECKING:
    from mesocosm.training.history import History as History
    from mesocosm.training.loop import train as train
    from mesocosm.training.population import Population as Population

_method, __dir__ = lazy("method")
_ENGINE = {"Population": "population", "History": "history", "train": "loop"}


def __getattr__(name: str) -> Any:
    if name in _ENGINE:
        return getattr(import_module(f"mesocosm.training.{_ENGINE[name]}"), name)
    return _method(name)
