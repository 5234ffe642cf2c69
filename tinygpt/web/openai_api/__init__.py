"""The server in OpenAI's form, `tinygpt serve`: models, chat completions and completions over HTTP."""
