"""What an engine still has to do, from what it said and what was sent."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from prunepool.transport.zmq.backlog import EngineBacklog


def test_what_it_said_goes_by_with_time() -> None:
    backlog = EngineBacklog()
    backlog.update(1.0, 0, at=10.0)
    assert [backlog.predicted_s(now, 0.1) for now in (10.0, 10.25, 12.0)] == [1.0, 0.75, 0.0]


def test_an_answer_does_not_hide_what_was_sent_while_it_was_on_its_way() -> None:
    backlog = EngineBacklog()
    backlog.send(1)
    backlog.send(2)
    backlog.update(0.0, 1, at=5.0)  # written before question 2 arrived there
    assert backlog.predicted_s(5.0, 0.1) == 0.1


@given(st.lists(st.booleans(), max_size=50), st.floats(0, 10), st.floats(0, 1))
def test_what_was_heard_counts_once(spoken: list[bool], drain_s: float, image_s: float) -> None:
    backlog, sent, heard = EngineBacklog(), 0, 0
    for speaks in spoken:
        if speaks:
            heard = sent
            backlog.update(drain_s, heard, at=0.0)
        else:
            sent += 1
            backlog.send(sent)
    said = drain_s if any(spoken) else 0.0
    assert backlog.predicted_s(0.0, image_s) == said + (sent - heard) * image_s
