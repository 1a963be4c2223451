"""Vendored protos compared with the official ones of tensorflow-serving-api and tensorflow."""

from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, model_pb2, predict_pb2
from tensorflow_serving.config import model_server_config_pb2

from digit_core.tfserving import protos

OFFICIAL_MODULES = (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_pb2,
    model_server_config_pb2,
    predict_pb2,
    tensor_pb2,
)
MESSAGE_CLASSES: dict[str, tuple[Any, Any]] = {
    name: (
        getattr(protos, name),
        next(getattr(module, name) for module in OFFICIAL_MODULES if hasattr(module, name)),
    )
    for name, annotation in protos.__annotations__.items()
    if annotation is Any
}
"""Vendored and official class of each exported message."""

PARTIAL = {"tensorflow.TensorProto", "tensorflow.serving.PredictRequest"}
"""Messages without some official fields. All others are complete: configuration files may name any field."""


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
    if vendored.full_name not in PARTIAL:
        assert {field.number for field in vendored.fields} == {field.number for field in official.fields}


def test_data_types_equal_official() -> None:
    assert (protos.DT_FLOAT, protos.DT_UINT8) == (types_pb2.DT_FLOAT, types_pb2.DT_UINT8)


def test_version_states_equal_official() -> None:
    official = get_model_status_pb2.ModelVersionStatus.State
    assert protos.ModelVersionStatus.State.items() == official.items()
