"""Vendored protos compared with the official ones of tensorflow-serving-api and tensorflow."""

from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf import text_format
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_pb2, predict_pb2
from tensorflow_serving.config import model_server_config_pb2

from digit_client.tfserving import protos

MESSAGE_CLASSES: dict[str, tuple[Any, Any]] = {
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
"""Vendored and official class of each exported message."""

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
"""Messages that keep every official field, since configuration files may name any of them."""


def field_properties(field: FieldDescriptor) -> tuple[object, ...]:
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


def reachable_pairs(
    vendored: Descriptor, official: Descriptor, seen: set[str]
) -> Iterator[tuple[Descriptor, Descriptor]]:
    """Yield the pair, and each pair of message types that its fields refer to, once."""
    if vendored.full_name in seen:
        return
    seen.add(vendored.full_name)
    yield vendored, official
    for field in vendored.fields:
        expected = official.fields_by_number[field.number]
        if field.message_type and expected.message_type:
            yield from reachable_pairs(field.message_type, expected.message_type, seen)


def descriptor_pairs() -> list[tuple[Descriptor, Descriptor]]:
    """Return the vendored and the official descriptor of every message type."""
    seen: set[str] = set()
    return [
        pair
        for vendored, official in MESSAGE_CLASSES.values()
        for pair in reachable_pairs(vendored.DESCRIPTOR, official.DESCRIPTOR, seen)
    ]


def assert_enum_is_subset(enum: EnumDescriptor, official: EnumDescriptor) -> None:
    assert enum.full_name == official.full_name
    values = {value.name: value.number for value in official.values}
    assert {value.name: value.number for value in enum.values}.items() <= values.items()


def test_message_classes_cover_exported_messages() -> None:
    messages = {name for name, value in vars(protos).items() if isinstance(value, type) and name[0].isupper()}
    assert messages - {"Any", "DescriptorPool", "FileDescriptorSet", "Path"} == MESSAGE_CLASSES.keys()


@pytest.mark.parametrize(
    ("vendored", "official"), descriptor_pairs(), ids=lambda descriptor: descriptor.full_name
)
def test_message_fields_equal_official(vendored: Descriptor, official: Descriptor) -> None:
    assert vendored.full_name == official.full_name
    for field in vendored.fields:
        expected = official.fields_by_number[field.number]
        assert field_properties(field) == field_properties(expected)
        if field.enum_type and expected.enum_type:
            assert_enum_is_subset(field.enum_type, expected.enum_type)
    for enum in vendored.enum_types:
        assert_enum_is_subset(enum, official.enum_types_by_name[enum.name])
    if vendored.full_name in COMPLETE:
        assert {field.number for field in vendored.fields} == {field.number for field in official.fields}


def test_descriptor_pairs_include_complete_messages() -> None:
    assert {vendored.full_name for vendored, _ in descriptor_pairs()} >= COMPLETE


def test_data_types_equal_official() -> None:
    assert (protos.DT_FLOAT, protos.DT_UINT8) == (types_pb2.DT_FLOAT, types_pb2.DT_UINT8)


def test_version_states_equal_official() -> None:
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
def test_serialized_message_is_parsed_by_both_classes(name: str) -> None:
    vendored_class, official_class = MESSAGE_CLASSES[name]
    official = text_format.Parse(EXAMPLES[name], official_class())
    vendored = text_format.Parse(EXAMPLES[name], vendored_class())
    assert vendored_class.FromString(official.SerializeToString()) == vendored
    assert official_class.FromString(vendored.SerializeToString()) == official
    assert text_format.MessageToString(vendored) == text_format.MessageToString(official)


def test_parse_unknown_field_is_kept() -> None:
    request = predict_pb2.PredictRequest(client_id=b"me")
    vendored = protos.PredictRequest.FromString(request.SerializeToString())
    assert predict_pb2.PredictRequest.FromString(vendored.SerializeToString()) == request
