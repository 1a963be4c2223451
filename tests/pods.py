"""Model servers behind one DNS name, each with its own address, as pods of a headless Service."""

import contextlib
import re
import socket
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from subprocess import Popen
from threading import Thread
from typing import Any

import httpx
from dnslib import QTYPE, RR, A
from dnslib.server import BaseResolver, DNSLogger, DNSServer

from tests.processes import accepts, free_port, running, wait_until

_MONITORING = Path(__file__).parent.parent / "serving" / "config" / "monitoring.config"


class NameServer(BaseResolver):  # type: ignore[misc]
    """DNS server for one name: the gRPC target `target` resolves to the IP addresses in `addresses`."""

    def __init__(self, port: int, stack: ExitStack) -> None:
        self.addresses: list[str] = []
        silent = DNSLogger(logf=lambda *_: None)
        server = DNSServer(self, address="127.0.0.1", port=0, logger=silent)
        stack.callback(server.server.server_close)
        stack.callback(server.stop)
        server.start_thread()
        self.target = f"dns://127.0.0.1:{server.server.server_address[1]}/model-server.test:{port}"

    def resolve(self, request: Any, handler: Any) -> Any:
        """Answer a query (dnslib's BaseResolver)."""
        reply = request.reply()
        if request.q.qtype == QTYPE.A:
            for address in self.addresses:
                reply.add_answer(RR(request.q.qname, QTYPE.A, rdata=A(address)))
        return reply


@dataclass(frozen=True)
class Pod:
    """Model server at its own address, which closes connections after ten seconds."""

    address: str
    process: Popen[bytes]
    _rest_port: int
    _proxy: "_TcpProxy"

    @property
    def calls(self) -> int:
        """Number of requests that the model server has answered."""
        page = httpx.get(f"http://127.0.0.1:{self._rest_port}/monitoring/prometheus/metrics").text
        counts = re.findall(r"^:tensorflow:serving:request_count{.*} (\S+)$", page, re.MULTILINE)
        return sum(int(float(count)) for count in counts)

    def kill(self) -> None:
        """Kill the process and drop its connections."""
        self.process.kill()
        self._proxy.close()


def start(address: str, port: int, models: Path, stack: ExitStack) -> Pod:
    """Start a pod that serves these models until the stack is closed."""
    grpc_port, rest_port = free_port(), free_port()
    flags = [
        f"--port={grpc_port}",
        f"--rest_api_port={rest_port}",
        "--model_name=digits",
        f"--model_base_path={models}",
        f"--monitoring_config_file={_MONITORING}",
        "--grpc_channel_arguments=grpc.max_connection_age_ms=10000",
    ]
    process = stack.enter_context(running("model-server", *flags))
    wait_until(lambda: accepts(rest_port), process)
    proxy = _TcpProxy((address, port), grpc_port)
    stack.callback(proxy.close)
    return Pod(address, process, rest_port, proxy)


class _TcpProxy(ThreadingTCPServer):
    """TCP proxy that makes a server on 127.0.0.1 available at another address."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, address: tuple[str, int], port: int) -> None:
        super().__init__(address, _Connection)
        self.port = port
        Thread(target=self.serve_forever, args=[0.05], daemon=True).start()

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class _Connection(BaseRequestHandler):
    server: _TcpProxy

    def handle(self) -> None:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self.server.port)) as upstream,
        ):
            back = Thread(target=_forward, args=[upstream, self.request])
            back.start()
            _forward(self.request, upstream)
            back.join()


def _forward(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
