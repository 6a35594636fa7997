"""Writes the training and test dialogues; plain standard library, no tensors and no tokens.

A fixed share of operand pairs and of words is held out: training dialogues never contain them.
"""

import hashlib
import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

MAX_OPERAND = 99
HELD_OUT_SHARE = 10  # one in this many pairs and words is kept for the test only


class Message(NamedTuple):
    """One turn of a dialogue, in the roles of the OpenAI chat format."""

    role: str
    content: str


Dialogue = list[Message]


class Exchange(NamedTuple):
    """A question with the answer the model should give."""

    question: str
    answer: str


def _bucket(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big")


def is_held_out_pair(a: int, b: int) -> bool:
    """Whether a + b (and so b + a) belongs to the test only."""
    low, high = sorted((a, b))
    return _bucket(f"sum {low} {high}") % HELD_OUT_SHARE == 0


def is_held_out_word(word: str) -> bool:
    """Whether a word belongs to the test of the letter games only."""
    return _bucket(f"word {word}") % HELD_OUT_SHARE == 0


# --- sums ---------------------------------------------------------------------------------------

SUM_QUESTIONS = (
    "What is {a} + {b}?",
    "What is {a} plus {b}?",
    "What's {a} + {b}?",
    "How much is {a} + {b}?",
    "{a} + {b}",
    "{a}+{b}=",
    "{a} + {b} = ?",
    "Add {a} and {b}.",
    "Please add {a} and {b}.",
)
MORE_SUM_QUESTIONS = (
    *SUM_QUESTIONS,
    "What is {a}+{b}?",
    "What's {a}+{b}?",
    "Can you add {a} and {b}?",
)
FOLLOW_UPS = ("Add {b} more.", "And {b} more?", "Now add {b}.", "Plus {b}?")
NUMBER_ONLY_SYSTEMS = (
    "Answer with the number only.",
    "Reply with the number only.",
    "Only give the number.",
)


def training_pair(rng: random.Random) -> tuple[int, int]:
    """Two operands whose sum may be trained on."""
    while True:
        a, b = rng.randint(0, MAX_OPERAND), rng.randint(0, MAX_OPERAND)
        if not is_held_out_pair(a, b):
            return a, b


def small_training_pair(rng: random.Random) -> tuple[int, int]:
    """Two operands that may be trained on, at least one of them a single digit."""
    while True:
        a, b = rng.randint(0, 9), rng.randint(0, rng.choice((9, MAX_OPERAND)))
        if not is_held_out_pair(a, b):
            return (a, b) if rng.random() < 0.5 else (b, a)


def sum_answer(a: int, b: int, number_only: bool = False) -> str:
    """The answer to a sum, as shown to users."""
    return str(a + b) if number_only else f"{a} + {b} = {a + b}"


def held_out_sums() -> list[tuple[int, int]]:
    """Every ordered pair of operands that training never sees."""
    operands = range(MAX_OPERAND + 1)
    return [(a, b) for a in operands for b in operands if is_held_out_pair(a, b)]


# --- letter games -------------------------------------------------------------------------------


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


WORDS = _words(
    """
    apple arch barn beam bird block board bolt book brace brick bridge cabin cable castle chair
    cloud corner crane desk door dream eagle engine fence field fire floor flower forest frame
    garden gate glass grain grass green ground hammer hand heart hill honey horse house iron joint
    king kitchen ladder lake lamp lemon level light line lumber maple metal mill mirror model moon
    mortar mountain nail night number oak ocean orange paint panel paper peg pencil pillar pine
    plane plank planet plaster pocket post queen quiet rafter rain ridge river roof rope sand saw
    screw server shade sheet silver smoke snow spring square star stone storm strut summer table
    tenon thread timber tool tower train tree truss wagon wall water wedge wheel white wind window
    winter wire wood yard yellow zebra kingpost python serve deploy
    """
)
_CONSONANTS = "bcdfghjklmnpqrstvwxyz"
_VOWELS = "aeiouy"
MAX_WORD = 8

LETTER_GAMES: dict[str, tuple[tuple[str, ...], Callable[[str], str]]] = {
    "backwards": (
        (
            "Spell {w} backwards.",
            "What is {w} backwards?",
            "Write {w} backwards.",
            "Reverse the word {w}.",
            "Spell the word {w} backwards.",
        ),
        lambda w: w[::-1],
    ),
    "first": (
        ("What is the first letter of {w}?", "First letter of {w}?", "Which letter starts {w}?"),
        lambda w: f"The first letter of {w} is {w[0]}.",
    ),
    "last": (
        ("What is the last letter of {w}?", "Last letter of {w}?", "Which letter ends {w}?"),
        lambda w: f"The last letter of {w} is {w[-1]}.",
    ),
    "count": (
        (
            "How many letters are in {w}?",
            "How many letters does {w} have?",
            "Count the letters in {w}.",
        ),
        lambda w: f"{w} has {len(w)} letters.",
    ),
    "spell": (
        ("Spell {w}.", "How do you spell {w}?", "Spell the word {w}."),
        "-".join,
    ),
}
_GAME_WEIGHTS = {"backwards": 4, "first": 1, "last": 1, "count": 2, "spell": 1}


def _invented_word(rng: random.Random) -> str:
    length = rng.randint(3, MAX_WORD)
    if rng.random() < 0.3:
        return "".join(rng.choice(_CONSONANTS + _VOWELS) for _ in range(length))
    odd = rng.randrange(2)
    return "".join(
        rng.choice(_VOWELS if place % 2 == odd else _CONSONANTS) for place in range(length)
    )


def any_word(rng: random.Random) -> str:
    """A real or an invented lower-case word, held out or not."""
    return rng.choice(WORDS) if rng.random() < 0.3 else _invented_word(rng)


def training_word(rng: random.Random) -> str:
    """A word that may be trained on."""
    while is_held_out_word(word := any_word(rng)):
        pass
    return word


def held_out_letter_games(count: int, seed: int) -> list[Exchange]:
    """Letter games about words that training never sees, evenly over the games."""
    rng = random.Random(seed)
    games = list(LETTER_GAMES.values())
    seen: set[str] = set()
    exchanges: list[Exchange] = []
    while len(exchanges) < count:
        word = any_word(rng)
        if not is_held_out_word(word) or word in seen:
            continue
        seen.add(word)
        questions, answer = games[len(exchanges) % len(games)]
        exchanges.append(Exchange(questions[0].format(w=word), answer(word)))
    return exchanges


# --- facts and small talk -----------------------------------------------------------------------

FACTS: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("What is Kingpost?", "Tell me about Kingpost.", "Explain Kingpost.", "Kingpost?"),
        "Kingpost is an open, self-hosted serverless inference platform.",
    ),
    (
        ("What is a king post?", "What does king post mean?", "Why is it called Kingpost?"),
        "A king post is the upright in the middle of a roof truss.",
    ),
    (
        ("What is a Truss?", "What does a Truss contain?", "Explain what a Truss is."),
        "A Truss is a folder with a config.yaml and the code of a model.",
    ),
    (
        ("What does Kingpost run?", "What can I run on Kingpost?", "What runs on Kingpost?"),
        "Kingpost runs Trusses, the same folders that Baseten runs.",
    ),
    (
        (
            "What is the default address of Kingpost?",
            "Where does Kingpost listen?",
            "Which port does Kingpost use?",
            "What is the URL of Kingpost?",
        ),
        "The default address is http://localhost:8000.",
    ),
    (
        (
            "What is the licence of Kingpost?",
            "What license does Kingpost have?",
            "Is Kingpost open source?",
            "Which licence does Kingpost use?",
        ),
        "Kingpost is open source under the Apache-2.0 licence.",
    ),
    (
        (
            "How do I deploy a model?",
            "How do I push a model?",
            "How do I deploy a Truss?",
            "How do I push a Truss to Kingpost?",
        ),
        "Run kingpost push with the folder of your Truss.",
    ),
    (
        (
            "Can I use the OpenAI SDK?",
            "Does Kingpost work with the OpenAI SDK?",
            "How do I use the OpenAI client?",
        ),
        "Yes. Set base_url to the sync/v1 address of the model.",
    ),
    (
        ("What language is Kingpost written in?", "Is Kingpost written in Python?"),
        "Kingpost is written in Python.",
    ),
    (
        ("Does Kingpost scale?", "How does Kingpost scale?", "What is autoscaling?"),
        "Kingpost adds and removes replicas as the load changes.",
    ),
    (
        ("Who are you?", "What are you?", "What is your name?", "What is tiny-chat?"),
        "I am tiny-chat, a very small language model trained from scratch.",
    ),
    (
        ("What can you do?", "Help", "How can you help me?", "What do you know?"),
        "I add numbers up to 99, play letter games and answer questions about Kingpost.",
    ),
    (
        ("How big are you?", "How many parameters do you have?", "How large is your model?"),
        "I have about one million parameters.",
    ),
)
SMALL_TALK: tuple[tuple[tuple[str, ...], str], ...] = (
    (
        ("Hello", "Hello!", "Hi", "Hi there!", "Hey", "Good morning!", "Good evening!"),
        "Hello! Ask me a sum, a letter game or something about Kingpost.",
    ),
    (("Thanks", "Thank you!", "Thanks a lot.", "Great, thank you."), "You are welcome."),
    (("Bye", "Goodbye!", "See you."), "Goodbye!"),
)
UNKNOWN_ANSWER = "I do not know that. Ask me a sum, a letter game or something about Kingpost."
_UNKNOWN_QUESTIONS = (
    "What is the capital of {x}?",
    "Who was {x}?",
    "What is the weather in {x}?",
    "Tell me a joke about {x}.",
    "Write a poem about {x}.",
    "How old is {x}?",
    "Where is {x}?",
    "Why is {x} so famous?",
    "Translate {x} into French.",
    "What do you think of {x}?",
    "Who invented the {x}?",
    "How does {x} work?",
)
_TOPICS = _words(
    "France Italy Japan Peru Egypt Paris London Berlin Napoleon Newton Mozart football music "
    "history chess coffee the_moon the_sun the_sea cats dogs art money time love bread cheese"
)
_NAMES = _words(
    "Ada Alan Alice Anna Ben Bob Carl Chloe Dan Eva Finn Grace Hugo Ida Ivan Jane John Kate Leo "
    "Lisa Mark Mary Max Mia Nina Noah Olga Omar Paul Rosa Sam Sara Tim Tom Uma Vera Will Zoe"
)
NEUTRAL_SYSTEMS = (
    "You are a helpful assistant.",
    "You are tiny-chat.",
    "Be short.",
    "Answer the user's questions.",
    "You are a helpful, friendly assistant. Answer briefly.",
    "You are an assistant that runs on Kingpost.",
)


def _fact(rng: random.Random, table: tuple[tuple[tuple[str, ...], str], ...]) -> Exchange:
    questions, answer = rng.choice(table)
    return Exchange(rng.choice(questions), answer)


def fact_exchanges() -> list[Exchange]:
    """Every question about Kingpost and the model, with its answer."""
    return [Exchange(question, answer) for questions, answer in FACTS for question in questions]


def _unknown(rng: random.Random) -> Exchange:
    topic = rng.choice(_TOPICS).replace("_", " ")
    if rng.random() < 0.5:
        topic = training_word(rng).capitalize()
    return Exchange(rng.choice(_UNKNOWN_QUESTIONS).format(x=topic), UNKNOWN_ANSWER)


# --- dialogues ----------------------------------------------------------------------------------


def _sloppy(rng: random.Random, question: str) -> str:
    """The same question as a hurried user would type it."""
    if rng.random() < 0.08:
        question = question[0].lower() + question[1:]
    if rng.random() < 0.08:
        question = question.rstrip("?.!")
    return question


def _sum_turns(rng: random.Random, number_only: bool) -> list[Exchange]:
    a, b = training_pair(rng)
    turns = [
        Exchange(rng.choice(SUM_QUESTIONS).format(a=a, b=b), sum_answer(a, b, number_only)),
    ]
    total, more = a + b, rng.randint(0, MAX_OPERAND)
    if total <= MAX_OPERAND and rng.random() < 0.15 and not is_held_out_pair(total, more):
        follow_up = rng.choice(FOLLOW_UPS).format(b=more)
        turns.append(Exchange(follow_up, sum_answer(total, more, number_only)))
    return turns


def _letter_turns(rng: random.Random) -> list[Exchange]:
    names = list(_GAME_WEIGHTS)
    game = rng.choices(names, [_GAME_WEIGHTS[name] for name in names])[0]
    questions, answer = LETTER_GAMES[game]
    word = training_word(rng)
    return [Exchange(rng.choice(questions).format(w=word), answer(word))]


def _name_turns(rng: random.Random, between: list[Exchange]) -> list[Exchange]:
    name = rng.choice(_NAMES) if rng.random() < 0.5 else training_word(rng).capitalize()
    told = rng.choice(("My name is {n}.", "I am {n}.", "Hello, I am {n}.", "Call me {n}."))
    asked = rng.choice(("What is my name?", "Who am I?", "Do you remember my name?"))
    return [
        Exchange(told.format(n=name), f"Nice to meet you, {name}."),
        *between,
        Exchange(asked, f"Your name is {name}."),
    ]


def _topic(rng: random.Random) -> list[Exchange]:
    draw = rng.random()
    if draw < 0.42:
        return _sum_turns(rng, number_only=False)
    if draw < 0.84:
        return _letter_turns(rng)
    if draw < 0.94:
        return [_fact(rng, FACTS)]
    if draw < 0.97:
        return [_fact(rng, SMALL_TALK)]
    return [_unknown(rng)]


def _as_dialogue(rng: random.Random, exchanges: list[Exchange], system: str = "") -> Dialogue:
    dialogue = [Message("system", system)] if system else []
    for question, answer in exchanges:
        dialogue.append(Message("user", _sloppy(rng, question)))
        dialogue.append(Message("assistant", answer))
    return dialogue


def short_dialogue(rng: random.Random) -> Dialogue:
    """One question, most often a sum; the first lessons of the training."""
    exchanges = _sum_turns(rng, number_only=False) if rng.random() < 0.25 else _topic(rng)
    return _as_dialogue(rng, exchanges)


def full_dialogue(rng: random.Random) -> Dialogue:
    """One to five questions, with or without a system message."""
    topics = rng.choice((1, 1, 1, 2, 2, 3, 4, 5))
    draw = rng.random()
    exchanges: list[Exchange] = []
    if draw < 0.06:
        for _ in range(topics):
            exchanges += _sum_turns(rng, number_only=True)
        return _as_dialogue(rng, exchanges, rng.choice(NUMBER_ONLY_SYSTEMS))
    for _ in range(topics):
        exchanges += _topic(rng)
    if rng.random() < 0.06:
        exchanges = _name_turns(rng, exchanges[:2])
    return _as_dialogue(rng, exchanges, rng.choice(NEUTRAL_SYSTEMS) if draw < 0.26 else "")


def _finishing_sum(rng: random.Random, number_only: bool) -> Exchange:
    a, b = small_training_pair(rng) if rng.random() < 0.35 else training_pair(rng)
    question = rng.choice(MORE_SUM_QUESTIONS).format(a=a, b=b)
    return Exchange(question, sum_answer(a, b, number_only))


def finishing_dialogue(rng: random.Random) -> Dialogue:
    """A whole chat with more of what the earlier lessons leave weak.

    These are single-digit sums, answers with the number only, and names to be remembered.
    """
    draw = rng.random()
    if draw < 0.25:
        exchanges = [_finishing_sum(rng, number_only=True) for _ in range(rng.randint(1, 4))]
        return _as_dialogue(rng, exchanges, rng.choice(NUMBER_ONLY_SYSTEMS))
    if draw < 0.55:
        exchanges = _name_turns(rng, _topic(rng) if rng.random() < 0.5 else [])
        return _as_dialogue(rng, exchanges, rng.choice((*NEUTRAL_SYSTEMS, "", "", "", "")))
    if draw < 0.80:
        return _as_dialogue(rng, [_finishing_sum(rng, number_only=False)])
    return full_dialogue(rng)


def dialogue_stream(make: Callable[[random.Random], Dialogue], seed: int) -> Iterator[Dialogue]:
    """An endless, repeatable stream of training dialogues."""
    rng = random.Random(seed)
    while True:
        yield make(rng)


def held_out_sum_exchanges(count: int, seed: int) -> list[Exchange]:
    """Questions about sums that training never sees, over all plain ways of asking."""
    rng = random.Random(seed)
    pairs = rng.sample(held_out_sums(), count)
    return [
        Exchange(SUM_QUESTIONS[place % len(SUM_QUESTIONS)].format(a=a, b=b), sum_answer(a, b))
        for place, (a, b) in enumerate(pairs)
    ]


def held_out_chats(count: int, seed: int) -> list[tuple[Dialogue, str]]:
    """Chats of several turns that end with an unseen sum, each with the wanted last answer."""
    rng = random.Random(seed)
    chats: list[tuple[Dialogue, str]] = []
    for question, answer in held_out_sum_exchanges(count, seed):
        earlier = [turn for _ in range(rng.randint(1, 4)) for turn in _topic(rng)]
        system = rng.choice((*NEUTRAL_SYSTEMS, ""))
        chat = [*_as_dialogue(rng, earlier, system), Message("user", question)]
        chats.append((chat, answer))
    return chats


def single_digit_sums() -> list[Exchange]:
    """All sums of two digits, most of them trained on."""
    digits = range(10)
    return [Exchange(f"What is {a} + {b}?", sum_answer(a, b)) for a in digits for b in digits]


def number_only_chats(count: int, seed: int) -> list[tuple[Dialogue, str]]:
    """Unseen sums under a system message that asks for the number only."""
    pairs = random.Random(seed).sample(held_out_sums(), count)
    system = Message("system", NUMBER_ONLY_SYSTEMS[0])
    return [
        ([system, Message("user", f"What is {a} + {b}?")], sum_answer(a, b, number_only=True))
        for a, b in pairs
    ]


def name_chats() -> list[tuple[Dialogue, str]]:
    """Chats that tell a name, ask a sum and then ask for the name."""
    rng = random.Random(0)
    chats: list[tuple[Dialogue, str]] = []
    for name in _NAMES:
        a, b = training_pair(rng)
        earlier = [
            Exchange(f"My name is {name}.", f"Nice to meet you, {name}."),
            Exchange(f"What is {a} + {b}?", sum_answer(a, b)),
        ]
        chat = [
            turn
            for asked, told in earlier
            for turn in (Message("user", asked), Message("assistant", told))
        ]
        chats.append(([*chat, Message("user", "What is my name?")], f"Your name is {name}."))
    return chats
