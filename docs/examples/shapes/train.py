"""Fit a small network to the pictures, with Keras alone.

python -m docs.examples.shapes.train FOLDER FILE.keras
"""

import sys

import keras
from keras import layers


def main(folder: str, file: str) -> None:
    """Fit the model to the pictures in the folder of classes and save it in the file."""
    keras.utils.set_random_seed(0)
    pictures = keras.utils.image_dataset_from_directory(folder, image_size=(48, 64))
    model = keras.Sequential(
        [
            keras.Input((48, 64, 3)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(16, 3, strides=2, activation="relu"),
            layers.Conv2D(32, 3, strides=2, activation="relu"),
            layers.Conv2D(64, 3, strides=2, activation="relu"),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(4, activation="softmax"),
        ],
        name="shapes",
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(pictures, epochs=20, verbose=2)
    model.save(file)


if __name__ == "__main__":
    main(*sys.argv[1:])
