"""How right a model has to be to be published: right enough, and not much less than what is served."""

from dataclasses import dataclass

from digit_training.errors import AccuracyError


@dataclass(frozen=True, slots=True)
class Bar:
    """`minimum` and `regression`, what may be lost at most, are accuracies, 0..1; `forced` lets all pass."""

    minimum: float
    regression: float
    forced: bool = False

    def require(self, accuracy: float, standard: tuple[str, float] | None) -> None:
        """Raises AccuracyError below the bar. `standard` is what is served now, and its accuracy."""
        if self.forced:
            return
        if accuracy < self.minimum:
            raise AccuracyError(
                f"not published: the accuracy {accuracy:.4f} is below the minimum of {self.minimum} "
                "(--min-accuracy, or --force)"
            )
        # Accuracies are counts over counts: a difference that looks like the bar is not below it.
        if standard and round(standard[1] - accuracy, 9) > self.regression:
            name, reached = standard
            raise AccuracyError(
                f"not published: the accuracy {accuracy:.4f} is more than {self.regression} below the "
                f"{reached:.4f} of {name} (--max-regression, or --force)"
            )
