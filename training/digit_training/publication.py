"""Publication of a model's next version, and the steps that follow: trying it, and promoting it."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from digit_core.artifact.models_config import STABLE
from digit_core.artifact.models_folder import ModelsFolder
from digit_core.artifact.task_card import DIGITS, TaskCard
from digit_core.artifact.versions import ArtifactError, Version
from digit_training.errors import CardError, PromotionError
from digit_training.quality_gate import QualityGate

_LISTED_LABELS = 10
"""Most labels of a task in a message."""


@dataclass(frozen=True, slots=True)
class Target:
    """Models folder of a publication, and the conditions of it."""

    models: ModelsFolder
    gate: QualityGate
    promote: bool = False
    """True to promote what is published, if the model has a stable version already."""

    @property
    def models_option(self) -> list[str]:
        """Return the option --models of further commands, unless they find the folder without it."""
        found = Path(os.environ.get("DIGITS_MODELS") or "models")
        return [] if self.models.root == found else ["--models", str(self.models.root)]

    def check(self, task: TaskCard) -> None:
        """Raise CardError if the model of the card's name has other labels, or another kind of task.

        Raise ArtifactError if the models folder or its models.config is invalid.
        """
        self.models.names()
        self.models.read_config()
        for version in self.models.versions(task.name).values():
            # An invalid card is no other task; the comparison raises its error if the version is stable.
            with suppress(ArtifactError):
                published = version.task()
                if version.is_complete and _kind_of(published) != _kind_of(task):
                    raise CardError(
                        f"{version.path} has {_describe(published)}, this model has {_describe(task)}: a "
                        "name has one task, so publish it under another (digits export --rename NAME)"
                    )

    def publish(self, name: str, write: Callable[[Path], None], report: Callable[[str], object]) -> None:
        """Publish the version that `write` writes, and promote it or report the next steps.

        Raise ArtifactError if the version can't be served, and PromotionError.
        """
        version = self.models.publish(name, write)
        report(f"Published: {version.path}")
        config = self.models.read_config()
        if config.labels(name).get(STABLE) == version.number:
            report(f"Version {version.number} of {name} is stable: it answers callers who name no version.")
        elif self.promote:
            self._promote(version)
        elif config.is_ours:
            model = [] if name == DIGITS.name else ["--model", name]
            predict = [digits_command(), "predict", "--version", str(version.number), *model, "PICTURE"]
            report(f"Try it: {shlex.join(predict)}")
            report(f"Serve it: {shlex.join([digits_command(), *self._promote_command(version)])}")
        else:
            report(
                f"{self.models.config_path} is left alone, since Digits did not write it. For version "
                f"{version.number} of {name}, write there: model_version_policy {{ specific {{ versions: "
                f'{version.number} }} }} to load it, version_labels {{ key: "{STABLE}" value: '
                f"{version.number} }} to serve it"
            )

    def _promote(self, version: Version) -> None:
        """Run `digits models promote` in a process of its own: training imports nothing of serving."""
        command = self._promote_command(version)
        sys.stdout.flush()
        environment = os.environ | {"DIGITS_MODELS": str(self.models.root)}
        done = subprocess.run([sys.executable, "-m", "digit_client", *command], env=environment)
        if done.returncode:
            again = shlex.join([digits_command(), *command])
            raise PromotionError(f"{version.path} is published, but not promoted; try again: {again}")

    def _promote_command(self, version: Version) -> list[str]:
        is_default = version.model == DIGITS.name and self.models.classifiers() == [DIGITS.name]
        model = [] if is_default else ["--model", version.model]
        return ["models", "promote", str(version.number), *model, *self.models_option]


def digits_command() -> str:
    """Return the command `digits` as a shell finds it: with its path unless its folder is in PATH."""
    command = Path(sys.executable).with_name("digits")
    if shutil.which("digits") or not command.exists():
        return "digits"
    return os.path.relpath(command)


def _kind_of(task: TaskCard) -> tuple[object, ...]:
    """Return what all versions of a name have in common."""
    return task.labels, task.kind, task.is_multi_label


def _describe(task: TaskCard) -> str:
    more = ", …" if len(task.labels) > _LISTED_LABELS else ""
    labels = ", ".join(task.labels[:_LISTED_LABELS]) + more
    kind = f"{task.kind}, multi-label" if task.is_multi_label else task.kind
    return f"{len(task.labels)} labels ({labels}) and the kind {kind}"
