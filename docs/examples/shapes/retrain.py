"""Fit the network further, with Keras alone: to its pictures, and to the feedback, which counts five times.

python -m docs.examples.shapes.retrain FOLDER FEEDBACK FILE.keras NEW.keras
"""

import sys
from functools import partial
from pathlib import Path

import keras
from keras import layers


def main(folder: str, feedback: str, file: str, new: str) -> None:
    """Fit the model of a file to both folders of classes and save it in a new file."""
    keras.utils.set_random_seed(0)
    model = keras.saving.load_model(file)
    split = partial(
        keras.utils.image_dataset_from_directory,
        image_size=model.input_shape[1:3],
        interpolation="area",
        validation_split=0.2,
        subset="both",
        seed=0,
    )
    pictures, held_out = split(folder)
    for label in pictures.class_names:  # Keras numbers the folders that there are.
        Path(feedback, label).mkdir(exist_ok=True)
    labelled, held_out_feedback = split(feedback)
    both = pictures.unbatch().concatenate(labelled.unbatch().repeat(5)).cache()
    # Augmentation and early stopping: the network would learn pictures by heart that come five times in each
    # epoch, and be too sure of others. A mirrored shape keeps its name.
    changed = keras.Sequential([layers.RandomFlip(), layers.RandomTranslation(0.1, 0.1, fill_mode="nearest")])
    model.fit(
        both.shuffle(10_000, seed=0).batch(32).map(lambda x, y: (changed(x, training=True), y)),
        validation_data=held_out.concatenate(held_out_feedback).cache(),
        epochs=20,
        callbacks=[keras.callbacks.EarlyStopping(patience=4, restore_best_weights=True)],
        verbose=2,
    )
    model.save(new)


if __name__ == "__main__":
    main(*sys.argv[1:])
