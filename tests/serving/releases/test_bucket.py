"""`digits models push` and `pull`, with an S3 server."""

import hashlib
import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from click.testing import CliRunner

from digit_core.artifact.models_folder import ModelsFolder
from digit_core.artifact.versions import ArtifactError, Version, list_versions
from digit_serving.releases import bucket
from digit_serving.releases.bucket import Bucket
from digit_serving.releases.cli import models

FILES = {
    "saved_model.pb": b"graph",
    "variables/variables.index": b"index",
    "variables/variables.data-00000-of-00001": b"weights" * 10_000,
    "assets.extra/model.json": b"{}",
}
URL = "s3://bucket/models"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Models folder with digits' versions 2, which is stable, and 11."""
    for number in (2, 11):
        enter(tmp_path / "models", number)
    return tmp_path / "models"


@pytest.fixture
def to(tmp_path: Path) -> Path:
    """Models folder to pull into, which does not exist yet."""
    return tmp_path / "pulled"


def publish(folder: Path, number: int, graph: bytes) -> Path:
    for name, content in {**FILES, "saved_model.pb": graph}.items():
        path = folder / "digits" / str(number) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder / "digits" / str(number)


def enter(root: Path, number: int) -> None:
    """Publish a version, and enter it in models.config."""
    publish(root, number, b"version %d" % number)
    folder = ModelsFolder(root, verify=lambda _: None)
    with folder.lock():
        folder.enter(folder.read_config(), folder.version("digits", number))


def version(folder: Path, number: int) -> Version:
    return Version("digits", number, folder / "digits" / str(number))


def run(*arguments: object, status: int = 0) -> str:
    """Run `digits models …`, which ends with this status; return its output, or the line of its error."""
    result = CliRunner().invoke(models, [*map(str, arguments)])
    assert result.exit_code == status, result.output
    assert not status or result.stderr.count("\n") == 1
    return result.stderr if status else result.output


def push(folder: Path, *options: object, status: int = 0) -> str:
    return run("push", URL, "--models", folder, *options, status=status)


def pull(to: Path, *options: object, status: int = 0) -> str:
    return run("pull", URL, "--models", to, *options, status=status)


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith((".models", "models."))
    }


def files_of(s3: Any, number: int) -> dict[str, str]:
    """Return the path in the bucket of each file of a version."""
    paths = s3.find(f"bucket/models/digits/{number}")
    return {path.split("/", 5)[5]: path for path in paths if not path.endswith("/manifest.json")}


def push_at_once(*folders: Path) -> dict[Path, str]:
    """Push version 11 of each folder, when all pushers know that it is missing; return their errors."""
    barrier = Barrier(len(folders))

    def report(line: str) -> None:
        if line.startswith("Pushing"):
            barrier.wait(30)

    def push_one(folder: Path) -> str:
        try:
            Bucket(URL, report).push(version(folder, 11))
        except ArtifactError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor() as pool:
        return dict(zip(folders, pool.map(push_one, folders), strict=True))


def test_push_enters_the_newest_version_and_pull_follows(s3: Any, folder: Path, to: Path) -> None:
    push(folder, "--version", 2)
    assert push(folder).splitlines() == [
        "Pushing 4 of 4 files of version 11 ...",
        "s3://bucket/models/digits/11 is complete.",
    ]
    config, _ = Bucket(URL, print).read_config()
    assert config.base_paths == {"digits": Path("/models/digits")}
    assert (config.listed("digits"), config.labels("digits")) == ({2, 11}, {"stable": 2})
    assert pull(to).splitlines() == [
        "Pulling 4 of 4 files of version 2 ...",
        f"{to}/digits/2 is complete.",
        "Pulling 4 of 4 files of version 11 ...",
        f"{to}/digits/11 is complete.",
    ]
    assert contents(to) == contents(folder)
    config = ModelsFolder(to).read_config()
    assert config.base_paths == {"digits": to / "digits"}
    assert (config.listed("digits"), config.labels("digits")) == ({2, 11}, {"stable": 2})


def test_push_promote_moves_labels_and_pull_can_be_rolled_back(s3: Any, folder: Path, to: Path) -> None:
    push(folder, "--promote")
    assert Bucket(URL, print).read_config()[0].listed("digits") == {2}
    pull(to)
    for arguments in (["--offline"], ["--offline", "--version-label", "canary"]):
        run("promote", 11, "--models", folder, *arguments)
    push(folder)
    assert Bucket(URL, print).read_config()[0].labels("digits") == {"stable": 2}
    push(folder, "--promote")
    pull(to)
    assert ModelsFolder(to).read_config().labels("digits") == {"stable": 11, "canary": 11}
    run("rollback", "--models", to, "--offline")
    assert ModelsFolder(to).read_config().labels("digits") == {"stable": 2, "canary": 11}


def test_concurrent_pushers_of_other_versions_are_both_entered(s3: Any, folder: Path) -> None:
    barrier = Barrier(2)

    class Delayed(Bucket):
        """Bucket whose first read of models.config waits for that of the other pusher."""

        is_first = True

        def read_config(self) -> Any:
            read = super().read_config()
            if self.is_first:
                self.is_first = False
                barrier.wait(30)
            return read

    def enter(number: int) -> None:
        Delayed(URL, print).enter([version(folder, number)], {})

    for numbers in ((2, 11), (3, 12)):
        with ThreadPoolExecutor() as pool:
            list(pool.map(enter, numbers))
    assert Bucket(URL, print).read_config()[0].listed("digits") == {2, 3, 11, 12}


def test_pull_takes_all_models_or_one_and_keeps_the_others(s3: Any, folder: Path, to: Path) -> None:
    shutil.copytree(folder / "digits" / "2", folder / "fashion" / "5")
    fashion = ModelsFolder(folder, verify=lambda _: None)
    fashion.enter(fashion.read_config(), fashion.version("fashion", 5))
    for name in ("digits", "fashion"):
        push(folder, "--model", name)
    pull(to, "--model", "fashion")
    assert ModelsFolder(to).names() == ["fashion"]
    assert "choose one of the models with --model: digits, fashion" in pull(to, "--version", 11, status=1)
    pull(to)
    assert sorted(ModelsFolder(to).read_config().base_paths) == ["digits", "fashion"]


def test_pull_into_a_folder_with_a_foreign_models_config_is_refused(s3: Any, folder: Path, to: Path) -> None:
    push(folder)
    to.mkdir()
    (to / "models.config").write_text("# Mine.")
    assert "Digits did not write" in pull(to, status=1)
    assert (to / "models.config").read_text() == "# Mine."
    s3.pipe("bucket/models/models.config", b"# Mine.")
    assert "Digits did not write" in push(folder, status=1)
    for damaged in (b"\xff", b"model {"):
        s3.pipe("bucket/models/models.config", damaged)
        assert f"Error: {URL}/models.config: " in pull(to, status=1)


def test_push_and_pull_again_transfer_nothing_by_the_checksums(s3: Any, folder: Path, to: Path) -> None:
    push(folder)
    text, written = s3.cat("bucket/models/digits/11/manifest.json"), contents(folder / "digits" / "11")
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in written.items()}
    assert json.loads(text) == {"sha256": sums}
    assert {path.split("/")[4] for path in files_of(s3, 11).values()} == {hashlib.sha256(text).hexdigest()}
    before = s3.find("bucket", detail=True)
    assert run("push", f"{URL}/", "--models", folder) == "s3://bucket/models/digits/11 is complete.\n"
    assert s3.find("bucket", detail=True) == before
    pull(to)
    for path in files_of(s3, 11).values():
        s3.rm(path)
    assert pull(to) == f"{to}/digits/11 is complete.\n"


def test_push_goes_on_with_the_missing_files(s3: Any, folder: Path, to: Path) -> None:
    push(folder)
    # A push that was interrupted has written no manifest.
    s3.rm("bucket/models/digits/11/manifest.json")
    s3.rm(files_of(s3, 11)["saved_model.pb"])
    assert "the version is missing or incomplete" in pull(to, status=1)
    assert "Pushing 1 of 4 files" in push(folder)
    pull(to)
    assert contents(to / "digits" / "11") == contents(folder / "digits" / "11")


def test_pull_goes_on_with_the_missing_and_damaged_files(s3: Any, folder: Path, to: Path) -> None:
    push(folder)
    staged = to / "digits" / ".pulling-11"
    publish(to, 11, b"version 1?").rename(staged)
    (staged / "assets.extra" / "model.json").unlink()
    (staged / "assets.extra" / "other").write_bytes(b"of another manifest")
    publish(to, 9, b"of a version that is listed no more").rename(to / "digits" / ".pulling-9")
    assert "Pulling 2 of 4 files" in pull(to)
    assert contents(to) == {
        f"digits/11/{name}": content for name, content in contents(folder / "digits" / "11").items()
    }


def test_pull_removes_versions_that_are_listed_no_more(
    s3: Any, folder: Path, to: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "KEPT_VERSIONS", 2)
    for number in (2, 11):
        push(folder, "--version", number)
    pull(to)
    for number in (12, 13):
        enter(folder, number)
        push(folder)
    publish(to, 1, b"of this machine")
    assert f"{to}/digits/11 is removed: {URL}/models.config does not list it." in pull(to)
    # Version 2 is stable; version 1 is not in the bucket.
    assert sorted(list_versions(to / "digits")) == [1, 2, 12, 13]
    assert ModelsFolder(to).read_config().listed("digits") == {2, 12, 13}


def test_pull_keeps_an_unlisted_version_that_a_rollback_needs(s3: Any, folder: Path, to: Path) -> None:
    push(folder, "--version", 2)
    pull(to)
    run("promote", 11, "--models", folder, "--offline")
    push(folder, "--promote")
    pull(to)
    config, _ = Bucket(URL, print).read_config()
    s3.pipe("bucket/models/models.config", str(config.with_versions("digits", {11}, Path("/m"))).encode())
    pull(to)
    assert sorted(list_versions(to / "digits")) == [2, 11]


def test_pull_damaged_or_missing_file_in_bucket_publishes_nothing(s3: Any, folder: Path, to: Path) -> None:
    push(folder)
    path = files_of(s3, 11)["assets.extra/model.json"]
    message = f"{URL}/digits/11: a file is missing or damaged; remove the version there and push it again"
    s3.pipe(path, b"{")
    assert message in pull(to, status=1)
    s3.rm(path)
    assert message in pull(to, status=1)
    assert list_versions(to / "digits") == {}


def test_pull_invalid_manifest_publishes_nothing(s3: Any, to: Path) -> None:
    sums = ("[]", '{"../elsewhere": "0"}', '{"/elsewhere": "0"}')
    for text in ("", "[]", "{}", *(f'{{"sha256": {each}}}' for each in sums)):
        s3.pipe("bucket/models/digits/3/manifest.json", text.encode())
        error = pull(to, "--model", "digits", "--version", 3, status=1)
        assert f"{URL}/digits/3: the manifest is damaged" in error
        assert contents(to) == {}


def test_push_that_is_refused_pushes_nothing(s3: Any, folder: Path) -> None:
    variables = folder / "digits" / "11" / "variables"
    variables.rename(folder / "shared")
    for target in ("../shared", "nothing"):
        variables.symlink_to(target)
        assert f"{variables} is neither a file nor a folder" in push(folder, status=1)
        variables.unlink()
    publish(folder, 12, b"copied by hand")
    assert "version 12 is not in" in push(folder, status=1)
    assert s3.find("bucket") == []


def test_version_with_other_files_is_never_touched(s3: Any, folder: Path, to: Path) -> None:
    push(folder)
    pull(to)
    before, pulled = s3.find("bucket", detail=True), contents(to)
    publish(folder, 11, b"another")
    assert f"{URL}/digits/11: it has other files than {folder}/digits/11" in push(folder, status=1)
    assert s3.find("bucket", detail=True) == before
    s3.rm("bucket/models/digits", recursive=True)
    push(folder)
    assert f"{to}/digits/11 has other files; remove one of the two" in pull(to, status=1)
    assert contents(to) == pulled


def test_concurrent_pushers_one_of_different_files_wins(s3: Any, folder: Path, tmp_path: Path) -> None:
    publish(tmp_path / "same", 11, b"version 11")
    assert not any(push_at_once(folder, tmp_path / "same").values())
    s3.rm("bucket/models/digits", recursive=True)
    publish(tmp_path / "others", 11, b"others")
    errors = push_at_once(folder, tmp_path / "others")
    (loser,) = (versions for versions, error in errors.items() if error)
    reason = f"it has other files than {loser}/digits/11; publish another version"
    assert errors[loser] == f"{URL}/digits/11: {reason}"
    (winner,) = errors.keys() - {loser}
    Bucket(URL, print).pull(version(tmp_path / "pulled", 11), lambda _: None)
    assert contents(tmp_path / "pulled" / "digits" / "11") == contents(winner / "digits" / "11")


def test_pull_versions_by_number_enters_nothing(s3: Any, folder: Path, to: Path) -> None:
    for number in (2, 11):
        push(folder, "--version", number)
    pull(to, "--version", 2, "--version", 11)
    assert contents(to) == contents(folder)
    assert not (to / "models.config").exists()


def test_missing_things_are_errors(s3: Any, folder: Path, to: Path) -> None:
    none = f"Error: {URL}/models.config names no version"
    assert f"{none}; `digits models push` enters one" in pull(to, status=1)
    assert f"{none} of x;" in pull(to, "--model", "x", status=1)
    assert f"{URL}/digits/7: the version is missing or incomplete" in pull(
        to, "--model", "digits", "--version", 7, status=1
    )
    assert "s3://none/digits/11: The specified bucket does not exist" in run(
        "push", "s3://none", "--models", folder, status=1
    )
    assert "version 7 does not exist in" in push(folder, "--version", 7, status=1)
    assert "is not a URL of object storage" in run("push", folder, "--models", folder, status=1)
    assert "gs://bucket/models: " in run("push", "gs://bucket/models", "--models", folder, status=1)


def test_push_without_s3fs_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "digit_serving.releases.bucket")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    assert "pip install 'digits[s3]'" in push(folder, status=1)
