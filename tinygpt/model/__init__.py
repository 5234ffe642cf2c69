"""The GPT itself, its loss, and the hardware that it runs on."""
