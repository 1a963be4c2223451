"""MkDocs hooks: pages and diagrams that are rendered at build."""

import json
import re
from pathlib import Path
from zlib import crc32

import mermaidx
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbconvert import MarkdownExporter

from digit_serving.gateway.openapi import describe
from digit_serving.gateway.settings import Settings
from docs import render

MARK = Path("serving/digit_serving/gateway/static/icon.svg")
NOTEBOOK = "tutorials/ten_lines"


def diagram(source: str, *_: object, **__: object) -> str:
    """Return the figure of a `mermaid` fence: SVG drawn at build, so that readers load no script.

    `site.css` has its colours, of each scheme, in place of Mermaid's own.
    """
    svg = re.sub("<style>.*?</style>", "", mermaidx.render(source).svg(), flags=re.DOTALL)
    # Mermaid gives every drawing the same ID, and a page may have several.
    return f'<figure class="diagram">{svg.replace("my-svg", f"diagram-{crc32(source.encode())}")}</figure>'


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the mark of the gateway's page, the OpenAPI document, and the notebook as a page with pictures."""
    settings = Settings.model_construct(feedback="sqlite:///feedback.db", api_keys=Path("keys"))
    document = json.dumps(describe(settings), indent=2)
    exporter = MarkdownExporter()  # type: ignore[no-untyped-call]
    text, resources = exporter.from_filename(f"{config.docs_dir}/{NOTEBOOK}.ipynb")
    generated = {
        MARK.name: MARK.read_text(),
        "reference/openapi.json": document,
        f"{NOTEBOOK}.md": text,
        **{f"{Path(NOTEBOOK).parent}/{name}": data for name, data in resources["outputs"].items()},
    }
    for path, content in generated.items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Render the lists of the reference; lead links to the notebook to its page; widen the home page."""
    if page.is_homepage:
        page.meta["hide"] = ["navigation", "toc"]
    return render.render(markdown).replace("ten_lines.ipynb)", "ten_lines.md)")
