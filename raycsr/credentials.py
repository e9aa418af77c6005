"""What looks like a password, a key or a signature in a text: found in options, and never repeated in words."""

import os
import re

_HIDDEN = "***"
_LEAST = 8  # characters of a variable's value that is hidden: a shorter one is part of many a word
_SECRET_NAME = r"[\w.-]*(?:signature|token|secret|passw|credential|access_?key|api_?key)[\w.-]*|sig|key|auth|pwd"
# A secret may hold slashes and @, so all before the last @ may be one. Keys of s3:// may have @, too: there it takes a
# colon before the first slash. s3://anonymous@bucket is the absence of keys, and :/// is of no server.
_USER = re.compile(
    r"(\bs3://)(?!anonymous@[\w.-]*(?:[/\s'\"?]|$))(?:[^\s/]*:\S*@|[^\s/]*@)"  # s3://key:secret@bucket
    r"|((?<!\bs3)://)(?!/)\S*@"  # https://user:password@host
)
_LOCATION = re.compile(r"://\S+")
_QUERY = re.compile(rf"([?&;#](?:{_SECRET_NAME})=)[^\s&'\"]+", re.IGNORECASE)  # within a location
_KNOWN = re.compile(r"\b(?:(?:AKIA|ASIA)[A-Z0-9]{16}|hf_[A-Za-z0-9]{30,}|gh[pousr]_[A-Za-z0-9]{30,})\b")
_VARIABLE = re.compile(r"SECRET|TOKEN$|PASSWORD$|API_KEY$|ACCESS_KEY_ID$")


def has_credentials(text: str) -> bool:
    """Whether a location in the text carries a user or a password, a key or a signature; or the text a known token."""
    return bool(_USER.search(text) or _KNOWN.search(text) or any(map(_QUERY.search, _LOCATION.findall(text))))


def without_credentials(text: str) -> str:
    """The text with what `has_credentials` finds, and the secrets of this process's environment, replaced by stars."""
    text = _LOCATION.sub(lambda found: _QUERY.sub(rf"\1{_HIDDEN}", found[0]), text)  # first: a token may have an @
    text = _USER.sub(rf"\1\2{_HIDDEN}@", text)
    text = _KNOWN.sub(_HIDDEN, text)
    for name, value in os.environ.items():
        if len(value) >= _LEAST and value in text and _VARIABLE.search(name):
            text = text.replace(value, _HIDDEN)
    return text
