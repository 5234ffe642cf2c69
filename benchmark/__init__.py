"""How TinyGPT compares, measured on one machine: scripts to run by hand, no part of the package."""
