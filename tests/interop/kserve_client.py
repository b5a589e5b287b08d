"""Calls a server with KServe's own clients, and prints as JSON what they say; run in .venv-interop.

Usage: kserve_client.py URL GRPC_ADDRESS MODEL SIZE
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import grpc
import httpx
import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput


def tensors(
    name: str, size: int, values: list[float], *, binary: bool, ratio: float | str = 0.5, **more: Any
) -> InferRequest:
    batch = np.stack([np.full((3, size, size), value, np.float32) for value in values])
    given = InferInput("images", list(batch.shape), "FP32")
    given.set_data_from_numpy(batch, binary_data=binary)
    return InferRequest(name, [given], request_id="7", parameters={"reduction_ratio": ratio}, **more)


def photos(name: str, *, binary: bool) -> InferRequest:
    batch = np.array([[b"\xff\xd8one"], [b"\xff\xd8two"]], np.object_)
    if not binary:
        batch = np.array([["/9hvbmU="], ["/9h0d28="]], np.object_)  # in JSON, images are base64
    given = InferInput("images", list(batch.shape), "BYTES")
    given.set_data_from_numpy(batch, binary_data=binary)
    return InferRequest(name, [given], parameters={"reduction_ratio": "0.25"})


def told(response: Any) -> dict[str, Any]:
    outputs = {}
    for output in response.outputs:
        values = output.as_numpy()
        outputs[output.name] = values.astype(str).tolist() if values.dtype == np.object_ else values.tolist()
    parameters = {
        key: value if isinstance(value, int | float | str) else value.string_param
        for key, value in (response.parameters or {}).items()
    }
    return {
        "id": response.id,
        "model": response.model_name,
        "outputs": outputs,
        "parameters": {key: str(value) for key, value in parameters.items()},
    }


async def over_http(url: str, model: str, size: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    async with InferenceRESTClient(RESTConfig(protocol="v2", retries=0)) as client:

        async def infer(request: InferRequest) -> Any:
            return told(await client.infer(url, request, request.model_name))

        found["live"] = await client.is_server_live(url)
        found["ready"] = await client.is_server_ready(url)
        found["models"] = [await client.is_model_ready(url, name) for name in (model, f"{model}_jpeg", "x")]
        wanted = [RequestedOutput("probabilities", {"classification": 2, "binary_data": False})]
        found["json"] = await infer(tensors(model, size, [1.5, -0.25], binary=False))
        found["binary"] = await infer(tensors(model, size, [1.5, -0.25], binary=True))
        found["binary out"] = told(
            await client.infer(
                url,
                tensors(
                    model,
                    size,
                    [1.5, -0.25],
                    binary=True,
                    request_outputs=[RequestedOutput("logits", {"binary_data": True})],
                ),
                model,
            )
        )
        found["classes"] = await infer(tensors(model, size, [1.5], binary=True, request_outputs=wanted))
        found["photos"] = await infer(photos(f"{model}_jpeg", binary=True))
        found["photos in json"] = await infer(photos(f"{model}_jpeg", binary=False))
        for name, request in (
            ("unknown model", tensors("x", size, [1.0], binary=True)),
            ("not finite", tensors(model, size, [float("nan")], binary=True)),
        ):
            try:
                await infer(request)
            except httpx.HTTPStatusError as error:
                found[name] = [error.response.status_code, str(error)]
    return found


async def over_grpc(address: str, model: str, size: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    async with InferenceGRPCClient(address, retries=0) as client:
        found["live"] = await client.is_server_live()
        found["ready"] = await client.is_server_ready()
        found["models"] = [await client.is_model_ready(name) for name in (model, f"{model}_jpeg")]
        # This client sends no parameter that is a number and no integer.
        request = tensors(model, size, [1.5, -0.25], binary=True, ratio="0.5")
        found["binary"] = told(await client.infer(request))
        found["photos"] = told(await client.infer(photos(f"{model}_jpeg", binary=True)))
        try:
            await client.infer(tensors("x", size, [1.0], binary=True, ratio="0.5"))
        except grpc.RpcError as error:
            found["unknown model"] = [error.code().name, error.details()]
    return found


async def main(url: str, address: str, model: str, size: int) -> None:
    said = {"http": await over_http(url, model, size), "grpc": await over_grpc(address, model, size)}
    print(json.dumps(said))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
