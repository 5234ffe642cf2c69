"""llama.cpp's server, as the package xllamacpp carries it: built for any x86-64 processor with AVX2, not for this one.

`server = serve(file, context, threads)`, then `post(server, "/completion", {…})`.
"""

import json
import socket
import urllib.request
from pathlib import Path
from typing import Any


def serve(model: str | Path, context: int, threads: int, jinja: bool = False) -> Any:
    """A server for a GGUF file, whose cache is in float32, as TinyGPT's is. Keep it: its destructor may never end.

    jinja: whether it reads the file's chat template, as llama-server does by default.
    """
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel, params.port = str(model), context, 1, free_port()
    params.cpuparams.n_threads, params.n_gpu_layers = threads, 0
    params.fit_params = params.warmup = False
    params.use_jinja = jinja
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32  # its default is half of that
    params.verbosity = -1
    return xllamacpp.Server(params)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def post(server: Any, path: str, body: dict[str, Any]) -> Any:
    head = {"Content-Type": "application/json"}
    address = server.listening_address + path
    with urllib.request.urlopen(urllib.request.Request(address, json.dumps(body).encode(), head)) as answer:
        return json.load(answer)
