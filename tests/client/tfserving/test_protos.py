"""The vendored protos against the official packages, tensorflow-serving-api and tensorflow."""

from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf import text_format
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_pb2, predict_pb2
from tensorflow_serving.config import model_server_config_pb2

from digit_client.tfserving import protos

Pair = tuple[Descriptor, Descriptor]

PAIRS: dict[str, tuple[Any, Any]] = {
    "GetModelMetadataRequest": (
        protos.GetModelMetadataRequest,
        get_model_metadata_pb2.GetModelMetadataRequest,
    ),
    "GetModelMetadataResponse": (
        protos.GetModelMetadataResponse,
        get_model_metadata_pb2.GetModelMetadataResponse,
    ),
    "GetModelStatusRequest": (protos.GetModelStatusRequest, get_model_status_pb2.GetModelStatusRequest),
    "GetModelStatusResponse": (protos.GetModelStatusResponse, get_model_status_pb2.GetModelStatusResponse),
    "ModelServerConfig": (protos.ModelServerConfig, model_server_config_pb2.ModelServerConfig),
    "ModelSpec": (protos.ModelSpec, model_pb2.ModelSpec),
    "ModelVersionStatus": (protos.ModelVersionStatus, get_model_status_pb2.ModelVersionStatus),
    "PredictRequest": (protos.PredictRequest, predict_pb2.PredictRequest),
    "PredictResponse": (protos.PredictResponse, predict_pb2.PredictResponse),
    "TensorProto": (protos.TensorProto, tensor_pb2.TensorProto),
}
COMPLETE = {
    "tensorflow.TensorShapeProto",
    "tensorflow.TensorShapeProto.Dim",
    "tensorflow.serving.GetModelMetadataRequest",
    "tensorflow.serving.GetModelMetadataResponse",
    "tensorflow.serving.GetModelStatusRequest",
    "tensorflow.serving.GetModelStatusResponse",
    "tensorflow.serving.LogCollectorConfig",
    "tensorflow.serving.LoggingConfig",
    "tensorflow.serving.ModelConfig",
    "tensorflow.serving.ModelConfigList",
    "tensorflow.serving.ModelServerConfig",
    "tensorflow.serving.ModelSpec",
    "tensorflow.serving.ModelVersionStatus",
    "tensorflow.serving.PerTaskSamplingConfig",
    "tensorflow.serving.PredictResponse",
    "tensorflow.serving.SamplingConfig",
    "tensorflow.serving.StatusProto",
    "tensorflow.serving.FileSystemStoragePathSourceConfig.ServableVersionPolicy",
}
"""Messages of which no field is left out: files in text format may name any of them."""


def field_facts(field: FieldDescriptor) -> tuple[object, ...]:
    message, enum, oneof = field.message_type, field.enum_type, field.containing_oneof
    return (
        field.name,
        field.number,
        field.type,
        field.is_repeated,
        field.json_name,
        field.has_presence,
        field.is_packed,
        field.default_value if message is None else None,
        message and message.full_name,
        enum and enum.full_name,
        oneof and oneof.name,
    )


def reachable(
    message: Descriptor, official: Descriptor, seen: set[str]
) -> Iterator[tuple[Descriptor, Descriptor]]:
    """The pair, and every pair of messages that its fields lead to, each once."""
    if message.full_name in seen:
        return
    seen.add(message.full_name)
    yield message, official
    for field in message.fields:
        expected = official.fields_by_number[field.number]
        if field.message_type and expected.message_type:
            yield from reachable(field.message_type, expected.message_type, seen)


def pairs() -> list[Pair]:
    seen: set[str] = set()
    return [
        pair
        for ours, official in PAIRS.values()
        for pair in reachable(ours.DESCRIPTOR, official.DESCRIPTOR, seen)
    ]


def check_enum(enum: EnumDescriptor, official: EnumDescriptor) -> None:
    assert enum.full_name == official.full_name
    values = {value.name: value.number for value in official.values}
    assert {value.name: value.number for value in enum.values}.items() <= values.items()


def test_every_exported_message_is_compared() -> None:
    messages = {name for name, value in vars(protos).items() if isinstance(value, type) and name[0].isupper()}
    assert messages - {"Any", "DescriptorPool", "FileDescriptorSet", "Path"} == PAIRS.keys()


@pytest.mark.parametrize(("ours", "official"), pairs(), ids=lambda each: each.full_name)
def test_message_agrees_with_the_official_one(ours: Descriptor, official: Descriptor) -> None:
    assert ours.full_name == official.full_name
    for field in ours.fields:
        expected = official.fields_by_number[field.number]
        assert field_facts(field) == field_facts(expected)
        if field.enum_type and expected.enum_type:
            check_enum(field.enum_type, expected.enum_type)
    for enum in ours.enum_types:
        check_enum(enum, official.enum_types_by_name[enum.name])
    if ours.full_name in COMPLETE:
        assert {field.number for field in ours.fields} == {field.number for field in official.fields}


def test_complete_messages_are_reached() -> None:
    assert {ours.full_name for ours, _ in pairs()} >= COMPLETE


def test_data_types_agree_with_the_official_ones() -> None:
    assert (protos.DT_FLOAT, protos.DT_UINT8) == (types_pb2.DT_FLOAT, types_pb2.DT_UINT8)


def test_states_agree_with_the_official_ones() -> None:
    official = get_model_status_pb2.ModelVersionStatus.State
    assert protos.ModelVersionStatus.State.items() == official.items()


EXAMPLES = {
    "PredictRequest": """
        model_spec { name: "digits" version { value: 3 } signature_name: "images" }
        inputs {
          key: "images"
          value {
            dtype: DT_UINT8 tensor_shape { dim { size: 1 } dim { size: 2 name: "x" } } tensor_content: "ab"
          }
        }
        output_filter: "probabilities"
    """,
    "PredictResponse": """
        model_spec { name: "digits" version_label: "stable" }
        outputs {
          key: "card"
          value { dtype: DT_STRING tensor_shape { dim { size: 1 } } string_val: "{}" }
        }
        outputs {
          key: "probabilities"
          value {
            dtype: DT_FLOAT tensor_shape { dim { size: 1 } dim { size: 2 } } float_val: [0.25, 0.75]
            int_val: [-1, 2] int64_val: -3 bool_val: true double_val: 0.5 half_val: 1 uint64_val: 9
          }
        }
    """,
    "GetModelStatusResponse": """
        model_version_status { version: 2 state: AVAILABLE status { } }
        model_version_status { version: 1 state: END status { error_code: NOT_FOUND error_message: "gone" } }
    """,
    "GetModelMetadataRequest": 'model_spec { name: "digits" } metadata_field: "signature_def"',
    "GetModelMetadataResponse": """
        model_spec { name: "digits" version { value: 1 } }
        metadata {
          key: "signature_def"
          value {
            type_url: "type.googleapis.com/tensorflow.serving.SignatureDefMap" value: "\\n\\003\\n\\001a"
          }
        }
    """,
    "ModelServerConfig": """
        model_config_list {
          config {
            name: "digits" base_path: "/models/digits" model_platform: "tensorflow" model_type: TENSORFLOW
            model_version_policy { specific { versions: [1, 2] } }
            version_labels { key: "canary" value: 2 }
            version_labels { key: "stable" value: 1 }
            logging_config {
              log_collector_config { type: "file" filename_prefix: "/log" }
              sampling_config { sampling_rate: 0.5 per_task_sampling_configs { dc: "a" task_index: 0 } }
            }
          }
          config { name: "all" model_version_policy { all { } } }
          config { name: "latest" model_version_policy { latest { num_versions: 2 } } }
        }
    """,
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_bytes_are_read_by_either_side(name: str) -> None:
    ours, official = PAIRS[name]
    theirs = text_format.Parse(EXAMPLES[name], official())
    mine = text_format.Parse(EXAMPLES[name], ours())
    assert ours.FromString(theirs.SerializeToString()) == mine
    assert official.FromString(mine.SerializeToString()) == theirs
    assert text_format.MessageToString(mine) == text_format.MessageToString(theirs)


def test_fields_that_are_left_out_survive() -> None:
    request = predict_pb2.PredictRequest(client_id=b"me")
    ours = protos.PredictRequest.FromString(request.SerializeToString())
    assert predict_pb2.PredictRequest.FromString(ours.SerializeToString()) == request
