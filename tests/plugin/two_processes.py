"""What two processes do together, in a module that both can import."""

import os
import socket
from functools import partial
from pathlib import Path

import torch
from torch import nn

from mesocosm.models import Transformer
from mesocosm.tasks import ProbabilisticGrammar
from mesocosm.training import SAM, SGD, History, Population, distil, train
from mesocosm.training.distillation import Taught
from mesocosm.training.parallel import together
from mesocosm.training.population import row
from mesocosm.training.streams import Online

# Sentences of different lengths: processes' shares have different numbers of tokens.
TASK = ProbabilisticGrammar(levels=3)
SEEDS = [0, 1]


def free_port() -> int:
    """One at which processes can meet."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def taught(steps: int = 4) -> History:
    """A training with a teacher, norms and shares that no two processes cut equally."""
    make = partial(Transformer.for_task, TASK, d_model=8, n_heads=2, n_layers=1)
    stream = Taught(Online(TASK, 5, SEEDS), [Population(make, SEEDS)], weight=0.5)
    return train(Population(make, SEEDS), stream, distil, SAM(SGD(0.1)), steps=steps, clip=0.5)


def of_rank(rank: int, port: int, out: Path) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    with together("cpu"):
        history = taught()
    torch.save({"theta": history.population.theta, **history.metrics}, out / f"{rank}.pt")


def of_rank_with_dropout(rank: int, port: int, out: Path) -> None:
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with together("cpu"):
        population = Population(lambda: nn.Dropout(0.5), [0])
        dropped = population.caller(lambda model, x: model(x))({}, row(population.step_state(3), 0), torch.ones(64))
    torch.save({"dropped": dropped}, out / f"{rank}.pt")
