"""The Flask application."""

from flask import Flask

from digit_client.model_server import ModelServer
from digit_serving.gateway import api, errors, health, hooks, openapi
from digit_serving.gateway.metrics import Metrics
from digit_serving.gateway.routing import Router
from digit_serving.gateway.settings import Settings


def create_app(settings: Settings) -> Flask:
    """The gateway as a WSGI application.

    It opens its connection to the model server here: create it in the process that answers, after any fork.
    """
    app = Flask(__name__, static_folder=None)
    app.config.update(MAX_CONTENT_LENGTH=settings.max_body, MAX_FORM_PARTS=settings.max_images + 1)
    model_server = ModelServer(settings.model_server)
    metrics = Metrics()
    hooks.register(app, metrics)
    errors.register(app)
    app.register_blueprint(api.blueprint(settings, model_server, Router(settings, model_server, metrics)))
    app.register_blueprint(health.blueprint(settings, model_server, metrics))
    app.register_blueprint(openapi.blueprint(settings))
    return app
