"""How difficult an example is for a network: cheap numbers that are used as proxies of memorisation.

All are numbers of one model, or of several with leading axes; `feldman_memorisation(numbers, included)` has their
means over the models that saw an example and over those that did not.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mesocosm.measures._arrays import Array, one_hot, tensor
from mesocosm.measures.neighbours import knn_predict, nearest_neighbours

__all__ = ["cumulative_confidence", "el2n", "margin", "prediction_depth"]


def el2n(probabilities: Array, labels: Array) -> Tensor:
    """Error of the predicted probabilities, ||softmax - onehot||_2, `[..., N]`, from 0 to sqrt(2); high is difficult.

    The original takes it early in training, around epoch 10, and as a mean over models.

    Args:
        probabilities: `[..., N, C]`.
        labels: `[N]`, classes.

    Source: Paul et al. (2021), Deep Learning on a Data Diet, section 2, arXiv 2107.07075
    """
    found = tensor(probabilities)
    return (found - one_hot(labels, found)).norm(dim=-1)


def cumulative_confidence(probabilities: Array, labels: Array) -> Tensor:
    """Mean probability of the label over T checkpoints of training, `[..., N]`, from 0 to 1; low is difficult.

    With T = 1 it is the confidence of one model. Of models that trained on the example it shows how early it is
    learned; of models that did not, it is a proxy of the consistency score (C-score).

    Args:
        probabilities: `[..., T, N, C]`.
        labels: `[N]`, classes.

    Source: Jiang et al. (2021), Characterizing Structural Regularities of Labeled Data in Overparameterized Models,
    arXiv 2002.03206
    """
    found = tensor(probabilities)
    return (found * one_hot(labels, found)).sum(dim=-1).mean(dim=-2)


def margin(logits: Array, labels: Array) -> Tensor:
    """Logit of the label less the largest other logit, `[..., N]`; low is difficult, below 0 is wrong.

    Its mean over the epochs of training is the area under the margin (AUM), which is low for mislabelled examples.

    Args:
        logits: `[..., N, C]`.
        labels: `[N]`, classes.

    Source: Pleiss et al. (2020), Identifying Mislabeled Data using the Area Under the Margin Ranking, section 3,
    arXiv 2001.10528
    """
    found = tensor(logits)
    label = one_hot(labels, found).bool()
    return found.masked_fill(~label, -torch.inf).amax(dim=-1) - found.masked_fill(label, -torch.inf).amax(dim=-1)


def prediction_depth(
    features: Sequence[Array],
    labels: Array,
    predictions: Array,
    queries: Sequence[Array] | None = None,
    neighbours: int = 30,
) -> Tensor:
    """First layer from which on the nearest neighbours agree with the network's prediction, `[M]`; high is difficult.

    At each of L layers the nearest training examples vote with their labels. The depth is the least l such that the
    votes of layers l, ..., L-1 all equal the prediction, and L where the last vote differs. Ties go to the lower class.

    Args:
        features: L arrays `[N, D_l]`, the training examples at each layer, input first and output last.
        labels: `[N]`, classes of the training examples.
        predictions: `[M]`, the network's classes of the queries.
        queries: L arrays `[M, D_l]`; without them the training examples, each left out of its own vote.
        neighbours: how many vote.

    Source: Baldock et al. (2021), Deep Learning Through the Lens of Example Difficulty, arXiv 2106.09647
    """
    classes, predicted = F.one_hot(tensor(labels, torch.int64)).double(), tensor(predictions, torch.int64).cpu()
    depth = torch.zeros_like(predicted)
    for layer, memory in enumerate(features):
        found = nearest_neighbours(memory, None if queries is None else queries[layer], neighbours)
        votes = (knn_predict(classes, found) * neighbours).round()
        depth[votes.argmax(dim=-1) != predicted] = layer + 1
    return depth
