import json
from importlib.metadata import version
from pathlib import Path

from digit_training.card import card
from digit_training.dataset import Dataset
from digit_training.evaluate import evaluate
from digit_training.fit import Fit
from digit_training.recipes import QUICK


def test_it_says_what_the_model_is_and_how_it_came_to_be(fitted: Fit, dataset: Dataset) -> None:
    evaluation = evaluate(fitted.model, dataset.test)
    figures = card(fitted.model, dataset, evaluation, fitted)
    assert figures["model"] == "perceptron"
    assert figures["parameters"] == 7960
    assert figures["accuracy"] == evaluation.accuracy
    assert figures["calibration_error"] == evaluation.calibration_error
    assert figures["data"]["md5"] == dataset.md5
    assert figures["data"]["source"] == "here"
    assert not figures["data"]["canonical"]
    assert figures["versions"]["tensorflow"] == version("tensorflow")
    described = {key: figures["fit"][key] for key in ("seed", "epochs", "batch_size", "learning_rate")}
    assert described == {"seed": 0, "epochs": 3, "batch_size": 32, "learning_rate": 0.5}
    assert figures["fit"]["device"] == fitted.device
    assert figures["fit"]["temperature"] is None
    assert json.loads(json.dumps(figures)) == figures


def test_a_model_fitted_elsewhere_has_no_fit(fitted: Fit, dataset: Dataset) -> None:
    assert card(fitted.model, dataset, evaluate(fitted.model, dataset.test))["fit"] is None


def test_it_is_published_with_the_model(models: Path) -> None:
    figures = json.loads((models / "1" / "assets.extra" / "model.json").read_text())
    assert figures["model"] == "convnet"
    assert figures["accuracy"] > 0.85
    assert figures["fit"]["drawn"] == round(QUICK.drawn * figures["fit"]["examples"])
    assert 0.2 < figures["fit"]["temperature"] < 5
    assert 1 <= figures["fit"]["best_epoch"] <= figures["fit"]["epochs"] == 4
    assert figures["data"]["train"] == figures["fit"]["examples"] + figures["fit"]["validation_examples"]
