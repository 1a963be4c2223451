"""The configuration files, which are text-format protocol buffers, and the original's checks of them."""

import logging
from importlib.resources import files
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pool, message_factory, text_format, wrappers_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc import StatusCode
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from digit_serving.model_server.errors import ServingError
from digit_serving.model_server.flags import Options

log = logging.getLogger(__name__)


def read(path: str, name: str) -> Any:
    """The text file as that message of TensorFlow Serving, empty for no path; ServingError if it is none."""
    message = ModelServerConfig() if name == "ModelServerConfig" else _new_message(name)
    try:
        return text_format.Parse(Path(path).read_bytes() if path else b"", message)
    except OSError as error:
        raise ServingError(f"{path}; {error.strerror}", StatusCode.NOT_FOUND) from None
    except (text_format.ParseError, UnicodeDecodeError) as error:
        log.error("Error parsing text-format tensorflow.serving.%s: %s", name, error)
        raise ServingError(f"Invalid protobuf file: '{path}'") from None


def _new_message(name: str) -> Any:
    schemas = files("digit_serving.model_server").joinpath("schemas.txtpb").read_text()
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(text_format.Parse(schemas, FileDescriptorProto()))
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tensorflow.serving.{name}"))()


def models(options: Options) -> ModelServerConfig:
    """The model configuration that the flags ask for."""
    if options.model_config_file:
        return read(options.model_config_file, "ModelServerConfig")
    if not options.model_base_path:
        raise ServingError(
            "Both server_options.model_base_path and server_options.model_config_file are empty!"
        )
    model = {"name": options.model_name, "base_path": options.model_base_path, "model_platform": "tensorflow"}
    return ModelServerConfig(model_config_list={"config": [model]})


def batching(options: Options) -> Any:
    """The BatchingParameters that the flags ask for, None without batching."""
    if options.enable_batching:
        return read(options.batching_parameters_file, "BatchingParameters")
    if options.batching_parameters_file:
        problem = "server_options.batching_parameters_file is set without setting"
        raise ServingError(f"{problem} server_options.enable_batching to true.")
    return None


def validate(new: ModelServerConfig, old: ModelServerConfig) -> None:
    """Raises ServingError where the original would not let `new` follow `old`."""
    if new.HasField("custom_model_config") or (old.WhichOneof("config") and not new.WhichOneof("config")):
        raise ServingError("Cannot transition to requested config.", StatusCode.FAILED_PRECONDITION)
    names = [model.name for model in new.model_config_list.config]
    for model in new.model_config_list.config:
        if names.count(model.name) > 1:
            raise ServingError(f"Illegal to list model {model.name} multiple times in config list")
        if not model.base_path.startswith("/"):
            raise ServingError(f"Expected model {model.name} to have an absolute path or URI")
        if bool(model.model_platform) == bool(model.model_type):
            which = "both" if model.model_type else "neither"
            raise ServingError(f"Illegal setting {which} ModelServerConfig::model_type (deprecated)")
        if model.model_platform not in ("tensorflow", ""):
            raise ServingError(f"Model {model.name} requests unsupported platform {model.model_platform}")
