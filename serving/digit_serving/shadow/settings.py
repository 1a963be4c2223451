"""Settings of the shadow, among those of the gateway."""

from typing import Any

from pydantic import BaseModel, ValidationInfo, field_validator

from digit_serving.gateway.schemas import Share, VersionLabel


def _require_another_label(value: str, info: ValidationInfo) -> str:
    if value and value == info.data["default_label"]:
        raise ValueError("must differ from the default label: a version always agrees with itself")
    return value


class ShadowSettings(BaseModel):
    """Each field is set by the environment variable DIGITS_<FIELD>."""

    shadow_label: VersionLabel = ""
    """Version label, such as canary, whose version also answers a share of the requests, unseen."""
    shadow_share: Share = 0.1
    """Share of the requests without version and label that DIGITS_SHADOW_LABEL's version also answers."""

    @property
    def has_shadow(self) -> bool:
        """True if any model has a shadow version."""
        settings: Any = self
        return any(model.shadow_label for model in (settings.common, *settings.by_model.values()))

    _shadow = field_validator("shadow_label")(_require_another_label)


class ShadowModelSettings(BaseModel):
    """Settings that a model may have of its own in DIGITS_MODELS_FILE."""

    shadow_label: VersionLabel
    shadow_share: Share

    _shadow = field_validator("shadow_label")(_require_another_label)
