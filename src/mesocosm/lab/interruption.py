"""Ctrl-C: the first is noted, so that work can be saved, and the second stops at once."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def first_ctrl_c(note: Callable[[], object] | None) -> Iterator[None]:
    """Call `note` on the first Ctrl-C, and raise `KeyboardInterrupt` on the second; None ignores all."""

    def on_signal(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if note:
            note()

    before = signal.signal(signal.SIGINT, on_signal if note else signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
