"""Signatures of versions, made and checked by the package model-signing with a pair of keys."""

from pathlib import Path

from model_signing import verifying

from digit_core.artifact.versions import ArtifactError, UnsignedError

SIGNATURE = Path("assets.extra", "model.sig")
"""Signature's place in a version's folder; it covers all other files."""


def verify(version: Path, public_key: Path) -> None:
    """Check that the folder has the files that the key's owner signed, and no others.

    `public_key` is a PEM file. Raise UnsignedError if a file differs or there is no signature, ArtifactError
    without a key.
    """
    if not public_key.is_file():
        raise ArtifactError(f"{version} can't be verified: {public_key} does not exist")
    if not (version / SIGNATURE).is_file():
        raise UnsignedError(f"{version} is not signed: {version / SIGNATURE} does not exist")
    try:
        config = verifying.Config()  # type: ignore[no-untyped-call]
        config.use_elliptic_key_verifier(public_key=public_key)
        config.verify(version, version / SIGNATURE)
    # The package does not document its exceptions: of keys, of damaged signatures and of files that differ.
    except Exception as error:
        raise UnsignedError(
            f"{version} is not what the owner of {public_key} signed: a file, signature or key differs"
        ) from error
