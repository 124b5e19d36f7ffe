"""Forms with files, `multipart/form-data` (RFC 7578), into texts and files. Pure: the bytes are here already.

The parser is `python_multipart`; here are its bounds, and what of a form is refused: a text that is given twice, one
that is no UTF-8, a part without a name, an end that is missing. Text fields are then read like those of a JSON body.
"""

from __future__ import annotations

from typing import Final

import msgspec
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from convene.errors import BadRequest

FORM: Final = "multipart/form-data"
PARTS_MAX: Final = 64
TEXT_BYTES_MAX: Final = 128 * 1024
"""Longest text of one field: the longest prompt, four bytes a letter."""
BOUNDARY_BYTES_MAX: Final = 70
"""RFC 2046, 5.1.1."""
CODE: Final = "invalid_form"
_NAME_CHARS: Final = 100


class FormFile(msgspec.Struct, frozen=True):
    """A file of a form. What its sender calls it is not kept: nothing goes by it."""

    name: str
    """Of the field."""
    data: bytes


class Form(msgspec.Struct, frozen=True):
    """A form: its texts by name, and its files in their order."""

    texts: dict[str, str]
    files: tuple[FormFile, ...]


def boundary_of(content_type: str) -> bytes | None:
    """Return what parts the parts of a form with this header; None if it is no form. Raises `BadRequest`."""
    kind, options = parse_options_header(content_type)
    if kind.lower() != FORM.encode():
        return None
    found = options.get(b"boundary", b"")
    if not 0 < len(found) <= BOUNDARY_BYTES_MAX:
        raise BadRequest(f"The content-type {FORM} needs a boundary of at most {BOUNDARY_BYTES_MAX} bytes.", code=CODE)
    return found


def read_form(body: bytes, boundary: bytes) -> Form:
    """Return the form in `body`. Raises `BadRequest`."""
    reader = _Reader()
    parser = MultipartParser(
        boundary,
        {
            "on_part_begin": reader.begin,
            "on_header_field": reader.field,
            "on_header_value": reader.value,
            "on_header_end": reader.header,
            "on_part_data": reader.data,
            "on_part_end": reader.end,
            "on_end": reader.close,
        },
    )
    try:
        parser.write(body)
        parser.finalize()
    except FormParserError as fault:
        raise BadRequest(f"The body is not a form: {str(fault)[:200]}.", code=CODE) from None
    if not reader.closed:
        raise BadRequest("The body is a form that is cut short: its last boundary is missing.", code=CODE)
    return Form(reader.texts, tuple(reader.files))


class _Reader:
    """Takes what the parser tells, one part after the other."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.files: list[FormFile] = []
        self.closed = False
        self._parts = 0
        self._field = self._value = self._disposition = b""
        self._pieces: list[bytes] = []

    def begin(self) -> None:
        """Begin a part."""
        self._parts += 1
        if self._parts > PARTS_MAX:
            raise BadRequest(f"A form may have at most {PARTS_MAX} parts.", code=CODE)
        self._field = self._value = self._disposition = b""
        self._pieces = []

    def field(self, data: bytes, start: int, end: int) -> None:
        """Take a piece of the name of a header."""
        self._field += data[start:end]

    def value(self, data: bytes, start: int, end: int) -> None:
        """Take a piece of what a header says."""
        self._value += data[start:end]

    def header(self) -> None:
        """End a header."""
        if self._field.lower() == b"content-disposition":
            self._disposition = self._value
        self._field = self._value = b""

    def data(self, data: bytes, start: int, end: int) -> None:
        """Take a piece of what the part holds."""
        self._pieces.append(data[start:end])

    def end(self) -> None:
        """End a part."""
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if not name:
            raise BadRequest("A part of the form has no name.", code=CODE)
        shown = name[:_NAME_CHARS]
        whole = b"".join(self._pieces)
        if b"filename" in options:
            self.files.append(FormFile(name, whole))
            return
        if name in self.texts:
            raise BadRequest(f"'{shown}' is given twice.", param=shown)
        if len(whole) > TEXT_BYTES_MAX:
            raise BadRequest(f"'{shown}' is longer than {TEXT_BYTES_MAX} bytes.", param=shown)
        try:
            self.texts[name] = whole.decode()
        except UnicodeDecodeError:
            raise BadRequest(f"'{shown}' is not UTF-8.", param=shown) from None

    def close(self) -> None:
        """Take note of the last boundary."""
        self.closed = True
