"""Run `mesocosm` again and again, each time in a child that is killed, KILLS times; then let it finish.

    python killing.py random|fsync|replace KILLS ARGUMENTS...
 `random` kills from outside at a random moment; `fsync` and `replace` kill during the
write of a file, before its content is on disk or before it gets its name.
"""

import os
import random
import signal
import sys
import time

import matplotlib.pyplot
import pandas
import pyarrow.parquet
import scipy.stats
import torch

from mesocosm.cli import main
from mesocosm.lab import files, lab
from mesocosm.training import loop

# Loaded once, so that a child spends its short life on the run.
assert matplotlib.pyplot and pandas and pyarrow.parquet and scipy.stats
torch.set_num_threads(1)
loop.TICK = lab.CHECKPOINT_SECONDS = 0.0
how, kills, arguments = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
chance = random.Random(0)


def child(deadly_call: int) -> None:
    if deadly_call:
        original, calls = getattr(files.os, how), 0

        def deadly(*arguments):
            nonlocal calls
            calls += 1
            if calls == deadly_call:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments)

        setattr(files.os, how, deadly)
    os._exit(main(arguments))


killed = 0
while True:
    process = os.fork()
    if process == 0:
        child(chance.randint(1, 4) if killed < kills and how != "random" else 0)
    if killed < kills and how == "random":
        time.sleep(chance.uniform(0.02, 0.5))
        os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    if os.WIFEXITED(status):
        print(f"killed {killed}")
        sys.exit(os.WEXITSTATUS(status))
    killed += 1
