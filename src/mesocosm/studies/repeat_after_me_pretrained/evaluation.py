"""Questions for pretrained language models, and how many of them they answer exactly."""

from functools import lru_cache

import torch
from torch import Tensor

from mesocosm import models, tasks
from mesocosm.models import LanguageModel
from mesocosm.seeding import generator


@lru_cache(maxsize=1)
def _model(name: str) -> LanguageModel:
    return models.load_pretrained(name)


def look_up(name: str, task: tasks.PhoneBook, questions: int) -> dict[str, Tensor]:
    """Whether each number is said exactly, with the whole book and without the line that is asked for, `[P]`."""
    batch = task.sample(questions, generator("phone book", task.entries, task.digits))
    texts = ["".join(task.tokens[token] for token in row) for row in batch.inputs.tolist()]
    asked = [text.rpartition("\n\n")[2] for text in texts]  # "Ada Kim: 6902..."
    prompts = [text.removesuffix(line.partition(":")[2]) for text, line in zip(texts, asked)]
    without = [prompt.replace(line + "\n", "", 1) for prompt, line in zip(prompts, asked)]
    found = {}
    for kind, given in {"exact": prompts, "exact without the line": without}.items():
        said = _model(name).generate(given, 2 * task.digits + 2, stop=["\n"])
        right = [text.strip() == line.partition(": ")[2] for text, line in zip(said, asked)]
        found[kind] = torch.tensor(right).double()
    return found


def copy(name: str, path: str | None, length: int, questions: int) -> dict[str, Tensor]:
    """Whether each passage is repeated exactly, as it stands and with its tokens shuffled, and its loss, `[P]`.

    A prompt has the passage twice and its first word; loss is in nats per byte of the passage by itself.
    """
    model = _model(name)
    texts = passages(model, path, length, questions)
    order = generator("text", "order", length)
    shuffled = []
    for text in texts:
        tokens = torch.tensor(model.encode(text))
        shuffled.append(_plain(model.tokenizer.decode(tokens[torch.randperm(len(tokens), generator=order)])))
    loss = [-log_p.sum() / len(text.encode()) for log_p, text in zip(model.log_probabilities(texts), texts)]
    exact = {"exact": texts, "exact in random order": shuffled}
    return {kind: repeated(model, given) for kind, given in exact.items()} | {"loss": torch.stack(loss).double()}


def repeated(model: LanguageModel, texts: list[str]) -> Tensor:
    """Whether a text that stands in the prompt twice is written a third time from its first word on, `[P]`."""
    firsts = [text.partition(" ")[0] for text in texts]
    prompts = [f"{text}\n\n{text}\n\n{first}" for text, first in zip(texts, firsts)]
    most = max(len(model.encode(text)) for text in texts)
    said = model.generate(prompts, most + 2, stop=["\n\n"])
    return torch.tensor([first + end == text for first, end, text in zip(firsts, said, texts)]).double()


def source(path: str | None, length: int) -> tasks.TextBytes:
    """Windows that hold `length` tokens of any tokenizer, and a word besides."""
    return tasks.TextBytes(path=path, length=16 * length + 32, blocks=20)


def passages(model: LanguageModel, path: str | None, length: int, count: int) -> list[str]:
    """Texts of about `length` tokens from random places, beginning with a word."""
    windows = source(path, length).sample(count, generator("text", "passages", length)).inputs
    texts = []
    for window in windows.tolist():
        words = _plain(bytes(window).decode(errors="ignore")).partition(" ")[2]  # the first may be cut
        texts.append(_plain(model.tokenizer.decode(model.encode(words)[:length])))
    return texts


def _plain(text: str) -> str:
    return " ".join(text.split())
