"""What a browser is told about the pages that it shows."""

from flask import Blueprint, Response

# A page brings all that it needs, and what it shows of pictures it makes itself or has in its stylesheet.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def guard(pages: Blueprint) -> None:
    """Have the pages load nothing from elsewhere, run nothing that is not theirs, and not be framed."""

    @pages.after_request
    def tell(response: Response) -> Response:
        response.headers.update(_HEADERS)
        return response
