"""models.config: parsing, changes, and the file's lock and atomic replacement."""

import subprocess
import sys
from pathlib import Path

import pytest

from digit_serving.releases.config import ConfigFile, ModelsConfig, ReleaseError, ensure_config

NAME = "digits"
COMPOSE_CONFIG = Path(__file__).parent.parent.parent.parent / "serving" / "config" / "models.config"


@pytest.fixture
def config() -> ModelsConfig:
    return ModelsConfig.of_newest({NAME: Path("/models/digits")})


@pytest.fixture
def file(tmp_path: Path) -> ConfigFile:
    return ensure_config(tmp_path, {NAME: tmp_path}, print)


def parsed(config: ModelsConfig) -> ModelsConfig:
    return ModelsConfig.parse(str(config))


def test_of_newest_loads_the_newest_version_without_labels(config: ModelsConfig) -> None:
    assert config.labels(NAME) == {}
    assert config.versions_to_load(NAME, [1, 2, 10]) == {10}
    assert config.versions_to_load(NAME, []) == set()


@pytest.mark.parametrize(
    ("policy", "versions"),
    [
        ("latest { num_versions: 2 }", {2, 3}),
        ("latest { }", {3}),
        ("all { }", {1, 2, 3}),
        ("specific { versions: 1 versions: 7 }", {1}),
        ("", {3}),
    ],
)
def test_versions_to_load_follow_the_policy(policy: str, versions: set[int]) -> None:
    text = f"""model_config_list {{ config {{
        name: "digits" base_path: "/m" model_platform: "tensorflow" model_version_policy {{ {policy} }}
    }} }}"""
    assert ModelsConfig.parse(text).versions_to_load(NAME, [3, 1, 2]) == versions


def test_promote_and_roll_back_keep_the_history_in_the_file(config: ModelsConfig) -> None:
    for version in (1, 2, 2, 5):
        config = parsed(config.promote(NAME, version, "stable"))
    config = parsed(config.promote(NAME, 5, "canary"))
    assert config.labels(NAME) == {"stable": 5, "canary": 5}
    assert config.history(NAME) == {"stable": (1, 2)}
    config = parsed(config.roll_back(NAME, "stable"))
    assert config.labels(NAME) == {"stable": 2, "canary": 5}
    config = parsed(config.roll_back(NAME, "stable"))
    assert config.labels(NAME)["stable"] == 1
    for label in ("stable", "canary", "none"):
        with pytest.raises(ReleaseError, match=f"label {label} has no previous version"):
            config.roll_back(NAME, label)


def test_promote_many_versions_keeps_ten_in_history(config: ModelsConfig) -> None:
    for version in range(20):
        config = config.promote(NAME, version, "stable")
    assert parsed(config).history(NAME) == {"stable": tuple(range(9, 19))}


def test_with_versions_returns_a_changed_copy(config: ModelsConfig) -> None:
    assert parsed(config.with_versions(NAME, {3, 1})).versions_to_load(NAME, [1, 2, 3]) == {1, 3}
    assert config.versions_to_load(NAME, [1, 2, 3]) == {3}


def test_with_models_adds_moves_and_removes_entries_and_keeps_labels(
    config: ModelsConfig, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "1").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    listed = {NAME: Path("/old"), "other": elsewhere, "gone": tmp_path / "empty"}
    old = config.with_models(listed).promote(NAME, 1, "stable")
    for version in (1, 2):
        old = old.promote("gone", version, "stable")
    new = parsed(old.with_models({NAME: Path("/new"), "flowers": Path("/f")}))
    assert new.base_paths == {NAME: Path("/new"), "other": elsewhere, "flowers": Path("/f")}
    assert (new.labels(NAME), new.labels("flowers")) == ({"stable": 1}, {})
    assert new.history("gone") == {}


def test_with_models_renamed_keeps_versions_labels_and_history() -> None:
    old = ModelsConfig.of_newest({NAME: Path("/a"), "flowers": Path("/b"), "letters": Path("/l")})
    for version in (1, 2):
        old = old.promote("flowers", version, "stable").promote(NAME, 10 * version, "canary")
    old = old.with_versions("flowers", [2]).promote("letters", 7, "stable")
    # `flowers` gets another name, and its name goes to the model that was listed as the digits.
    new = parsed(old.with_models({"flowers": Path("/a"), "blooms": Path("/b"), NAME: Path("/c")}))
    assert new.base_paths == {"flowers": Path("/a"), "blooms": Path("/b"), NAME: Path("/c")}
    assert (new.labels("blooms"), new.history("blooms")) == ({"stable": 2}, {"stable": (1,)})
    assert new.versions_to_load("blooms", [1, 2, 3]) == {2}
    assert (new.labels("flowers"), new.history("flowers")) == ({"canary": 20}, {"canary": (10,)})
    assert (new.labels(NAME), new.history(NAME)) == ({}, {})


def test_with_models_of_a_folder_listed_twice_keeps_the_entry_of_the_name() -> None:
    old = ModelsConfig.of_newest({"alias": Path("/f"), "flowers": Path("/f")}).promote("flowers", 1, "stable")
    new = old.with_models({"flowers": Path("/f")})
    assert (new.base_paths, new.labels("flowers")) == ({"flowers": Path("/f")}, {"stable": 1})


def test_promote_and_roll_back_keep_other_models_unchanged() -> None:
    config = ModelsConfig.of_newest({"letters": Path("/l"), "my-flowers_2": Path("/f")})
    for version in (1, 2, 3):
        config = parsed(config.promote("letters", version, "stable"))
        config = parsed(config.promote("my-flowers_2", 10 * version, "stable"))
    config = parsed(config.roll_back("letters", "stable").with_versions("letters", [2]))
    assert (config.labels("letters"), config.history("letters")) == ({"stable": 2}, {"stable": (1,)})
    assert config.labels("my-flowers_2") == {"stable": 30}
    assert config.history("my-flowers_2") == {"stable": (10, 20)}
    assert config.versions_to_load("my-flowers_2", [10, 20, 40]) == {40}


def test_parse_history_without_model_name_is_that_of_the_digits() -> None:
    text = str(ModelsConfig.of_newest({"letters": Path("/l"), NAME: Path("/d")}).promote(NAME, 3, "stable"))
    config = ModelsConfig.parse("# Earlier, stable was: 1 2\n" + text)
    assert (config.history(NAME), config.history("letters")) == ({"stable": (1, 2)}, {})
    assert "# Earlier, digits stable was: 1 2\n" in str(config)


def test_parse_configuration_of_compose() -> None:
    config = ModelsConfig.parse(COMPOSE_CONFIG.read_text())
    assert config.labels(NAME) == {"stable": 1, "canary": 2}
    assert parsed(config.promote(NAME, 2, "stable")).history(NAME) == {"stable": (1,)}


def test_parse_invalid_text_raises() -> None:
    with pytest.raises(ReleaseError, match="invalid model server configuration"):
        ModelsConfig.parse("model_config_list {")


def test_promote_unlisted_model_raises(config: ModelsConfig) -> None:
    with pytest.raises(ReleaseError, match="no model named flowers; `digits up` adds it"):
        config.promote("flowers", 1, "stable")


@pytest.mark.parametrize("label", ["", "a b", "a:b", "a/b", "é", "x\n# Earlier, y was: 1"])
def test_promote_invalid_label_raises(config: ModelsConfig, label: str) -> None:
    with pytest.raises(ReleaseError, match="is not a label"):
        config.promote(NAME, 1, label)


# For every line of the module that a change executes, forks a process and kills it at that line. After each
# kill the file must have the old or the new text, and the next process must be able to change it.
KILL_AT_EVERY_LINE = """
import itertools, os, signal, sys
from pathlib import Path
from digit_serving.releases import config
from digit_serving.releases.config import ConfigFile

file = ConfigFile(Path(sys.argv[1]))
old = str(file.read())
new = str(file.read().promote("digits", 7, "stable").with_versions("digits", [7]))

def change(text):
    with file.lock(1):
        file.write(text)

def kill_at(line):
    countdown = itertools.count(line, -1)
    def trace(frame, event, argument):
        if frame.f_code.co_filename != config.__file__:
            return None
        if event == "line" and next(countdown) == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace
    sys.settrace(trace)
    change(new)
    os._exit(0)

seen = []
for line in itertools.count():
    pid = os.fork()
    if not pid:
        kill_at(line)
    status = os.waitpid(pid, 0)[1]
    text = file.path.read_text()
    assert text in (old, new), text
    seen.append(text == new)
    change(old)
    if status == 0:
        break
    assert os.WTERMSIG(status) == signal.SIGKILL
assert seen == sorted(seen), "the file went back to the old text"
print(len(seen), seen.count(False))
"""


def test_write_killed_at_any_line_leaves_old_or_new_file(file: ConfigFile) -> None:
    result = subprocess.run(
        [sys.executable, "-c", KILL_AT_EVERY_LINE, file.path.parent], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    kills, before = map(int, result.stdout.split())
    assert kills > before > 5


def test_concurrent_writers_lose_no_change(file: ConfigFile) -> None:
    code = """
import sys
from pathlib import Path
from digit_serving.releases.config import ConfigFile
file = ConfigFile(Path(sys.argv[1]))
for number in range(10):
    with file.lock(60):
        file.write(str(file.read().promote("digits", number, f"{sys.argv[2]}_{number}")))
"""
    writers = [subprocess.Popen([sys.executable, "-c", code, file.path.parent, name]) for name in ("a", "b")]
    while any(writer.poll() is None for writer in writers):
        # A reader needs no lock.
        assert file.read().versions_to_load(NAME, [1]) == {1}
    assert [writer.returncode for writer in writers] == [0, 0]
    assert len(file.read().labels(NAME)) == 20


def test_lock_held_elsewhere_raises_at_timeout(file: ConfigFile) -> None:
    refused = pytest.raises(ReleaseError, match=r"locked by another process for 0\.2 s")
    with file.lock(1), refused, file.lock(0.2):
        pass
    with file.lock(0.2):
        pass


def test_read_missing_or_invalid_file_raises(tmp_path: Path) -> None:
    file = ConfigFile(tmp_path)
    with pytest.raises(ReleaseError, match=r"models\.config does not exist; `digits up`"):
        file.read()
    file.path.write_text("model_config_list {")
    with pytest.raises(ReleaseError, match=r"models\.config: invalid model server configuration"):
        file.read()
    file.path.write_bytes(b"\xff")
    with pytest.raises(ReleaseError, match=r"models\.config: 'utf-8' codec can't decode"):
        file.read()


def test_ensure_config_keeps_labels_after_a_restart_and_a_move(tmp_path: Path) -> None:
    file = ensure_config(tmp_path, {NAME: tmp_path}, print)
    assert file.read().base_paths == {NAME: tmp_path}
    with file.lock(1):
        file.write("# A note.\n" + str(file.read().promote(NAME, 1, "stable")))
    text = file.read_text()
    assert ensure_config(tmp_path, {NAME: tmp_path}, print).read_text() == text
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    config = ensure_config(moved, {NAME: moved}, print).read()
    assert (config.base_paths, config.labels(NAME)) == ({NAME: moved}, {"stable": 1})


def test_ensure_config_of_a_renamed_model_keeps_its_labels(file: ConfigFile) -> None:
    file.write(str(file.read().promote(NAME, 1, "stable").with_versions(NAME, [1])))
    config = ensure_config(file.path.parent, {"flowers": file.path.parent}, print).read()
    assert (config.base_paths, config.labels("flowers")) == ({"flowers": file.path.parent}, {"stable": 1})
    assert config.versions_to_load("flowers", [1, 2]) == {1}


@pytest.fixture
def several(tmp_path: Path) -> dict[str, Path]:
    """Folders of three models by name. The digits have a models.config of their own, and a stable version."""
    models = {name: tmp_path / name for name in ("colors", NAME, "flowers")}
    for folder in models.values():
        folder.mkdir()
    own = ensure_config(models[NAME], {NAME: models[NAME]}, print)
    own.write(str(own.read().promote(NAME, 1, "stable").promote(NAME, 2, "stable").with_versions(NAME, [2])))
    return models


def test_ensure_config_of_several_models_takes_over_the_labels_of_their_folders(
    several: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = ensure_config(several["colors"], {"earlier": several["colors"]}, print)
    own.write(str(own.read().promote("earlier", 4, "canary")))
    config = ensure_config(tmp_path, several, print).read()
    assert config.base_paths == several
    assert (config.labels(NAME), config.history(NAME)) == ({"stable": 2}, {"stable": (1,)})
    assert config.versions_to_load(NAME, [1, 2, 3]) == {2}
    assert (config.labels("colors"), config.labels("flowers")) == ({"canary": 4}, {})
    assert not own.path.exists()
    assert own.path.with_name("models.config.moved").exists()
    assert f"{own.path} is not read any more; it is now models.config.moved.\n" in capsys.readouterr().out


def test_ensure_config_keeps_labels_between_one_model_and_several(
    several: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = ensure_config(tmp_path, several, print)
    shared.write(str(shared.read().promote(NAME, 3, "stable").promote("flowers", 5, "stable")))
    own = ensure_config(several[NAME], {NAME: several[NAME]}, print)
    assert (own.read().labels(NAME), own.read().history(NAME)) == ({"stable": 3}, {"stable": (1, 2)})
    assert own.read().base_paths == {NAME: several[NAME]}
    own.write(str(own.read().roll_back(NAME, "stable")))
    ensure_config(tmp_path, several, print)
    capsys.readouterr()
    config = ensure_config(tmp_path, several, print).read()
    assert (config.labels(NAME), config.labels("flowers")) == ({"stable": 2}, {"stable": 5})
    assert capsys.readouterr().out == ""


def test_ensure_config_takes_over_the_file_of_a_read_only_folder_once(
    several: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root may write to any folder.
    monkeypatch.setattr("os.access", lambda *_: False)
    shared = ensure_config(tmp_path, several, print)
    assert shared.read().labels(NAME) == {"stable": 2}
    assert ConfigFile(several[NAME]).path.exists()
    shared.write(str(shared.read().promote(NAME, 3, "stable")))
    assert ensure_config(tmp_path, several, print).read().labels(NAME) == {"stable": 3}


def test_ensure_config_file_is_readable_for_other_users(file: ConfigFile) -> None:
    assert file.path.stat().st_mode & 0o444 == 0o444
    assert file.read().base_paths[NAME].is_absolute()
