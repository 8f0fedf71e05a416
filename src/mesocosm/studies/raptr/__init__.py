"""Is training cheaper along random paths of layers that grow longer in stages, while the whole network is there?

Source: Panigrahi et al. (2024), Efficient Stagewise Pretraining via Progressive Subnetworks, arXiv 2402.05913
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

from mesocosm import lab
from mesocosm.settings import setting
from mesocosm.studies.raptr.cells import arms, gap_cells, sandboxes
from mesocosm.studies.raptr.claims import CLAIMS
from mesocosm.studies.raptr.figures import figures


@dataclass(frozen=True, kw_only=True)
class Config(lab.Config):
    """Settings of the study."""

    seeds: int = setting(6, "seeds of the arms that are judged, on polynomials", low=1, high=1000)
    drawn_seeds: int = setting(3, "how many of these seeds get the arms that are only drawn", low=1, high=1000)
    bits: int = setting(16, "bits of the polynomial", low=5, high=1000)
    degree: int = setting(5, "its largest degree", low=3, high=5)
    terms: int = setting(4, "its monomials of each degree", low=1, high=5)
    lengths: tuple[int, ...] = setting((3, 4, 6, 8), "mean path length of each stage, rising", low=2, high=64)
    d_model: int = setting(32, "width of the residual stream", low=1, high=4096)
    d_hidden: int = setting(64, "hidden units of a block", low=1, high=4096)
    steps: int = setting(960, "training steps along paths", low=32, high=1_000_000)
    batch_size: int = setting(128, "samples a step", low=1, high=4096)
    learning_rate: float = setting(3e-3, "learning rate on polynomials", low=0, high=1)
    warmup: int = setting(100, "steps over which the learning rate rises", low=0, high=100_000)
    full_end: float = setting(
        0.05, "share of the steps that the reversed schedule ends with in full", low=0.01, high=0.5
    )
    points: int = setting(4000, "fixed points of evaluation", low=10, high=1_000_000)
    gap_seeds: int = setting(3, "seeds of the networks whose transition gap is measured", low=1, high=1000)
    gap_depths: tuple[int, ...] = setting((4, 8, 16, 32), "their layers, two values at least", low=3, high=256)
    gap_steps: int = setting(500, "their training steps", low=1, high=1_000_000)
    gap_width: int = setting(32, "width of their residual stream", low=1, high=4096)
    gap_batch: int = setting(64, "their samples a step", low=1, high=4096)
    gap_points: int = setting(1000, "fixed points on which gaps are measured", low=10, high=1_000_000)
    paths: int = setting(64, "paths that a gap is averaged over, at most", low=1, high=4096)
    text: str | None = setting(None, "text file for the language model; none reads Python's help pages")
    text_seeds: int = setting(3, "seeds of the arms on text; 0 leaves text out", low=0, high=1000)
    text_lengths: tuple[int, ...] = setting((3, 4, 5, 6), "mean path length of each stage on text", low=2, high=64)
    text_width: int = setting(32, "width of the language model", low=1, high=4096)
    text_heads: int = setting(2, "its heads, a divisor of text_width", low=1, high=64)
    context: int = setting(64, "bytes it reads at once", low=1, high=4096)
    text_steps: int = setting(360, "its training steps along paths", low=32, high=10_000_000)
    text_batch: int = setting(8, "its windows a step", low=1, high=4096)
    text_rate: float = setting(3e-3, "its learning rate", low=0, high=1)
    windows: int = setting(128, "held-out windows of evaluation", low=1, high=100_000)

    more_arms: bool = setting(False, "draw progressive layer dropping on polynomials, too")

    def check(self) -> None:
        for name, lengths in (("lengths", self.lengths), ("text_lengths", self.text_lengths)):
            if any(later <= earlier for earlier, later in pairwise(lengths)) or len(lengths) > 10:
                raise ValueError(f"{name}={lengths} is not legal: it must be up to 10 rising values")
        if self.lengths[-1] % 4:
            raise ValueError(f"lengths={self.lengths} is not legal: the last must be a multiple of 4, for stacking")
        if len(self.gap_depths) < 2 or len(set(self.gap_depths)) < len(self.gap_depths):
            raise ValueError(f"gap_depths={self.gap_depths} is not legal: it must be two different values at least")
        if self.text_width % self.text_heads:
            raise ValueError(f"text_heads={self.text_heads} is not legal: it must divide text_width={self.text_width}")


PRESETS = {
    "smoke": Config(
        seeds=3,
        drawn_seeds=2,
        lengths=(3, 4),
        d_model=8,
        d_hidden=8,
        steps=32,
        batch_size=16,
        warmup=5,
        points=200,
        gap_seeds=3,
        gap_depths=(3, 6),
        gap_steps=10,
        gap_width=8,
        gap_batch=16,
        gap_points=100,
        text_seeds=2,
        text_lengths=(3, 4),
        text_width=8,
        context=16,
        text_steps=32,
        windows=8,
        more_arms=True,
    ),
    "small": Config(),
    "paper": Config(
        seeds=20,
        drawn_seeds=20,
        bits=24,
        d_model=64,
        d_hidden=128,
        steps=2400,
        batch_size=256,
        learning_rate=1e-3,
        gap_seeds=20,
        gap_width=64,
        gap_batch=256,
        gap_points=4000,
        text_lengths=(6, 8, 10, 12),
        text_width=768,
        text_heads=12,
        context=512,
        text_steps=100_000,
        text_batch=64,
        text_rate=1e-4,
        windows=512,
        more_arms=True,
    ),
}


def plan(config: Config) -> Iterable[lab.Cell]:
    """In each sandbox the whole network and the paths, at equal compute; then networks of many depths, for the gap."""
    for box in sandboxes(config):
        yield from arms(config, box)
    yield from gap_cells(config)


STUDY = lab.Study(
    title="Stagewise training of random paths",
    paper="A. Panigrahi, N. Saunshi, K. Lyu, S. Miryoosefi, S. Reddi, S. Kale, S. Kumar. Efficient Stagewise "
    "Pretraining via Progressive Subnetworks. ICLR 2025. arXiv 2402.05913",
    question="Is a deep network trained more cheaply along random paths of its layers that grow longer in stages, and "
    "why does its loss not jump when they do?",
    presets=PRESETS,
    plan=plan,
    claims=CLAIMS,
    figures=figures,
    departures=(
        "The small preset has a polynomial of 16 bits and residual networks of width 32, and a language model of six "
        "layers and width 32 on bytes: minutes on two cores.",
        "The paper preset trains a decoder of 12 layers and width 768 on the bytes of a text file (`--text`), in "
        "place of BERT and UL2 on word pieces of Wikipedia, books and the web.",
        "How much each layer of a path is scaled up is our reading of the paper's square-root scaling, derived from "
        "the growth of the stream.",
        "The first stage has paths longer than the two fixed ends, so that inner layers are trained from the start.",
        "Paths of constant and of falling mean length are drawn and scaled as RaPTr's are, so that only the schedule "
        "differs from it; the falling one ends in full, with slightly fewer steps in all, at equal FLOPs.",
    ),
)
