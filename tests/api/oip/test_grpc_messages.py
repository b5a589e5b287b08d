"""Messages of any content are requests, or refused as the caller's error."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from prunepool.api.oip.execution import options_of
from prunepool.api.oip.rpc.messages import request_of_message
from prunepool.api.oip.views import View
from prunepool.api.options import HEADER, RawOption
from prunepool.errors import RequestError
from prunepool.testing import fake_model

INFO = fake_model("m", input_size=2)
VIEWS = [
    View("m", INFO, encoded=False, max_batch_size=3),
    View("m_jpeg", INFO, encoded=True, max_batch_size=3),
]

texts = st.text(max_size=5)
values: st.SearchStrategy[Any] = st.one_of(
    st.just({}),
    st.builds(dict, string_param=texts | st.sampled_from(["0.5", "auto", "nan", ""])),
    st.builds(dict, bool_param=st.booleans()),
    st.builds(dict, int64_param=st.integers(-(2**63), 2**63 - 1)),
    st.builds(dict, uint64_param=st.integers(0, 2**64 - 1)),
    st.builds(dict, double_param=st.floats()),
).map(lambda given: service_pb2.InferParameter(**given))
names = st.sampled_from(
    [
        "reduction_ratio",
        "max_reduction_ratio",
        "max_accuracy_drop",
        "deadline_ms",
        "binary_data_output",
        "binary_data_size",
        "binary_data",
        "classification",
        "shared_memory_region",
        "triton_enable_empty_final_response",
    ]
)
parameters = st.dictionaries(names | texts, values, max_size=3)
contents = st.builds(
    service_pb2.InferTensorContents,
    fp32_contents=st.lists(st.floats(width=32), max_size=13),
    bytes_contents=st.lists(st.binary(max_size=5), max_size=3),
    int_contents=st.lists(st.integers(0, 9), max_size=1),
) | st.builds(service_pb2.InferTensorContents, fp32_contents=st.just([0.5] * 12))
tensors = st.builds(
    service_pb2.ModelInferRequest.InferInputTensor,
    name=st.just("images") | texts,
    datatype=st.sampled_from(["FP32", "BYTES", "INT8", ""]),
    shape=st.sampled_from([[1, 3, 2, 2], [1, 1], [1], []])
    | st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4),
    parameters=parameters,
    contents=st.none() | contents,
)
outputs = st.builds(
    service_pb2.ModelInferRequest.InferRequestedOutputTensor,
    name=st.sampled_from(["logits", "probabilities", "", "x"]),
    parameters=parameters,
)
messages = st.builds(
    service_pb2.ModelInferRequest,
    id=texts,
    parameters=parameters,
    inputs=st.lists(tensors, min_size=1, max_size=2),
    outputs=st.lists(outputs, max_size=2),
    raw_input_contents=st.lists(st.binary(max_size=9) | st.just(bytes(48)), max_size=2),
)


@given(messages, st.sampled_from(VIEWS), st.lists(texts, max_size=2))
def test_any_message_is_accepted_or_refused(message: Any, view: View, ratios: list[str]) -> None:
    raw = [RawOption("header", HEADER, value) for value in ratios]
    try:
        request = request_of_message(message, view)
        raw += [RawOption("parameters", name, value) for name, value in request.parameters.items()]
        options_of(raw, view)
    except RequestError:
        return
    assert 1 <= len(request.images) <= view.max_batch_size
    assert all(isinstance(image, bytes) is view.encoded for image in request.images)
