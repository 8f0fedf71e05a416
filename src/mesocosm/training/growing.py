"""Growing a network in depth while it trains: its layers, and what the optimiser knows of them, are copied."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["Growth", "copy_last", "copy_middle", "grow_module", "layer_sources", "proportional_stages"]


@dataclass(frozen=True)
class Growth:
    """From `step` on, every replica is a larger network that takes over the smaller one's weights.

    Args:
        step: updates done before the change, at least 1.
        make_model: makes one network of the new size; what is not taken over stays as it makes it.
        source: name of the smaller network's parameter from which a parameter of the larger one takes its weights and
            optimiser state; None for a fresh start.
    """

    step: int
    make_model: Callable[[], nn.Module]
    source: Callable[[str], str | None]

    def transfer(self, old: dict[str, Tensor], new: dict[str, Tensor]) -> None:
        """Write `old` into `new`, both tensors by parameter name, in place.

        Raises:
            ValueError: naming a parameter whose source does not exist or has another shape.
        """
        for name, tensor in new.items():
            source = self.source(name)
            if source is None:
                continue
            if source not in old or old[source].shape != tensor.shape:
                have = f"shape {tuple(old[source].shape)}" if source in old else "no such parameter"
                raise ValueError(f"{name} of shape {tuple(tensor.shape)} can't take over {source}: {have}")
            tensor.copy_(old[source])


def layer_sources(pattern: str, sources: Sequence[int | None]) -> Callable[[str], str | None]:
    """The `source` of a `Growth` whose layer i copies layer `sources[i]`; None starts it afresh.

    All other parameters (embeddings, head, final norm) are taken over as they are.

    Args:
        pattern: what stands before a layer's own parameter names, with `{}` for its number: `"blocks.{}."` for
            `models.Transformer`, `"transformer.h.{}."` for a Hugging Face GPT-2, `"model.layers.{}."` for a Llama.
    """
    before, after = pattern.split("{}")
    layer = re.compile(re.escape(before) + r"(\d+)" + re.escape(after))

    def source(name: str) -> str | None:
        found = layer.match(name)
        if not found:
            return name
        old = sources[int(found[1])]
        return None if old is None else pattern.format(old) + name[found.end() :]

    return source


def copy_last(blocks: int, depth: int = 1) -> list[int]:
    """Gradual stacking: which layers the layers of `blocks` + 1 blocks of `depth` layers copy; the last block's twice.

    Source: Gong et al. (2019), Efficient training of BERT by progressively stacking, as GradStack in Saunshi et al.
    (2024), arXiv 2409.19044
    """
    return _repeat(blocks, blocks, depth)


def copy_middle(blocks: int, depth: int = 1) -> list[int]:
    """MIDAS: the copy of the middle block, number ceil(blocks / 2), goes right after its original.

    Source: Saunshi et al. (2024), On the Inductive Bias of Stacking Towards Improving Reasoning, arXiv 2409.19044
    """
    return _repeat(blocks, -(-blocks // 2), depth)


def _repeat(blocks: int, twice: int, depth: int) -> list[int]:
    if blocks < 1 or depth < 1:
        raise ValueError(f"blocks={blocks}, depth={depth} is not legal: both must be at least 1")
    order = [*range(twice), *range(twice - 1, blocks)]
    return [block * depth + layer for block in order for layer in range(depth)]


def proportional_stages(steps: int, stages: int, power: float = 1.0) -> list[int]:
    """The steps at which stages 2, 3, ... begin, when stage i takes a part of all steps in proportion to i^power.

    Source: Saunshi et al. (2024), Prop-alpha schedules, arXiv 2409.19044
    """
    shares = torch.arange(1, stages + 1).double() ** power
    return (steps * shares.cumsum(0) / shares.sum()).round().long()[:-1].tolist()


def grow_module(small: nn.Module, large: nn.Module, source: Callable[[str], str | None]) -> nn.Module:
    """Copy the weights of `small` into `large`, in place, as a `Growth` does for populations; gives `large`."""
    with torch.no_grad():
        Growth(1, lambda: large, source).transfer(dict(small.named_parameters()), dict(large.named_parameters()))
    return large
