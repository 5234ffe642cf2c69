"""The lessons' pictures, one function each: `python -m docs.lessons.pictures` draws all, `… 04` those of lesson 4.

They are drawn from what the pipeline made (`make` first), in the look of tinygpt/plots/style.py. The functions stand in
pictures_of_text.py, pictures_of_models.py and pictures_of_runs.py.
"""

import sys
from pathlib import Path

from docs.lessons import pictures_of_models as models
from docs.lessons import pictures_of_runs as runs
from docs.lessons import pictures_of_text as text

HERE = Path(__file__).parent

PICTURES = {
    "01_pipeline": text.pipeline,
    "02_vocabulary": text.vocabulary,
    "03_positions": text.positions,
    "03_windows": text.windows,
    "04_attention": models.attention,
    "05_norms": models.norms,
    "05_parameters": models.parameters,
    "06_curves": runs.curves,
    "07_sampling": models.temperatures,
    "08_memory": runs.memory,
    "09_ablation": runs.ablation,
    "10_overfitting": runs.overfitting,
}

if __name__ == "__main__":
    for name, draw in PICTURES.items():
        if not sys.argv[1:] or name.startswith(tuple(sys.argv[1:])):
            draw(HERE / f"{name}.png")
            print(HERE.joinpath(f"{name}.png").relative_to(Path.cwd()))
