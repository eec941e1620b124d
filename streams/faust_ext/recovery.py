"""The recovery of Faust's tables after a rebalance, which outlives a broker that is away for longer than a request.

In Faust each step of it has ``broker_request_timeout``. When that is over, mode says "stopped" as it would of a service
that is told to stop, the recovery ends for good, and with it the worker: it owns partitions, says nothing, and reads
no more. Seen in both of two workers after 36 s without the only broker.
"""

from typing import Any

import structlog
from aiokafka.errors import KafkaTimeoutError
from faust.tables import TableManager
from faust.tables.recovery import RebalanceAgain, Recovery, ServiceStopped

from streams.errors import BrokerUnavailable

log = structlog.get_logger(__name__)


class _Recovery(Recovery):  # type: ignore[misc]
    async def _wait(self, coro: Any, timeout: float | None = None) -> None:
        try:
            await super()._wait(coro, timeout)
        except ServiceStopped:
            if self.should_stop:
                raise
        except (KafkaTimeoutError, BrokerUnavailable):  # aiokafka's own limit is as long
            pass
        else:
            return
        log.warning("tables are recovered again", error="the broker did not answer in time")
        self.signal_recovery_start.set()
        raise RebalanceAgain


class Tables(TableManager):  # type: ignore[misc]
    """Faust's table manager, with this recovery."""

    _recovery: Recovery | None

    @property
    def recovery(self) -> Recovery:
        if self._recovery is None:
            self._recovery = _Recovery(self.app, self, beacon=self.beacon, loop=self.loop)
        return self._recovery
