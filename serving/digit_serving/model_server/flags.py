"""The flags of `tensorflow_model_server`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Options:
    """The flags that act here, with the original's defaults; zero threads or parallelism means automatic."""

    port: int = 8500
    grpc_socket_path: str = ""
    grpc_channel_arguments: str = ""
    grpc_max_threads: int = 0
    ssl_config_file: str = ""
    rest_api_port: int = 0
    rest_api_num_threads: int = 0
    rest_api_timeout_in_ms: int = 30_000
    rest_api_enable_cors_support: bool = False
    model_name: str = "default"
    model_base_path: str = ""
    model_config_file: str = ""
    model_config_file_poll_wait_seconds: int = 0
    file_system_poll_wait_seconds: int = 1
    max_num_load_retries: int = 5
    load_retry_interval_micros: int = 60_000_000
    allow_version_labels_for_unavailable_models: bool = False
    saved_model_tags: str = "serve"
    tensorflow_session_parallelism: int = 0
    tensorflow_intra_op_parallelism: int = 0
    tensorflow_inter_op_parallelism: int = 0
    enable_batching: bool = False
    batching_parameters_file: str = ""
    enable_model_warmup: bool = True
    num_request_iterations_for_warmup: int = 0
    enable_serialization_as_tensor_content: bool = False
    enable_grpc_healthcheck_service: bool = False
    monitoring_config_file: str = ""
    version: bool = False


_WITHOUT_EFFECT: dict[type, str] = {
    bool: "enable_per_model_batching_parameters enable_profiler enable_signature_method_name_check "
    "flush_filesystem_caches prefer_tflite_model remove_unused_fields_from_bundle_metagraph "
    "skip_initialize_tpu use_alts_credentials xla_cpu_compilation_enabled xla_gpu_compilation_enabled",
    int: "num_load_threads num_tflite_interpreters_per_pool num_tflite_pools num_unload_threads",
    float: "per_process_gpu_memory_fraction",
    str: "mixed_precision platform_config_file tensorflow_session_config_file thread_pool_factory_config_file",
}
_ACTING: dict[str, Any] = {field.name: field.type for field in fields(Options)}
TYPES = _ACTING | {name: kind for kind, names in _WITHOUT_EFFECT.items() for name in names.split()}
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


def parse(args: Sequence[str]) -> Options:
    """`--flag=value`, `--flag value` or `--switch`, with one dash or two; ValueError names what is unfit."""
    remaining = iter(args)
    values = dict(_flag(arg, remaining) for arg in remaining)
    return Options(**{name: value for name, value in values.items() if name in _ACTING})


def _flag(arg: str, remaining: Iterator[str]) -> tuple[str, Any]:
    name, given, text = arg.lstrip("-").partition("=")
    kind = TYPES.get(name)
    if kind is None or not arg.startswith("-"):
        raise ValueError(f"unknown argument: {arg}")
    if not given:
        text = "true" if kind is bool else next(remaining, "")
    try:
        return name, _BOOLEANS[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        raise ValueError(f"couldn't interpret value {text!r} for flag {name}") from None
