"""Countries: the language most of their pages are in, and the names some engines have for them. Pure.

A request may name a country (`web_search_options.user_location`), engines take a language, both, or a
name.
"""

from __future__ import annotations

import re
from typing import Final

_TABLE: Final = """
AR es argentina      AT de austria         AU en australia       BE nl belgium        BG bg bulgaria
BR pt brazil         CA en canada          CH de switzerland     CL es chile          CN zh china
CO es colombia       CZ cs czech republic  DE de germany         DK da denmark        EE et estonia
ES es spain          FI fi finland         FR fr france          GB en united kingdom GR el greece
HR hr croatia        HU hu hungary         ID id indonesia       IE en ireland        IL he israel
IN en india          IT it italy           JP ja japan           KR ko south korea    LT lt lithuania
LV lv latvia         MX es mexico          MY ms malaysia        NL nl netherlands    NO no norway
NZ en new zealand    PE es peru            PH en philippines     PL pl poland         PT pt portugal
RO ro romania        RU ru russia          SA ar saudi arabia    SE sv sweden         SG en singapore
SI sl slovenia       SK sk slovakia        TH th thailand        TR tr turkey         TW zh taiwan
UA uk ukraine        US en united states   VN vi vietnam         ZA en south africa
"""
"""ISO 3166 code, ISO 639 code, Tavily's name (https://docs.tavily.com/documentation/api-reference/endpoint/search)."""

_ROWS: Final = re.compile(r"([A-Z]{2}) ([a-z]{2}) ([a-z]+(?: [a-z]+)*)")


def language_of(country: str) -> str:
    """Return the language that most pages of a country are in; "" for a country not in the table."""
    return next((row[2] for row in _ROWS.finditer(_TABLE) if row[1] == country), "")


def name_of(country: str) -> str:
    """Return a country's name in small English letters; "" for a country not in the table."""
    return next((row[3] for row in _ROWS.finditer(_TABLE) if row[1] == country), "")


def place_of(region: str) -> tuple[str, str]:
    """Return language and country of `de-DE`; the country is "" in `de`."""
    language, _, country = region.partition("-")
    return language, country
