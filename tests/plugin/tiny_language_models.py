"""Tiny random language models of transformers, with a tokenizer learned in the test."""

import pytest
import torch

CHAT = (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
TEXTS = ["the capital of France is Paris", "the capital of Spain is Madrid", "press the red button or the blue button"]


@pytest.fixture(scope="session")
def tokenizer():
    """Byte-level pairs with 300 tokens, a chat format, and no token at the beginning of texts."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    learned = tokenizers.Tokenizer(tokenizers.models.BPE())
    learned.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    learned.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    specials = ["<|end|>", "<|start|>"]
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    learned.train_from_iterator(TEXTS * 5, trainer)
    found = transformers.PreTrainedTokenizerFast(tokenizer_object=learned, eos_token="<|end|>")
    found.chat_template = CHAT
    return found


@pytest.fixture(scope="session")
def make_module(tokenizer):
    """`make_module("llama", sliding_window=4, ...)`: a random module, sharp enough that its choices are clear."""
    import transformers

    families = {
        "llama": ("Llama", {"intermediate_size": 32, "num_key_value_heads": 1}),
        "mistral": ("Mistral", {"intermediate_size": 32, "num_key_value_heads": 1}),
        "mamba": ("Mamba", {"state_size": 4}),
        "bloom": ("Bloom", {}),
        "gpt2": ("GPT2", {}),
    }

    def make(family: str = "llama", seed: int = 0, **changes):
        name, sizes = families[family]
        sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, **sizes}
        sizes |= {"vocab_size": len(tokenizer), "max_position_embeddings": 256, "eos_token_id": 0, **changes}
        torch.manual_seed(seed)
        causal = "LMHeadModel" if name == "GPT2" else "ForCausalLM"
        module = getattr(transformers, name + causal)(getattr(transformers, name + "Config")(**sizes))
        with torch.no_grad():
            for weight in module.parameters():
                if weight.dim() > 1:
                    weight.mul_(6)
        return module.eval()

    return make


@pytest.fixture(scope="session")
def tiny_folder(tokenizer, make_module, tmp_path_factory):
    """A folder with a random Llama that reads long texts."""
    folder = tmp_path_factory.mktemp("tiny language model")
    make_module(max_position_embeddings=8192).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def tiny_default(tiny_folder, monkeypatch):
    """The random Llama in place of the default language model, which is slow and need not be installed."""
    monkeypatch.setattr("mesocosm.models.pretrained._packaged", lambda: tiny_folder)
