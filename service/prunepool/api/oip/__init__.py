"""The Open Inference Protocol under `/v2`, for the clients of KServe and Triton.

Each served model has two views. Under its own name it takes float32 tensors, under its name with `_jpeg` it takes
encoded images. Both return `logits` and `probabilities`, or the most probable classes if the client asks for a
classification. Errors are `{"error": "…"}`, which is all that the clients read.
"""
