"""What `field.py` trains: architectures, tasks and optimisers, and what one step of them costs."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mesocosm.models import MLP, Transformer
from mesocosm.seeding import generator
from mesocosm.tasks import FlipFlop, MarkovChains, SparseParity
from mesocosm.tasks.base import Task
from mesocosm.training import SGD, AdamW, cross_entropy, hinge


@dataclass
class Setting:
    name: str
    task: Task
    make: Callable[[], nn.Module]
    objective: Callable
    optimiser: SGD | AdamW
    plain_optimiser: Callable
    batch_size: int


def operations(setting: Setting) -> int:
    """Floating-point operations of the matrix products of one replica's step."""
    model, batch = setting.make(), setting.task.sample(setting.batch_size, generator(0))
    with FlopCounterMode(display=False) as counter:
        setting.objective(model, batch).backward()
    return counter.get_total_flops()


def traffic(setting: Setting) -> float:
    """Least bytes that a replica-step moves through memory, from shapes.

    Weights are read forward, backward and by the update, and written; gradients written and read; what the optimiser
    remembers read and written; inputs written and read twice; what layers put out written, read and its gradient
    written and read.
    """
    model, batch = setting.make(), setting.task.sample(setting.batch_size, generator(0))
    weights = sum(p.numel() for p in model.parameters())
    outputs: list[int] = []
    for module in model.modules():
        if not list(module.children()):
            module.register_forward_hook(lambda module, inputs, output: outputs.append(output.numel()))
    with torch.no_grad():
        model(batch.inputs)
    memory = len(setting.optimiser.init(torch.zeros(1, 1)))
    return 4 * (weights * (6 + 2 * memory) + 3 * batch.inputs.numel() + 4 * sum(outputs))


class TokenBatch(NamedTuple):
    inputs: Tensor
    targets: Tensor
    weights: Tensor


@dataclass(frozen=True, kw_only=True)
class Tokens(Task):
    """Uniform tokens, to be said backwards."""

    length: int = 64
    vocabulary: int = 256

    @property
    def input_shape(self) -> tuple[int]:
        return (self.length,)

    @property
    def output_shape(self) -> tuple[int, int]:
        return (self.length, self.vocabulary)

    def sample(self, size: int, generator: torch.Generator) -> TokenBatch:
        inputs = torch.randint(self.vocabulary, (size, self.length), generator=generator)
        return TokenBatch(inputs, inputs.flip(1), torch.ones(size, self.length))


PARITY = Setting(
    "parity MLP 50-100-1, batch 32, SGD",
    SparseParity(n=50, k=3),
    lambda: MLP.for_task(PARITY.task, hidden=(100,)),
    hinge,
    SGD(0.1, weight_decay=0.01),
    lambda parameters: torch.optim.SGD(parameters, lr=0.1, weight_decay=0.01),
    32,
)
TRANSFORMER = Setting(
    "transformer 2 layers, width 64, 16 x 63 tokens, AdamW",
    FlipFlop(length=64),
    lambda: Transformer.for_task(TRANSFORMER.task, d_model=64, n_heads=4, n_layers=2),
    cross_entropy,
    AdamW(1e-3, weight_decay=0.1),
    lambda parameters: torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.1),
    16,
)
PARITY_WIDE = Setting(
    "parity MLP 100-1000-1, batch 32, SGD",
    SparseParity(n=100, k=6),
    lambda: MLP.for_task(PARITY_WIDE.task, hidden=(1000,)),
    hinge,
    SGD(0.01),
    lambda parameters: torch.optim.SGD(parameters, lr=0.01),
    32,
)
MARKOV = Setting(
    "attention-only transformer, 2 layers, width 16, relative positions, dropout, 64 x 100 symbols, AdamW",
    MarkovChains(symbols=2, length=100),
    lambda: Transformer.for_task(
        MARKOV.task,
        d_model=16,
        n_heads=1,
        d_mlp=0,
        positions="relative",
        dropout=0.1,
        attention_dropout=0.1,
        embedding_dropout=0.1,
    ),
    cross_entropy,
    AdamW(1e-3, weight_decay=0.1),
    lambda parameters: torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.1),
    64,
)
ZOOLOGY = Setting(
    "transformer 2 layers, width 128, one head, 32 x 64 tokens of 256, AdamW",
    Tokens(),
    lambda: Transformer(d_vocab=256, max_length=64, d_model=128, n_heads=1, n_layers=2, tied=True),
    cross_entropy,
    AdamW(1e-3, weight_decay=0.01),
    lambda parameters: torch.optim.AdamW(parameters, lr=1e-3),
    32,
)
GPT2 = Setting(
    "transformer of GPT-2's size (124 M parameters), 8 x 1,024 tokens of 50,257, AdamW",
    Tokens(length=1024, vocabulary=50257),
    lambda: Transformer(d_vocab=50257, max_length=1024, d_model=768, n_heads=12, n_layers=12, tied=True),
    cross_entropy,
    AdamW(6e-4, weight_decay=0.1),
    lambda parameters: torch.optim.AdamW(parameters, lr=6e-4, weight_decay=0.1),
    8,
)
