"""A process of its own: a PDF on standard input, its title and the text of its pages on standard output as JSON.

Run by path, with nothing of `rag` imported, so that it starts quickly. What it can't read it tells as
`error`, in the words for the user. Its argument is the processor time that it may take, in seconds.
"""

from __future__ import annotations

import json
import resource
import sys

MAX_MEMORY = 1024**3
"""Bytes of address space."""

MAX_PAGES = 5_000
MAX_CHARS = 32 * 1024 * 1024
"""Of all pages together: a bomb of drawn text, or a library in one file."""


def extract(content: bytes) -> dict[str, object]:
    try:
        import pypdfium2
    except ImportError:
        return {"error": "reading PDF needs pypdfium2. Install it with: pip install pypdfium2"}
    from pypdfium2 import raw

    try:
        document = pypdfium2.PdfDocument(content)
    except pypdfium2.PdfiumError as error:
        if getattr(error, "err_code", None) == raw.FPDF_ERR_PASSWORD:
            return {"error": "an encrypted PDF. Save it without its password."}
        return {"error": f"a damaged PDF, or none ({error}). Fetch it again."}
    if len(document) > MAX_PAGES:
        return {"error": f"a PDF of {len(document):,} pages, at most {MAX_PAGES:,} are read. Split it."}
    pages: list[str] = []
    chars = 0
    for number in range(len(document)):
        try:
            page = document[number]
            text = page.get_textpage().get_text_bounded()
            page.close()
        except pypdfium2.PdfiumError as error:
            return {"error": f"page {number + 1} of the PDF is damaged ({error}). Fetch it again."}
        chars += len(text)
        if chars > MAX_CHARS:
            return {"error": f"a PDF of more than {MAX_CHARS >> 20} million characters. Split it."}
        pages.append(text.encode("utf-8", "replace").decode())  # half a surrogate pair
    return {"title": document.get_metadata_value("Title"), "pages": pages}


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    seconds = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))  # the signal of the first kills as well
    sys.stdout.write(json.dumps(extract(sys.stdin.buffer.read())))
