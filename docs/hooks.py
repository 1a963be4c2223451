"""MkDocs hooks: the OpenAPI document and the notebook, rendered at build."""

import json
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from nbconvert import MarkdownExporter

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


def on_page_markdown(markdown: str, **_: object) -> str:
    """Lead links to the notebook to its page."""
    return markdown.replace("(ten_lines.ipynb)", "(ten_lines.md)")
