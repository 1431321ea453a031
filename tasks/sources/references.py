"""References in the values of XML attributes, such as `&amp;` and `&#xA;`, and the characters that they stand for."""

import re
from typing import Final

REFERENCE: Final = re.compile(rb"&(?:#x([0-9a-fA-F]+)|#([0-9]+)|lt|gt|amp|quot|apos);")
USUAL: Final = {
    "&lt;": "<", "&gt;": ">", "&amp;": "&", "&quot;": '"', "&apos;": "'", "&#xA;": "\n", "&#xD;": "\r", "&#x9;": "\t",
}  # fmt: skip
"""How dumps write them: those that are looked for all at once."""


def is_character(reference: re.Match[bytes]) -> bool:
    """Whether a reference is to a character that XML has."""
    hexadecimal, decimal = reference.groups()
    if hexadecimal is None and decimal is None:
        return True
    digits = (hexadecimal or decimal).lstrip(b"0")
    if len(digits) > 7:  # 0x10FFFF has six digits, 1114111 seven
        return False
    code = int(digits or b"0", 16 if hexadecimal else 10)
    return code in (0x9, 0xA, 0xD) or 0x20 <= code <= 0xD7FF or 0xE000 <= code <= 0xFFFD or 0x10000 <= code <= 0x10FFFF


def resolved(value: bytes) -> str:
    """An attribute's value as a parser would give it; every reference in it must be one to a character of XML."""

    def character(found: re.Match[bytes]) -> bytes:
        hexadecimal, decimal = found.groups()
        if hexadecimal is None and decimal is None:
            return USUAL[found[0].decode()].encode()
        digits = (hexadecimal or decimal).lstrip(b"0")  # Python refuses to read thousands of them
        return chr(int(digits, 16 if hexadecimal else 10)).encode()

    return REFERENCE.sub(character, re.sub(rb"\r\n|[\t\r\n]", b" ", value)).decode()
