"""Growing a network in depth while it trains: its layers, and what the optimiser knows of them, are copied."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = [
    "Growth",
    "add_nothing",
    "copy_last",
    "copy_middle",
    "grow_module",
    "layer_sources",
    "proportional_cost",
    "proportional_stages",
    "without_copies",
]


@dataclass(frozen=True)
class Growth:
    """From `step` on, every replica is a larger network that takes over the smaller one's weights.

    Args:
        step: updates done before the change, at least 1.
        make_model: makes one network of the new size; what is not taken over stays as it makes it.
        source: name of the smaller network's parameter from which a parameter of the larger one takes its weights and
            optimiser state; None for a fresh start.
        carry: whether the optimiser's memory is taken over with the weights, or starts afresh.
    """

    step: int
    make_model: Callable[[], nn.Module]
    source: Callable[[str], str | None]
    carry: bool = True

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


def without_copies(sources: Sequence[int | None]) -> list[int | None]:
    """The same places with fresh layers: None where a layer would be copied a second time.

    Of a `Growth` by `copy_middle` or `copy_last` it makes the control that grows by random layers.
    """
    return [None if source in sources[:place] else source for place, source in enumerate(sources)]


def add_nothing(layer: nn.Module, writes: Sequence[str] = ("attn.out", "mlp.fc_out")) -> nn.Module:
    """Zero the weights and biases by which a residual layer writes, in place, so that it adds 0; gives the layer.

    A growth by such fresh layers does not change what the network computes, and they learn all the same.

    Args:
        writes: the layer's linear maps into the residual stream; `("self_attn.o_proj", "mlp.down_proj")` of a Hugging
            Face Llama.

    Source: Chen et al. (2016), Net2Net: accelerating learning via knowledge transfer, section 2.3, arXiv 1511.05641,
        whose deeper networks of equal function these are for residual layers
    """
    with torch.no_grad():
        for name in writes:
            for parameter in layer.get_submodule(name).parameters():
                parameter.zero_()
    return layer


def proportional_stages(steps: int, stages: int, power: float = 1.0) -> list[int]:
    """The steps at which stages 2, 3, ... begin, when stage i takes a part of all steps in proportion to i^power.

    Source: Saunshi et al. (2024), Prop-alpha schedules, arXiv 2409.19044
    """
    shares = torch.arange(1, stages + 1).double() ** power
    return (steps * shares.cumsum(0) / shares.sum()).round().long()[:-1].tolist()


def proportional_cost(stages: int, power: float = 1.0, outside: float = 0.0) -> float:
    """Operations of a training in `proportional_stages` of equal blocks, over those of as many steps at full depth.

    sum_i i^power (i + outside) / ((stages + outside) sum_i i^power): .722, .808 and .860 for 6 stages of power 1, 2, 3.

    Args:
        outside: operations outside the blocks (the head) over those of one block.

    Source: Saunshi et al. (2024), On the Inductive Bias of Stacking Towards Improving Reasoning, arXiv 2409.19044
    """
    shares = [i**power for i in range(1, stages + 1)]
    cost = sum(share * (i + outside) for i, share in enumerate(shares, start=1))
    return cost / ((stages + outside) * sum(shares))


def grow_module(small: nn.Module, large: nn.Module, source: Callable[[str], str | None]) -> nn.Module:
    """Copy the weights of `small` into `large`, in place, as a `Growth` does for populations; gives `large`."""
    with torch.no_grad():
        Growth(1, lambda: large, source).transfer(dict(small.named_parameters()), dict(large.named_parameters()))
    return large
