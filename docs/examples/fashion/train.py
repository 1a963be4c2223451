"""Fit a small network to Fashion-MNIST with Keras alone.

python -m docs.examples.fashion.train FILE.keras
"""

import sys

import keras
from keras import layers

from docs.examples.fashion import garments


def main(file: str) -> None:
    """Fit the model and save it in the file."""
    images, labels = garments.training_set()
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(16, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ],
        name="garments",
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(images[..., None].astype("float32") / 255, labels, batch_size=128, epochs=3, verbose=2)
    model.save(file)


if __name__ == "__main__":
    main(*sys.argv[1:])
