"""Configuration files of TensorFlow Serving: text-format protocol buffers, read and validated."""

import logging
import math
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pool, message_factory, text_format, wrappers_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from digit_serving.errors import ServingError
from digit_serving.model_server.budget import DEFAULT_BYTES
from digit_serving.model_server.flags import Options

log = logging.getLogger(__name__)

_CHANNEL_ARGUMENTS: dict[str, int | str] = {
    "grpc.max_receive_message_length": DEFAULT_BYTES,
    "grpc.max_send_message_length": -1,
    # SO_REUSEPORT, gRPC's default, would let a second server share the port instead of failing to start.
    "grpc.so_reuseport": 0,
    # Permit the gateways' and clients' keepalive pings, one a second. By default a server permits one in five
    # minutes, and closes the connections of slow calls.
    "grpc.http2.min_ping_interval_without_data_ms": 500,
}


def read(path: str, name: str) -> Any:
    """Parse the text file as the message `name` of TensorFlow Serving; an empty path gives an empty message.

    Raises ServingError if the file can't be read or parsed.
    """
    message = ModelServerConfig() if name == "ModelServerConfig" else _new_message(name)
    try:
        return text_format.Parse(Path(path).read_bytes() if path else b"", message)
    except OSError as error:
        raise ServingError(f"{path}: {error.strerror}", "NOT_FOUND") from None
    except (text_format.ParseError, UnicodeDecodeError) as error:
        log.error("Error parsing text-format tensorflow.serving.%s: %s", name, error)
        raise ServingError(f"Invalid protobuf file: '{path}'") from None


def read_models(options: Options) -> ModelServerConfig:
    """Return the configuration of the models that the flags name.

    Raises ServingError if the flags name no model, or the file can't be read or parsed.
    """
    if options.model_config_file:
        return read(options.model_config_file, "ModelServerConfig")
    if not options.model_base_path:
        raise ServingError("--model_base_path or --model_config_file is required")
    model = {"name": options.model_name, "base_path": options.model_base_path, "model_platform": "tensorflow"}
    return ModelServerConfig(model_config_list={"config": [model]})


def read_max_batch_size(options: Options) -> int | None:
    """Return the most rows of a call with batching, or None if batching is off.

    Raises ServingError for contradictory flags, or if the file can't be read or parsed, or is invalid.
    """
    if not options.enable_batching:
        if options.batching_parameters_file:
            raise ServingError("--batching_parameters_file needs --enable_batching=true")
        return None
    parameters = read(options.batching_parameters_file, "BatchingParameters")
    limit = int(parameters.max_batch_size.value) if parameters.HasField("max_batch_size") else 1000
    sizes = list(parameters.allowed_batch_sizes)
    if sizes and (sizes != sorted(set(sizes)) or sizes[-1] != limit):
        raise ServingError("allowed_batch_sizes must increase and end with max_batch_size")
    return limit


def read_channel_arguments(options: Options) -> dict[str, int | str]:
    """Return gRPC's channel arguments: the drop-in's, replaced by those of the flag, `name=value,…`.

    A value that is a 32-bit integer becomes an int, for gRPC. Raises ServingError for another form.
    """
    arguments = dict(_CHANNEL_ARGUMENTS)
    for entry in filter(None, options.grpc_channel_arguments.split(",")):
        name, equals, value = entry.partition("=")
        if not equals:
            raise ServingError(f"--grpc_channel_arguments: {entry!r} is not of the form name=value")
        is_integer = re.fullmatch(r"-?[0-9]{1,10}", value) and -(2**31) <= int(value) < 2**31
        arguments[name] = int(value) if is_integer else value
    return arguments


def read_max_bytes(options: Options) -> float:
    """Return the largest size of a message in bytes, infinite if the flag has a negative one or no number."""
    limit = read_channel_arguments(options)["grpc.max_receive_message_length"]
    return limit if isinstance(limit, int) and limit >= 0 else math.inf


def validate(new: ModelServerConfig, old: ModelServerConfig) -> None:
    """Raise ServingError if `new` is invalid or can't replace `old`, as in TensorFlow Serving."""
    if new.HasField("custom_model_config") or (old.WhichOneof("config") and not new.WhichOneof("config")):
        raise ServingError("Cannot transition to requested config.", "FAILED_PRECONDITION")
    names = [model.name for model in new.model_config_list.config]
    for model in new.model_config_list.config:
        if names.count(model.name) > 1:
            raise ServingError(f"Illegal to list model {model.name} multiple times in config list")
        if not model.base_path.startswith("/"):
            raise ServingError(f"Expected model {model.name} to have an absolute path or URI")
        if model.model_platform != "tensorflow":
            raise ServingError(f"Model {model.name} requests unsupported platform {model.model_platform!r}")


def _new_message(name: str) -> Any:
    schemas = files("digit_serving.model_server").joinpath("schemas.txtpb").read_text()
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(text_format.Parse(schemas, FileDescriptorProto()))
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tensorflow.serving.{name}"))()
