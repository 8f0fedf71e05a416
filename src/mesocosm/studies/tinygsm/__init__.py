"""Do small language models, trained on a teacher's partly wrong programs, beat it when a small verifier picks?

Source: Liu et al. (2023), TinyGSM: achieving >80% on GSM8k with small language models, arXiv 2312.09241
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mesocosm import lab
from mesocosm.settings import setting
from mesocosm.studies.tinygsm.claims import CLAIMS
from mesocosm.studies.tinygsm.figures import figures

if TYPE_CHECKING:
    from mesocosm.lab.lab import Lab


@dataclass(frozen=True, kw_only=True)
class Config(lab.Config):
    """Settings of the study: of its problems and models, then of generators, of verifiers, and of the test."""

    language_model: str | None = setting(
        None,
        "pretrained model to start from: smollm2-135m, a folder, a .gguf file or a name on the hub; none for "
        "random weights and problems by templates",
    )
    small_language_model: str | None = setting(None, "the small one, of the same tokens")
    gsm8k: str | None = setting(None, "for a language model: folder with train.jsonl and test.jsonl of GSM8K")
    programs: str | None = setting(
        None, "for a language model: file with an object a line that has a question and, as its code, a program"
    )
    seeds: int = setting(5, "seeds of the generators and of their verifiers", low=1, high=1000)
    few: int = setting(2, "seeds of all that they are compared with, at most seeds", low=1, high=1000)
    reported: bool = setting(
        True, "whether to train also what is reported and not judged: two variants of the verifier, and other sizes"
    )
    errors: tuple[float, ...] = setting(
        (0.03, 0.03, 0.6), "the teacher's rates of errors on chains, comparisons and unknown starts", low=0, high=1
    )
    d_model: int = setting(64, "width of generators and verifiers", low=4, high=65_536)
    d_small: int = setting(32, "width of the small ones", low=4, high=65_536)
    layers: int = setting(2, "their layers", low=1, high=1000)
    heads: int = setting(4, "their attention heads", low=1, high=1000)
    steps: int = setting(500, "training steps of a generator", low=4, high=10_000_000)
    batch_size: int = setting(32, "problems a step", low=1, high=100_000)
    micro_batch_size: int | None = setting(None, "problems or candidates read at once; all of a step's if none", low=1)
    learning_rate: float = setting(4e-3, "its learning rate, falling to a twentieth", low=0, high=1)
    warmup: int = setting(100, "steps over which it rises", low=1, high=10_000_000)
    examples: tuple[int, ...] = setting((500, 1000, 2000), "unique examples where they are limited", low=1, high=10**8)
    examples_steps: int = setting(400, "training steps there", low=4, high=10_000_000)
    labelled: int = setting(1500, "problems with known answers, for a verifier", low=1, high=10**7)
    temperature: float = setting(0.7, "temperature of the candidates", low=0.01, high=10)
    verifier_steps: int = setting(400, "training steps of a verifier", low=4, high=10_000_000)
    verifier_batch_size: int = setting(32, "candidates a step", low=1, high=100_000)
    verifier_learning_rate: float = setting(2e-3, "its learning rate, falling to 0", low=0, high=1)
    verifier_warmup: int = setting(20, "steps over which it rises", low=1, high=10_000_000)
    test: int = setting(300, "test problems of a seed", low=3, high=10**6)
    samples: int = setting(16, "candidates for a test problem", low=2, high=1024)

    def check(self) -> None:
        if len(self.errors) != 3:
            raise ValueError(f"errors={self.errors} is not legal: it must hold 3 rates, one a family")
        if self.few > self.seeds:
            raise ValueError(f"few={self.few} is not legal: it must be at most seeds={self.seeds}")
        for name in ("gsm8k", "programs"):
            if self.language_model is None and getattr(self, name) is not None:
                raise ValueError(f"{name}={getattr(self, name)!r} is not legal without a language model to read it")
        for name in ("d_model", "d_small"):
            if self.language_model is None and getattr(self, name) % (2 * self.heads):
                raise ValueError(f"{name}={getattr(self, name)} is not legal: a multiple of 2 heads={2 * self.heads}")
        if self.language_model is not None and self.reported and self.small_language_model is None:
            raise ValueError("small_language_model=None is not legal with a language model: name one, or report less")
        least = min(self.steps, self.examples_steps)
        for name, steps in (("warmup", least), ("verifier_warmup", self.verifier_steps)):
            if getattr(self, name) > steps:
                raise ValueError(f"{name}={getattr(self, name)} is not legal: it must be at most {steps} steps")
        if len(self.examples) < 2 or list(self.examples) != sorted(set(self.examples)):
            raise ValueError(f"examples={self.examples} is not legal: it must hold at least two rising numbers")
        if self.batch_size > self.examples[-1]:
            raise ValueError(f"batch_size={self.batch_size} is not legal: at most the largest of examples")
        if self.verifier_batch_size > self.labelled:
            raise ValueError(f"verifier_batch_size={self.verifier_batch_size} is not legal: at most labelled")


PRESETS = {
    "smoke": Config(
        seeds=2, few=2, d_model=16, d_small=8, layers=1, heads=2, steps=8, batch_size=8, warmup=2, examples=(8, 16),
        examples_steps=8, labelled=16, verifier_steps=8, verifier_batch_size=8, verifier_warmup=2, test=6, samples=4,
    ),
    "small": Config(reported=False),
    "paper": Config(
        language_model="HuggingFaceTB/SmolLM2-360M", small_language_model="HuggingFaceTB/SmolLM2-135M",
        seeds=3, d_model=960, d_small=576, layers=32, steps=20_000, batch_size=1024, micro_batch_size=16,
        learning_rate=1e-4, warmup=1000, examples=(31_250, 62_500, 500_000, 1_000_000),
        examples_steps=20_000, labelled=7473, verifier_steps=2000,
        verifier_batch_size=256, verifier_learning_rate=1e-4, verifier_warmup=100, test=1319, samples=48,
    ),
}  # fmt: skip


def plan(config: Config) -> Iterable[lab.Cell]:
    """Generators, and verifiers with the teacher's programs in place of candidates, which `run` puts in."""
    from mesocosm.studies.tinygsm.cells import all_cells

    return all_cells(config)


def check(config: Config) -> None:
    from mesocosm import models, sandbox

    sandbox.execute("result = 1")
    for name in (config.language_model, config.small_language_model):
        if name is not None:
            models.check_pretrained(name)
    if config.language_model is not None:
        from mesocosm.studies.tinygsm.written import read_files

        read_files(config, most=config.examples[-1])


def run(config: Config, lab: "Lab") -> None:
    from mesocosm.studies.tinygsm.experiment import Experiment

    Experiment(config, lab).run()


STUDY = lab.Study(
    title="Small generators, a small verifier, and a teacher who errs",
    paper="B. Liu, S. Bubeck, R. Eldan, J. Kulkarni, Y. Li, A. Nguyen, R. Ward, Y. Zhang. TinyGSM: achieving >80% on "
    "GSM8k with small language models. MATH-AI workshop, NeurIPS 2023. arXiv 2312.09241",
    question="Can small generators that learned from a teacher's partly wrong programs alone beat that teacher, when a "
    "verifier, trained on problems with known answers, picks among many executed programs?",
    presets=PRESETS,
    plan=plan,
    run=run,
    check=check,
    claims=CLAIMS,
    figures=figures,
    departures=(
        "In smoke and small, problems are made by templates, and the teacher's errors by a rule that matches the "
        "accuracy of GPT-3.5 on GSM8K, 77 %; generators start from random weights, and read words and digits from a "
        "vocabulary of 77 tokens.",
        "In paper, generators start from SmolLM2 of 362 or 135 million parameters, and the teacher's accuracy is "
        "the paper's own figure; independent errors and single families are left out, and with them two controls.",
        "Candidates have one temperature; those for training a verifier come from three checkpoints of its generator, "
        "those for the test from the last.",
        "Sizes of generator and verifier are crossed at two widths, and that claim is reported without a verdict.",
    ),
)
