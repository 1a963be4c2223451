"""OpenTelemetry spans, as a collector receives them over OTLP."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import grpc
import httpx
import pytest
from flask.testing import FlaskClient
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from werkzeug import Request, Response
from werkzeug.serving import make_server

from digit_core.images import to_png
from digit_serving.gateway.app import create_tracer
from digit_serving.gateway.bridge import ARRIVED_AT
from digit_serving.gateway.settings import Settings
from tests import greenlet_loop
from tests.processes import wait_until
from tests.serving.gateway.conftest import (
    StubModelServer,
    TemplateModel,
    draw_number,
    gateway_process,
)

CALL = "tensorflow.serving.PredictionService/Predict"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CLOCK_SKEW = 1e6
"""Nanoseconds by which Unix time and time.monotonic may drift apart within a test."""
SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-01"}


Trace = Callable[..., AbstractContextManager[FlaskClient]]


class Collector:
    """OpenTelemetry collector that keeps the spans it receives, over gRPC or HTTP."""

    def __init__(self, protocol: str) -> None:
        self.resources: list[dict[str, Any]] = []
        self.spans: list[Span] = []
        # The export interval is longer than a test, so that shutdown exports the spans.
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
        @Request.application
        def keep(request: Request) -> Response:
            assert request.path == "/v1/traces"
            self._keep(ExportTraceServiceRequest.FromString(request.get_data()))
            return Response()

        server = make_server("127.0.0.1", 0, keep, threaded=True)
        self._servers.callback(server.server_close)
        self._servers.callback(server.shutdown)
        threading.Thread(target=server.serve_forever).start()
        return f"127.0.0.1:{server.server_port}"

    def close(self) -> None:
        self._servers.close()

    def _keep(self, request: ExportTraceServiceRequest) -> ExportTraceServiceResponse:
        for resource in request.resource_spans:
            self.resources.append(attributes(resource.resource))
            self.spans.extend(span for scope in resource.scope_spans for span in scope.spans)
        return ExportTraceServiceResponse()

    def spans_named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]


@pytest.fixture
def collector(request: pytest.FixtureRequest) -> Iterator[Collector]:
    collector = Collector(getattr(request, "param", "http/protobuf"))
    yield collector
    collector.close()


@pytest.fixture
def trace(stub: StubModelServer, collector: Collector, monkeypatch: pytest.MonkeyPatch) -> Trace:
    """Context manager that yields a client of a gateway that traces; it exports its spans after the block."""

    @contextmanager
    def trace(**environment: str) -> Iterator[FlaskClient]:
        for name, value in (collector.environment | environment).items():
            monkeypatch.setenv(name, value)
        with greenlet_loop.keeping(Settings(model_server=stub.target)) as http:
            yield http

    return trace


def attributes(message: Any) -> dict[str, Any]:
    return {
        attribute.key: getattr(attribute.value, attribute.value.WhichOneof("value"))
        for attribute in message.attributes
    }


def post(http: FlaskClient, image: bytes, **headers: str) -> int:
    # A client of its own: threads share the given one.
    client = http.application.test_client()
    return client.post("/v1/predict", data=image, headers=headers).status_code


@pytest.mark.parametrize("collector", ["http/protobuf", "grpc"], indirect=True)
def test_spans_of_sampled_request_join_callers_trace(
    stub: StubModelServer, collector: Collector, trace: Trace, digits: Any
) -> None:
    with trace() as http:
        assert post(http, to_png(digits.one(7)), **SAMPLED, **{"X-Request-ID": "id-1"}) == 200
        assert http.get("/metrics").status_code == 200
    (server_span,) = collector.spans_named("POST /v1/predict")
    (call,) = collector.spans_named(CALL)
    stages = [span for span in collector.spans if span is not server_span]
    assert {span.name for span in stages} == {"decode", "queue", call.name}
    assert len(stages) == 3, "probes are not traced"

    assert server_span.kind == Span.SPAN_KIND_SERVER
    assert (server_span.trace_id.hex(), server_span.parent_span_id.hex()) == (TRACE, PARENT)
    expected: dict[str, Any] = {
        "http.request.method": "POST",
        "http.route": "/v1/predict",
        "http.response.status_code": 200,
        "url.path": "/v1/predict",
        "digits.request_id": "id-1",
        "digits.model": "digits",
    }
    assert expected.items() <= attributes(server_span).items()
    for span in stages:
        assert (span.trace_id, span.parent_span_id) == (server_span.trace_id, server_span.span_id)
        assert span.start_time_unix_nano <= span.end_time_unix_nano
        assert server_span.start_time_unix_nano - CLOCK_SKEW <= span.start_time_unix_nano
        assert span.end_time_unix_nano <= server_span.end_time_unix_nano + CLOCK_SKEW

    assert call.kind == Span.SPAN_KIND_CLIENT
    expected = {"rpc.system.name": "grpc", "rpc.response.status_code": "OK"}
    expected["server.port"] = int(stub.target.rpartition(":")[2])
    assert expected.items() <= attributes(call).items()
    assert stub.metadata["traceparent"] == f"00-{TRACE}-{call.span_id.hex()}-01"
    assert collector.resources[0]["service.name"] == "digits-gateway"


def test_spans_of_reading_include_the_search(
    stub: StubModelServer, collector: Collector, trace: Trace, digits: Any
) -> None:
    stub.answer = TemplateModel(digits)
    number = to_png(draw_number(digits, "27"))
    with trace() as http:
        response = http.post("/v1/read", data=number)
        assert response.status_code == 200
    (server_span,) = collector.spans_named("POST /v1/read")
    assert {"digits.images": 1, "digits.digits": 2}.items() <= attributes(server_span).items()
    stages = [span for span in collector.spans if span is not server_span]
    assert {span.name for span in stages} == {"decode", "find", "queue", CALL}
    for span in stages:
        assert server_span.start_time_unix_nano - CLOCK_SKEW <= span.start_time_unix_nano
        assert span.end_time_unix_nano <= server_span.end_time_unix_nano + CLOCK_SKEW


def test_span_of_shared_call_links_to_its_requests(
    stub: StubModelServer, release: threading.Event, collector: Collector, trace: Trace, digits: Any
) -> None:
    image = to_png(digits.one(7))
    with trace() as http, ThreadPoolExecutor(4) as threads:
        first = threads.submit(post, http, image)
        wait_until(lambda: stub.calls == 1)
        others = [threads.submit(post, http, image) for _ in range(3)]
        time.sleep(0.3)
        release.set()
        assert [request.result() for request in (first, *others)] == [200] * 4
    server_spans = {span.span_id: span for span in collector.spans_named("POST /v1/predict")}
    assert len(server_spans) == 4
    assert len({span.trace_id for span in server_spans.values()}) == 4
    _, shared = sorted(collector.spans_named(CALL), key=lambda span: span.start_time_unix_nano)
    assert attributes(shared).items() >= {"digits.images": 3, "digits.requests": 3}.items()
    followers = collector.spans_named("shared call")
    assert len(followers) == 2
    assert {link.span_id for link in shared.links} == {span.parent_span_id for span in followers}
    for span in followers:
        assert [link.span_id for link in span.links] == [shared.span_id]


def test_span_of_admission_wait_ends_before_decoding(
    stub: StubModelServer, collector: Collector, trace: Trace, digits: Any
) -> None:
    with trace() as http:
        response = http.post(
            "/v1/predict",
            data=to_png(digits.one(7)),
            content_type="image/png",
            environ_overrides={ARRIVED_AT: time.monotonic() - 0.5},
        )
        assert response.status_code == 200
    (server_span,) = collector.spans_named("POST /v1/predict")
    (decode,) = collector.spans_named("decode")
    admission, _ = sorted(collector.spans_named("queue"), key=lambda span: span.start_time_unix_nano)
    assert admission.start_time_unix_nano == pytest.approx(server_span.start_time_unix_nano, abs=CLOCK_SKEW)
    assert admission.end_time_unix_nano - admission.start_time_unix_nano >= 0.5e9
    assert admission.end_time_unix_nano <= decode.start_time_unix_nano + CLOCK_SKEW


def test_spans_of_failed_call_and_its_request_have_error_status(
    stub: StubModelServer, collector: Collector, trace: Trace, digits: Any
) -> None:
    stub.answer = lambda _request, context: context.abort(grpc.StatusCode.INTERNAL, "")
    with trace(OTEL_SERVICE_NAME="mine") as http:
        assert post(http, to_png(digits.one(7))) == 502
        assert post(http, b"x") == 400
    failed, refused = collector.spans_named("POST /v1/predict")
    (call,) = collector.spans_named(CALL)
    assert failed.status.code == call.status.code == Status.STATUS_CODE_ERROR
    assert attributes(call)["error.type"] == "INTERNAL"
    assert attributes(failed)["error.type"] == "model_server_error"
    # By convention a 4xx is not an error of the server's span.
    assert refused.status.code == Status.STATUS_CODE_UNSET
    assert attributes(refused)["error.type"] == "not_an_image"
    assert collector.resources[0]["service.name"] == "mine"


def test_span_of_unsampled_request_is_propagated_but_not_exported(
    stub: StubModelServer, collector: Collector, trace: Trace, digits: Any
) -> None:
    with trace() as http:
        assert post(http, to_png(digits.one(7)), traceparent=f"00-{TRACE}-{PARENT}-00") == 200
    assert collector.spans == []
    assert stub.metadata["traceparent"].startswith(f"00-{TRACE}-")
    assert stub.metadata["traceparent"].endswith("-00")


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"},
    ],
)
def test_create_tracer_when_off_returns_none(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert create_tracer(Settings()) is None


def test_create_tracer_without_extra_warns_and_returns_none(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    # None in sys.modules makes a module unimportable.
    monkeypatch.setitem(sys.modules, "digit_serving.gateway.tracing", None)
    assert create_tracer(Settings()) is None
    assert "pip install '.[otel]'" in caplog.text


def test_gateway_process_exports_spans_at_shutdown(
    stub: StubModelServer, collector: Collector, digits: Any
) -> None:
    headers = {"Content-Type": "image/png"} | SAMPLED
    with gateway_process(stub.target, collector.environment) as gateway:
        response = httpx.post(f"{gateway.url}/v1/predict", content=to_png(digits.one(7)), headers=headers)
        assert response.status_code == 200
    (server_span,) = collector.spans_named("POST /v1/predict")
    assert (server_span.trace_id.hex(), server_span.parent_span_id.hex()) == (TRACE, PARENT)
    assert len(collector.spans_named(CALL)) == 1
