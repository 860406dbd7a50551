"""The catalogue of model variants (`models.toml`): shapes, licences and the rules each family wants to be asked by.

A shape is what the arithmetic of `bench.tensors`, `bench.roofline` and `bench.sizing` starts from, and what a synthetic model is made to.
"""

import functools
import re
import tomllib
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from bench.config import ConfigError, Deployment

Architecture = Literal["llama", "qwen2", "qwen3", "deepseek_v3", "deepseek_v32"]

SYNTHETIC = "synthetic:"

# What may follow a variant's name in the name of a repository or file that holds the same model in another format.
FORMAT_SUFFIX = re.compile(
    r"([-._](gguf|awq|gptq|bnb|mlx|unsloth|dynamic|ud|int[48]|w\d+a\d+|fp\d+|b?f\d+|tq?\d\w*|i?q\d\w*|\d?bit|\d+bit|hf|quantized|\d{5}|of|marlin))*",
    re.IGNORECASE,
)


class Recipe(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a family wants to be asked. The default is a plain instruct model, greedy."""

    reasoning: bool = False
    system_prompt: bool = True
    """False: instructions go into the user's turn."""
    temperature: float = 0.0
    top_p: float = 1.0
    prefill: str = ""
    """Opens the reply."""
    samples_per_item: int = 1
    max_tokens: int | None = None
    """Least room for an answer with its thinking; None: what the task says."""


class SourcedRecipe(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    rules: Recipe
    source: str
    date: str


class Mla(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Multi-head latent attention: ranks of the two low-rank projections, and sizes of a head's three parts."""

    q_rank: int
    kv_rank: int
    nope: int
    rope: int
    value: int


class Experts(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Mixture of experts in every layer after the first `dense_layers`."""

    count: int
    active: int
    shared: int
    intermediate: int
    dense_layers: int
    groups: int = 1
    groups_used: int = 1
    scale: float = 1.0


class Indexer(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """DeepSeek Sparse Attention: a small scorer in each layer that picks `top_k` earlier tokens."""

    heads: int
    head_size: int
    top_k: int


class Shape(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that decides the size of a model's tensors and of its cache. `head_size` is that of a query head."""

    architecture: Architecture
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_size: int
    intermediate: int
    vocabulary: int
    context: int
    tie_embeddings: bool = False
    qkv_bias: bool = False
    qk_norm: bool = False
    norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    mla: Mla | None = None
    experts: Experts | None = None
    indexer: Indexer | None = None
    source: str = ""
    date: str = ""
    verified: bool = False


class Entry(Struct, frozen=True, kw_only=True):
    """One variant. Parameters are in billions as published; `active_parameters_b` None: all of them."""

    family: str
    repository: str
    licence: str
    parameters_b: float
    active_parameters_b: float | None
    native: str
    context: int | None
    shape: Shape | None
    recipe: Recipe
    source: str
    date: str
    recipe_source: str
    recipe_date: str
    files_gib: dict[str, float]
    """Published sizes of files whose mix of types cannot be computed, GiB by label."""

    @property
    def name(self) -> str:
        """Last part of the repository's id."""
        return self.repository.rpartition("/")[2]

    def row(self) -> tuple[str, ...]:
        """Cells of the `models` table: name, parameters, active, native precision, context, cache per token, licence, repository."""
        cache = "unknown"
        if self.shape:
            from bench.roofline import cache_bytes_per_token

            cache = f"{cache_bytes_per_token(self.shape):,.0f} B"
        return (
            self.family,
            f"{self.parameters_b:g} B",
            "all" if self.active_parameters_b is None else f"{self.active_parameters_b:g} B",
            self.native,
            "unknown" if self.context is None else f"{self.context:,}",
            cache,
            self.licence,
            self.repository,
        )


class _Written(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An entry as it stands in the file: shape and recipe by name."""

    family: str
    repository: str
    licence: str
    parameters_b: float
    active_parameters_b: float | None = None
    native: str
    context: int | None = None
    shape: str | None = None
    recipe: str
    source: str
    date: str
    files_gib: dict[str, float] = {}


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    shapes: dict[str, Shape]
    recipes: dict[str, SourcedRecipe]
    entries: tuple[_Written, ...]


def read_catalogue(raw: dict[str, Any]) -> tuple[Entry, ...]:
    """Check a decoded catalogue strictly. Raises `msgspec.ValidationError` or `KeyError` for a mistake in it, which is ours."""
    file = msgspec.convert(raw, _File)
    return tuple(_entry(written, file) for written in file.entries)


def _entry(written: _Written, file: _File) -> Entry:
    shape = file.shapes[written.shape] if written.shape else None
    recipe = file.recipes[written.recipe]
    return Entry(
        family=written.family,
        repository=written.repository,
        licence=written.licence,
        parameters_b=written.parameters_b,
        active_parameters_b=written.active_parameters_b,
        native=written.native,
        context=written.context or (shape.context if shape else None),
        shape=shape,
        recipe=recipe.rules,
        source=written.source,
        date=written.date,
        recipe_source=recipe.source,
        recipe_date=recipe.date,
        files_gib=written.files_gib,
    )


@functools.cache
def catalogue() -> tuple[Entry, ...]:
    """All variants, in the file's order; read once."""
    return read_catalogue(tomllib.loads(Path(__file__).with_name("models.toml").read_text(encoding="utf-8")))


CATALOGUE: tuple[Entry, ...] = catalogue()


def by_family(name: str) -> Entry:
    """Raises `ConfigError` for a name that is not in the catalogue."""
    found = next((entry for entry in catalogue() if entry.family == name), None)
    if found is None:
        raise ConfigError(f"unknown model family `{name}`; known: {', '.join(e.family for e in catalogue())}")
    return found


def find(deployment: Deployment) -> Entry | None:
    """The deployment's variant: by `family`, by synthetic preset, else by the name of the repository or file; None when it is none of ours.

    Raises `ConfigError` for an unknown family or preset.
    """
    if deployment.family:
        return by_family(deployment.family)
    if deployment.model.startswith(SYNTHETIC):
        return by_family(deployment.model.removeprefix(SYNTHETIC))
    return by_name(deployment.file or deployment.model) or by_name(deployment.model)


def by_name(model: str) -> Entry | None:
    """`hf:unsloth/DeepSeek-R1-GGUF`, `file:/models/DeepSeek-R1-Distill-Qwen-7B-Q4_K_M.gguf` ...: the longest variant name that the last
    part begins with, when only words for a format follow it."""
    last = unpinned(model).rpartition(":")[2].rstrip("/").rpartition("/")[2].removesuffix(".gguf")
    for entry in sorted(catalogue(), key=lambda e: -len(e.name)):
        if last.lower().startswith(entry.name.lower()) and FORMAT_SUFFIX.fullmatch(last[len(entry.name) :]):
            return entry
    return None


def unpinned(model: str) -> str:
    """`hf:OWNER/NAME@COMMIT` without its commit."""
    return model.partition("@")[0] if model.startswith("hf:") else model


def recipe(deployment: Deployment) -> Recipe:
    """The rules of the deployment's family; a plain instruct model's where it is not in the catalogue."""
    entry = find(deployment)
    return entry.recipe if entry else Recipe()
