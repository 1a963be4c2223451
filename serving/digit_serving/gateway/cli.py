"""`digits gateway`."""

import click


@click.command()
def gateway() -> None:
    """Answer HTTP requests with the digits on their images.

    Set by environment variables: DIGITS_HOST, DIGITS_PORT, DIGITS_MODEL_SERVER and more; see
    docs/reference/settings.md.
    """
    from pydantic import ValidationError

    from digit_serving.gateway.server import serve
    from digit_serving.gateway.settings import Settings

    try:
        settings = Settings()
    except ValidationError as error:
        problems = "; ".join(
            f"DIGITS_{str(part['loc'][0]).upper()}: {part['msg']}" for part in error.errors()
        )
        raise click.UsageError(problems) from error
    serve(settings)
