"""Upper bound for a Flask service behind Granian: a constant response of 300 bytes."""

from flask import Flask, Response, request

app = Flask(__name__)
_BODY = b"x" * 300


@app.get("/readyz")
def ready() -> Response:
    """Report readiness at once."""
    return Response(_BODY)


@app.post("/v1/predict")
def predict() -> Response:
    """Read the request's body, and nothing more."""
    request.get_data(cache=False)
    return Response(_BODY, content_type="application/json")
