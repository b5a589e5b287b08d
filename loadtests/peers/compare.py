"""prunepool beside other servers: same photos, same weights, same cores, same clients, in turns.

First each server is tried in its settings, one after the other: with PyTorch and with OpenVINO, in each dtype. Its
best in each dtype is kept, and those take turns, round after round, with ours in that dtype and in the one that it
chooses by itself; whoever is not in turn is paused and takes no time. Every server says what its model computes in.
All that was measured is kept in a journal, so that a long run can be cut into pieces: call it again to go on.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import orjson
import torch
import uvloop
from closed_loop import Phase, Target, saturate
from contenders import DTYPES, Contender, Running, settings
from peers_report import draw, show, summary
from pictures import photos
from quiet import use
from random_model import compile_model, model_folder
from report import save

from prunepool.lab.environment import environment

_START_S = 120.0
#: How often a phase is repeated because others take the cores, the first time included.
_TRIES = 4


@dataclass(frozen=True, slots=True)
class Turn:
    """One phase of one server.

    Attributes:
        phase: what the clients saw.
        others: what other programs took of the cores.
        ran: what the model computed in, by the server's own account.
    """

    phase: Phase
    others: float
    ran: str


class Comparison:
    """One run of it.

    Args:
        wanted: what was asked for.
        folder: of the model.
        journal: of what was measured so far.
    """

    def __init__(self, wanted: argparse.Namespace, folder: Path, journal: Path) -> None:
        self._wanted = wanted
        self._folder = folder
        self._journal = journal
        self._images = photos(wanted.images)
        self._until = time.monotonic() + wanted.minutes * 60
        self.rows: list[dict[str, Any]] = []
        if journal.exists():
            self.rows = [orjson.loads(line) for line in journal.read_bytes().splitlines()]

    @property
    def time_is_up(self) -> bool:
        """Whether to stop here and go on in another call."""
        return time.monotonic() > self._until

    def choose(self) -> bool:
        """Try each server in its settings; False if time was up first."""
        for contender in self._settings():
            if self._wanted.only and not contender.ours and contender.name not in self._wanted.only:
                continue
            if self._was_tried(contender):
                continue
            if self.time_is_up:
                return False
            try:
                with self._started(contender) as server:
                    for number in range(2):
                        self._measure("choose", server, number, "0")
            except RuntimeError as error:
                self._note({"stage": "choose", **self._names(contender), "failure": str(error)})
        return True

    def _was_tried(self, contender: Contender) -> bool:
        """Whether a setting failed, or was measured at least once without others in the way."""
        rows = [row for row in self.rows if self._is(row, "choose", contender)]
        quiet = [row for row in rows if "failure" in row or row["others"] <= 2 * self._wanted.busy]
        return bool(quiet) or len(rows) >= _TRIES

    def _settings(self) -> list[Contender]:
        return settings(self._wanted.cores, self._wanted.dtypes.split(","))

    def best(self, dtype: str) -> list[Contender]:
        """Each server in the setting in which it once answered most in a dtype; ours last."""
        chosen: dict[str, tuple[float, Contender]] = {}
        for contender in self._settings():
            if contender.dtype != dtype:
                continue
            rates = [
                row["images_per_s"]
                for row in self.rows
                if self._is(row, "choose", contender) and "failure" not in row and not row["errors"]
            ]
            if rates:
                chosen[contender.name] = max(
                    chosen.get(contender.name, (0.0, contender)),
                    (max(rates), contender),
                    key=lambda c: c[0],
                )
        return sorted((one for _, one in chosen.values()), key=lambda one: one.ours)

    def rounds(self, dtype: str) -> bool:
        """Let all of a dtype take turns, and ours in the dtype that it chooses; False if time was up first."""
        group = [row for row in self.rows if row["stage"] == "round" and row["group"] == dtype]
        done = 1 + max((row["round"] for row in group), default=-1)
        if done >= self._wanted.rounds:
            return True
        with ExitStack() as stack:
            servers = []
            for contender in (*self.best(dtype), *self.best("auto")):
                server = stack.enter_context(self._started(contender))
                server.pause()
                servers.append(server)
            turns = [(server, "0") for server in servers]
            ours = [server for server in servers if server.contender.ours]
            turns += [(server, ratio) for server in ours for ratio in self._wanted.ratios.split(",")]
            for number in range(done, self._wanted.rounds):
                if self.time_is_up:
                    return False
                found = []
                for server, ratio in turns if number % 2 == 0 else reversed(turns):
                    server.go_on()
                    found.append(self._phase(server, ratio))
                    server.pause()
                    one, rate, others = server.contender, found[-1].phase.images_per_s, found[-1].others
                    words = f"{dtype}, round {number + 1}: {one.name}, {one.runtime}, {one.dtype}, {ratio}"
                    print(f"{words}: {rate:.1f}/s, others {others:.0%}", file=sys.stderr)
                order = turns if number % 2 == 0 else turns[::-1]
                for (server, ratio), turn in zip(order, found, strict=True):
                    self._record("round", server.contender, number, ratio, turn, group=dtype)
        return True

    @contextmanager
    def _started(self, contender: Contender) -> Iterator[Running]:
        """A server that answers; stopped at the end.

        Raises:
            RuntimeError: it never did; with the end of what it printed.
        """
        names = (contender.name, contender.runtime, contender.dtype)
        log = self._journal.with_name("-".join(names).replace(" ", "") + ".log")
        server = Running(contender, self._folder, log)
        try:
            until = time.monotonic() + _START_S
            while not server.ended and time.monotonic() < until:
                try:
                    phase = self._run(server, "0", clients=1, seconds=1.0, settle_s=0.0)
                except OSError:
                    time.sleep(0.5)
                    continue
                if phase.latencies:
                    break
            else:
                raise RuntimeError(f"{contender.name} does not answer: {log.read_text()[-800:]}")
            yield server
        finally:
            server.stop()

    def _measure(self, stage: str, server: Running, number: int, ratio: str) -> None:
        self._record(stage, server.contender, number, ratio, self._phase(server, ratio))

    def _phase(self, server: Running, ratio: str) -> Turn:
        """Measure; try again while others take too much of the cores."""
        wanted = self._wanted
        tries: list[Turn] = []
        while not tries or (tries[-1].others > wanted.busy and len(tries) < _TRIES and not self.time_is_up):
            before = use([os.getpid()])
            phase = self._run(
                server, ratio, clients=wanted.clients, seconds=wanted.seconds, settle_s=wanted.settle
            )
            tries.append(Turn(phase, use([os.getpid()]).others_since(before), server.ran()))
        return min(tries, key=lambda one: one.others)

    def _run(self, server: Running, ratio: str, *, clients: int, seconds: float, settle_s: float) -> Phase:
        path = f"/classify?top_k=5&reduction_ratio={ratio}" if server.contender.ours else "/classify"
        target = Target("127.0.0.1", server.port, path, server.contender.form)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(
                saturate(target, self._images, clients=clients, seconds=seconds, settle_s=settle_s)
            )

    def _record(
        self, stage: str, contender: Contender, number: int, ratio: str, turn: Turn, **more: str
    ) -> None:
        self._note(
            {
                "stage": stage,
                **self._names(contender),
                **more,
                "ran": turn.ran,
                "ratio": ratio,
                "round": number,
                "images_per_s": turn.phase.images_per_s,
                "latencies_ms": [round(one * 1000, 1) for one in turn.phase.latencies],
                "errors": sorted(set(turn.phase.errors)),
                "others": round(turn.others, 3),
            }
        )

    def _note(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        with self._journal.open("ab") as file:
            file.write(orjson.dumps(row) + b"\n")

    @staticmethod
    def _names(contender: Contender) -> dict[str, str]:
        return {
            "name": contender.name,
            "runtime": contender.runtime,
            "dtype": contender.dtype,
            "setting": contender.setting,
        }

    @staticmethod
    def _is(row: dict[str, Any], stage: str, contender: Contender) -> bool:
        return row["stage"] == stage and Comparison._names(contender).items() <= row.items()


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--architecture", default="deit_small_patch16_224", help="with random weights")
    parser.add_argument("--model", type=Path, help="the folder of a compiled model instead")
    parser.add_argument("--images", type=Path, help="folder of JPEGs to send; without it, generated ones")
    parser.add_argument("--only", nargs="+", help="names of peers, instead of all")
    parser.add_argument("--dtypes", default=",".join(DTYPES), help="comma-separated; each has its own rounds")
    parser.add_argument("--ratios", default="0.755", help="of prunepool, besides 0")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--cores", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=8.0, help="of a phase, that count")
    parser.add_argument("--settle", type=float, default=2.0, help="seconds of a phase before that")
    parser.add_argument(
        "--busy", type=float, default=0.05, help="a phase is repeated if others take more of the cores"
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="then stop; call again to go on")
    parser.add_argument("--out", type=Path, default=Path("out/peers"), help="folder of journal and results")
    return parser.parse_args(arguments)


def main() -> int:
    """Run as far as time allows, and report what there is."""
    wanted = options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no server is left behind
    wanted.out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        folder = stack.enter_context(model_folder(wanted.model, wanted.architecture))
        if wanted.model is None:
            compile_model(folder)
        run = Comparison(wanted, folder, wanted.out.resolve() / "journal.jsonl")
        whole = run.choose() and all(run.rounds(dtype) for dtype in wanted.dtypes.split(","))
    if not any(row["stage"] == "round" for row in run.rows):
        print("time was up before the first round; call again to go on")
        return 2
    report = {
        "architecture": wanted.architecture if wanted.model is None else wanted.model.name,
        "clients": wanted.clients,
        "seconds": wanted.seconds,
        "environment": environment(torch.device("cpu")),
        **summary(run.rows),
    }
    save(report, wanted.out / "peers.json")
    draw(report, wanted.out / "peers.png")
    show(report)
    return 0 if whole else 2


if __name__ == "__main__":
    sys.exit(main())
