"""Writes the reference anew: `python -m docs.reference`."""

from docs.reference.pages import FOLDER, pages

for name, text in pages().items():
    (FOLDER / name).write_text(text)
