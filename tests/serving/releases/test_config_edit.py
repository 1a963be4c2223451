"""`digits models promote --file`: a models.config that people keep keeps every other byte."""

import itertools
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from digit_serving.releases.cli import models
from digit_serving.releases.config import ModelsConfig, ReleaseError
from digit_serving.releases.config_edit import promote_in_text

ROOT = Path(__file__).parent.parent.parent.parent
PRODUCTION = ROOT / "k8s" / "overlays" / "production" / "models.config"
CANARY = ROOT / "k8s" / "components" / "canary" / "models.config"

MODEL = """model_config_list {{ config {{
    name: "digits" base_path: "/m"
    model_version_policy {{ specific {{ {versions} }} }}
    {labels}
}} }}
"""


def model(versions: str, labels: str) -> str:
    return MODEL.format(versions=versions, labels=labels)


def label(name: str, version: int) -> str:
    return f'version_labels {{ key: "{name}" value: {version} }}'


def run(path: Path, *arguments: object) -> Result:
    # Neither models nor server exist there.
    environment = {"DIGITS_MODELS": "/none", "DIGITS_MODEL_SERVER": "127.0.0.1:1"}
    command = ["promote", *map(str, arguments), "--file", str(path)]
    return CliRunner().invoke(models, command, env=environment)


def test_promote_file_changes_the_two_numbers_of_production(tmp_path: Path) -> None:
    path = tmp_path / "models.config"
    path.write_text(PRODUCTION.read_text())
    result = run(path, 11)
    assert (result.output, result.exit_code) == (f"Version 11 is stable in {path}.\n", 0)
    old = PRODUCTION.read_text()
    assert path.read_text() == old.replace("versions: 1 ", "versions: 11 ").replace("value: 1 ", "value: 11 ")
    assert run(path, 11).output == f"{path} needs no change.\n"


def test_promote_file_promotes_the_canary_and_takes_the_next(tmp_path: Path) -> None:
    path = tmp_path / "models.config"
    path.write_text(CANARY.read_text())
    assert run(path, 2).exit_code == 0
    assert run(path, 3, "--label", "canary").exit_code == 0
    config = ModelsConfig.parse(path.read_text())
    assert (config.labels("digits"), config.listed_versions("digits")) == ({"stable": 2, "canary": 3}, [2, 3])
    old = CANARY.read_text()
    assert path.read_text() == old.replace("2", "3").replace("1", "2")


@pytest.mark.parametrize(
    ("versions", "labels", "promoted", "new_versions", "new_labels"),
    [
        # The previous version's number changes, unless another label has the version.
        ("versions: 1", label("stable", 1), 2, "versions: 2", label("stable", 2)),
        ("versions: [1]", label("stable", 1), 2, "versions: [2]", label("stable", 2)),
        (
            "versions: 1",
            f"{label('stable', 1)} {label('old', 1)}",
            2,
            "versions: 1 versions: 2",
            f"{label('stable', 2)} {label('old', 1)}",
        ),
        (
            "versions: [1, 7]",
            f"{label('stable', 1)} {label('old', 1)}",
            2,
            "versions: [1, 7, 2]",
            f"{label('stable', 2)} {label('old', 1)}",
        ),
        # The version is listed already.
        ("versions: 1 versions: 11", label("stable", 1), 11, "versions: 11", label("stable", 11)),
        ("versions: 11, versions: 1;", label("stable", 1), 11, "versions: 11,", label("stable", 11)),
        ("versions: [1, 11]", label("stable", 1), 11, "versions: [11]", label("stable", 11)),
        ("versions: [11, 1]", label("stable", 1), 11, "versions: [11]", label("stable", 11)),
        ("versions: [7, 1, 11]", label("stable", 1), 11, "versions: [7, 11]", label("stable", 11)),
        # The label is new.
        ("versions: 1", label("b", 1), 1, "versions: 1", f"{label('b', 1)}\n    {label('stable', 1)}"),
        (
            "versions: 1",
            f"{label('canary', 1)}  # 1 %",
            1,
            "versions: 1",
            f"{label('canary', 1)}  # 1 %\n    {label('stable', 1)}",
        ),
        # Versions without a label are somebody's decision.
        ("versions: 7 versions: 1", label("stable", 1), 2, "versions: 7 versions: 2", label("stable", 2)),
        # Other ways to write a number and a message.
        ("versions: 0x1", "version_labels: < value: 01 key: 'stable' >", 2, "versions: 2",
         "version_labels: < value: 2 key: 'stable' >"),
    ],
)  # fmt: skip
def test_promote_in_text_edits_numbers(
    versions: str, labels: str, promoted: int, new_versions: str, new_labels: str
) -> None:
    changed = promote_in_text(model(versions, labels), "digits", promoted, "stable")
    assert changed == model(new_versions, new_labels)


def test_promote_in_text_without_labels_adds_one_on_its_own_line() -> None:
    changed = promote_in_text(model("versions: 3", ""), "digits", 3, "stable")
    lines = model("versions: 3", "").splitlines()
    assert changed.splitlines() == [*lines[:3], f"    {label('stable', 3)}", *lines[3:]]


@st.composite
def files(draw: Any) -> list[Any]:
    """Pieces of a file: texts, and between them (model, number of its stable version)."""
    newline = draw(st.sampled_from(["\n", "\r\n"]))
    comment = st.from_regex(r"# (stable|versions: 1|value: 1 \}|\"|[^\r\n]{0,9})", fullmatch=True)
    blank = st.sampled_from([" ", "  ", newline, newline + "    ", "\t"])
    gap = st.one_of(blank, st.tuples(blank, comment.map(lambda text: text + newline), blank).map("".join))
    colon = st.sampled_from(["", ":", " : "])
    pieces: list[Any] = [draw(gap), "model_config_list", draw(gap), "{"]
    for name in draw(st.permutations(["digits", "digits2", "1"])):
        used, other = (1, 11) if draw(st.booleans()) else (11, 1)
        versions = ["versions:", draw(gap), (name, used), draw(gap), f"versions: {other}", draw(gap)]
        labels = ["version_labels", draw(colon), "{", draw(gap)]
        key = ["key:", draw(gap), draw(st.sampled_from(['"stable"', "'stable'"])), draw(gap)]
        value = ["value:", draw(gap), (name, used), draw(gap)]
        fields = [
            ["name:", draw(gap), f'"{name}"'],
            ["base_path:", draw(gap), '"/models/versions: 1"'],
            ["model_version_policy", draw(colon), "{ specific {", draw(gap), *versions, "}", draw(gap), "}"],
            [*labels, *itertools.chain(*draw(st.permutations([key, value]))), "}"],
            ["version_labels { key: 'other' value:", draw(gap), str(other), draw(gap), "}"],
        ]
        pieces += [draw(gap), "config", draw(colon), "{"]
        for field in draw(st.permutations(fields)):
            pieces += [draw(gap), *field]
        pieces += [draw(gap), "}"]
    return [*pieces, draw(gap), "}", draw(gap)]


def render(pieces: list[Any], promoted: str = "", version: int = 0) -> str:
    """Return the file with the promoted model's numbers in place of its own."""
    return "".join(
        piece if isinstance(piece, str) else str(version if piece[0] == promoted else piece[1])
        for piece in pieces
    )


@given(files(), st.sampled_from(["digits", "digits2", "1"]), st.integers(12, 2**63 - 1))
def test_promote_in_text_keeps_every_other_byte(pieces: list[Any], name: str, version: int) -> None:
    assert promote_in_text(render(pieces), name, version, "stable") == render(pieces, name, version)


def test_promote_file_keeps_ends_of_lines(tmp_path: Path) -> None:
    path = tmp_path / "models.config"
    path.write_bytes(PRODUCTION.read_bytes().replace(b"\n", b"\r\n"))
    assert run(path, 5).exit_code == 0
    assert path.read_bytes().count(b"\r\n") == path.read_bytes().count(b"\n")


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        ("no config", [2], "invalid model server configuration"),
        ("\xff", [2], "invalid"),
        ("", [2], "choose one of its models with --model: it has none"),
        (
            model("versions: 1", ""),
            [2, "--model", "flowers"],
            "choose one of its models with --model: digits",
        ),
        (model("versions: 1", ""), [2, "--label", "a b"], "'a b' is not a label"),
        (
            model("versions: 1", "").replace("specific", "latest").replace("versions: 1", ""),
            [2],
            "not listed",
        ),
        (model("", ""), [2], "written in an unusual way; change its numbers by hand"),
        (model("versions: 1 versions: 1", label("stable", 1)), [2], "unusual way"),
        (model("versions: 1", "").replace('"digits"', '"di" "gits"'), [2], "unusual way"),
        (model("versions: 1", "").replace('"digits"', '"d\\x69gits"'), [2], "unusual way"),
        (model("versions: 1", f"version_labels [{label('stable', 1)[14:]}]"), [2], "unusual way"),
    ],
)
def test_promote_file_that_does_not_fit_changes_nothing(
    tmp_path: Path, text: str, arguments: list[Any], message: str
) -> None:
    path = tmp_path / "models.config"
    path.write_bytes(text.encode("latin-1"))
    result = run(path, *arguments)
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert f"Error: {path}: " in result.stderr
    assert message in result.stderr
    assert path.read_bytes() == text.encode("latin-1")


def test_promote_file_of_several_models_needs_the_model(tmp_path: Path) -> None:
    path = tmp_path / "models.config"
    one, end = model("versions: 1", label("stable", 1)).removesuffix("}\n"), "}\n"
    other = one.replace("digits", "flowers").removeprefix("model_config_list { ")
    path.write_text(one + other + end)
    assert "choose one of its models with --model: digits, flowers" in run(path, 2).stderr
    assert run(path, 2, "--model", "flowers").exit_code == 0
    assert path.read_text() == one + other.replace("1", "2") + end


def test_promote_missing_file_is_an_error(tmp_path: Path) -> None:
    assert "does not exist" in run(tmp_path / "models.config", 2).stderr


def test_promote_in_text_unlisted_model_raises() -> None:
    with pytest.raises(ReleaseError, match="no model named flowers"):
        promote_in_text(model("versions: 1", ""), "flowers", 1, "stable")
