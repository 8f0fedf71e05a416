"""The maps that are compared: captum's, learned masks, and maps that should fail."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from mesocosm import measures

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mesocosm.studies.saliency_soundness import Config
    from mesocosm.studies.saliency_soundness.evaluation import Chosen

Maps = Callable[[], "Tensor"]
"""Makes maps `[B, A, H, W]`."""
BLUR = 0.15
"""SmoothGrad's noise, as a share of the pixels' range."""


def methods(config: "Config", network: "nn.Module", images: "Chosen") -> dict[str, Maps]:
    """Every method by name; GradCAM only for networks with a convolution."""
    from captum import attr
    from torch import nn

    from mesocosm.seeding import key
    from mesocosm.training.population import seeded

    x = images.inputs
    maps: Callable[..., Tensor] = partial(measures.label_maps, inputs=x, n_labels=images.n_labels)
    width = max(2, x.shape[-1] // 8)
    window = {"sliding_window_shapes": (x.shape[1], width, width), "strides": (x.shape[1], width // 2, width // 2)}

    def smooth() -> "Tensor":
        noise = {"nt_type": "smoothgrad", "nt_samples": config.samples, "stdevs": BLUR * (x.max() - x.min()).item()}
        with seeded(key(images.seed, "SmoothGrad"), x.device):
            return maps(attr.NoiseTunnel(attr.Saliency(network)), **noise)

    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    cam = {"GradCAM": partial(maps, attr.LayerGradCam(network, convolutions[-1]))} if convolutions else {}
    return {
        "random": partial(random_maps, images),
        "|gradient|": partial(maps, attr.Saliency(network)),
        "gradient x input": partial(maps, attr.InputXGradient(network)),
        "integrated gradients": partial(maps, attr.IntegratedGradients(network), n_steps=config.points),
        "SmoothGrad": smooth,
        **cam,
        "occlusion": partial(maps, attr.Occlusion(network), **window),
        "greedy": partial(maps, partial(greedy_maps, network, config.insertions)),
        **masks(config, network, images),
    }


def masks(config: "Config", network: "nn.Module", images: "Chosen") -> dict[str, Maps]:
    """Learned masks: with TV or without, fine or coarse."""
    from mesocosm.seeding import generator

    height, width = images.inputs.shape[-2:]

    def learn(inputs: "Tensor", labels: "Tensor", tv: float, scale: int) -> "Tensor":
        return measures.learn_masks(
            network,
            inputs,
            labels,
            images.noise,
            generator(images.seed, "masks"),
            steps=config.mask_steps,
            draws=config.draws,
            l1=config.l1 / (height * width),
            tv=tv / width,
            scale=scale,
            learning_rate=config.mask_learning_rate,
        )

    kinds = {
        "mask": (0.0, 1),
        "mask with TV": (config.tv, 1),
        "coarse mask": (0.0, config.coarse()),
        "coarse mask with TV": (config.tv, config.coarse()),
    }
    return {
        name: partial(measures.label_maps, partial(learn, tv=tv, scale=scale), images.inputs, images.n_labels)
        for name, (tv, scale) in kinds.items()
    }


def random_maps(images: "Chosen") -> "Tensor":
    """Pixels in random order, `[B, A, H, W]`."""
    import torch

    from mesocosm.seeding import generator

    count, _, *size = images.inputs.shape
    random = torch.rand(count, images.n_labels, *size, generator=generator(images.seed, "random maps"))
    return random.to(images.inputs.device)


def greedy_maps(network: "nn.Module", steps: int, inputs: "Tensor", labels: "Tensor") -> "Tensor":
    """Maps that spell any label: at each step, of the pixels not yet shown, those are shown that raise it most.

    By how much is told to first order, from the gradient on what is shown already; the others are 0.

    Args:
        steps: S, in which equal shares of the pixels are shown.
        inputs: `[B, C, H, W]`.
        labels: `[B]`.

    Returns:
        `[B, H, W]`, larger where a pixel is shown earlier.
    """
    import torch

    count = inputs.shape[-2:].numel()
    place = torch.full((len(inputs), count), -1, device=inputs.device)
    for k in range(steps):
        hidden = (place < 0).unflatten(1, inputs.shape[-2:])[:, None]
        seen = inputs.masked_fill(hidden, 0).requires_grad_()
        with torch.enable_grad():
            raised = network(seen).log_softmax(-1).gather(1, labels[:, None]).sum()
        (gradient,) = torch.autograd.grad(raised, seen)
        effect = (gradient * inputs).sum(1, keepdim=True).masked_fill(~hidden, -torch.inf).flatten(1)
        ranks = torch.arange(k * count // steps, (k + 1) * count // steps, device=inputs.device)
        place.scatter_(1, effect.topk(len(ranks)).indices, ranks.expand(len(inputs), -1))
    return (count - place).unflatten(1, inputs.shape[-2:]).float()


def shuffled(maps: "Tensor", seed: int) -> "Tensor":
    """The same values `[B, A, H, W]` at random places, in each map its own."""
    import torch

    from mesocosm.seeding import generator

    flat = maps.flatten(2)
    places = torch.rand(flat.shape, generator=generator(seed, "shuffled")).argsort(-1).to(maps.device)
    return flat.gather(2, places).view_as(maps)
