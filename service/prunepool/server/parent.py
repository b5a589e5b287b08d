"""The parent of all processes: owns the sockets and the shared memory, and sees that everything ends well."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import structlog
import uvloop

from prunepool.logs import exit_now, level_by_signal, serving_logs
from prunepool.machine import set_openmp_wait_policy
from prunepool.metrics import Metrics
from prunepool.server import engine_process, factory, frontend_process
from prunepool.server.bound import Bound, bound
from prunepool.server.children import Child
from prunepool.server.control_pipe import Handler
from prunepool.server.desired_models import DesiredModels
from prunepool.server.engine_child import EngineChild
from prunepool.server.metrics_files import forget_gauges, publish, shared_metrics
from prunepool.server.observability import announcement
from prunepool.server.parent_folder import parent_folder, remove
from prunepool.server.reload import Coalesced, follow_settings
from prunepool.server.settings_check import check
from prunepool.server.signals import defer, deliver
from prunepool.server.specs import EngineReady, EngineSpec, FrontendSpec, Place, devices, share_of_cores
from prunepool.server.watchdog import watch
from prunepool.settings import Settings
from prunepool.transport.zmq.running_table import RunningTable
from prunepool.transport.zmq.server import HEARTBEAT_S
from prunepool.transport.zmq.shared_memory import Arena

#: After the drain: for what is written and not yet taken, and for letting go of devices.
_LAST_WRITES_S, _STOP_S = 8.0, 10.0
#: A front end that has not learnt of a change by then learns of it by itself.
_REFRESH_S = 2.0
_log = structlog.stdlib.get_logger("prunepool.transport")


def serve(
    settings: Settings,
    announce: Callable[[str], None],
    reread: Callable[[], Settings] | None = None,
) -> int:
    """Serve in several processes until a signal.

    Args:
        settings: everything about it.
        announce: told in one line what is served and where, once it is.
        reread: the settings as they are at a SIGHUP.

    Returns:
        How many accepted requests the drain left unanswered.

    Raises:
        InvalidParameter: settings that do not go together.
        CannotListen: the address cannot be listened on.
        PrunepoolError: the model cannot be served.
    """
    check(settings)
    defer()
    set_openmp_wait_policy(os.environ)
    with (
        serving_logs(settings.log_format, settings.log_level, "parent") as lines,
        ExitStack() as stack,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        listening = stack.enter_context(bound(settings))
        folder = stack.enter_context(parent_folder())
        metrics = shared_metrics(folder / "metrics", "parent")
        metrics.follow(metrics.log_lines_dropped, lambda: lines.dropped)
        parent = Parent(listening, folder, metrics)
        stack.enter_context(level_by_signal(settings.log_level, parent.pass_on))
        return runner.run(parent.serve(announce, reread or (lambda: settings)))


class Parent:
    """Starts engines and front ends, and keeps them running.

    Args:
        listening: sockets for each front end, and everything about the server. They stay open here, so that
            connections to a front end that died wait for its successor.
        folder: for the server's sockets and metrics.
        metrics: of this process.
    """

    def __init__(self, listening: Bound, folder: Path, metrics: Metrics) -> None:
        self._settings = settings = listening.settings
        self._listening = listening
        self._folder = folder
        self._metrics = metrics
        self._devices = devices(settings)
        self._arenas = [Arena(settings.max_queue_requests) for _ in range(settings.frontends)]
        self._running = [RunningTable() for _ in self._devices]
        self._spawn = multiprocessing.get_context("spawn")
        self._children: list[Child] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._models: DesiredModels

    async def serve(self, announce: Callable[[str], None], reread: Callable[[], Settings]) -> int:
        """Start everything, serve until a signal, drain; how many requests were left unanswered."""
        start = time.monotonic()
        stopped = self._on_signals()
        engines = [self._engine(number) for number in range(len(self._devices))]
        frontends: list[Child] = []

        async def refresh() -> None:
            """Have all front ends learn of a change, so that none refuses what another has said is there."""
            await _call_all(frontends, "refresh")

        self._models = factory.create_desired_models(
            self._settings, [EngineChild(one) for one in engines], self._folder / "models", on_change=refresh
        )
        handlers: dict[str, Handler] = {"load": self._models.load, "unload": self._models.unload}
        frontends += [self._frontend(number, handlers) for number in range(self._settings.frontends)]
        self._children = [*engines, *frontends]

        async def follow_now() -> None:
            """Engines that could not start with what was wanted before try what is wanted now."""
            await follow_settings(self._models, reread)
            for one in engines:
                one.hurry()

        follow = Coalesced(follow_now)
        reload_keys = Coalesced(partial(_call_all, frontends, "reload"))

        def hang_up() -> None:
            reload_keys()
            follow()

        try:
            if not await _unless(stopped, self._start(engines)):
                return 0
            if not await _unless(stopped, _start(frontends)):
                return 0
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hang_up)
            deliver(signal.SIGHUP)
            self._run(publish(self._metrics, HEARTBEAT_S))
            for child in self._children:
                self._run(watch(child))
            ready = [EngineReady(*one.said) for one in engines]
            served = ", ".join(dict.fromkeys(name for one in ready for name in one.models.split(",")))
            where, formats = ",".join(one.device for one in ready), dict.fromkeys(one.dtype for one in ready)
            url, seconds = self._listening.shown, time.monotonic() - start
            announce(announcement(served, where, ",".join(formats), url, seconds))
            await stopped.wait()
            return await self._drain(engines, frontends)
        finally:
            defer()  # another SIGTERM must not interrupt what is left to do
            for task in self._tasks:
                task.cancel()
            for child in self._children:
                child.kill()

    async def _start(self, engines: list[Child]) -> None:
        """Start all engines; where something is decided by measuring, one decides for the others."""
        measures = self._settings.dtype == "auto" or self._settings.cpu_openvino
        first = 1 if measures else len(engines)
        await _start(engines[:first])
        await _start(engines[first:])

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something beside all else."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def pass_on(self, number: int) -> None:
        """Let all processes have a signal."""
        for child in self._children:
            child.signal(number)

    def _on_signals(self) -> asyncio.Event:
        """An event that the first SIGTERM or SIGINT sets; the second ends everything."""
        stopped = asyncio.Event()

        def stop(number: signal.Signals) -> None:
            if not stopped.is_set():
                stopped.set()
                return
            sys.stderr.write(f"prunepool: {number.name} again: ending now\n")
            sys.stderr.flush()
            for child in self._children:
                child.kill()
            remove(self._folder)
            exit_now(128 + number)

        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop, number)
            deliver(number)
        return stopped

    async def _drain(self, engines: list[Child], frontends: list[Child]) -> int:
        """Front ends answer what they have accepted; then nobody asks the engines any more."""
        timeout_s = self._settings.drain_timeout_s
        _log.info("draining", at_most_s=timeout_s)
        # The front ends have their own; whoever comes when those are closed is refused.
        self._listening.http.close()
        await asyncio.gather(*(one.leave("drain", timeout_s + _LAST_WRITES_S) for one in frontends))
        await asyncio.gather(*(one.leave("stop", _STOP_S) for one in engines))
        # Of a front end that had to be killed, nobody knows how many there were.
        return sum(one.status if (one.status or 0) >= 0 else 1 for one in frontends if one.status)

    def _place(self, name: str, number: int, settings: Settings, parent: Connection) -> Place:
        return Place(name, number, settings, self._folder, parent, self._arenas, self._running)

    def _engine(self, number: int) -> Child:
        name = f"engine-{number}"

        def spec(parent: Connection, incarnation: int) -> EngineSpec:
            default, *others = self._models.references
            settings = self._settings.model_copy(
                update={
                    "model": default,
                    "models": tuple(others) or None,
                    "device": self._devices[number],
                    "compute_threads": self._settings.compute_threads or share_of_cores(len(self._devices)),
                }
            )
            return EngineSpec(self._place(name, number, settings, parent), incarnation)

        async def converge() -> None:
            """Models may have changed since it was started."""
            await self._models.converge(EngineChild(child))

        async def profiles() -> str:
            """What the first process of this place timed holds for its successors, which start sooner so."""
            return EngineReady(*child.said).profiles if child.said else "{}"

        forget = partial(forget_gauges, self._folder / "metrics", name)
        child = Child(
            self._spawn,
            name,
            engine_process.run,
            spec,
            handlers={"profiles": profiles},
            on_death=forget,
            on_return=converge,
        )
        return child

    def _frontend(self, number: int, handlers: dict[str, Handler]) -> Child:
        name = f"frontend-{number}"

        def spec(parent: Connection, incarnation: int) -> FrontendSpec:
            place = self._place(name, number, self._settings, parent)
            return FrontendSpec(place, self._listening.http.shares[number])

        forget = partial(forget_gauges, self._folder / "metrics", name)
        return Child(self._spawn, name, frontend_process.run, spec, handlers=handlers, on_death=forget)


async def _start(children: list[Child]) -> None:
    async with asyncio.TaskGroup() as group:
        for child in children:
            group.create_task(child.start())


async def _call_all(frontends: list[Child], method: str) -> None:
    """Have all front ends that run do something; one that cannot do it in time is not waited for."""
    calls = (one.call(method, timeout_s=_REFRESH_S) for one in frontends if one.up)
    await asyncio.gather(*calls, return_exceptions=True)


async def _unless(stopped: asyncio.Event, starting: Coroutine[Any, Any, None]) -> bool:
    """Wait for a start; whether it came to its end before a signal.

    Raises:
        PrunepoolError: why it failed.
    """
    work, signalled = asyncio.ensure_future(starting), asyncio.ensure_future(stopped.wait())
    done, _ = await asyncio.wait([work, signalled], return_when=asyncio.FIRST_COMPLETED)
    signalled.cancel()
    if work not in done:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)  # what it failed of meanwhile is no news
        return False
    try:
        work.result()
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return True
