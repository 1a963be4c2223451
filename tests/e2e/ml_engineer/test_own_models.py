"""Models that newcomers bring: each is exported, served without a restart, and asked over HTTP.

Each tells light pictures from dark ones.
"""

import importlib.util
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from keras import layers

from digit_client import Client, ModelNotFoundError, Prediction
from digit_core.artifact import models_folder
from digit_core.artifact.models_folder import ModelsFolder
from digit_core.images import to_png
from digit_training import cli
from tests.processes import DIGITS, Ports, wait_until

pytestmark = pytest.mark.e2e

LAYERS = """
import keras

@keras.saving.register_keras_serializable("own_layers")
class Halving(keras.layers.Layer):
    def call(self, inputs):
        return inputs / 2
"""
RANGE = "[input]\nrange = [0, 1]\n"


def judge(features: keras.KerasTensor, units: int = 2, activation: str = "softmax") -> keras.KerasTensor:
    """Return a layer's answers, of one unit that for light, about features [n, c] from 0, dark, to 1."""
    dense = layers.Dense(units, activation=activation)
    answers = dense(features)
    signs = np.array([1]) if units == 1 else np.linspace(-1, 1, units)
    channels = features.shape[1]
    dense.set_weights([np.tile(20 * signs, (channels, 1)) / channels, -10 * signs])
    return answers


def write_card(folder: Path, card: str) -> list[str]:
    (folder / "card.toml").write_text(f'name = "{folder.name}"\nlabels = ["dark", "light"]\n{card}')
    return ["--task", "card.toml"]


def mean(image: keras.KerasTensor) -> keras.KerasTensor:
    return layers.GlobalAveragePooling2D()(image)


@dataclass(frozen=True)
class Saved:
    """Functional model of an input, saved as a Keras file, its card, and further options of the export."""

    answers: Callable[[keras.KerasTensor], Any]
    card: str = ""
    options: tuple[str, ...] = ()
    shape: tuple[int | None, ...] = (8, 8, 3)

    def __call__(self, folder: Path) -> list[str]:
        """Save model and card in the folder; return the arguments of the export."""
        image = keras.Input(self.shape)
        keras.Model(image, self.answers(image)).save(folder / "mine.keras")
        return ["mine.keras", *write_card(folder, self.card), *self.options]


def own_layer(folder: Path) -> list[str]:
    (folder / "own_layers.py").write_text(LAYERS)
    spec = importlib.util.spec_from_file_location("own_layers", folder / "own_layers.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = Saved(lambda image: judge(mean(layers.Rescaling(2)(module.Halving()(image)))), RANGE)
    return [*model(folder), "--import", "own_layers"]


def saved_model(folder: Path) -> list[str]:
    image = keras.Input((8, 8, 3))
    keras.Model(image, judge(mean(image))).export(folder / "saved", verbose=False)
    return ["--from-saved-model", "saved", *write_card(folder, RANGE)]


def fitted_with_jax(folder: Path) -> list[str]:
    """Bring a file that Keras saved with KERAS_BACKEND=jax."""
    shutil.copy(Path(__file__).with_name("fitted_with_jax.keras"), folder / "mine.keras")
    return ["mine.keras", *write_card(folder, RANGE)]


ROWS: dict[str, Callable[[Path], list[str]]] = {
    "softmax": Saved(lambda image: judge(mean(image)), RANGE),
    "one-logit": Saved(lambda image: judge(mean(image), 1, "linear"), RANGE, ("--output", "logits")),
    # Caffe's preprocessing, in 0 to 1, subtracts a half.
    "less-a-mean": Saved(
        lambda image: judge(mean(image + 0.5)),
        f'{RANGE}mean = [0.5, 0.5, 0.5]\nstd = 1\n[prepare]\ncolor = "bgr"\n',
    ),
    "transparent": Saved(lambda image: judge(mean(image[..., :3] * image[..., 3:])), RANGE, shape=(8, 8, 4)),
    "own-layer": own_layer,
    "saved-model": saved_model,
    "fitted-with-jax": fitted_with_jax,
}


@dataclass(frozen=True)
class Service:
    """Running service of a models folder."""

    models: Path
    url: str

    def publish(self, folder: Path, *arguments: str) -> None:
        """Export in a folder: in this process, without verification, unless a module has to be imported."""
        command = [*arguments, "--force", "--models", str(self.models)]
        if "--import" in arguments:
            subprocess.run([*DIGITS, "export", *command], cwd=folder, check=True)
            return
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(models_folder, "ModelsFolder", partial(ModelsFolder, verify=Mock()))
            patch.chdir(folder)
            result = CliRunner().invoke(cli.export, command)
        assert result.exit_code == 0, result.output

    def ask(self, model: str) -> list[Prediction]:
        """Return the answers to a dark and a light picture, as soon as the model is served."""
        pictures = [to_png(np.full((20, 30, 3), grey, np.uint8)) for grey in (10, 245)]
        with Client(self.url, model=model) as client:
            wait_until(lambda: is_served(client, pictures[0]), seconds=20)
            return [client.predict(picture) for picture in pictures]


def is_served(client: Client, picture: bytes) -> bool:
    try:
        client.predict(picture)
    except ModelNotFoundError:
        return False
    return True


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Service that begins with a model of another name than those of the tests."""
    folder, ports = tmp_path_factory.mktemp("first"), Ports()
    models = folder / "models"
    service = Service(models, ports.url)
    service.publish(folder, *ROWS["softmax"](folder))
    with ports.up(models):
        yield service


def answers(service: Service, folder: Path, bring: Callable[[Path], list[str]]) -> list[Prediction]:
    """Return the running service's answers to dark and light by the model that the folder names."""
    folder.mkdir()
    service.publish(folder, *bring(folder))
    return service.ask(folder.name)


@pytest.mark.parametrize("name", ROWS)
def test_model_is_exported_served_without_a_restart_and_answers(
    name: str, service: Service, tmp_path: Path
) -> None:
    dark, light = answers(service, tmp_path / name, ROWS[name])
    assert (dark.label, light.label) == ("dark", "light")
    assert min(dark.confidence, light.confidence) > 0.9


def test_multi_label_model_names_each_label_above_its_threshold(service: Service, tmp_path: Path) -> None:
    card = f'output = "multi-label"\nthreshold = [0, 0.5]\n{RANGE}'
    model = Saved(lambda image: judge(mean(image), activation="sigmoid"), card)
    dark, light = answers(service, tmp_path / "several", model)
    assert (dark.predicted_labels, light.predicted_labels) == (("dark",), ("dark", "light"))
    assert dark.label is light.label is None
