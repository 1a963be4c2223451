"""`digits drift`: the command. Its modules are imported when it runs."""

import re
import typing
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

if typing.TYPE_CHECKING:
    from digit_serving.drift.analysis import FeedbackWindows, ModelDrift
    from digit_serving.feedback.records import Agreement

_HOURS = {"h": 1, "d": 24, "w": 168}


def _parse_duration(_ctx: click.Context, _option: click.Parameter, value: str) -> timedelta:
    # Four digits: at most 192 years, so that both windows begin within the calendar.
    if (found := re.fullmatch(r"(\d{1,4})([hdw])", value)) and int(found[1]):
        return timedelta(hours=int(found[1]) * _HOURS[found[2]])
    raise click.BadParameter(f"{value!r} is not a duration, such as 12h, 7d or 4w")


@click.command()
@click.option(
    "--since",
    metavar="AGE",
    default="7d",
    show_default=True,
    callback=_parse_duration,
    help="Length of the current window, which ends now.",
)
@click.option(
    "--reference",
    metavar="AGE",
    default="28d",
    show_default=True,
    callback=_parse_duration,
    help="Length of the reference window, which ends where the current one begins.",
)
@click.option("--prometheus", metavar="URL", help="Prometheus that scrapes the gateways.")
@click.option(
    "--store",
    metavar="URL",
    envvar="DIGITS_FEEDBACK",
    show_envvar=True,
    help="The gateway's store: sqlite:///FILE or postgresql://USER@HOST/DATABASE.",
)
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.html",
    help="Write the comparison as a page.",
)
@click.option("--push", metavar="URL", help="Push gauges to this Pushgateway, for alerts.")
def drift(
    since: timedelta,
    reference: timedelta,
    prometheus: str | None,
    store: str | None,
    report: Path | None,
    push: str | None,
) -> None:
    """Compare the answers of the last days with those before, and with users' feedback.

    --prometheus gives the population stability index (PSI) of labels and of confidences: up to 0.1 stable,
    up to 0.25 moderate, above shifted. --store gives the share of the feedback that agrees, by version.

    Exit status: 0 also if answers have shifted, 1 after a failure, 2 for a wrong command.
    """
    from digit_serving.drift.analysis import Drift, format_drift
    from digit_serving.drift.gauges import push_gauges
    from digit_serving.drift.report import render_page

    if not (prometheus or store):
        raise click.UsageError("give --prometheus, --store or both")
    now = datetime.now(UTC)
    result = Drift(
        now,
        since,
        reference,
        _compare_answers(prometheus, since, reference) if prometheus else None,
        _read_feedback(store, now - since, reference) if store else None,
    )
    click.echo(format_drift(result))
    try:
        if report:
            report.write_text(render_page(result), encoding="utf-8")
        if push:
            push_gauges(result, push)
    except OSError as error:
        raise click.ClickException(str(error)) from error


def _compare_answers(url: str, since: timedelta, reference: timedelta) -> "list[ModelDrift]":
    from digit_serving.drift.analysis import compare
    from digit_serving.drift.prometheus import PrometheusError, read_answers

    try:
        return compare(read_answers(url, since), read_answers(url, reference, ended=since))
    except PrometheusError as error:
        raise click.ClickException(str(error)) from error


def _read_feedback(url: str, start: datetime, reference: timedelta) -> "FeedbackWindows":
    """Read the agreement of answers since `start`, and of those before."""
    from digit_client.artifact.feedback_table import StoreError, parse_url, sqlite_file
    from digit_serving.drift.analysis import FeedbackWindows
    from digit_serving.feedback.store import FeedbackStore

    try:
        file = sqlite_file(parse_url(url))
        # A mistyped name would become an empty store.
        if file and not file.exists():
            raise click.ClickException(f"{file} does not exist")
        # Labels of sampled, unsure answers would lower the agreement as often as somebody labels them.
        with closing(FeedbackStore(url)) as store:
            current = store.stats(since=start, source="feedback")
            earlier = store.stats(since=start - reference, before=start, source="feedback")
    except StoreError as error:
        raise click.ClickException(str(error)) from error
    return FeedbackWindows(_with_labels(current), _with_labels(earlier))


def _with_labels(versions: "list[Agreement]") -> "list[Agreement]":
    """Return the versions that have labels: all labels of another may have been withdrawn."""
    return [version for version in versions if version.labelled]
