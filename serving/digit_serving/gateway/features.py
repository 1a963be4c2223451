"""Features: what plugs into the gateway. Each is a folder, which only this module names.

`gateway.door` says what a feature may bring. The module of a feature that is off is not imported.
"""

from digit_serving.canary.settings import CanarySettings
from digit_serving.feedback.settings import FeedbackModelSettings, FeedbackSettings
from digit_serving.shadow.settings import ShadowModelSettings, ShadowSettings
from digit_serving.tracing.settings import TracingSettings

FEATURES = {
    "has_tracing": "digit_serving.tracing.door:Tracing",
    "has_shadow": "digit_serving.shadow.door:Shadow",
    "traffic_file": "digit_serving.canary.door:Canary",
    "feedback": "digit_serving.feedback.door:Feedback",
}
"""Class of each feature, by the setting that turns it on."""


class FeatureSettings(FeedbackSettings, ShadowSettings, CanarySettings, TracingSettings):
    """Settings of all features."""


class FeatureModelSettings(FeedbackModelSettings, ShadowModelSettings):
    """Settings of features that models may have of their own."""
