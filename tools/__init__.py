"""Developer tools: run the docs' commands, make their figures and API page, mutation tests."""
