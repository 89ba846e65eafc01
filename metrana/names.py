"""Readable names for runs that were given none: `brisk-otter-4f2a`."""

from __future__ import annotations

import hashlib
from typing import Final

_ADJECTIVES: Final = (
    "agile amber ample azure bold brave bright brisk calm candid clear clever cosmic cozy crisp "
    "curious daring deft dewy eager early earnest easy elated fair fancy fleet fond fresh gentle "
    "gilded glad golden grand green happy hardy hazel honest humble ideal jolly jovial keen kind "
    "lively lucid lucky mellow merry mild misty modest neat nimble noble novel patient placid "
    "polite proud quick quiet"
)
_NOUNS: Final = (
    "acorn alder aspen badger beacon birch bison breeze brook canyon cedar comet coral crane "
    "delta dune eagle ember falcon fern finch fjord forest gecko glacier grove harbor hawk heron "
    "island jaguar juniper kestrel lagoon lark lemur lynx maple marten meadow mesa nebula oak "
    "ocean orchid osprey otter owl panda petrel pine plover prairie quail rapids raven reef "
    "river robin sable"
)


def run_name_from(seed: str) -> str:
    """The name that belongs to a seed: every process with this seed makes the same one."""
    digest = hashlib.sha256(seed.encode()).digest()
    return f"{_pick(_ADJECTIVES, digest[:4])}-{_pick(_NOUNS, digest[4:8])}-{digest[8:11].hex()}"


def _pick(words: str, digest: bytes) -> str:
    choices = words.split()
    return choices[int.from_bytes(digest, "big") % len(choices)]
