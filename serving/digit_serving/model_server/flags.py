"""Command-line flags of `tensorflow_model_server`, with its defaults."""

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

log = logging.getLogger(__name__)

_BOOLEANS = {"true": True, "false": False}
_IGNORED = """
enable_per_model_batching_parameters, enable_signature_method_name_check, flush_filesystem_caches,
mixed_precision, num_load_threads, num_tflite_interpreters_per_pool, num_tflite_pools,
num_unload_threads, per_process_gpu_memory_fraction, platform_config_file, prefer_tflite_model,
remove_unused_fields_from_bundle_metagraph, skip_initialize_tpu, tensorflow_session_config_file,
thread_pool_factory_config_file, use_alts_credentials, xla_cpu_compilation_enabled,
xla_gpu_compilation_enabled
""".replace(",", "").split()
"""TensorFlow Serving's flags that the drop-in does not implement."""


@dataclass
class Options:
    """Values of the flags, by name."""

    host: str = ""
    """Address of all ports; if empty, every address. TensorFlow Serving lacks this flag."""
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
    enable_profiler: bool = True
    """This flag has no effect: the drop-in has no ProfilerService."""
    version: bool = False


def parse(arguments: Sequence[str]) -> Options:
    """Parse arguments of the form `--flag=value`, or `--flag` for a boolean.

    Logs a warning that names the flags it ignores. Raises ValueError, which names the argument, for another
    form, an unknown flag, or a value of another type.
    """
    types: dict[str, Any] = {field.name: type(field.default) for field in fields(Options)}
    values: dict[str, Any] = {}
    ignored = []
    for argument in arguments:
        match = re.fullmatch(r"--(\w+)(?:=(.*))?", argument, re.DOTALL)
        name, text = match.groups() if match else ("", None)
        kind = types.get(name)
        if kind is bool and text is None:
            text = "true"
        if name in _IGNORED:
            ignored.append(f"--{name}")
        elif kind is None or text is None:
            raise ValueError(f"unknown argument: {argument}; the form is --flag=value")
        else:
            try:
                values[name] = _BOOLEANS[text.lower()] if kind is bool else kind(text)
            except (KeyError, ValueError):
                message = f"invalid value {text!r} for flag {name}; expected type: {kind.__name__}"
                raise ValueError(message) from None
    if ignored:
        log.warning("The drop-in ignores these flags: %s", ", ".join(ignored))
    return Options(**values)


def help_text() -> str:
    """Return a line for each flag, with its default."""
    lines = [f"--{field.name}={str(field.default).lower()}" for field in fields(Options)]
    return "\n".join([*lines, "", "Accepted and ignored:", *(f"--{name}" for name in _IGNORED)])
