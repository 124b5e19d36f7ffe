"""Forms with files: texts and files come out as they went in, bounds hold, and what is no form is refused."""

from __future__ import annotations

import contextlib
from io import BytesIO

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convene.api.form_body import PARTS_MAX, TEXT_BYTES_MAX, FormFile, boundary_of, read_form
from convene.errors import BadRequest

MARK = b"mark"


def part(disposition: str, data: bytes, *more: str) -> bytes:
    lines = [f"Content-Disposition: form-data; {disposition}", *more]
    return b"\r\n".join([b"--" + MARK, *(line.encode() for line in lines), b"", data, b""])


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--" + MARK + b"--\r\n"


def test_texts_and_files_are_told_apart_and_kept_in_order() -> None:
    found = read_form(
        form(
            part('name="prompt"', "ein Füchslein\r\nim Schnee".encode()),
            part('name="image[]"; filename="a.png"', b"\x89PNG\r\n--mar", "Content-Type: image/png"),
            part('name="image[]"; filename=""', b""),
            part("name=n", b"2"),
        ),
        MARK,
    )
    assert found.texts == {"prompt": "ein Füchslein\r\nim Schnee", "n": "2"}
    assert found.files == (FormFile("image[]", b"\x89PNG\r\n--mar"), FormFile("image[]", b""))


@given(
    st.dictionaries(st.from_regex(r"\A[a-z\[\]_]{1,20}\Z"), st.text(max_size=50), max_size=5),
    st.lists(st.binary(max_size=300), max_size=4),
)
def test_what_a_real_client_writes_comes_out_as_it_went_in(texts: dict[str, str], files: list[bytes]) -> None:
    sent = [("image", ("a.png", BytesIO(data), "image/png")) for data in files]
    always = ("mask", ("m.png", BytesIO(b"m"), "image/png"))  # without a file it would not be a form with files
    request = httpx2.Request("POST", "http://x", data=texts, files=[*sent, always])
    boundary = boundary_of(request.headers["content-type"])
    assert boundary is not None
    found = read_form(request.read(), boundary)
    assert found.texts == texts
    assert [file.data for file in found.files] == [*files, b"m"]


@given(st.binary(max_size=400))
def test_no_bytes_break_it(body: bytes) -> None:
    for whole in (body, b"--mark\r\n" + body, form(part('name="a"', body)), form(part('name="a"', b"x"))[: len(body)]):
        with contextlib.suppress(BadRequest):
            read_form(whole, MARK)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "cut short"),
        (b"--mark", "cut short"),
        (form(part('name="a"', b"1"))[:-9], "cut short"),
        (b'{"prompt": "a fox"}', "not a form"),
        (form(b"--mark\r\nContent-Type: text/plain\r\n\r\nx\r\n"), "no name"),
        (form(part('name=""', b"x")), "no name"),
        (form(part('name="a"', b"1"), part('name="a"', b"2")), "'a' is given twice"),
        (form(part('name="a"', b"\xff")), "'a' is not UTF-8"),
        (form(part('name="a"', b"x" * (TEXT_BYTES_MAX + 1))), "'a' is longer"),
        (form(*(part(f'name="a{at}"', b"x") for at in range(PARTS_MAX + 1))), "at most 64 parts"),
        (form(part('name="a"', b"1", *("X-More: y",) * 20)), "not a form"),
        (form(part('name="' + "a" * 9000 + '"', b"1")), "not a form"),
    ],
)
def test_what_is_no_form_says_why(body: bytes, words: str) -> None:
    with pytest.raises(BadRequest, match=words) as caught:
        read_form(body, MARK)
    assert len(caught.value.message) < 400


def test_a_boundary_is_read_from_the_header_and_bounded() -> None:
    assert boundary_of('multipart/form-data; boundary="a b"') == b"a b"
    assert boundary_of("Multipart/Form-Data; charset=utf-8; boundary=x") == b"x"
    assert boundary_of("application/json") is None
    assert boundary_of("") is None
    for broken in (
        "multipart/form-data",
        "multipart/form-data; boundary=",
        f"multipart/form-data; boundary={'x' * 71}",
    ):
        with pytest.raises(BadRequest, match="boundary"):
            boundary_of(broken)
