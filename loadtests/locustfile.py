"""Locust users of a running server: real JPEGs, at a fixed ratio, at mixed ones, or at `auto`.

`locust -f loadtests/locustfile.py --host http://127.0.0.1:8000 MixedUser` opens Locust's page. Its own
options are shown by `--help`, under "prunepool". `validate.py` runs the user `PhasedUser` by itself.
"""

from __future__ import annotations

import itertools
import json
import random
import time
from pathlib import Path
from typing import Any

import orjson
from locust import FastHttpUser, LoadTestShape, constant, events, task
from locust.argument_parser import LocustArgumentParser
from locust.env import Environment
from pictures import photos
from shapes import SHAPES, phase_at, phases, users_at

#: Requested and applied ratio may differ by less than one token of 196.
_TOLERANCE = 0.02


@events.init_command_line_parser.add_listener
def _options(parser: LocustArgumentParser) -> None:
    ours = parser.add_argument_group("prunepool", "what is sent and when")
    ours.add_argument("--images", type=Path, help="folder of JPEGs to send; without it, generated ones")
    ours.add_argument(
        "--ratios", default="0,0.5,0.755", help="FixedUser uses the first, MixedUser and PhasedUser all"
    )
    ours.add_argument("--load-shape", choices=[*SHAPES, "phases"], default="steady")
    ours.add_argument("--rounds", type=int, default=5, help="phases: rounds over all ratios")
    ours.add_argument("--phase-seconds", type=float, default=6.0, help="phases: length of each")
    ours.add_argument("--warm-up-seconds", type=float, default=3.0, help="phases: seconds before they count")
    ours.add_argument(
        "--record",
        type=Path,
        help="file for one line of JSON per response, after one with the start time",
    )


class Load:
    """The state that all users share: images, schedule, and the record of responses."""

    def __init__(self, options: Any) -> None:
        images = photos(options.images)
        random.Random(0).shuffle(images)
        self.images = itertools.cycle(images)
        self.ratios = [ratio.strip() for ratio in options.ratios.split(",")]
        self.schedule = phases(self.ratios, options.rounds, options.phase_seconds, options.warm_up_seconds)
        self.began = time.perf_counter()
        self.began_at = time.time()
        self.answers: list[dict[str, object]] = []

    def now(self) -> float:
        """Return the seconds since the start."""
        return time.perf_counter() - self.began


@events.init.add_listener
def _prepare(environment: Environment, **_: object) -> None:
    environment.load = Load(environment.parsed_options)


@events.test_start.add_listener
def _start(environment: Environment, **_: object) -> None:
    environment.load.began = time.perf_counter()
    environment.load.began_at = time.time()
    environment.load.answers.clear()


@events.test_stop.add_listener
def _write(environment: Environment, **_: object) -> None:
    record = environment.parsed_options.record
    if record is not None:
        load = environment.load
        lines = [orjson.dumps(line) for line in ({"began": load.began_at}, *load.answers)]
        record.write_bytes(b"\n".join(lines) + b"\n")


class Shape(LoadTestShape):
    """The load shape `--load-shape` with `--users` users over `--run-time`."""

    use_common_options = True

    def tick(self) -> tuple[int, float] | None:
        """Return the number of users and how many start per second; None at the end."""
        options = self.runner.environment.parsed_options
        most = options.num_users or 16
        if options.load_shape == "phases":
            load = self.runner.environment.load
            return None if phase_at(load.schedule, load.now()) is None else (most, float(most))
        users = users_at(SHAPES[options.load_shape], most, options.run_time or 60.0, self.get_run_time())
        return None if users is None else (users, options.spawn_rate or float(most))


class _User(FastHttpUser):
    """Sends the next image when the last is answered, and checks every response."""

    abstract = True
    wait_time = constant(0)
    network_timeout = 60.0

    def _ask(self, ratio: str, phase: int | None = None) -> None:
        load: Load = self.environment.load
        sent = load.now()
        applied = None
        with self.client.post(
            f"/classify?top_k=5&reduction_ratio={ratio}",
            data=next(load.images),
            headers={"Content-Type": "image/jpeg"},
            name=f"ratio {ratio}",
            catch_response=True,
        ) as response:
            error = None
            if response.status_code != 200:
                error = f"status {response.status_code}: {(response.text or '')[:200]}"
            else:
                answer = json.loads(response.content)
                applied = answer["reduction"]["applied"]
                if ratio != "auto" and abs(applied - float(ratio)) > _TOLERANCE:
                    error = f"ratio {ratio} was asked for, {applied} was applied"
                elif not answer["predictions"]:
                    error = "no predictions"
            if error:
                response.failure(error)
        load.answers.append(
            {
                "phase": phase,
                "ratio": ratio,
                "applied": applied,
                "sent": sent,
                "answered": load.now(),
                "error": error,
            }
        )


class FixedUser(_User):
    """Uses the first of `--ratios`."""

    @task
    def classify(self) -> None:
        """Send an image."""
        self._ask(self.environment.load.ratios[0])


class MixedUser(_User):
    """Uses one of `--ratios` for each image."""

    @task
    def classify(self) -> None:
        """Send an image."""
        self._ask(random.choice(self.environment.load.ratios))


class AutoUser(_User):
    """Lets the server choose the ratio."""

    @task
    def classify(self) -> None:
        """Send an image."""
        self._ask("auto")


class PhasedUser(_User):
    """Uses the ratio of the phase, with `--load-shape phases`."""

    @task
    def classify(self) -> None:
        """Send an image, unless all phases are over."""
        load = self.environment.load
        phase = phase_at(load.schedule, load.now())
        if phase is None:
            time.sleep(0.05)
        else:
            self._ask(phase.ratio, phase.number)
