"""Notices secrets in the committed environment files before anyone runs with them, or pushes them."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass

# What the issuers themselves put in front of their secrets.
MARKED = {
    r"sk-ant-[\w-]{6,}": "an Anthropic key",
    r"\bsk-[\w-]{8,}": "an OpenAI key",
    r"\bAIza[\w-]{20,}": "a Google API key",
    r"\bya29\.[\w-]{10,}": "a Google access token",
    r"\bxox[abeprs]-[\w-]{8,}": "a Slack token",
    r"hooks\.slack\.com/services/\w+/\w+/\w+": "a Slack webhook address",
    r"-----BEGIN [A-Z ]*(PRIVATE KEY|CERTIFICATE)": "a PEM block",
    r'"private_key"\s*:': "a service account key",
    r"\b(AKIA|ASIA)[A-Z0-9]{16}\b": "an AWS access key",
    r"\b(gh[pousr]_\w{20,}|github_pat_\w{20,})": "a GitHub token",
    r"\beyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{5,}": "a signed token",
    r"\w://[^\s/:@]+:[^\s/@]+@": "a password inside an address",
}
PASSWORD_NAME = re.compile(r"(PASSWORD|PASSWD|PASSPHRASE|SECRET|TOKEN|API_KEY|ROOT_KEY)")
KEY_NAME = re.compile(r"(KEY|CREDENTIAL|WEBHOOK|AUTH)")
# Where a secret is kept may be committed: a path, a resource name, a bucket.
REFERENCE = re.compile(r"projects/[\w./-]+|gs://[\w./-]+|(~|\.{1,2})?/[\w./-]+")
ASSIGNMENT = re.compile(r"^\s*#?\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*$")


@dataclass(frozen=True, slots=True)
class Suspect:
    """A line that seems to hold a secret; never the secret itself."""

    line: int
    name: str
    looks_like: str


def scan(text: str) -> list[Suspect]:
    """Every line of an environment file that seems to hold a secret.

    Comments count: a key that is commented out is committed all the same.
    """
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        match = ASSIGNMENT.match(line)
        name, value = (match[1], match[2].strip("\"'")) if match else ("", line)
        if kind := _marked(line) or _named(name, value, commented=line.lstrip().startswith("#")):
            found.append(Suspect(number, name or "a line", kind))
    return found


def _marked(line: str) -> str | None:
    return next((kind for pattern, kind in MARKED.items() if re.search(pattern, line)), None)


def _named(name: str, value: str, *, commented: bool) -> str | None:
    if not name or not value or REFERENCE.fullmatch(value):
        return None
    if PASSWORD_NAME.search(name.upper()) and not commented:
        return "the value of a secret"
    named_key = KEY_NAME.search(name.upper()) or PASSWORD_NAME.search(name.upper())
    if named_key and len(value) >= 16 and entropy(value) >= 3.0:
        return "a key"
    if any(_random(word) for word in re.findall(r"[A-Za-z0-9+_=-]{32,}", value)):
        return "a long random value"
    return None


def _random(word: str) -> bool:
    if re.fullmatch(r"[0-9a-fA-F]+", word):
        return entropy(word) >= 3.0
    mixed = all(re.search(kind, word) for kind in ("[a-z]", "[A-Z]", "[0-9]"))
    return mixed and entropy(word) >= 4.0


def entropy(text: str) -> float:
    """Shannon entropy in bits a character; words lie below 3.5, random base64 above 4."""
    counts = Counter(text)
    return -sum(n / len(text) * math.log2(n / len(text)) for n in counts.values())
