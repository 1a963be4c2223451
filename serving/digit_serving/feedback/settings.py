"""Settings of feedback, among those of the gateway."""

from pydantic import BaseModel, Field, ValidationInfo, field_validator

from digit_core.errors import how_to_install
from digit_serving.gateway.schemas import Share


class FeedbackSettings(BaseModel):
    """Each field is set by the environment variable DIGITS_<FIELD>."""

    feedback_open: bool = False
    """Take feedback from everybody who may reach the gateway, in place of requiring DIGITS_API_KEYS."""
    feedback: str = ""
    """Store of feedback: sqlite:///feedback.db, or for several gateways postgresql://user@host/database.
    Needs the extra feedback."""
    feedback_sample: Share = 0
    """Share of the requests whose pictures are stored, to be labelled by hand at /label, or by request ID:
    0.01 is one in a hundred."""
    feedback_days: float = Field(default=30, gt=0)
    """Days after which a stored picture without a label is deleted."""
    feedback_bytes: int = Field(default=2**30, ge=1)
    """Bytes that the pictures in the store may take, each with a kibibyte more; one that does not fit gets
    507. An API key may take as many as it leaves free for others."""

    @field_validator("feedback")
    @classmethod
    def _require_store_and_keys(cls, value: str, info: ValidationInfo) -> str:
        if not value:
            return value
        try:
            # Lazy, because most gateways have no store.
            from digit_core.feedback.table import StoreError, parse_url
        except ImportError as error:
            raise ValueError(f"needs the extra feedback; {how_to_install('feedback')}") from error
        try:
            # The form of the URL only: the gateway answers pictures also while a database is down.
            parse_url(value)
        except StoreError as error:
            raise ValueError(str(error)) from error
        if not (info.data.get("api_keys") or info.data.get("feedback_open")):
            raise ValueError(
                "needs DIGITS_API_KEYS, with which a caller has one vote on a picture; "
                "on a network where you trust everybody, set DIGITS_FEEDBACK_OPEN=1"
            )
        return value

    @field_validator("feedback_sample")
    @classmethod
    def _require_store(cls, value: float, info: ValidationInfo) -> float:
        if value and not info.data.get("feedback"):
            raise ValueError("requires DIGITS_FEEDBACK, the store of the samples")
        return value


class FeedbackModelSettings(BaseModel):
    """Settings that a model may have of its own in DIGITS_MODELS_FILE."""

    feedback: bool

    @field_validator("feedback", mode="before")
    @classmethod
    def _require_store(cls, value: object, info: ValidationInfo) -> object:
        """Convert the URL of the store, the setting of all models, which are the context of a model's own."""
        if info.context is None:
            return bool(value)
        if value and not info.context["feedback"]:
            raise ValueError("needs DIGITS_FEEDBACK, the store")
        return value
