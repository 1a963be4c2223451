import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from digit_client.cli import main
from digit_serving.gateway.keys import KeyFile, KeyFileError, Keys
from tests.processes import wait_until


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "keys")


@pytest.fixture
def run(file: KeyFile) -> Callable[..., Result]:
    environment = {"DIGITS_API_KEYS": str(file.path)}
    return lambda *arguments: CliRunner().invoke(main, ["keys", *arguments], env=environment)


def test_a_key_is_known_by_its_name(file: KeyFile) -> None:
    shop, lab = file.add("shop"), file.add("lab")
    keys = Keys(file.path)
    assert (keys.name_of(shop), keys.name_of(lab)) == ("shop", "lab")


@pytest.mark.parametrize("wrong", ["", "digits_", "shop", "é", "x" * 10_000])
def test_nothing_else_is(file: KeyFile, wrong: str) -> None:
    key = file.add("shop")
    keys = Keys(file.path)
    assert keys.name_of(wrong) is None
    assert keys.name_of(key[:-1]) is None
    assert keys.name_of(file.read()["shop"]) is None


def test_the_file_does_not_hold_the_key(file: KeyFile) -> None:
    key = file.add("shop")
    assert len(key) > 40
    assert key.removeprefix("digits_") not in file.path.read_text()


def test_a_change_is_seen_within_a_second_or_so(file: KeyFile) -> None:
    shop = file.add("shop")
    keys = Keys(file.path)
    lab = file.add("lab")
    wait_until(lambda: keys.name_of(lab) == "lab", seconds=5)
    file.remove("shop")
    wait_until(lambda: keys.name_of(shop) is None, seconds=5)
    assert keys.name_of(lab) == "lab"


@pytest.mark.parametrize(
    "harm", [Path.unlink, lambda path: path.write_text("torn"), lambda path: path.write_bytes(b"\xff")]
)
def test_the_keys_of_before_hold_while_the_file_is_of_no_use(
    file: KeyFile, harm: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    key = file.add("shop")
    keys = Keys(file.path)
    harm(file.path)
    wait_until(lambda: bool(keys.name_of(key) and caplog.messages), seconds=5)
    assert "the keys stay what they were" in caplog.text
    assert key not in caplog.text


def test_a_gateway_does_not_start_with_a_file_of_no_use(file: KeyFile) -> None:
    with pytest.raises(FileNotFoundError):
        Keys(file.path)
    file.path.write_text("shop secret\n")
    with pytest.raises(KeyFileError, match="line 1"):
        Keys(file.path)


def test_of_several_who_add_at_once_none_loses(file: KeyFile) -> None:
    names = [f"key-{number}" for number in range(16)]
    threads = [threading.Thread(target=file.add, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(file.read()) == sorted(names)


def test_the_command_adds_lists_and_removes(run: Callable[..., Result], file: KeyFile) -> None:
    key = run("add", "shop").stdout.strip()
    assert run("add", "lab").exit_code == 0
    assert run("ls").stdout.split() == ["shop", "lab"]
    assert Keys(file.path).name_of(key) == "shop"
    assert run("remove", "shop").exit_code == 0
    assert run("ls").stdout.split() == ["lab"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["add", "shop"], "there is a key shop already"),
        (["add", "two words"], "is no name"),
        (["remove", "nobody"], "there is no key nobody"),
        (["ls", "--file", "/nowhere/keys"], "/nowhere/keys"),
    ],
)
def test_the_command_says_what_is_wrong(run: Callable[..., Result], arguments: list[str], said: str) -> None:
    run("add", "shop")
    result = run(*arguments)
    assert result.exit_code == 1
    assert said in result.output
