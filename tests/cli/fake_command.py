"""Runs the real `prunepool` command over a fake engine, whose best label FAKE_LABEL has, escaped."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

from prunepool import cli
from prunepool.server import factory
from prunepool.testing import FakeService


class Labelled(FakeService):
    """Names its best class as it is told."""

    async def classify(self, image: bytes, options: Any) -> Any:
        answer = await super().classify(image, options)
        label = os.environ.get("FAKE_LABEL", "").encode().decode("unicode_escape")
        if not label:
            return answer
        first, *others = answer.predictions
        return replace(answer, predictions=(replace(first, label=label), *others))


if __name__ == "__main__":
    factory.create_local_service = lambda settings, metrics: Labelled()  # type: ignore[assignment,return-value]
    cli.main()
