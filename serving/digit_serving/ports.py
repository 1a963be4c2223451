"""Ports of `digits up`. `python -m digit_serving.ports` checks them before an installation."""

import os
import sys
from dataclasses import dataclass

from digit_serving import sockets


@dataclass(frozen=True, slots=True)
class Ports:
    """Addresses of both services.

    `host` and `gateway` are the gateway's. The model server's gRPC and REST ports listen on 127.0.0.1, but
    TensorFlow Serving itself opens them on every address.
    """

    host: str
    gateway: int
    grpc: int
    rest: int

    @property
    def url(self) -> str:
        """The gateway's URL."""
        return f"http://{self.host}:{self.gateway}"

    def conflict(self) -> str:
        """Return a sentence on the ports in use, with the ways to choose others; "" if all are free."""
        taken = [
            (f"{port} ({name})", f"{option} PORT", f"{variable}=PORT")
            for name, option, variable, host, port in (
                ("gateway", "--port", "DIGITS_PORT", self.host, self.gateway),
                ("model server, gRPC", "--grpc-port", "DIGITS_GRPC_PORT", "", self.grpc),
                ("model server, REST", "--rest-port", "DIGITS_REST_PORT", "", self.rest),
            )
            if not _is_free(host, port)
        ]
        if not taken:
            return ""
        names, options, variables = zip(*taken, strict=True)
        return (
            f"ports in use: {', '.join(names)}; choose others with "
            f"`{' '.join(variables)} make run` or `digits up {' '.join(options)}`"
        )


DEFAULTS = Ports("127.0.0.1", 8080, 8500, 8501)


def _is_free(host: str, port: int) -> bool:
    try:
        sockets.listen(host, port).close()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    _given = (os.environ.get(f"DIGITS_{name}", "") for name in ("PORT", "GRPC_PORT", "REST_PORT"))
    # `digits up` reports an invalid number.
    _numbers = [int(given) if given.isdigit() else 0 for given in _given]
    _defaults = (DEFAULTS.gateway, DEFAULTS.grpc, DEFAULTS.rest)
    _chosen = [number or default for number, default in zip(_numbers, _defaults, strict=True)]
    sys.exit(Ports(os.environ.get("DIGITS_HOST") or DEFAULTS.host, *_chosen).conflict() or None)
