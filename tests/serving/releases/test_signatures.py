"""Signatures by `model_signing`: `digits models verify`, and the checks of `pull` and of the drop-in."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from grpc import StatusCode
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest, ModelVersionStatus

from digit_core.artifact.models_folder import ModelsFolder
from digit_core.artifact.versions import list_versions
from digit_serving.releases import signatures
from digit_serving.releases.cli import models
from tests.processes import wait_until
from tests.serving.model_servers import running_core


@dataclass(frozen=True)
class Keys:
    """PEM files of a pair of keys, and of another public key."""

    private: Path
    public: Path
    other: Path


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    folder = tmp_path_factory.mktemp("keys")
    keys = Keys(folder / "private.pem", folder / "public.pem", folder / "other.pem")
    encoding, public = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    private, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    for path in (keys.other, keys.public):
        key = ec.generate_private_key(ec.SECP256R1())
        path.write_bytes(key.public_key().public_bytes(encoding, public))
        keys.private.write_bytes(key.private_bytes(encoding, private, plain))
    return keys


@pytest.fixture(scope="session")
def signed_version(keys: Keys, saved_version: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 1, signed as the documentation says."""
    version = Path(shutil.copytree(saved_version, tmp_path_factory.mktemp("signed") / "digits" / "1"))
    sign = Path(sys.executable).with_name("model_signing")
    signature = version / signatures.SIGNATURE
    subprocess.run(
        [sign, "sign", "key", "--private_key", keys.private, "--signature", signature, version], check=True
    )
    return version


@pytest.fixture
def version(signed_version: Path, tmp_path: Path) -> Path:
    """Copy of the signed version in another folder, by another number."""
    return Path(shutil.copytree(signed_version, tmp_path / "digits" / "7"))


def run(*arguments: object) -> Result:
    return CliRunner().invoke(models, [*map(str, arguments)])


def verify(version: Path, key: Path) -> Result:
    return run("verify", version.name, "--models", version.parent.parent, "--public-key", key)


@pytest.mark.usefixtures("verified_by_files")
def test_verify_signed_version_succeeds(version: Path, keys: Keys) -> None:
    assert verify(version, keys.public).output.splitlines() == [
        f"{version} is signed by the owner of {keys.public}.",
        f"{version} can be served.",
    ]


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def move_and_link(path: Path) -> None:
    moved = path.rename(path.parent.with_name("elsewhere.pb"))
    path.symlink_to(moved)


CHANGES: dict[str, Callable[[Path], object]] = {
    "changed file": lambda version: append(version / "saved_model.pb"),
    "missing file": lambda version: next(version.glob("variables/*")).unlink(),
    "added file": lambda version: (version / "assets.extra" / "tf_serving_warmup_requests").write_bytes(b""),
    "link in place of a file": lambda version: move_and_link(version / "fingerprint.pb"),
    "damaged signature": lambda version: (version / signatures.SIGNATURE).write_bytes(b"{}"),
    "no signature": lambda version: (version / signatures.SIGNATURE).unlink(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_verify_changed_version_fails(version: Path, keys: Keys, change: str) -> None:
    CHANGES[change](version)
    result = verify(version, keys.public)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (1, "", 1)
    assert str(version) in result.stderr


def test_verify_by_another_key_or_none_fails(version: Path, keys: Keys, tmp_path: Path) -> None:
    for key in (keys.other, keys.private):
        assert "a file, signature or key differs" in verify(version, key).stderr
    none = tmp_path / "none.pem"
    assert f"can't be verified: {none} does not exist" in verify(version, none).stderr
    assert "version 8 does not exist" in verify(version.with_name("8"), keys.public).stderr


def test_verify_without_model_signing_says_what_to_install(
    version: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "model_signing", None)
    monkeypatch.delitem(sys.modules, "digit_serving.releases.signatures")
    monkeypatch.delattr("digit_serving.releases.signatures")
    assert "pip install 'digits[signing]'" in verify(version, keys.public).stderr


def test_drop_in_with_public_key_loads_only_what_is_signed(
    version: Path, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIGITS_MODEL_PUBLIC_KEY", str(keys.public))
    arguments = ("--model_name=digits", f"--model_base_path={version.parent}", "--max_num_load_retries=0")
    with running_core(*arguments) as core:
        changed = Path(shutil.copytree(version, version.parent / "changed"))
        append(changed / "assets.extra" / "model.json")
        changed.rename(version.with_name("8"))

        def states() -> dict[int, ModelVersionStatus]:
            response = core.status(GetModelStatusRequest(model_spec={"name": "digits"}))
            return {status.version: status for status in response.model_version_status}

        wait_until(lambda: 8 in states() and states()[8].state == ModelVersionStatus.END)
        assert states()[7].state == ModelVersionStatus.AVAILABLE
        assert "8 is not what the owner of" in states()[8].status.error_message
        assert states()[8].status.error_code == StatusCode.FAILED_PRECONDITION.value[0]


@pytest.mark.usefixtures("s3")
def test_pull_with_public_key_leaves_out_what_is_not_signed(
    version: Path, keys: Keys, tmp_path: Path
) -> None:
    url, to, folder = "s3://bucket", tmp_path / "pulled", ModelsFolder(tmp_path, verify=lambda _: None)

    def pull(key: Path) -> Result:
        return run("pull", url, "--models", to, "--public-key", key)

    folder.enter(folder.read_config(), folder.version("digits", 7))
    assert run("push", url, "--models", tmp_path).exit_code == 0
    staged = to / "digits" / ".pulling-7"
    error = f"Error: {url}/digits/7: {staged} is not what the owner of {keys.other} signed"
    assert error in pull(keys.other).stderr
    assert list_versions(to / "digits") == {}
    assert pull(keys.public).exit_code == 0
    # A version that is there is checked again.
    assert pull(keys.other).exit_code == 1
    unsigned = Path(shutil.copytree(version, version.with_name("8")))
    (unsigned / signatures.SIGNATURE).unlink()
    folder.enter(folder.read_config(), folder.version("digits", 8))
    assert run("promote", 8, "--models", tmp_path, "--offline").exit_code == 0
    assert run("push", url, "--models", tmp_path, "--promote").exit_code == 0
    for _ in range(2):
        result = pull(keys.public)
        assert result.exit_code == 0
        assert f"{signatures.SIGNATURE} does not exist; version 8 is left out." in result.stdout
        config = ModelsFolder(to).read_config()
        assert (config.listed("digits"), config.labels("digits")) == ({7}, {"stable": 7})
    assert "Pulling" not in result.stdout
