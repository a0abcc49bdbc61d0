"""Whether the gateway is a machine of its own, so that services beside it may be meant."""

from serving.config.addresses import listener_parts, parse_address
from serving.config.schema import GatewayConfig

__all__ = ["admin_is_loopback"]


def admin_is_loopback(gateway: GatewayConfig) -> bool:
    """Whether the admin port is bound to loopback. An address that is none has its own problem."""
    try:
        return parse_address(listener_parts(gateway.listen.admin)[0]).is_loopback
    except ValueError:
        return False
