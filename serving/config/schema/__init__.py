"""Every option, once: its unit, its default, and when to change it.

The text under a field is its documentation: `configs/reference.yaml` and
`configs/schema.json` are generated from it. Bounds (`Meta`) are checked while decoding,
not by constructors, so build configuration through `serving.config.load`, in tests too.

A file of a configuration directory is a module here (`gateway`, `model`, `tokens`), and so is
each large part of a model's (`traffic`, `rollout`, `monitoring`). Import from this package; views
are `feature_cache.views`.
"""

from serving.config.schema.configuration import Configuration
from serving.config.schema.gateway import (
    AuthConfig,
    EngineConfig,
    FeaturesConfig,
    GatewayConfig,
    Limits,
    ListenConfig,
    Listener,
    LogsConfig,
    NotifyReach,
    TlsConfig,
    TracingConfig,
    WorkersConfig,
)
from serving.config.schema.model import (
    HostsConfig,
    InputConfig,
    ModelConfig,
    ServeConfig,
    VersionSource,
)
from serving.config.schema.monitoring import (
    FairnessConfig,
    LabelsConfig,
    LogConfig,
    ModelLog,
    MonitoringConfig,
    PredictionConfig,
    RetrainConfig,
    RoleShares,
)
from serving.config.schema.rollout import (
    AfterAbort,
    Approval,
    Bake,
    Breach,
    Guardrails,
    HardStops,
    NotifyConfig,
    RolloutConfig,
    Rule,
    Step,
    step_words,
)
from serving.config.schema.tokens import TokenEntry, TokensFile
from serving.config.schema.traffic import (
    Assignment,
    Canary,
    Fallback,
    Override,
    Shadow,
    TrafficConfig,
)
from serving.config.section import Section

__all__ = [
    "AfterAbort",
    "Approval",
    "Assignment",
    "AuthConfig",
    "Bake",
    "Breach",
    "Canary",
    "Configuration",
    "EngineConfig",
    "FairnessConfig",
    "Fallback",
    "FeaturesConfig",
    "GatewayConfig",
    "Guardrails",
    "HardStops",
    "HostsConfig",
    "InputConfig",
    "LabelsConfig",
    "Limits",
    "ListenConfig",
    "Listener",
    "LogConfig",
    "LogsConfig",
    "ModelConfig",
    "ModelLog",
    "MonitoringConfig",
    "NotifyConfig",
    "NotifyReach",
    "Override",
    "PredictionConfig",
    "RetrainConfig",
    "RoleShares",
    "RolloutConfig",
    "Rule",
    "Section",
    "ServeConfig",
    "Shadow",
    "Step",
    "TlsConfig",
    "TokenEntry",
    "TokensFile",
    "TracingConfig",
    "TrafficConfig",
    "VersionSource",
    "WorkersConfig",
    "step_words",
]
