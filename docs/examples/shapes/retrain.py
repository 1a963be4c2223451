"""Fit the network further, with Keras alone: to its pictures, and to the feedback, which counts five times.

python -m docs.examples.shapes.retrain FOLDER FEEDBACK FILE.keras NEW.keras
"""

import sys
from pathlib import Path

import keras


def main(folder: str, feedback: str, file: str, new: str) -> None:
    """Fit the model of a file to both folders of classes and save it in a new file."""
    keras.utils.set_random_seed(0)
    model = keras.saving.load_model(file)
    size = model.input_shape[1:3]
    pictures = keras.utils.image_dataset_from_directory(folder, image_size=size, interpolation="area")
    for label in pictures.class_names:  # Keras numbers the folders that there are.
        Path(feedback, label).mkdir(exist_ok=True)
    labelled = keras.utils.image_dataset_from_directory(feedback, image_size=size, interpolation="area")
    both = pictures.unbatch().concatenate(labelled.unbatch().repeat(5)).cache()
    model.fit(both.shuffle(10_000, seed=0).batch(32), epochs=10, verbose=2)
    model.save(new)


if __name__ == "__main__":
    main(*sys.argv[1:])
