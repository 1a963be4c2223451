"""Keywords of JSON Schema at the types of described dataclasses, and bounds of what a call may say."""

from collections.abc import Callable
from typing import Annotated, Any


class Schema:
    """Keywords of JSON Schema for an annotated type; with `type` they replace those that follow from it."""

    def __init__(self, **keywords: Any) -> None:
        self.keywords = keywords

    def __get_pydantic_json_schema__(self, schema: Any, handler: Callable[[Any], Any]) -> dict[str, Any]:
        """Return the schema of the annotated type, as pydantic asks for it."""
        return self.keywords if "type" in self.keywords else {**handler(schema), **self.keywords}


Share = Annotated[float, Schema(minimum=0, maximum=1)]

MAX_LABEL = 16 * 1024
"""Longest label of a version, in characters: as long as a head of a request."""
MAX_PATTERN = 200
"""Longest pattern, in characters."""
MAX_NUMBERS = 100_000
"""Largest number of valid numbers."""
MAX_BOXES = 1000
"""Largest number of boxes."""
MAX_FORM_FIELDS = 64
"""Largest number of fields of a form."""
