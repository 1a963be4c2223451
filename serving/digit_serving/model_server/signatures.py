"""Signatures: they turn a request into feeds and fetches, with lookups made once, when the model loads."""

from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
from tensorflow_serving.apis.predict_pb2 import PredictRequest

from digit_serving.model_server.errors import ServingError
from digit_serving.model_server.tensors import Array, decode, type_name


class Signature:
    """The methods raise ServingError where the request doesn't fit it."""

    def __init__(self, definition: SignatureDef) -> None:
        self._definition = definition
        inputs = [(str(info.name), alias, info.dtype) for alias, info in definition.inputs.items()]
        self._inputs = sorted(inputs)
        self._outputs = {alias: definition.outputs[alias].name for alias in sorted(definition.outputs)}

    def feeds(self, request: PredictRequest) -> dict[str, Array]:
        """The arrays by tensor name, in the order by which the runtime numbers arguments in its messages."""
        given, feeds = request.inputs, dict[str, Array]()
        if len(given) != len(self._inputs) or any(alias not in given for _, alias, _ in self._inputs):
            self._check(request)
        for tensor, alias, dtype in self._inputs:
            proto = (given if alias in given else self._definition.defaults)[alias]
            if proto.dtype != dtype:
                types = f"{type_name(dtype)} but {type_name(proto.dtype)}"
                raise ServingError(f"Expects arg[{len(feeds)}] to be {types} is provided")
            feeds[tensor] = decode(alias, proto)
        return feeds

    def fetches(self, request: PredictRequest) -> dict[str, str]:
        """The requested tensors' names by the outputs' names."""
        aliases = list(request.output_filter)
        for alias in aliases:
            if alias not in self._outputs:
                raise ServingError(f"output tensor alias not found in signature: {alias}")
            if aliases.count(alias) > 1:
                raise ServingError(f"duplicate output tensor alias: {alias}")
        return {alias: self._outputs[alias] for alias in aliases} if aliases else self._outputs

    def _check(self, request: PredictRequest) -> None:
        wanted, defaults = self._definition.inputs.keys(), self._definition.defaults.keys()
        extra, missing = (
            sorted(request.inputs.keys() - wanted),
            sorted(wanted - request.inputs.keys() - defaults),
        )
        if extra or missing:
            sets = f"Sent extra: {{{','.join(extra)}}}. Missing but required: {{{','.join(missing)}}}."
            sizes = f"{len(request.inputs)}!={len(wanted)}"
            raise ServingError(f"input size does not match signature: {sizes}. {sets}")
