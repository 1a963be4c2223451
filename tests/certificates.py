"""Self-signed certificates for TLS on loopback."""

import json
import subprocess
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key


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


def ending(pair: Pair, file: Path, end: datetime) -> Pair:
    """Write another certificate of the key, for localhost, which is valid for 30 days until `end`."""
    key = load_pem_private_key(pair.key.read_bytes(), None)
    assert isinstance(key, RSAPrivateKey)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    names = x509.SubjectAlternativeName([x509.DNSName("localhost")])
    built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    built = built.serial_number(x509.random_serial_number()).add_extension(names, critical=False)
    built = built.not_valid_before(end - timedelta(days=30)).not_valid_after(end)
    file.write_bytes(built.sign(key, SHA256()).public_bytes(Encoding.PEM))
    return Pair(pair.key, file)


def ssl_config(folder: Path, server: Pair, client: Pair) -> Path:
    """Write a file for --ssl_config_file: the server's pair, and the only accepted client certificate."""
    fields = {"server_key": server.key, "server_cert": server.certificate, "custom_ca": client.certificate}
    lines = [f"{name}: {json.dumps(path.read_text())}" for name, path in fields.items()]
    config = folder / "ssl.config"
    config.write_text("\n".join([*lines, "client_verify: true"]))
    return config
