"""Models that are loaded from files: Keras files and SavedModels."""

import re
import zipfile
from pathlib import Path

import h5py
import keras
from keras import layers

from digit_core.artifact.verification import reason_of
from digit_training.errors import ModelError

_GUIDE = "docs/how-to/bring-a-model.md"

_SIGNATURES = {b"PK\x03\x04": ".keras", b"\x89HDF": ".h5"}
"""Kind of a Keras file by its first bytes: a ZIP archive, or HDF5."""

_SAVE_AGAIN = 'copy it again, or save the model again by model.save("mine.keras")'

_ANOTHER = "save another one, of pixels alone, and name it by --signature"


def check_backend() -> None:
    """Raise ModelError if Keras runs on another backend than TensorFlow, which alone writes SavedModels."""
    if keras.backend.backend() != "tensorflow":
        raise ModelError(
            "only Keras's TensorFlow backend writes SavedModels: say KERAS_BACKEND=tensorflow digits export …"
        )


def load_keras(file: Path) -> keras.Model:
    """Return the model in a `.keras` or legacy `.h5` file. Raise ModelError if Keras cannot load it."""
    if file.is_dir():
        raise ModelError("this is a folder: export a SavedModel by --from-saved-model FOLDER")
    _check_file(file)
    try:
        model = keras.saving.load_model(file, compile=False)
    # Keras does not document its exceptions for damaged files and unknown layers.
    except Exception as error:
        # The last line is the reason; the configuration of a layer may be thousands of characters long.
        reason, *_ = (
            (str(error).strip() or type(error).__name__).splitlines()[-1].partition(" Full object config:")
        )
        raise ModelError(
            f"Keras cannot load the model: {reason.rstrip('.')}. Import a layer by --import MODULE; "
            f"export a model with a Lambda layer, or of Keras 2, as a SavedModel (see {_GUIDE})"
        ) from error
    if not getattr(model, "inputs", None):
        raise ModelError(
            "the model states no shape of its input: build it from keras.Input, or export a SavedModel (see "
            f"{_GUIDE})"
        )
    batch, *shape = model.inputs[0].shape
    if batch is None or len(model.inputs) > 1:
        return model
    # A Sequential that was built by calling it has the size of that batch.
    inputs = keras.Input(shape, dtype=model.inputs[0].dtype)
    try:
        clone = keras.models.clone_model(model, input_tensors=inputs)
        clone.set_weights(model.get_weights())
    # Layers raise what they like, such as a stateful GRU, which needs the batch size.
    except Exception as error:
        raise ModelError(
            f"the model takes batches of {batch} only ({reason_of(error)}): build it without a batch size "
            "and without stateful=True"
        ) from error
    return clone


def _check_file(file: Path) -> None:
    """Raise ModelError unless the file holds a model: of another file, Keras says that it is not found."""
    with file.open("rb") as opened:
        kind = _SIGNATURES.get(head := opened.read(4))
    if not head:
        raise ModelError(f"the file is empty: {_SAVE_AGAIN}")
    if kind is None:
        raise ModelError(f"the file is not a Keras model, whatever its name says: {_SAVE_AGAIN}")
    try:
        if kind == ".keras":
            with zipfile.ZipFile(file) as archive:
                has_model = "config.json" in archive.namelist()
        else:
            with h5py.File(file) as stored:
                has_model = "model_config" in stored.attrs
    except (OSError, zipfile.BadZipFile) as error:
        raise ModelError(f"the file is incomplete or damaged: {_SAVE_AGAIN}") from error
    if not has_model:
        raise ModelError(
            "the file holds weights only: load them into the model, and save the whole model by "
            'model.save("mine.keras")'
        )
    if (kind == ".keras") != (file.suffix == ".keras"):
        raise ModelError(f"the file is not of the kind that its name says: rename it to {file.stem}{kind}")


def load_saved_model(folder: Path, signature: str) -> keras.Model:
    """Return a signature of a SavedModel as a model that shares its variables.

    Raise ModelError if it cannot be loaded, or does not take one tensor of float32 or uint8.
    """
    import tensorflow as tf

    if not (folder / "saved_model.pb").is_file():
        raise ModelError("the folder is not a SavedModel: it has no saved_model.pb")
    try:
        signatures = tf.saved_model.load(str(folder)).signatures
    # TensorFlow does not document its exceptions for damaged or incompatible SavedModels.
    except Exception as error:
        raise ModelError(f"TensorFlow cannot load the SavedModel: {reason_of(error)}") from error
    if signature not in signatures:
        known = ", ".join(sorted(signatures)) or "none"
        raise ModelError(f"there is no signature {signature!r} (see --signature); signatures: {known}")
    (input_specs,) = signatures[signature].structured_input_signature[1:]
    if len(input_specs) != 1:
        raise ModelError(f"the signature {signature!r} has {len(input_specs)} inputs, not one: {_ANOTHER}")
    (input_spec,) = input_specs.values()
    if input_spec.dtype not in (tf.float32, tf.uint8):
        taken = input_spec.dtype.name
        raise ModelError(f"the signature {signature!r} takes {taken}, not float32 or uint8: {_ANOTHER}")
    if input_spec.shape.rank is None:
        raise ModelError(f"the signature {signature!r} states no shape of its input: {_ANOTHER}")
    pixels = keras.Input(batch_shape=input_spec.shape.as_list(), dtype=input_spec.dtype.name, name="pixels")
    try:
        answers = layers.TFSMLayer(str(folder), call_endpoint=signature)(pixels)
    # Keras does not document its exceptions for signatures that it can't call.
    except Exception as error:
        raise ModelError(f"Keras cannot call the signature {signature!r}: {reason_of(error)}") from error
    return keras.Model(pixels, answers, name=re.sub(r"\W", "_", folder.name) or "saved_model")
