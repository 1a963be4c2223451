"""Seed inputs of the fuzz targets: small valid files, bodies, documents and messages."""

import base64
import io
import json
from pathlib import Path

import numpy as np

from digit_core.artifact.models_config import STABLE, ModelsConfig
from digit_core.artifact.task_card import DIGITS, CardInput, CardPreparation, TaskCard
from digit_core.tfserving import codec
from digit_core.tfserving.protos import PredictResponse
from tests import decompression_bombs
from tests.core.grpc_model_server import outputs_response


def seeds() -> dict[str, list[bytes]]:
    """Return the seed inputs of each target."""
    files = list(decompression_bombs.valid_files().values())
    responses = _responses()
    return {
        "image": files,
        "body": _bodies(files),
        "response": [response.SerializeToString() for response in responses],
        "config": _configs(),
        "card": _cards(),
        "query": [b"\0version=1&include=image,labels&top=3&min_is_digit=.5", b"\1model=digits&label=a"],
        "feedback": _feedback(files[0]),
        "http": _connections(),
        "rest": _rest_bodies(),
        "tensor": [response.outputs[codec.OUTPUT].SerializeToString() for response in responses],
    }


def _bodies(files: list[bytes]) -> list[bytes]:
    texts = [base64.b64encode(file).decode() for file in files[:2]]
    array = io.BytesIO()
    np.save(array, np.eye(28, dtype=np.uint8)[None] * 255)
    part = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    return [
        b"\0" + json.dumps({"images": texts}).encode(),
        b"\0" + json.dumps({"instances": [[0.5] * 784]}).encode(),
        b"\1" + array.getvalue(),
        b"\2" + part + files[0] + b"\r\n" + part + files[1] + b"\r\n--x--\r\n",
        b"\3" + files[0],
    ]


def _responses() -> list[PredictResponse]:
    row = np.eye(10, dtype=np.float32)[[7]]
    packed, listed = (outputs_response({codec.OUTPUT: row}) for _ in range(2))
    listed.outputs[codec.OUTPUT].tensor_content = b""
    listed.outputs[codec.OUTPUT].float_val.extend(row[0].tolist())
    return [packed, listed]


def _configs() -> list[bytes]:
    config = ModelsConfig.empty().with_versions("digits", [1, 2], Path("/models/digits"))
    latest = """
        model_config_list { config {
            name: "a" base_path: "/a" model_version_policy { latest { num_versions: 2 } }
            version_labels { key: "stable" value: 1 }
        } }
    """
    return [str(config.with_label("digits", STABLE, 2)).encode(), latest.encode()]


def _cards() -> list[bytes]:
    pixels, pad = CardInput((9, 12, 3), (-1.0, 1.0)), CardPreparation(fit="pad")
    photos = TaskCard("photos", ("day", "night"), pixels, pad, threshold=(0.5, 0.7))
    return [json.dumps(card.to_document()).encode() for card in (DIGITS, photos)]


def _feedback(file: bytes) -> list[bytes]:
    picture = {"image": base64.b64encode(file).decode(), "label": "7", "boxes": [[0, 0, 9, 9]]}
    part = b'--x\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
    fields = [(b"image", b'; filename="a"', file), (b"label", b"", b"7"), (b"box", b"", b"0,0,9,9")]
    return [
        b"\0" + json.dumps(picture).encode(),
        b"\0" + json.dumps({"request_id": "id", "index": 0, "label": "7"}).encode(),
        b"\1" + b"".join(part % field for field in fields) + b"--x--\r\n",
    ]


def _connections() -> list[bytes]:
    post = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
    chunked = post + b"Transfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n0\r\nA: b\r\n\r\n"
    upgraded = b"GET /?a=b HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    return [
        b"\x80" + post + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n12345",
        b"\x40" + chunked + upgraded,
        b"\xff" + upgraded * 3,
    ]


def _rest_bodies() -> list[bytes]:
    row = {"text": "a", "number": 1, "flag": True}
    documents = [
        {"instances": [[0.5, 1], [0, 1e-3]]},
        {"inputs": {"pixels": [[0.5]]}},
        {"signature_name": "many", "instances": [row, row | {"text": {"b64": "YQ=="}}]},
        {"signature_name": "many", "inputs": {name: [value] for name, value in row.items()}},
    ]
    return [json.dumps(document).encode() for document in documents]
