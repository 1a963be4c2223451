"""models.config: versions to load, labels, folders, and files that somebody else has written."""

from pathlib import Path

import pytest

from digit_core.artifact.models_config import ModelsConfig
from digit_core.artifact.versions import ArtifactError

FOREIGN = """
model_config_list {
  config { name: "latest" base_path: "/models/latest" model_platform: "tensorflow" }
  config { name: "two" base_path: "/m/two" model_platform: "tensorflow"
           model_version_policy { latest { num_versions: 2 } } version_labels { key: "stable" value: 3 } }
  config { name: "all" base_path: "/m/all" model_platform: "tensorflow" model_version_policy { all {} } }
}
"""


@pytest.fixture
def config() -> ModelsConfig:
    return ModelsConfig.empty().with_versions("digits", [2, 1], Path("/models/digits"))


def test_with_label_moves_one_label(config: ModelsConfig) -> None:
    labelled = config.with_label("digits", "stable", 1).with_label("digits", "canary", 2)
    assert labelled.with_label("digits", "stable", 2).labels("digits") == {"stable": 2, "canary": 2}
    assert labelled.labels("digits") == {"stable": 1, "canary": 2}
    assert labelled.labels("fashion") == {}


@pytest.mark.parametrize("label", ["", "a b", "é", "a-b", "a/b"])
def test_with_label_invalid_is_refused(config: ModelsConfig, label: str) -> None:
    with pytest.raises(ArtifactError, match="is not a label; a label has letters"):
        config.with_label("digits", label, 1)


def test_parse_foreign_file_selects_by_its_policies() -> None:
    foreign = ModelsConfig.parse(FOREIGN)
    assert not foreign.is_ours
    published = [1, 2, 3]
    selected = [foreign.selected(name, published) for name in ("latest", "two", "all", "none")]
    assert selected == [{3}, {2, 3}, {1, 2, 3}, set()]
    assert foreign.labels("two") == {"stable": 3}


def test_parse_other_text_is_refused() -> None:
    with pytest.raises(ArtifactError, match="invalid configuration of a model server: 1:1"):
        ModelsConfig.parse("models: []")
