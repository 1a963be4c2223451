"""Self-signed certificates for TLS on loopback."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Pair:
    """Files of a private key and of its self-signed certificate."""

    key: Path
    certificate: Path


def make(folder: Path, name: str) -> Pair:
    """Create a key and a certificate for localhost and 127.0.0.1."""
    pair = Pair(folder / f"{name}.key", folder / f"{name}.pem")
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={name}"
    files = ["-keyout", str(pair.key), "-out", str(pair.certificate)]
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*command.split(), *names, *files], check=True, capture_output=True)
    return pair


def ssl_config(folder: Path, server: Pair, client: Pair) -> Path:
    """Write a file for --ssl_config_file: the server's pair, and the only accepted client certificate."""
    fields = {"server_key": server.key, "server_cert": server.certificate, "custom_ca": client.certificate}
    lines = [f"{name}: {json.dumps(path.read_text())}" for name, path in fields.items()]
    config = folder / "ssl.config"
    config.write_text("\n".join([*lines, "client_verify: true"]))
    return config
