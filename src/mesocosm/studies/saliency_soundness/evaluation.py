"""The maps of every method for every label, and what the networks say of the pixels that they rank high."""

from functools import cache, partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple

from mesocosm import measures
from mesocosm.studies.saliency_soundness.maps import Maps, random_maps, shuffled

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from mesocosm.lab.lab import Lab
    from mesocosm.studies.saliency_soundness import Config
    from mesocosm.training import Population
    from mesocosm.training.loop import Measure

TESTED = 1000
"""Test images behind an accuracy, at most."""
NOISE = 200
"""Training images from which masks draw."""
SHOWN = ("gradient x input", "mask", "coarse mask with TV")
"""Methods whose maps of one image are kept."""


class Chosen(NamedTuple):
    """The images that a network is asked about."""

    seed: int
    n_labels: int
    inputs: "Tensor"
    """`[B, C, H, W]`, as many of each class, from the test split."""
    targets: "Tensor"
    """`[B]`, their classes."""
    noise: "Tensor"
    """Training images from which masks draw."""
    fills: "Tensor"
    """Training images that hide pixels in the second evaluation."""


def check_extras(task: Any) -> None:
    """See that captum and the images are there."""
    from mesocosm.seeding import generator

    if not find_spec("captum"):
        raise ImportError("captum is not installed: pip install 'mesocosm[saliency]'")
    task.sample(1, generator(0))


def accuracy(task: Any) -> "Measure":
    """Measures the share of right answers on the first test images."""

    @cache
    def test(device: "torch.device") -> "tuple[Tensor, Tensor]":
        split = task.test()
        return split.inputs[:TESTED].to(device), split.targets[:TESTED].to(device)

    def measure(population: "Population", step: int) -> "dict[str, Tensor]":
        inputs, targets = test(population.device)
        right = population.map(lambda model: (model(inputs).argmax(1) == targets).double().mean())
        return {"test accuracy": right}

    return measure


def choose(config: "Config", task: Any, seed: int, device: str) -> Chosen:
    """Test images of every class in equal numbers, drawn by the network's seed."""
    import torch

    from mesocosm.seeding import generator

    test = task.test()
    order = torch.randperm(len(test.targets), generator=generator(seed, "test images"))
    rows = torch.cat([order[test.targets[order] == c][: config.images_each()] for c in range(*task.output_shape)])
    noise, fills = (
        task.sample(count, generator(seed, name)).inputs for name, count in (("noise", NOISE), ("fills", config.fills))
    )
    return Chosen(
        seed, *task.output_shape, *(t.to(device) for t in (test.inputs[rows], test.targets[rows], noise, fills))
    )


def evaluate(config: "Config", network: Any, images: Chosen, found: "Tensor") -> "dict[str, Tensor]":
    """What maps `[B, A, H, W]` are worth: tables `[B, A]`, and mean insertion curves `[S]`."""
    import torch

    with torch.no_grad():
        probabilities = network(images.inputs).softmax(-1)
    shape = n_images, n_labels = probabilities.shape
    pairs = images.inputs.repeat_interleave(n_labels, dim=0)
    labels = torch.arange(n_labels, device=pairs.device).repeat(n_images)
    asked = (network, pairs, found.flatten(0, 1), labels, config.insertions)
    curves = measures.insertion_curve(*asked)
    area, filled, deletion = (
        curve.mean(1).view(shape)
        for curve in (curves, measures.insertion_curve(*asked, fill=images.fills), measures.deletion_curve(*asked))
    )
    predicted = (labels.view(shape) == probabilities.argmax(1, keepdim=True)).flatten()
    return {
        "probability": probabilities,
        "insertion area": area,
        "deletion area": deletion,
        "completeness": measures.completeness(area, probabilities),
        "soundness": measures.soundness(area, probabilities),
        "insertion area, images as fill": filled,
        "soundness, images as fill": measures.soundness(filled, probabilities),
        "curve, predicted label": curves[predicted].mean(0),
        "curve, other labels": curves[~predicted].mean(0),
    }


def record_network(
    cell: str, network: "nn.Module", makers: dict[str, Maps], config: "Config", images: Chosen, lab: "Lab"
) -> None:
    """Make and evaluate the maps of every method; masks of trained networks are evaluated shuffled, too."""

    def compute(make: Maps, shuffle: bool) -> "dict[str, Tensor]":
        made = make()
        found = evaluate(config, network, images, made) | {"first": made[0]}
        if shuffle:
            again = evaluate(config, network, images, shuffled(made, images.seed))
            found |= {f"shuffled {name}": values for name, values in again.items()}
        return {name: values.cpu() for name, values in found.items()}

    if cell == "maps":
        record_pixels("image", images.inputs[0].mean(0, keepdim=True).cpu(), images.seed, lab)
    for method, make in makers.items():
        shuffle = cell == "maps" and "mask" in method
        found = lab.remember(f"{cell}/{method}/seed={images.seed}", partial(compute, make, shuffle))
        again = {n.removeprefix("shuffled "): found.pop(n) for n in list(found) if n.startswith("shuffled ")}
        record(cell, method, found, images, lab)
        if shuffle:
            record("shuffled", method, again, images, lab)
        if cell == "maps" and method in SHOWN:
            record_pixels(method, found["first"], images.seed, lab)


def record(cell: str, method: str, found: "dict[str, Tensor]", images: Chosen, lab: "Lab") -> None:
    """One record for each image, label and measurement, and one for each point of a curve."""
    import torch

    image, label = torch.cartesian_prod(*map(torch.arange, found["probability"].shape)).unbind(1)
    places: Any = {
        "image": image.tolist(),
        "label": label.tolist(),
        "target": images.targets.cpu()[image].tolist(),
    }
    tables = {name: values.flatten() for name, values in found.items() if values.dim() == 2}
    lab.record(cell, tables, seed=[images.seed] * len(image), method=method, **places)
    for name, values in found.items():
        if name.startswith("curve"):
            share: Any = [(k + 1) / len(values) for k in range(len(values))]
            lab.record(cell, {name: values}, seed=[images.seed] * len(share), method=method, share=share)


def record_pixels(method: str, found: "Tensor", seed: int, lab: "Lab") -> None:
    """The maps `[A, H, W]` of one image, or `[1, H, W]` of the image itself."""
    import torch

    label, row, column = torch.cartesian_prod(*map(torch.arange, found.shape)).unbind(1)
    places: Any = {"label": label.tolist(), "row": row.tolist(), "column": column.tolist()}
    lab.record("first image", {"map": found.flatten()}, seed=[seed] * len(label), method=method, **places)


def record_constant(config: "Config", images: Chosen, lab: "Lab") -> None:
    """Random maps of a classifier that gives every image the same probabilities."""
    import torch

    def constant(inputs: "Tensor") -> "Tensor":
        return torch.linspace(0, 3, images.n_labels, device=inputs.device).expand(len(inputs), -1)

    found = evaluate(config, constant, images, random_maps(images))
    record("constant", "random", {name: values.cpu() for name, values in found.items()}, images, lab)
