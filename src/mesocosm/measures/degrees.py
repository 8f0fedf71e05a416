"""How much of each degree of a polynomial a function has learned."""

from torch import Tensor

__all__ = ["degree_coefficients"]


def degree_coefficients(scores: Tensor, components: Tensor) -> Tensor:
    """alpha_k = <f, P_k> / <P_k, P_k>: how far f has learned the component P_k of its target; 1 when wholly.

    The inner products are means over the given points: exact over all inputs, else estimates. Components of different
    degrees are orthogonal only over all inputs.

    Args:
        scores: `[..., N]`, values of f at N points; leading axes for replicas judged at the same points.
        components: `[N, K]`, values of P_1, ..., P_K there, such as those of a batch of `BooleanPolynomial`.

    Returns:
        `[..., K]`; NaN for a component that is 0 everywhere.

    Source: Panigrahi et al. (2024), Efficient Stagewise Pretraining via Progressive Subnetworks, section 3, arXiv
    2402.05913
    """
    return scores @ components / components.square().sum(0)
