"""`digits score`: the command. Its modules are imported when it runs."""

import sys
from typing import Any

import click

from digit_client.command_options import described_options
from digit_core.options import ReadOptions, described
from digit_serving.commands import POSITIVE, click_errors, models_option, option

_COUNT = click.IntRange(min=1)
_STOPPED = 130
_PINNED = ("version", "label", "include")
"""Options of a call that the command sets for all pictures, or whose result no column has."""


@click.command()
@click.argument("source")
@click.option("-o", "--output", required=True, metavar="OUT", help="Folder or URL of the results.")
@click.option(
    "--model", metavar="NAME", help="Name of the model.  [default: the folder's only one, or digits]"
)
@click.option(
    "--version", type=click.IntRange(min=0), help="Version of the model.  [default: the stable one]"
)
@click.option("--version-label", "label", help="Label of the model's version.")
@models_option
@click.option(
    "--model-server", "target", metavar="HOST:PORT", help="Model server to ask, in place of one for --models."
)
@click.option(
    "--ray",
    metavar="ADDRESS",
    help="Ray cluster: HOST:PORT on one of its nodes, or ray://HOST:PORT.  "
    "[default: processes on this machine]",
)
@click.option("--workers", type=_COUNT, help="Number of workers.  [default: all CPUs]")
@option("--batch", "batch_size", type=_COUNT, default=1024, help="Pictures in a file of results.")
@click.option("--read", is_flag=True, default=None, help="Read all digits on each picture, with their boxes.")
@described_options(ReadOptions, without=_PINNED)
@click.option(
    "--expectations",
    metavar="TABLE",
    help="CSV or Parquet file with what is expected on each picture: `path`, from SOURCE, and `expect`, "
    "`check` or both, in place of those of all pictures.",
)
@click.option(
    "--doubtful",
    type=click.FloatRange(min=0, max=100, min_open=True),
    metavar="PERCENT",
    help="Also write the pictures refused as unexpected or unsure, and then this part of the answers, the "
    "least sure ones, to OUT/_doubtful.csv.",
)
@option("--timeout", type=POSITIVE, default=60.0, help="Timeout of a call with its retries, in seconds.")
@click.pass_context
def score(ctx: click.Context, /, **options: Any) -> None:
    """Classify every picture in SOURCE and its subfolders, and write a row for each to OUT.

    SOURCE and OUT are folders or URLs of any fsspec filesystem: s3://bucket/photos. Files without the suffix
    of an image are counted and left out.

    Run the command again after a stop, a crash, or changes in SOURCE: it scores new and changed pictures,
    drops the rows of removed ones, and stays with the version of the first run. A picture that can't be
    decoded is a row with an error. A file that can't be read and a failed call are rows too, and the next
    run scores these pictures again.

    Run one command at a time for an OUT. Each worker holds few pictures in memory.

    Exit status: 0 if all pictures were answered or can't be, 1 if some are to be scored again or the run
    failed, 2 for a wrong command, 130 after a stop.
    """
    if options["version"] is not None and options["label"] is not None:
        raise click.UsageError("--version and --version-label are mutually exclusive: give one of them")
    given = ctx.get_parameter_source("root") is click.core.ParameterSource.COMMANDLINE
    if options["target"] and given:
        raise click.UsageError("--models and --model-server are mutually exclusive: give one of them")
    if options["ray"] and not options["target"]:
        raise click.UsageError("--ray needs --model-server")
    from digit_serving.scoring.job import Job

    asked = {name: options.pop(name) for name in described(ReadOptions) if name not in _PINNED}
    asked = {name: value for name, value in asked.items() if value is not None}
    job, status = Job(**options, options=asked), _STOPPED
    with click_errors():
        try:
            job.score()
            status = 1 if job.to_repeat else 0
        except (KeyboardInterrupt, SystemExit):
            # Ray turns SIGTERM into SystemExit.
            click.echo("Stopped; run the command again to go on.", err=True)
    click.echo(str(job), nl=False)
    sys.exit(status)
