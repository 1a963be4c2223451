"""The page of the architecture: the way of one picture, and who may import whom."""

import asyncio
import re
from collections.abc import Mapping

import grpc.aio
import pytest

from benchmarks.one_request import StubChannel, digit, entries, module_name, post, started
from digit_serving.gateway.app import Gateway
from digit_serving.gateway.features import FEATURES
from digit_serving.gateway.settings import Settings
from tests.imports import ROOT, imports, modules, project_imports

PAGE = (ROOT / "docs" / "explanation" / "architecture.md").read_text()
NETWORKS = {"keras", "tensorflow", "tensorflow_serving"}


async def test_trace_has_the_modules_of_a_request_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message is the list for the page, with its sentences."""
    monkeypatch.setattr(grpc.aio, "insecure_channel", lambda *_, **__: StubChannel())
    gateway = Gateway(Settings())
    async with started(gateway):
        for _ in range(3):
            await post(gateway, b"image/png", digit())
        # The log writes the line of a request after it.
        await asyncio.sleep(0.01)
        entered = await entries(gateway, b"image/png", digit())
    sentences = dict(re.findall(r"^\d+\. `([\w/]+)`(.*?)\n(?=\n|\d+\. )", PAGE, re.MULTILINE | re.DOTALL))
    names = list(dict.fromkeys(map(module_name, entered)))
    lines = (f"{place}. `{name}`{sentences.get(name, ' …')}" for place, name in enumerate(names, 1))
    assert [*sentences] == names, "\n".join(("The list of the page should be:", *lines))


def test_imports_follow_the_arrows_and_each_arrow_has_imports() -> None:
    (diagram,) = re.findall(r"^```mermaid\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    arrows: dict[str, set[str]] = {}
    for sources, targets in re.findall(r"^ *(.+) --> (.+)$", diagram, re.MULTILINE):
        for source in sources.split(" & "):
            arrows.setdefault(source, set()).update(re.findall(r"(?:^|& )(\w+)", targets))
    imported = {
        (_room(module), _room(name)): f"{module} imports {name}"
        for module, names in project_imports().items()
        for name in names
        if module != "digit_serving.gateway.features" and _room(module) != _room(name)
    }
    allowed = {(room, below) for room in arrows for below in _reachable(room, arrows)}
    others = [text for arrow, text in imported.items() if arrow not in allowed]
    assert not others, "\n".join(("No arrow of the page leads there:", *others))
    rooms = {*map(_room, modules())}
    assert sorted(rooms - {room for arrow in allowed for room in arrow}) == []
    drawn = {(room, target) for room in rooms & arrows.keys() for target in arrows[room]}
    assert sorted(drawn - imported.keys()) == []


def test_rooms_that_import_networks_are_those_of_the_page() -> None:
    (sentence,) = re.findall(r"Only ([^.]*?) import TensorFlow or Keras", PAGE)
    rooms = re.findall(r"`([\w/]+)`", sentence)
    importers = {
        module.replace(".", "/")
        for module, path in modules().items()
        if {name.partition(".")[0] for name in imports(path)} & NETWORKS
    }
    assert {next((room for room in rooms if room in name), name) for name in importers} == {*rooms}


def test_page_describes_every_feature() -> None:
    folders = {path.split(".")[1] for path in FEATURES.values()}
    assert folders <= {*re.findall(r"^- `(\w+)` ", PAGE, re.MULTILINE)}


def _room(module: str) -> str:
    """Return the room of a module: its package, or its folder in digit_serving."""
    package, *inner = module.split(".")
    folder = inner[0] if inner else ""
    is_folder = package == "digit_serving" and (ROOT / "serving" / package / folder).is_dir()
    return folder if folder and is_folder else package


def _reachable(room: str, arrows: Mapping[str, set[str]]) -> set[str]:
    """Return the rooms to which arrows lead, over others too."""
    targets = arrows.get(room, set())
    return targets.union(*(_reachable(target, arrows) for target in targets))
