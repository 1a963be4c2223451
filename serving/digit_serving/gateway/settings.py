"""The gateway's settings, read once from the environment."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, FilePath, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

_FILES = (
    "api_keys",
    "model_server_ca",
    "model_server_certificate",
    "model_server_key",
    "tls_certificate",
    "tls_key",
)


class Settings(BaseSettings):
    """Each field is the environment variable DIGITS_<FIELD>."""

    model_config = SettingsConfigDict(env_prefix="DIGITS_", frozen=True, protected_namespaces=())

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(default=8080, ge=1, le=65535)
    """Port to listen on."""
    workers: int = Field(default=2, ge=1)
    """Processes that answer."""
    queue_capacity: int = Field(default=256, ge=1)
    """Requests that each process holds at once, whose bodies are in its memory. The request beyond gets 429
    at once."""
    tls_certificate: FilePath | None = None
    """Certificate, in PEM with those between it and its authority, with which it speaks TLS 1.3, and nothing
    else."""
    tls_key: FilePath | None = Field(default=None, validate_default=True)
    """The certificate's key, in PEM."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """info logs a line for each request."""
    log_format: Literal["json", "pretty"] = "json"
    """json for machines, pretty for humans."""

    model_server: str = "127.0.0.1:8500"
    """TensorFlow Serving's gRPC address: host:port, unix:path or dns:///name:port. Where the name has several
    addresses, they share the calls."""
    model_server_ca: FilePath | None = None
    """Certificate, in PEM, of the authority that vouches for the model server; with it they speak TLS."""
    model_server_certificate: FilePath | None = None
    """Certificate that is shown to the model server, which may want one (--ssl_config_file)."""
    model_server_key: FilePath | None = Field(default=None, validate_default=True)
    """That certificate's key."""
    model_name: str = "digits"
    """Name of the model there."""
    labels: Annotated[tuple[str, ...], NoDecode] = ("stable", "canary")
    """Version labels that /v1/models looks up, separated by commas."""

    default_label: str = ""
    """Label of the version that answers requests which name neither version nor label. Without one the newest
    does, as soon as it is loaded. With one, such as stable, a new version gets none of them until the label
    moves to it; while no version carries the label, they can't be answered."""
    canary_percent: float = Field(default=0, ge=0, le=100)
    """Percent of those requests that go to the label canary instead, and to default_label while no version
    carries that one. The request id decides, so that the same one always goes the same way. It needs
    default_label: without one all of them go to the newest version, which is the canary itself."""

    max_inflight_calls: int = Field(default=1, ge=1)
    """Calls to the model server that each process has out at once; requests that come meanwhile share the
    next one."""
    deadline: float = Field(default=5.0, gt=0)
    """Seconds in which a request that has arrived as a whole gets its answer or an error. One that has waited
    for half of them before its pictures are read gets 429."""
    max_body: int = Field(default=8 * 1024 * 1024, ge=1)
    """Bytes of a request's body."""
    max_images: int = Field(default=256, ge=1)
    """Images in a request. TensorFlow Serving's max_batch_size must be no smaller."""
    max_pixels: int = Field(default=16_000_000, ge=784)
    """Pixels of an image that are decoded."""

    api_keys: FilePath | None = None
    """File of keys, made by `digits keys`, without one of which /v1 answers nobody. It is read again within a
    second of a change."""
    rate_limit: str = ""
    """How often a caller, which is a key or, where none are asked for, an address, may ask under /v1:
    100/minute, or several such as 10/second;1000/hour."""
    rate_limit_store: str = "memory://"
    """Where that is counted: by each process for itself, or, with the extra redis, in redis://host:port for
    all of them."""
    trusted_proxies: int = Field(default=0, ge=0)
    """Proxies that a request comes through, each of which adds to X-Forwarded-For whom it had it from."""
    cors_origins: Annotated[tuple[str, ...], NoDecode] = ()
    """Origins such as https://app.example.com, separated by commas, whose pages may ask /v1."""

    @property
    def max_queue_time(self) -> float:
        """Seconds that a request waits at most before it is read; as many are left for its call."""
        return self.deadline / 2

    @field_validator("canary_percent")
    @classmethod
    def _leaves_the_rest_to_a_label(cls, value: float, info: ValidationInfo) -> float:
        if value and not info.data["default_label"]:
            raise ValueError("needs DIGITS_DEFAULT_LABEL, such as stable, for the rest of the requests")
        return value

    @field_validator("rate_limit")
    @classmethod
    def _is_a_rate(cls, value: str) -> str:
        if value:
            from limits import parse_many

            parse_many(value)
        return value

    @field_validator("tls_key", "model_server_key")
    @classmethod
    def _goes_with_its_certificate(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        certificate = str(info.field_name).replace("key", "certificate")
        if (value is None) != (info.data.get(certificate) is None):
            raise ValueError(f"goes together with DIGITS_{certificate.upper()}")
        return value

    @field_validator("model_server_certificate")
    @classmethod
    def _is_shown_to_whom_it_knows(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value and not info.data.get("model_server_ca"):
            raise ValueError("needs DIGITS_MODEL_SERVER_CA, else nothing is encrypted")
        return value

    @field_validator(*_FILES, mode="before")
    @classmethod
    def _none_where_empty(cls, value: object) -> object:
        return value or None

    @field_validator("labels", "cors_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(filter(None, value.replace(" ", "").split(","))) if isinstance(value, str) else value
