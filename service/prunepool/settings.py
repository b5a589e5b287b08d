"""Every setting, declared once: each is a flag, an environment variable and a key of `prunepool.toml`.

The setting `max_batch_size` is the flag `--max-batch-size`, the variable `PRUNEPOOL_MAX_BATCH_SIZE` and the
key `max_batch_size`. A flag wins over the environment, the environment over the file.
"""

from __future__ import annotations

import re
from importlib.metadata import entry_points
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from prunepool.settings_file import SettingsFile


def _auto_or_number(value: object) -> object:
    """Read a number, unless the value is `"auto"`."""
    if isinstance(value, str) and value != "auto":
        try:
            return float(value)
        except ValueError:
            raise ValueError("it must be auto or a number") from None
    return value


def _parts(value: object) -> object:
    """Split `"a, b"`. A flag or a variable is one text; the file may also have a list."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _device(value: str) -> str:
    # Others are registered by installed packages; see prunepool.backends.registry.
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", value) and not any(
        entry.name == value.partition(":")[0] for entry in entry_points(group="prunepool.backends")
    ):
        raise ValueError("it must be auto, cpu, cuda, cuda:N or a device of an installed backend")
    return value


_ORIGIN = re.compile(r"https?://(\[[0-9a-f:]+\]|[a-z0-9.-]+)(:\d{1,5})?", re.ASCII)


def _origin(value: str) -> str:
    if value != "*" and not _ORIGIN.fullmatch(value):
        raise ValueError("it must be * or comma-separated origins like https://photos.example")
    return value


def _network(value: str) -> str:
    try:
        return str(ip_network(value))
    except ValueError:
        limit = "it must be comma-separated addresses or networks like 10.0.0.0/8"
        raise ValueError(limit) from None


def _http_url(value: str) -> str:
    if not re.match(r"https?://[^/]", value):
        raise ValueError("it must be http://… or https://…")
    return value


#: Nothing that HTML, JavaScript or a header could take for more than a path.
PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)+", re.ASCII)


def _prefix(value: str) -> str:
    if not PREFIX.fullmatch(value):
        raise ValueError("it must be a path like /vit, of letters, digits, - . _ and ~")
    return value


Origin = Annotated[str, AfterValidator(_origin)]
Network = Annotated[str, AfterValidator(_network)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
#: No machine has more of them, and a mistyped number would take all its memory.
Processes = Annotated[int, Field(gt=0, le=256)]
Threads = Annotated[int, Field(gt=0, le=1024)]
Ratio = Annotated[float, Field(ge=0, lt=1)]
AutoRatio = Annotated[Literal["auto"] | Ratio, BeforeValidator(_auto_or_number)]


class Settings(BaseSettings):
    """The settings of the service. The defaults suit a single machine."""

    model_config = SettingsConfigDict(
        env_prefix="PRUNEPOOL_",
        toml_file="prunepool.toml",
        extra="forbid",
        frozen=True,
        protected_namespaces=(),
    )

    model_store: Path | None = Field(
        default=None,
        description="Folder of the models; unset, the packaged ones and those in `model_store` here or, "
        "where there is none, in the user's data folder.",
    )
    model: str = Field(
        default="deit_tiny_imagenet1k",
        description="The default model, for requests that name none: its name in the store, or a folder.",
    )
    models: Annotated[tuple[str, ...] | None, NoDecode, BeforeValidator(_parts)] = Field(
        default=None,
        description="More models to serve, separated by commas; SIGHUP reads `model` and `models` again.",
    )
    model_control: Literal["none", "explicit"] = Field(
        default="none",
        description="Whether callers may load and unload models (explicit); see docs/security.md for who may.",
    )
    device: Annotated[str, AfterValidator(_device)] = Field(
        default="auto",
        description="Where the model runs: auto (a GPU if there is one), cpu, cuda or cuda:N.",
    )
    devices: Annotated[
        tuple[Annotated[str, AfterValidator(_device)], ...] | None,
        NoDecode,
        BeforeValidator(_parts),
    ] = Field(
        default=None,
        min_length=1,
        description="Devices with an engine process each, as cuda:0,cuda:1 or cpu,cpu; unset, only `device`.",
    )
    compute_threads: Threads | None = Field(
        default=None,
        description="CPU threads a model computes with; unset, all cores within its quota, shared by the engines.",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16", "int8"] = Field(
        default="auto",
        description="The number format the model computes in; auto times them at start and takes the fastest.",
    )
    cuda_graphs: int = Field(
        default=256,
        ge=0,
        description="Most CUDA graphs captured for a model at start; other batches run eagerly, with 0 all do.",
    )
    cuda_compile: bool = Field(
        default=False,
        description="Whether torch.compile generates the kernels on a GPU; the first start then takes minutes.",
    )
    cpu_openvino: bool = Field(
        default=True,
        description="Whether OpenVINO runs models on a CPU: compiled ones, and others once it has converted them.",
    )
    cpu_openvino_folder: Path | None = Field(
        default=None,
        description="Folder for what is converted, prepared and measured for OpenVINO; unset, one in the user's "
        "folder of caches.",
    )
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(
        default=8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one and prints it."
    )
    grpc_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="Port for gRPC, which needs the extra `grpc`; 0 takes a free one and logs it, unset none.",
    )
    default_reduction_ratio: AutoRatio = Field(
        default="auto", description="The ratio of a request that names none: a number, or auto."
    )
    max_reduction_ratio: Ratio | None = Field(
        default=None,
        description="auto never exceeds this ratio; unset, the model's measured profile decides: without one, 0.",
    )
    target_latency_ms: PositiveFloat = Field(
        default=500.0,
        description="The latency that auto tries to hold for every request; inf takes the model's default ratio.",
    )
    escalate_below: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Run an image again at ratio 0 if its best two scores are closer than this; unset, never.",
    )
    shadow_sample: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Share of reduced images run again at ratio 0 on an idle device, to watch agreement.",
    )
    max_batch_size: PositiveInt = Field(
        default=32,
        le=4096,
        description="Most images in a batch; on a CPU fewer, if more would not make each of them cheaper.",
    )
    max_wait_ms: float = Field(
        default=0.0,
        ge=0,
        le=60_000,
        description="Batching window: how long an idle device waits for more requests; 0 starts at once.",
    )
    max_queue_requests: PositiveInt = Field(
        default=512, description="Most images accepted and not yet answered; beyond it, 503 overloaded."
    )
    max_queue_ms: PositiveFloat = Field(
        default=10_000.0,
        description="Longest predicted time to answer them all at their largest allowed ratio; beyond it, 503.",
    )
    max_body_bytes: PositiveInt = Field(
        default=32 * 1024 * 1024, description="Longest request body; beyond it, 413 body_too_large."
    )
    max_buffered_bytes: PositiveInt = Field(
        default=512 * 1024 * 1024,
        description="Memory budget for the bodies of all requests together; beyond it, 503 overloaded.",
    )
    max_connections: PositiveInt = Field(
        default=900,
        description="Most connections, of HTTP and of gRPC each; beyond it, HTTP closes an idle one or says 503.",
    )
    max_image_pixels: PositiveInt = Field(
        default=50_000_000, description="Largest image, checked in its header before decoding."
    )
    max_images_per_request: PositiveInt = Field(
        default=128, description="Most images in one multipart or JSON request."
    )
    decode_threads: Threads | None = Field(
        default=None,
        description="Threads that decode images; unset, one per core up to four cores, else one per two.",
    )
    request_timeout_s: PositiveFloat = Field(
        default=60.0,
        le=86_400,
        description="How long a request may take to arrive completely; beyond it, 408 and the connection closes.",
    )
    keep_alive_timeout_s: PositiveFloat = Field(
        default=75.0, description="How long a connection may stay open between two requests."
    )
    drain_timeout_s: PositiveFloat = Field(
        default=30.0, description="After SIGTERM, how long accepted requests may take before the exit."
    )
    batch_timeout_s: PositiveFloat = Field(
        default=60.0,
        description="If a batch runs longer than this, its engine is considered dead, and restarted.",
    )
    api_keys_file: Path | None = Field(
        default=None, description="File of hashed API keys; unset, no key is required."
    )
    protect_health: bool = Field(
        default=False, description="Whether health and readiness need an API key too, if keys are set."
    )
    protect_metrics: bool = Field(
        default=False, description="Whether /metrics needs an API key too, if keys are set."
    )
    cors_origins: Annotated[tuple[Origin, ...] | None, NoDecode, BeforeValidator(_parts)] = Field(
        default=None,
        description="Origins whose pages may call the API from a browser, or *; unset, only the server's own page.",
    )
    trusted_proxies: Annotated[tuple[Network, ...] | None, NoDecode, BeforeValidator(_parts)] = Field(
        default=None,
        description="Addresses and networks of proxies whose X-Forwarded-For, -Proto and -Prefix are trusted.",
    )
    root_path: Annotated[str, AfterValidator(_prefix)] | None = Field(
        default=None,
        description="Path under which a proxy serves this, as /vit; X-Forwarded-Prefix of a trusted proxy wins.",
    )
    public_url: HttpUrl | None = Field(
        default=None,
        description="URL that the line at start names, as a container's published one; unset, where it listens.",
    )
    otel_endpoint: HttpUrl | None = Field(
        default=None,
        description="OTLP collector that traces go to, as in http://127.0.0.1:4318; needs prunepool[otel].",
    )
    frontends: Processes = Field(
        default=1,
        description="HTTP processes; more than one moves the engine into its own process, see docs/processes.md.",
    )
    engine: Literal["thread", "process"] = Field(
        default="thread",
        description="Where the model runs: in this process, or its own, as several `frontends` or `devices` imply.",
    )
    log_format: Literal["console", "json"] = Field(
        default="console", description="Log lines for people, or one JSON object per line."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info",
        description="The least severe line that is written; SIGUSR1 switches to debug and back.",
    )

    @field_validator("*", mode="before")
    @classmethod
    def _plain(cls, value: object, info: ValidationInfo) -> object:
        """Refuse what would be read as something else.

        `port = true` in the file is no port 1. An empty path, as of a variable that is set to nothing, is not the
        working folder; nor does an empty `api_keys_file` mean that no key is needed.
        """
        kind = cls.model_fields[str(info.field_name)].annotation
        if isinstance(value, bool) and kind is not bool:
            raise ValueError("it must not be true or false")
        if isinstance(value, str) and "\0" in value:
            raise ValueError("it must not have a NUL character")
        if value == "" and kind in (str, Path, Path | None):
            raise ValueError("it must not be empty; leave it out for the default")
        return value

    @property
    def model_references(self) -> tuple[str, ...]:
        """The models to serve, the default first: names in the store, or folders."""
        return tuple(dict.fromkeys((self.model, *(self.models or ()))))

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Prefer flags to the environment, and the environment to `prunepool.toml` in the working directory."""
        return init_settings, env_settings, SettingsFile(settings_cls)
