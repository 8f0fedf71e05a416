"""Does a language model that is made smaller lose facts before it loses the use of its context?

Source: Jin et al. (2023), The Cost of Down-Scaling Language Models: Fact Recall Deteriorates before In-Context
Learning, arXiv 2310.04680
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from mesocosm import lab, models, tasks, training
from mesocosm.lab.study import PARAMETERS, TOKENS_READ, TOKENS_WRITTEN
from mesocosm.settings import setting
from mesocosm.studies.fact_recall_downscaling.claims import CLAIMS
from mesocosm.studies.fact_recall_downscaling.figures import figures
from mesocosm.studies.fact_recall_downscaling.rules import FEWER, JUDGED

if TYPE_CHECKING:
    from mesocosm.lab.lab import Lab
    from mesocosm.studies.fact_recall_downscaling.trivia import Trivia

HEADS = 4
"""Of attention, in the trained networks."""


@dataclass(frozen=True, kw_only=True)
class Config(lab.Config):
    """Settings of the study: first those of the language models that are pruned, then those of the trained networks."""

    language_model: tuple[str, ...] | None = setting(
        ("smollm2-135m",),
        "one or more models to prune: the packaged smollm2-135m, a folder, a .gguf file or a name on the hub; None for "
        "trained networks alone",
    )
    sparsities: tuple[float, ...] = setting(
        (0.2, 0.3, 0.4, 0.5, 0.6, 0.7), "shares of weights to remove, 0.5 among them", low=0.01, high=0.99
    )
    sparsegpt: bool = setting(False, "prune by SparseGPT too, at all sparsities")
    text: str | None = setting(None, "file of running text for calibration; none reads the help pages of Python")
    passages: int = setting(1, "passages of 512 tokens of it", low=1, high=100_000)
    pairs: int = setting(120, "questions about one of two pairs in the context", low=2, high=10_000)
    triviaqa: str | None = setting(None, "file of TriviaQA's questions, to be answered in the model's own words")
    evidence: str | None = setting(None, "folder of its pages, with which they are answered a second time, open book")
    trivia: int = setting(500, "questions of that file to ask, behind those that are shown", low=1, high=1_000_000)
    rules: int = setting(16, "functions to learn in the context", low=2, high=10_000)
    examples: int = setting(16, "examples of a function, an even number", low=2, high=32)
    seeds: int = setting(3, "networks trained at each width and number of facts", low=1, high=1000)
    widths: tuple[int, ...] = setting((16, 32, 64), "widths of the networks, each twice the last", low=4, high=8192)
    facts: tuple[int, ...] = setting(
        (256, 4096), "facts to learn; 16 times fewer than the most are the control", low=3, high=4096
    )
    steps: int = setting(2000, "training steps", low=1, high=10_000_000)
    batch_size: int = setting(32, "rows a step: half of them recalled, half read", low=2, high=100_000)
    learning_rate: float = setting(3e-3, "AdamW's, falling to 0 over the last 0.3 of the steps", low=1e-6, high=1)

    def check(self) -> None:
        if self.language_model and len(set(self.language_model)) < len(self.language_model):
            raise ValueError(f"language_model={self.language_model} is not legal: its models must differ")
        if self.evidence is not None and self.triviaqa is None:
            raise ValueError(f"evidence={self.evidence} is not legal without triviaqa, the file with its questions")
        for name in ("sparsities", "widths", "facts"):
            values = getattr(self, name)
            if list(values) != sorted(set(values)):
                raise ValueError(f"{name}={values} is not legal: it must rise")
        if JUDGED not in self.sparsities:
            raise ValueError(f"sparsities={self.sparsities} is not legal: {JUDGED} must be among them")
        if self.examples % 2:
            raise ValueError(f"examples={self.examples} is not legal: it must be even")
        if any(width % HEADS for width in self.widths):
            legal = f"each must be a multiple of {HEADS}, the number of heads"
            raise ValueError(f"widths={self.widths} is not legal: {legal}")


PRESETS = {
    "smoke": Config(
        language_model=None, seeds=2, widths=(8, 16), facts=(8, 128), steps=20, batch_size=16,
    ),
    "small": Config(),
    "paper": Config(
        language_model=("facebook/opt-1.3b", "facebook/opt-6.7b"), sparsegpt=True, passages=128,
        sparsities=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
        pairs=500, rules=200, facts=(256, 1024, 4096), widths=(16, 32, 64, 128, 256), steps=20_000, batch_size=64,
        learning_rate=1e-3,
    ),
}  # fmt: skip


def plan(config: Config) -> Iterator[lab.Cell]:
    """A cell for each number of facts and width, the widest left out for the control's few facts; the pruned language
    model is not trained."""
    yield from cells(config, range(config.seeds))


def cells(config: Config, seeds: Sequence[int]) -> Iterator[lab.Cell]:
    for facts in config.facts:
        task = tasks.FactRecall(facts=facts, names=16, relations=16)
        control = facts * FEWER <= config.facts[-1] and len(config.widths) > 1
        for width in config.widths[:-1] if control else config.widths:
            yield lab.Cell(
                name=f"trained/facts={facts}/width={width}",
                task=task,
                model=partial(models.Transformer.for_task, d_model=width, n_heads=HEADS, n_layers=2),
                seeds=seeds,
                objective=training.cross_entropy,
                optimiser=training.AdamW(config.learning_rate, betas=(0.9, 0.98)),
                schedule=training.trapezoid(config.steps, warmup=config.steps // 20, decay=0.3),
                steps=config.steps,
                batch_size=config.batch_size,
                settings={"facts": facts, "width": width},
                measure=knowledge(task),
                every=config.steps,
            )


def knowledge(task: Any) -> Any:
    from mesocosm.studies.fact_recall_downscaling import evaluation

    return evaluation.knowledge(task)


def check(config: Config) -> None:
    if config.language_model is not None:
        from mesocosm.seeding import generator
        from mesocosm.studies.fact_recall_downscaling import evaluation

        for name in config.language_model:
            models.check_pretrained(name)
        evaluation.text(config.text, "train").sample(1, generator(0))
        trivia_of(config)


def trivia_of(config: Config) -> "list[Trivia]":
    from mesocosm.studies.fact_recall_downscaling.trivia import read

    return read(config.triviaqa, config.evidence, config.trivia) if config.triviaqa else []


def estimate(config: Config) -> dict[str, float]:
    """Seconds that the answers of each language model take by rule of thumb, in proportion to its parameters."""
    seconds: dict[str, float] = {}
    functions = 2 * config.rules * 6 * (config.examples + 16)
    # A question of TriviaQA has some 25 tokens and its passage 150; answers are short lines.
    read = config.trivia * (25 + (175 if config.evidence else 0)) if config.triviaqa else 0
    written = config.trivia * 8 * (2 if config.evidence else 1) if config.triviaqa else 0
    for name in config.language_model or ():
        speed = TOKENS_READ * PARAMETERS / (models.pretrained_size(name) or PARAMETERS)
        for method, _ in levels(config):
            asked = 2200 + read + written * TOKENS_READ / TOKENS_WRITTEN + 23 * config.pairs
            asked += functions if method in ("dense", "wanda", "sparsegpt") else 0
            pruning = 30 * config.passages * 512 if method == "sparsegpt" else 0
            part = f"{name}, {method}"
            seconds[part] = seconds.get(part, 0) + (asked + pruning) / speed
    return seconds


def run(config: Config, lab: "Lab") -> None:
    for name in config.language_model or ():
        ask_language_model(name, config, lab)
    for cell in plan(config):
        trained = lab.train(cell).population
        size = sum(weights[0].numel() for weights in trained.weights().values())
        sizes = {"parameters": [size] * len(cell.seeds)}
        lab.record(cell.name, sizes, seed=list(cell.seeds), step=cell.steps, **cell.settings)


def ask_language_model(name: str, config: Config, lab: "Lab") -> None:
    """Record every answer of a language model, dense and pruned; the records' seed is the number of the question."""
    from mesocosm.studies.fact_recall_downscaling import evaluation

    calibration = evaluation.Calibration(evaluation.load(name), config.text, config.passages)
    trivia = trivia_of(config)
    for method, sparsity in levels(config):
        ask = partial(evaluation.measure, calibration, method, sparsity, config, trivia)
        for answers, values in lab.remember(f"pruned/{name}/{method}/{sparsity:g}", ask).items():
            cell, _, metric = answers.partition(": ")
            seed = range(len(values))
            lab.record(cell, {metric: values}, seed=seed, model=name, method=method, sparsity=sparsity)


def levels(config: Config) -> Iterator[tuple[str, float]]:
    """Methods of pruning and sparsities: the dense model first, and two methods at one sparsity last."""
    yield "dense", 0.0
    for method in ("wanda", "sparsegpt") if config.sparsegpt else ("wanda",):
        for sparsity in config.sparsities:
            yield method, sparsity
    yield "magnitude", JUDGED
    yield "random", JUDGED


STUDY = lab.Study(
    title="Fact recall and in-context learning under down-scaling",
    paper="T. Jin, N. Clement, X. Dong, V. Nagarajan, M. Carbin, J. Ragan-Kelley, G. K. Dziugaite. The Cost of "
    "Down-Scaling Language Models: Fact Recall Deteriorates before In-Context Learning. 2023. arXiv 2310.04680",
    question="Does a language model that is made smaller, by pruning or by training a smaller one, lose facts stored "
    "in its weights before it loses the use of what is in its context?",
    presets=PRESETS,
    plan=plan,
    run=run,
    check=check,
    estimate=estimate,
    claims=CLAIMS,
    figures=figures,
    departures=(
        "The model is SmolLM2-135M-Instruct instead of OPT and LLaMA of 1.3 to 33 billion parameters. Its weights are "
        "already rounded to four bits; sparsity comes on top.",
        "Claims are judged on Wanda with the dense model's norms of inputs for all layers and 512 tokens of "
        "calibration; SparseGPT, the paper's method, is asked for by --sparsegpt, as the paper preset does.",
        "Claims are judged on two lists of thirty facts, answered among thirty candidates by their first tokens, in "
        "place of TriviaQA and other sets; TriviaQA is asked besides where its file is given.",
        "In place of dense families of pretrained models, small networks of several widths are trained on facts of "
        "known number.",
    ),
)
