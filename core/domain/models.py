"""Names of Whisper models: `ggml-{model}.bin`, for English first `ggml-{model}.en.bin`, then quantised variants."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

DEMO = "demo"
DETECTOR = "silero-"
"""Prefix of the names of voice detectors, whose files have the same format."""
PREFERRED = "medium"
SIZES = ("large-v3", "large-v3-turbo", "large-v2", "large-v1", "medium", "small", "base", "tiny", DEMO)
"""Models from the largest to the smallest: the order of preference after PREFERRED."""
QUANTISATIONS = ("", "-q8_0", "-q5_1", "-q5_0", "-q4_k", "-q4_1", "-q4_0", "-bf16", "-f16")
"""File name suffixes of a model's variants in order of preference, starting with the plain file."""
ORIGINALS = (
    *("tiny.en", "tiny", "base.en", "base", "small.en", "small", "medium.en", "medium"),
    *("large-v1", "large-v2", "large-v3-turbo", "large-v3"),
)
"""OpenAI's models. Longer names precede their prefixes."""
FOLDER_PREFIX = "faster-whisper-"
"""Beginning of the names of faster-whisper's folders."""
QUANTISED_FIRST = tuple(sorted(QUANTISATIONS, key=lambda suffix: not suffix.startswith("-q")))
"""The same suffixes for a model that the job does not name: quantised files first, smaller and faster on CPUs."""
ALIASES = {"large": "large-v3"}


def file_name(model: str) -> str:
    return f"ggml-{model}.bin"


def model_of_file(name: str, *, detectors: bool = False) -> str | None:
    """Return the model of a file, `ggml-base-q5_0.bin` → `base-q5_0`; None for any other file.

    detectors: True to include voice detectors, which transcribe nothing.
    """
    if name.startswith("ggml-") and name.endswith(".bin"):
        model = name[len("ggml-") : -len(".bin")]
        return model if detectors or not model.startswith(DETECTOR) else None
    return None


def entry_names(model: str) -> tuple[str, ...]:
    """Return the names that a model may have in a models folder: that of a file, and those of folders."""
    return file_name(model), model, f"{FOLDER_PREFIX}{model}"


def model_of_entry(name: str) -> str | None:
    """Return the model of a file or folder, `ggml-base.bin`, `base` or `faster-whisper-base` → `base`, or None."""
    return model_of_file(name) or (None if name.startswith(".") else name.removeprefix(FOLDER_PREFIX))


def original_of_file(name: str) -> str | None:
    """Return OpenAI's model that the name of a file or folder begins with, `ggml-base.en-q5_0.bin` → `base.en`."""
    model = (model_of_entry(name) or "").lower()
    return next((original for original in ORIGINALS if model == original or model.startswith(f"{original}-")), None)


def canonical(model: str) -> str:
    """Return the name with its alias expanded and its quantisation kept: `large-q5_0` → `large-v3-q5_0`."""
    for alias, name in ALIASES.items():
        for suffix in QUANTISATIONS:
            if model == alias + suffix:
                return name + suffix
    return model


def resolve(model: str, language: str, available: Iterable[str], suffixes: Sequence[str] = QUANTISATIONS) -> str | None:
    """Return the available model that `model` stands for in `language`, or None.

    A full name (`medium-q5_0`) stands for itself. A family name (`medium`) stands for its English file if the language
    is English, then for the variants in the order of `suffixes`: by default the plain file, then quantised ones.
    """
    names = set(available)
    name = canonical(model)
    stems = (f"{name}.en", name) if language == "en" else (name,)
    return next((stem + suffix for stem in stems for suffix in suffixes if stem + suffix in names), None)


def default_model(language: str, available: Iterable[str]) -> str | None:
    """Return the model for a job if neither the job nor DEFAULT_MODEL names one: medium, else the largest available."""
    names = set(available)
    for family in (PREFERRED, *SIZES):
        model = resolve(family, language, names, QUANTISED_FIRST)
        if model:
            return model
    return min(names) if names else None


def choose(
    asked: str | None,
    language: str,
    available: Iterable[str],
    default: str | None = None,
    pending: Collection[str] = (),
) -> str | None:
    """Return the model for a job: the requested one, else `default`, else `default_model`; None if not available.

    pending: models that are being installed, which the job waits for if no other suits. The demo model suits only a job
    that names it. Used to validate a submit, to estimate its duration, and by Prepare, which pins the model.
    """
    model = _choose(asked, language, available, default)
    if pending and (model is None or (model.startswith(DEMO) and not (asked or default))):
        return _choose(asked, language, pending, default) or model
    return model


def _choose(asked: str | None, language: str, available: Iterable[str], default: str | None) -> str | None:
    if asked:
        return resolve(asked, language, available)
    return resolve(default, language, available, QUANTISED_FIRST) if default else default_model(language, available)
