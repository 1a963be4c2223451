"""Shares of traffic in models.traffic.json."""

import pytest

from digit_core.artifact import traffic
from digit_core.artifact.models_folder import ModelsFolder
from digit_core.artifact.versions import ArtifactError
from tests.core.artifact.folders import publish


def test_remove_forgets_the_shares_of_a_model(folder: ModelsFolder) -> None:
    publish(folder)
    publish(folder, 1, "fashion")
    shares = traffic.with_share(traffic.with_share({}, "digits", "canary", 0.1), "fashion", "canary", 1)
    folder.write_traffic(shares)
    folder.remove("fashion")
    assert folder.read_traffic() == {"digits": {"canary": 0.1}}
    told = [
        (change.model, change.label, change.share) for change in folder.changes() if change.share is not None
    ]
    assert told == [("digits", "canary", 0.1), ("fashion", "canary", 1), ("fashion", "canary", 0)]
    assert traffic.with_share(folder.read_traffic(), "digits", "canary", 0) == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is damaged"),
        ('{"digits": 1}', "is damaged"),
        ('{"digits": {"canary": 1.5}}', "the shares of digits, .* must be between"),
        ('{"digits": {"a": 0.6, "b": 0.5}}', "the shares of digits, .* must be between"),
    ],
)
def test_read_traffic_that_is_damaged_raises_artifact_error(
    folder: ModelsFolder, text: str, message: str
) -> None:
    folder.root.mkdir()
    folder.traffic_path.write_text(text)
    with pytest.raises(ArtifactError, match=message):
        folder.read_traffic()
