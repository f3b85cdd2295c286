"""Optional packages: the extra that installs each, and errors that name the missing one."""

import re
from importlib.util import find_spec
from pathlib import Path

EXTRAS = {
    "cv2": "interpolate", "openvino": "openvino", "ray": "ray", "fastapi": "server", "scenedetect": "eval",
    "sentencepiece": "bases", "google.protobuf": "bases", "ftfy": "bases", "peft": "bases",
    "bitsandbytes": "quantize", "torchao": "quantize", "gguf": "quantize",
}  # fmt: skip
"""Importable names of optional packages -> extra."""

_TOKENIZERS = ("sentencepiece", "google.protobuf")
_MISSING = re.compile(r"(?:No module named|requires the|name) [`'\"]?(\w+)")


def installed(name: str) -> bool:
    """Return whether a package can be imported."""
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:  # the package around it is missing
        return False


def command(names: list[str]) -> str:
    """Return the pip command that installs packages, by extras where one has them."""
    extras = sorted({EXTRAS[name] for name in names if name in EXTRAS})
    others = [name for name in names if name not in EXTRAS]
    return " ".join(["pip install", *(f"'streamingt2v[{extra}]'" for extra in extras), *others])


def tokenizer_packages(folder: Path) -> list[str]:
    """Return the missing packages that a pipeline's SentencePiece tokenizers need."""
    needs = any(
        next(part.glob("*.model"), None) is not None and not (part / "tokenizer.json").exists()
        for part in folder.glob("tokenizer*")
    )
    return [name for name in _TOKENIZERS if needs and not installed(name)]


def explained(error: Exception) -> str:
    """Return an error's message, or the missing package and its command, whichever library noticed it."""
    text = str(error)
    missing = [name for name in _TOKENIZERS if not installed(name)]
    # transformers names tiktoken where a SentencePiece file cannot be read
    if missing and any(word in text for word in ("sentencepiece", "SentencePiece", "tiktoken", "protobuf")):
        return f"needs the package {', '.join(missing)}: {command(missing)}"
    found = _MISSING.search(text)
    name = getattr(error, "name", None) or (found[1] if found else None)
    if isinstance(error, ImportError | NameError) and name and not installed(name.lower()):
        return f"needs the package {name.lower()}: {command([name.lower()])}"
    return text
