"""An agent that scales the recipes of `recipes.json` to any number of people."""

import json
import re
from fractions import Fraction
from pathlib import Path

from chat_agent import run

ABOUT = "Recipes of pancakes, lentil soup and rice pudding, scaled to any number of people."
HERE = Path(__file__).parent
RECIPES = json.loads((HERE / "recipes.json").read_text(encoding="utf-8"))
WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
NUMBERS = {word: number for number, word in enumerate(WORDS, 1)}
PEOPLE_MAX = 500
USAGE = f"Tell me a recipe and for how many people. I know {', '.join(RECIPES)}."


def people_in(text: str) -> int | None:
    """Return for how many people, if the text says it."""
    found = re.search(r"\b(\d{1,3}|" + "|".join(NUMBERS) + r")\b", text.lower())
    return None if found is None else NUMBERS.get(found[1]) or int(found[1])


def scaled(amount: str, factor: Fraction) -> str:
    """Return an amount such as `250 g` times a factor; what cannot be cut finer than a quarter is rounded up to it."""
    number, _, unit = amount.partition(" ")
    exact = Fraction(number) * factor
    step = Fraction(1) if unit in {"g", "ml"} else Fraction(1, 4)
    rounded = -(-exact // step) * step
    return f"{float(rounded):g} {unit}".strip()


def answer(text: str) -> str:
    """Answer one question; one that is not understood is told what can be asked."""
    name = next((name for name in RECIPES if name in text.lower() or name.removesuffix("s") in text.lower()), None)
    if name is None:
        return USAGE
    recipe = RECIPES[name]
    people = people_in(text) or recipe["serves"]
    if not 1 <= people <= PEOPLE_MAX:
        return f"I scale recipes to 1 to {PEOPLE_MAX} people."
    factor = Fraction(people, recipe["serves"])
    parts = [f"{scaled(amount, factor)} {what}" for what, amount in recipe["ingredients"].items()]
    return f"{name.capitalize()} for {people}: {', '.join(parts)}."


if __name__ == "__main__":
    run("recipes", ABOUT, HERE / "recipes.md", answer)
