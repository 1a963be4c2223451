"""Settings of the gateway: environment variables, validated and read once into a frozen object."""

import re
import tomllib
from collections.abc import Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from limits import RateLimitItem, parse_many
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FilePath,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from digit_core.artifact.models_config import LABELS
from digit_core.artifact.task_card import READER_NAME
from digit_serving.errors import SettingError
from digit_serving.gateway.edge.memory import container_memory
from digit_serving.gateway.features import FeatureModelSettings, FeatureSettings
from digit_serving.gateway.schemas import VersionLabel, matching
from digit_serving.sockets import available

_BODY_MEMORY = 128 * 2**20
_WORKER_MEMORY = 150 * 2**20
"""Memory of a worker without requests."""
_PIXEL_MEMORY = 30
"""Memory of a pixel while a picture is decoded; a worker decodes one large picture at a time."""


@lru_cache
def parse_limits(limits: str) -> list[RateLimitItem]:
    """Return the limits of a text such as `10/second;1000/hour`. Raise ValueError."""
    try:
        # parse_many takes 0 requests for a limit, and 0 minutes for one.
        items = [] if re.search(r"(?<!\d)0+(?!\d)", limits) else parse_many(limits)
    except ValueError:
        items = []
    if not items:
        raise ValueError(
            f"{limits!r} is not a limit, such as 100/minute, 10/second;1000/hour or 5 per 2 minutes"
        )
    return items


def _split_at_commas(value: object) -> object:
    return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value


_File = Annotated[FilePath | None, BeforeValidator(lambda value: value or None)]
_MODEL_NAME = r"\w[\w.-]*"
_ModelName = Annotated[str, matching(_MODEL_NAME, "the name of a model, such as digits")]
_ModelNameOrAll = Annotated[str, matching(rf"\*|{_MODEL_NAME}", "the name of a model, such as digits, nor *")]
_Origin = Annotated[
    str,
    matching(
        r"(?!http:.*:80$|https:.*:443$)[a-z][a-z0-9+.-]*://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:[0-9]+)?",
        "an origin as browsers send it, such as https://app.example.com, without path or default port",
    ),
]
_Split = (NoDecode, BeforeValidator(_split_at_commas))


class GatewayModelSettings(BaseModel):
    """Settings that models may have of their own, as `Settings` describes them."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    default_label: VersionLabel
    deadline: Annotated[float, Field(gt=0)]


class ModelSettings(FeatureModelSettings, GatewayModelSettings):
    """Settings of a model, of the gateway and of its features."""


class GatewaySettings(BaseSettings):
    """Each field is set by the environment variable DIGITS_<FIELD>."""

    model_config = SettingsConfigDict(env_prefix="DIGITS_", frozen=True, protected_namespaces=())

    host: Annotated[str, AfterValidator(available)] = "127.0.0.1"
    """Address to listen on; `::` is every IPv4 and IPv6 address."""
    port: int = Field(default=8080, ge=1, le=65535)
    """Port to listen on."""
    workers: int = Field(default=2, ge=1)
    """Number of worker processes."""
    queue_capacity: int = Field(default=256, ge=1)
    """Requests that a worker holds in memory: receiving, waiting and in flight. Further ones get 429."""
    address_connections: int = Field(default=8192, ge=0)
    """Connections from an address, or from a /64 network of IPv6, on which a worker waits for a handshake
    or a request; one more closes the oldest. Behind DIGITS_TRUSTED_PROXIES, this limits the requests that a
    worker holds for the address that the proxies name; one more gets 429. 0 sets no limit."""
    tls_certificate: _File = None
    """Server certificate with its intermediate certificates, in PEM: the gateway accepts TLS 1.3 only."""
    tls_key: _File = Field(default=None, validate_default=True)
    """Private key of DIGITS_TLS_CERTIFICATE, in PEM."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest level that is logged; info includes one line per request."""
    log_format: Literal["json", "pretty"] = "json"
    """json for machines, pretty for people."""

    model_server: str = "127.0.0.1:8500"
    """TensorFlow Serving's gRPC address: host:port, unix:path, or dns:///name:port, which balances calls over
    all addresses of the name."""
    model_server_ca: _File = None
    """Certificate authority of the model server, in PEM; the connection then uses TLS."""
    model_server_certificate: _File = None
    """Client certificate for a model server that requires one, in PEM."""
    model_server_key: _File = Field(default=None, validate_default=True)
    """Private key of DIGITS_MODEL_SERVER_CERTIFICATE, in PEM."""
    model_name: _ModelName = "digits"
    """Name of the model that answers requests without `?model=`."""
    model_names: Annotated[tuple[_ModelNameOrAll, ...], *_Split] = ("*",)
    """Names of all models that requests may select by `?model=`, separated by commas, besides
    DIGITS_MODEL_NAME; `*` stands for every model of the model server."""
    models_config: _File = None
    """The model server's models.config: models, versions and labels that it does not name are not found, and
    with `*` in DIGITS_MODEL_NAMES, /v1/models and the page's menu list the models that it names."""
    reader: _ModelName = READER_NAME
    """Name of the model that finds digits on a page."""
    labels: Annotated[tuple[VersionLabel, ...], *_Split] = LABELS
    """Version labels that /v1/models looks up, separated by commas, besides those in other settings."""

    default_label: VersionLabel = "stable"
    """Version label that serves requests which name neither version nor label. While no version has it, they
    fail with 503. If empty, the newest loaded version serves them, for a model server without labels."""
    models_file: _File = None
    """TOML file whose tables, named after models, replace DIGITS_DEFAULT_LABEL and settings of features for a
    model, and shorten DIGITS_DEADLINE."""

    max_inflight_calls: int = Field(default=1, ge=1)
    """Calls that a worker keeps in flight per model version; later requests share the next call."""
    deadline: float = Field(default=5.0, gt=0)
    """Seconds from a request's complete arrival to its answer; a request that waits for admission longer than
    half of them gets 429."""
    max_body: int = Field(default=8 * 1024 * 1024, ge=1)
    """Largest request body, in bytes."""
    max_images: int = Field(default=256, ge=1)
    """Largest number of images in a request; TensorFlow Serving's max_batch_size must not be smaller."""
    max_digits: int = Field(default=64, ge=1)
    """Largest number of digits that /v1/read answers for an image, and of parts in a request."""
    max_pixels: int = Field(default=16_000_000, ge=1)
    """Largest image that is decoded, in pixels; JPEGs, which are decoded downscaled, may have four times as
    many."""
    body_memory: int = Field(default=0, ge=0, validate_default=True)
    """Bytes of request bodies that a worker holds in memory; what does not fit gets 429. A quarter as many
    hold heads and unread answers. 0 stands for 128 MiB, or in a container for an eighth of its memory,
    divided by DIGITS_WORKERS."""

    api_keys: _File = None
    """File of API keys, managed with `digits keys`: every request under /v1 needs one of them."""
    rate_limit: str = ""
    """Requests under /v1 that each caller, an API key or an IP address, may send: 100/minute, or several
    limits such as 10/second;1000/hour."""
    rate_limit_store: str = "memory://"
    """Store of the counts: memory:// in each worker separately; redis://host:port, with the extra redis,
    over all workers and gateways."""
    trusted_proxies: int = Field(default=0, ge=0)
    """Number of reverse proxies in front of the gateway; each must append to X-Forwarded-For."""
    cors_origins: Annotated[tuple[_Origin, ...], *_Split] = ()
    """Origins whose pages may call /v1 (CORS), separated by commas, such as https://app.example.com."""

    @cached_property
    def models(self) -> tuple[str, ...]:
        """Names of the models that are listed, without repetition, the default model first."""
        return tuple(name for name in dict.fromkeys((self.model_name, *self.model_names)) if name != "*")

    @cached_property
    def by_model(self) -> Mapping[str, ModelSettings]:
        """Return the settings of each model with a table in DIGITS_MODELS_FILE, which is read once.

        Raise SettingError, which names the table and the key.
        """
        file, common = self.models_file, self.common.model_dump()
        tables = _read_tables(file, self.models) if file else {}
        return {model: _model_settings(model, common, table, file) for model, table in tables.items()}

    @cached_property
    def common(self) -> ModelSettings:
        """Return the settings of the other models."""
        values = {name: getattr(self, name) for name in ModelSettings.model_fields}
        return ModelSettings.model_validate(values)

    def for_model(self, name: str) -> ModelSettings:
        """Return the settings of a model."""
        return self.by_model.get(name, self.common)

    @property
    def connection_memory(self) -> int:
        """Bytes of heads, of requests that wait behind another one, and of unread answers in a worker."""
        return self.body_memory // 4

    @field_validator("body_memory")
    @classmethod
    def _fit_container(cls, value: int, info: ValidationInfo) -> int:
        if not {"workers", "max_body", "max_pixels"} <= info.data.keys():
            # One of these fields has an error, which is reported.
            return value
        workers, largest, limit = info.data["workers"], info.data["max_body"], container_memory()
        value = value or max(limit // workers // 8 if limit else _BODY_MEMORY, largest)
        if value < largest:
            raise ValueError("must not be smaller than DIGITS_MAX_BODY")
        needed = workers * (_WORKER_MEMORY + info.data["max_pixels"] * _PIXEL_MEMORY + value * 5 // 4)
        if limit and needed > limit:
            raise ValueError(
                f"{workers} workers may need {needed / 2**30:.1f} GiB of memory, but the container has "
                f"{limit / 2**30:.1f} GiB: raise its limit, or lower DIGITS_WORKERS or DIGITS_MAX_PIXELS"
            )
        return value

    @field_validator("rate_limit")
    @classmethod
    def _require_parseable_limits(cls, value: str) -> str:
        if value:
            parse_limits(value)
        return value

    @field_validator("tls_key", "model_server_key")
    @classmethod
    def _require_certificate_and_key(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        certificate = str(info.field_name).replace("key", "certificate")
        if (value is None) != (info.data.get(certificate) is None):
            raise ValueError(f"must be set together with DIGITS_{certificate.upper()}")
        return value

    @field_validator("model_server_certificate")
    @classmethod
    def _require_authority(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value and not info.data.get("model_server_ca"):
            raise ValueError("requires DIGITS_MODEL_SERVER_CA, without which the connection is not encrypted")
        return value


class Settings(FeatureSettings, GatewaySettings):
    """Settings of the gateway, then those of its features, whose validators may read the former."""


def _read_tables(file: Path, models: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Return the tables of a TOML file by model. Raise SettingError."""
    try:
        tables = tomllib.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise SettingError(f"{file}: {error}") from error
    for name, table in tables.items():
        if name not in models or not isinstance(table, dict):
            raise SettingError(f"{file}: {name} is not the table of a model; models: {', '.join(models)}")
    return tables


def _model_settings(
    model: str, common: Mapping[str, Any], table: Mapping[str, Any], file: Path | None
) -> ModelSettings:
    try:
        settings = ModelSettings.model_validate({**common, **table}, context=common)
    except ValidationError as error:
        (key, *_), message = error.errors()[0]["loc"], error.errors()[0]["msg"]
        if key not in ModelSettings.model_fields:
            message = f"unknown key; known keys: {', '.join(ModelSettings.model_fields)}"
        raise SettingError(f"{file}: {model}.{key}: {message.removeprefix('Value error, ')}") from error
    if settings.deadline > common["deadline"]:
        raise SettingError(f"{file}: {model}.deadline: must not exceed DIGITS_DEADLINE")
    return settings
