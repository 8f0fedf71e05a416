"""What was learned: functions from models, predictions or activations to numbers, one family a file."""

from mesocosm.pieces import lazy

__getattr__, __dir__ = lazy("measure")
