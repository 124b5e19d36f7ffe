"""Which functions the embedded model calls for requests of several sentences: the sets behind `EACH_THRESHOLD`.

Real vectors, the same on every machine to the digits that count here. What is asserted is what is published.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from convene.messages import FunctionTool
from convene.providers.tool_choice import ToolChooser
from process.test_local_model import running

if TYPE_CHECKING:
    from collections.abc import Mapping

TOOLS: Final = tuple(
    FunctionTool(name, description)
    for name, description in (
        ("get_weather", "Get the current weather in a city"),
        ("send_email", "Send an email to somebody"),
        ("convert_currency", "Convert an amount of money from one currency to another"),
        ("create_event", "Create an event in the user's calendar"),
        ("translate_text", "Translate a text into another language"),
        ("search_flights", "Search for flights between two cities"),
        ("get_stock_price", "Get the latest price of a stock"),
        ("set_timer", "Set a timer or an alarm"),
        ("play_music", "Play a song or an artist"),
        ("order_food", "Order food from a restaurant"),
        (
            "ask_units",
            (
                "Converts units of length, weight, volume, speed and temperature: kilometres, miles, nautical miles, "
                "knots, grams, ounces, cups, degrees."
            ),
        ),
        (
            "ask_ferries",
            (
                "Timetable of the ferries between the harbours of Vellmar, Ostrand and Lunholm: next departure, "
                "arrival, fare."
            ),
        ),
        ("ask_recipes", "Recipes of pancakes, lentil soup and rice pudding, scaled to any number of people."),
    )
)
ONE: Final[Mapping[str, set[str]]] = {
    "I am going to Rome tomorrow. Will I need an umbrella there? How is the weather in Rome?": {"get_weather"},
    "My grandmother only speaks Spanish. I want to tell her that dinner is ready. Please translate it.": {
        "translate_text"
    },
    "It is my birthday on Friday. I would like a party at eight. Put it into my calendar.": {"create_event"},
    "I have been saving for a year. I now own 500 euros. How much is that in dollars?": {"convert_currency"},
    "I am hungry. There is nothing in the fridge. Order me a pizza.": {"order_food"},
    "Apple had a big event yesterday. People are excited. What is the stock at now?": {"get_stock_price"},
    "I love jazz. It calms me down after work. Play something by Miles Davis.": {"play_music"},
    "The pasta is in the water. It needs nine minutes. Set a timer.": {"set_timer"},
    "My boss wants the report. I will be late with it. Write her an email that it comes tomorrow.": {"send_email"},
    "We want to see the Colosseum this summer. We live in Berlin. Find us flights to Rome.": {"search_flights"},
    "I bought some flour. The recipe is American. How many grams are two cups?": {"ask_units"},
    "Friends come for dinner. We will be seven. How much of everything does lentil soup need?": {"ask_recipes"},
    "I am in Vellmar. My meeting in Ostrand starts at four. Which ferry should I take?": {"ask_ferries"},
    "Hello! I hope you are well. What is the weather like in Oslo?": {"get_weather"},
    "Thanks, that helped. One more thing. Translate 'good night' into French.": {"translate_text"},
}
"""One function, and chat around it."""
TWO: Final[Mapping[str, set[str]]] = {
    "When does the first ferry leave Vellmar for Ostrand after 14:00? And how many kilometres are 12 nautical miles?": {
        "ask_ferries",
        "ask_units",
    },
    "What is the weather in Paris? Also book me a table for lunch in my calendar on Monday.": {
        "create_event",
        "get_weather",
    },
    "Translate 'see you soon' into Italian. Then send an email with it to Marco.": {"send_email", "translate_text"},
    "Find flights from Oslo to Rome. How is the weather in Rome?": {"get_weather", "search_flights"},
    "How many dollars are 200 euros? What does Tesla stock cost?": {"convert_currency", "get_stock_price"},
    "Set a timer for ten minutes. Play some Mozart.": {"play_music", "set_timer"},
    "What goes into pancakes for six people? How many ounces are 375 grams?": {"ask_recipes", "ask_units"},
    "Order a pizza; play some jazz.": {"order_food", "play_music"},
    "What does the ferry from Ostrand to Vellmar cost? How many dollars are 13 euros?": {
        "ask_ferries",
        "convert_currency",
    },
    "Scale the rice pudding to 7 people. When does a ferry go to Lunholm?": {"ask_ferries", "ask_recipes"},
    "Convert 100 degrees Fahrenheit to Celsius. What is the weather in Austin?": {"ask_units", "get_weather"},
    "Email Anna that I am late. Set an alarm for six.": {"send_email", "set_timer"},
}
NONE: Final = (
    "Hello. How are you? I am fine.",
    "Explain recursion. Use a simple example. Keep it short.",
    "Who wrote Hamlet? When did he die?",
    "I feel sad today. My cat is ill. What should I do?",
    "Write a haiku. It should be about autumn.",
    "What is the capital of France? And of Spain?",
    "Fix this code. It prints nothing.",
    "Tell me a story. The hero is a fox. It should end well.",
    "What is 2+2? Show your work.",
    "Summarise our conversation. Be brief.",
)


async def test_requests_of_several_sentences_call_as_many_functions_as_is_published() -> None:
    async with running(embed=True) as house:
        chooser = ToolChooser(house.embeddings)

        async def called(request: str) -> set[str]:
            return {meant.tool.name for meant in await chooser.choose_each(request, TOOLS)}

        right = [sum([await called(request) == wanted for request, wanted in some.items()]) for some in (ONE, TWO)]
        false = sum([bool(await called(request)) for request in NONE])
    assert (right, false) == ([12, 9], 2)
