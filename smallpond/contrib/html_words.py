"""The words of web pages."""

from __future__ import annotations

import codecs
import contextlib
import functools
import re
import string
import sys
import unicodedata

_UNSEEN = ("script", "style", "noscript", "template", "svg", "head")
# What may stand within a word; everything else begins another.
_INLINE = {
    *("a", "abbr", "b", "bdi", "bdo", "cite", "code", "data", "del", "em", "font", "i", "ins"),
    *("kbd", "mark", "q", "s", "samp", "small", "span", "strong", "sub", "sup", "time", "u"),
    *("var", "wbr"),
}
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CHARSET = re.compile(
    rb"""<(?:meta|\?xml)[^>]*?(?:charset|encoding)\s*=\s*["']?\s*([\w.:-]+)""", re.IGNORECASE
)
# Browsers take these names for larger sets, and UTF-16 for a mistake where the name can be read.
_MEANT = {
    **dict.fromkeys(("gb2312", "gbk"), "gb18030"),
    **dict.fromkeys(("iso-8859-1", "latin1", "ascii", "us-ascii"), "cp1252"),
    **dict.fromkeys(("shift_jis", "shift-jis", "x-sjis"), "cp932"),
    **dict.fromkeys(("euc-kr", "ks_c_5601-1987"), "cp949"),
    **dict.fromkeys(("utf-16", "utf-16le", "utf-16be"), "utf-8"),
}
_HEAD_BYTES = 1024  # where HTML says that a page has to name its encoding


def body_words(page: bytes) -> list[str]:
    """The words that a reader of a page sees, in order.

    Args:
        page: HTML in any encoding; of anything else, such as an image, there are no words.
    """
    import lxml.etree  # noqa: PLC0415 (of an extra)
    import lxml.html  # noqa: PLC0415

    text = decoded(page)
    if not text.strip() or "\0" in text:
        return []
    parser = lxml.html.HTMLParser(encoding="utf-8", huge_tree=True, remove_comments=True)
    try:
        root = lxml.html.document_fromstring(text.encode("utf-8", "replace"), parser=parser)
    except lxml.etree.ParserError:  # nothing but comments
        return []
    body = root.find("body")
    if body is None:
        return []
    lxml.etree.strip_elements(
        body, *_UNSEEN, lxml.etree.Comment, lxml.etree.ProcessingInstruction, with_tail=False
    )
    for element in body.iter():
        if element.tag not in _INLINE:
            element.text = f" {element.text or ''}"
            element.tail = f" {element.tail or ''}"
    return [word for word in _separators().split("".join(body.itertext())) if word]


def decoded(page: bytes) -> str:
    """A page as text: by its mark, or the encoding that it names, or as UTF-8, or Windows-1252."""
    for mark, encoding in _MARKS:
        if page.startswith(mark):
            return page.decode(encoding, "replace")
    named = _CHARSET.search(page[:_HEAD_BYTES])
    if named is not None:
        name = named[1].decode("ascii", "replace").lower()
        with contextlib.suppress(LookupError, UnicodeError):  # no encoding that anybody knows
            return page.decode(_MEANT.get(name, name), "replace")
    try:
        return page.decode("utf-8")
    except UnicodeDecodeError:
        return page.decode("cp1252", "replace")


@functools.cache
def _separators() -> re.Pattern[str]:
    """Blanks and punctuation of all scripts; letters keep the marks that belong to them."""
    signs = [chr(i) for i in range(sys.maxunicode) if unicodedata.category(chr(i))[0] == "P"]
    return re.compile(f"[\\s{re.escape(string.punctuation + ''.join(signs))}]+")
