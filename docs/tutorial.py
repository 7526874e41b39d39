# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # From a folder of pictures to an exported file
#
# Ten cells, some two minutes on two CPU cores. Run it as a notebook (`jupytext --to ipynb
# docs/tutorial.py` makes one) or as a script (`python docs/tutorial.py`). It writes into the folder
# `tutorial`.
# `main(["train", "my_part"])` is what `daad-jax train my_part` is on a command line.

# %%
import os
from pathlib import Path

import numpy as np
from PIL import Image

import daad_jax
from daad_jax.cli import main
from daad_jax.config.presets import default
from daad_jax.exported import load_exported
from daad_jax.reports import plots

Path("tutorial").mkdir(exist_ok=True)
os.chdir("tutorial")

# %%
# Pictures that come with scikit-image, as a folder of your own would look like: good ones to learn
# from in train/good, others to test with in test/good and in test/KIND for each kind of defect.
gravel = daad_jax.load_dataset(default().data, "gravel")
for part, images in (("train", gravel.train), ("train", gravel.calibration), ("test", gravel.test)):
    for pixels, name, kind in zip(images.images, images.names, images.kinds, strict=True):
        folder = Path("gravel", part, kind)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.squeeze()).save(folder / f"{Path(name).stem}.png")
print({str(folder): len(list(folder.glob("*"))) for folder in sorted(Path("gravel").glob("*/*"))})

# %%
# Are they fit to train on? This writes gravel-check.html.
assert main(["check", "gravel"]) == 0

# %%
# Train on the good pictures. A fifth is held out for the threshold. Running it again resumes.
small = ["--config.train.steps=300", "--config.score.bootstrap_samples=100"]
assert main(["train", "gravel", "--workdir=runs/gravel", *small]) == 0

# %%
# Score the test pictures: runs/gravel/report.html has all about them.
detector = daad_jax.load("runs/gravel")
paths = sorted(Path("gravel/test").glob("*/*.png"))
result = detector.score(paths)
is_good = np.array([path.parent.name == "good" for path in paths])
print("called defective:", result.defective[is_good].mean(), "of the good pictures,")
print(result.defective[~is_good].mean(), "of the defective ones")

# %%
# The heat map of the most anomalous picture, beside the picture.
worst = int(np.argmax(result.decision_score))
picture = np.asarray(Image.open(paths[worst]).convert("RGB"))
heat = plots.heat_map(picture, result.anomaly_map[worst], plots.color_scale(result.anomaly_map))
shown = Image.fromarray(np.hstack([picture, heat])).resize((512, 256))
shown.save("heat.png")
shown

# %%
# Another threshold: at most one good picture in twenty shall be called defective.
assert main(["calibrate", "runs/gravel", "--false_alarm_rate=0.05"]) == 0

# %%
# One file with all of it: weights, preprocessing, threshold, some reference pictures.
assert main(["export", "runs/gravel", "-o", "gravel.daad"]) == 0

# %%
# The file runs wherever JAX and NumPy are, with exported.py beside it and without this package.
exported = load_exported("gravel.daad")
from_file, from_run = exported.score(paths), daad_jax.load("runs/gravel").score(paths)
print("decided as before:", (from_file.defective == from_run.defective).all())
difference = np.abs(from_file.decision_score - from_run.decision_score).max()
print(f"largest difference of a score: {difference:.1e}, of {np.ptp(from_run.decision_score):.0f}")
