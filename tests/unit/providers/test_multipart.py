"""Forms with files, read back by the standard library's own reader of MIME."""

from __future__ import annotations

from email import message_from_bytes
from email.message import Message

from hypothesis import given
from hypothesis import strategies as st

from convene.providers.base_images import SourceImage
from convene.providers.multipart import encode_multipart

BOUNDARY = "0123456789abcdef0123456789abcdef"
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=40)


def parts_of(body: bytes) -> list[Message]:
    """Return the parts of a form."""
    head = f"content-type: multipart/form-data; boundary={BOUNDARY}\r\n\r\n".encode()
    parts = message_from_bytes(head + body).get_payload()
    assert isinstance(parts, list)
    return [part for part in parts if isinstance(part, Message)]


def content(part: Message) -> bytes:
    found = part.get_payload(decode=True)
    assert isinstance(found, bytes)
    return found


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,12}", fullmatch=True), TEXT, max_size=4), st.binary(max_size=200))
def test_fields_and_files_come_back_as_they_were(fields: dict[str, str], data: bytes) -> None:
    parts = parts_of(encode_multipart(BOUNDARY, fields, [("image", SourceImage(data, "image/png"))]))
    *told, file = parts
    assert {
        str(part.get_param("name", header="content-disposition")): content(part).decode() for part in told
    } == fields
    assert content(file) == data or content(file) == data.replace(b"\r\n", b"\n")
    assert (file.get_content_type(), file.get_filename()) == ("image/png", "0.png")


def test_an_unknown_kind_of_file_has_a_name_all_the_same() -> None:
    [file] = parts_of(encode_multipart(BOUNDARY, {}, [("image", SourceImage(b"x", "image/bmp"))]))
    assert file.get_filename() == "0.bin"


def test_a_name_cannot_end_the_header_that_it_stands_in() -> None:
    body = encode_multipart(BOUNDARY, {'a"\r\nx-evil: 1': "v"}, [])
    assert b"\r\nx-evil" not in body
    assert b'name="a%22%0D%0Ax-evil: 1"' in body


def test_a_form_ends_with_its_last_boundary() -> None:
    assert encode_multipart(BOUNDARY, {}, []) == f"--{BOUNDARY}--\r\n".encode()
