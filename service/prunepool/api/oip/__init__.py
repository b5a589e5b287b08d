"""The Open Inference Protocol under `/v2`, as KServe and Triton and their clients speak it.

Each served model has two views: under its own name it takes float32 tensors, under its name and `_jpeg` it
takes encoded images. Both answer with `logits` and `probabilities`, or with the likeliest classes where a
client asks for a classification. Errors are `{"error": "…"}`, which is all that the clients read.
"""
