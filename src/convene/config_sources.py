"""Where settings are found: the TOML file, the environment with `.env`, and flags; every raw value with its place.

Here: reading and naming (which variable means which key), unknown keys refused with the nearest known one. Not here:
which settings exist (a `Schema` is handed in), their types (`config_values.py`) and which source wins (`config.py`).
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from typing import TYPE_CHECKING, Any

import msgspec

from convene.config_values import ConfigError, Place, Setting, settings_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

Key = tuple[str, ...]
"""A key as its parts: `("models", "gpt-4.1", "context_window")`."""

_NOT_SETTINGS = frozenset({"CONVENE_CONFIG", "CONVENE_API_KEY", "CONVENE_BASE_URL", "CONVENE_MODEL"})
"""Read by `load` itself or by clients (`client_settings`)."""
_DOTENV_LINE = re.compile(
    r"""\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(?:'([^']*)'|"((?:[^"\\]|\\.)*)"|(.*?))\s*"""
)


class Given(msgspec.Struct, frozen=True):
    """One raw value and where it was found."""

    setting: Setting
    raw: object
    place: Place


class Schema(msgspec.Struct, frozen=True):
    """Which settings exist: the Structs that declare them."""

    top: type[msgspec.Struct]
    sections: dict[str, type[msgspec.Struct]]
    """By name; a section within a section has both names: `search.brave`."""
    tables: dict[str, type[msgspec.Struct]]
    """Sections with one entry per name: `[upstreams.NAME]`."""

    def setting_at(self, key: Key) -> Setting | None:
        """Return the declared setting at `key`, or None."""
        match key:
            case (name,):
                return settings_of(self.top).get(name)
            case (*section, name) if ".".join(section) in self.sections:
                return settings_of(self.sections[".".join(section)]).get(name)
            case (table, _, name) if table in self.tables:
                return settings_of(self.tables[table]).get(name)
            case _:
                return None

    def unknown(self, source: str, key: Key) -> ConfigError:
        """Return the error for a key that names no setting, with the nearest one that exists."""
        known = [spell((name,)) for name in settings_of(self.top)]
        known += [f"{section}.{name}" for section, struct in self.sections.items() for name in settings_of(struct)]
        known += [*self.sections, *self.tables]
        if key[0] in self.tables and len(key) > 1:
            known += [spell((*key[:2], name)) for name in settings_of(self.tables[key[0]])]
        others = [one for one in known if one != spell(key)]
        near = difflib.get_close_matches(spell(key), others, n=1, cutoff=0.6)
        hint = f"did you mean {near[0]}?" if near else "`convene check-config` lists every key."
        return ConfigError(f"{source}: unknown key {spell(key)}; {hint}", param=spell(key))

    def depth(self, key: Key) -> int:
        """Return how many parts the keys have that begin with `key`, which has at least one."""
        if key[0] in self.tables:
            return 3
        inner = next((length for length in (2, 1) if ".".join(key[:length]) in self.sections), 0)
        return inner + 1


def spell(key: Key) -> str:
    """Return a key as TOML spells it: `edge.ping_s`, `models."gpt-4.1".tools`."""
    return ".".join(part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else json.dumps(part) for part in key)


def read_dotenv(path: Path) -> dict[str, str]:
    """Return the variables of a `.env` file (NAME=value, export, quotes, # comments); {} if there is none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from error
    found: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _DOTENV_LINE.fullmatch(_without_comment(line))
        if match is None:
            raise ConfigError(f"{path}, line {number}: expected NAME=value")
        name, single, double, plain = match.groups()
        if double is not None:
            double = re.sub(r"\\(.)", lambda found: {"n": "\n", "t": "\t"}.get(found[1], found[1]), double)
        found[name] = next(text for text in (single, double, plain) if text is not None)
    return found


def file_path(flag: str, variable: str, cwd: Path) -> Path | None:
    """Return the settings file: the one a flag or CONVENE_CONFIG names, else `./convene.toml` if there is one."""
    for source, text in (("flag --config", flag), ("environment CONVENE_CONFIG", variable)):
        if text:
            path = cwd / text
            if not path.is_file():
                raise ConfigError(f"{source}: there is no file {path}")
            return path
    path = cwd / "convene.toml"
    return path if path.is_file() else None


def from_file(path: Path, schema: Schema, env: Mapping[str, str]) -> dict[Key, Given]:
    """Return every value of the settings file. Raises `ConfigError` for bad TOML and unknown keys."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    found: dict[Key, Given] = {}
    for key, raw in _leaves((), document, schema, str(path)):
        setting = schema.setting_at(key)
        if setting is None:
            raise schema.unknown(str(path), key)
        found[key] = Given(setting, raw, Place(str(path), spell(key), path.parent, env))
    return found


def from_environment(
    env: Mapping[str, str], sources: Mapping[str, str], schema: Schema, entries: set[Key], cwd: Path
) -> tuple[dict[Key, Given], tuple[str, ...]]:
    """Return what the environment sets, and a notice for each CONVENE_ variable that sets nothing.

    Args:
        env: all variables, those of `.env` included.
        sources: variable to `environment` or `.env`.
        schema: which settings exist.
        entries: the tables the file has (`("upstreams", "my-host")`), to find them again from `MY_HOST`.
        cwd: what relative paths are relative to.
    """
    found: dict[Key, Given] = {}
    notices: list[str] = []
    port = schema.setting_at(("port",))
    if env.get("PORT") and port:  # the name that hosting platforms use
        found["port",] = Given(port, env["PORT"], Place(f"{sources['PORT']} PORT", "port", cwd, env))
    for variable in sorted(name for name in env if name.startswith("CONVENE_") and name not in _NOT_SETTINGS):
        # Kubernetes describes a service called "convene" in variables such as CONVENE_PORT=tcp://10.0.0.1:8000.
        if variable == "CONVENE_PORT" and env[variable].startswith("tcp://"):
            continue
        key, raw = _key_of_variable(variable, schema, entries), env[variable]
        setting = schema.setting_at(key)
        if setting is None and variable.endswith("_FILE"):
            key, raw = _key_of_variable(variable.removesuffix("_FILE"), schema, entries), f"file:{raw}"
            setting = schema.setting_at(key)
            setting = setting if setting and setting.is_secret else None
        if setting is None:
            notices.append(f"{sources[variable]} {variable} names no setting and was ignored")
        else:
            found[key] = Given(setting, raw, Place(f"{sources[variable]} {variable}", spell(key), cwd, env))
    return found, tuple(notices)


def from_flags(overrides: Mapping[str, str], schema: Schema, env: Mapping[str, str], cwd: Path) -> dict[Key, Given]:
    """Return what flags set; `overrides` maps keys as TOML spells them to text."""
    found: dict[Key, Given] = {}
    for text, raw in overrides.items():
        source = f"flag --{text.replace('_', '-')}" if schema.setting_at((text,)) else f"flag --set {text}"
        key = _parse_key(text, source)
        setting = schema.setting_at(key)
        if setting is None:
            raise schema.unknown(source, key)
        found[key] = Given(setting, raw, Place(source, spell(key), cwd, env))
    return found


def _without_comment(line: str) -> str:
    """Return a `.env` line without a trailing ` # comment`; a # inside quotes stays."""
    value = line.partition("=")[2].lstrip()
    if value[:1] in ("'", '"'):
        return re.sub(r"""(=\s*(?:'[^']*'|"(?:[^"\\]|\\.)*"))\s+#.*$""", r"\1", line)
    return re.sub(r"\s#.*$", "", line)


def _leaves(key: Key, value: object, schema: Schema, source: str) -> Iterator[tuple[Key, object]]:
    """Yield every value of a TOML document with its key; tables that are values themselves stay whole."""
    depth = schema.depth(key) if key else 3
    if len(key) == depth:
        yield key, value
    elif isinstance(value, dict) and (value or not key):
        for name, inner in value.items():
            yield from _leaves((*key, name), inner, schema, source)
    elif not isinstance(value, dict):
        raise ConfigError(f"{source}: {spell(key)} must be a table, as in [{spell(key)}]", param=spell(key))
    elif len(key) == 2 and key[0] in schema.tables:  # noqa: PLR2004 -- [upstreams.x], where nothing said is a slip
        raise ConfigError(f"{source}: [{spell(key)}] is empty", param=spell(key))


def _key_of_variable(variable: str, schema: Schema, entries: set[Key]) -> Key:
    """Return the key that CONVENE_SECTION_FIELD or CONVENE_UPSTREAMS_NAME_FIELD means; () for none."""
    word = variable.removeprefix("CONVENE_").lower()
    if schema.setting_at((word,)):
        return (word,)
    section, _, field = word.partition("_")
    if section in schema.sections:
        inner, _, rest = field.partition("_")
        return (section, inner, rest) if f"{section}.{inner}" in schema.sections else (section, field)
    for name in sorted(settings_of(schema.tables[section]), key=len, reverse=True) if section in schema.tables else ():
        entry = field.removesuffix(f"_{name}")
        if entry not in ("", field):
            in_file = (key[1] for key in entries if key[0] == section and _as_variable(key[1]) == entry)
            return (section, next(in_file, entry), name)
    return ()


def _as_variable(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "_", name.lower())


def _parse_key(text: str, source: str) -> Key:
    """Return the parts of a key as TOML spells it. Raises `ConfigError`."""
    try:
        node: Any = tomllib.loads(f"{text} = 0")
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source}: {text!r} is not a key such as edge.ping_s", param=text) from error
    parts: list[str] = []
    while isinstance(node, dict):
        if len(node) != 1:
            raise ConfigError(f"{source}: {text!r} is not a key such as edge.ping_s", param=text)
        [(name, node)] = node.items()
        parts.append(name)
    return tuple(parts)
