"""What models.config says, and what changes of it say then."""

from pathlib import Path

import pytest

from digit_serving.releases.config import ModelsConfig
from digit_serving.releases.errors import ReleaseError

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
