"""Seed inputs of the fuzz targets: small valid files, request bodies and model server responses."""

import base64
import io
import json

import numpy as np

from digit_core.tfserving import codec
from digit_core.tfserving.protos import DT_FLOAT, PredictResponse
from tests import decompression_bombs


def seeds() -> dict[str, list[bytes]]:
    """Return the seed inputs of each target."""
    files = list(decompression_bombs.valid_files().values())
    return {"image": files, "body": _bodies(files), "response": _responses()}


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


def _responses() -> list[bytes]:
    packed, listed = PredictResponse(), PredictResponse()
    row = np.eye(10, dtype=np.float32)[[7]]
    for response in (packed, listed):
        response.model_spec.version.value = 1
        tensor = response.outputs[codec.OUTPUT]
        tensor.dtype = DT_FLOAT
        for size in row.shape:
            tensor.tensor_shape.dim.add(size=size)
    packed.outputs[codec.OUTPUT].tensor_content = row.tobytes()
    listed.outputs[codec.OUTPUT].float_val.extend(row[0].tolist())
    return [packed.SerializeToString(), listed.SerializeToString()]
