"""Tokens per second of SmolLM2-135M, scored and written, against plain calls of transformers.

    python benchmarks/language_models.py [--blocks 3] [--threads 1]

Each block does every piece of work once in turn, in all ways; medians over blocks with the smallest and largest.
Tokens are those of the texts, whether or not they had to be read: a shared beginning counts once for each text.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from mesocosm.models import LanguageModel, load_pretrained

RULES = "You stand before three buttons: blue, green and red. Each pays a point with a chance of its own. " * 6
LABELS = [" blue", " green", " red"]
PROMPTS = 6
NEW = 24


def one_by_one(model: LanguageModel, prompts: list[str], labels: list[str]) -> None:
    for prompt in prompts:
        for label in labels:
            tokens = torch.tensor([model.encode(prompt + label)])
            with torch.no_grad():
                model.module(tokens).logits.log_softmax(-1)


def in_batches(model: LanguageModel, prompts: list[str], labels: list[str]) -> None:
    """As transformers pads, without sharing: one row for each prompt and label."""
    model.tokenizer.padding_side = "left"
    texts = [prompt + label for prompt in prompts for label in labels]
    batch = model.tokenizer(texts, return_tensors="pt", padding=True)
    with torch.no_grad():
        model.module(**batch, logits_to_keep=2).logits.log_softmax(-1)


def their_generate(model: LanguageModel, prompts: list[str]) -> None:
    model.tokenizer.padding_side = "left"
    batch = model.tokenizer(prompts, return_tensors="pt", padding=True)
    model.module.generate(**batch, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    began = time.perf_counter()
    model = load_pretrained()
    print(f"loaded in {time.perf_counter() - began:.1f} s (the first time converts)\n")
    shared = [f"{RULES} Round {n}: you pressed red {n} times and won {n // 2}. Next:" for n in range(PROMPTS)]
    apart = [f"{n} {RULES[: 80 * (n + 4)]} Next:" for n in range(PROMPTS)]
    texts = [RULES, RULES[50:400], RULES[100:500]]
    count = lambda texts: sum(len(model.encode(text)) for text in texts)
    work: dict[str, tuple[int, dict[str, Callable[[], object]]]] = {
        f"3 labels behind {PROMPTS} prompts that share their beginning": (
            3 * count(shared),
            {
                "score": lambda: model.score(shared, LABELS),
                "padded batch": lambda: in_batches(model, shared, LABELS),
                "one by one": lambda: one_by_one(model, shared, LABELS),
            },
        ),
        f"3 labels behind {PROMPTS} prompts that share nothing": (
            3 * count(apart),
            {
                "score": lambda: model.score(apart, LABELS),
                "padded batch": lambda: in_batches(model, apart, LABELS),
                "one by one": lambda: one_by_one(model, apart, LABELS),
            },
        ),
        "all tokens of 3 texts": (
            count(texts),
            {
                "log_probabilities": lambda: model.log_probabilities(texts),
                "one by one": lambda: one_by_one(model, texts, [""]),
            },
        ),
        f"{NEW} new tokens behind each of {PROMPTS} prompts": (
            PROMPTS * NEW,
            {
                "generate": lambda: model.generate(shared, NEW),
                "generate of transformers": lambda: their_generate(model, shared),
            },
        ),
    }
    seconds: dict[tuple[str, str], list[float]] = {}
    for _ in range(options.blocks):
        for name, (_tokens, ways) in work.items():
            for way, call in ways.items():
                began = time.perf_counter()
                call()
                seconds.setdefault((name, way), []).append(time.perf_counter() - began)
    print("| work | way | tokens/s |\n| --- | --- | --- |")
    for (name, way), taken in seconds.items():
        rate = lambda seconds: work[name][0] / seconds  # noqa: B023
        low, middle, high = rate(max(taken)), rate(statistics.median(taken)), rate(min(taken))
        print(f"| {name} | {way} | {middle:.0f} [{low:.0f}, {high:.0f}] |")


if __name__ == "__main__":
    main()
