"""Where a task's data are: a path, or a split on the Hugging Face hub that is fetched once, at a fixed revision, as JSON Lines.

The only file that imports `datasets`, and only when the user gave `--download`. `HF_ENDPOINT` names a mirror, as for the hub library.
"""

import hashlib
import importlib.util
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from bench.cache import cache_home, made_once, sha256_of
from bench.config import ConfigError

_HUB = re.compile(
    r"hf:(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)@(?P<revision>[0-9a-f]{7,40}):(?:(?P<config>[\w.-]+)/)?(?P<split>[\w.-]+)"
)

Fetch = Callable[["Split"], Iterable[Mapping[str, Any]]]


class Split(Struct, frozen=True, kw_only=True):
    """One split of a data set at one revision."""

    repo: str
    revision: str
    config: str | None
    split: str

    @property
    def file(self) -> Path:
        name = f"{self.config}-{self.split}.jsonl" if self.config else f"{self.split}.jsonl"
        return cache_home() / "data" / self.repo.replace("/", "--") / self.revision / name


def named_data(
    task: str, data: str | None, sha256: str | None, base: Path, download: bool
) -> tuple[Path | None, str | None]:
    """The file or folder that a suite names and its SHA-256; `(None, None)` for embedded data.

    Raises `ConfigError` when it is not the pinned one, or is on the hub and not here and no download is permitted.
    """
    if data is None:
        if sha256:
            raise ConfigError(f"task `{task}`: `sha256` pins a data file, but no `data` is named")
        return None, None
    path = fetched(split_of(data), download, load_split) if data.startswith("hf:") else base / Path(data).expanduser()
    digest = digest_of(path)
    if sha256 and digest != sha256.lower():
        raise ConfigError(f"task `{task}`: {path} has SHA-256 {digest or '(unreadable)'}, not the pinned {sha256}")
    return path, digest


def split_of(data: str) -> Split:
    """What `hf:OWNER/NAME@REVISION:[CONFIG/]SPLIT` names."""
    found = _HUB.fullmatch(data)
    if found is None:
        raise ConfigError(
            f"{data}: write hf:OWNER/NAME@REVISION:SPLIT, or hf:OWNER/NAME@REVISION:CONFIG/SPLIT, "
            "where REVISION is a commit (a branch may move)"
        )
    return Split(**found.groupdict())


def fetched(split: Split, download: bool, fetch: Fetch) -> Path:
    """The split's file in the cache, made through `fetch` when it is not there and a download is permitted."""
    if split.file.is_file():
        return split.file
    if not download:
        raise ConfigError(
            f"hf:{split.repo}@{split.revision} ({split.split}) is not on this disk; put its rows as JSON Lines at {split.file}, "
            "or run with --download"
        )
    with made_once(split.file) as part:
        if part is not None:
            with part.open("wb") as out:
                for row in fetch(split):
                    out.write(msgspec.json.encode(row) + b"\n")
    return split.file


def load_split(split: Split) -> Iterable[Mapping[str, Any]]:
    """The rows, through `datasets`; no code of the repository is run."""
    if importlib.util.find_spec("datasets") is None:
        raise ConfigError("--download of a data set needs `datasets`; pip install -e '.[data]'")
    import datasets

    try:
        return datasets.load_dataset(split.repo, split.config, split=split.split, revision=split.revision)  # type: ignore[no-any-return]
    except (
        OSError,
        ValueError,
    ) as error:  # what `datasets` raises for a name, a revision or a network that is not there
        raise ConfigError(f"hf:{split.repo}@{split.revision}: cannot be fetched ({error})") from error


def digest_of(path: Path) -> str | None:
    """SHA-256 of a file; of a folder, of the names and hashes of the files in it; `None` when it cannot be read."""
    try:
        if not path.is_dir():
            return sha256_of(path)
        whole = hashlib.sha256()
        for file in sorted(p for p in path.rglob("*") if p.is_file()):
            whole.update(f"{file.relative_to(path).as_posix()}\0{sha256_of(file)}\n".encode())
        return whole.hexdigest()
    except OSError:
        return None
