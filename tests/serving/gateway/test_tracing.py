"""The traces of a real gateway, as a collector gets them that speaks OTLP over HTTP or over gRPC."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import grpc
import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from digit_client.images import to_png
from digit_client.tfserving.protos import PredictRequest, PredictResponse
from digit_serving.gateway import tracing_setup
from digit_serving.gateway.settings import Settings
from tests.processes import answers, free_port, running, wait_until
from tests.serving.gateway.conftest import FIVE, FaultyModelServer, sevens

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-01"}


class Collector:
    """Takes OTLP, over gRPC or HTTP, and keeps the spans."""

    def __init__(self, protocol: str) -> None:
        self.resources: list[dict[str, Any]] = []
        self.spans: list[Span] = []
        # So late that what is told is told when the gateway ends.
        self.environment = {"OTEL_EXPORTER_OTLP_PROTOCOL": protocol, "OTEL_BSP_SCHEDULE_DELAY": "60000"}
        self._servers = ExitStack()
        address = self._listen_grpc() if protocol == "grpc" else self._listen_http()
        self.environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://{address}"

    def _listen_grpc(self) -> str:
        server = grpc.server(ThreadPoolExecutor(1))
        method = grpc.unary_unary_rpc_method_handler(
            lambda request, _context: self._keep(request),
            ExportTraceServiceRequest.FromString,
            ExportTraceServiceResponse.SerializeToString,
        )
        service = grpc.method_handlers_generic_handler(
            "opentelemetry.proto.collector.trace.v1.TraceService", {"Export": method}
        )
        server.add_generic_rpc_handlers((service,))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        self._servers.callback(lambda: server.stop(0).wait())
        return f"127.0.0.1:{port}"

    def _listen_http(self) -> str:
        keep = self._keep

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/traces"
                body = self.rfile.read(int(self.headers["Content-Length"]))
                keep(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nobody reads it."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._servers.callback(server.server_close)
        self._servers.callback(server.shutdown)
        Thread(target=server.serve_forever).start()
        return f"127.0.0.1:{server.server_port}"

    def close(self) -> None:
        self._servers.close()

    def _keep(self, request: ExportTraceServiceRequest) -> ExportTraceServiceResponse:
        for resource in request.resource_spans:
            self.resources.append(attributes(resource.resource))
            self.spans.extend(span for scope in resource.scope_spans for span in scope.spans)
        return ExportTraceServiceResponse()

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]


@pytest.fixture
def collector(request: pytest.FixtureRequest) -> Iterator[Collector]:
    collector = Collector(getattr(request, "param", "http/protobuf"))
    yield collector
    collector.close()


@contextmanager
def traced_gateway(
    faulty: FaultyModelServer, collector: Collector, **environment: str
) -> Iterator[httpx.Client]:
    """A gateway that has told all when this ends."""
    port = free_port()
    settings = {
        "DIGITS_PORT": str(port),
        "DIGITS_MODEL_SERVER": faulty.target,
        "DIGITS_MAX_INFLIGHT_CALLS": "1",
    }
    settings |= collector.environment | {"DIGITS_WORKERS": "1"} | environment
    url = f"http://127.0.0.1:{port}"
    with running("gateway", environment=settings) as process, httpx.Client(base_url=url) as http:
        wait_until(lambda: answers(f"{url}/livez"), process)
        yield http


def attributes(told: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in told.attributes}


def post(http: httpx.Client, image: bytes, **headers: str) -> int:
    return http.post(
        "/v1/predict", content=image, headers={"Content-Type": "image/png"} | headers
    ).status_code


@pytest.mark.parametrize("collector", ["http/protobuf", "grpc"], indirect=True)
def test_a_request_and_its_stages_are_spans_of_the_callers_trace(
    faulty: FaultyModelServer, collector: Collector, digits: Any
) -> None:
    faulty.answer = sevens
    with traced_gateway(faulty, collector) as http:
        assert post(http, to_png(digits.one(7)), **SAMPLED, **{"X-Request-ID": "id-1"}) == 200
        assert http.get("/metrics").status_code == 200
    (whole,) = collector.named("POST /v1/predict")
    (call,) = collector.named("tensorflow.serving.PredictionService/Predict")
    stages = [span for span in collector.spans if span is not whole]
    assert {span.name for span in stages} == {"decode", "normalise", "queue", call.name}
    assert len(stages) == 4, "health checks are not traced"

    assert whole.kind == Span.SPAN_KIND_SERVER
    assert (whole.trace_id.hex(), whole.parent_span_id.hex()) == (TRACE, PARENT)
    assert (
        attributes(whole).items()
        >= {
            "http.request.method": "POST",
            "http.route": "/v1/predict",
            "http.response.status_code": 200,
            "url.path": "/v1/predict",
            "digits.request_id": "id-1",
        }.items()
    )
    for span in stages:
        assert (span.trace_id, span.parent_span_id) == (whole.trace_id, whole.span_id)
        assert span.start_time_unix_nano <= span.end_time_unix_nano
        # The clock that tells the time of day and the one that measures differ a little.
        assert whole.start_time_unix_nano - 1e6 <= span.start_time_unix_nano
        assert span.end_time_unix_nano <= whole.end_time_unix_nano + 1e6

    assert call.kind == Span.SPAN_KIND_CLIENT
    assert (
        attributes(call).items()
        >= {
            "rpc.system.name": "grpc",
            "rpc.response.status_code": "OK",
            "server.port": int(faulty.target.rpartition(":")[2]),
        }.items()
    )
    assert faulty.metadata["traceparent"] == f"00-{TRACE}-{call.span_id.hex()}-01"
    assert collector.resources[0]["service.name"] == "digits-gateway"


def test_a_shared_call_is_linked_to_those_who_share_it(
    faulty: FaultyModelServer, collector: Collector, digits: Any
) -> None:
    def slowly(request: PredictRequest, context: grpc.ServicerContext) -> PredictResponse:
        time.sleep(0.7)
        return sevens(request, context)

    faulty.answer = slowly
    image = to_png(digits.one(7))
    with traced_gateway(faulty, collector) as http, ThreadPoolExecutor(4) as threads:
        first = threads.submit(post, http, image)
        time.sleep(0.3)
        others = [threads.submit(post, http, image) for _ in range(3)]
        assert [asked.result() for asked in (first, *others)] == [200] * 4
    wholes = {span.span_id: span for span in collector.named("POST /v1/predict")}
    assert len(wholes) == 4
    assert len({span.trace_id for span in wholes.values()}) == 4
    _, shared = sorted(
        collector.named("tensorflow.serving.PredictionService/Predict"),
        key=lambda span: span.start_time_unix_nano,
    )
    assert attributes(shared).items() >= {"digits.images": 3, "digits.requests": 3}.items()
    followers = collector.named("shared call")
    assert len(followers) == 2
    assert {link.span_id for link in shared.links} == {span.parent_span_id for span in followers}
    for span in followers:
        assert [link.span_id for link in span.links] == [shared.span_id]


def test_the_wait_for_a_turn_is_a_stage(faulty: FaultyModelServer, collector: Collector) -> None:
    faulty.answer = sevens
    photograph = FIVE.read_bytes()
    head = b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
    with traced_gateway(faulty, collector) as http, ExitStack() as stack:
        address = (http.base_url.host, http.base_url.port)
        clients = [stack.enter_context(socket.create_connection(address, timeout=10)) for _ in range(40)]
        for client in clients:
            client.sendall(head % len(photograph) + photograph)
        for client in clients:
            assert client.recv(4096).startswith(b"HTTP/1.1 200 ")
    decoded = {span.parent_span_id: span.start_time_unix_nano for span in collector.named("decode")}
    waits = [
        sorted(
            (span for span in collector.named("queue") if span.parent_span_id == whole.span_id),
            key=lambda span: span.start_time_unix_nano,
        )
        for whole in collector.named("POST /v1/predict")
    ]
    assert len(waits) == 40
    before_its_turn = [two[0] for two in waits if len(two) == 2]
    assert before_its_turn
    for span in before_its_turn:
        # The clock that tells the time of day and the one that measures differ a little.
        assert span.end_time_unix_nano <= decoded[span.parent_span_id] + 1e6


def test_a_failure_is_told(faulty: FaultyModelServer, collector: Collector, digits: Any) -> None:
    faulty.answer = lambda _request, context: context.abort(grpc.StatusCode.INTERNAL, "")
    with traced_gateway(faulty, collector, OTEL_SERVICE_NAME="mine") as http:
        assert post(http, to_png(digits.one(7))) == 502
        assert post(http, b"x") == 400
    failed, refused = collector.named("POST /v1/predict")
    (call,) = collector.named("tensorflow.serving.PredictionService/Predict")
    assert failed.status.code == call.status.code == Status.STATUS_CODE_ERROR
    assert attributes(call)["error.type"] == "INTERNAL"
    assert attributes(failed)["error.type"] == "model_server_error"
    # Whose fault it is is the caller's to say.
    assert refused.status.code == Status.STATUS_CODE_UNSET
    assert attributes(refused)["error.type"] == "not_an_image"
    assert collector.resources[0]["service.name"] == "mine"


def test_what_the_caller_does_not_sample_is_not_told_but_passed_on(
    faulty: FaultyModelServer, collector: Collector, digits: Any
) -> None:
    faulty.answer = sevens
    with traced_gateway(faulty, collector) as http:
        assert post(http, to_png(digits.one(7)), traceparent=f"00-{TRACE}-{PARENT}-00") == 200
    assert collector.spans == []
    assert faulty.metadata["traceparent"].startswith(f"00-{TRACE}-")
    assert faulty.metadata["traceparent"].endswith("-00")


def test_they_are_off_where_no_collector_is_named(
    faulty: FaultyModelServer, collector: Collector, digits: Any
) -> None:
    faulty.answer = sevens
    for off in ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, {"OTEL_SDK_DISABLED": "true"}):
        with traced_gateway(faulty, collector, **off) as http:
            assert post(http, to_png(digits.one(7)), **SAMPLED) == 200
    assert collector.spans == []
    assert "traceparent" not in faulty.metadata


def test_a_collector_without_the_extra_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is None in sys.modules can't be imported."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    code = """if True:
        import sys
        sys.modules["opentelemetry"] = None
        from digit_serving.gateway.settings import Settings
        from tests import greenlet_loop

        assert greenlet_loop.client(Settings()).get("/livez").status_code == 200
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install '.[otel]'" in done.stderr


def test_without_one_there_are_no_traces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", raising=False)
    assert tracing_setup.traces(Settings()) is None
