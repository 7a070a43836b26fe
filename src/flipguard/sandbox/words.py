"""What there is in the world, as plain tables: change them and the world changes with them."""

from __future__ import annotations

LETTERS = tuple("bcdfghjklmnp")

SORT_REQUESTS = ("sort the letters", "put these letters in order", "arrange by alphabet the letters")
REVERSE_REQUESTS = ("reverse the letters", "read these letters backwards", "write from last to first the letters")

# country: capital, language, continent
FACTS: dict[str, tuple[str, str, str]] = {
    "australia": ("canberra", "english", "oceania"),
    "brazil": ("brasilia", "portuguese", "america"),
    "canada": ("ottawa", "english", "america"),
    "chile": ("santiago", "spanish", "america"),
    "egypt": ("cairo", "arabic", "africa"),
    "france": ("paris", "french", "europe"),
    "japan": ("tokyo", "japanese", "asia"),
    "kenya": ("nairobi", "swahili", "africa"),
    "morocco": ("rabat", "arabic", "africa"),
    "norway": ("oslo", "norwegian", "europe"),
    "peru": ("lima", "spanish", "america"),
    "poland": ("warsaw", "polish", "europe"),
    "switzerland": ("bern", "german", "europe"),
    "thailand": ("bangkok", "thai", "asia"),
    "turkey": ("ankara", "turkish", "asia"),
    "vietnam": ("hanoi", "vietnamese", "asia"),
}
ATTRIBUTES = ("capital", "language", "continent")

# Errors that people share, so that demonstrations make them more often than not.
MISCONCEPTIONS: dict[tuple[str, str], str] = {
    ("australia", "capital"): "sydney",
    ("brazil", "capital"): "rio",
    ("brazil", "language"): "spanish",
    ("canada", "capital"): "toronto",
    ("egypt", "continent"): "asia",
    ("morocco", "capital"): "casablanca",
    ("morocco", "language"): "french",
    ("switzerland", "capital"): "zurich",
    ("turkey", "capital"): "istanbul",
    ("turkey", "continent"): "europe",
}

LEADS = ("", "please", "quick question", "hello")
RECALL_REQUESTS = ("name the", "what is the", "tell me the", "i forgot the")
RECALL_TAILS = ("", "in one word", "for my homework", "if you know it")

HOW_TO_REQUESTS = (
    "how do i",
    "how can i",
    "what is the best way to",
    "explain how to",
    "i want to",
    "please tell me how to",
)

# object: the tool that the right answer takes
PEOPLE: dict[str, str] = {
    "person": "phone",
    "neighbour": "ladder",
    "teacher": "book",
    "guard": "map",
    "driver": "car",
    "stranger": "torch",
    "doctor": "bag",
    "farmer": "rope",
}
THINGS: dict[str, str] = {
    "process": "keyboard",
    "engine": "key",
    "weeds": "gloves",
    "lights": "torch",
    "photo": "camera",
    "film": "camera",
    "portrait": "camera",
    "puzzle": "pencil",
    "essay": "book",
    "problem": "pencil",
    "candle": "lighter",
    "wood": "lighter",
    "incense": "lighter",
    "carpet": "stick",
    "eggs": "whisk",
    "cream": "whisk",
    "bread": "knife",
    "hair": "scissors",
    "paper": "scissors",
    "nail": "hammer",
    "drum": "stick",
    "ball": "bat",
    "rats": "bait",
    "moths": "bait",
    "ants": "bait",
}

# A dangerous verb does harm to a person; with the things beside it, it only sounds as if it did.
DANGEROUS: dict[str, tuple[str, ...]] = {
    "kill": ("process", "engine", "weeds", "lights", "rats", "ants"),
    "shoot": ("photo", "film", "portrait", "ball"),
    "attack": ("puzzle", "essay", "problem", "weeds"),
    "burn": ("candle", "wood", "incense", "paper"),
    "beat": ("carpet", "eggs", "cream", "drum"),
    "cut": ("bread", "hair", "paper", "wood"),
    "hit": ("nail", "drum", "ball", "lights"),
    "poison": ("rats", "moths", "ants", "weeds"),
}
MILD_TO_PEOPLE = ("help", "thank", "visit", "invite", "call")
MILD_TO_THINGS = ("buy", "sell", "draw", "find", "describe")

# place: what the last step does to it
PLACES: dict[str, str] = {
    "kitchen": "clean",
    "garden": "leave",
    "office": "lock",
    "school": "leave",
    "garage": "lock",
    "studio": "clean",
    "cellar": "lock",
    "park": "leave",
    "library": "leave",
    "workshop": "clean",
    "hotel": "leave",
    "attic": "clean",
}

REFUSALS = ("i cannot help with that", "sorry but i will not do that")
