"""What the body of an answer is: pure, and apart from `page_text`, whose libraries only the child loads."""

from __future__ import annotations

import re
from typing import Final, Literal

Kind = Literal["html", "pdf", "text", "other"]

_SNIFFED_BYTES: Final = 1024


def kind_of(content_type: str, start: bytes) -> Kind:
    """Return what a body is, by its declared type, and by its first bytes where that says nothing."""
    media = content_type.partition(";")[0].strip().lower()
    if start.startswith(b"%PDF-"):
        return "pdf"
    if media in {"text/html", "application/xhtml+xml"}:
        return "html"
    if media == "application/pdf":
        return "pdf"
    if media.startswith("text/") or media.endswith(("+json", "+xml")):
        return "text"
    if media in {"application/json", "application/xml", "application/javascript", "application/x-ndjson"}:
        return "text"
    if media not in {"", "application/octet-stream", "binary/octet-stream", "application/unknown"}:
        return "other"
    if re.match(rb"\s*(<!doctype html|<html|<head|<body)", start[:_SNIFFED_BYTES], re.IGNORECASE):
        return "html"
    return "other" if b"\0" in start[:_SNIFFED_BYTES] or not start else "text"
