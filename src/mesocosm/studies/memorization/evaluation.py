"""Training sets with their subsets, and what is measured on the networks that learn from them."""

import shutil
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mesocosm import measures, training

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from mesocosm.tasks import Images
    from mesocosm.training import Epochs, History, Population

EARLY = 1 / 8
"""Of training, after which the early EL2N is taken: epoch 10 of 80."""
EXAMPLES, PENALTY, RIDGE_MODELS, RIDGE_SHARE = 60, 0.2, 2000, 0.9
"""Of the reference: examples, penalty of the squared weights, and models on subsets of which share."""


class TrainingData:
    """Passes over the images of one seed by networks that each have a subset of their own; drawn at first use.

    Args:
        share: of the examples, in each subset.
    """

    def __init__(self, task: "Images", seed: int, models: int, share: float, batch_size: int) -> None:
        self.task, self.seed, self.share, self.batch_size = task, seed, share, batch_size
        self.keys = [f"{seed}/{model}" for model in range(models)]

    @cached_property
    def included(self) -> "Tensor":
        """Which examples each network trains on, `[K, N]` bool; the same for all widths and for all labels."""
        from mesocosm.seeding import generator

        examples = len(self.task.train().targets)
        return measures.random_subsets(len(self.keys), examples, generator(self.seed, "subsets"), self.share)

    @cached_property
    def epochs(self) -> "Epochs":
        subsets = training.members(self.included)
        return training.Epochs(self.task.train(), self.batch_size, self.keys, subsets)

    def __call__(self, step: int, index: Sequence[int], device: "torch.device") -> Any:
        """The batch `[R, B, ...]` of this step for the networks at `index`."""
        return self.epochs(step, index, device)


def softened(temperature: float, model: "nn.Module", batch: Any) -> "Tensor":
    """T^2 CE(teacher, student), both at temperature T, for batches of `Taught` whose soft labels alone count.

    Source: Hinton et al. (2015), Distilling the knowledge in a neural network, section 2, arXiv 1503.02531
    """
    return temperature**2 * training.distil(lambda inputs: model(inputs) / temperature, batch)


class Watch:
    """A cell's measure that keeps what the networks say of every training example at every measured step.

    Args:
        folder: where it is written, so that a training which was cut off and goes on still has the earlier steps; in
            memory where not given.
    """

    def __init__(self, data: TrainingData, folder: Path | None = None) -> None:
        self.data, self.folder = data, folder
        self._held: dict[tuple[int, int], tuple[dict[str, Tensor], dict[str, Any]]] = {}

    def __call__(self, population: "Population", step: int) -> "dict[str, Tensor]":
        """Accuracy of each network on its own subset; confidence and EL2N of every example are kept."""
        from mesocosm.lab.files import write_tensors

        train, index = self.data.task.train(), population.index
        logits = population.outputs(train.inputs)
        probabilities = logits.softmax(-1)
        kept = {
            "confidence": measures.cumulative_confidence(probabilities[:, None], train.targets),
            "el2n": measures.el2n(probabilities, train.targets),
        }
        if self.folder:
            write_tensors(self.folder / f"step {step} from {index[0]}.safetensors", kept, {"index": index})
        else:
            self._held[step, index[0]] = kept, {"index": index}
        right = (logits.argmax(-1) == train.targets).double()
        own = self.data.included[index].double()
        return {"train accuracy": ((right * own).sum(1) / own.sum(1)).to(population.device)}

    def at(self, step: int) -> "dict[str, Tensor]":
        """Of all networks, `[K, N]`: probability of the label, and EL2N."""
        import torch

        from mesocosm.lab.files import read_tensors

        if self.folder:
            parts = [read_tensors(path) for path in sorted(self.folder.glob(f"step {step} from *.safetensors"))]
        else:
            parts = [part for (at, _), part in self._held.items() if at == step]
        found = {name: torch.full(self.data.included.shape, torch.nan) for name in ("confidence", "el2n")}
        for kept, facts in parts:
            for name, values in found.items():
                values[facts["index"]] = kept[name]
        return found

    def forget(self) -> None:
        """Delete what was kept."""
        self._held.clear()
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)


def examine(data: TrainingData, history: "History", watch: Watch | None = None) -> "dict[str, Tensor]":
    """What networks on subsets memorise, `[N]` by name, and their mean accuracies on these and on test images.

    Args:
        watch: where given, also proxies of the score (means over the networks that trained on an example), its noise,
            and what either half of the networks says. The measurement before training does not count.

    Raises:
        RunError: when all networks diverged.
    """
    import torch

    from mesocosm.lab.files import RunError

    alive = [r for r in range(len(data.keys)) if r not in history.diverged]
    if not alive:
        raise RunError(f"all networks of seed {data.seed} diverged; lower learning_rate")
    population, included = history.population.select(alive), data.included[alive]
    train, test = data.task.train(), data.task.test()
    logits = population.outputs(train.inputs)
    right, own = (logits.argmax(-1) == train.targets).double(), included.double()
    found = {
        "memorisation": measures.feldman_memorisation(right, included).score,
        "train accuracy": (right * own).sum() / own.sum(),
        "test accuracy": (population.outputs(test.inputs).argmax(-1) == test.targets).double().mean(),
    }
    if watch is None:
        return found

    def inside(values: "Tensor") -> "Tensor":
        return measures.feldman_memorisation(values, included).inside

    early = next(step for step in history.steps if step >= max(1, EARLY * history.steps[-1]))
    confidence = torch.stack([watch.at(step)["confidence"][alive] for step in history.steps[1:]])
    wrong = included.roll(1, dims=0)
    counts = [side.sum(0).double() for side in (wrong, ~wrong)]
    half = len(alive) // 2
    halves = {"one half": slice(0, half), "other half": slice(half, 2 * half)}
    return {
        **found,
        "1 - cumulative confidence": 1 - inside(confidence.mean(0)),
        "early EL2N": inside(watch.at(early)["el2n"][alive]),
        "EL2N": inside(watch.at(history.steps[-1])["el2n"][alive]),
        "margin": inside(measures.margin(logits, train.targets)),
        "memorisation, wrong subsets": measures.feldman_memorisation(right, wrong).score,
        "chance deviation": (right.var(dim=0) * (1 / counts[0] + 1 / counts[1])).sqrt(),
        **{
            f"memorisation, {name}": measures.feldman_memorisation(right[rows], included[rows], least=3).score
            for name, rows in halves.items()
        },
    }


def reference(task: "Images", seed: int) -> "dict[str, Tensor]":
    """Memorisation of 60 examples by ridge regression on one-hot labels, found in four ways, `[60]` by name.

    With f(x) the score that a model gives the label, mem(i) = f_S(x_i) - f_{S without i}(x_i): by retraining without
    each example; in closed form, (1 - f_S(x_i)) h_i / (1 - h_i) with the leverage h_i; by subsampling; and by
    subsampling with the subsets of other models.

    Source: closed form: Cook & Weisberg (1982), Residuals and influence in regression, section 2.2
    """
    import torch

    from mesocosm.seeding import generator

    train = task.train()
    rows = torch.randperm(len(train.targets), generator=generator(seed, "reference"))[:EXAMPLES]
    inputs, labels = train.inputs[rows].flatten(1).double(), train.targets[rows]
    kernel = inputs @ inputs.T / inputs.shape[1] + 1
    targets = torch.nn.functional.one_hot(labels).double()

    def scores(subsets: "Tensor") -> "Tensor":
        """Of the label of every example, by a model on each subset, `[K, 60]`."""
        outputs = ridge(kernel, targets, training.members(subsets))
        return (outputs * targets).sum(-1)

    whole = scores(torch.ones(1, len(rows), dtype=torch.bool))[0]
    without = scores(~torch.eye(len(rows), dtype=torch.bool)).diagonal()
    leverage = torch.linalg.solve(kernel + PENALTY * torch.eye(len(rows)).double(), kernel).diagonal()
    subsets = measures.random_subsets(RIDGE_MODELS, len(rows), generator(seed, "ridge"), RIDGE_SHARE)
    values = scores(subsets)
    return {
        "exact": whole - without,
        "closed form": (1 - whole) * leverage / (1 - leverage),
        "subsampled": measures.feldman_memorisation(values, subsets).score,
        "wrong subsets": measures.feldman_memorisation(values, subsets.roll(1, dims=0)).score,
    }


def ridge(kernel: "Tensor", targets: "Tensor", subsets: "Tensor") -> "Tensor":
    """Kernel ridge regression on each subset: outputs for all examples, `[K, N, C]`.

    Args:
        kernel: `[N, N]`, inner products of inputs.
        targets: `[N, C]`.
        subsets: `[K, n]` indices.
    """
    import torch

    within = kernel[subsets[:, :, None], subsets[:, None, :]] + PENALTY * torch.eye(subsets.shape[1]).to(kernel)
    return torch.einsum("knm,knc->kmc", kernel[subsets], torch.linalg.solve(within, targets[subsets]))
