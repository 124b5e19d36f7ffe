"""Pages for the tests of reading: an article between margins, PDFs made by hand, and pages that mean harm."""

from __future__ import annotations

import io
from typing import Final

import pypdf

PARAGRAPH: Final = (
    "The lighthouse of Vell was lit in 1871 and has been tended ever since by one family of keepers. " * 4
)

ARTICLE: Final = f"""<!doctype html>
<html><head><title>  The Light of
 Vell </title><style>p {{ color: red }}</style><script>track("everything")</script></head>
<body>
<a class="skip-link" href="#main">Skip to content</a>
<header><a href="/">Home</a> <img src="logo.png" alt="Logo"></header>
<nav><ul><li><a href="/news">News</a></li><li><a href="/shop">Shop</a></li></ul></nav>
<div id="cookie-consent">We value your privacy.</div>
<main>
<h1>The Light of Vell</h1>
<p>{PARAGRAPH}</p>
<p>See <a href="/history?x=1&amp;y=2#top">its history</a>, the <a href="https://en.example/wiki/Vell_(town)">town</a>,
a <a href="javascript:alert(1)">script</a>, <a href="mailto:a@b.example">a mail</a> and <a href="#note">a note</a>.</p>
<h2>Keepers</h2>
<ul><li>Ada, 1871</li><li>Bo, <b>1899</b></li></ul>
<pre><code>light.on(<a href="/doc">1871</a>)
light.off()</code></pre>
<table><tr><th>Year</th><th>Ships</th></tr><tr><td>1871</td><td>12</td></tr></table>
<p style="display: none">hidden words</p><p hidden>more hidden words</p><span aria-hidden="true">icon</span>
<!-- a comment --><p>After&nbsp;the comment.</p>
<div class="share">Share this on everything</div>
</main>
<aside><h3>Related</h3><a href="/other">Other</a></aside>
<footer>Imprint <a href="/imprint">here</a></footer>
</body></html>"""


def pdf(pages: list[str], title: str = "") -> bytes:
    """Return a PDF with one line of text a page, ASCII without brackets."""
    count = len(pages)
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(count))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {count} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for number, text in enumerate(pages):
        stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET" if text else ""
        font = "/Resources << /Font << /F1 3 0 R >> >> /MediaBox [0 0 612 792]"
        objects.append(f"<< /Type /Page /Parent 2 0 R {font} /Contents {5 + 2 * number} 0 R >>")
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    objects.append(f"<< /Title ({title}) >>")
    out = b"%PDF-1.4\n"
    places: list[int] = []
    for number, body in enumerate(objects, start=1):
        places.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n".encode("latin-1")
    start = len(out)
    out += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
    out += b"".join(f"{place:010} 00000 n \n".encode() for place in places)
    out += f"trailer << /Size {len(objects) + 1} /Root 1 0 R /Info {len(objects)} 0 R >>\n".encode()
    return out + f"startxref\n{start}\n%%EOF\n".encode()


def locked_pdf() -> bytes:
    """Return a PDF that wants a password."""
    writer = pypdf.PdfWriter(clone_from=io.BytesIO(pdf(["secret"])))
    writer.encrypt("a password", algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


HARMFUL: Final = {
    "deep": b"<div>" * 100_000 + b"x",
    "deeper inline": b"<b>" * 50_000 + b"x",
    "wide": b"<p>a <a href=/x>b</a></p>" * 20_000,
    "unclosed": b"<" * 300_000,
    "one long link": b'<a href="' + b"x" * 500_000,
    "tables in tables": b"<table><tr><td>" * 5_000 + b"x",
    "lists in lists": b"<ul><li>" * 5_000 + b"x",
    "nothing but marks": b"\xff\xfe" * 1000,
    "nulls": b"\0" * 100_000,
    "broken entities": b"&#x110000;&#0;&nosuch;&" * 5_000,
    "surrogates": b"&#xd800;&#xdfff;" * 1_000,
}
