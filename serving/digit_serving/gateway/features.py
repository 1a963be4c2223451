"""Features: what plugs into the gateway. Each is a folder, which only this module names.

`gateway.door` says what a feature may bring. The module of a feature that is off is not imported.
"""

from digit_serving.feedback.settings import FeedbackModelSettings, FeedbackSettings

FEATURES = {"feedback": "digit_serving.feedback.door:Feedback"}
"""Class of each feature, by the setting that turns it on."""


class FeatureSettings(FeedbackSettings):
    """Settings of all features."""


class FeatureModelSettings(FeedbackModelSettings):
    """Settings of features that models may have of their own."""
