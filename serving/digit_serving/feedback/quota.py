"""Quota of feedback: bytes that a caller's pictures may take in the store."""

from collections.abc import Mapping

from digit_core.errors import mebibytes

_WARNED_SHARE = 0.9
_WAY_OUT = "`digits feedback delete` makes room, or raise DIGITS_FEEDBACK_BYTES"


def limit(sizes: Mapping[str, int], caller: str, quota: int) -> int:
    """Return the most bytes that a caller may take, of which `sizes` says what each takes.

    Dynamic threshold: an API key takes at most as much as it leaves free, so that each further key finds
    room. Without keys all callers are one.
    """
    free = max(0, quota - sum(sizes.values()) + sizes.get(caller, 0))
    return free // 2 if caller else free


def refusal(caller: str, most: int) -> str:
    """Return the sentence for a caller who may take no more."""
    whose = "those of an API key" if caller else "its pictures"
    return (
        f"The store of feedback has no room for the picture: {whose} may take {mebibytes(most)}. "
        f"Ask the operator: {_WAY_OUT}."
    )


def warnings(sizes: Mapping[str, int], quota: int) -> list[str]:
    """Return a sentence for the operator if a caller has little room."""
    limits = {caller: limit(sizes, caller, quota) for caller in sizes}
    full = [caller for caller, most in limits.items() if sizes[caller] >= _WARNED_SHARE * most]
    if not full:
        return []
    fullest = max(full, key=lambda caller: sizes[caller])
    whose, taken = "An API key's pictures" if fullest else "The pictures", mebibytes(sizes[fullest])
    return [
        f"{whose} take {taken} of the {mebibytes(limits[fullest])} that they may take in the store of "
        f"DIGITS_FEEDBACK: {_WAY_OUT}."
    ]
