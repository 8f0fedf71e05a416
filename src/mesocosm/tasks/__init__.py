"""What is learned: data distributions with known ground truth, one family a file."""

from mesocosm.pieces import lazy

__getattr__, __dir__ = lazy("task")
