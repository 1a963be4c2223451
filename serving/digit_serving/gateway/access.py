"""Who may ask, and how often."""

from flask import Blueprint, g, request

from digit_serving.gateway.errors import UnauthorizedError
from digit_serving.gateway.keys import Keys
from digit_serving.gateway.settings import Settings


def guard(api: Blueprint, settings: Settings) -> None:
    """Have the routes ask for a key, and bound each caller's rate, where the settings want it.

    A caller is its key where keys are asked for, else its address.
    """
    if settings.api_keys:
        keys = Keys(settings.api_keys)

        @api.before_request
        def ask_for_key() -> None:
            # Browsers ask without a key what they may ask with one.
            if request.method != "OPTIONS":
                g.record.key = _name_of_key(keys)

    if settings.rate_limit:
        # It takes a while to import.
        from digit_serving.gateway.rates import Rates, network

        rates = Rates(settings.rate_limit, settings.rate_limit_store)

        @api.before_request
        def bound_rate() -> None:
            rates.check(g.record.key or network(request.remote_addr))


def _name_of_key(keys: Keys) -> str:
    shown = request.authorization
    name = keys.name_of(shown.token) if shown and shown.type == "bearer" and shown.token else None
    if name is None:
        raise UnauthorizedError("Send a key of this service as `Authorization: Bearer <key>`.")
    return name
