"""Where weights come from: a file, an installed distribution, a Hugging Face repository on disk, a quantisation made here once.

`locate` only looks, for planning: it makes nothing and hashes nothing large for the first time. `resolve` gives files that are there,
hashed and checked. Both say what is wrong in one sentence (`ConfigError`), and neither imports an engine or the distribution it looks into.
"""

import hashlib
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from bench import hub, synthetic
from bench.cache import cache_home, known_sha256, made_once, sha256_of
from bench.catalogue import SYNTHETIC
from bench.config import ConfigError, Deployment
from bench.gguf import GgufError, Header, Value, read_header
from bench.safetensors import SafetensorsError, read_folder
from bench.tensors import parameters

QUANTISATIONS = (
    "F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_0", "Q5_1", "Q4_K_M", "Q4_K_S", "Q4_0", "Q4_1",
    "Q3_K_M", "Q3_K_L", "Q3_K_S", "Q2_K", "IQ4_NL", "IQ4_XS",
)  # fmt: skip
HASHED_WHEN_PLANNING_BYTES = 1 << 30
SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
WEIGHTLESS = ("openai_server", "recorded", "scripted")


class Weights(Struct, frozen=True, kw_only=True):
    """One model's files and what they say of themselves; `None` is unknown, `made` False is a file that will be made."""

    path: Path
    """A GGUF file (the first of its shards) or a folder of safetensors."""
    kind: str
    """`gguf` or `folder`."""
    made: bool = True
    label: str | None = None
    """`Q4_1`, `bfloat16`."""
    quantised_from: str | None = None
    """Label of the file that this one is made from here: what that one had lost stays lost."""
    sha256: str | None = None
    """Of the file; of a list of names and hashes where there are several files."""
    size_bytes: int | None = None
    tensor_bytes: int | None = None
    parameters: int | None = None
    bits_per_weight: float | None = None
    tokenizer_sha256: str | None = None
    chat_template_sha256: str | None = None
    metadata: dict[str, Value] = {}
    """Of the GGUF header, or the scalars of a folder's config.json."""
    config: dict[str, Any] | None = None
    """Of a synthetic model without a file of weights: its whole configuration."""


def locate(deployment: Deployment, base: Path, *, download: bool = False) -> Weights | None:
    """Where the weights are or will be; None for an engine that has none here. With `download`, what is missing is no mistake yet.

    Relative paths begin at `base`.
    """
    if deployment.backend in WEIGHTLESS:
        return None
    if deployment.model.startswith(SYNTHETIC):
        return _synthetic(deployment, make=False)
    try:
        source = _source(deployment, base, fetch=False)
    except hub.NotHere:
        if download:
            return None
        raise
    facts = weights_at(source, hash_limit_bytes=HASHED_WHEN_PLANNING_BYTES)
    kind = _wanted_type(deployment, facts)
    if kind is None:
        return facts
    derived = _derived_path(facts, kind) if facts.sha256 else None
    if derived and derived.exists():
        return _made_from(facts, weights_at(derived, hash_limit_bytes=HASHED_WHEN_PLANNING_BYTES), kind)
    return msgspec.structs.replace(
        facts,
        path=derived or source,
        made=False,
        label=kind,
        quantised_from=facts.label,
        sha256=None,
        size_bytes=None,
        tensor_bytes=None,
        bits_per_weight=None,
    )


def resolve(deployment: Deployment, base: Path, *, download: bool = False) -> Weights | None:
    """The weights, on disk and hashed; makes the asked quantisation when it is missing, downloads only when told to."""
    if deployment.backend in WEIGHTLESS:
        return None
    if deployment.model.startswith(SYNTHETIC):
        return _synthetic(deployment, make=True)
    facts = weights_at(_source(deployment, base, fetch=download), hash_limit_bytes=None)
    kind = _wanted_type(deployment, facts)
    if kind is None:
        return facts
    made = weights_at(_derive(facts, kind, deployment.python or sys.executable), hash_limit_bytes=None)
    return _made_from(facts, made, kind)


def _synthetic(deployment: Deployment, *, make: bool) -> Weights:
    """A file of random weights for llama.cpp, else a folder with a configuration and no weights."""
    preset, folder = synthetic.preset_of(deployment), cache_home() / "synthetic"
    count = parameters(preset.shape)
    if deployment.backend == "llama_cpp":
        path = synthetic.make_gguf(preset, folder) if make else synthetic.gguf_path(preset, folder)
        if path.exists():
            return _labelled(weights_at(path, hash_limit_bytes=HASHED_WHEN_PLANNING_BYTES), preset.label)
        size = synthetic.expected_bytes(preset)
        return Weights(
            path=path,
            kind="gguf",
            made=False,
            label=preset.label,
            tensor_bytes=size,
            parameters=count,
            bits_per_weight=8 * size / count,
        )
    path = synthetic.make_folder(preset, folder) if make else synthetic.folder_path(preset, folder)
    return Weights(
        path=path,
        kind="folder",
        made=path.exists(),
        label=preset.label,
        parameters=count,
        config=synthetic.model_config(preset),
    )


def _source(deployment: Deployment, base: Path, *, fetch: bool) -> Path:
    scheme, _, rest = deployment.model.partition(":")
    match scheme:
        case "file" if rest:
            path = base / Path(rest).expanduser()
            if not path.exists():
                raise ConfigError(f"deployment `{deployment.name}`: {path} does not exist; check `model`")
            return path
        case "pkg" if rest:
            return _packaged(deployment.name, rest)
        case "hf" if rest:
            return hub.find(rest, deployment.file, fetch=fetch)
        case _:
            raise ConfigError(
                f"deployment `{deployment.name}`: model `{deployment.model}` is not understood; "
                "write file:PATH, pkg:DISTRIBUTION/FILE, hf:REPO, hf:REPO@COMMIT or synthetic:PRESET"
            )


def commit_at(deployment: Deployment) -> str | None:
    """Of the Hugging Face repository that the deployment's weights come from; None for other sources and where it is not known."""
    scheme, _, rest = deployment.model.partition(":")
    if scheme != "hf" or deployment.backend in WEIGHTLESS:
        return None
    return hub.commit_of(rest, deployment.file)


def _packaged(name: str, rest: str) -> Path:
    """Found in the list of files that the installed distribution keeps; nothing of it is imported."""
    from importlib import metadata

    distribution, _, wanted = rest.partition("/")
    where = f"deployment `{name}`: pkg:{rest}"
    try:
        files = metadata.files(distribution) if wanted else None
    except (metadata.PackageNotFoundError, ValueError):
        raise ConfigError(
            f"{where}: `{distribution}` is not installed; install it with pip install --no-deps {distribution}"
        ) from None
    if files is None:
        raise ConfigError(f"{where}: write pkg:DISTRIBUTION/FILE, of a distribution that keeps a list of its files")
    exact = [f for f in files if str(f) == wanted]
    found = exact or [f for f in files if f.name == wanted]
    if len(found) != 1:
        known = ", ".join(sorted(f.name for f in files if f.suffix in (".gguf", ".safetensors"))) or "no model files"
        raise ConfigError(f"{where}: {len(found)} files of this name in `{distribution}`; it has {known}")
    path = Path(str(found[0].locate()))
    if not path.is_file():
        raise ConfigError(f"{where}: {path} is gone; install `{distribution}` again")
    return path


def _wanted_type(deployment: Deployment, source: Weights) -> str | None:
    """The quantisation to be made from the source; None when it is to be used as it is, also because it is of that type already."""
    if deployment.quantise is None:
        return None
    kind, where = deployment.quantise.upper(), f'deployment `{deployment.name}`: quantise = "{deployment.quantise}"'
    if source.kind != "gguf":
        raise ConfigError(f"{where} needs a GGUF file, and {source.path} is a folder")
    if kind not in QUANTISATIONS:
        raise ConfigError(f"{where} is unknown; choose one of {', '.join(QUANTISATIONS)}")
    return None if kind == source.label else kind


def _labelled(weights: Weights, label: str) -> Weights:
    return msgspec.structs.replace(weights, label=label)


def _made_from(source: Weights, made: Weights, label: str) -> Weights:
    return msgspec.structs.replace(made, label=label, quantised_from=source.label)


def _derived_path(source: Weights, kind: str) -> Path:
    return cache_home() / "quantised" / f"{str(source.sha256)[:16]}-{kind}.gguf"


def _derive(source: Weights, kind: str, python: str) -> Path:
    """Quantise once, in a process of its own, so that no engine is loaded here."""
    target = _derived_path(source, kind)
    failed = f"{source.path} cannot be quantised to {kind}"
    try:
        with made_once(target) as part:
            if part is not None:
                command = [python, "-m", "bench.backends.llama_cpp", "quantise", str(source.path), str(part), kind]
                _quantise(command, failed)
                _headers((part,))
    except OSError as error:
        raise ConfigError(f"{failed}: {target.parent} cannot be written ({error.strerror})") from error
    return target


def _quantise(command: Sequence[str], failed: str) -> None:
    root = Path(__file__).parents[1]
    try:
        done = subprocess.run(command, cwd=root, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        raise ConfigError(f"{failed}: {command[0]} cannot be started ({error.strerror})") from error
    if done.returncode:
        last = ([line for line in done.stderr.splitlines() if line.strip()] or ["no reason given"])[-1]
        raise ConfigError(f"{failed}: {last.strip()}")


def weights_at(path: Path, hash_limit_bytes: int | None = None) -> Weights:
    """What the files say; those larger together than the limit are hashed only if that was done before (None: always)."""
    if path.is_dir():
        return _folder_facts(path, hash_limit_bytes)
    files = shards(path)
    headers = _headers(files)
    first = headers[0]
    count = sum(h.parameters for h in headers)
    tensor_bytes = sum(h.tensor_bytes for h in headers)
    return Weights(
        path=path,
        kind="gguf",
        label=first.label,
        sha256=_hash(files, hash_limit_bytes),
        size_bytes=sum(f.stat().st_size for f in files),
        tensor_bytes=tensor_bytes,
        parameters=count,
        bits_per_weight=8 * tensor_bytes / count if count else None,
        tokenizer_sha256=first.tokenizer_sha256,
        chat_template_sha256=first.chat_template_sha256,
        metadata=first.metadata,
    )


def shards(path: Path) -> tuple[Path, ...]:
    """All files of a model that is split (`NAME-00001-of-00003.gguf`), else the one. Raises `ConfigError` when one is missing."""
    match = SHARD.fullmatch(path.name)
    if match is None:
        return (path,)
    if match["number"] != "00001":
        raise ConfigError(
            f"{path}: is one part of a split model; name the first, {match['stem']}-00001-of-{match['count']}.gguf"
        )
    files = tuple(
        path.with_name(f"{match['stem']}-{n:05}-of-{match['count']}.gguf") for n in range(1, int(match["count"]) + 1)
    )
    if missing := [f.name for f in files if not f.is_file()]:
        raise ConfigError(f"{path}: {len(missing)} of {len(files)} parts are missing, first {missing[0]}")
    return files


def _headers(files: Sequence[Path]) -> list[Header]:
    headers = []
    for file in files:
        try:
            headers.append(read_header(file))
        except GgufError as error:
            raise ConfigError(f"{file}: {error}; give a whole GGUF file (copy or fetch it again)") from error
        except OSError as error:
            raise ConfigError(f"{file}: cannot be read ({error.strerror})") from error
    return headers


def _hash(files: Sequence[Path], limit_bytes: int | None) -> str | None:
    """Of one file its SHA-256; of several that of their names and hashes, one a line."""
    if limit_bytes is not None and sum(f.stat().st_size for f in files) > limit_bytes:
        hashes = [known_sha256(f) for f in files]
    else:
        hashes = [sha256_of(f) for f in files]
    if None in hashes:
        return None
    if len(files) == 1:
        return hashes[0]
    return hashlib.sha256("".join(f"{f.name} {h}\n" for f, h in zip(files, hashes, strict=True)).encode()).hexdigest()


def _folder_facts(path: Path, hash_limit_bytes: int | None) -> Weights:
    """A folder as `save_pretrained` writes it. Pickled weights are no weights here."""
    config = _json_scalars(path / "config.json")
    try:
        facts = read_folder(path)
    except SafetensorsError as error:
        raise ConfigError(f"{error} (pickled weights are not read)") from error
    files = tuple(sorted(path.glob("*.safetensors")))
    return Weights(
        path=path,
        kind="folder",
        label=facts.label,
        sha256=_hash(files, hash_limit_bytes),
        size_bytes=sum(f.stat().st_size for f in files),
        tensor_bytes=facts.tensor_bytes,
        parameters=facts.parameters,
        bits_per_weight=facts.bits_per_weight,
        tokenizer_sha256=_file_hash(path / "tokenizer.json"),
        chat_template_sha256=_template_hash(path),
        metadata=config,
    )


def _json_scalars(path: Path) -> dict[str, Value]:
    try:
        raw = msgspec.json.decode(path.read_bytes(), type=dict[str, object])
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); a model folder has a config.json") from error
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{path}: {error}") from error
    return {k: v for k, v in raw.items() if isinstance(v, str | int | float | bool)}


def _file_hash(path: Path) -> str | None:
    return sha256_of(path) if path.is_file() else None


def _template_hash(folder: Path) -> str | None:
    """The template stands in a file of its own or in tokenizer_config.json."""
    if (own := folder / "chat_template.jinja").is_file():
        return sha256_of(own)
    config = folder / "tokenizer_config.json"
    template = _json_scalars(config).get("chat_template") if config.is_file() else None
    return hashlib.sha256(template.encode()).hexdigest() if isinstance(template, str) else None
