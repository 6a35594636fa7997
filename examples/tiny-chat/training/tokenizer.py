"""The character vocabulary and chat format shared by the trainer and both exports.

Every printable ASCII character is one piece; anything else falls back to its UTF-8 bytes.
"""

from collections.abc import Iterable, Sequence

from training.data import Message

SPACE = "\u2581"  # how SentencePiece-style vocabularies write a blank
UNK, BOS, EOS = "<unk>", "<s>", "</s>"
ROLES = ("system", "user", "assistant")
SPECIALS = (UNK, BOS, EOS, *(f"<|{role}|>" for role in ROLES))
BYTES = tuple(f"<0x{value:02X}>" for value in range(256))
CHARACTERS = (SPACE, *(chr(code) for code in range(0x21, 0x7F)))
PIECES = (*SPECIALS, *BYTES, *CHARACTERS)
VOCAB_SIZE = 384  # PIECES padded to a multiple of 64, which inference engines prefer
PADDING = tuple(f"<unused_{index}>" for index in range(VOCAB_SIZE - len(PIECES)))
IDS = {piece: index for index, piece in enumerate(PIECES)}
UNK_ID, BOS_ID, EOS_ID = IDS[UNK], IDS[BOS], IDS[EOS]

CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}"
    "{% set role = 'system' if message['role'] == 'developer' else message['role'] %}"
    "{{ '<|' + role + '|>' + message['content'] + eos_token }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def encode(text: str) -> list[int]:
    """Token ids of plain text, without control tokens."""
    ids: list[int] = []
    for character in text.replace(" ", SPACE):
        if character in IDS:
            ids.append(IDS[character])
        else:
            ids.extend(IDS[BYTES[value]] for value in character.encode())
    return ids


def decode(ids: Iterable[int]) -> str:
    """Text of token ids; control tokens are left out."""
    raw = bytearray()
    first_byte, first_character = len(SPECIALS), len(SPECIALS) + len(BYTES)
    for token in ids:
        if first_byte <= token < first_character:
            raw.append(token - first_byte)
        elif first_character <= token < len(PIECES):
            raw.extend(PIECES[token].replace(SPACE, " ").encode())
    return raw.decode(errors="replace")


def encode_prompt(messages: Sequence[Message]) -> list[int]:
    """Token ids of a chat up to the point where the assistant starts to answer."""
    ids = [BOS_ID]
    for role, content in messages:
        ids += [IDS[f"<|{role}|>"], *encode(content), EOS_ID]
    return [*ids, IDS["<|assistant|>"]]


def encode_dialogue(messages: Sequence[Message]) -> tuple[list[int], list[bool]]:
    """Token ids of a whole chat, and for each token whether the model is to predict it."""
    ids, learn = [BOS_ID], [False]
    for role, content in messages:
        body = [*encode(content), EOS_ID]
        ids += [IDS[f"<|{role}|>"], *body]
        learn += [False, *(role == "assistant" for _ in body)]
    return ids, learn
