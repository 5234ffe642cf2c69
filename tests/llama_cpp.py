"""llama.cpp in a process of its own: `python -m tests.llama_cpp < request.json`.

The request is {"model": a GGUF file, "context": tokens, "prompts": texts, "count": tokens to write}; what is printed
has for each prompt its ids, and the greedy text after it. The package xllamacpp carries llama.cpp's server, built.
"""

import json
import os
import sys
from typing import Any

from benchmark.llama_cpp import post, serve


def main() -> Any:
    """Answer, and hand back the server."""
    request = json.load(sys.stdin)
    server = serve(request["model"], request["context"], threads=1)
    answers = []
    for prompt in request["prompts"]:
        ids = post(server, "/tokenize", {"content": prompt})["tokens"]
        greedy = {"prompt": prompt, "n_predict": request["count"], "temperature": 0, "samplers": ["temperature"]}
        text = post(server, "/completion", greedy)["content"] if request["count"] else ""
        answers.append({"ids": ids, "text": text})
    json.dump(answers, sys.stdout)
    sys.stdout.flush()
    return server


if __name__ == "__main__":
    server = main()  # not let go of: its destructor now and then waits for its own threads for ever
    os._exit(0)
