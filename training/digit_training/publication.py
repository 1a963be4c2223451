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
from digit_core.artifact.versions import ArtifactError, Version, check_writable
from digit_training.errors import CardError, PromotionError
from digit_training.quality_gate import QualityGate

_LISTED_LABELS = 10
"""Most labels of a task in a message."""
_PARAMETER_BYTES = 4


@dataclass(frozen=True, slots=True)
class Target:
    """Models folder to publish in, and the conditions of a publication."""

    models: ModelsFolder
    gate: QualityGate
    promote: bool = False
    """True to promote what is published, if the model has a stable version already."""

    @property
    def models_option(self) -> list[str]:
        """Return the option --models of further commands, unless they find the folder without it."""
        found = Path(os.environ.get("DIGITS_MODELS") or "models")
        return [] if self.models.root == found else ["--models", str(self.models.root)]

    def check(self, task: TaskCard, parameters: int = 0) -> None:
        """Raise CardError if the model of the card's name has other labels, or another kind of task.

        Raise ArtifactError if the models folder or its models.config is invalid, OSError if it can't be
        written; see check_writable.
        """
        self.check_writable(task.name, parameters)
        self.models.names()
        self.models.read_config()
        for version in self.models.versions(task.name).values():
            # An invalid card is not another task; the comparison raises its error if the version is stable.
            with suppress(ArtifactError):
                published = version.task()
                if version.is_complete and _kind_of(published) != _kind_of(task):
                    raise CardError(
                        f"{version.path} has {_describe(published)}, this model has {_describe(task)}: a "
                        "name has one task, so publish it under another (digits export --rename NAME)"
                    )

    def check_writable(self, name: str, parameters: int = 0) -> None:
        """Raise OSError if no version of the model can be written that is as large as the latest.

        The first one is as large as the weights of a network with so many parameters.
        """
        root = self.models.root
        latest = next(iter(self.models.versions(name).values()), None)
        needed = latest.size() if latest else parameters * _PARAMETER_BYTES
        check_writable(root, needed)
        if (root / name).exists():
            check_writable(root / name, needed)

    def publish(self, name: str, write: Callable[[Path], None], report: Callable[[str], object]) -> None:
        """Publish the version that `write` writes, and promote it or report the next steps.

        Raise ArtifactError if the version can't be served, and PromotionError.
        """
        before = next(iter(self.models.versions(name).values()), None)
        version = self.models.publish(name, write)
        report(f"Published: {version.path}")
        if change := before and _describe_change(version, before):
            report(change)
        config, number = self.models.read_config(), str(version.number)
        is_only = name == DIGITS.name and self.models.classifiers() == [DIGITS.name]
        model = [] if is_only else ["--model", name]
        promote = ["models", "promote", number, *model, *self.models_option]
        if config.labels(name).get(STABLE) == version.number:
            report(f"Version {number} of {name} is stable: it answers callers who name no version.")
        elif self.promote:
            sys.stdout.flush()
            environment = os.environ | {"DIGITS_MODELS": str(self.models.root)}
            # Promotion runs in a process of its own, since training imports nothing of serving.
            done = subprocess.run([sys.executable, "-m", "digit_client", *promote], env=environment)
            if done.returncode:
                again = shlex.join([digits_command(), *promote])
                raise PromotionError(f"{version.path} is published, but not promoted; try again: {again}")
        elif config.is_ours:
            model = [] if name == DIGITS.name else ["--model", name]
            predict = [digits_command(), "predict", "--version", number, *model, "PICTURE"]
            report(f"Try it: {shlex.join(predict)}")
            report(f"Serve it: {shlex.join([digits_command(), *promote])}")
        else:
            report(
                f"{self.models.config_path} is left alone, since Digits did not write it. For version "
                f"{number} of {name}, write there: model_version_policy {{ specific {{ versions: {number} "
                f'}} }} to load it, version_labels {{ key: "{STABLE}" value: {number} }} to serve it'
            )


def make_folder(folder: Path) -> Path:
    """Make the folder of a report, and return it. Raise OSError if it can't be written."""
    check_writable(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def digits_command() -> str:
    """Return the command `digits` as a shell finds it: with its path unless its folder is in PATH."""
    command = Path(sys.executable).with_name("digits")
    if shutil.which("digits") or not command.exists():
        return "digits"
    return os.path.relpath(command)


def _describe_change(version: Version, before: Version) -> str:
    """Return a sentence on what changes in the pictures of a model from one version to the next, or ""."""
    try:
        new, old = version.task().input_words, before.task().input_words
    except ArtifactError:
        return ""
    gains = [words for words in new if words not in old]
    losses = [words for words in old if words not in new]
    if not gains:
        return ""
    return (
        f"Version {version.number} takes {' and '.join(gains)}, "
        f"version {before.number} took {' and '.join(losses)}."
    )


def _kind_of(task: TaskCard) -> tuple[object, ...]:
    """Return what all versions of a name have in common."""
    return task.labels, task.kind, task.is_multi_label


def _describe(task: TaskCard) -> str:
    more = ", …" if len(task.labels) > _LISTED_LABELS else ""
    labels = ", ".join(task.labels[:_LISTED_LABELS]) + more
    kind = f"{task.kind}, multi-label" if task.is_multi_label else task.kind
    return f"{len(task.labels)} labels ({labels}) and the kind {kind}"
