"""From raw text and TOML values to typed settings: the machinery under `config.py`, which names the settings.

Here: `Secret`, `ConfigError`, what a declared setting is, and the conversion of one value. Not here: which settings
exist, where values come from and which of them wins (`config.py`), and `os.environ`, which is handed in.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import msgspec

from convene.errors import ConveneError

if TYPE_CHECKING:
    from collections.abc import Callable

_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})
_STARS = "********"


class ConfigError(ConveneError):
    """A setting that cannot be used; the message names the source, the key and the way out."""

    code = "invalid_configuration"


class Secret:
    """A text that is never shown: `repr` and `str` are stars, and encoding it fails (OPS-23, reliability E6)."""

    __slots__ = ("_text",)

    def __init__(self, text: str = "") -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text itself; call it only where the secret leaves for its peer."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __repr__(self) -> str:
        return _STARS if self._text else "''"

    __str__ = __repr__

    def __reduce__(self) -> str:
        """Refuse to be pickled: a dump is a leak."""
        raise TypeError("a Secret is not pickled")


class About(msgspec.Struct, frozen=True):
    """What is declared beside a setting's name, type and default."""

    help: str
    unit: str = ""
    at_least: float | None = None
    at_most: float | None = None
    is_path: bool = False
    """A text that names a file: made absolute, relative to the file (or folder) it was given in."""


class Setting(msgspec.Struct, frozen=True):
    """One declared setting, read from a Struct's field."""

    name: str
    type: object
    about: About

    @property
    def is_secret(self) -> bool:
        """Whether the value, or each value of the table, is a `Secret`."""
        return self.type is Secret or Secret in get_args(self.type)


class Place(msgspec.Struct, frozen=True):
    """Where one raw value was found."""

    source: str
    """For people: `convene.toml`, `environment CONVENE_PORT`, `flag --port`."""
    key: str
    folder: Path
    """What relative paths are relative to."""
    environ: Mapping[str, str]
    """What `env:NAME` looks into."""

    def fault(self, message: str) -> ConfigError:
        """Return an error that says where."""
        return ConfigError(f"{self.source}: {self.key} {message}", param=self.key)


def settings_of(struct: type[msgspec.Struct]) -> dict[str, Setting]:
    """Return the fields of `struct` that are declared with an `About`, in order."""
    found: dict[str, Setting] = {}
    for field in msgspec.structs.fields(struct):
        if get_origin(field.type) is Annotated:
            bare, *extras = get_args(field.type)
            about = next((extra for extra in extras if isinstance(extra, About)), None)
            if about is not None:
                found[field.name] = Setting(field.name, bare, about)
    return found


def convert(setting: Setting, raw: object, place: Place) -> Any:  # noqa: ANN401 -- the type is the setting's own
    """Return `raw` (a TOML value, or text from the environment or a flag) as the setting's type.

    Raises:
        ConfigError: naming the source, the key, what was expected and what was found (never a secret's text).
    """
    optional = _without_none(setting.type)
    if optional is not setting.type and (raw is None or raw in ("", "none")):
        return None
    try:
        value = msgspec.convert(
            _untext(raw, optional), optional, strict=not isinstance(raw, str), dec_hook=_hook(place)
        )
    except (msgspec.ValidationError, ValueError) as error:
        found = "" if setting.is_secret else f", not {_shown(raw)}"
        raise place.fault(f"must be {expected(setting)}{found}") from error
    _check_bounds(setting, value, place)
    if setting.about.is_path and value:
        return str(absolute(value, place))
    return value


def expected(setting: Setting) -> str:
    """Say in words what the setting takes: `a whole number >= 1, in s`."""
    words = _in_words(_without_none(setting.type))
    about = setting.about
    if about.at_least is not None:
        words += f" >= {about.at_least:g}"
    if about.at_most is not None:
        words += (" and" if about.at_least is not None else "") + f" <= {about.at_most:g}"
    return words + (f", in {about.unit}" if about.unit else "")


def absolute(text: str, place: Place) -> Path:
    """Return the absolute path of `text`, with `~` meaning the home folder of the given environment."""
    if text == "~" or text.startswith(("~/", "~\\")):
        home = place.environ.get("HOME") or place.environ.get("USERPROFILE")
        if not home:
            raise place.fault("starts with ~, but HOME is not set; write the whole path")
        text = home + text[1:]
    return place.folder / text


def _without_none(kind: object) -> Any:  # noqa: ANN401 -- a type expression, for msgspec
    """Return X for `X | None`, else `kind` itself."""
    if get_origin(kind) in (Union, UnionType) and NoneType in get_args(kind):
        return next(part for part in get_args(kind) if part is not NoneType)
    return kind


def _untext(raw: object, kind: object) -> object:
    """Return text as the value it spells for kinds that a text spells in our own way, anything else unchanged."""
    if not isinstance(raw, str):
        return raw
    if kind is bool:
        word = raw.strip().lower()
        return True if word in _TRUE else False if word in _FALSE else raw
    if get_origin(kind) is tuple:
        return [part.strip() for part in raw.split(",") if part.strip()]
    if get_origin(kind) is dict:
        return json.loads(raw)
    return raw


def _hook(place: Place) -> Callable[[type, object], object]:
    def read(kind: type, raw: object) -> object:
        if not isinstance(raw, str):
            raise msgspec.ValidationError("Expected `str`")
        return _secret(raw, place) if kind is Secret else absolute(raw, place)

    return read


def _secret(raw: str, place: Place) -> Secret:
    """Return the secret that `raw` is, or points to with `env:NAME` or `file:PATH` (OPS-23)."""
    if raw.startswith("env:"):
        name = raw.removeprefix("env:")
        if not place.environ.get(name):
            raise place.fault(f"names the environment variable {name}, which is not set; set it, or use file:PATH")
        return Secret(place.environ[name])
    if raw.startswith("file:"):
        path = absolute(raw.removeprefix("file:"), place)
        try:
            return Secret(path.read_text(encoding="utf-8").rstrip("\r\n"))
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise place.fault(f"names the file {path}, which cannot be read ({reason})") from error
    return Secret(raw)


def _check_bounds(setting: Setting, value: object, place: Place) -> None:
    about = setting.about
    numbers = value if isinstance(value, tuple) else (value,)
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            continue
        low = about.at_least is not None and not number >= about.at_least
        high = about.at_most is not None and not number <= about.at_most
        if low or high or number != number or abs(number) == float("inf"):  # noqa: PLR0124 -- NaN is unlike itself
            raise place.fault(f"must be {expected(setting)}, not {number}")


def _in_words(kind: object) -> str:
    origin, args = get_origin(kind), get_args(kind)
    if origin is Literal:
        return "one of " + ", ".join(json.dumps(word) for word in args)
    if origin is tuple:
        return "a list of whole numbers" if args[0] is int else "a list of texts"
    if origin is dict:
        return "a table of texts"
    names: dict[object, str] = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        Path: "a path",
        Secret: "a secret text, env:NAME or file:PATH",
    }
    return names.get(kind, "a text")


def _shown(raw: object) -> str:
    text = json.dumps(raw, default=str)
    return text if len(text) <= 60 else text[:57] + "..."  # noqa: PLR2004 -- the width of one remark
