"""What a whole directory says."""

from feature_cache.views import FeatureView
from serving.config.schema.gateway import GatewayConfig
from serving.config.schema.model import ModelConfig
from serving.config.section import Section

__all__ = [
    "Configuration",
]


class Configuration(Section, frozen=True, kw_only=True):
    """A whole configuration directory, decoded and checked."""

    gateway: GatewayConfig
    models: dict[str, ModelConfig] = {}
    views: dict[str, FeatureView] = {}
