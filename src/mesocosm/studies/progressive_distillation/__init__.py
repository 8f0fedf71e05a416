"""Why does a small student learn faster from a teacher's half-trained checkpoints than from the finished teacher?

Source: Panigrahi et al. (2025), Progressive distillation induces an implicit curriculum, arXiv 2410.05464
"""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from mesocosm import lab, training
from mesocosm.settings import setting
from mesocosm.studies.progressive_distillation import evaluation
from mesocosm.studies.progressive_distillation.cells import PARITIES, WAYS, Part, cells_of
from mesocosm.studies.progressive_distillation.claims import CLAIMS
from mesocosm.studies.progressive_distillation.evaluation import NGRAMS
from mesocosm.studies.progressive_distillation.figures import figures
from mesocosm.studies.progressive_distillation.teaching import lessons, syllabus, transition

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from mesocosm.lab.lab import Lab
    from mesocosm.training import Checkpoints, History, Population

TAUGHT = {way for ways in WAYS.values() for way in ways} - {"labels"}


@dataclass(frozen=True, kw_only=True)
class Config(lab.Config):
    """Settings of the study."""

    parts: tuple[Part, ...] = setting(("parity", "hierarchy", "grammar", "text"), "which tasks to learn")
    seeds: int = setting(12, "students of the parity for each way of teaching", low=1, high=200)
    tree_seeds: int = setting(6, "students of the tree of parities for each way of teaching", low=1, high=200)
    teachers: int = setting(4, "teachers of each, and students as wide as they are", low=1, high=100)
    n: int = setting(30, "bits of an input", low=2, high=200)
    k: int = setting(4, "bits of the parity", low=2, high=20)
    n_classes: int = setting(4, "classes of the tree of parities, a power of two", low=2, high=64)
    node_bits: int = setting(3, "bits of each parity in the tree", low=2, high=20)
    teacher_width: int = setting(1000, "hidden units of a parity's teacher", low=1, high=100_000)
    student_width: int = setting(20, "hidden units of a parity's student", low=1, high=100_000)
    tree_student_width: int = setting(50, "hidden units of a student of the tree", low=1, high=100_000)
    steps: int = setting(4000, "training steps on the parity", low=1, high=10**8)
    tree_steps: int = setting(4000, "training steps on the tree of parities", low=1, high=10**8)
    batch_size: int = setting(32, "inputs a step", low=1, high=4096)
    learning_rate: float = setting(0.1, "learning rate on parities", low=0, high=10)
    cosine: bool = setting(False, "let students' learning rate on parities rise for 6 % of the steps and fall to 0")
    tested_inputs: int = setting(4096, "held-out inputs for accuracies on parities", low=2, high=10**6)
    inputs: int = setting(20_000, "inputs for correlations with monomials", low=2, high=10**6)
    token_seeds: int = setting(4, "students on grammar and text for each way of teaching", low=1, high=200)
    levels: int | None = setting(4, "levels of the grammar's rules that are kept, from 1 to 6; all where none", low=1)
    text: str | None = setting(None, "file to read as text; the help pages that come with Python where none")
    length: int = setting(64, "characters of text in a window", low=2, high=1024)
    n_layers: int = setting(2, "layers of transformers", low=1, high=48)
    d_head: int = setting(8, "width of a head", low=1, high=128)
    teacher_heads: int = setting(8, "heads of a teacher", low=1, high=64)
    student_heads: int = setting(2, "heads of a student", low=1, high=64)
    positions: Literal["rotary", "learned"] = setting(
        "rotary", "positions in transformers; rotary ones need an even d_head"
    )
    token_steps: int = setting(600, "training steps on grammar and text", low=1, high=10**8)
    token_batch_size: int = setting(8, "sentences or windows a step", low=1, high=4096)
    token_learning_rate: float = setting(5e-3, "learning rate on grammar and text, falling to 0", low=0, high=1)
    sentences: int = setting(200, "held-out sentences for accuracies and n-grams", low=2, high=10**5)
    checkpoints: int = setting(40, "measurements of a teacher, at which its weights are kept", low=1, high=1000)
    stages: int = setting(8, "checkpoints of the progressive way besides the final one", low=1, high=1000)
    guided: float = setting(0.375, "share of a student's steps before only the final teacher teaches", low=0, high=1)
    temperature: float = setting(1.0, "of a parity's teacher's softmax; 0 gives its likeliest class", low=0, high=100)
    token_temperature: float = setting(1.0, "the same of grammar's and text's teachers", low=0, high=100)

    def check(self) -> None:
        if self.n < 2 * self.k - 1:
            raise ValueError(
                f"k={self.k} is not legal: {self.k - 1} of n={self.n} bits must be left outside the parity"
            )
        if self.n_classes & (self.n_classes - 1):
            raise ValueError(f"n_classes={self.n_classes} is not legal: it must be a power of two")
        if self.n < self.n_classes * self.node_bits - 1:
            raise ValueError(
                f"node_bits={self.node_bits} is not legal: with n_classes={self.n_classes} it needs "
                f"{self.n_classes * self.node_bits - 1} bits, of which {self.node_bits - 1} in no parity; n={self.n}"
            )
        if self.positions == "rotary" and self.d_head % 2:
            raise ValueError(f"d_head={self.d_head} is not legal: rotary positions need an even one")
        if self.levels is not None and self.levels > 6:
            raise ValueError(f"levels={self.levels} is not legal: it must be from 1 to 6")

    def tested(self, task: Any) -> int:
        """Held-out samples for accuracies."""
        return self.sentences if task.tokens else self.tested_inputs


PRESETS = {
    "smoke": Config(
        seeds=3, tree_seeds=2, teachers=2, n=10, k=2, n_classes=4, node_bits=2, teacher_width=32, student_width=8,
        tree_student_width=8, steps=30, tree_steps=30, tested_inputs=256, inputs=512, token_seeds=2, levels=2,
        length=16, n_layers=1, teacher_heads=2, student_heads=1, token_steps=20, token_batch_size=4, sentences=16,
        checkpoints=6, stages=3,
    ),
    "small": Config(),
    "paper": Config(
        seeds=3, tree_seeds=3, teachers=3, n=100, k=6, n_classes=8, node_bits=5, teacher_width=50_000,
        student_width=100, tree_student_width=1000, steps=8_000_000, tree_steps=8_000_000, batch_size=1,
        learning_rate=0.01, cosine=True, token_seeds=3, levels=None, length=256, n_layers=4, teacher_heads=32,
        student_heads=8, token_steps=8000, token_batch_size=512, positions="learned", token_temperature=0.0,
        sentences=4096, checkpoints=80,
    ),
}  # fmt: skip


def plan(config: Config) -> Iterable[lab.Cell]:
    """For each task the teachers, their kind on shuffled strings if there are any, and the students of each way."""
    for part in dict.fromkeys(config.parts):
        teacher, *others = cells_of(config, part)
        unknown = training.stand_in(partial(teacher.model, teacher.task))
        yield replace(teacher, complete=False)
        for cell in others:
            student = cell.settings["arm"] in TAUGHT
            yield replace(taught(config, cell, [unknown]), complete=False) if student else cell


def run(config: Config, lab: "Lab") -> None:
    for part in dict.fromkeys(config.parts):
        teacher, *others = cells_of(config, part)
        path = lab.checkpoint(f"{teacher.name} along training")
        kept = training.Checkpoints(teacher.measure, path and path.with_suffix(""))
        history = lab.train(replace(teacher, measure=kept))
        task: Any = teacher.task
        marks = transition(history.metrics["accuracy"], history.steps, task.chance)
        names = ("begun", "halfway", "done")
        chance = {"chance": [task.chance] * len(teacher.seeds)}
        lab.record(teacher.name, {**dict(zip(names, marks)), **chance}, seed=list(teacher.seeds), **teacher.settings)
        (look_at_parities if part in PARITIES else look_at_tokens)(config, lab, teacher, kept, history)
        for cell in others:
            if cell.settings["arm"] == "shuffled":
                end = lab.train(cell)
                record_ngrams(config, lab, cell, {end.steps[-1]: end.population})
            elif cell.settings["arm"] in TAUGHT:
                lab.train(taught(config, cell, stages_of(config, cell, kept, history, marks)))
            else:
                lab.train(cell)


def stages_of(
    config: Config, cell: lab.Cell, kept: "Checkpoints", teacher: "History", marks: "Tensor"
) -> "list[Population]":
    """The checkpoints that a cell's students learn from. Student i of a parity has teacher i + 1, which shares no seed
    with it."""
    way = cell.settings["arm"].removeprefix("wide ")
    asked = syllabus(way, marks, teacher.steps, config.stages)
    stages = [*(kept.at(teacher.population, steps) for steps in asked), teacher.population]
    own = [(i + 1) % len(teacher.population) for i in range(len(cell.seeds))]
    return stages if cell.stream else [stage.select(own) for stage in stages]


def taught(config: Config, cell: lab.Cell, stages: "Sequence[Population | nn.Module]") -> lab.Cell:
    """A student's cell with its lessons."""
    guided = max(1, round(config.guided * cell.steps))
    if cell.stream:
        stream: Any = training.Shared(lessons(cell.stream.stream, stages, guided, config.token_temperature))
    else:
        online = training.Online(cell.task, cell.batch_size, list(cell.seeds))
        stream = lessons(online, stages, guided, config.temperature)
    return replace(cell, stream=stream, objective=training.distil)


def look_at_parities(config: Config, lab: "Lab", cell: lab.Cell, kept: "Checkpoints", history: "History") -> None:
    """Record what teachers show of the parity's bits along training."""
    evaluate = partial(evaluation.features, config, cell.task, kept, history.population, history.steps)
    found = lab.remember(f"{cell.name}/features", evaluate)
    about: Any = {"seed": list(cell.seeds), **cell.settings}
    for i, step in enumerate(history.steps):
        for level in range(found["on"].shape[2]):
            lab.record(cell.name, {"right turns": found["right turns"][i, :, level]}, step=step, level=level, **about)
            for degree in range(found["on"].shape[3]):
                values = {name: found[name][i, :, level, degree] for name in ("on", "off", "off again")}
                lab.record(cell.name, values, step=step, level=level, degree=degree + 1, **about)


def look_at_tokens(config: Config, lab: "Lab", cell: lab.Cell, kept: "Checkpoints", history: "History") -> None:
    """Record how far the teacher's predictions rest on n-grams along training."""
    steps = sorted({*history.steps[:: max(1, len(history.steps) // 20)], history.steps[-1]})
    record_ngrams(config, lab, cell, {step: kept.at(history.population, [step]) for step in steps})


def record_ngrams(config: Config, lab: "Lab", cell: lab.Cell, stages: "Mapping[int, Population]") -> None:
    """Record the n-gram distances of one network on each sentence, at each step of `stages`."""
    task: Any = cell.task
    held_out = replace(task, split="valid") if hasattr(task, "split") else task
    evaluate = partial(evaluation.ngrams, config, held_out, list(stages.values()))
    found = lab.remember(f"{cell.name}/n-grams", evaluate)
    for (i, step), (j, n) in itertools.product(enumerate(stages), enumerate(NGRAMS)):
        values = {name: table[i, j] for name, table in found.items()}
        seed, sentence = [cell.seeds[0]] * config.sentences, list(range(config.sentences))
        lab.record(cell.name, values, seed=seed, step=step, n=n, sentence=sentence, **cell.settings)


STUDY = lab.Study(
    title="Progressive distillation induces an implicit curriculum",
    paper="A. Panigrahi, B. Liu, S. Malladi, A. Risteski, S. Goel. Progressive Distillation Induces an Implicit "
    "Curriculum. ICLR 2025. arXiv 2410.05464",
    question="Why does a small student learn faster from successive half-trained checkpoints of its teacher than from "
    "labels or from the finished teacher: do these show easier features of the target?",
    presets=PRESETS,
    plan=plan,
    run=run,
    claims=CLAIMS,
    figures=figures,
    departures=(
        "The small preset has a parity of 4 of 30 bits, teachers of width 1,000 and students of width 20, batches of "
        "32 and some thousand steps, and plain SGD at a constant learning rate.",
        "The progressive way spreads its checkpoints evenly over the teacher's transition, from 6 % to 96 % of its "
        "gain in accuracy, and over the first three eighths of the student's steps, where the paper steps through "
        "all checkpoints; those before the transition teach nothing.",
        "Transformers on parities are left out.",
        "The grammar is cut to four of its six levels, and the transformers have two layers, rotary positions, heads "
        "of 8, and 8 heads (teacher) or 2 (students). Students learn from the teacher's probabilities, where the "
        "paper takes its likeliest token (--token-temperature 0). All students of a task see the same batches and "
        "differ in their initial weights.",
        "Of the n-grams those of one and of two neighbours on each side are measured, and the non-terminal probe is "
        "left out.",
        "Text is read by character, from the help pages that come with Python or from any file that --text names, in "
        "place of the King James Bible or of Wikipedia and books by word piece; the paper preset keeps characters.",
    ),
)
