"""HTML report of a run: a self-contained page without scripts."""

from collections.abc import Mapping

from jinja2 import Environment, PackageLoader, StrictUndefined

from digit_serving.drift import analysis
from digit_serving.drift.analysis import Bin, Comparison, Drift, Quantity

MAX_BINS = 20
"""Most rows of a chart; of more labels those whose share has changed most are shown."""

_TITLES: Mapping[Quantity, str] = {"label": "Labels", "confidence": "Confidences", "version": "Versions"}


def render_page(drift: Drift) -> str:
    """Return the report as HTML. Untrusted values, such as labels, are escaped."""
    environment = Environment(
        loader=PackageLoader("digit_serving.drift"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["share"] = analysis.format_share
    return environment.get_template("report.html").render(
        drift=drift, analysis=analysis, titles=_TITLES, shown_bins=shown_bins
    )


def shown_bins(comparison: Comparison) -> list[Bin]:
    """Return all bins in their order, or of more than MAX_BINS those with the largest changes first."""
    if len(comparison.bins) <= MAX_BINS:
        return comparison.bins
    return sorted(comparison.bins, key=lambda each: -abs(each.change))[:MAX_BINS]
