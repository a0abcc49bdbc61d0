"""One call to Redis or Valkey: bounded, and with our errors."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from redis.exceptions import RedisError

from serving.errors import StoreUnavailable

__all__ = ["CALL_SECONDS", "translated"]

CALL_SECONDS: Final = 5.0
"""One call as a whole, also against a server that answers one byte at a time."""


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    """Bound one call and turn redis-py's errors into ours; their texts hold addresses."""
    try:
        async with asyncio.timeout(CALL_SECONDS):
            yield
    except TimeoutError as error:
        raise StoreUnavailable("the store does not answer in time") from error
    except RedisError as error:
        raise StoreUnavailable(
            f"the store does not answer ({type(error).__name__}); check that it runs and that "
            "`store` in gateway.yaml is right"
        ) from error
    except OSError as error:
        raise StoreUnavailable("the store cannot be reached") from error
