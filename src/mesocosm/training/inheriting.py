"""Start from what another network has learned."""

import torch

from mesocosm.training.population import Population

__all__ = ["inherit"]


@torch.no_grad()
def inherit(population: Population, source: Population) -> list[str]:
    """Give each replica the weights of the same replica of `source`, in place; it may have another head, say.

    Parameters are taken over where name and shape agree. Frozen parameters and buffers stay as they are.

    Returns:
        The names of the parameters that keep their own start.

    Raises:
        ValueError: when the populations differ in size, or no parameter can be taken over.
    """
    if len(population) != len(source):
        raise ValueError(f"a population of {len(population)} replicas cannot inherit from one of {len(source)}")
    theirs = source.layout.views(source.theta)
    own = population.layout.views(population.theta)
    wanted, given = population.layout.whole.shapes, source.layout.whole.shapes
    shared = [name for name, shape in wanted.items() if given.get(name) == shape]
    if not shared:
        raise ValueError(f"no parameter agrees in name and shape: {', '.join(own)} with {', '.join(theirs)}")
    for name in shared:
        own[name].copy_(theirs[name])
    return [name for name in own if name not in shared]
