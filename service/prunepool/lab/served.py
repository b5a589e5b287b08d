"""Evaluate the accuracy of a running server over HTTP."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prunepool.client import Classification, Client, ImageUnreadable
from prunepool.errors import (
    BodyTooLarge,
    ImageTooLarge,
    ImageUndecodable,
    PrunepoolError,
    UnsupportedMediaType,
)
from prunepool.lab.accuracy_figures import figures
from prunepool.lab.accuracy_row import DENSE_ROW, AccuracyRow
from prunepool.lab.images import ImageSet
from prunepool.lab.model_outputs import ModelOutputs

#: Concurrent requests; each waits for its response in its own thread.
_CONNECTIONS = 16
#: Errors that say that an image, and no other, cannot be classified.
_OF_ONE_IMAGE = (BodyTooLarge, ImageTooLarge, ImageUndecodable, UnsupportedMediaType)


def evaluate_server(
    client: Client,
    images: ImageSet,
    ratios: Sequence[float],
    *,
    model: str | None,
    seed: int,
    advance: Callable[[int], object] = lambda count: None,
    broken: list[str] | None = None,
) -> list[AccuracyRow]:
    """Send every image at ratio 0 and at each ratio, one image per request.

    Args:
        client: of the server.
        images: sent as files, which the server decodes.
        ratios: ratios to measure; 0 is always measured.
        model: name of the served model; None for the default.
        seed: of the bootstrap.
        advance: called with 1 for each answer.
        broken: gets why an image cannot be read or decoded, which is then left out at every ratio; without it such
            an image is an error.

    Returns:
        Ratio 0 first. The divergence, which needs all probabilities, is unknown.

    Raises:
        PrunepoolError: the server reports an error for an image, or does not answer.
        ImageUndecodable: no image can be decoded.
    """
    rows: list[AccuracyRow] = []
    dense: ModelOutputs | None = None
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        for ratio in (0.0, *(r for r in ratios if r != 0)):

            def classify(file: Path, ratio: float = ratio) -> Classification | PrunepoolError:
                try:
                    return client.classify(file, model=model, reduction_ratio=ratio)
                except _OF_ONE_IMAGE as error:
                    return error
                except OSError as error:
                    return ImageUnreadable(error.strerror or str(error))
                finally:
                    advance(1)

            found, images = _without_broken(list(pool.map(classify, images.files)), images, broken)
            answers = _answers(found, images.labels)
            dense = answers if dense is None else dense
            gmacs = float(np.mean([answer.reduction.gmacs for answer in found]))
            name = "served" if rows else DENSE_ROW
            rows.append(AccuracyRow(name, ratio, gmacs, None, figures(answers, dense, seed=seed)))
    return rows


def _without_broken(
    found: Sequence[Classification | PrunepoolError], images: ImageSet, broken: list[str] | None
) -> tuple[list[Classification], ImageSet]:
    """Leave out the images that cannot be decoded."""
    for file, answer in zip(images.files, found, strict=True):
        if isinstance(answer, PrunepoolError):
            if broken is None:
                raise answer
            broken.append(f"{file}: {answer.detail}")
    answers = {place: answer for place, answer in enumerate(found) if isinstance(answer, Classification)}
    if not answers:
        raise ImageUndecodable(
            f"none of {len(images)} images can be decoded; {(broken or ['there is none'])[0]}"
        )
    return list(answers.values()), images.subset(np.array(list(answers), np.int64))


def _answers(found: Sequence[Classification], labels: NDArray[np.int64] | None) -> ModelOutputs:
    place = None
    if labels is not None:
        place = np.array([_place(a, int(label)) for a, label in zip(found, labels, strict=True)], np.int64)
    return ModelOutputs(
        predicted=np.array([answer.predictions[0].index for answer in found], np.int64),
        confidence=np.array([answer.predictions[0].score for answer in found], np.float32),
        place=place,
        kl=None,
    )


def _place(answer: Classification, label: int) -> int:
    """Number of classes ranked above the correct one; if it is not among those returned, the number of those."""
    indices = [prediction.index for prediction in answer.predictions]
    return indices.index(label) if label in indices else len(indices)
