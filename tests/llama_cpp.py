"""llama.cpp in a process of its own: `python -m tests.llama_cpp < request.json`.

The request is {"model": a GGUF file, "context": tokens, "prompts": texts, "count": tokens to write}; what is printed
has for each prompt its ids, and the greedy text after it. The package xllamacpp carries llama.cpp's server, built.
"""

import json
import os
import socket
import sys
import urllib.request
from typing import Any

import xllamacpp


def main() -> Any:
    """Answer, and hand back the server."""
    request = json.load(sys.stdin)
    server = serve(request["model"], request["context"])
    answers = []
    for prompt in request["prompts"]:
        ids = post(server, "/tokenize", {"content": prompt})["tokens"]
        greedy = {"prompt": prompt, "n_predict": request["count"], "temperature": 0, "samplers": ["temperature"]}
        text = post(server, "/completion", greedy)["content"] if request["count"] else ""
        answers.append({"ids": ids, "text": text})
    json.dump(answers, sys.stdout)
    sys.stdout.flush()
    return server


def serve(model: str, context: int) -> Any:
    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel, params.port = model, context, 1, free_port()
    params.cpuparams.n_threads, params.n_gpu_layers = 1, 0
    params.fit_params = params.warmup = params.use_jinja = False
    params.cache_type_k = params.cache_type_v = (
        xllamacpp.ggml_type.GGML_TYPE_F32
    )  # as here; its default is half of that
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


if __name__ == "__main__":
    server = main()  # not let go of: its destructor now and then waits for its own threads for ever
    os._exit(0)
