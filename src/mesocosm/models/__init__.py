"""What learns: plain modules, one architecture a file."""

from mesocosm.pieces import lazy

__getattr__, __dir__ = lazy("model")
