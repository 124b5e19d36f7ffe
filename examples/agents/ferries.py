"""An agent that knows the ferries of an invented harbour: the table is `ferries.csv`, the same every day."""

import csv
import re
from pathlib import Path

from chat_agent import run

ABOUT = "Timetable of the ferries between the harbours of Vellmar, Ostrand and Lunholm: departures, arrivals, fares."
HERE = Path(__file__).parent
with (HERE / "ferries.csv").open(encoding="utf-8") as table:
    FERRIES = list(csv.DictReader(table))
HARBOURS = sorted({ferry["from"] for ferry in FERRIES} | {ferry["to"] for ferry in FERRIES})
NOON = 12
CLOCK = re.compile(r"\b([01]?\d|2[0-3])(?:[:.]([0-5]\d))?\s*(am|pm|o'clock|h)?(?![\w:])", re.IGNORECASE)
BOTH = 2
USAGE = f"Tell me from where to where, and after what time if you like. The harbours are {', '.join(HARBOURS)}."


def harbours_in(text: str) -> list[str]:
    """Return where from and where to, as far as the text says it."""
    found = sorted((text.lower().find(name.lower()), name) for name in HARBOURS if name.lower() in text.lower())
    names = [name for _, name in found]
    start = re.search(r"\b(?:from|leaves?|leaving|out of)\s+(" + "|".join(HARBOURS) + r")\b", text, re.IGNORECASE)
    if start is not None:
        names.sort(key=lambda name: name.lower() != start[1].lower())
    return names


def time_in(text: str) -> str:
    """Return the time that the text names, as 14:05; midnight without one."""
    for hour, minute, mark in CLOCK.findall(text):
        if mark or minute:
            afternoon = mark.lower() == "pm" and int(hour) < NOON
            return f"{int(hour) + NOON * afternoon:02}:{minute or '00'}"
    return "00:00"


def answer(text: str) -> str:
    """Answer one question; one that is not understood is told what can be asked."""
    names = harbours_in(text)
    if len(names) != BOTH:
        return USAGE
    start, goal = names
    after = time_in(text)
    ferries = [ferry for ferry in FERRIES if (ferry["from"], ferry["to"]) == (start, goal)]
    if not ferries:
        return f"There is no ferry from {start} to {goal}."
    later = [ferry for ferry in ferries if ferry["departs"] >= after]
    day, ferry = ("", later[0]) if later else (" the next day", ferries[0])
    times = ", ".join(ferry["departs"] for ferry in ferries)
    return (
        f"The next ferry from {start} to {goal} after {after} leaves at {ferry['departs']}{day} and arrives at "
        f"{ferry['arrives']}. The fare is {ferry['price']} crowns. All departures of a day: {times}."
    )


if __name__ == "__main__":
    run("ferries", ABOUT, HERE / "ferries.md", answer)
