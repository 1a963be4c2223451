"""Promotion in a models.config that people keep, in git say: edits a label and versions, no other byte."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from digit_serving.releases.config import ModelsConfig, ReleaseError

_TOKEN = re.compile(r"""(?:\s+|\#[^\n]*)|("(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|[\w.+-]+|\S)""", re.ASCII)

Token = re.Match[str]
Edit = tuple[int, int, str]
"""Start and end of a piece of the text, and the text in its place."""


@dataclass(frozen=True, slots=True)
class _Field:
    """Field of a message in text format, from `start` to `end`, with its separator.

    A message has fields; a scalar has one token in `values`, a list of scalars several.
    """

    name: str
    start: int
    end: int
    fields: "list[_Field]"
    values: list[Token]
    is_list: bool

    def select(self, *path: str) -> "list[_Field]":
        """Return the fields below this one that the path of names leads to."""
        if not path:
            return [self]
        return [found for field in self.fields if field.name == path[0] for found in field.select(*path[1:])]

    def has_text(self, name: str, text: str) -> bool:
        """True if a field of this name has the text as its string."""
        return any(token[1][1:-1] == text for field in self.select(name) for token in field.values)


def promote_in_file(path: Path, name: str | None, version: int, label: str) -> bool:
    """Move the model's label to the version in the file at `path`; return False if it is there already.

    `name` may be None if the file lists one model. Raises ReleaseError for a file, model or label that does
    not fit (see `promote_in_text`), and OSError.
    """
    try:
        # Bytes: text mode would change the ends of lines.
        text = path.read_bytes().decode()
        name = ModelsConfig.parse(text).choose(name)
        new = promote_in_text(text, name, version, label)
    except (ReleaseError, UnicodeDecodeError) as error:
        raise ReleaseError(f"{path}: {error}") from error
    if new != text:
        path.write_bytes(new.encode())
    return new != text


def promote_in_text(text: str, name: str, version: int, label: str) -> str:
    """Return the text with the model's label on the version, and the version among those to load.

    The label's previous version is not loaded any more, unless another label has it. Raises ReleaseError if
    the text does not list the model's versions, or if this function does not understand it.
    """
    old = ModelsConfig.parse(text)
    listed = old.listed_versions(name)
    if listed is None:
        raise ReleaseError(
            f"the versions of {name} to load are not listed; "
            "write, say, model_version_policy { specific { versions: 1 } }"
        )
    expected = old.promote(name, version, label)
    previous = old.labels(name).get(label)
    unused = None if previous in expected.labels(name).values() else previous
    expected = expected.with_versions(name, {*listed, version} - {unused})
    try:
        new = text
        for start, end, replacement in sorted(_edits(text, name, version, label, unused), reverse=True):
            new = new[:start] + replacement + new[end:]
        changed = ModelsConfig.parse(new)
        if changed.with_versions(name, changed.listed_versions(name) or ()).message == expected.message:
            return new
    except (IndexError, ValueError, ReleaseError):
        # The parser below knows the usual ways to write an entry. Here the others end, or at the comparison.
        pass
    raise ReleaseError(f"the entry of {name} is written in an unusual way; change its numbers by hand")


def _edits(text: str, name: str, version: int, label: str, unused: int | None) -> Iterator[Edit]:
    fields, _ = _parse([match for match in _TOKEN.finditer(text) if match[1]], 0)
    whole = _Field("", 0, len(text), fields, [], False)
    entries = whole.select("model_config_list", "config")
    (model,) = (entry for entry in entries if entry.has_text("name", name))
    yield _label_edit(text, model, version, label)
    yield from _version_edits(text, model, version, unused)


def _label_edit(text: str, model: _Field, version: int, label: str) -> Edit:
    labels = model.select("version_labels")
    for entry in labels:
        if entry.has_text("key", label):
            return (*entry.select("value")[0].values[0].span(), str(version))
    addition = f'version_labels {{ key: "{label}" value: {version} }}'
    return _insertion(text, (labels or model.fields)[-1], addition)


def _version_edits(text: str, model: _Field, version: int, unused: int | None) -> Iterator[Edit]:
    listed = [
        (field, token, int(token[1], 0))
        for field in model.select("model_version_policy", "specific", "versions")
        for token in field.values
    ]
    surplus = [(field, token) for field, token, number in listed if number == unused]
    if version in (number for _, _, number in listed):
        for field, token in surplus:
            yield _removal(text, field, token)
    elif surplus:
        yield (*surplus[0][1].span(), str(version))
    else:
        last, token, _ = listed[-1]
        in_list = token.end(), token.end(), f", {version}"
        yield in_list if last.is_list else _insertion(text, last, f"versions: {version}")


def _insertion(text: str, field: _Field, addition: str) -> Edit:
    """Add a field behind another one, on its own line if the other has its own."""
    gap = re.search(r"(?:\r?\n)?[^\r\n]*\Z", _gap(text, field))
    rest_of_line = re.compile(r"[^\S\r\n]*(?:#[^\r\n]*)?(?=\r?\n)").match(text, field.end)
    assert gap
    at = rest_of_line.end() if rest_of_line and "\n" in gap[0] else field.end
    return at, at, (gap[0] or " ") + addition


def _removal(text: str, field: _Field, token: Token) -> Edit:
    if len(field.values) == 1:
        return field.start - len(_gap(text, field)), field.end, ""
    if token == field.values[0]:
        return token.start(), field.values[1].start(), ""
    return field.values[field.values.index(token) - 1].end(), token.end(), ""


def _gap(text: str, field: _Field) -> str:
    """Return the white space before the field."""
    before = text[: field.start]
    return before[len(before.rstrip()) :]


def _parse(tokens: list[Token], at: int) -> tuple[list[_Field], int]:
    """Return the fields from this token to the end of their message, and the index of the token there."""
    fields = []
    while at < len(tokens) and tokens[at][1] not in "}>":
        name, start = tokens[at][1], tokens[at].start()
        at += 2 if tokens[at + 1][1] == ":" else 1
        inner, values, is_list = list[_Field](), list[Token](), tokens[at][1] == "["
        if tokens[at][1] in "{<":
            inner, at = _parse(tokens, at + 1)
        elif is_list:
            while tokens[at][1] != "]":
                at += 1
                if tokens[at][1] in "{<":
                    raise ValueError("a list of messages")
                values += [tokens[at]] if tokens[at][1] not in ",]" else []
        else:
            values = [tokens[at]]
        if at + 1 < len(tokens) and tokens[at + 1][1] in ",;":
            at += 1
        fields.append(_Field(name, start, tokens[at].end(), inner, values, is_list))
        at += 1
    return fields, at
