"""Arguments of the known whisper command lines, in the form that typer parses."""

from __future__ import annotations

from collections.abc import Sequence

SWITCHES = frozenset({"word-timestamps", "recursive", "overwrite", "detach", "json", "keep"})
"""Options without a value, after which other command lines write True or False."""
IGNORED = frozenset(
    {
        *("batch-size", "batched", "beam-size", "best-of", "compression-ratio-threshold", "compute-type"),
        *("condition-on-previous-text", "device", "device-index", "fp16", "length-penalty", "logprob-threshold"),
        *("model-dir", "no-speech-threshold", "patience", "suppress-tokens", "temperature-increment-on-fallback"),
        *("threads", "vad-filter", "verbose"),
    }
)
"""Options of other command lines that choose what the service chooses by itself. Each has one value."""
_TRUE, _FALSE = ("true", "1"), ("false", "0")


def normalise(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the arguments with hyphens in the names of options, and the names of those that have no effect.

    `--word_timestamps True` becomes `--word-timestamps`, and with `False` it is left out. Words after `--` are kept.
    """
    result: list[str] = []
    ignored: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if word == "--":
            return [*result, word, *rest], ignored
        if not word.startswith("--"):
            result.append(word)
            continue
        name, equals, value = word[2:].partition("=")
        name = name.replace("_", "-")
        if name in IGNORED:
            ignored.append(name)
            if not equals and rest and not rest[0].startswith("--"):
                rest.pop(0)
        elif name in SWITCHES and (equals or (rest and rest[0].lower() in (*_TRUE, *_FALSE))):
            chosen = (value if equals else rest.pop(0)).lower()
            result += [] if chosen in _FALSE else [f"--{name}"]
        else:
            result.append(f"--{name}{equals}{value}")
    return result, ignored
