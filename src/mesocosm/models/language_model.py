"""Pretrained causal language models: scores, generation and chat, many texts at a time."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from mesocosm.models._checks import check_at_least
from mesocosm.models._reading import logits_at, pieces_of, reader
from mesocosm.models.decoding import _sample
from mesocosm.seeding import generator

__all__ = ["LanguageModel"]

Text = str | Sequence[int]
"""A text, or its tokens."""
Conversation = Sequence[dict[str, str]]
"""Messages `{"role": "system" | "user" | "assistant", "content": ...}`."""


class LanguageModel:
    """A causal language model of transformers with its tokenizer: scores of texts, generation and chat, in batches.

    What all texts of a batch begin with (instructions, say) is read once for the batch, and a prompt once for all its
    answers. Nothing is remembered between calls, so the weights of `module` may be changed in place. Texts may be given
    as strings or as tokens; a string gets the special tokens that the tokenizer puts around texts.

    Args:
        module: a causal model of transformers; it is put into evaluation mode.
        tokenizer: its tokenizer.
        batch_tokens: tokens that are held in memory at a time; longer work is cut into batches.

    Raises:
        ValueError: for an illegal batch_tokens.
    """

    def __init__(self, module: Any, tokenizer: Any, *, batch_tokens: int = 8192) -> None:
        check_at_least(1, batch_tokens=batch_tokens)
        self.module = module.eval()
        self.tokenizer = tokenizer
        self.batch_tokens = batch_tokens
        self._reader = reader(module)

    def encode(self, text: Text) -> list[int]:
        """Tokens of a text."""
        return self.tokenizer.encode(text) if isinstance(text, str) else list(text)

    def chat(self, messages: Conversation) -> list[int]:
        """Tokens of a conversation in the model's own format, up to where the assistant's reply begins.

        A last message of the assistant is the beginning of the reply, to be written on.

        Raises:
            ValueError: for a model without a chat format, or malformed messages.
        """
        if not self.tokenizer.chat_template:
            raise ValueError("this model has no chat format: give it plain prompts")
        check_messages(messages)
        begun = messages[-1]["role"] == "assistant"
        return self.tokenizer.apply_chat_template(
            list(messages), add_generation_prompt=not begun, continue_final_message=begun, return_dict=False
        )

    def log_probabilities(self, texts: Sequence[Text], prompts: Sequence[Text] | None = None) -> list[Tensor]:
        """log p in nats `[T]` of each token of each text, given its prompt and the text's tokens before it.

        Without prompts the first token of a text is its prompt, so that there are T - 1 numbers.

        Raises:
            ValueError: for texts without tokens, too long for the model, or melting with their prompt.
        """
        if prompts is None:
            tokens = [self.encode(text) for text in texts]
            pairs = [(row[:1], row[1:]) for row in tokens]
        else:
            _check_one_each(prompts=prompts, texts=texts)
            pairs = [(self.encode(prompt), self._after(prompt, text)) for prompt, text in zip(prompts, texts)]
        return [answers[0] for answers in self._read([(prompt, [text]) for prompt, text in pairs])]

    def score(self, prompts: Sequence[Text], candidates: Sequence[Text]) -> Tensor:
        """log p(candidate | prompt) `[B, K]` in nats, summed over the candidate's tokens.

        Give a candidate the space before it (" Paris"), not the prompt.

        Raises:
            ValueError: for texts without tokens, too long for the model, or melting with their prompt.
        """
        pairs = [(self.encode(prompt), [self._after(prompt, c) for c in candidates]) for prompt in prompts]
        if not pairs or not candidates:
            return torch.zeros(len(pairs), len(candidates))
        return torch.stack([torch.stack([log_p.sum() for log_p in answers]) for answers in self._read(pairs)])

    @torch.no_grad()
    def logits(self, tokens: Tensor, places: Tensor) -> Tensor:
        """Logits `[B, P, V]` after the tokens at `places` `[B, P]` of rows `[B, T]`; rows may be padded behind."""
        device = self.module.device
        return logits_at(self.module, tokens.to(device), places.to(device))

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[Text],
        max_tokens: int,
        *,
        stop: Sequence[str] = (),
        temperature: float = 0.0,
        seeds: Sequence[int] | None = None,
    ) -> list[str]:
        """What the model writes after each prompt, until its end of text, `max_tokens` or a stop string.

        Args:
            stop: texts that end the writing; what comes before is kept.
            temperature: the likeliest token when 0, else a sample of softmax(logits / temperature).
            seeds: one for each prompt, for sampling; the same prompt and seed give the same text in any company, as
                far as rounding allows.

        Raises:
            ValueError: for illegal arguments, or prompts without tokens or too long for the model.
        """
        check_sampling(len(prompts), max_tokens, stop, temperature, seeds)
        rows = [self.encode(prompt) for prompt in prompts]
        texts = [""] * len(rows)
        for batch in self._batches([self._checked(row, max_tokens) for row in rows]):
            uniform = None
            if seeds is not None and temperature > 0:
                draws = [torch.rand(max_tokens, generator=generator(seeds[i], "generate")) for i in batch]
                uniform = torch.stack(draws).to(self.module.device, torch.float64)
            written = self._write([rows[i] for i in batch], max_tokens, stop, temperature, uniform)
            for i, text in zip(batch, written):
                texts[i] = text
        return texts

    def complete(
        self,
        conversations: Sequence[Conversation],
        max_tokens: int,
        *,
        stop: Sequence[str] = (),
        temperature: float = 0.0,
        seeds: Sequence[int] | None = None,
    ) -> list[str]:
        """The assistant's next message in each conversation; see `generate`.

        Raises:
            ValueError: for illegal arguments, or a model without a chat format.
        """
        prompts = [self.chat(messages) for messages in conversations]
        return self.generate(prompts, max_tokens, stop=stop, temperature=temperature, seeds=seeds)

    def _write(
        self, rows: list[list[int]], max_tokens: int, stop: Sequence[str], temperature: float, uniform: Tensor | None
    ) -> list[str]:
        read = self._reader(self.module, rows)
        logits = read.last
        written: list[list[int]] = [[] for _ in rows]
        texts: dict[int, str] = {}
        for t in range(max_tokens):
            new = logits.argmax(-1) if uniform is None else _sample(logits.double() / temperature, uniform[:, t])
            for i, token in enumerate(new.tolist()):
                if i not in texts and token not in self._ends:
                    written[i].append(token)
                if i not in texts and (token in self._ends or stop):
                    text = self._text(rows[i], written[i])
                    found = [text.index(s) for s in stop if s in text]
                    if found or token in self._ends:
                        texts[i] = text[: min(found, default=None)]
            if len(texts) == len(rows) or t == max_tokens - 1:
                break
            logits = read.append(new[:, None])[:, -1]
        return [texts[i] if i in texts else self._text(rows[i], written[i]) for i in range(len(rows))]

    @property
    def _ends(self) -> set[int]:
        ends = self.module.generation_config.eos_token_id
        return {self.tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}

    def _text(self, prompt: list[int], written: list[int]) -> str:
        """Decoded behind the prompt, because some tokenizers drop the space at the beginning of a text."""
        options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
        before = self.tokenizer.decode(prompt, **options)
        return self.tokenizer.decode(prompt + written, **options)[len(before) :]

    @torch.no_grad()
    def _read(self, pairs: list[tuple[list[int], list[list[int]]]]) -> list[list[Tensor]]:
        """log p of the tokens of each continuation of each prompt; all prompts have the same number of them."""
        for prompt, continuations in pairs:
            for continuation in continuations:
                self._checked(prompt, len(continuation))
                if not continuation:
                    raise ValueError("a text without tokens cannot be scored: without a prompt it needs two")
        held = [len(prompt) if _single(answers) else sum(len(prompt + a) for a in answers) for prompt, answers in pairs]
        found: list[list[Tensor]] = [[] for _ in pairs]
        for batch in self._batches(held, spread=1.3):
            k = len(pairs[batch[0]][1])
            rows = self._continue([pairs[i][0] for i in batch], [answer for i in batch for answer in pairs[i][1]])
            for n, i in enumerate(batch):
                found[i] = rows[n * k : (n + 1) * k]
        return found

    def _continue(self, prompts: list[list[int]], answers: list[list[int]]) -> list[Tensor]:
        read = self._reader(self.module, prompts)
        longest = max(map(len, answers))
        padded = torch.tensor([a + [0] * (longest - len(a)) for a in answers], device=self.module.device)
        first = padded[:, 0].view(len(prompts), -1)
        log_p = [read.last.log_softmax(-1).gather(1, first).view(-1, 1)]
        if longest > 1:
            read.repeat(first.shape[1])
        for piece, following in zip(
            padded[:, :-1].split(pieces_of(self.module, len(answers)), 1),
            padded[:, 1:].split(pieces_of(self.module, len(answers)), 1),
        ):
            if piece.shape[1]:
                logits = read.append(piece)
                log_p.append(logits.gather(-1, following[..., None])[..., 0] - logits.logsumexp(-1))
        return [row[: len(answer)] for row, answer in zip(torch.cat(log_p, 1).cpu(), answers)]

    def _after(self, prompt: Text, text: Text) -> list[int]:
        """Tokens of a text that stands behind a prompt."""
        if not isinstance(text, str):
            return list(text)
        if not isinstance(prompt, str):
            return self.tokenizer.encode(text, add_special_tokens=False)
        before, whole = self.encode(prompt), self.encode(prompt + text)
        if whole[: len(before)] != before:
            raise ValueError(
                f"the text {text[:40]!r} melts with its prompt, which ends in {prompt[-20:]!r}, into other tokens: put "
                "the space between them at the beginning of the text"
            )
        return whole[len(before) :]

    def _checked(self, prompt: list[int], more: int) -> int:
        """Length of a prompt and the tokens behind it."""
        if not prompt:
            raise ValueError("a prompt without tokens is not legal: this tokenizer adds no token at the beginning")
        context = getattr(self.module.config.get_text_config(), "max_position_embeddings", None)
        if context and len(prompt) + more > context:
            raise ValueError(f"{len(prompt)} + {more} tokens are more than the {context} that this model can read")
        return len(prompt) + more

    def _batches(self, held: list[int], spread: float = math.inf) -> Iterator[list[int]]:
        """Indices by rising number of tokens held, `batch_tokens` at a time, the most at most `spread` the fewest."""
        batch: list[int] = []
        for i in sorted(range(len(held)), key=held.__getitem__):
            full = (len(batch) + 1) * held[i] > self.batch_tokens
            if batch and (full or held[i] > spread * held[batch[0]]):
                yield batch
                batch = []
            batch.append(i)
        if batch:
            yield batch


def check_sampling(
    count: int, max_tokens: int, stop: Sequence[str], temperature: float, seeds: Sequence[int] | None
) -> None:
    """Arguments of `complete`, for every backend."""
    check_at_least(1, max_tokens=max_tokens)
    if isinstance(stop, str) or not all(stop):
        raise ValueError(f"stop={stop!r} is not legal: it must be a list of texts, none of them empty")
    if not temperature >= 0:
        raise ValueError(f"temperature={temperature!r} is not legal: it must be a number, at least 0")
    given = None if seeds is None else len(seeds)
    if given != count and (temperature > 0 or seeds is not None):
        raise ValueError(
            f"{given} seeds are not legal: temperature={temperature} needs one for each of {count} prompts"
        )


def check_messages(messages: Conversation) -> None:
    """A conversation, for every backend."""
    roles = ("system", "user", "assistant")
    sound = [m.get("role") in roles and isinstance(m.get("content"), str) for m in messages]
    if not sound or not all(sound):
        raise ValueError(
            f"messages={messages!r} is not legal: it must be a list of one or more "
            '{"role": "system" | "user" | "assistant", "content": text}'
        )


def _check_one_each(**lists: Sequence[Any]) -> None:
    (a, first), (b, second) = lists.items()
    if len(first) != len(second):
        raise ValueError(f"{len(first)} {a} are not legal: there must be as many as {b}, {len(second)}")


def _single(answers: list[list[int]]) -> bool:
    return all(len(answer) == 1 for answer in answers)
