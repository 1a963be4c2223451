"""`digits models push` and `pull`, with an S3 server."""

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from click.testing import CliRunner, Result

from digit_serving.releases.bucket import Bucket, Manifest
from digit_serving.releases.cli import models
from digit_serving.releases.config import ReleaseError
from digit_serving.releases.versions import list_versions
from tests.s3 import S3Server

FILES = {
    "saved_model.pb": b"graph",
    "variables/variables.index": b"index",
    "variables/variables.data-00000-of-00001": b"weights" * 10_000,
    "assets.extra/model.json": b"{}",
}
URL = "s3://bucket/digits"


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with S3Server() as server:
        yield server


@pytest.fixture
def s3(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Filesystem of an empty bucket."""
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    filesystem = server.filesystem()
    filesystem.mkdir("bucket")
    yield filesystem
    filesystem.rm("bucket", recursive=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Folder with versions 2 and 11."""
    for number in (2, 11):
        publish(tmp_path / "digits", number, b"version %d" % number)
    return tmp_path / "digits"


@pytest.fixture
def to(tmp_path: Path) -> Path:
    """Folder to pull into, which does not exist yet."""
    return tmp_path / "pulled" / "digits"


def publish(folder: Path, number: int, graph: bytes) -> Path:
    for name, content in {**FILES, "saved_model.pb": graph}.items():
        path = folder / str(number) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder / str(number)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(models, [*map(str, arguments)])


def succeed(*arguments: object) -> str:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


def fail(*arguments: object) -> str:
    result = run(*arguments)
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1), result.output
    return result.stderr


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".pulling-lock"
    }


def files_of(s3: Any, number: int) -> dict[str, str]:
    """Return the path in the bucket of each file of a version."""
    paths = s3.find(f"bucket/digits/{number}")
    return {path.split("/", 4)[4]: path for path in paths if not path.endswith("/manifest.json")}


def wait_for_each_other(count: int) -> Callable[[str], None]:
    """Return a function for reports: so many pushers wait until all know that the version is missing."""
    barrier = Barrier(count)

    def report(line: str) -> None:
        if line.startswith("Pushing"):
            barrier.wait(30)

    return report


def test_push_and_pull_copy_the_newest_version(s3: Any, folder: Path, to: Path) -> None:
    assert succeed("push", URL, "--models", folder).splitlines() == [
        "Pushing 4 of 4 files of version 11 ...",
        "s3://bucket/digits/11 is complete.",
    ]
    succeed("push", URL, "--models", folder, "--version", 2)
    assert succeed("pull", URL, "--to", to).splitlines() == [
        "Pulling 4 of 4 files of version 11 ...",
        f"{to}/11 is complete.",
    ]
    assert contents(to) == {f"11/{name}": content for name, content in contents(folder / "11").items()}


def test_push_and_pull_again_transfer_nothing(s3: Any, folder: Path, to: Path) -> None:
    succeed("push", URL, "--models", folder)
    before = s3.find("bucket", detail=True)
    assert succeed("push", f"{URL}/", "--models", folder) == "s3://bucket/digits/11 is complete.\n"
    assert s3.find("bucket", detail=True) == before
    succeed("pull", URL, "--to", to)
    for path in files_of(s3, 11).values():
        s3.rm(path)
    assert succeed("pull", URL, "--to", to) == f"{to}/11 is complete.\n"


def test_manifest_has_the_checksum_of_each_file(s3: Any, folder: Path) -> None:
    succeed("push", URL, "--models", folder)
    text = s3.cat("bucket/digits/11/manifest.json")
    expected = {
        name: hashlib.sha256(content).hexdigest() for name, content in contents(folder / "11").items()
    }
    assert json.loads(text) == {"sha256": expected}
    assert {path.split("/")[3] for path in files_of(s3, 11).values()} == {hashlib.sha256(text).hexdigest()}


def test_push_goes_on_with_the_missing_files(s3: Any, folder: Path, to: Path) -> None:
    succeed("push", URL, "--models", folder)
    # A push that was interrupted has written no manifest.
    s3.rm("bucket/digits/11/manifest.json")
    s3.rm(files_of(s3, 11)["saved_model.pb"])
    assert "has no version" in fail("pull", URL, "--to", to)
    assert "Pushing 1 of 4 files" in succeed("push", URL, "--models", folder)
    succeed("pull", URL, "--to", to)
    assert contents(to / "11") == contents(folder / "11")


def test_pull_goes_on_with_the_missing_and_damaged_files(s3: Any, folder: Path, to: Path) -> None:
    succeed("push", URL, "--models", folder)
    staged = to / ".pulling-11"
    publish(to, 11, b"version 1?").rename(staged)
    (staged / "assets.extra" / "model.json").unlink()
    (staged / "assets.extra" / "other").write_bytes(b"of another manifest")
    assert "Pulling 2 of 4 files" in succeed("pull", URL, "--to", to)
    assert contents(to) == {f"11/{name}": content for name, content in contents(folder / "11").items()}


@pytest.mark.parametrize("name", FILES)
def test_pull_damaged_or_missing_file_in_bucket_publishes_nothing(
    s3: Any, folder: Path, to: Path, name: str
) -> None:
    succeed("push", URL, "--models", folder)
    path = files_of(s3, 11)[name]
    content = bytearray(s3.cat(path))
    content[len(content) // 2] ^= 1
    s3.pipe(path, bytes(content))
    message = f"{URL}/11: {name} is missing or damaged; remove the version there and push it again"
    assert message in fail("pull", URL, "--to", to)
    s3.rm(path)
    assert message in fail("pull", URL, "--to", to)
    assert list_versions(to) == {}
    s3.rm("bucket/digits/11", recursive=True)
    succeed("push", URL, "--models", folder)
    succeed("pull", URL, "--to", to)
    assert contents(to / "11") == contents(folder / "11")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b'{"sha256": {"a": 1}}',
        b'{"sha256": []}',
        Manifest({"../elsewhere": "0"}).text(),
        Manifest({"/elsewhere": "0"}).text(),
    ],
)
def test_pull_invalid_manifest_publishes_nothing(s3: Any, to: Path, text: bytes) -> None:
    s3.pipe("bucket/digits/3/manifest.json", text)
    assert f"{URL}/3: the manifest is damaged" in fail("pull", URL, "--to", to)
    assert contents(to) == {}


def test_push_version_with_a_link_to_a_folder_or_to_nothing_pushes_nothing(s3: Any, folder: Path) -> None:
    variables = folder / "11" / "variables"
    variables.rename(folder / "shared")
    variables.symlink_to("../shared")
    assert f"{variables} is neither a file nor a folder" in fail("push", URL, "--models", folder)
    variables.unlink()
    variables.symlink_to("nothing")
    assert f"{variables} is neither a file nor a folder" in fail("push", URL, "--models", folder)
    assert s3.find("bucket") == []


def test_version_with_other_files_is_never_touched(s3: Any, folder: Path, to: Path) -> None:
    succeed("push", URL, "--models", folder)
    succeed("pull", URL, "--to", to)
    before, pulled = s3.find("bucket", detail=True), contents(to)
    publish(folder, 11, b"another")
    assert f"{URL}/11 has other files than {folder}/11" in fail("push", URL, "--models", folder)
    assert s3.find("bucket", detail=True) == before
    s3.rm("bucket/digits", recursive=True)
    succeed("push", URL, "--models", folder)
    assert f"{to}/11 has other files; remove one of the two" in fail("pull", URL, "--to", to)
    assert contents(to) == pulled


def test_concurrent_pushers_of_different_files_one_wins(s3: Any, folder: Path, tmp_path: Path) -> None:
    others = tmp_path / "others"
    publish(others, 11, b"others")
    report = wait_for_each_other(2)

    def push(versions: Path) -> str:
        try:
            Bucket(URL).push(list_versions(versions)[11], report)
        except ReleaseError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor() as pool:
        errors = dict(zip((folder, others), pool.map(push, (folder, others)), strict=True))
    (loser,) = (versions for versions, error in errors.items() if error)
    assert errors[loser] == f"{URL}/11 has other files than {loser}/11, and a version never changes"
    (winner,) = errors.keys() - {loser}
    Bucket(URL).pull(11, tmp_path / "pulled", lambda _: None, 1, print)
    assert contents(tmp_path / "pulled" / "11") == contents(winner / "11")


def test_concurrent_pushers_of_the_same_files_both_succeed(s3: Any, folder: Path) -> None:
    report = wait_for_each_other(2)
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda _: Bucket(URL).push(list_versions(folder)[11], report), range(2)))
    assert Bucket(URL).versions() == {11}


def test_concurrent_pulls_download_once(s3: Any, folder: Path, to: Path) -> None:
    succeed("push", URL, "--models", folder)
    lines: list[str] = []
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda _: Bucket(URL).pull(11, to, lambda _: None, 30, lines.append), range(3)))
    assert sorted(lines) == [*3 * [f"{to}/11 is complete."], "Pulling 4 of 4 files of version 11 ..."]


def test_pull_refused_by_the_check_publishes_nothing(s3: Any, folder: Path, to: Path) -> None:
    succeed("push", URL, "--models", folder)

    def refuse(staged: Path) -> None:
        assert contents(staged) == contents(folder / "11")
        raise ReleaseError("not signed")

    with pytest.raises(ReleaseError, match="/11: not signed"):
        Bucket(URL).pull(11, to, refuse, 1, print)
    assert list_versions(to) == {}
    Bucket(URL).pull(11, to, lambda _: None, 1, print)
    with pytest.raises(ReleaseError, match="/11: not signed"):
        Bucket(URL).pull(11, to, refuse, 1, print)


CONFIG = """model_config_list {{ config {{ name: "digits" base_path: "/models/digits"
    model_version_policy {{ {policy} }} version_labels {{ key: "stable" value: {stable} }} }} }}"""


@pytest.mark.parametrize(
    ("policy", "stable", "pulled"),
    [
        ("specific { versions: 2 }", 2, {2}),
        ("specific { versions: 2 versions: 11 }", 2, {2, 11}),
        ("all { }", 2, {2, 11}),
        ("latest { }", 11, {11}),
        # The server starts without the version of a label, too.
        ("latest { }", 12, {11}),
        ("latest { num_versions: 2 }", 11, {2, 11}),
    ],
)
def test_pull_by_config_gets_the_versions_that_it_loads(
    s3: Any, folder: Path, to: Path, tmp_path: Path, policy: str, stable: int, pulled: set[int]
) -> None:
    for number in (2, 11):
        succeed("push", URL, "--models", folder, "--version", number)
    config = tmp_path / "models.config"
    config.write_text(CONFIG.format(policy=policy, stable=stable))
    succeed("pull", URL, "--to", to, "--config", config)
    assert list_versions(to).keys() == pulled


def test_pull_by_config_of_a_missing_version_pulls_nothing(
    s3: Any, folder: Path, to: Path, tmp_path: Path
) -> None:
    succeed("push", URL, "--models", folder)
    config = tmp_path / "models.config"
    config.write_text(CONFIG.format(policy="specific { versions: 11 versions: 2 }", stable=11))
    error = fail("pull", URL, "--to", to, "--config", config)
    assert f"{URL} lacks version 2, which {config} lists" in error
    assert "choose one of its models" in fail("pull", URL, "--to", to, "--config", config, "--model", "x")
    assert not to.exists()


def test_pull_by_invalid_config_names_the_file(s3: Any, folder: Path, to: Path, tmp_path: Path) -> None:
    succeed("push", URL, "--models", folder)
    config = tmp_path / "models.config"
    for content in (b"\xff", b"model {"):
        config.write_bytes(content)
        assert f"Error: {config}: " in fail("pull", URL, "--to", to, "--config", config)


def test_versions_of_many_are_listed_in_one_request(s3: Any, server: S3Server) -> None:
    for name in ("2/manifest.json", "11/manifest.json", "12/a/file", "x/manifest.json", "3/a/manifest.json"):
        s3.pipe(f"bucket/digits/{name}", b"{}")
    requests: list[str] = []

    def handle(method: str, path: str, answer: Callable[[], bytes]) -> list[bytes]:
        requests.append(f"{method} {path}")
        return [answer()]

    usual, server.handle = server.handle, handle
    try:
        assert Bucket(URL).versions() == {2, 11}
    finally:
        server.handle = usual
    assert requests == ["GET /bucket"]


def test_pull_several_versions(s3: Any, folder: Path, to: Path) -> None:
    for number in (2, 11):
        succeed("push", URL, "--models", folder, "--version", number)
    succeed("pull", URL, "--to", to, "--version", 2, "--version", 11)
    assert contents(to) == contents(folder)


def test_missing_things_are_errors(s3: Any, folder: Path, to: Path) -> None:
    assert f"Error: {URL} has no version; `digits models push` puts one there" in fail(
        "pull", URL, "--to", to
    )
    assert f"{URL}/7: there is no such version" in fail("pull", URL, "--to", to, "--version", 7)
    assert "s3://none/digits/11: The specified bucket does not exist" in fail(
        "push", "s3://none/digits", "--models", folder
    )
    assert "version 7 does not exist in" in fail("push", URL, "--models", folder, "--version", 7)
    assert "is no URL of object storage" in fail("push", folder, "--models", folder)
    assert "gs://bucket/digits: " in fail("push", "gs://bucket/digits", "--models", folder)
    assert run("pull", URL, "--to", to, "--version", 7, "--config", __file__).exit_code == 2


def test_push_without_s3fs_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "digit_serving.releases.bucket")
    monkeypatch.setitem(sys.modules, "digit_serving.filesystems", None)
    assert "pip install '.[s3]'" in fail("push", URL, "--models", folder)
