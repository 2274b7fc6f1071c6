"""Simulated sites in several processes, each with one thread.

Every site lives in one process, which alone holds its ledger, its memory and its rows; so results are the same bits for
any number of workers. Workers are forked once and stay warm; where sites are stacked, and so are small, the coordinator
is one of them itself. The vectors they are sent are written once into memory that all share, and they read them there;
each writes those of its replies into a region of its own. A forked worker that dies is replaced, and the requests that
it had not answered are sent again: what its sites had recorded they give back, the rest runs again.
"""

from __future__ import annotations

import contextlib
import gc
import math
import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from medfed.core.collector import OBJECTS_BETWEEN_COLLECTIONS
from medfed.core.errors import MedFedError
from medfed.core.timings import Phase, Timings
from medfed.core.wire import Failure, Reply, Request
from medfed.engine.host import Host
from medfed.engine.shared import Packed, SharedBuffer
from medfed.govern.heads import Head

ATTEMPTS = 3
"""Workers that may die of one site's request before that is given up."""

_PRIVATE_BYTES = 2**20
"""An array of a request below this size is copied by its worker; a larger one stays where all workers read it."""

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Order:
    """Requests for one worker; those of one message share it."""

    requests: Packed


@dataclass(frozen=True)
class Written:
    """A block's replies. The worker goes on to the next block, or not, when it is told."""

    replies: Packed


@dataclass(frozen=True)
class Done:
    """A command is done, and what it gave."""

    value: Any


@dataclass(frozen=True)
class Raised:
    """A command failed for a reason that is told to the user."""

    error: MedFedError


class Died(Exception):
    """A worker's process ended unasked."""


@dataclass(eq=False)
class _Worker:
    """A forked process, this side of its pipe, and the requests that it has still to answer.

    due: commands whose end was not heard of yet. Who waits for the last one passes over the ends of those before, but
    an error that one of them met is raised. broken: this side was interrupted amid a command, and no longer knows what
    the other waits for.
    """

    sites: Sequence[str]
    process: BaseProcess
    pipe: Connection
    replies: SharedBuffer
    waiting: list[Request] = field(default_factory=list)
    busy: bool = False
    due: int = 1
    broken: bool = False

    def send(self, command: object) -> None:
        """Send a command, which ends by an event. Raises Died."""
        self.due += 1
        self.say(command)

    def say(self, word: object) -> None:
        """Send what is no command: whether to go on. Raises Died."""
        with self.unbroken():
            try:
                self.pipe.send(word)
            except OSError as error:
                raise Died from error

    @contextlib.contextmanager
    def unbroken(self) -> Iterator[None]:
        """What is within happens as a whole, or the worker is broken."""
        try:
            yield
        except Exception:
            raise
        except BaseException:
            self.broken = True
            raise

    def receive(self) -> Any:
        """The next event that is waited for. Raises Died, and the error that the worker met."""
        while (event := self.receive_one()) is None:
            pass
        return event

    def receive_one(self) -> Any:
        """The next event, None for the end of a command that nobody waits for; raises as :meth:`receive`."""
        with self.unbroken():
            try:
                event = self.pipe.recv()
            except (EOFError, OSError) as error:
                raise Died from error
            if isinstance(event, Written):
                return event
            self.due -= 1
            if isinstance(event, Raised):
                self.busy = self.busy and self.due > 0
                raise event.error
            return None if self.due else event

    def end(self) -> None:
        """End an idle process, which other processes' copies of its pipe would keep; kill a busy one."""
        with contextlib.suppress(OSError):
            self.pipe.send(None)
        self.pipe.close()
        if self.busy or self.broken:
            self.process.kill()
        self.process.join(timeout=5)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.replies.close()


class Workers:
    """Sites spread over forked processes (implements :class:`medfed.engine.simulation.Parties`).

    open_host: called in the worker with the names of its sites. homes: the sites of each worker. own: opens the host
    of the first one's in this process, which then takes its share of the work while the others do theirs.
    """

    def __init__(
        self,
        open_host: Callable[[Sequence[str]], Host],
        homes: Sequence[Sequence[str]],
        timings: Timings,
        own: Callable[[], Host] | None = None,
    ) -> None:
        """Fork the workers and wait until each has opened its sites. Raises the error that one of them met."""
        self._open_host = open_host
        self._timings = timings
        self._owner = os.getpid()
        self._requests = SharedBuffer()
        self._deaths: dict[str, int] = {}
        self._workers: list[_Worker] = []
        self._own: Host | None = None
        gc.freeze()  # a collection would touch, and so copy, all that the workers share
        try:
            for sites in homes if own is None else homes[1:]:
                self._workers.append(self._fork(sites))
            if own is not None:
                self._own = own()
            for worker in self._workers:
                worker.receive()
        except BaseException:
            self.detach()
            raise
        first = 0 if own is None else -1
        self._home = {site: index for index, sites in enumerate(homes, start=first) for site in sites}

    @property
    def processes(self) -> list[int]:
        """The forked workers' process ids."""
        return [worker.process.pid or 0 for worker in self._workers]

    def exchange(self, requests: Sequence[Request]) -> Iterator[Reply]:
        """Replies as they come; a site past its deadline is silent, one whose worker keeps dying has failed."""
        self._abandon()
        self._requests.clear()
        shares: list[list[Request]] = [[] for _ in range(len(self._workers) + 1)]
        for request in requests:
            shares[self._home[request.site]].append(request)
        for worker, share in zip(self._workers, shares, strict=False):
            worker.waiting = share
            self._order(worker)
        for block in self._own.handle(shares[-1]) if self._own is not None else ():
            yield from block
            del block
            yield from self._ready(0)
        while any(worker.busy for worker in self._workers):
            yield from self._ready(None)

    def _ready(self, timeout: float | None) -> Iterator[Reply]:
        """The replies of workers that have some; timeout: the seconds to wait for the first of them, None: for ever."""
        busy = [worker for worker in self._workers if worker.busy]
        with self._timings[Phase.WAIT]:
            ready = set(wait([worker.pipe for worker in busy], timeout))
        for worker in (each for each in busy if each.pipe in ready):
            yield from self._replies(worker)

    def sign_heads(self, round_number: int) -> dict[str, Head]:
        """The new heads of the sites that acted since their last one."""
        return self._merged(self._all("sign_heads", round_number))

    def witness(self, head: Head, party: str) -> None:
        """Record another party's head in the ledgers of the sites that signed last."""
        self._tell("witness", head, party)
        if self._own is not None:
            self._own.witness(head, party)

    def close(self, status: str) -> dict[str, Head]:
        """Record how the run ended in every ledger; their last heads."""
        return self._merged(self._all("close", status))

    def spent(self) -> dict[Phase, float]:
        """The seconds spent by phase, of all forked workers together."""
        self._tell("spent")
        found: list[dict[Phase, float]] = self._results("spent")
        return {phase: sum(each[phase] for each in found) for phase in Phase}

    def detach(self) -> None:
        """End the workers."""
        if os.getpid() != self._owner:
            return
        for worker in self._workers:
            worker.end()
        if self._own is not None:
            self._own.detach()
            self._own = None
        if self._workers:
            gc.unfreeze()
        self._workers = []
        self._requests.close()

    def _fork(self, sites: Sequence[str]) -> _Worker:
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe()
        replies = SharedBuffer()
        others = [worker.pipe for worker in self._workers] + [ours]
        arguments = (os.getpid(), theirs, others, self._open_host, sites, self._requests, replies)
        process = context.Process(target=_serve, args=arguments, daemon=True, name="medfed-sites")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of forking beside threads
            process.start()
        theirs.close()
        return _Worker(sites, process, ours, replies)

    def _order(self, worker: _Worker) -> None:
        """Send a worker what it has still to answer; its death shows when its reply is waited for."""
        if not worker.waiting:
            return
        order = Order(self._requests.pack(worker.waiting))
        worker.busy = True
        with contextlib.suppress(Died):
            worker.send(order)

    def _replies(self, worker: _Worker) -> Iterator[Reply]:
        """The replies of the next block, copied out of the worker's region, which it may then write to again."""
        try:
            with worker.unbroken():
                event = worker.receive_one()
                if event is None:
                    return
                if isinstance(event, Done):
                    worker.waiting, worker.busy = [], False
                    return
                replies = worker.replies.unpack(event.replies, copied_below=math.inf)
                worker.say(True)
        except Died:
            replies = self._after_death(worker)
        answered = {reply.site for reply in replies}
        worker.waiting = [request for request in worker.waiting if request.site not in answered]
        for site in answered & self._deaths.keys():
            del self._deaths[site]
        yield from replies

    def _after_death(self, worker: _Worker) -> list[Reply]:
        """Replace a worker and send again what it had not answered, save a request of which too many died."""
        replaced, failed = self._replace(worker), []
        replaced.waiting = worker.waiting
        if replaced.waiting:
            first = replaced.waiting[0]
            self._deaths[first.site] = self._deaths.get(first.site, 0) + 1
            if self._deaths[first.site] >= ATTEMPTS:
                failed = [_failed(first)]
                replaced.waiting = replaced.waiting[1:]
        self._order(replaced)
        return failed

    def _abandon(self) -> None:
        """End an exchange that was left early: workers stop after their block, whose replies are dropped.

        One that is broken is replaced.
        """
        for worker in [each for each in self._workers if each.broken]:
            self._replace(worker)
        for worker in self._workers:
            while worker.busy:
                try:
                    worker.busy = not isinstance(worker.receive(), Done)
                    if worker.busy:
                        worker.say(False)
                except Died:
                    worker.busy = False
                except MedFedError:
                    continue
            worker.waiting = []

    def _replace(self, worker: _Worker) -> _Worker:
        worker.broken = True
        worker.end()
        new = self._workers[self._workers.index(worker)] = self._fork(worker.sites)
        try:
            new.receive()
        except Died as death:
            raise MedFedError("a worker's process cannot be started", remedy="set engine: {workers: 1}") from death
        return new

    def _all(self, command: str, *arguments: Any) -> list[Any]:
        """What every worker gives for a command."""
        self._tell(command, *arguments)
        own = [getattr(self._own, command)(*arguments)] if self._own is not None else []
        return self._results(command, *arguments) + own

    def _tell(self, command: str, *arguments: Any) -> None:
        """Send a command to every forked worker; the death of one shows when an answer is waited for."""
        self._abandon()
        for worker in self._workers:
            with contextlib.suppress(Died):
                worker.send((command, arguments))

    def _results(self, command: str, *arguments: Any) -> list[Any]:
        """What every forked worker gives for the command it was sent; one that died is replaced, and asked again.

        Where some of them raise, the first error is raised once all have ended.
        """
        found, errors = [], []
        for worker in list(self._workers):
            try:
                found.append(self._result(worker, command, arguments))
            except MedFedError as error:
                errors.append(error)
        if errors:
            raise errors[0]
        return found

    def _result(self, worker: _Worker, command: str, arguments: tuple[Any, ...]) -> Any:
        for _ in range(ATTEMPTS):
            try:
                return worker.receive().value
            except Died:
                worker = self._replace(worker)
                with contextlib.suppress(Died):
                    worker.send((command, arguments))
        raise MedFedError("the processes of the sites keep dying", remedy="set engine: {workers: 1}")

    @staticmethod
    def _merged(heads: Sequence[dict[str, Head]]) -> dict[str, Head]:
        return {site: head for each in heads for site, head in each.items()}


def _failed(request: Request) -> Reply:
    sentence = f"the process that ran it died {ATTEMPTS} times (for want of memory, perhaps)"
    failure = Failure(MedFedError.code, sentence, request.step)
    return Reply(request.run, request.site, request.round, request.call, request.base, request.digest(), failure)


def _serve(
    parent: int,
    pipe: Connection,
    others: Sequence[Connection],
    open_host: Callable[[Sequence[str]], Host],
    sites: Sequence[str],
    requests: SharedBuffer,
    replies: SharedBuffer,
) -> None:
    """A worker's whole life: open its sites, then obey until None comes or the pipe closes."""
    for other in others:
        with contextlib.suppress(OSError):
            other.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end_with_parent(parent)
    gc.freeze()
    gc.set_threshold(OBJECTS_BETWEEN_COLLECTIONS)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    try:
        host = open_host(sites)
        pipe.send(Done(None))
    except MedFedError as error:
        pipe.send(Raised(error))
        return
    with contextlib.suppress(EOFError, ConnectionError):
        while (command := pipe.recv()) is not None:
            try:
                pipe.send(Done(_obey(command, host, pipe, requests, replies)))
            except MedFedError as error:
                pipe.send(Raised(error))
    host.detach()
    os._exit(0)  # at once: to free all it shares, object by object, it would first have to copy it


def _obey(command: Any, host: Host, pipe: Connection, requests: SharedBuffer, replies: SharedBuffer) -> Any:
    if isinstance(command, Order):
        for block in host.handle(requests.unpack(command.requests, copied_below=_PRIVATE_BYTES)):
            replies.clear()
            pipe.send(Written(replies.pack(block)))
            if not pipe.recv():
                break
        return None
    name, arguments = command
    return getattr(host, name)(*arguments)


def end_with_parent(parent: int) -> None:
    """Let the system kill this process when its parent ends, so that none is left writing to the run's files."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
