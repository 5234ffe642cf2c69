"""Developer tools: the docs' commands run, their pictures and API page made, mutation tests."""
