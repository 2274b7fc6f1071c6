"""Bytes to sites and back by FLARE's tasks (implements :class:`medfed.engine.deployed.carrier.Carrier`).

One task per site, all standing at once; a client asks for its own every few hundredths of a second.
"""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nvflare.apis.client import Client
from nvflare.apis.controller_spec import ClientTask, Task
from nvflare.apis.fl_context import FLContext
from nvflare.apis.impl.controller import Controller
from nvflare.apis.signal import Signal

from medfed.core.codec import Buffer, parts
from medfed.core.errors import CodecError, MedFedError
from medfed.engine.deployed.messages import ToSite
from medfed.engine.flare.cargo import carried, loaded, unloaded
from medfed.engine.flare.job import TASK

_LEAST_LARGEST = 64 * 2**20
_TIMES_LARGER = 4
"""An answer of more bytes than this many times what was asked is not fetched, unless it is below 64 MiB."""

_LOOK_UP = 0.2
"""Seconds after which a wait looks whether the job was aborted."""


class FlareCarrier:
    """The clients of one job. spool: a folder for large messages on their way."""

    def __init__(self, controller: Controller, context: FLContext, abort: Signal, spool: Path) -> None:
        self._controller = controller
        self._context = context
        self._abort = abort
        self._spool = spool

    @property
    def sites(self) -> frozenset[str]:
        """The clients that the job was given to."""
        clients: list[Client] = self._context.get_engine().get_clients()
        return frozenset(client.name for client in clients)

    def carry(self, messages: Mapping[str, ToSite], deadline: float | None) -> Iterator[tuple[str, Buffer]]:
        """As :class:`medfed.engine.deployed.carrier.Carrier`; the messages are on their way when it returns."""
        present = self.sites
        arrived: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        tasks = [self._send(site, parts(message), arrived) for site, message in messages.items() if site in present]
        largest = max((sum(map(len, parts(message))) for message in messages.values()), default=0)
        until = None if deadline is None else time.monotonic() + deadline
        return self._arriving(tasks, arrived, until, max(_LEAST_LARGEST, _TIMES_LARGER * largest))

    def _send(self, site: str, pieces: Sequence[Buffer], arrived: queue.SimpleQueue[tuple[str, Any]]) -> Task:
        def received(client_task: ClientTask, fl_ctx: FLContext) -> None:
            arrived.put((site, carried(client_task.result)))
            client_task.result = None

        def done(task: Task, fl_ctx: FLContext) -> None:
            arrived.put((site, None))

        data = loaded(pieces, self._cell, self._spool / f"to-{site}")
        task = Task(name=TASK, data=data, timeout=0, result_received_cb=received, task_done_cb=done)
        self._controller.send(task=task, fl_ctx=self._context, targets=[site])
        return task

    def _arriving(
        self, tasks: list[Task], arrived: queue.SimpleQueue[tuple[str, Any]], until: float | None, largest: int
    ) -> Iterator[tuple[str, Buffer]]:
        waiting = {task.targets[0] for task in tasks}
        try:
            while waiting:
                if self._abort.triggered:
                    raise MedFedError("the job was aborted", remedy="the run goes on from its checkpoint")
                left = _LOOK_UP if until is None else min(_LOOK_UP, until - time.monotonic())
                if left <= 0:
                    return
                try:
                    site, content = arrived.get(timeout=left)
                except queue.Empty:
                    continue
                if site in waiting:
                    waiting.remove(site)
                    if content is not None:
                        yield site, self._unloaded(site, content, largest)
                    del content
        finally:
            for task in tasks:
                if task.completion_status is None:
                    self._controller.cancel_task(task, fl_ctx=self._context)

    def _unloaded(self, site: str, content: Any, largest: int) -> Buffer:
        """What a site sent; nothing, which decodes as no message, where it cannot be had."""
        try:
            return unloaded(content, site, self._cell, self._spool / f"from-{site}", largest)
        except CodecError:
            return b""

    @property
    def _cell(self) -> Any:
        return self._context.get_engine().get_cell()
