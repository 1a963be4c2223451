"""Keys and certificates for encrypted connections on loopback."""

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Pair:
    """A key and the certificate that it signed for itself, as files."""

    key: Path
    certificate: Path


def make(folder: Path, name: str) -> Pair:
    """A new pair, for localhost and 127.0.0.1."""
    pair = Pair(folder / f"{name}.key", folder / f"{name}.pem")
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={name}"
    files = ["-keyout", str(pair.key), "-out", str(pair.certificate)]
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*command.split(), *names, *files], check=True, capture_output=True)
    return pair
