"""Objects of the overlays, rendered from the chart by Helm's engine: python k8s/render.py."""

from pathlib import Path
from typing import Any

import yaml
from helm_python import Chart

K8S = Path(__file__).parent
OVERLAYS = sorted(path.parent.name for path in K8S.glob("overlays/*/values.yaml"))


def render(values: dict[str, Any]) -> str:
    """Return the objects of the installation `digits` in the namespace `digits`.

    Raise helm_python.HelmError for values that the schema or the chart refuses.
    """
    with Chart.load(K8S / "chart") as chart:
        templates = chart.render(values, name="digits", namespace="digits")
    # Helm prints NOTES.txt, and runs tests, itself.
    templates = {
        path: text for path, text in templates.items() if "/tests/" not in path and "NOTES" not in path
    }
    # `installation` has the namespace, which kubectl has to create first.
    ordered = sorted(templates, key=lambda path: ("installation" not in path, path))
    documents = (document.strip() for path in ordered for document in templates[path].split("\n---\n"))
    return "\n---\n".join(document for document in documents if document) + "\n"


def overlay(name: str) -> str:
    """Return the objects of an overlay."""
    values = yaml.safe_load((K8S / "overlays" / name / "values.yaml").read_text())
    return render({**values, "createNamespace": True})


if __name__ == "__main__":
    for each in OVERLAYS:
        (K8S / "overlays" / each / "objects.yaml").write_text(overlay(each))
