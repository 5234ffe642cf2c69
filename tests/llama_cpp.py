"""llama.cpp in a process of its own: `python -m tests.llama_cpp < request.json`.

The request is {"model": a GGUF file, "context": tokens, "prompts": texts, "count": tokens to write, "jinja": whether to
read the chat template}; what is printed has for each prompt its ids, and the greedy text after it. A prompt may also be
messages; then it says how the answer ended, too. The package xllamacpp carries llama.cpp's server, built.
"""

import json
import os
import sys
from typing import Any

from benchmark.llama_cpp import post, serve


def main() -> Any:
    """Answer, and hand back the server."""
    request = json.load(sys.stdin)
    server = serve(request["model"], request["context"], threads=1, jinja=request.get("jinja", False))
    answers = []
    for prompt in request["prompts"]:
        if isinstance(prompt, list):
            answers.append(answer(server, prompt, request["count"]))
            continue
        ids = post(server, "/tokenize", {"content": prompt})["tokens"]
        greedy = {"prompt": prompt, "n_predict": request["count"], "temperature": 0, "samplers": ["temperature"]}
        text = post(server, "/completion", greedy)["content"] if request["count"] else ""
        answers.append({"ids": ids, "text": text})
    json.dump(answers, sys.stdout)
    sys.stdout.flush()
    return server


def answer(server: Any, messages: Any, count: int) -> dict[str, Any]:
    """The ids of the prompt that its template makes of messages, and the greedy answer to them."""
    prompt = post(server, "/apply-template", {"messages": messages})["prompt"]
    ids = post(server, "/tokenize", {"content": prompt, "parse_special": True})["tokens"]
    greedy = {"messages": messages, "max_tokens": count, "temperature": 0, "samplers": ["temperature"]}
    answered = post(server, "/v1/chat/completions", greedy)
    (choice,) = answered["choices"]
    text, ended = choice["message"]["content"], choice["finish_reason"]
    return {"ids": ids, "text": text, "ended": ended, "read": answered["usage"]["prompt_tokens"]}


if __name__ == "__main__":
    server = main()  # not let go of: its destructor now and then waits for its own threads for ever
    os._exit(0)
