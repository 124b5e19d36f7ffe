"""An agent that converts lengths, weights, volumes, speeds and temperatures by the exact tables below."""

import itertools
import re
from decimal import Decimal
from pathlib import Path

from chat_agent import run

ABOUT = (
    "Converts units of length, weight, volume, speed and temperature: kilometres, miles, nautical miles, knots, grams, "
    "ounces, cups, degrees."
)
TABLES = {
    "length": "mm millimetre 0.001, cm centimetre 0.01, m metre 1, km kilometre 1000, inch inches 0.0254, "
    "ft foot feet 0.3048, yd yard 0.9144, mi mile 1609.344, nmi nautical_mile sea_mile 1852",
    "weight": "mg milligram 0.001, g gram gramme 1, kg kilo kilogram 1000, oz ounce 28.349523125, "
    "lb lbs pound 453.59237, stone 6350.29318",
    "volume": "ml millilitre 0.001, l litre 1, tsp teaspoon 0.00492892159375, tbsp tablespoon 0.01478676478125, "
    "cup 0.2365882365, pint 0.473176473, gallon 3.785411784",
    "speed": "m/s 3600, km/h kph 1000, mph 1609.344, kn knot 1852",
}
"""Names of each unit and its size in metres, grams, litres, metres an hour: by definition exact (US volumes)."""
UNITS = {
    name: (kind, Decimal(size))
    for kind, table in TABLES.items()
    for *names, size in (entry.split() for entry in table.split(", "))
    for name in names
}
DEGREES = {"c": "C", "celsius": "C", "f": "F", "fahrenheit": "F"}
CLOCK = re.compile(r"\b\d{1,2}:\d{2}\b")
PART = re.compile(r"(?<![\w.])(-?\d+(?:,\d{3})*(?:\.\d+)?)|([a-z]+/[a-z]+|[a-z_]+)")
USAGE = "Tell me a number with its unit and the unit that you want, for example: 12 nautical miles in kilometres."


def parts_of(text: str) -> list[Decimal | str]:
    """Return the numbers and units in a text, in their order; other words are left out."""
    text = CLOCK.sub(" ", text.lower()).replace("°", " ").replace("meter", "metre").replace("liter", "litre")
    text = re.sub(r"\b(nautical|sea) (mile)", r"\1_\2", text)
    parts: list[Decimal | str] = []
    for number, word in PART.findall(text):
        known = next((one for one in (word, word.removesuffix("s")) if one in UNITS or one in DEGREES), None)
        if number:
            parts.append(Decimal(number.replace(",", "")))
        elif known is not None:
            parts.append(known)
    return parts


def answer(text: str) -> str:
    """Answer one question; one that is not understood is told what can be asked."""
    parts = parts_of(text)
    units = [part for part in parts if isinstance(part, str)]
    for value, unit in itertools.pairwise(parts):
        if not isinstance(value, Decimal) or not isinstance(unit, str):
            continue
        for wanted in units:
            if unit in DEGREES and wanted in DEGREES and DEGREES[wanted] != DEGREES[unit]:
                result = value * 9 / 5 + 32 if unit.startswith("c") else (value - 32) * 5 / 9
                return f"{value} °{DEGREES[unit]} = {shorten(result)} °{DEGREES[wanted]}"
            if unit != wanted and unit in UNITS and wanted in UNITS and UNITS[unit][0] == UNITS[wanted][0]:
                result = value * UNITS[unit][1] / UNITS[wanted][1]
                return f"{value} {unit.replace('_', ' ')} = {shorten(result)} {wanted.replace('_', ' ')}"
    return USAGE


def shorten(number: Decimal) -> str:
    """Return a number with six significant digits, as people write it."""
    return f"{Decimal(f'{number:.6g}').normalize():f}"


if __name__ == "__main__":
    run("units", ABOUT, Path(__file__).with_name("units.md"), answer)
