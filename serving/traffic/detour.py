"""A traffic plan around versions that must not run."""

from collections.abc import Container

import msgspec

from serving.config.schema import ModelConfig

__all__ = ["around"]


def around(config: ModelConfig, shut: Container[str]) -> ModelConfig:
    """Give the canary's share to production and the shadows' copies to nobody.

    A key keeps its place on the line, so that it returns to the canary when that is let back.
    Production has nobody to stand in for it and stays: its requests are refused. A version can
    still be asked for by name, and is refused by name.
    """
    traffic = config.traffic
    canary = traffic.canary
    if canary is not None and canary.version in shut:
        canary = None
    shadow = [one for one in traffic.shadow if one.version not in shut]
    if canary is traffic.canary and len(shadow) == len(traffic.shadow):
        return config
    return msgspec.structs.replace(
        config, traffic=msgspec.structs.replace(traffic, canary=canary, shadow=shadow)
    )
