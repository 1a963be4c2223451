"""MkDocs hooks: tables of the settings, the OpenAPI document and the notebook, all rendered at build."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbconvert import MarkdownExporter

from digit_client.__main__ import main
from digit_serving.gateway.openapi import describe
from digit_serving.gateway.settings import Settings

NOTEBOOK = "tutorials/ten_lines"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the OpenAPI document, and the notebook as a page with its pictures."""
    settings = Settings.model_construct(feedback="sqlite:///feedback.db", api_keys=Path("keys"))
    document = json.dumps(describe(settings), indent=2)
    exporter = MarkdownExporter()  # type: ignore[no-untyped-call]
    text, resources = exporter.from_filename(f"{config.docs_dir}/{NOTEBOOK}.ipynb")
    generated = {
        "reference/openapi.json": document,
        f"{NOTEBOOK}.md": text,
        **{f"{Path(NOTEBOOK).parent}/{name}": data for name, data in resources["outputs"].items()},
    }
    for path, content in generated.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Insert the tables of the settings, and lead links to the notebook to its page."""
    if page.file.src_uri == "reference/settings.md":
        return with_tables(markdown)
    return markdown.replace("(ten_lines.ipynb)", "(ten_lines.md)")


def with_tables(markdown: str) -> str:
    """Return the page of the settings with its tables in place of their comments."""
    markdown = markdown.replace("<!-- table of the gateway's settings -->", _table(gateway_settings()))
    return markdown.replace("<!-- table of the commands' settings -->", _table(command_settings()))


def gateway_settings() -> Iterator[tuple[str, str, str]]:
    """Yield variable, default and meaning of each field of `Settings`."""
    documented = griffe.load(Settings.__module__)[Settings.__name__].members
    for name, field in Settings.model_fields.items():
        docstring = documented[name].docstring
        yield f"DIGITS_{name.upper()}", _default(field.default), docstring.value if docstring else ""


def command_settings() -> Iterator[tuple[str, str, str]]:
    """Yield variable, default and meaning of each option of `digits` that a variable sets."""
    commands: dict[tuple[str, str, str, str], list[str]] = {}
    for name, option in _options(main):
        if option.envvar:
            default = _default(option.to_info_dict()["default"])
            key = str(option.envvar), default, option.opts[0], str(option.help)
            commands.setdefault(key, []).append(f"`digits {name}`")
    for (variable, default, flag, text), names in commands.items():
        yield variable, default, f"`{flag}` of {', '.join(dict.fromkeys(names))}: {text}"


def _table(rows: Iterable[tuple[str, str, str]]) -> str:
    lines = ["| variable | default | meaning |", "|---|---|---|"]
    for variable, default, meaning in rows:
        lines.append(f"| `{variable}` | {default} | {' '.join(meaning.split())} |")
    return "\n".join(lines)


def _options(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Option]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command
        if isinstance(command, click.Group):
            yield from _options(command, path or name)
        else:
            yield from ((path or name, each) for each in command.params if isinstance(each, click.Option))


def _default(value: object) -> str:
    text = ",".join(value) if isinstance(value, tuple) else "" if value is None else str(value)
    return f"`{text}`" if text else ""
