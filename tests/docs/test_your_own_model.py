"""Commands and code of docs/tutorials/your-own-model.md, run in a copy of docs beside the service."""

import re
import tomllib
from collections.abc import Iterator

import pytest

from digit_client import Client, TaskCard
from tests.readme import ROOT, Copy, blocks

pytestmark = pytest.mark.e2e

TUTORIAL = (ROOT / "docs" / "tutorials" / "your-own-model.md").read_text()
GUIDE = (ROOT / "docs" / "how-to" / "bring-a-model.md").read_text()
FIT, PUBLISH, ASK, LEARN, SHADOW, PROMOTE, ROLL_BACK = blocks("sh", TUTORIAL)
PREDICT, GIVE_FEEDBACK = blocks("python", TUTORIAL)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    """The copy, after the commands that fit and publish, with its service."""
    folder = tmp_path_factory.mktemp("tutorial")
    feedback = {"DIGITS_FEEDBACK": f"sqlite:///{folder / 'feedback.db'}", "DIGITS_FEEDBACK_OPEN": "1"}
    shadow = {"DIGITS_SHADOW_LABEL": "canary", "DIGITS_SHADOW_SHARE": "1"}
    copy = Copy(folder, feedback | {"DIGITS_MODELS": str(folder / "models")})
    copy.sh(FIT)
    assert "models/shapes/1" in copy.sh(PUBLISH)
    with copy.ports.up(folder / "models", **feedback, **shadow):
        yield copy


def test_tutorial_names_the_star(service: Copy) -> None:
    answer = service.sh(ASK)
    assert answer.startswith("shapes/validation/star/000.jpg: star")
    assert '"label":"star"' in answer
    assert service.python(PREDICT).startswith("star ")


def test_card_request_over_rest_returns_the_card(service: Copy) -> None:
    (command,) = (line for line in GUIDE.splitlines() if line.startswith("curl --data"))
    assert '\\"circle\\"' in service.sh(command)


def test_complete_card_is_valid() -> None:
    (complete,) = blocks('toml title="flowers.toml"', GUIDE)
    document = tomllib.loads(complete)
    # The published card leaves it out: what is published answers probabilities.
    assert document.pop("output") == "logits"
    card = TaskCard.from_document(document)
    assert (card.name, card.prepare.fit) == ("flowers", "stretch")
    assert (card.shape, card.range) == ((180, 180, 3), (0, 255))


def test_corrected_outlines_are_right_in_the_next_version_which_can_be_rolled_back(service: Copy) -> None:
    def share_right() -> float:
        with Client(service.ports.url, model="shapes") as client:
            paths = [*(service.folder / "shapes" / "sent").glob("*/*5.jpg")]
            answers = [client.predict(path) for path in paths]
            right = [path.parent.name == answer.label for path, answer in zip(paths, answers, strict=True)]
            return sum(right) / len(right)

    assert share_right() < 0.8
    service.python(GIVE_FEEDBACK)
    assert "models/shapes/2\n" in service.sh(LEARN)
    assert share_right() < 0.8
    (disagreeing,) = re.findall(
        r'agrees="false".*shadow_version="2",version="1"} (.*)\.0\n', service.sh(SHADOW)
    )
    assert int(disagreeing) > 0
    assert "canary 20 %" in (promoted := service.sh(PROMOTE))
    assert "Version 2 is stable.\n" in promoted
    assert share_right() > 0.9
    rolled_back = service.sh(ROLL_BACK)
    assert "Version 1 is stable.\n" in rolled_back
    assert "still answers" not in rolled_back
