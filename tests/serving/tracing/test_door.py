"""OpenTelemetry spans, as a collector receives them over OTLP."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import grpc
import httpx
import pytest
from flask.testing import FlaskClient
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from werkzeug import Request, Response
from werkzeug.serving import make_server

from digit_core.images import to_png
from digit_serving.gateway.bridge import DEADLINE
from digit_serving.gateway.request import Deadline
from digit_serving.gateway.settings import Settings
from tests import greenlet_loop
from tests.core.drawn_numbers import draw_number
from tests.processes import gateway_process, wait_until
from tests.serving.gateway.stub_model_server import StubModelServer, TemplateModel

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = {"traceparent": f"00-{TRACE}-{PARENT}-01"}

Trace = Callable[..., AbstractContextManager[FlaskClient]]


class Collector(TraceServiceServicer):
    """OpenTelemetry collector that keeps the spans it receives, over gRPC or HTTP."""

    close: Callable[[], object]

    def __init__(self, protocol: str) -> None:
        self.resources: list[dict[str, Any]] = []
        self.spans: list[Span] = []
        # The export interval is longer than a test, so that shutdown exports the spans.
        self.environment = {"OTEL_EXPORTER_OTLP_PROTOCOL": protocol, "OTEL_BSP_SCHEDULE_DELAY": "60000"}
        port = self._listen_grpc() if protocol == "grpc" else self._listen_http()
        self.environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = f"http://127.0.0.1:{port}"

    def Export(self, request: ExportTraceServiceRequest, _: object) -> ExportTraceServiceResponse:  # noqa: N802
        for resource in request.resource_spans:
            self.resources.append(attributes(resource.resource))
            self.spans.extend(span for scope in resource.scope_spans for span in scope.spans)
        return ExportTraceServiceResponse()

    def _listen_grpc(self) -> int:
        server = grpc.server(ThreadPoolExecutor(1))
        add_TraceServiceServicer_to_server(self, server)  # type: ignore[no-untyped-call]
        port: int = server.add_insecure_port("127.0.0.1:0")
        server.start()
        self.close = lambda: server.stop(0).wait()
        return port

    def _listen_http(self) -> int:
        @Request.application
        def export(request: Request) -> Response:
            assert request.path == "/v1/traces"
            self.Export(ExportTraceServiceRequest.FromString(request.get_data()), None)
            return Response()

        def close() -> None:
            server.shutdown()
            server.server_close()

        server = make_server("127.0.0.1", 0, export, threaded=True)
        self.close = close
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        return server.server_port


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


def seconds_of(span: Span) -> float:
    return (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9


@pytest.mark.parametrize("collector", ["http/protobuf", "grpc"], indirect=True)
def test_span_of_sampled_request_joins_callers_trace(
    stub: StubModelServer, collector: Collector, trace: Trace, digits: Any
) -> None:
    with trace() as http:
        assert post(http, to_png(digits.one(7)), **SAMPLED, **{"X-Request-ID": "id-1"}) == 200
        for path in ("/livez", "/readyz", "/metrics"):
            assert http.get(path).status_code == 200
    (span,) = collector.spans
    assert (span.name, span.kind) == ("POST /v1/predict", Span.SPAN_KIND_SERVER)
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert span.status.code == Status.STATUS_CODE_UNSET
    facts = attributes(span)
    expected: dict[str, Any] = {
        "http.request.method": "POST",
        "http.route": "/v1/predict",
        "http.response.status_code": 200,
        "url.path": "/v1/predict",
        "url.scheme": "http",
        "client.address": "127.0.0.1",
        "digits.request_id": "id-1",
        "digits.model": "digits",
        "digits.model_version": 1,
        "digits.images": 1,
    }
    assert expected.items() <= facts.items()
    stages = [facts[f"digits.{name}_seconds"] for name in ("decode", "queue", "model_server")]
    assert min(stages) > 0
    assert sum(stages) <= seconds_of(span)
    assert stub.metadata["traceparent"] == f"00-{TRACE}-{span.span_id.hex()}-01"
    assert collector.resources[0]["service.name"] == "digits-gateway"


def test_span_of_reading_has_admission_wait_search_and_count_of_digits(
    stub: StubModelServer, collector: Collector, trace: Trace, digits: Any
) -> None:
    stub.answer = TemplateModel(digits)
    image, arrived = to_png(draw_number(digits, "27")), time.monotonic() - 0.5
    waited = {DEADLINE: Deadline(arrived, arrived + 30, arrived + 60)}
    with trace() as http:
        response = http.post("/v1/read", data=image, environ_overrides=waited)
        assert response.get_json()["readings"][0]["text"] == "27"
    (span,) = collector.spans
    facts = attributes(span)
    assert (span.name, facts["digits.images"], facts["digits.digits"]) == ("POST /v1/read", 1, 2)
    assert facts["digits.find_seconds"] > 0
    assert facts["digits.queue_seconds"] >= 0.5
    assert facts["digits.find_seconds"] + facts["digits.queue_seconds"] <= seconds_of(span)
    assert "27" not in facts.values(), "a number may be confidential"


def test_shared_call_has_the_trace_of_its_leader(
    stub: StubModelServer, release: threading.Event, collector: Collector, trace: Trace, digits: Any
) -> None:
    image = to_png(digits.one(7))
    with trace() as http, ThreadPoolExecutor(4) as threads:
        first = threads.submit(post, http, image)
        wait_until(lambda: stub.calls == 1)
        others = [threads.submit(post, http, image, **{"X-Request-ID": f"id-{n}"}) for n in range(3)]
        time.sleep(0.3)
        release.set()
        assert [request.result() for request in (first, *others)] == [200] * 4
    assert stub.calls == 2
    assert len({span.trace_id for span in collector.spans}) == 4
    leader, _, _ = stub.metadata["x-request-id"].split(",")
    (span,) = [span for span in collector.spans if attributes(span)["digits.request_id"] == leader]
    assert stub.metadata["traceparent"].startswith(f"00-{span.trace_id.hex()}-{span.span_id.hex()}-")


def test_span_of_failed_request_has_error_status(
    stub: StubModelServer, collector: Collector, trace: Trace, digits: Any
) -> None:
    stub.answer = lambda _request, context: context.abort(grpc.StatusCode.INTERNAL, "")
    with trace(OTEL_SERVICE_NAME="mine") as http:
        assert post(http, to_png(digits.one(7))) == 502
        assert post(http, b"x") == 400
    failed, refused = collector.spans
    assert failed.status.code == Status.STATUS_CODE_ERROR
    assert attributes(failed)["error.type"] == "model_server_error"
    assert attributes(failed)["digits.model_server_seconds"] > 0
    # By convention a 4xx is not an error of the server's span.
    assert refused.status.code == Status.STATUS_CODE_UNSET
    assert attributes(refused)["error.type"] == "not_an_image"
    assert collector.resources[0]["service.name"] == "mine"


def test_state_of_a_trace_fails_no_request_that_shares_the_call(
    stub: StubModelServer, release: threading.Event, trace: Trace, digits: Any
) -> None:
    image = to_png(digits.one(7))
    long = ",".join(f"key{number}={'a' * 240}" for number in range(32))
    with trace() as http, ThreadPoolExecutor(31) as threads:
        first = threads.submit(post, http, image, **SAMPLED, tracestate="vendor=1")
        wait_until(lambda: stub.calls == 1)
        assert stub.metadata["tracestate"] == "vendor=1"
        given = {**SAMPLED, "tracestate": long}
        others = [
            threads.submit(post, http, image, **given, **{"X-Request-ID": f"{n:0128}"}) for n in range(30)
        ]
        time.sleep(0.5)
        release.set()
        assert [request.result() for request in (first, *others)] == [200] * 31
    assert "tracestate" not in stub.metadata


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
    [{}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"}],
)
def test_settings_without_an_endpoint_or_disabled_have_no_tracing(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_SDK_DISABLED"):
        monkeypatch.setenv(name, environment.get(name, ""))
    assert not Settings().has_tracing


def test_settings_of_tracing_without_its_extra_warn_and_have_none(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    # None in sys.modules makes a module unimportable.
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    assert not Settings().has_tracing
    assert "pip install 'digits[otel]'" in caplog.text


@pytest.mark.e2e
def test_gateway_process_exports_spans_at_shutdown(
    stub: StubModelServer, collector: Collector, digits: Any
) -> None:
    headers = {"Content-Type": "image/png"} | SAMPLED
    with gateway_process(stub.target, collector.environment) as gateway:
        response = httpx.post(f"{gateway.url}/v1/predict", content=to_png(digits.one(7)), headers=headers)
        assert response.status_code == 200
    (span,) = collector.spans
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
