"""What a browser is told: what the pages here may do, and which other pages may ask the API."""

from collections.abc import Collection

from flask import Blueprint, Response, request

# A page brings all that it needs, and what it shows of pictures it makes itself or has in its stylesheet.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Referrer-Policy": "no-referrer",
}
_FOR_OTHERS = {
    "Access-Control-Allow-Headers": "Authorization, Content-Type, X-Request-ID",
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Expose-Headers": "Retry-After, X-Request-ID",
    "Access-Control-Max-Age": "600",
}


def guard(pages: Blueprint) -> None:
    """Have the pages load nothing from elsewhere, run nothing that is not theirs, and not be framed."""

    @pages.after_request
    def tell(response: Response) -> Response:
        response.headers.update(_HEADERS)
        return response


def admit(api: Blueprint, origins: Collection[str]) -> None:
    """Let pages of these origins ask the API, and no others."""
    if not origins:
        return

    @api.after_request
    def tell(response: Response) -> Response:
        response.vary.add("Origin")
        origin = request.origin
        if origin in origins:
            response.headers.update(_FOR_OTHERS | {"Access-Control-Allow-Origin": origin})
        return response
