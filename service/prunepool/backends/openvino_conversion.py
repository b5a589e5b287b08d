"""From an exported PyTorch program to an OpenVINO model."""

from __future__ import annotations

from typing import Any

import torch

from prunepool.backends.openvino_translations import extensions

#: OpenVINO claims to support them, but requires the factor that PyTorch leaves out where it is 1.
_NOT_KNOWN = (torch.ops.aten.index_add.default, torch.ops.aten.index_add_.default)


def to_openvino(program: torch.export.ExportedProgram) -> Any:
    """The `openvino.Model` of a program, with the same dynamic dimensions.

    `openvino.convert_model` does much the same around the front end that this calls.

    Raises:
        Exception: of no common class: OpenVINO does not support an operation.
    """
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder
    from openvino.frontend.pytorch.torchdynamo.export_decompositions import ops_to_not_decompose

    # Operations that OpenVINO supports as a whole, attention above all, run faster than their decompositions.
    whole = {*ops_to_not_decompose(), torch.ops.aten.linalg_vector_norm.default} - {*_NOT_KNOWN}
    table = {
        op: parts for op, parts in dict(torch.export.default_decompositions()).items() if op not in whole
    }
    # Named, for nothing else keeps it while the front end reads from it.
    decoder = TorchFXPythonDecoder(program.run_decompositions(table).module(), dynamic_shapes=True)
    frontend = FrontEndManager().load_by_framework("pytorch")
    for extension in extensions():
        frontend.add_extension(extension)
    model = frontend.convert(frontend.load(decoder))
    # To keep equal values in their order takes OpenVINO ten times as long, longer than all else that a step does.
    # In whichever order they come, it depends on an image's own values alone.
    for sort in (op for op in model.get_ordered_ops() if op.get_type_name() == "TopK"):
        sort.set_attribute("stable", False)
    return model
