"""Personal data in texts -> placeholders: e-mail addresses, phone numbers, IP addresses (`pair.mask_personal`).

Code is masked like prose: most of what leaks stands in logs and configurations. What is reserved for examples or for
nobody in particular stays, since masking it would only spoil code: addresses of example.com and its like (RFC 2606,
6761), private, loopback, link-local and documentation networks (`ipaddress.is_global`), git@HOST, and the public
resolvers 1.1.1.1 and 8.8.8.8, and images such as icon@2x.png. A text that merely looks like it stays, too:

    IPv4   four single digits (1.2.3.4 is mostly a version); after a word such as "version", v, / or >=, or grown
           together with letters, digits or further dots: 91.0.4472.124, v10.20.30.40, Chrome/99.10.20.30, 1.3.6.1.4.1
    IPv6   only in the network that is given out (2000::/3), in full or with one ::, so neither times nor a::b
    phone  +CC and 8 to 15 digits in groups, or in the form of North America: (212) 736-5000, 212-736-5000. Other
           national forms cannot be told from other numbers and stay; so do numbers for films (555-01xx)

Each pattern takes time in proportion to the text.
"""

import ipaddress
import re
from typing import Final

import polars as pl

PLACEHOLDERS: Final = {"email": "EMAIL_ADDRESS", "phone": "PHONE_NUMBER", "ip": "IP_ADDRESS"}
"""By kind. Plain words: they are no markup in Markdown, and no program takes them for an address."""

_EMAIL: Final = re.compile(
    r"(?<![\w.+%-])(?P<name>[A-Za-z0-9_%+-]{1,64}+(?:\.[A-Za-z0-9_%+-]{1,64}+){0,8}+)@"
    r"(?P<host>(?:[A-Za-z0-9][A-Za-z0-9-]{0,62}+\.){1,8}[A-Za-z]{2,24})(?![\w@-])"
)
_IPV4: Final = re.compile(r"(?<![\w.:+-])(?<![\w.~)}$-]/)(?:\d{1,3}\.){3}\d{1,3}(?!\.?[\w]|[-+]\w)(?:(?=:\d)|(?![:@]))")
_IPV6: Final = re.compile(r"(?<![\w:.])[23][0-9A-Fa-f]{3}:(?:[0-9A-Fa-f]{0,4}:){1,6}[0-9A-Fa-f]{0,4}(?![\w:])")
_PHONE: Final = re.compile(
    r"(?<![\w.,/=+-])(?<!\w\()(?:\+1[ .-]?\(?[2-9]\d\d\)?[ .-]?[2-9]\d\d[ .-]?\d{4}"
    r"|\+[1-9]\d{0,2}(?:[ .-]?\(\d{1,4}\))?(?:[ .-]?\d{1,4}){2,6}"
    r"|(?:1[ .-])?(?:\([2-9]\d\d\) ?|[2-9]\d\d[-.])[2-9]\d\d[-. ]\d{4})(?![\w/=+]|[-.,]\d)"
)
_VERSION: Final = re.compile(
    r"(?:version|ver|release|build|revision|firmware|section|chapter|v)[\s:=.\"']*\Z|[<>~=^!]=\s*\Z", re.I
)
_NOBODY: Final = frozenset({"1.1.1.1", "1.0.0.1", "8.8.8.8", "8.8.4.4"})
_RESERVED: Final = re.compile(r"(?:.*\.)?(?:example\.(?:com|net|org)|example|test|invalid|localhost|local)\Z", re.I)
_SCALED: Final = re.compile(r"[1-9]x\.[a-z]+", re.I)  # icon@2x.png, the same image for a finer screen
# A text without it has nothing to mask.
_MAYBE: Final = r"@|\d\.\d{1,3}\.\d|\+\d|\d{3}\)?[-. ]?\d{3}|[23][0-9A-Fa-f]{3}:"


def masked_pairs(pairs: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """`pairs` with placeholders in prompt, chosen and rejected; and how many of each kind each pair has got.

    The second frame has a column for each of PLACEHOLDERS, one row a pair.
    """
    sides = ("prompt", "chosen", "rejected")
    texts = pl.concat(pairs[side] for side in sides).unique()
    found = [(text, *mask(text)) for text in texts.filter(texts.str.contains(_MAYBE))]
    changed = pl.DataFrame(
        [(text, new, *tally.values()) for text, new, tally in found if any(tally.values())],
        schema={"text": pl.String, "new": pl.String, **dict.fromkeys(PLACEHOLDERS, pl.Int64)},
        orient="row",
    )
    if changed.is_empty():
        return pairs, pl.DataFrame({kind: [0] * pairs.height for kind in PLACEHOLDERS})
    tallies = []
    for side in sides:
        beside = pairs.select(text=side).join(changed, on="text", how="left", maintain_order="left")
        pairs = pairs.with_columns(beside.select(pl.coalesce("new", "text").alias(side)))
        tallies.append(beside.select(pl.col(list(PLACEHOLDERS)).fill_null(0)))
    return pairs, pl.DataFrame([sum((tally[kind] for tally in tallies[1:]), tallies[0][kind]) for kind in PLACEHOLDERS])


def mask(text: str) -> tuple[str, dict[str, int]]:
    """`text` with placeholders, and how many of each kind."""
    tally = dict.fromkeys(PLACEHOLDERS, 0)

    def put(kind: str, found: re.Match[str], *, personal: bool) -> str:
        if not personal:
            return found[0]
        tally[kind] += 1
        return PLACEHOLDERS[kind]

    text = _EMAIL.sub(lambda found: put("email", found, personal=_is_email(found)), text)
    text = _IPV6.sub(lambda found: put("ip", found, personal=_is_ip(found)), text)
    text = _IPV4.sub(lambda found: put("ip", found, personal=_is_ip(found)), text)
    text = _PHONE.sub(lambda found: put("phone", found, personal=_is_phone(found)), text)
    return text, tally


def _is_email(found: re.Match[str]) -> bool:
    host = found["host"]
    return found["name"].lower() != "git" and _RESERVED.fullmatch(host) is None and _SCALED.fullmatch(host) is None


def _is_ip(found: re.Match[str]) -> bool:
    try:
        address = ipaddress.ip_address(found[0])
    except ValueError:
        return False
    if not address.is_global or address.is_multicast or found[0] in _NOBODY:
        return False
    if address.version == 6:
        return True
    single = all(len(part) == 1 for part in found[0].split("."))
    return not single and _VERSION.search(found.string[max(0, found.start() - 20) : found.start()]) is None


def _is_phone(found: re.Match[str]) -> bool:
    digits = re.sub(r"\D", "", found[0])
    if found[0].startswith("+") and not 8 <= len(digits) <= 15:
        return False
    if re.fullmatch(r"\+\d{1,9}|\+\d+\.\d+", found[0]):  # a number with its sign
        return False
    return re.search(r"55501\d\d\Z", digits) is None
