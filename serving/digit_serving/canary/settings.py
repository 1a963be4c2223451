"""Settings of canaries, among those of the gateway."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator

from digit_core.artifact import traffic


class CanarySettings(BaseModel):
    """Each field is set by the environment variable DIGITS_<FIELD>."""

    models_traffic: Annotated[Path | None, BeforeValidator(lambda value: value or None)] = None
    """File that gives other labels than the default one a share of a model's requests without version and
    label. `digits models promote --share` writes it. The default is models.traffic.json beside
    DIGITS_MODELS_CONFIG. A change is read within a second. The same request ID is always routed the same
    way."""

    @property
    def traffic_file(self) -> Path | None:
        """File of the shares of version labels."""
        settings: Any = self
        file: Path | None = settings.models_config
        return self.models_traffic or (file and file.with_name(traffic.FILE))
