"""What models.config says, and what changes of it say then."""

import subprocess
import sys
from pathlib import Path

import pytest

from digit_serving.releases.config import ConfigFile, ModelsConfig, ReleaseError, prepared

SEED = Path(__file__).parent.parent.parent.parent / "serving" / "config" / "models.config"


@pytest.fixture
def config() -> ModelsConfig:
    return ModelsConfig.of_newest(Path("/models/digits"))


def parsed(config: ModelsConfig) -> ModelsConfig:
    return ModelsConfig.parse(str(config))


def test_the_newest_is_wanted_at_first(config: ModelsConfig) -> None:
    assert config.labels == {}
    assert config.wanted([1, 2, 10]) == {10}
    assert config.wanted([]) == set()


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [
        ("latest { num_versions: 2 }", {2, 3}),
        ("latest { }", {3}),
        ("all { }", {1, 2, 3}),
        ("specific { versions: 1 versions: 7 }", {1}),
        ("", {3}),
    ],
)
def test_every_policy_of_tensorflow_serving_is_known(policy: str, wanted: set[int]) -> None:
    text = f"""model_config_list {{ config {{
        name: "digits" base_path: "/m" model_platform: "tensorflow" model_version_policy {{ {policy} }}
    }} }}"""
    assert ModelsConfig.parse(text).wanted([3, 1, 2]) == wanted


def test_the_label_goes_on_and_back_through_the_file(config: ModelsConfig) -> None:
    for version in (1, 2, 2, 5):
        config = parsed(config.promoting(version, "stable"))
    config = parsed(config.promoting(5, "canary"))
    assert config.labels == {"stable": 5, "canary": 5}
    assert config.earlier == {"stable": (1, 2)}
    config = parsed(config.rolling_back("stable"))
    assert config.labels == {"stable": 2, "canary": 5}
    config = parsed(config.rolling_back("stable"))
    assert config.labels["stable"] == 1
    for label in ("stable", "canary", "none"):
        with pytest.raises(ReleaseError, match=f"that was {label} before"):
            config.rolling_back(label)


def test_ten_versions_are_remembered(config: ModelsConfig) -> None:
    for version in range(20):
        config = config.promoting(version, "stable")
    assert parsed(config).earlier == {"stable": tuple(range(9, 19))}


def test_what_is_loaded_can_be_chosen(config: ModelsConfig) -> None:
    assert parsed(config.loading({3, 1})).wanted([1, 2, 3]) == {1, 3}
    # A change makes another configuration.
    assert config.wanted([1, 2, 3]) == {3}


def test_the_folder_can_move(config: ModelsConfig) -> None:
    moved = parsed(config.promoting(1, "stable").at(Path("/elsewhere")))
    assert moved.base_path == Path("/elsewhere")
    assert moved.labels == {"stable": 1}


def test_other_models_are_left_alone() -> None:
    other = 'config { name: "letters" base_path: "/l" model_platform: "tensorflow" }'
    ours = 'config { name: "digits" base_path: "/d" model_platform: "tensorflow" }'
    config = ModelsConfig.parse(f"model_config_list {{ {other} {ours} }}")
    letters, digits = parsed(config.promoting(1, "stable").loading([1])).message.model_config_list.config
    assert (letters.name, letters.base_path, dict(letters.version_labels)) == ("letters", "/l", {})
    assert not letters.HasField("model_version_policy")
    assert dict(digits.version_labels) == {"stable": 1}


def test_the_configuration_that_compose_begins_with_is_understood() -> None:
    config = ModelsConfig.parse(SEED.read_text())
    assert config.labels == {"stable": 1, "canary": 2}
    assert parsed(config.promoting(2, "stable")).earlier == {"stable": (1,)}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("", "no model digits"), ("model_config_list {", "not what TensorFlow Serving reads")],
)
def test_what_is_no_configuration_is_told(text: str, complaint: str) -> None:
    with pytest.raises(ReleaseError, match=complaint):
        ModelsConfig.parse(text)


@pytest.mark.parametrize("label", ["", "a b", "a:b", "a/b", "é", "x\n# Earlier, y was: 1"])
def test_a_label_is_a_word(config: ModelsConfig, label: str) -> None:
    with pytest.raises(ReleaseError, match="is no label"):
        config.promoting(1, label)


# Forks a process for every line of the module that a change runs through, and kills it there. After each the
# file has to be the old one or the new one, and the next process has to be able to change it.
KILLED_AT_EVERY_LINE = """
import itertools, os, signal, sys
from pathlib import Path
from digit_serving.releases.config import ModelsConfig
from digit_serving.releases.config import ConfigFile
from digit_serving.releases import config_file

file = ConfigFile(Path(sys.argv[1]))
old = str(file.read())
new = str(file.read().promoting(7, "stable").loading([7]))

def change(text):
    with file.locked(1):
        file.write(text)

def killed_at(line):
    countdown = itertools.count(line, -1)
    def trace(frame, event, argument):
        if frame.f_code.co_filename != config_file.__file__:
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
        killed_at(line)
    status = os.waitpid(pid, 0)[1]
    text = file.path.read_text()
    assert text in (old, new), text
    seen.append(text == new)
    change(old)
    if status == 0:
        break
    assert os.WTERMSIG(status) == signal.SIGKILL
assert seen == sorted(seen), "it went back"
print(len(seen), seen.count(False))
"""


@pytest.fixture
def file(tmp_path: Path) -> ConfigFile:
    return prepared(tmp_path)


def test_a_kill_at_any_line_leaves_the_old_or_the_new(file: ConfigFile) -> None:
    done = subprocess.run(
        [sys.executable, "-c", KILLED_AT_EVERY_LINE, file.path.parent], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    kills, before = map(int, done.stdout.split())
    assert kills > before > 5


def test_many_at_once_lose_nothing(file: ConfigFile) -> None:
    code = """
import sys
from pathlib import Path
from digit_serving.releases.config import ConfigFile
file = ConfigFile(Path(sys.argv[1]))
for number in range(10):
    with file.locked(60):
        file.write(str(file.read().promoting(number, f"{sys.argv[2]}_{number}")))
"""
    writers = [
        subprocess.Popen([sys.executable, "-c", code, file.path.parent, name])
        for name in ("a", "b", "c", "d")
    ]
    while any(writer.poll() is None for writer in writers):
        # A reader needs no lock.
        assert file.read().wanted([1]) == {1}
    assert [writer.returncode for writer in writers] == [0] * 4
    assert len(file.read().labels) == 40


def test_who_waits_too_long_is_told(file: ConfigFile) -> None:
    changed = pytest.raises(ReleaseError, match="being changed by somebody else")
    with file.locked(1), changed, file.locked(0.2):
        pass
    with file.locked(0.2):
        pass


def test_a_file_that_is_not_there_or_of_no_use_is_told(tmp_path: Path) -> None:
    file = ConfigFile(tmp_path)
    with pytest.raises(ReleaseError, match=r"there is no .*models\.config: `digits up`"):
        file.read()
    file.path.write_text("model_config_list {")
    with pytest.raises(ReleaseError, match=r"models\.config: it is not what"):
        file.read()


def test_labels_outlive_a_start_and_a_move_of_the_folder(tmp_path: Path) -> None:
    file = prepared(tmp_path)
    assert file.read().base_path == tmp_path
    with file.locked(1):
        file.write(str(file.read().promoting(1, "stable")))
    text = file.text()
    assert prepared(tmp_path).text() == text
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    config = prepared(moved).read()
    assert (config.base_path, config.labels) == (moved, {"stable": 1})


def test_it_is_readable_for_a_server_of_another_user(file: ConfigFile) -> None:
    assert file.path.stat().st_mode & 0o444 == 0o444
    assert ModelsConfig.parse(file.text()).base_path.is_absolute()
