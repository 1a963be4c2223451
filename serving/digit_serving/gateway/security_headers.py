"""Security headers: Content-Security-Policy for the gateway's pages, and CORS for the API."""

from collections.abc import Collection

from flask import Blueprint, Response, request

_SECURITY_HEADERS = {
    # Pages load their own files only; images are drawn by the page (data:) or referenced by its stylesheet.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
}
_CORS_HEADERS = {
    "Access-Control-Allow-Headers": "Authorization, Content-Type, X-Request-ID",
    "Access-Control-Allow-Methods": "GET, POST",
    "Access-Control-Expose-Headers": "Retry-After, X-Request-ID",
    "Access-Control-Max-Age": "600",
}


def add_security_headers(pages: Blueprint) -> None:
    """Forbid foreign resources, inline scripts and styles, and framing of the pages."""

    @pages.after_request
    def add(response: Response) -> Response:
        response.headers.update(_SECURITY_HEADERS)
        return response


def enable_cors(api: Blueprint, origins: Collection[str]) -> None:
    """Allow pages of these origins, such as `https://app.example.com`, to call the API."""
    if not origins:
        return

    @api.after_request
    def add(response: Response) -> Response:
        response.vary.add("Origin")
        origin = request.origin
        if origin in origins:
            response.headers.update(_CORS_HEADERS | {"Access-Control-Allow-Origin": origin})
        return response
