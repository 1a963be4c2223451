"""Model servers behind one DNS name, each with its own address, as pods of a headless Service."""

import re
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
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

    @property
    def calls(self) -> int:
        """Number of requests that the model server has answered."""
        page = httpx.get(f"http://{self.address}:{self._rest_port}/monitoring/prometheus/metrics").text
        counts = re.findall(r"^:tensorflow:serving:request_count{.*} (\S+)$", page, re.MULTILINE)
        return sum(int(float(count)) for count in counts)


def start(address: str, port: int, models: Path, stack: ExitStack) -> Pod:
    """Start a pod that serves these models until the stack is closed."""
    rest_port = free_port()
    flags = [
        f"--host={address}",
        f"--port={port}",
        f"--rest_api_port={rest_port}",
        "--model_name=digits",
        f"--model_base_path={models}",
        f"--monitoring_config_file={_MONITORING}",
        "--grpc_channel_arguments=grpc.max_connection_age_ms=10000",
    ]
    process = stack.enter_context(running("model-server", *flags))
    wait_until(lambda: accepts(rest_port, address), process)
    return Pod(address, process, rest_port)
