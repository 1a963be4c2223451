"""The pages of the reference: each is what the code says of itself."""

from pathlib import Path

from docs.reference import api, cli, client, settings

FOLDER = Path(__file__).parent
_HEAD = "<!-- Made from the code by `make docs`. -->"


def pages() -> dict[str, str]:
    """The text of each page, by the name of its file."""
    texts = {"api": api.page(), "cli": cli.page(), "client": client.page(), "settings": settings.page()}
    return {f"{name}.md": f"{_HEAD}\n\n{text}" for name, text in texts.items()}
