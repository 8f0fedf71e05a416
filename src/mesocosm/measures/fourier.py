"""Exact Fourier analysis and gradients on the cube {±1}^n."""

from collections.abc import Callable
from fractions import Fraction
from math import comb

import torch
from torch import Tensor, nn

__all__ = [
    "majority_fourier",
    "parity_gradient_of_relu_neuron",
    "parity_gradients",
    "population_gradient",
    "walsh_hadamard",
]


def walsh_hadamard(values: Tensor) -> Tensor:
    """All Fourier coefficients of functions on the cube, by the fast Walsh-Hadamard transform.

    The coefficient of the set S is E_x[f(x) prod_{i in S} x_i] over uniform x in {±1}^n.

    Args:
        values: `[..., 2^n]`, f at each input in the order of `mesocosm.tasks.parity.cube`.

    Returns:
        `[..., 2^n]`: at index s, the coefficient of the set of those i whose bit is set in s.

    Raises:
        ValueError: when the last axis is not a power of two.

    Source: O'Donnell (2021), Analysis of Boolean Functions, arXiv 2105.10386
    """
    size = values.shape[-1]
    if size < 1 or size & (size - 1):
        raise ValueError(f"values has a last axis of {size}: it must be a power of two, 2^n for the cube {{±1}}^n")
    coefficients = values
    for bit in range(size.bit_length() - 1):
        plus, minus = coefficients.reshape(*values.shape[:-1], -1, 2, 2**bit).unbind(-2)
        coefficients = torch.stack((plus + minus, plus - minus), dim=-2)
    return coefficients.reshape(values.shape) / size


def population_gradient(
    score: Callable[[dict[str, Tensor], Tensor], Tensor],
    parameters: dict[str, Tensor],
    inputs: Tensor,
    labels: Tensor,
) -> dict[str, Tensor]:
    """Exact gradients of the correlation loss -E_x[y(x) f(x)] for many labellings y of the same inputs.

    The loss is linear in the labels, so one forward pass of the network serves all of them. With all of the cube as
    inputs and parities as labels these are the population gradients that online SGD follows on average.

    Args:
        score: `score(parameters, inputs)` gives f at each input, `[N]`; a module's is `torch.func.functional_call`.
        parameters: tensors by name.
        inputs: `[N, ...]`, such as `cube(n)`.
        labels: `[M, N]`, M labellings, such as `parities(inputs, sets)`.

    Returns:
        By name, `[M, *shape of the parameter]`.

    Source: Barak et al. (2022), Hidden Progress in Deep Learning: SGD Learns Parities Near the Computational
    Limit, arXiv 2207.08799
    """
    scores, pullback = torch.func.vjp(lambda p: score(p, inputs), parameters)[:2]
    gradients = [pullback(-labelling / len(inputs))[0] for labelling in labels.to(scores.dtype)]
    return {name: torch.stack([gradient[name] for gradient in gradients]) for name in parameters}


def parities(inputs: Tensor, sets: Tensor) -> Tensor:
    """Products of inputs' coordinates in each set, `[M, N]`, from inputs `[N, n]` and sets `[M, k]` of indices."""
    return inputs[:, sets].prod(dim=-1).T


def parity_gradients(model: nn.Module, inputs: Tensor, sets: Tensor) -> Tensor:
    """Exact gradients of a module's correlation loss -E_x[y(x) f(x)] when y is the parity of each of M sets.

    Args:
        model: takes inputs to scores `[N]`.
        inputs: `[N, n]`, such as `cube(n)`.
        sets: `[M, k]`, indices of coordinates.

    Returns:
        `[M, P]`, over all trainable parameters in the module's order, each flattened.

    Source: Barak et al. (2022), Hidden Progress in Deep Learning: SGD Learns Parities Near the Computational
    Limit, arXiv 2207.08799
    """
    trainable = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    score = lambda parameters, x: torch.func.functional_call(model, parameters, (x,))
    gradients = population_gradient(score, trainable, inputs, parities(inputs, sets))
    return torch.cat([gradient.flatten(1) for gradient in gradients.values()], dim=1)


def majority_fourier(n: int, d: int) -> Fraction:
    """Fourier coefficient of the majority of n bits on any set of d of them, exactly.

    For odd d it is (-1)^((d-1)/2) C((n-1)/2, (d-1)/2) / C(n-1, d-1) * 2^(1-n) C(n-1, (n-1)/2); for even d it is 0.

    Raises:
        ValueError: when n is not odd and positive, or d not from 0 to n.

    Source: O'Donnell (2021), Analysis of Boolean Functions, arXiv 2105.10386; Barak et al. (2022), Hidden Progress in
    Deep Learning: SGD Learns Parities Near the Computational Limit, arXiv 2207.08799
    """
    if n < 1 or n % 2 == 0:
        raise ValueError(f"n={n} is not legal: it must be odd and positive, so that there are no ties")
    if not 0 <= d <= n:
        raise ValueError(f"d={d} is not legal: it must be from 0 to n={n}")
    if d % 2 == 0:
        return Fraction(0)
    half, j = (n - 1) // 2, (d - 1) // 2
    return (-1) ** j * Fraction(comb(half, j), comb(n - 1, d - 1)) * Fraction(comb(n - 1, half), 2 ** (n - 1))


def parity_gradient_of_relu_neuron(signs: Tensor, k: int) -> Tensor:
    """Exact population gradient of a ReLU neuron without bias, at sign weights, for the parity of the first k bits.

    The loss is the correlation loss -E[y relu(w.x)] with y the parity over S. Coordinate j of its gradient is
    -1/2 xi_{k-1} prod_{i in S, i != j} w_i for j in S and -1/2 xi_{k+1} w_j prod_{i in S} w_i for j outside, with xi_d
    the `majority_fourier` coefficient of degree d. That the first is larger, by (n-k)/(k-1), gives S away.

    Args:
        signs: `[..., n]`, weights of ±1, n odd.
        k: number of relevant bits, even.

    Returns:
        `[..., n]` float64.

    Raises:
        ValueError: when n is not odd, a weight not ±1, or k not even and from 2 to n-1.

    Source: Barak et al. (2022), Hidden Progress in Deep Learning: SGD Learns Parities Near the Computational
    Limit, arXiv 2207.08799
    """
    n = signs.shape[-1]
    if k % 2 or not 2 <= k < n:
        raise ValueError(f"k={k} is not legal: it must be even and from 2 to n-1={n - 1}")
    if not (signs.abs() == 1).all():
        raise ValueError("signs is not legal: it must hold +1 and -1 only")
    signs = signs.double()
    inside, outside = float(majority_fourier(n, k - 1)), float(majority_fourier(n, k + 1))
    xi = torch.full((n,), outside, dtype=torch.float64)
    xi[:k] = inside
    # w_j is its own inverse, so the product over S without j is the product over S times w_j.
    return -0.5 * xi * signs * signs[..., :k].prod(dim=-1, keepdim=True)
