"""Hugging Face repositories on this disk: Bedside's own cache, the hub library's cache, and a download only when it was asked for.

The only file that may reach the network for weights. `HF_ENDPOINT` names a mirror, as for the hub library. `hf:OWNER/NAME@COMMIT` is that
commit and no other; `hf:OWNER/NAME` is what is on this disk, else what `main` is on the day of the download.
"""

import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from bench.cache import cache_home, private_folder, settle
from bench.config import ConfigError

if TYPE_CHECKING:
    import httpx

REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
COMMIT = re.compile(r"[0-9a-f]{40}")
FOLDER_FILES = re.compile(r"[^/]+\.(json|safetensors|jinja|model)|(merges|vocab)\.txt")
"""What is fetched of a repository of safetensors: never pickles, never code."""


class NotHere(ConfigError):
    """The files are not on this disk; a download would help."""


class Repo(Struct, frozen=True):
    """A repository, at one commit where it is pinned."""

    name: str
    commit: str | None = None

    def __str__(self) -> str:
        return f"{self.name}@{self.commit}" if self.commit else self.name

    @property
    def folder(self) -> Path:
        """Bedside's own copy."""
        return cache_home() / "hf" / str(self).replace("/", "--")


def repo_of(text: str) -> Repo:
    """What stands behind `hf:`. Raises `ConfigError` for what is no repository or pins no whole commit."""
    name, at, commit = text.partition("@")
    if not REPO.fullmatch(name) or ".." in name:
        raise ConfigError(f"hf:{text}: not a repository; write hf:OWNER/NAME, and the file's name in `file`")
    if at and not COMMIT.fullmatch(commit):
        raise ConfigError(
            f"hf:{text}: write hf:OWNER/NAME@COMMIT with the 40 hexadecimal digits of a commit (a branch or tag may move)"
        )
    return Repo(name, commit or None)


def find(text: str, file: str | None, *, fetch: bool) -> Path:
    """The file, or without one the folder of the repository. Raises `NotHere` when it is missing and may not be fetched."""
    repo = repo_of(text)
    if file is not None and (Path(file).is_absolute() or ".." in Path(file).parts):
        raise ConfigError(f"hf:{repo}: file `{file}` must be a path inside the repository")
    for folder in (repo.folder, *_hub_snapshots(repo)):
        path = folder / file if file else folder
        if path.is_file() if file else _complete(path):
            return path
    if not fetch:
        wanted = f"{repo}/{file}" if file else repo
        place = repo.folder / file if file else repo.folder
        raise NotHere(f"hf:{wanted} is not on this disk; put it at {place}, or run with --download")
    return _fetch(repo, file)


def commit_of(text: str, file: str | None) -> str | None:
    """The commit of what `find` finds here; None where nothing is here or nothing tells it (a folder filled by hand)."""
    repo = repo_of(text)
    if repo.commit:
        return repo.commit
    try:
        path = find(text, file, fetch=False)
    except NotHere:
        return None
    if path.is_relative_to(repo.folder):
        told = _told(repo)
        found = {told.get(file)} if file else set(told.values())
        return found.pop() if len(found) == 1 else None
    return next((part for part in path.parts[::-1] if COMMIT.fullmatch(part)), None)


def _complete(folder: Path) -> bool:
    """Every shard that the index names is there; without an index one safetensors file is enough."""
    if not (folder / "config.json").is_file():
        return False
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return any(folder.glob("*.safetensors"))
    try:
        named = msgspec.json.decode(index.read_bytes(), type=dict[str, object]).get("weight_map")
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{index}: {error}") from error
    return isinstance(named, dict) and all((folder / str(name)).is_file() for name in set(named.values()))


def _commits(repo: Repo) -> Path:
    """Of files that were fetched from `main`: a line each, commit and name."""
    return repo.folder.with_name(f".{repo.folder.name}.commits")


def _told(repo: Repo) -> dict[str, str]:
    try:
        lines = _commits(repo).read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    return {name: commit for commit, _, name in (line.partition(" ") for line in lines)}


def _hub_snapshots(repo: Repo) -> list[Path]:
    """Folders of the hub library's cache: the pinned one, else what `main` points to first, then the newest."""
    home = os.environ.get("HF_HOME") or str(Path.home() / ".cache" / "huggingface")
    root = Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub") / f"models--{repo.name.replace('/', '--')}"
    if repo.commit:
        return [root / "snapshots" / repo.commit]
    try:
        snapshots = sorted((root / "snapshots").iterdir(), key=lambda p: p.stat().st_mtime, reverse=True)
    except OSError:
        return []
    main = root / "refs" / "main"
    first = main.read_text().strip() if main.is_file() else None
    return sorted(snapshots, key=lambda p: p.name != first)


def _fetch(repo: Repo, file: str | None) -> Path:
    import httpx

    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    timeout = httpx.Timeout(30.0, read=120.0)
    try:
        with httpx.Client(base_url=endpoint, timeout=timeout, follow_redirects=True) as client:
            if file is not None:
                return _download(client, repo, file)
            for name in _files_of(client, repo):
                _download(client, repo, name)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        why = str(error).partition("\n")[0]
        raise ConfigError(f"hf:{repo}: the download from {endpoint} failed ({type(error).__name__}: {why})") from error
    except OSError as error:
        raise ConfigError(f"hf:{repo}: {repo.folder} cannot be written ({error.strerror})") from error
    return repo.folder


def _files_of(client: "httpx.Client", repo: Repo) -> list[str]:
    at = f"/revision/{repo.commit}" if repo.commit else ""
    answer = client.get(f"/api/models/{repo.name}{at}").raise_for_status()
    try:
        entries = msgspec.convert(answer.json()["siblings"], list[dict[str, object]])
    except (ValueError, KeyError, TypeError, msgspec.ValidationError) as error:
        raise ConfigError(f"hf:{repo}: the list of its files cannot be read") from error
    names = [str(e.get("rfilename")) for e in entries]
    return [n for n in names if FOLDER_FILES.fullmatch(n)]


def _download(client: "httpx.Client", repo: Repo, file: str) -> Path:
    """Into a `.part` that a broken download leaves for the next to go on with; checked against the hub's hash where it tells one."""
    target = repo.folder / file
    if target.is_file():
        return target
    private_folder(target.parent)
    part = target.with_name(f"{target.name}.part")
    have = part.stat().st_size if part.exists() else 0
    wanted = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    address = f"/{repo.name}/resolve/{repo.commit or 'main'}/{file}"
    headers = client.head(address, follow_redirects=False).headers
    told, commit = headers.get("x-linked-etag", "").strip('"'), headers.get("x-repo-commit", "")
    if repo.commit and COMMIT.fullmatch(commit) and commit != repo.commit:
        raise ConfigError(f"hf:{repo}/{file}: the hub answers with another commit, {commit}; check the commit")
    with client.stream("GET", address, headers=wanted) as answer:
        if answer.status_code != 416:  # 416: nothing is left to be fetched
            answer.raise_for_status()
            how = os.O_APPEND if answer.status_code == 206 else os.O_TRUNC
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | how, 0o600), "wb") as out:
                for chunk in answer.iter_raw():
                    out.write(chunk)
    if re.fullmatch(r"[0-9a-f]{64}", told):
        with part.open("rb") as file_:
            if hashlib.file_digest(file_, "sha256").hexdigest() != told:
                part.unlink()
                raise ConfigError(f"hf:{repo}/{file}: what arrived has another hash than the hub tells; try again")
    settle(part, target)
    if not repo.commit and COMMIT.fullmatch(commit):
        _note_commit(repo, file, commit)
    return target


def _note_commit(repo: Repo, file: str, commit: str) -> None:
    with os.fdopen(
        os.open(_commits(repo), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w", encoding="utf-8"
    ) as out:
        out.write(f"{commit} {file}\n")
