"""Listings and questions of a small marketplace: what the search is judged by (`unit/registry/test_search_quality.py`).

Each question names the agents that would be right; who wrote the listings did not know the questions' words, as far as
one person can.
"""

from __future__ import annotations

import hashlib
from typing import Final

from convene.registry.documents import CHAT_PROTOCOL
from convene.store.base_market import AgentRow, Endpoint, Listing, Profile, Tally, Terms

NOW_US: Final = 1_795_000_000_000_000
DAY_US: Final = 86_400_000_000


def address(name: str) -> str:
    """Return an address of the right form for a name."""
    letters = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
    digest = hashlib.sha512(name.encode()).digest()
    return "agent1q" + "".join(letters[byte % 32] for byte in digest)[:58]


def agent(  # noqa: PLR0913 -- a row has many parts
    name: str,
    description: str = "",
    *,
    handle: str = "",
    readme: str = "",
    skills: tuple[str, ...] = (),
    tags: tuple[str, ...] = (),
    protocols: tuple[str, ...] = (CHAT_PROTOCOL,),
    geo: tuple[float, float, float] | None = None,
    version: int = 1,
    tally: Tally | None = None,
    **fields: object,
) -> AgentRow:
    """Return a row of an agent that is listed, active and answers chats."""
    listing = Listing(
        name=name,
        handle=handle,
        profile=Profile(description=description, readme=readme),
        skills=skills,
        tags=tags,
        geo=geo,
        agent_type="uagent",
    )
    given: dict[str, object] = {
        "id": address(name),
        "endpoints": (Endpoint("http://127.0.0.1:8001/submit"),),
        "protocols": protocols,
        "listed": True,
        "stamp": 1_794_999_000,
        "registered_us": NOW_US - DAY_US // 24,
        "expires_us": NOW_US + 2 * DAY_US,
        "created_us": NOW_US - 10 * DAY_US + version,
        "changed_us": NOW_US - 5 * DAY_US + version,
        "terms": Terms(),
    }
    return AgentRow(**{**given, "listing": listing, "tally": tally or Tally(), "version": version, **fields})  # type: ignore[arg-type]  # tests name real fields


_LISTINGS: Final = """\
SkyCast | Current weather and seven-day forecasts for any city: temperature, rain, wind and storms. | weather, climate
FlightHawk | Search and compare airline tickets, departures and fares worldwide. | flights, travel, airfare
RoomFinder | Finds and books hotel rooms and holiday apartments by price and location. | hotels, travel, booking
RailPlanner | Train timetables and connections in Europe with platform changes and delays. | trains, railway, travel
VisaDesk | Tells which visa and documents you need to enter a country, by nationality. | visa, passport, immigration
TableTime | Restaurant reservations: finds a free table near you and books it. | restaurants, dining, booking
ChefMate | Recipes from what is in your fridge, with steps and cooking times. | recipes, cooking, food
MacroCount | Calories, protein and nutrition facts of meals and groceries. | nutrition, calories, diet
GymBuddy | Personal training plans for strength, running and yoga, with progress. | fitness, workout, exercise
SleepCoach | Advice for better sleep and an evening routine from your sleep diary. | sleep, insomnia, health
SymptomGuide | Explains possible causes of symptoms and when to see a doctor. | medical, symptoms, health
PillCheck | Checks medicines for interactions and explains side effects and doses. | drugs, medication, pharmacy
CoinWatch | Live cryptocurrency prices, market cap and charts for bitcoin, ether and others. | crypto, bitcoin, prices
StockScout | Share prices, earnings reports and valuation of listed companies. | stocks, shares, finance
FxRates | Currency conversion with daily exchange rates of central banks. | currency, exchange, forex
TaxHelper | Income tax questions for freelancers: deductions, deadlines, forms. | tax, accounting, freelancer
BudgetBee | Sorts your spending into categories and makes a monthly household budget. | budget, spending, money
LoanCalc | Mortgage and loan repayments, interest and amortisation tables. | mortgage, loan, interest
InvoiceBot | Writes invoices and reminders as PDF from a few figures. | invoice, billing, pdf
ContractEye | Reads contracts and points out risky clauses in plain language. | legal, contract, law
PatentSearch | Searches patents and prior art and summarises the claims. | patents, invention, legal
NewsWire | Today's headlines from many papers, summarised by topic and country. | news, headlines, press
FactCheck | Verifies claims against sources and says how certain it is. | verification, claims, truth
PaperTrail | Finds scientific papers and summarises their methods and findings. | research, papers, science
WikiWalk | Answers questions on history and people out of an encyclopedia. | history, encyclopedia, biography
MathTutor | Solves equations, integrals and proofs step by step for pupils and students. | mathematics, algebra, tutor
PhysicsLab | Explains physics experiments and simulates pendulums, lenses and circuits. | physics, simulation, education
LingoFlip | Translates texts between forty languages and keeps their tone. | translation, languages
GrammarFix | Corrects spelling, grammar and style of English essays and emails. | grammar, proofreading, writing
PoemSmith | Writes poems, haiku and song lyrics on any subject. | poetry, lyrics, creative
StoryLoom | Bedtime stories for children with their own heroes. | stories, children, fiction
SlideMaker | Turns notes into presentation slides with a clean layout. | presentation, slides, powerpoint
LogoForge | Designs logos and brand colours from a short brief. | logo, design, branding
PixelPaint | Draws pictures and illustrations from a description. | image, drawing, art
PhotoTouch | Removes backgrounds, scratches and red eyes from photographs. | photo, retouching, image
VoiceOver | Reads text aloud in natural voices and gives an audio file. | speech, audio, tts
TuneFinder | Recognises songs and recommends music like what you love. | music, songs, playlist
FilmFan | Recommends movies and series and says where they can be streamed. | movies, series, cinema
GameScore | Football results, league tables and fixtures, live. | football, soccer, sports
ChessMind | Analyses chess games and suggests the best move. | chess, games, analysis
CodeReview | Reviews pull requests for bugs, security holes and style. | code, review, programming
SqlScribe | Turns questions into SQL for your database schema and explains it. | sql, database, query
RegexRay | Builds and explains regular expressions, with test strings. | regex, programming
DeployPilot | Ships containers to Kubernetes clusters and rolls back on failure. | kubernetes, deployment, devops
LogLens | Finds the cause of errors in server logs. | logs, debugging, monitoring
UptimeEye | Watches websites and tells you when one is down. | monitoring, uptime, website
MailSort | Sorts your inbox, drafts replies and unsubscribes from newsletters. | email, inbox, newsletter
MeetSet | Schedules meetings across time zones and calendars. | calendar, meetings, scheduling
TodoTrail | Keeps to-do lists and reminds you of deadlines. | tasks, reminders, productivity
ParcelTrack | Tracks parcels of all carriers by their number. | shipping, parcels, delivery
CartSaver | Compares prices of shops and finds coupons for products. | shopping, coupons, prices
GiftGuru | Ideas for presents by age, hobby and budget. | gifts, presents, shopping
PlantPal | Identifies plants and says how to water and prune them. | plants, garden, botany
PetVet | First aid and feeding advice for dogs and cats. | pets, dogs, veterinary
HomeHub | Switches lights, heating and blinds of a smart home. | smarthome, lights, iot
SolarSum | Estimates the yield and cost of solar panels on your roof. | solar, energy, photovoltaic
ChargePoint | Finds free charging stations for electric cars on your route. | ev, charging, car
ParkSpot | Finds free parking near an address and pays for it. | parking, car, city
JobMatch | Matches your CV with open positions and writes cover letters. | jobs, career, resume
HouseHunt | Flats and houses for rent or sale, with an estimate of fair rent. | realestate, rent, apartment
天气助手 | 查询中国各城市的天气预报、气温和空气质量。 | 天气, 预报
Kochfreund | Deutsche Rezepte für jeden Tag, mit Einkaufsliste und Nährwerten. | Rezepte, Kochen, Essen
"""

QUESTIONS: Final = (
    ("What will the weather be like in Rome tomorrow?", "SkyCast"),
    ("is it going to rain in Oslo", "SkyCast"),
    ("cheapest flight from Berlin to Lisbon in May", "FlightHawk"),
    ("book me a hotel in Prague for two nights", "RoomFinder"),
    ("which trains go from Vienna to Zurich this evening", "RailPlanner"),
    ("do I need a visa for Japan as a Brazilian citizen", "VisaDesk"),
    ("reserve a table for four tonight at an Italian restaurant", "TableTime"),
    ("what can I cook with eggs and spinach, a recipe please", "ChefMate"),
    ("how many calories are in a banana", "MacroCount"),
    ("training plan for my first marathon running", "GymBuddy"),
    ("I can't sleep at night, what helps", "SleepCoach"),
    ("may I take ibuprofen together with aspirin, interactions of drugs", "PillCheck"),
    ("bitcoin price now", "CoinWatch"),
    ("convert 250 dollars to euros at today's exchange rate", "FxRates"),
    ("earnings of Siemens and its share price", "StockScout"),
    ("monthly payment of a mortgage over 30 years", "LoanCalc"),
    ("check this contract for risky clauses", "ContractEye"),
    ("is there a patent on foldable phones", "PatentSearch"),
    ("today's news headlines", "NewsWire"),
    ("find papers about protein folding", "PaperTrail"),
    ("solve this integral step by step", "MathTutor"),
    ("translate this letter into Portuguese", "LingoFlip"),
    ("proofread my English essay", "GrammarFix"),
    ("write a haiku about autumn", "PoemSmith"),
    ("draw a picture of a red fox in snow", "PixelPaint"),
    ("remove the background of this photo", "PhotoTouch"),
    ("make slides out of my notes for a presentation", "SlideMaker"),
    ("design a logo for my bakery", "LogoForge"),
    ("recommend a movie like Inception", "FilmFan"),
    ("football results of last night", "GameScore"),
    ("what is the best move in this chess position", "ChessMind"),
    ("review my pull request", "CodeReview"),
    ("write an SQL query that joins customers and orders", "SqlScribe"),
    ("deploy my container to kubernetes", "DeployPilot"),
    ("schedule a meeting with people in three time zones", "MeetSet"),
    ("track my parcel 1Z999", "ParcelTrack"),
    ("where can I charge my electric car on the way to Munich", "ChargePoint"),
    ("my dog ate chocolate, what should I do, first aid", "PetVet"),
    ("turn off the lights in the living room", "HomeHub"),
    ("finding an apartment for rent in Hamburg", "HouseHunt"),
    ("write a cover letter for this job", "JobMatch"),
    ("北京明天天气怎么样", "天气助手"),
    ("Rezept für Kartoffelsuppe", "Kochfreund"),
    ("wether forcast for Paris", "SkyCast"),
    ("my plants leaves turn yellow", "PlantPal"),
)
"""What somebody asks, and who should be among the first three."""

EVERYDAY: Final = (
    ("do I need an umbrella in London, will there be wind and storms", "SkyCast"),
    ("temperature in Madrid on Sunday", "SkyCast"),
    ("compare fares of airlines to New York", "FlightHawk"),
    ("departures from Munich airport to Rome, tickets please", "FlightHawk"),
    ("apartments for the holidays near the beach", "RoomFinder"),
    ("accommodation booking by price", "RoomFinder"),
    ("is my train late, and from which platform", "RailPlanner"),
    ("railway connections in Europe", "RailPlanner"),
    ("documents to enter India with a French passport", "VisaDesk"),
    ("dining out with friends tonight, a free table", "TableTime"),
    ("cooking times for lentils", "ChefMate"),
    ("protein and nutrition of chickpeas", "MacroCount"),
    ("a yoga workout for beginners", "GymBuddy"),
    ("insomnia, how do I build an evening routine", "SleepCoach"),
    ("symptoms of the flu, do I need a doctor", "SymptomGuide"),
    ("side effects of this medication", "PillCheck"),
    ("chart of ether and other cryptocurrencies", "CoinWatch"),
    ("valuation of a listed company", "StockScout"),
    ("forex rates of the central bank", "FxRates"),
    ("deductions on my income tax as a freelancer", "TaxHelper"),
    ("plan my household spending by category", "BudgetBee"),
    ("interest of a loan over ten years", "LoanCalc"),
    ("send a billing reminder as PDF", "InvoiceBot"),
    ("what does this clause in my lease contract mean", "ContractEye"),
    ("prior art for an invention", "PatentSearch"),
    ("the press about the election, summarised", "NewsWire"),
    ("is this claim true, check sources", "FactCheck"),
    ("summarise the methods of recent research on batteries", "PaperTrail"),
    ("who was Ada Lovelace, her biography", "WikiWalk"),
    ("prove an equation in algebra", "MathTutor"),
    ("simulate a pendulum", "PhysicsLab"),
    ("translations of a text into Greek", "LingoFlip"),
    ("spelling and style of my email", "GrammarFix"),
    ("lyrics for a song about the sea", "PoemSmith"),
    ("a bedtime story for my daughter", "StoryLoom"),
    ("powerpoint about our quarter", "SlideMaker"),
    ("branding colours for a start-up", "LogoForge"),
    ("illustration of a castle from a description", "PixelPaint"),
    ("red eyes in a photograph", "PhotoTouch"),
    ("read this text aloud as audio", "VoiceOver"),
    ("which song is this, recommend music like it", "TuneFinder"),
    ("where is this series streamed", "FilmFan"),
    ("soccer league table", "GameScore"),
    ("analyse my chess game", "ChessMind"),
    ("security holes in my code", "CodeReview"),
    ("explain this database schema and query", "SqlScribe"),
    ("a regular expression for phone numbers", "RegexRay"),
    ("roll back a failed deployment on the cluster", "DeployPilot"),
    ("why are there errors in my server logs", "LogLens"),
    ("tell me when my website is down", "UptimeEye"),
    ("unsubscribe me from newsletters", "MailSort"),
    ("calendar for meetings across zones", "MeetSet"),
    ("remind me of my tasks and deadlines", "TodoTrail"),
    ("where is my delivery, the carrier's tracking number", "ParcelTrack"),
    ("coupons for running shoes, compare shops", "CartSaver"),
    ("presents for a girl of eight", "GiftGuru"),
    ("how often do I water an orchid in my garden", "PlantPal"),
    ("feeding advice for cats", "PetVet"),
    ("heating and blinds of my smart home", "HomeHub"),
    ("cost and yield of photovoltaic panels on the roof", "SolarSum"),
    ("charging stations for EVs", "ChargePoint"),
    ("parking near this address", "ParkSpot"),
    ("my resume and open positions", "JobMatch"),
    ("flats for sale with a fair price", "HouseHunt"),
    ("上海的空气质量", "天气助手"),
    ("Einkaufsliste für die Woche mit Rezepten", "Kochfreund"),
)
"""Further questions in everyday words, written after the search was: it was not changed to fit them."""


def listings() -> list[AgentRow]:
    """Return the agents of the marketplace."""
    rows = []
    for number, line in enumerate(_LISTINGS.splitlines(), 1):
        name, description, tags = (part.strip() for part in line.split("|"))
        handle = name.lower() if name.isascii() else ""
        found = tuple(tag.strip() for tag in tags.split(","))
        readme = (
            f"# {name}\n\n{description}\n\nAsk in your own words; the agent answers in the chat. Made for everybody."
        )
        rows.append(agent(name, description, handle=handle, readme=readme, tags=found, version=number))
    return rows
