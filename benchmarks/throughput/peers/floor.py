"""What a Flask service can reach at all on the product's WSGI server: an answer of 300 fixed bytes."""

from flask import Flask, Response, request

app = Flask(__name__)
_BODY = b"x" * 300


@app.get("/readyz")
def ready() -> Response:
    """Nothing to wait for."""
    return Response(_BODY)


@app.post("/v1/predict")
def predict() -> Response:
    """What was sent is read, and that is all."""
    request.get_data(cache=False)
    return Response(_BODY, content_type="application/json")
