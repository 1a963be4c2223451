"""Output of `digits models ls`, `show` and `history`: tables and model cards."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from digit_core.artifact.changes import Change
from digit_core.artifact.models_config import STABLE
from digit_core.artifact.models_folder import ModelsFolder
from digit_core.artifact.traffic import Shares
from digit_core.tfserving.calls import VersionStatus
from digit_serving import commands
from digit_serving.commands import NONE, format_size, format_time

_HEADINGS = ("VERSION", "PUBLISHED", "ACCURACY", "STATE", "LABELS", "SIZE")
_HISTORY_HEADINGS = ("TIME", "MODEL", "LABEL", "FROM", "VERSION", "SHARE", "BY", "COMMAND")


@dataclass(frozen=True, slots=True)
class Row:
    """One version in the list.

    `published` (ISO 8601), `accuracy` (0..1), and the checksum of the `pictures` that it was measured on come
    from the model card, None if the card lacks them; `checked` says on what the model was checked, or that
    it was forced. `state` is "missing" without a folder, "not entered" if models.config does not list the
    version, "damaged" if a file of a version that is not loaded has changed, or the model server's, None if
    it does not know the version or does not answer. `bytes` is the size on disk. `reason` says why the
    version can't be served, "" if it can.
    """

    version: int
    published: Any
    accuracy: Any
    checked: Any
    pictures: Any
    state: str | None
    labels: list[str]
    bytes: int
    reason: str


def make_rows(folder: ModelsFolder, name: str, statuses: Mapping[int, VersionStatus]) -> list[Row]:
    """Return the rows of the versions that are published, listed or labelled, newest first.

    `statuses` maps versions to what the model server says.
    """
    published, config = folder.versions(name), folder.read_config()
    entered, labels = config.selected(name, published), config.labels(name)
    rows = []
    for number in sorted({*published, *config.listed(name), *labels.values()}, reverse=True):
        version = folder.place(name, number)
        status = statuses.get(number) if number in entered else None
        state, reason = (status.state, status.error) if status else (None, "")
        if number not in entered:
            state = "not entered"
        if status is None and version.is_complete and (reason := version.defect()):
            state = "damaged"
        card = version.card()
        data = card.get("data")
        rows.append(
            Row(
                number,
                card.get("created"),
                card.get("accuracy"),
                "forced" if card.get("forced") and card.get("accuracy") else card.get("checked"),
                data.get("test_checksum") if isinstance(data, dict) else None,
                state if number in published else "missing",
                sorted(label for label, labelled in labels.items() if labelled == number),
                version.size(),
                reason,
            )
        )
    return rows


def format_table(rows: Sequence[Row], shares: Shares) -> str:
    """Return a table with headings. Numbers are right-aligned. Labels have their shares of the requests.

    An accuracy on other test pictures than the stable version's, or without one the newest's, is marked.
    """
    measured = sorted((row for row in rows if row.accuracy), key=lambda row: STABLE not in row.labels)
    others = [row for row in measured if row.pictures != measured[0].pictures]
    cells = [_cells(row, shares, "*" if row in others else "") for row in rows]
    lines = [commands.format_table(_HEADINGS, cells, numbers={"VERSION", "SIZE"})]
    if others:
        note = f"* marks an accuracy measured on different test pictures than version {measured[0].version}'s"
        lines.append(f"{note}; don't compare it")
    return "\n".join(lines)


def format_history(changes: Iterable[Change]) -> str:
    """Return a table with a line for each change of a label, or of its share of the requests."""
    rows = [
        (
            format_time(datetime.fromisoformat(change.time)),
            change.model,
            change.label,
            NONE if change.previous is None else str(change.previous),
            NONE if change.version is None else str(change.version),
            NONE if change.share is None else f"{100 * change.share:g} %",
            change.by,
            change.command,
        )
        for change in changes
    ]
    return commands.format_table(_HISTORY_HEADINGS, rows, numbers={"FROM", "VERSION", "SHARE"})


def format_card(card: Mapping[str, Any]) -> str:
    """Return the model card with one entry per line; nested entries are indented."""
    entries = [*_entries(card, "")]
    width = max((len(name) for name, _ in entries), default=0)
    return "\n".join(f"{name.ljust(width)}  {value}".rstrip() for name, value in entries)


def _cells(row: Row, shares: Shares, mark: str) -> tuple[str, ...]:
    try:
        published = format_time(datetime.fromisoformat(row.published))
    except (TypeError, ValueError):
        published = NONE
    return (
        str(row.version),
        published,
        _format_accuracy(row, mark),
        row.state or NONE,
        ", ".join(f"{label} {100 * shares[label]:g} %" if label in shares else label for label in row.labels)
        or NONE,
        format_size(row.bytes),
    )


def _format_accuracy(row: Row, mark: str) -> str:
    if not isinstance(row.accuracy, float):
        return str(row.checked or NONE)
    return f"{row.accuracy:.4f}{mark}{' forced' if row.checked == 'forced' else ''}"


def _entries(card: Mapping[str, Any], indent: str) -> Iterator[tuple[str, str]]:
    for name, value in card.items():
        title = indent + name.replace("_", " ")
        if isinstance(value, Mapping):
            yield title, ""
            yield from _entries(value, indent + "  ")
        else:
            yield title, _format_value(value)


def _format_value(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: NONE, True: "yes", False: "no"}[value]
    if isinstance(value, list):
        return ", ".join(map(_format_value, value))
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
