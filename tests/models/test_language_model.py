"""Scores and generated texts against plain forward passes of one text at a time, whatever the batch and the cache."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mesocosm.models import LanguageModel
from mesocosm.models._reading import CachedRows, WholeRows
from mesocosm.seeding import generator

INSTRUCTIONS = "press the red button or the blue button, and think of the capital of France all the time. "
PROMPTS = [
    "the capital of France is",
    "press",
    INSTRUCTIONS + "Now the",
    INSTRUCTIONS + "Now the capital of Spain is a",
    INSTRUCTIONS,
]
CANDIDATES = [" Paris", " Madrid the", " button", " x"]
FAMILIES = ["llama", "gpt2", "mistral", "bloom", "mamba"]


@pytest.fixture
def make(make_module: Callable[..., Any], tokenizer: Any) -> Callable[..., LanguageModel]:
    def make(family: str = "llama", batch_tokens: int = 8192, **changes: Any) -> LanguageModel:
        return LanguageModel(make_module(family, **changes), tokenizer, batch_tokens=batch_tokens)

    return make


@pytest.fixture
def model(make: Callable[..., LanguageModel]) -> LanguageModel:
    return make()


def plain(model: LanguageModel, prompt: str | list[int], text: str) -> Tensor:
    """log p of the tokens of `text`, by one forward pass of one row without cache or mask."""
    before = model.encode(prompt)
    row = model.encode(prompt + text) if isinstance(prompt, str) else before + model.encode(text)
    with torch.no_grad():
        log_p = model.module(torch.tensor([row])).logits[0].log_softmax(-1)
    return torch.stack([log_p[t - 1, row[t]] for t in range(len(before), len(row))])


def written(model: LanguageModel, prompt: str, count: int) -> list[int]:
    row = model.encode(prompt)
    for _ in range(count):
        with torch.no_grad():
            row.append(int(model.module(torch.tensor([row])).logits[0, -1].argmax()))
        if row[-1] == model.tokenizer.eos_token_id:
            break
    return row[len(model.encode(prompt)) :]


def decoded(model: LanguageModel, prompt: str, tokens: list[int]) -> str:
    return model.tokenizer.decode(model.encode(prompt) + tokens, skip_special_tokens=True)[len(prompt) :]


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_sums_of_plain_forward_passes(make: Callable[..., LanguageModel], family: str) -> None:
    model = make(family)
    expected = torch.stack([torch.stack([plain(model, p, c).sum() for c in CANDIDATES]) for p in PROMPTS])
    torch.testing.assert_close(model.score(PROMPTS, CANDIDATES), expected, rtol=0, atol=1e-4)
    one_by_one = torch.cat([model.score([prompt], CANDIDATES) for prompt in PROMPTS])
    torch.testing.assert_close(one_by_one, expected, rtol=0, atol=1e-4)
    cut = make(family, batch_tokens=40)
    torch.testing.assert_close(cut.score(PROMPTS, CANDIDATES), expected, rtol=0, atol=1e-4)
    assert expected.std(0).min() > 0.1  # the prompts matter


def test_what_prompts_begin_with_is_read_once(model: LanguageModel) -> None:
    read = []
    model.module.register_forward_hook(lambda module, inputs, output: read.append(inputs[0].shape))
    prompts = [INSTRUCTIONS + end for end in ("the red", "the blue one", "Spain")]
    rows = [model.encode(prompt) for prompt in prompts]
    shared = next(t for t, tokens in enumerate(zip(*rows)) if len(set(tokens)) > 1)
    model.score(prompts, ["x"])
    assert read == [(1, shared), (3, max(map(len, rows)) - shared)]


def test_single_tokens_are_scored_without_reading_them(model: LanguageModel) -> None:
    read = []
    model.module.register_forward_hook(lambda module, inputs, output: read.append(tuple(inputs[0].shape)))
    firsts = [model.encode(candidate)[:1] for candidate in CANDIDATES]
    scores = model.score(["the capital of"], firsts)
    assert read == [(1, len(model.encode("the capital of")))]
    log_p = model.module(torch.tensor([model.encode("the capital of")])).logits[0, -1].log_softmax(-1)
    torch.testing.assert_close(scores[0], log_p[[f[0] for f in firsts]])


def test_the_next_tokens_of_a_prompt_have_probability_one(model: LanguageModel) -> None:
    everything = [[token] for token in range(len(model.tokenizer))]
    scores = model.score(PROMPTS, everything)
    torch.testing.assert_close(scores.logsumexp(-1), torch.zeros(len(PROMPTS)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_at_some_places_are_those_of_a_whole_pass(make: Callable[..., LanguageModel], family: str) -> None:
    model = make(family)
    rows = torch.randint(len(model.tokenizer), (3, 12), generator=torch.Generator().manual_seed(0))
    places = torch.tensor([[0, 5], [7, 7], [11, 3]])
    with torch.no_grad():
        whole = model.module(rows).logits
    found = model.logits(rows, places)
    torch.testing.assert_close(found, whole[torch.arange(3)[:, None], places], rtol=0, atol=1e-5)
    assert not found.requires_grad


@pytest.mark.parametrize("family", FAMILIES)
def test_log_probabilities_obey_the_chain_rule(make: Callable[..., LanguageModel], family: str, monkeypatch) -> None:
    model = make(family)
    texts = [INSTRUCTIONS * 2, "the capital", "Madrid button"]
    whole = model.log_probabilities(texts)
    for text, log_p in zip(texts, whole):
        tokens = model.encode(text)
        assert len(log_p) == len(tokens) - 1
        for cut in (1, len(tokens) // 2, len(tokens) - 1):
            (after,) = model.log_probabilities([tokens[cut:]], [tokens[:cut]])
            torch.testing.assert_close(after, log_p[cut - 1 :], rtol=0, atol=1e-4)
        direct = model.module(torch.tensor([tokens])).logits[0, :-1].log_softmax(-1)
        torch.testing.assert_close(log_p, direct.gather(1, torch.tensor(tokens)[1:, None])[:, 0], rtol=0, atol=1e-4)
    monkeypatch.setattr("mesocosm.models._reading.LOGITS_AT_ONCE", 12 * len(model.tokenizer))  # pieces of 4 tokens
    for one, other in zip(model.log_probabilities(texts), whole):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-4)


def test_continuations_of_prompts_are_scored_token_by_token(model: LanguageModel) -> None:
    texts = [" Paris the capital", " the blue", " of", " x y z", "press"]
    for prompt, text, log_p in zip(PROMPTS, texts, model.log_probabilities(texts, PROMPTS)):
        torch.testing.assert_close(log_p, plain(model, prompt, text), rtol=0, atol=1e-4)


def test_weights_may_be_changed_in_place(model: LanguageModel) -> None:
    before = model.score(PROMPTS, CANDIDATES)
    with torch.no_grad():
        model.module.model.layers[1].mlp.down_proj.weight.zero_()
    after = model.score(PROMPTS, CANDIDATES)
    assert (after - before).abs().min() > 1e-3
    torch.testing.assert_close(after[0, 0], plain(model, PROMPTS[0], CANDIDATES[0]).sum(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_likeliest_text_is_that_of_a_plain_loop(make: Callable[..., LanguageModel], family: str) -> None:
    model = make(family)
    expected = [decoded(model, prompt, written(model, prompt, 12)) for prompt in PROMPTS]
    assert model.generate(PROMPTS, 12) == expected
    assert make(family, batch_tokens=40).generate(PROMPTS, 12) == expected
    assert len(set(expected)) > 2


def test_writing_ends_at_the_end_of_text_and_at_stop_strings(make: Callable[..., LanguageModel]) -> None:
    model = make()
    (text,) = model.generate(PROMPTS[:1], 40)
    stop = text[9:12]
    for stops in ([stop, "absent"], [stop, stop[1:]], [stop[1:], stop]):
        assert model.generate(PROMPTS[:1], 40, stop=stops) == [text[: text.index(stop)]]
    tokens = written(model, PROMPTS[0], 40)
    end = next(t for t in range(3, 40) if tokens[t] not in tokens[:t])
    model.module.generation_config.eos_token_id = [0, tokens[end]]
    assert model.generate(PROMPTS[:1], 40) == [decoded(model, PROMPTS[0], tokens[:end])]
    read = []
    model.module.register_forward_hook(lambda *_: read.append(1))
    model.generate(PROMPTS[:1], 40)
    assert len(read) == end + 1  # nothing is read behind the end


def test_samples_depend_on_their_seed_and_not_on_their_company(model: LanguageModel) -> None:
    options: dict[str, Any] = {"temperature": 2.0}
    together = model.generate(PROMPTS * 2, 8, seeds=range(10), **options)
    alone = [model.generate([prompt], 8, seeds=[s], **options)[0] for s, prompt in enumerate(PROMPTS * 2)]
    assert together == alone
    assert len(set(together)) == 10


def test_samples_have_the_model_s_distribution(model: LanguageModel) -> None:
    temperature, count = 3.0, 2000
    row = model.encode("the capital of")
    p = (model.module(torch.tensor([row])).logits[0, -1] / temperature).softmax(-1).double()
    drawn = torch.stack([torch.rand(1, generator=generator(s, "generate"))[0] for s in range(count)]).double()
    expected = torch.searchsorted(p.cumsum(0), drawn, right=True)
    texts = model.generate([row] * count, 1, temperature=temperature, seeds=range(count))
    decoded = [model._text(row, [t] if t != 0 else []) for t in expected.tolist()]
    assert sum(a == b for a, b in zip(texts, decoded)) >= count - 2  # rounding may move a border


def test_a_conversation_is_written_in_the_format_of_the_model(model: LanguageModel) -> None:
    question = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "who?"}]
    text = "<|start|>system\nbe brief<|end|>\n<|start|>user\nwho?<|end|>\n<|start|>assistant\n"
    assert model.chat(question) == model.encode(text)
    begun = [*question, {"role": "assistant", "content": "<Answer> I"}]
    assert model.chat(begun) == model.encode(text + "<Answer> I")
    assert model.complete([question, begun], 5) == model.generate([text, text + "<Answer> I"], 5)
    torch.testing.assert_close(model.score([model.chat(begun)], [" x"]), model.score([text + "<Answer> I"], [" x"]))


@pytest.mark.parametrize(
    ("family", "changes", "expected"),
    [
        ("llama", {}, CachedRows),
        ("gpt2", {}, CachedRows),
        ("mistral", {"sliding_window": None}, CachedRows),
        ("mistral", {"sliding_window": 4}, WholeRows),  # padding would count as distance
        ("bloom", {}, WholeRows),  # takes no positions
        ("mamba", {}, WholeRows),  # remembers a state
    ],
)
def test_only_plain_caches_are_used(make: Callable[..., LanguageModel], family, changes, expected) -> None:
    model = make(family, **changes)
    assert model._reader is expected
    expected_score = plain(model, PROMPTS[3], CANDIDATES[1]).sum()
    torch.testing.assert_close(model.score(PROMPTS, CANDIDATES)[3, 1], expected_score, rtol=0, atol=1e-4)


def test_a_token_at_the_beginning_of_texts_is_put_there_once(make_module, tokenizer) -> None:
    import copy

    from tokenizers.processors import TemplateProcessing

    with_start = copy.deepcopy(tokenizer)
    start = with_start.convert_tokens_to_ids("<|start|>")
    with_start.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|start|> $A", pair="<|start|> $A $B", special_tokens=[("<|start|>", start)]
    )
    model = LanguageModel(make_module(), with_start)
    assert model.encode("Paris")[0] == start
    tokens = [start, *tokenizer.encode("the capital"), *tokenizer.encode(" Paris")]
    log_p = model.module(torch.tensor([tokens])).logits[0].log_softmax(-1)
    count = len(tokenizer.encode(" Paris"))
    by_hand = sum(log_p[t - 1, tokens[t]] for t in range(len(tokens) - count, len(tokens)))
    torch.testing.assert_close(model.score(["the capital"], [" Paris"])[0, 0], by_hand, rtol=0, atol=1e-4)
    assert model.chat([{"role": "user", "content": "a"}]).count(start) == 2  # the template's own
    assert model.score([""], ["Paris"]).isfinite().all()
    assert model.score([model.chat([{"role": "user", "content": "a"}])], ["Paris"]).isfinite().all()


def test_nothing_is_asked_of_no_texts(model: LanguageModel) -> None:
    assert model.score([], CANDIDATES).shape == (0, 4)
    assert model.score(PROMPTS, []).shape == (5, 0)
    assert model.generate([], 3) == []
    assert model.log_probabilities([]) == []


def test_bad_arguments_are_refused(model: LanguageModel, make_module, tokenizer) -> None:
    def refuses(message: str, ask: Callable[[], Any]) -> None:
        with pytest.raises(ValueError, match=message):
            ask()

    refuses("batch_tokens=0 is not legal", lambda: LanguageModel(make_module(), tokenizer, batch_tokens=0))
    refuses("a prompt without tokens is not legal", lambda: model.score([""], ["x"]))
    refuses("a text without tokens cannot be scored", lambda: model.score(["the"], [""]))
    refuses("a text without tokens cannot be scored", lambda: model.log_probabilities([[3]]))
    refuses("melts with its prompt, which ends in 'the capital '", lambda: model.score(["the capital "], ["of"]))
    refuses(r"250 \+ 7 tokens are more than the 256", lambda: model.generate([[5] * 250], 7))
    refuses(r"250 \+ 7 tokens are more than the 256", lambda: model.score([[5] * 250], [[5] * 7]))
    refuses("1 prompts are not legal: there must be as many as texts, 2", lambda: model.log_probabilities("ab", ["a"]))
    refuses("max_tokens=0 is not legal", lambda: model.generate(["a"], 0))
    refuses("stop='x' is not legal: it must be a list", lambda: model.generate(["a"], 1, stop="x"))
    refuses("temperature=-1 is not legal", lambda: model.generate(["a"], 1, temperature=-1))
    refuses("temperature=nan is not legal", lambda: model.generate(["a"], 1, temperature=math.nan))
    refuses("None seeds are not legal: temperature=1 needs one", lambda: model.generate(["a"], 1, temperature=1))
    refuses("2 seeds are not legal", lambda: model.generate(["a"], 1, temperature=1, seeds=[1, 2]))
    refuses(r"messages=\[\] is not legal", lambda: model.complete([[]], 1))
    refuses("messages=.* is not legal: it must be a list", lambda: model.chat([{"role": "tool", "content": "a"}]))
    tokenizer.chat_template, template = None, tokenizer.chat_template
    try:
        refuses("this model has no chat format", lambda: model.complete([[{"role": "user", "content": "a"}]], 1))
    finally:
        tokenizer.chat_template = template
