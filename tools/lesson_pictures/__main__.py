"""The lessons' figures, one function each: `python -m tools.lesson_pictures` draws all, `… 04` those of lesson 4.

They use the pipeline's outputs (run `make` first) and the style of tinygpt/plots/style.py. The functions are in
text.py, models.py, runs.py and chat.py; chat.py needs `dvc repro chat/dvc.yaml`, too.
"""

import sys
from pathlib import Path

from tools.lesson_pictures import chat, models, runs, text

LESSONS = Path(__file__).parents[2] / "docs/lessons"

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
    "11_mask": chat.mask,
}

if __name__ == "__main__":
    for name, draw in PICTURES.items():
        if not sys.argv[1:] or name.startswith(tuple(sys.argv[1:])):
            draw(LESSONS / f"{name}.png")
            print(LESSONS.joinpath(f"{name}.png").relative_to(Path.cwd()))
