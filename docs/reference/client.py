"""The page of the client: the public names of `digit_client`."""

import inspect

import digit_client
from digit_client import DigitError, _exceptions, _inputs
from docs.reference import source
from docs.reference.markdown import code, joined, table


def page() -> str:
    """Every public name, its signatures, and what it says of itself."""
    kinds = [getattr(digit_client, name) for name in digit_client.__all__]
    failures = [kind for kind in kinds if issubclass(kind, DigitError)]
    return joined(
        [
            "# The client",
            inspect.cleandoc(digit_client.__doc__ or ""),
            f"An `ImageSource` is one of {_names(_inputs.ImageSource)}.",
            *(_section(kind) for kind in kinds if kind not in failures),
            "## Errors",
            inspect.cleandoc(_exceptions.__doc__ or ""),
            table(("error", "`code`", ""), map(_error, failures)),
        ]
    )


def _section(kind: type) -> str:
    parts = [f"## {kind.__name__}", inspect.cleandoc(kind.__doc__ or "")]
    for signature, text in source.methods(kind):
        parts += [code(signature, "python"), text]
    return joined(parts)


def _error(kind: type[DigitError]) -> tuple[str, str, str]:
    return kind.__name__, f"`{kind.code}`", kind.__doc__ or ""


def _names(alias: object) -> str:
    return ", ".join(f"`{name.strip()}`" for name in str(alias).split("|"))
