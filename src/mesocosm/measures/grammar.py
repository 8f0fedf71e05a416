"""Exact predictors of a context-free grammar, and how far predictions rest on short n-grams.

The inside algorithm runs on matrices: a symbol's `[n + 1, n + 1]` matrix holds the probability that it derives what
lies between two places, a product of matrices chains the symbols of a rule, and without recursion one pass from the
terminals up to the start is enough. The outside algorithm is its gradient (Eisner 2016, Inside-Outside and
Forward-Backward Algorithms Are Just Backprop). Numbers are float64: those under 1e-300 are 0.
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from mesocosm.tasks.context_free import ProbabilisticGrammar
from mesocosm.tasks.masked import likelihoods

__all__ = [
    "masked_posterior",
    "next_token_posterior",
    "ngram_closeness",
    "ngram_dependence",
    "string_log_probability",
]

CHUNK = 2**20
"""Entries of one symbol's matrices that are held at once."""


def string_log_probability(task: ProbabilisticGrammar, tokens: Tensor) -> Tensor:
    """Log probability of whole strings, over all their derivations, in nats; -inf where there is none.

    Args:
        tokens: `[B, T]`, BOS, a string of terminals and PADs: inputs of the form next, targets of the form masked.

    Returns:
        `[B]` float64.

    Source: Baker (1979), Trainable grammars for speech recognition
    """
    parts = []
    for part in _chunks(tokens):
        evidence, length = _evidence(task, part, _known(task))
        inside = _inside(task, torch.diag_embed(evidence.movedim(-1, 0), offset=1))
        parts.append(inside[:, 0].gather(1, length[:, None])[:, 0].log())
    return torch.cat(parts)


def masked_posterior(task: ProbabilisticGrammar, tokens: Tensor, corrupted: bool = False) -> Tensor:
    """Exact probability of each terminal given all other tokens, by inside-outside.

    Args:
        tokens: `[B, T]`, BOS, terminals or MASKs, and PADs, which tell the length.
        corrupted: whether tokens are as the masked form of the task draws them, some replaced by random ones. Then the
            probability at a place is that of the true terminal given all tokens and that this one was chosen: the
            prediction of least cross entropy.

    Returns:
        `[B, T, V]` float64; at BOS and PAD the token itself; NaN where the other tokens are impossible.

    Source: Baker (1979), Trainable grammars for speech recognition
    """
    if corrupted:
        anywhere, here = likelihoods(task.n_terminals, task.mask_rate, task.shares)
    else:
        unknown = torch.ones(1, task.n_terminals, dtype=torch.float64)
        anywhere, here = torch.cat([_known(task), unknown]), unknown.expand(task.n_terminals + 1, -1)
    parts = []
    for part in _chunks(tokens):
        evidence, length = _evidence(task, part, anywhere)
        with torch.enable_grad():
            evidence.requires_grad_()
            inside = _inside(task, torch.diag_embed(evidence.movedim(-1, 0), offset=1))
            (outside,) = torch.autograd.grad(inside[:, 0].gather(1, length[:, None]).sum(), evidence)
        posterior = outside * _evidence(task, part, here)[0]
        parts.append(_with_special(task, part, F.pad(posterior, (0, 0, 1, 0))))
    return torch.cat(parts)


def next_token_posterior(task: ProbabilisticGrammar, tokens: Tensor) -> Tensor:
    """Exact probability of the next token after each prefix of a string.

    A string leaves the known one at some place by a terminal, after which all is possible: the gradient with respect to
    these ways out is the probability of each prefix with one terminal more.

    Args:
        tokens: `[B, T]`, BOS, terminals and PADs.

    Returns:
        `[B, T, V]` float64, at each position that of the token after it; PAD after PAD; NaN after impossible prefixes.

    Source: Jelinek & Lafferty (1991), Computation of the probability of initial substring generation by stochastic
    context-free grammars
    """
    parts = []
    for part in _chunks(tokens):
        evidence, _ = _evidence(task, part, _known(task))
        with torch.enable_grad():
            ways_out = torch.zeros(*part.shape, task.n_terminals, dtype=torch.float64, requires_grad=True)
            edges = F.pad(torch.diag_embed(evidence.movedim(-1, 0), offset=1), (0, 1, 0, 1))
            after = F.pad((ways_out + 1).movedim(-1, 0), (0, 1), value=1)  # to the last state, which loops
            edges = torch.cat([edges[..., :-1], after[..., None]], dim=-1)
            inside = _inside(task, edges)[:, 0]
            (continued,) = torch.autograd.grad(inside[:, -1].sum(), ways_out)
        posterior = F.pad(continued, (0, len(task.tokens) - task.n_terminals))
        posterior[..., task.token("EOS")] = inside[:, :-1].detach()
        posterior /= posterior.sum(-1, keepdim=True)
        posterior[part == task.token("PAD")] = _one_hot(task, task.token("PAD"))
        parts.append(posterior)
    return torch.cat(parts)


def ngram_dependence(
    predict: Callable[[Tensor], Tensor], tokens: Tensor, position: Tensor, n: int, maskable: Tensor, mask: int
) -> Tensor:
    """M_robust: how much the prediction of a masked token changes when the n-gram around it is masked as well.

    It is the total variation distance, half of the L1 distance, between the two predictions. The n-gram of position p
    goes from p - n // 2 to p + (n - 1) // 2.

    Args:
        predict: takes tokens `[B, T]` to probabilities `[B, T, V]`, such as `lambda x: model(x).softmax(-1)`.
        tokens: `[B, T]`, whole sentences.
        position: `[B]`, the position that is masked and predicted.
        maskable: `[B, T]` bool, tokens that may be masked: the others, such as padding, always stay.
        mask: the token that masks.

    Returns:
        `[B]`, one a sentence, from 0 to 1.

    Raises:
        ValueError: when n is under 1.

    Source: Panigrahi et al. (2025), Progressive distillation induces an implicit curriculum, arXiv 2410.05464
    """
    return _change(predict, tokens, position, _ngram(tokens, position, n) & maskable, mask)


def ngram_closeness(
    predict: Callable[[Tensor], Tensor], tokens: Tensor, position: Tensor, n: int, maskable: Tensor, mask: int
) -> Tensor:
    """M_close: how much the prediction of a masked token changes when all but the n-gram around it is masked as well.

    The less it changes, the closer the model is to an n-gram predictor. Arguments, result, errors and the n-gram are
    those of `ngram_dependence`.

    Source: Panigrahi et al. (2025), Progressive distillation induces an implicit curriculum, arXiv 2410.05464
    """
    return _change(predict, tokens, position, ~_ngram(tokens, position, n) & maskable, mask)


def _ngram(tokens: Tensor, position: Tensor, n: int) -> Tensor:
    if n < 1:
        raise ValueError(f"n={n} is not legal: it must be at least 1")
    away = torch.arange(tokens.shape[1], device=tokens.device) - position[:, None]
    return (away >= -(n // 2)) & (away <= (n - 1) // 2)


def _change(predict: Callable[[Tensor], Tensor], tokens: Tensor, position: Tensor, hidden: Tensor, mask: int) -> Tensor:
    row = torch.arange(len(tokens), device=tokens.device)
    one = tokens.clone()
    one[row, position] = mask
    return (predict(one) - predict(one.masked_fill(hidden, mask)))[row, position].abs().sum(-1) / 2


def _inside(task: ProbabilisticGrammar, edges: Tensor) -> Tensor:
    """Probability that the start derives what lies between two places, `[B, n, n]`, from terminals' `[A, B, n, n]`."""
    grammar, inside = task.grammar, list(edges)
    for symbol in range(task.n_terminals, max(task.starts) + 1):
        total = torch.zeros_like(inside[0])
        for p, (first, *others) in grammar.rules[symbol]:
            product = inside[first]
            for other in others:
                product = product @ inside[other]
            total = total + p * product
        inside.append(total)
    return torch.stack([inside[start] for start in task.starts]).mean(0)


def _known(task: ProbabilisticGrammar) -> Tensor:
    return torch.eye(task.n_terminals, dtype=torch.float64)


def _evidence(task: ProbabilisticGrammar, tokens: Tensor, likelihood: Tensor) -> tuple[Tensor, Tensor]:
    """Likelihood of each terminal at each place after BOS, `[B, T - 1, A]` float64, 0 at PAD; and lengths, `[B]`.

    Args:
        likelihood: `[A, A]`, of what is shown by the true terminal; or `[A + 1, A]` where MASK may be shown too.

    Raises:
        ValueError: when rows are not BOS, terminals or MASKs, and PADs, or when the task shuffles its strings.
    """
    if task.shuffled:
        raise ValueError("shuffled=True is not legal here: shuffled strings do not follow the grammar")
    n, mask = task.n_terminals, task.token("MASK")
    shown = torch.tensor([*range(n), mask][: len(likelihood)])
    body = tokens[:, 1:]
    length = (body != task.token("PAD")).sum(1)
    within = torch.arange(body.shape[1]) < length[:, None]
    if (tokens[:, 0] != task.token("BOS")).any() or (torch.isin(body, shown) != within).any():
        raise ValueError("tokens are not legal: each row must be BOS, terminals (or MASKs to fill in), and PADs")
    table = torch.zeros(len(task.tokens), n, dtype=torch.float64)
    table[shown] = likelihood
    return table[body], length


def _with_special(task: ProbabilisticGrammar, tokens: Tensor, weights: Tensor) -> Tensor:
    """Weights of terminals `[B, T, A]` as probabilities of tokens `[B, T, V]`, with BOS and PAD where they stand."""
    posterior = F.pad(weights / weights.sum(-1, keepdim=True), (0, len(task.tokens) - task.n_terminals))
    for special in (task.token("BOS"), task.token("PAD")):
        posterior[tokens == special] = _one_hot(task, special)
    return posterior


def _one_hot(task: ProbabilisticGrammar, token: int) -> Tensor:
    return F.one_hot(torch.tensor(token), len(task.tokens)).double()


def _chunks(tokens: Tensor) -> Iterator[Tensor]:
    return iter(tokens.split(max(1, CHUNK // tokens.shape[1] ** 2)))
