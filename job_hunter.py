#!/usr/bin/env python3
# SPDX-FileCopyrightText: The job_hunter authors
# SPDX-License-Identifier: MIT
# /// script
# requires-python = ">=3.11"
# dependencies = ["cryptography>=44"]
# ///
"""Set up and protect the configuration of a job-hunting outreach agent.

`setup` asks for a Gmail account, the language models of seven agents, the API keys that
these need and a mailing address, and stores them in ~/.outreach-agent, with the secrets
encrypted. The agents import this file to load them:

    config = job_hunter.ConfigManager().load()
    litellm.completion(**config.litellm_kwargs("writer"), messages=[...])
"""

from __future__ import annotations

import sys

# Python 3.9 and older do not know `match`: they stop at the next line, and show it.
match sys.version_info >= (3, 11):  # Python 3.11 or newer is needed: try `uv run` FILE
    case False:
        sys.exit(
            "[Setup] job_hunter needs Python 3.11 or newer, and this is Python"
            f" {sys.version.split()[0]}: install one from python.org,"
            " or use: uv run job_hunter.py"
        )

import argparse
import errno
import ipaddress
import json
import logging
import logging.handlers
import math
import os
import queue
import re
import shlex
import shutil
import signal
import stat
import tempfile
import threading
import time
import unicodedata
from base64 import urlsafe_b64encode
from collections.abc import (
    Callable,
    Container,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import closing, contextmanager, redirect_stdout, suppress
from copy import copy
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime
from difflib import get_close_matches
from functools import cache, cached_property, partial
from getpass import getpass
from pathlib import Path
from typing import Any, NoReturn, TextIO
from urllib.parse import quote, quote_plus, urlsplit

try:
    from cryptography.fernet import Fernet, InvalidToken, MultiFernet
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC
except Exception as error:  # it is missing, or something in it is broken
    cryptography_error: Exception | None = error
else:
    cryptography_error = None

__all__ = [
    "AGENT_NAMES",
    "PRESETS",
    "AgentConfig",
    "AppConfig",
    "ConfigError",
    "ConfigManager",
    "ImapConfig",
    "ProviderConfig",
    "SmtpConfig",
    "configure_logging",
    "decrypt_secret",
    "encrypt_secret",
    "get_fernet",
    "get_logger",
    "main",
]
__version__ = "0.1.0"

AGENT_NAMES = (
    "orchestrator",
    "scout",
    "research",
    "matcher",
    "writer",
    "outreach",
    "analyst",
)
DEFAULT_MODEL = "ollama/llama3.1"
# Anthropic has retired these two since; check --fix changes them to their successors.
SONNET = "anthropic/claude-3-5-sonnet-20241022"
HAIKU = "anthropic/claude-3-haiku-20240307"
EXAMPLE_MODEL = "gemini/gemini-flash-latest"

#: The model of every agent, by preset.
PRESETS: dict[str, dict[str, str]] = {
    "fully_free": dict.fromkeys(AGENT_NAMES, DEFAULT_MODEL),
    "best_quality": {
        **dict.fromkeys(AGENT_NAMES, HAIKU),
        "writer": SONNET,
        "research": SONNET,
    },
}

Directory = str | os.PathLike[str] | None  # a base directory; None is the default one

logger = logging.getLogger("job_hunter")


class ConfigError(Exception):
    """The configuration cannot be read, written or used.

    `problems` holds every problem found, each in one sentence that names its place.
    `hint` says what to do, or is empty. `status` is the exit status of a command that
    ends with this error. The secrets of the settings are masked in all of it.
    """

    def __init__(self, *problems: str, hint: str = "", status: int = 1) -> None:
        self.problems = tuple(masks.hide(problem) for problem in problems)
        self.hint = masks.hide(hint)
        self.status = status
        super().__init__(*self.problems)
        if self.hint:
            self.add_note(f"hint: {self.hint}")  # a traceback shows it

    def __str__(self) -> str:
        return "\n".join(self.problems)


# Providers ====================================================================


@dataclass(frozen=True)
class Provider:
    """A provider of models. Its variables follow from its name, as in LiteLLM."""

    title: str
    base_url: str = ""  # its own; people can store another one
    key_page: str = ""  # where a key is made
    models_path: str = "/models"  # what lists its models, below the base URL
    headers: tuple[tuple[str, str], ...] = (("Authorization", "Bearer {key}"),)
    key_starts: tuple[str, ...] = ()  # how the keys of this provider alone begin
    key_must_start: str = ""  # how every key of its own server begins
    key_variables: tuple[str, ...] = ()  # if LiteLLM reads others than <NAME>_API_KEY
    base_url_variables: tuple[str, ...] = ()  # if others than <NAME>_API_BASE
    model_starts: tuple[str, ...] = ()  # how models begin that need no "provider/"
    other_names: tuple[str, ...] = ()  # what people call it, and LiteLLM does not
    needs_key: bool = True


#: The providers whose key setup asks for, by their LiteLLM names.
PROVIDERS: dict[str, Provider] = {
    "anthropic": Provider(
        "Anthropic",
        base_url="https://api.anthropic.com",
        key_page="https://platform.claude.com/settings/keys",
        models_path="/v1/models?limit=1000",
        headers=(("x-api-key", "{key}"), ("anthropic-version", "2023-06-01")),
        key_starts=("sk-ant-",),
        key_must_start="sk-ant-",
        base_url_variables=("ANTHROPIC_API_BASE", "ANTHROPIC_BASE_URL"),
        model_starts=("claude",),
        other_names=("claude",),
    ),
    "openai": Provider(
        "OpenAI",
        base_url="https://api.openai.com/v1",
        key_page="https://platform.openai.com/api-keys",
        key_must_start="sk-",
        base_url_variables=("OPENAI_BASE_URL", "OPENAI_API_BASE"),
        model_starts=("gpt", "chatgpt", "o1", "o3", "o4", "ft:gpt"),
    ),
    "gemini": Provider(
        "Gemini",
        base_url="https://generativelanguage.googleapis.com/v1beta",
        key_page="https://aistudio.google.com/apikey",
        models_path="/models?pageSize=1000",
        headers=(("x-goog-api-key", "{key}"),),
        key_starts=("AIza", "AQ."),
        key_variables=("GEMINI_API_KEY", "GOOGLE_API_KEY"),
        other_names=("google",),
    ),
    "groq": Provider(
        "Groq",
        base_url="https://api.groq.com/openai/v1",
        key_page="https://console.groq.com/keys",
        key_starts=("gsk_",),
    ),
    "mistral": Provider(
        "Mistral",
        base_url="https://api.mistral.ai/v1",
        key_page="https://console.mistral.ai/api-keys",
        key_variables=("MISTRAL_API_KEY", "MISTRAL_AZURE_API_KEY"),
        base_url_variables=("MISTRAL_AZURE_API_BASE",),
    ),
    "deepseek": Provider(
        "DeepSeek",
        base_url="https://api.deepseek.com",
        key_page="https://platform.deepseek.com/api_keys",
    ),
    "openrouter": Provider(
        "OpenRouter",
        base_url="https://openrouter.ai/api/v1",
        key_page="https://openrouter.ai/keys",
        models_path="/models/user",  # the plain list is given to any key
        key_variables=("OPENROUTER_API_KEY", "OR_API_KEY"),
        key_starts=("sk-or-",),
    ),
    "xai": Provider(
        "xAI",
        base_url="https://api.x.ai/v1",
        key_page="https://console.x.ai",
        other_names=("grok",),
        key_starts=("xai-",),
    ),
    "ollama": Provider(
        "Ollama",
        base_url="http://localhost:11434",
        models_path="/api/tags",
        needs_key=False,
    ),
}

#: LiteLLM reaches one server under both names.
SAME_PROVIDER = {"ollama_chat": "ollama"}

OTHER_NAMES = {
    other: name for name, row in PROVIDERS.items() for other in row.other_names
}
MODEL_STARTS = {
    start: name for name, row in PROVIDERS.items() for start in row.model_starts
}
KEY_STARTS = {
    start: name for name, row in PROVIDERS.items() for start in row.key_starts
}


def find_provider(name: str) -> Provider:
    """The row of a provider, or one for a provider that has none in the table."""
    return PROVIDERS.get(name, Provider(name, needs_key=False))


def provider_of(model: str) -> str:
    """The name of a model's provider, as `providers` has it; "" if it names none."""
    name, slash, _ = model.partition("/")
    if not slash:
        return ""
    return SAME_PROVIDER.get(name, name)


def nearest_provider(name: str) -> str:
    """The provider that was meant by a misspelled name; "" if none was."""
    known = [*PROVIDERS, *SAME_PROVIDER]
    if name in known:
        return ""
    near = get_close_matches(name.lower(), [*known, *OTHER_NAMES], n=1, cutoff=0.8)
    if not near:
        return ""
    return OTHER_NAMES.get(near[0], near[0])


def meant_provider(name: str) -> str:
    """The name under which a provider's account is read, if it is another one."""
    return SAME_PROVIDER.get(name) or nearest_provider(name)


def variable_name(provider: str, ending: str) -> str:
    """LiteLLM's rule: together_ai and API_KEY give TOGETHER_AI_API_KEY."""
    return f"{provider}_{ending}".upper().replace("-", "_")


def key_variables(name: str) -> tuple[str, ...]:
    """The variables of a provider's key: the first that is set counts."""
    return find_provider(name).key_variables or (variable_name(name, "API_KEY"),)


def base_url_variables(name: str) -> tuple[str, ...]:
    """The variables of a provider's base URL, in the order in which they are read."""
    row = find_provider(name)
    return row.base_url_variables or (variable_name(name, "API_BASE"),)


def first_set(variables: Iterable[str]) -> str:
    """The first of *variables* that is set to something; "" if none is."""
    for variable in variables:
        if clean(os.environ.get(variable, "")):
            return variable
    return ""


def base_url_in_use(name: str, stored: object) -> str:
    """The base URL that the agents use: stored, or LiteLLM's variable, or its own."""
    variable = first_set(base_url_variables(name))
    in_variable = os.environ.get(variable, "").rstrip("/")  # LiteLLM cleans nothing
    return str(stored or in_variable or find_provider(name).base_url)


# What comes in, and how it is checked =========================================
#
# clean() is for every text from outside: an answer, a variable, a file, an argument. A
# check takes that text, or what stands in config.json, and returns the value to store.
# It raises ValueError, which says what was expected and never repeats the value.

Check = Callable[[Any], Any]

LONGEST_VALUE = 4096  # characters
BLANKS = " \t\r\n\v\f\u00a0\u2007\u202f\u3000"
ZERO_WIDTH = "\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"
PASTE_MARKS = ("\x1b[200~", "\x1b[201~")  # of a terminal that brackets what is pasted
APP_PASSWORD_PAGE = "https://myaccount.google.com/apppasswords"


def clean(text: str) -> str:
    """*text* without what surrounds it unseen, and without one pair of quotes."""
    for mark in PASTE_MARKS:
        text = text.replace(mark, "")
    text = text.strip(BLANKS + ZERO_WIDTH)
    quoted = re.fullmatch("(?s)([\"'])(.*)\\1", text)
    return quoted[2].strip(BLANKS + ZERO_WIDTH) if quoted else text


def name_of(character: str) -> str:
    """What to call a character that cannot be seen."""
    name = unicodedata.name(character, "")
    return f"U+{ord(character):04X} {name}".strip()


#: What looks like a credential: a key, an app password, a long random word.
CREDENTIAL = re.compile(
    rf"\b(?:sk-|{'|'.join(map(re.escape, KEY_STARTS))})[^\s'\"]+"
    r"|(?<=//)[^/\s@]*:[^/\s@]*(?=@)"  # a login in a URL
    r"|\b[A-Za-z]{16}\b|\b[a-z]{4} [a-z]{4} [a-z]{4} [a-z]{4}\b"
    r"|[A-Za-z0-9]{20,}"
)


def without_credentials(text: str) -> str:
    """*text* that was given, so that a message can repeat it."""
    return CREDENTIAL.sub(ASTERISKS, text)


def check_lines(value: object) -> str:
    """Text of one or more lines, without the white space around each of them."""
    if not isinstance(value, str):
        raise ValueError("expected text")
    if len(value) > LONGEST_VALUE:
        raise ValueError(f"expected at most {LONGEST_VALUE:,} characters")
    lines = [line.strip().expandtabs(1) for line in value.strip().splitlines()]
    for character in "".join(lines):
        if unicodedata.category(character) == "Cs":  # how Python keeps other bytes
            raise ValueError("expected UTF-8 text")
        if unicodedata.category(character) == "Cc":
            raise ValueError(f"it contains {name_of(character)}, a control character")
    return "\n".join(lines)


def check_text(value: object) -> str:
    text = check_lines(value)
    if "\n" in text:
        raise ValueError("expected one line of text")
    return text


def check_word(value: object) -> str:
    """Text without blanks, and without anything that cannot be seen."""
    text = check_text(value)
    if len(text.split()) > 1:
        raise ValueError("expected one word, without spaces")
    for character in text:
        if not character.isprintable():
            raise ValueError(f"it contains {name_of(character)}, which cannot be seen")
    return text


def check_email(value: object) -> str:
    text = check_word(value)
    name, _, domain = text.rpartition("@")
    labels = domain.split(".")
    is_domain = len(labels) >= 2 and all(labels)
    unusual = set(name + domain) & set('@<>,;:"')
    if not name or not is_domain or unusual:
        raise ValueError("expected an e-mail address")
    return text


def check_host(value: object) -> str:
    text = check_word(value).rstrip(".")
    with suppress(ValueError):
        return str(ipaddress.ip_address(text.strip("[]")))
    if not re.fullmatch(r"[\w-]{1,63}(\.[\w-]{1,63})*", text):
        raise ValueError("expected a host name without https:// and without a port")
    return text


#: What LiteLLM appends to a base URL itself, and what people copy with it.
ENDPOINTS = ("/chat/completions", "/messages", "/models", "/api/chat", "/api/generate")


def check_url(value: object) -> str:
    text = check_word(value).rstrip("/")
    expected = "expected a URL that begins with https:// or http://"
    try:
        parts = urlsplit(text)
        has_host = parts.hostname and parts.port != 0  # port raises ValueError as well
    except ValueError:
        raise ValueError(expected) from None
    is_http = parts.scheme in ("https", "http")
    if not is_http or not has_host or not text.isascii():
        raise ValueError(expected)
    if parts.username or parts.password or set(text) & set("?#"):
        raise ValueError(f"{expected}, without a login and without ? or #")
    for endpoint in ENDPOINTS:
        if text.endswith(endpoint):
            raise ValueError(f"expected the base URL, without {endpoint} at its end")
    return f"{parts.scheme}{text[len(parts.scheme) :]}"  # the scheme in lower case


def check_whole_number(low: int, high: int, value: object) -> int:
    expected = f"expected a whole number from {low} to {high}"
    if isinstance(value, str) and re.fullmatch("[0-9]{1,9}", value):
        value = int(value)
    if type(value) is not int or not low <= value <= high:
        raise ValueError(expected)
    return value


def check_choice(choices: Sequence[str], value: object) -> str:
    text = check_text(value)
    if text not in choices:
        raise ValueError(f"expected one of {', '.join(choices)}")
    return text


def check_names(value: object) -> list[str]:
    """A list of names, or the names in one text: `a b`, `a, b` or `["a", "b"]`."""
    if isinstance(value, str):
        value = re.findall(r'[^\s,"\[\]]+', value)
    if not isinstance(value, list) or not value or "" in value:
        raise ValueError("expected a list of names")
    return [check_word(name) for name in value]


EXPECTED_MODEL = f"expected a model with its provider, such as {EXAMPLE_MODEL}"


def check_model(value: object) -> str:
    """A LiteLLM model string with its provider; few models work without."""
    model = check_word(value)
    if "/" not in model:
        return check_bare_model(model)
    name, *rest = model.split("/")
    if not re.fullmatch("[A-Za-z0-9_-]+", name) or not all(rest):
        raise ValueError(EXPECTED_MODEL)
    meant = nearest_provider(name)
    if meant:
        raise ValueError(f"expected {without_credentials('/'.join([meant, *rest]))}")
    return model


def check_bare_model(model: str) -> str:
    """A model without a provider, which it gets if its name tells whose it is."""
    name, colon, tag = model.partition(":")
    owner = OTHER_NAMES.get(name.lower(), name.lower())
    is_owner = owner in PROVIDERS or owner in SAME_PROVIDER
    if not name or (is_owner and not tag) or CREDENTIAL.search(model):
        raise ValueError(EXPECTED_MODEL)
    if is_owner and tag[:1].isalpha():
        raise ValueError(f"expected {owner}/{tag} or ollama/{model}")
    if colon and ":" not in tag:
        return f"ollama/{model}"  # such as gpt-oss:20b
    for start, provider in MODEL_STARTS.items():
        if model.startswith(start):
            return f"{provider}/{model}"
    starts = {name: name for name in PROVIDERS} | MODEL_STARTS
    lower = model.lower()
    owners = [name for start, name in starts.items() if lower.startswith(start)]
    meant = f"{owners[0]}/{lower}" if owners else f"ollama/{model}"
    raise ValueError(f"expected a model with its provider, such as {meant}")


#: What else people copy with a key, and how to call it.
NOT_THE_KEY_ALONE = {
    r"(export\s+)?[A-Z_][A-Z0-9_]*=[^=]|(?i:(export\s+)?\w+_key=)": "NAME= before it",
    r"(?i)bearer\s": "Bearer before it",
    ".*[\"'`]": "a quote in it",
    r".*\s": "a blank in it",
}


def check_key(name: str, any_word: bool, text: str) -> str:
    """A key of a provider; a server that is not its own may take *any_word*."""
    check_lines(text)
    for pattern, what in NOT_THE_KEY_ALONE.items():
        if re.match(pattern, text):
            raise ValueError(f"expected the key alone, without {what}")
    for character in text:
        if not "!" <= character <= "~":
            raise ValueError(f"it contains {name_of(character)}, which no key has")
    if not any_word:
        check_key_start(name, text)
    return text


def check_key_start(name: str, text: str) -> None:
    for start, owner in KEY_STARTS.items():
        if text.startswith(start) and owner != name:
            title = PROVIDERS[owner].title
            raise ValueError(
                f"this looks like a key of {title}: it begins with {start}"
            )
    start = find_provider(name).key_must_start
    if not text.startswith(start):
        other_server = f"for another server, first set providers.{name}.api_base"
        raise ValueError(f"expected a key that begins with {start} ({other_server})")


def is_app_password(text: str) -> bool:
    return re.fullmatch("[A-Za-z]{16}", text) is not None


def join_app_password(text: str) -> str:
    """An app password without the spaces between Google's groups of letters."""
    letters = "".join(text.split())
    return letters if is_app_password(letters) else text


def doubt_app_password(password: str) -> str:
    if is_app_password(password):
        return ""
    return (
        "this does not look like an app password, 16 letters that Google makes for one"
        " program; your Google password does not work here"
    )


def doubt_mailing_address(address: str) -> str:
    if CREDENTIAL.fullmatch(address) or len(address.split()) < 2:
        return "this does not look like a postal address"
    return ""


def is_google(host: str) -> bool:
    return f".{host}".lower().endswith((".gmail.com", ".googlemail.com", ".google.com"))


# The settings =================================================================
#
# The fields of these dataclasses are those of config.json, and each one declares its
# row of the table of settings. Their order is that of the file, of the questions, of
# the summary and of the help.


@dataclass(frozen=True)
class Setting:
    """One value of the configuration, and all that the commands know of it."""

    default: Any
    check: Check  # of every value, from wherever
    path: tuple[str, ...] = ()  # where it stands in config.json
    prepare: Check = str  # before the check, only of a text that somebody gives
    doubt: Callable[[Any], str] | None = None  # what to warn of when it is given
    label: str = ""  # its Service in the summary; without one it is not in it
    shown_if_missing: bool = True  # in the summary
    question: str = ""  # setup asks in these words; without them it does not ask
    note: str = ""  # printed before the question
    help: str = ""  # the answer to "?": what it is for, where it is made, how it looks
    variables: tuple[str, ...] = ()  # setup reads the first that is set, run sets one
    used: bool = True  # false for a provider that no agent's model needs
    secret: bool = False  # hidden, encrypted, masked
    required: bool = False  # setup and show fail without it
    must_be_chosen: bool = False  # its default does not count as an answer
    same_for: str = ""  # the setting that gets the same value, unless it has another
    default_path: str = ""  # the path that "" means, below the base directory
    # The columns that are others where a mail server is not Google's:
    without_google: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its dotted name, which get, set and unset take."""
        return ".".join(self.path)

    def parse(self, text: str) -> Any:
        """The value of a given text; ValueError says what was expected."""
        text = clean(text)
        if not text:
            raise ValueError("please enter a value")
        value = self.check(self.prepare(text))
        if self.secret:
            masks.add(text)
            masks.add(value)
        return value


def declare(default: Any, check: Check, **columns: Any) -> Any:
    """Declare a field of the configuration, with its row of the table of settings."""
    return field(
        default_factory=partial(copy, default),
        repr=not columns.get("secret"),
        metadata={"setting": Setting(default, check, **columns)},
    )


def declare_path(default_path: str, what: str) -> Any:
    """Declare a path of the agents', by default *default_path*."""
    relative = "A relative path is below the base directory."
    return declare("", check_text, help=f"{what} {relative}", default_path=default_path)


check_port = partial(check_whole_number, 1, 65535)

GMAIL_HELP = """\
The agents send and read mail through this Gmail account. It needs 2-Step
Verification: https://myaccount.google.com/security
For another mail server, first set smtp.host and imap.host."""

APP_PASSWORD_NOTE = f"""\
An app password is 16 letters that Google makes for one program. It is not
your Google password. Turn on 2-Step Verification first, then make one at
{APP_PASSWORD_PAGE}"""

APP_PASSWORD_HELP = """\
Google shows it as abcd efgh ijkl mnop; the spaces do not matter. It stops
working when you change your Google password: then make a new one. If the page
says that the setting is not available, your administrator does not allow it."""

#: The columns that the passwords of both mail servers have.
PASSWORD: dict[str, Any] = {
    "check": check_text,
    "prepare": join_app_password,
    "doubt": doubt_app_password,
    "note": APP_PASSWORD_NOTE,
    "help": APP_PASSWORD_HELP,
    "secret": True,
    "required": True,
}
PLAIN_PASSWORD: dict[str, Any] = {
    "prepare": str,
    "doubt": None,
    "note": "",
    "help": "The password that your mail server expects from a mail program.",
}
USERNAME_HELP = "The name with which you log in to your mail server."


@dataclass
class SmtpConfig:
    """The server that sends mail (TLS on port 465, else STARTTLS), and its login."""

    host: str = declare(
        "smtp.gmail.com",
        check_host,
        label="SMTP server",
        help="The server that sends your mail, such as smtp.gmail.com.",
    )
    port: int = declare(
        587,
        check_port,
        label="SMTP port",
        help="Usually 587, or 465 for TLS from the first byte.",
    )
    username: str = declare(
        "",
        check_email,
        label="Gmail address",
        question="Gmail address for sending:",
        help=GMAIL_HELP,
        variables=("GMAIL_USERNAME",),
        required=True,
        same_for="imap.username",
        without_google={
            "check": check_word,
            "label": "SMTP user name",
            "question": "User name at the mail server:",
            "help": USERNAME_HELP,
        },
    )
    password: str = declare(
        "",
        **PASSWORD,
        label="Gmail App Password",
        question="Gmail App Password (hidden):",
        variables=("GMAIL_APP_PASSWORD",),
        same_for="imap.password",
        without_google={
            **PLAIN_PASSWORD,
            "label": "SMTP password",
            "question": "Password at the mail server (hidden):",
        },
    )


@dataclass
class ImapConfig:
    """The server that receives mail, and its login: TLS from the first byte."""

    host: str = declare(
        "imap.gmail.com",
        check_host,
        label="IMAP server",
        help="The server that receives your mail, such as imap.gmail.com.",
    )
    port: int = declare(993, check_port, label="IMAP port", help="Usually 993.")
    username: str = declare(
        "",
        check_email,
        label="IMAP user name",
        help=GMAIL_HELP,
        required=True,
        without_google={"check": check_word, "help": USERNAME_HELP},
    )
    password: str = declare(
        "",
        **PASSWORD,
        label="IMAP password",
        without_google=PLAIN_PASSWORD,
    )


@dataclass
class AgentConfig:
    """What one agent needs: its LiteLLM model string, such as "ollama/llama3.1"."""

    model: str = declare(
        DEFAULT_MODEL,
        check_model,
        label="{name} model",
        question="Model of {name}:",
        help=f"""\
A LiteLLM model string: the provider, a slash, and the model's name there,
such as {DEFAULT_MODEL}, {EXAMPLE_MODEL} or openai/gpt-5.5.
https://docs.litellm.ai/docs/providers lists the providers.""",
        must_be_chosen=True,
    )


@dataclass
class ProviderConfig:
    """The account with one provider of models: "" where nothing is stored."""

    api_key: str = declare(
        "",
        check_word,
        label="{title} API key",
        question="{title} API key (hidden):",
        note="Make a key at {provider.key_page}",
        help="""\
The agents that use {title}'s models need this key. It is one word, usually 40
characters or longer, and is made at
{provider.key_page}""",
        secret=True,
    )
    api_base: str = declare(
        "",
        check_url,
        label="{title} base URL",
        help="""\
The URL of a server to ask instead of {title}'s own, such as a LiteLLM proxy,
a company's gateway, LM Studio or vLLM. It begins with https:// or http://.""",
    )


@dataclass
class AppConfig:
    """The whole configuration, secrets in plain text (and left out of its repr).

    `agents` has the seven of AGENT_NAMES, or more. `providers` has those of which a key
    or a base URL was given, by LiteLLM's name. "" as a path is the default place.
    """

    smtp: SmtpConfig = field(default_factory=SmtpConfig)
    imap: ImapConfig = field(default_factory=ImapConfig)
    agents: dict[str, AgentConfig] = field(
        default_factory=lambda: {name: AgentConfig() for name in AGENT_NAMES}
    )
    providers: dict[str, ProviderConfig] = field(default_factory=dict)
    mailing_address: str = declare(
        "",
        check_lines,
        doubt=doubt_mailing_address,
        label="Mailing address",
        question="Physical mailing address (required for CAN-SPAM):",
        help="""\
The postal address at the foot of every mail that the agents send: a street
address or a post office box. The US law CAN-SPAM requires one. In setup, Enter
leaves it out for now.""",
        variables=("MAILING_ADDRESS",),
    )
    max_retries: int = declare(
        3,
        partial(check_whole_number, 0, 100),
        help="How often the agents repeat a call that failed, from 0 to 100.",
    )
    backoff_strategy: str = declare(
        "exponential",
        partial(check_choice, ("exponential", "linear", "constant")),
        help="How the pauses between retries grow: exponential, linear or constant.",
    )
    llm_fallback_chain: list[str] = declare(
        ["claude", "openai", "ollama"],
        check_names,
        help="What the agents fall back to, in this order, such as: claude openai.",
    )
    db_path: str = declare_path("outreach.db", "The file of the agents' database.")
    log_dir: str = declare_path("logs", "The directory of the logs.")
    resume_dir: str = declare_path("resume", "The directory of your resumes.")
    venues_dir: str = declare_path("venues", "The directory of the agents' venues.")

    def litellm_kwargs(self, agent: str) -> dict[str, str]:
        """Return what a LiteLLM call takes for the model of *agent*.

        That is its `model`, and its `api_key` and `api_base` if they are stored; what
        is not, LiteLLM reads from its own variables. Raises ConfigError if the provider
        needs a key and there is none in either place; KeyError for an unknown agent.
        """
        model = self.agents[agent].model
        model = normal_model(model) or model
        name = provider_of(model)
        account = self.providers.get(name, ProviderConfig())
        variables = key_variables(name)
        needs_key = find_provider(name).needs_key
        if needs_key and not account.api_key and not first_set(variables):
            raise ConfigError(
                f"providers.{name}.api_key: missing, and the model of {agent} needs it",
                hint=f"set providers.{name}.api_key, or the variable {variables[0]}",
            )
        stored = {"api_key": account.api_key, "api_base": account.api_base}
        given = {column: text for column, text in stored.items() if text}
        return {"model": model, **given}


# The table of settings ========================================================


def lookup(content: Any, *path: str) -> Any:
    """What stands at *path* in nested objects; None if nothing does."""
    for name in path:
        if not isinstance(content, dict):
            return None
        content = content.get(name)
    return content


def parts_of(content: Any, name: str) -> dict[str, Any]:
    """What stands in `agents` or `providers`, by name; nothing if that is no object."""
    found = lookup(content, name)
    return found if isinstance(found, dict) else {}


def declared(part: type[Any], *path: str, **words: Any) -> list[Setting]:
    """The rows of a dataclass that stands at *path*, *words* put into their texts."""
    texts = ("label", "question", "note", "help")
    rows = []
    for item in fields(part):
        row = item.metadata["setting"]
        filled = {text: getattr(row, text).format(**words) for text in texts}
        rows.append(replace(row, path=(*path, item.name), **filled))
    return rows


def mail_rows(server: str, content: Any) -> list[Setting]:
    """The rows of a mail server, with other texts if a server is not Google's."""
    part = {"smtp": SmtpConfig, "imap": ImapConfig}[server]
    rows = declared(part, server)
    for section in ("smtp", server):
        host = lookup(content, section, "host")
        if isinstance(host, str) and host and not is_google(host):
            return [replace(row, **row.without_google) for row in rows]
    return rows


def provider_rows(name: str, used: bool, stored_url: object) -> Iterator[Setting]:
    """The key and the base URL of any provider; its own row says what is special."""
    provider = find_provider(name)
    words = {"title": provider.title, "provider": provider}
    key, base_url = declared(ProviderConfig, "providers", name, **words)
    is_own_server = base_url_in_use(name, stored_url) == provider.base_url
    needed = used and provider.needs_key
    yield replace(
        key,
        prepare=partial(check_key, name, not is_own_server),
        question=key.question if needed else "",
        variables=() if meant_provider(name) else key_variables(name),
        used=used,
        required=needed,
        shown_if_missing=needed,
    )
    variables = () if meant_provider(name) else base_url_variables(name)
    yield replace(base_url, variables=variables, used=used, shown_if_missing=False)


def make_table(content: Mapping[str, Any]) -> dict[str, Setting]:
    """Every setting by name, for the mail server, agents and providers of *content*."""
    agents = parts_of(content, "agents")
    accounts = parts_of(content, "providers")
    agent_names = dict.fromkeys([*AGENT_NAMES, *agents])
    models = [lookup(agents, name, "model") or DEFAULT_MODEL for name in agent_names]
    used = sorted({provider_of(normal_model(model)) for model in models} - {""})
    rows: list[Setting] = []
    for item in fields(AppConfig):
        match item.name:
            case "smtp" | "imap":
                rows += mail_rows(item.name, content)
            case "agents":
                for name in agent_names:
                    (row,) = declared(AgentConfig, "agents", name, name=name)
                    question = row.question if name in AGENT_NAMES else ""
                    rows.append(replace(row, question=question))
            case "providers":
                for name in dict.fromkeys([*PROVIDERS, *used, *accounts]):
                    base_url = lookup(accounts, name, "api_base")
                    rows += provider_rows(name, name in used, base_url)
            case _:
                rows.append(replace(item.metadata["setting"], path=(item.name,)))
    return {row.name: row for row in rows}


def normal_model(model: object) -> str:
    """A model string as it is stored; "" if it is none."""
    try:
        return check_model(model)
    except ValueError:
        return ""


def list_names() -> str:
    """Every setting's name with its variables, a line each, for the help."""
    lines = {}
    for row in make_table({}).values():
        match row.path:
            case ("agents", _, last):
                lines[f"agents.AGENT.{last}"] = ""
            case ("providers", _, last):
                lines[f"providers.PROVIDER.{last}"] = f"<PROVIDER>_{last.upper()}"
            case _:
                lines[row.name] = ", ".join(row.variables)
    texts = [f"  {name:<29} {variables}" for name, variables in lines.items()]
    return "\n".join(text.rstrip() for text in texts)


def as_text(value: Any) -> str:
    """A value as get prints it and run hands it out: what is not text, as JSON."""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


# Files ========================================================================

DEFAULT_BASE_DIR = "~/.outreach-agent"
BASE_DIR_VARIABLE = "JOB_HUNTER_BASE_DIR"
KEY_FILE_VARIABLE = "JOB_HUNTER_KEY_FILE"
CONFIG_FILE = "config.json"
KEY_FILE = ".key"
OLD_KEY_FILE = ".key.old"  # the former machine key, until a rotation is finished
LOCK_FILE = ".lock"
TEMPORARY_PREFIX = ".job_hunter-"  # of a file that is being written
# A write takes less, so an older temporary file was left by one that was killed.
LEFTOVER_SECONDS = 60

MOVE_AWAY = "move it away, then run the command again"
LOCAL_DIRECTORY = "choose a directory on a local disk with --base-dir"
NO_LOCKS = f"this file system has no locks: {LOCAL_DIRECTORY}"
#: What to do about an error of the operating system.
OS_HINTS = {
    errno.ENOSPC: "free some space on that disk, then run the command again",
    errno.EDQUOT: "your disk quota is used up: free some space, then run it again",
    errno.EACCES: "check the owner and the mode of the file and of its directory",
    errno.EEXIST: MOVE_AWAY,
    errno.ENOTDIR: MOVE_AWAY,
    errno.EISDIR: MOVE_AWAY,
    errno.ELOOP: MOVE_AWAY,
    errno.EROFS: "make that file system writable, or choose another --base-dir",
    errno.EBUSY: "it is mounted as a single file: mount its directory instead",
    errno.EPERM: f"this file system may have no owners and modes: {LOCAL_DIRECTORY}",
    errno.ENOLCK: NO_LOCKS,
    errno.ENOSYS: NO_LOCKS,
    errno.ENOTSUP: NO_LOCKS,
}


@contextmanager
def explained(path: object) -> Iterator[None]:
    """Turn an error of the operating system into a ConfigError that names *path*."""
    try:
        yield
    except OSError as error:
        hint = OS_HINTS.get(error.errno or 0, "")
        raise ConfigError(f"{path}: {error.strerror or error}", hint=hint) from error


# A link could lead to another file, and a pipe would wait for its other end.
OWN_FILE_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


def set_private_mode(descriptor: int) -> None:
    """Give a new file the mode 0600 whatever the umask took away."""
    if sys.platform != "win32":  # where the home directory protects it
        os.fchmod(descriptor, 0o600)


def lets_others_in(found: os.stat_result) -> bool:
    """Whether other users have any access to a file or directory that is ours alone.

    A file that has other hard links, and a sticky directory, do not count as such.
    """
    if sys.platform == "win32":
        return False
    single = stat.S_ISREG(found.st_mode) and found.st_nlink == 1
    directory = stat.S_ISDIR(found.st_mode) and not found.st_mode & stat.S_ISVTX
    ours = found.st_uid == os.geteuid()
    return ours and (single or directory) and found.st_mode & 0o077 != 0


def is_loose(path: Path) -> bool:
    try:
        return lets_others_in(path.lstat())
    except OSError:  # it is not there, or it is not for us to see
        return False


def make_private(path: Path) -> None:
    """Remove other users' access to a file or directory of ours."""
    with suppress(OSError):  # tighten() looks at what became of it
        descriptor = os.open(path, os.O_RDONLY | OWN_FILE_FLAGS)
        try:
            found = os.fstat(descriptor)
            if lets_others_in(found):
                os.fchmod(descriptor, stat.S_IMODE(found.st_mode) & 0o700)
        finally:
            os.close(descriptor)


def other_owner(directory: Path) -> str:
    """The user whose directory it is; "" if it is this user's or root's."""
    if sys.platform != "win32":
        import pwd

        # A link of another user's could lead to a directory of ours.
        for found in (directory.lstat(), directory.stat()):
            if found.st_uid not in (os.geteuid(), 0):
                with suppress(KeyError):  # of a user without a name here
                    return pwd.getpwuid(found.st_uid).pw_name
                return f"user {found.st_uid}"
    return ""


@cache
def warn_once(message: str) -> None:
    """Log a warning, once in a process."""
    logger.warning(message)


def base_directory(base_dir: Directory = None) -> Path:
    """The absolute base directory: *base_dir*, else the variable, else the default."""
    given = os.fspath(base_dir or os.environ.get(BASE_DIR_VARIABLE, ""))
    return absolute_path(clean(given) or DEFAULT_BASE_DIR)


def absolute_path(text: str, below: Path | None = None) -> Path:
    """The path that a person wrote: ~ is expanded, and it is relative to *below*."""
    expanded = os.path.expanduser(text)
    if expanded.startswith("~"):
        hint = "set HOME, or choose a directory with --base-dir"
        raise ConfigError(f"{text}: cannot find that home directory", hint=hint)
    with explained(text):  # where the working directory was removed
        return Path(os.path.abspath((below or Path()) / expanded))


def tighten(base_dir: Path) -> None:
    """Remove other users' access to a base directory, its configuration and its key."""
    config, key = base_dir / CONFIG_FILE, base_dir / KEY_FILE
    if not config.exists() and not key.exists():
        return  # this directory is not ours
    paths = [Path(os.path.realpath(base_dir)), config, key]
    loose = [path for path in paths if is_loose(path)]
    for path in loose:
        make_private(path)
    still_loose = [str(path) for path in loose if is_loose(path)]
    if still_loose:
        warn_once(
            f"other users can read {', '.join(still_loose)}, and this file system does"
            " not change that; choose a directory on another one with --base-dir"
        )
    elif loose:
        names = ", ".join(map(str, loose))
        logger.warning("removed other users' access to %s", names)


def require_own(directory: Path) -> None:
    """Raise if *directory* is another user's: a link in it could lead us anywhere."""
    with explained(directory):
        owner = other_owner(directory)
    if owner:
        raise ConfigError(
            f"{directory} belongs to {owner}, so nothing is written there",
            hint="run this as that user (docker run --user ...), or choose --base-dir",
        )


def make_directory(path: Path) -> None:
    """Make a directory, and those above it, for this user alone."""
    with explained(path):
        if path.is_dir():
            return
    make_directory(path.parent)
    require_own(path.parent)
    with explained(path):
        try:
            path.mkdir(0o700)
        except FileExistsError:
            if not path.is_dir():  # or another process made it at the same moment
                raise
        else:
            path.chmod(0o700)  # the rights that a strict umask took away


def open_private(path: str, flags: int) -> int:
    """The opener for open() of our own files: a new one is for this user alone."""
    flags |= OWN_FILE_FLAGS
    try:
        descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return os.open(path, flags & ~os.O_CREAT)
    set_private_mode(descriptor)
    return descriptor


def read_file(path: Path) -> bytes | None:
    """The content of a regular file; None if there is no file."""
    with explained(path):
        try:
            if not stat.S_ISREG(path.stat().st_mode):
                raise ConfigError(f"{path}: not a regular file", hint=MOVE_AWAY)
            return path.read_bytes()
        except FileNotFoundError:
            return None


def write_file(path: Path, content: bytes) -> None:
    """Replace *path*, or the file that it links to, atomically and durably."""
    path = Path(os.path.realpath(path))
    with explained(path):
        remove_leftovers(path.parent)
        descriptor, temporary = tempfile.mkstemp(
            prefix=TEMPORARY_PREFIX, dir=path.parent
        )
        try:
            with open(descriptor, "wb") as file:
                set_private_mode(descriptor)
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
    flush_directory(path.parent)


def flush_directory(directory: Path) -> None:
    """Make a rename in *directory* survive a power failure, where that can be done."""
    with suppress(OSError):  # not every file system can; the file itself is on disk
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_leftovers(directory: Path) -> None:
    """Remove what killed writers left; what is new may be another writer's still."""
    for path in directory.glob(f"{TEMPORARY_PREFIX}*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > LEFTOVER_SECONDS:
                path.unlink()


def wait_for_lock(descriptor: int) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_LOCK, 1)  # waits for 10 seconds
    else:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX)


@contextmanager
def locked(base_dir: Path) -> Iterator[None]:
    """Hold the lock of a base directory."""
    path = base_dir / LOCK_FILE
    with explained(path):
        descriptor = open_private(str(path), os.O_RDWR)
    try:
        with explained(path):
            wait_for_lock(descriptor)
        yield
    finally:
        os.close(descriptor)


def backup_path(path: Path) -> Path:
    """What to name a copy of *path* that is kept: nothing reads it."""
    now = datetime.now().strftime("%Y%m%d-%H%M%S-%f")
    return path.with_name(f"{path.name}.{now}.bak")


# Vault: how secrets are protected =============================================

SECRET_MARK = "__encrypted__:"
MACHINE_KEY_BYTES = 32
# They belong to the format of config.json. 600,000 is what the OWASP Password Storage
# Cheat Sheet asks of PBKDF2-HMAC-SHA256; a random key of 32 bytes would not need it.
KDF_SALT = b"ingot-v1-static-salt"
KDF_ITERATIONS = 600_000


def require_cryptography() -> None:
    if cryptography_error:
        script = shlex.quote(__file__)
        raise ConfigError(
            f"cannot import the package cryptography ({cryptography_error});"
            " make an environment that has it: python3 -m venv .venv &&"
            " .venv/bin/pip install 'cryptography>=44', and start the program with"
            f" .venv/bin/python {script}; or with: uv run {script}"
        )


@cache  # without a lock, so that a child forked meanwhile never waits for one
def derive(machine_key: bytes) -> Fernet:
    """The Fernet of a machine key, derived once in a process."""
    require_cryptography()
    kdf = PBKDF2HMAC(SHA256(), length=32, salt=KDF_SALT, iterations=KDF_ITERATIONS)
    return Fernet(urlsafe_b64encode(kdf.derive(machine_key)))


class Vault:
    """Encrypts and decrypts with the machine key of one base directory.

    While a rotation is not finished, `old_key` is the former machine key: either of the
    two decrypts, and `key` encrypts. `is_external` says that JOB_HUNTER_KEY_FILE names
    the key's file, which its owner alone makes and changes.
    """

    def __init__(
        self,
        path: Path,
        old_path: Path,
        is_external: bool,
        key: bytes | None,
        old_key: bytes | None,
    ) -> None:
        self.path = path
        self.old_path = old_path
        self.is_external = is_external
        self.key = key
        self.old_key = old_key

    @property
    def keys(self) -> list[bytes]:
        return [key for key in (self.key, self.old_key) if key]

    def open(self, token: str) -> str | None:
        """The text in a token; None if no key opens it."""
        fernets = [derive(key) for key in self.keys]
        if not fernets:
            return None
        try:
            return MultiFernet(fernets).decrypt(token).decode()
        except (InvalidToken, ValueError):  # or it is not ASCII, or holds no text
            return None

    def seal(self, plaintext: str) -> str:
        """A token of *plaintext*. It may make the machine key: hold the lock."""
        return self.fernet().encrypt(plaintext.encode()).decode("ascii")

    def fernet(self) -> Fernet:
        """What encrypts. It may make the machine key: hold the lock."""
        return derive(self.key or self.make_key())

    def external_key_missing(self) -> ConfigError:
        key = shlex.quote(str(self.path))
        return ConfigError(
            f"{KEY_FILE_VARIABLE} names {self.path}, which is missing",
            hint="mount it; or make a machine key:"
            f" umask 077; head -c {MACHINE_KEY_BYTES} /dev/urandom > {key}",
        )

    def refuse_missing_external_key(self) -> None:
        if self.is_external and self.key is None:
            raise self.external_key_missing()

    def make_key(self) -> bytes:
        """Make the machine key, or the next one. Hold the lock."""
        require_cryptography()  # or there would be a key that nothing can use
        self.refuse_missing_external_key()
        key = os.urandom(MACHINE_KEY_BYTES)
        write_file(self.path, key)
        self.key = key
        logger.info("made the machine key %s", self.path)
        return key

    def begin_rotation(self) -> None:
        """Make a new machine key, and keep the former one until nothing needs it."""
        former = self.key or self.make_key()
        write_file(self.old_path, former)
        try:
            self.make_key()
        except ConfigError:
            if read_key(self.path) == former:  # nothing was changed
                with suppress(OSError):
                    self.old_path.unlink()
            raise
        self.old_key = former

    def end_rotation(self) -> None:
        """Put the former machine key aside: config.json needs it no more."""
        if self.old_key == self.key:  # the rotation was stopped before it began
            with explained(self.old_path):
                self.old_path.unlink()
            self.old_key = None
            return
        backup = backup_path(self.old_path.with_name(KEY_FILE))
        with explained(self.old_path):
            os.replace(self.old_path, backup)
        self.old_key = None
        logger.warning(
            "the old machine key is kept as %s; delete it when no copy of"
            " config.json needs it any more",
            backup,
        )

    def error_for(self, what: str, way_out: str = "") -> ConfigError:
        """The error of tokens that no key opens; *way_out* is added to its hint."""
        if self.is_external and self.key is None:
            return self.external_key_missing()
        problem = f"{what} was encrypted with a different key than {self.path}"
        if not self.keys:
            problem = f"{what} cannot be decrypted: {self.path} is missing"
        return ConfigError(
            problem,
            hint=f"restore that machine key (and {OLD_KEY_FILE} if there was one), or"
            f" name its file in {KEY_FILE_VARIABLE}{way_out}",
        )


def read_key(path: Path) -> bytes | None:
    """The machine key in a file; None if there is no file."""
    key = read_file(path)
    if key is not None and len(key) != MACHINE_KEY_BYTES:
        raise ConfigError(
            f"{path}: expected {MACHINE_KEY_BYTES} bytes, found {len(key)}",
            hint=f"restore it from a copy, or {MOVE_AWAY};"
            f" {KEY_FILE_VARIABLE} can name another machine key",
        )
    return key


def is_same_file(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:  # one of them is not there
        return False


def read_vault(base_dir: Path) -> Vault:
    """The vault of a base directory, with the keys that its files hold now."""
    named = clean(os.environ.get(KEY_FILE_VARIABLE, ""))
    path = absolute_path(named) if named else base_dir / KEY_FILE
    old_path = base_dir / OLD_KEY_FILE
    try:
        key = read_key(path)
    except ConfigError as error:
        if not named:
            raise
        needed = f"a file of {MACHINE_KEY_BYTES} bytes that you can read"
        hint = f"{KEY_FILE_VARIABLE} must name {needed}"
        if os.path.isfile(old_path) and not is_same_file(path, old_path):
            hint += f"; {old_path} may hold the key before a rotation"
        raise ConfigError(*error.problems, hint=hint) from error
    old_key = None if is_same_file(path, old_path) else read_key(old_path)
    return Vault(path, old_path, named != "", key, old_key)


def get_fernet(base_dir: Directory = None) -> Fernet:
    """Return the Fernet of the machine key in *base_dir*; make the key if needed.

    After rotate-key, it no longer decrypts what was encrypted before.
    Raises ConfigError if the machine key is damaged, or is missing or another one
    although secrets are stored, or if JOB_HUNTER_KEY_FILE names one that is missing.
    """
    with ConfigManager(base_dir).edit() as document:
        document.refuse_other_key()
        return document.vault.fernet()


def encrypt_secret(plaintext: str, base_dir: Directory = None) -> str:
    """Encrypt any text with the machine key in *base_dir*; make the key if needed.

    Returns a bare Fernet token, without the mark of config.json; raises as get_fernet.
    rotate-key does not renew it: after that, it cannot be decrypted any more.
    """
    with ConfigManager(base_dir).edit() as document:
        document.refuse_other_key()
        return document.vault.seal(plaintext)


def decrypt_secret(token: str, base_dir: Directory = None) -> str:
    """Return the text in a token of encrypt_secret. Never makes a machine key.

    Raises ConfigError if there is no machine key in *base_dir*, or if the token was not
    made with it.
    """
    vault = read_vault(base_directory(base_dir))
    plaintext = vault.open(token.removeprefix(SECRET_MARK))
    if plaintext is None:
        raise vault.error_for("the token")
    return plaintext


# Document: config.json in memory ==============================================


@dataclass
class State:
    """What a configuration says of one setting."""

    value: Any  # checked, in plain text; the default if missing or invalid
    status: str  # configured, default, missing, invalid or unreadable
    problem: ConfigError | None = None  # if it is invalid or unreadable


def raise_problems(problems: Iterable[ConfigError | None]) -> None:
    """Raise all problems as one error, with what to do about the first."""
    found = [problem for problem in problems if problem]
    if found:
        sentences = dict.fromkeys(str(problem) for problem in found)
        raise ConfigError(*sentences, hint=found[0].hint)


def describe(value: object) -> str:
    """How a message names a value that was found; never a credential."""
    match value:
        case dict():
            return "an object"
        case list():
            return "a list"
        case str():
            value = without_credentials(value)
    text = json.dumps(value, ensure_ascii=False, default=repr)
    if len(text) > 60:
        return f"a value of {len(text)} characters"
    return text


def fits(setting: Setting, value: Any) -> bool:
    """Whether a value may be stored for a setting."""
    try:
        setting.check(value)
    except ValueError:
        return bool(value == "")
    return True


def found_problem(setting: Setting, error: ValueError, value: object) -> str:
    """The sentence for a value that a check refused."""
    if setting.secret or value == "":
        return f"{setting.name}: {error}"
    return f"{setting.name}: {error}, found {describe(value)}"


def parse_config(data: bytes | None, path: Path) -> dict[str, Any]:
    """The object in config.json; without a file, the defaults."""
    if data is None:
        return asdict(AppConfig(agents={}))  # a model that stands there was chosen
    hint = f"fix it in an editor, or {MOVE_AWAY}"
    if not data.strip():
        raise ConfigError(f"{path} is empty", hint=f"restore it, or {MOVE_AWAY}")
    try:
        content = json.loads(data.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8: save it as UTF-8", hint=hint) from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: {error}", hint=hint) from None
    if not isinstance(content, dict):
        found = describe(content)
        raise ConfigError(f"{path}: expected an object, found {found}", hint=hint)
    return content


PROVIDER_NAME = re.compile(r"providers\.([a-z0-9_-]+)\.(api_key|api_base)")
PROVIDER_VARIABLE = re.compile("([a-z0-9_]+)_(api_key|api_base)")


class Document:
    """The values of config.json in memory.

    It takes and gives plain values, and holds JSON in which the secrets are encrypted.
    """

    def __init__(self, base_dir: Path, vault: Vault, data: bytes | None) -> None:
        self.base_dir = base_dir
        self.path = base_dir / CONFIG_FILE
        self.vault = vault
        self.is_new = data is None
        self.content = parse_config(data, self.path)
        self.changes: list[str] = []  # for the log
        self.cleared: list[str] = []  # the secrets that could not be read

    @cached_property
    def table(self) -> dict[str, Setting]:
        """Every setting by name, for what is stored now."""
        return make_table(self.content)

    def note_change(self, change: str) -> None:
        self.changes.append(change)
        self.__dict__.pop("table", None)  # it may have other rows now

    def dump(self) -> bytes:
        text = json.dumps(self.content, indent=2, ensure_ascii=False)
        # Half of a surrogate pair, which has no UTF-8, becomes the escape it came from.
        return f"{text}\n".encode("utf-8", "backslashreplace")

    def command(self, *words: str) -> str:
        return command_line(self.base_dir, *words)

    # Names -----------------------------------------------------------------

    def find(self, name: str) -> Setting:
        """The setting of a dotted name or of a variable, in upper or lower case."""
        if name in self.table:
            return self.table[name]
        asked = name.strip().lower()
        for setting in self.table.values():
            variables = [variable.lower() for variable in setting.variables]
            if asked in (setting.name.lower(), *variables):
                return setting
        match = PROVIDER_NAME.fullmatch(asked)
        is_credential = CREDENTIAL.search(name) is not None
        if match and not nearest_provider(match[1]) and not is_credential:
            provider = SAME_PROVIDER.get(match[1], match[1])
            key, base_url = provider_rows(provider, used=False, stored_url="")
            return key if match[2] == "api_key" else base_url
        raise self.unknown_name(name)

    def unknown_name(self, name: str) -> ConfigError:
        asked, equals, _ = name.partition("=")
        near = self.names_near(asked)
        if equals and near:
            value = "" if self.find(near[0]).secret else " VALUE"
            problem = "give the name and the value as two words"
            hint = f"run: {self.command('set', near[0])}{value}"
            return ConfigError(problem, hint=hint, status=2)
        hint = f"the names are:\n{list_names()}"
        if near:
            hint = f"did you mean {' or '.join(near)}?"
        problem = f"there is no setting {describe(asked)}"
        return ConfigError(problem, hint=hint, status=2)

    def names_near(self, asked: str) -> list[str]:
        """At most three settings whose name, variable or provider is like *asked*."""
        is_credential = CREDENTIAL.search(asked) is not None
        asked = asked.lower()
        match = PROVIDER_NAME.fullmatch(asked) or PROVIDER_VARIABLE.fullmatch(asked)
        if match and not is_credential:
            provider = nearest_provider(match[1]) or match[1]
            return [f"providers.{provider}.{match[2]}"]
        words = {name: f"providers.{name}.api_key" for name in PROVIDERS}
        for row in self.table.values():
            for word in (row.name, *row.variables):
                words[word.lower()] = row.name
        near = get_close_matches(asked, words, n=3, cutoff=0.75)
        containing = [word for word in words if asked in word]
        if len(containing) <= 3:
            near += containing
        names = [words[word] for word in near]
        return list(dict.fromkeys(names))[:3]

    def model_settings(self) -> list[Setting]:
        """The settings of all agents' models."""
        return [row for row in self.table.values() if row.path[0] == "agents"]

    # Values ----------------------------------------------------------------

    def holder(self, setting: Setting, make: bool = False) -> dict[str, Any]:
        """The object in which a setting stands. If it is missing, *make* stores it."""
        node = self.content
        for depth, name in enumerate(setting.path[:-1], start=1):
            node = node.setdefault(name, {}) if make else node.get(name, {})
            if not isinstance(node, dict):
                place = ".".join(setting.path[:depth])
                raise ConfigError(
                    f"{place}: expected an object, found {describe(node)}",
                    hint=f"fix it in an editor: {self.path}",
                )
        return node

    def stored(self, setting: Setting) -> Any:
        """What stands in the file for a setting; None if there is nothing."""
        text = self.holder(setting).get(setting.path[-1])
        if isinstance(text, str):
            return text.strip() or None
        return text

    def token(self, setting: Setting) -> str | None:
        """The encrypted form of a secret; None if it is missing or in plain text."""
        try:
            stored = self.stored(setting)
        except ConfigError:  # state() reports it
            return None
        is_text = setting.secret and isinstance(stored, str)
        if is_text and stored.startswith(SECRET_MARK):
            return str(stored.removeprefix(SECRET_MARK))
        return None

    def state(self, setting: Setting) -> State:
        try:
            stored = self.stored(setting)
        except ConfigError as error:
            return State(setting.default, "invalid", error)
        if stored is None:
            status = "missing" if setting.default == "" else "default"
            return State(setting.default, status)
        token = self.token(setting)
        plain = stored if token is None else self.vault.open(token)
        if plain is None:
            return State(setting.default, "unreadable", self.error_for(setting))
        if setting.secret and isinstance(plain, str):
            masks.add(plain)
        try:
            value = setting.check(plain)
        except ValueError as error:
            hint = f"fix it with {self.command('set', setting.name)}"
            problem = ConfigError(found_problem(setting, error, plain), hint=hint)
            return State(setting.default, "invalid", problem)
        if value == setting.default and not setting.must_be_chosen:
            return State(value, "default")
        return State(value, "configured")

    def states(self) -> dict[str, State]:
        return {name: self.state(setting) for name, setting in self.table.items()}

    def valid_states(self) -> dict[str, State]:
        """What stands for every setting; raises all problems."""
        states = self.states()
        raise_problems(state.problem for state in states.values())
        return states

    def get(self, name: str) -> Any:
        """One value by its name; only this one need be valid."""
        state = self.state(self.find(name))
        raise_problems([state.problem])
        return state.value

    def path_of(self, name: str) -> Path:
        """The path that db_path, log_dir, resume_dir or venues_dir stands for."""
        path = self.get(name) or self.table[name].default_path
        return absolute_path(path, below=self.base_dir)

    def is_answered(self, setting: Setting) -> bool:
        """Whether a setting, and the same of the other mail server, has its value."""
        answered = {"configured"}
        if not setting.must_be_chosen:
            answered.add("default")
        other = self.table.get(setting.same_for, setting)
        return {self.state(setting).status, self.state(other).status} <= answered

    # Changes ---------------------------------------------------------------

    def checked(self, setting: Setting, value: Any) -> Any:
        """Check a value that somebody gives: text as it was typed, or another value."""
        try:
            if isinstance(value, str):
                return setting.parse(value)
            return setting.check(value)
        except ValueError as error:
            hint = ""
            if value == "":
                hint = f"to reset it: {self.command('unset', setting.name)}"
            problem = found_problem(setting, error, value)
            raise ConfigError(problem, hint=hint) from None

    def put(self, setting: Setting, value: Any) -> bool:
        """Store a checked value, a secret encrypted; whether it is another one."""
        before = self.state(setting)
        is_same = before.value == value and not before.problem
        if is_same and (self.is_by_default(setting) or self.token(setting)):
            return False
        content = value
        if setting.secret and value:
            self.refuse_other_key()
            masks.add(value)
            content = SECRET_MARK + self.vault.seal(value)
        self.holder(setting, make=True)[setting.path[-1]] = content
        if is_same:
            return False
        change = "changed"
        if not setting.secret:
            old = "invalid" if before.problem else json.dumps(before.value)
            change = f"{old} -> {json.dumps(value)}"
        self.note_change(f"{setting.name}: {change}")
        return True

    def give(self, setting: Setting, value: Any) -> str:
        """Store what somebody gave, for the other mail server too if it has no other.

        Returns the name of the other server's setting, if it was changed too.
        """
        other = self.same_of_other_server(setting)  # as long as it still is the same
        self.put(setting, value)
        doubt = setting.doubt(value) if setting.doubt and value else ""
        if doubt:
            change = self.command("set", setting.name)
            logger.warning("%s: %s\nto change it: %s", setting.label, doubt, change)
        if other and fits(other, value) and self.put(other, value):
            return other.name
        return ""

    def reset(self, setting: Setting) -> bool:
        """Remove a value, so that its default holds again; whether that was needed."""
        if self.is_by_default(setting):
            return False
        self.holder(setting).pop(setting.path[-1], None)
        self.note_change(f"{setting.name}: reset")
        return True

    def is_by_default(self, setting: Setting) -> bool:
        """Whether a setting has its default, be it stored or not."""
        status = self.state(setting).status
        if status == "default":
            return not setting.must_be_chosen
        return status == "missing"

    def same_of_other_server(self, setting: Setting) -> Setting | None:
        """The same setting of the other mail server, unless that has another value."""
        other = self.table.get(setting.same_for)
        if other:
            held = self.state(other)
            if held.status == "configured" and held.value != self.state(setting).value:
                return None
        return other

    def clear(self, setting: Setting) -> None:
        """Forget a secret that cannot be read; the file as it was is kept."""
        self.reset(setting)
        self.cleared.append(setting.label)

    def remove(self, path: tuple[str, ...]) -> None:
        """Remove an agent or a provider."""
        holder = lookup(self.content, *path[:-1])
        if isinstance(holder, dict) and path[-1] in holder:
            del holder[path[-1]]
            self.note_change(f"{'.'.join(path)}: removed")

    # Secrets ---------------------------------------------------------------

    def all_tokens(self) -> Iterator[tuple[Any, Any, str]]:
        """Every token in the file, with the object or list it is in, and where."""
        nodes: list[Any] = [self.content]
        while nodes:
            node = nodes.pop()
            items = list(node.items() if isinstance(node, dict) else enumerate(node))
            for place, part in items:
                if isinstance(part, (dict, list)):
                    nodes.append(part)
                elif isinstance(part, str) and part.strip().startswith(SECRET_MARK):
                    yield node, place, part.strip().removeprefix(SECRET_MARK)

    def unreadable(self) -> list[Setting]:
        """The settings whose token no key opens."""
        found = []
        for row in self.table.values():
            token = self.token(row)
            if token is not None and self.vault.open(token) is None:
                found.append(row)
        return found

    def has_other_key(self) -> bool:
        """Whether secrets are stored, and the machine key opens none of them."""
        rows = self.table.values()
        encrypted = [row for row in rows if self.token(row) is not None]
        return encrypted != [] and encrypted == self.unreadable()

    def refuse_other_key(self) -> None:
        """Raise rather than encrypt with a key that opens nothing that is stored."""
        if self.has_other_key():
            raise self.key_error("the configuration")

    def key_error(self, what: str) -> ConfigError:
        return self.vault.error_for(what, f"; or run: {self.command('setup')}")

    def error_for(self, *settings: Setting) -> ConfigError:
        """The error of secrets that no key opens."""
        names = ", ".join(setting.name for setting in settings)
        if self.has_other_key():
            return self.key_error(names)
        problem = f"{names} cannot be decrypted: the token is damaged"
        hint = f"set it again: {self.command('set', settings[0].name)}"
        return ConfigError(problem, hint=hint)

    def plain_secrets(self) -> dict[str, str]:
        """The secrets that somebody wrote into the file in plain text, by name."""
        found = {}
        for name, setting in self.table.items():
            if setting.secret and self.token(setting) is None:
                with suppress(ConfigError):  # state() reports it
                    stored = self.stored(setting)
                    if isinstance(stored, str):
                        found[name] = stored
        return found

    def seal_plain_text(self) -> None:
        for name in self.plain_secrets():
            setting = self.table[name]
            state = self.state(setting)
            if not state.problem:
                self.put(setting, state.value)

    def reseal(self) -> bool:
        """During a rotation, encrypt every secret with the new key; whether it did."""
        if self.vault.old_key in (None, self.vault.key):
            return self.vault.old_key is not None
        tokens = list(self.all_tokens())
        for node, place, token in tokens:
            plaintext = self.vault.open(token)
            if plaintext is None:
                logger.warning("%s cannot be decrypted; it was left as it is", place)
            else:
                node[place] = SECRET_MARK + self.vault.seal(plaintext)
        return bool(tokens)  # with none, config.json may just have been moved away

    def move_earlier_keys(self) -> None:
        """Move the keys that earlier versions stored, such as openai_api_key."""
        for name in PROVIDERS:
            earlier = f"{name}_api_key"
            if not self.content.get(earlier):
                self.content.pop(earlier, None)
                continue
            setting = self.table[f"providers.{name}.api_key"]
            with suppress(ConfigError):  # state() reports it
                account = self.holder(setting, make=True)
                key = self.content.pop(earlier)
                if not account.get("api_key"):
                    account["api_key"] = key
                elif account["api_key"] != key:
                    ignored = f"{earlier} in {CONFIG_FILE} is ignored"
                    warn_once(f"{ignored}: {setting.name} is there too")

    def warn(self) -> None:
        """Say what stands in the file in plain text, and what nothing reads."""
        plain = self.plain_secrets()
        for secret in plain.values():
            masks.add(secret)
        if plain:
            names = ", ".join(plain)
            warn_once(f"{names}: plain text in {self.path} until the next change")
        for name, account in parts_of(self.content, "providers").items():
            meant = meant_provider(name)
            if meant and account:
                ignored = f"nothing reads providers.{name} in {self.path}"
                warn_once(f"{ignored}; did you mean providers.{meant}?")
        for setting in self.table.values():
            for variable in setting.variables:
                text = self.content.get(variable, "")
                if setting.secret and text and isinstance(text, str):
                    masks.add(text)
                    warn_once(
                        f"nothing reads {variable} in {self.path}, where it stands in"
                        f" plain text; the setting is called {setting.name}"
                    )


# ConfigManager: where documents are read and changed ==========================


def flatten(config: AppConfig) -> dict[tuple[str, ...], Any]:
    """Every checked value of a configuration in memory, by its place in config.json.

    Raises ConfigError with every problem.
    """
    content = asdict(config)
    values = {}
    problems = []
    for setting in make_table(content).values():
        holder = lookup(content, *setting.path[:-1])
        if holder is None and setting.path[0] in ("agents", "providers"):
            continue  # one that this configuration does not have
        value = lookup(content, *setting.path)
        if value == setting.default == "":
            values[setting.path] = value
            continue
        try:
            values[setting.path] = setting.check(value)
        except ValueError as error:
            problems.append(ConfigError(found_problem(setting, error, value)))
    raise_problems(problems)
    return values


class ConfigManager:
    """Reads and writes the configuration in one base directory.

    *base_dir* is by default what JOB_HUNTER_BASE_DIR names, or ~/.outreach-agent. The
    attributes `base_dir` and `config_path` are absolute paths, `config_path` that of
    config.json. Making a manager touches no file. Every method raises ConfigError for
    what cannot be read, used or written.
    """

    def __init__(self, base_dir: Directory = None) -> None:
        self.base_dir = base_directory(base_dir)
        self.config_path = self.base_dir / CONFIG_FILE
        self.log_dir = self.base_dir / "logs"  # until config.json was read
        self._loaded: dict[tuple[str, ...], Any] = {}  # by load() or save()

    def ensure_dirs(self) -> None:
        """Make the base directory and those of logs, resumes and venues, if missing."""
        make_directory(self.base_dir)
        document = self.read()
        for name in ("log_dir", "resume_dir", "venues_dir"):
            make_directory(document.path_of(name))

    def get_db_path(self) -> Path:
        """Return the absolute path of the agents' database."""
        return self.read().path_of("db_path")

    def load(self) -> AppConfig:
        """Return the configuration, secrets in plain text; the defaults without a file.

        Creates nothing. The error names every problem of the file, each with its place.
        """
        document = self.read()
        states = document.valid_states()
        config = AppConfig()
        for name in parts_of(document.content, "providers"):
            config.providers[name] = ProviderConfig()
        for name in parts_of(document.content, "agents"):
            config.agents[name] = AgentConfig()
        self._loaded = {}
        for name, state in states.items():
            path = document.table[name].path
            part = part_at(config, path[:-1])
            if part is not None:
                setattr(part, path[-1], copy(state.value))
                self._loaded[path] = state.value
        return config

    def load_or_create(self) -> AppConfig:
        """Return what load() does; without a file, store the defaults first."""
        if not self.config_path.exists():
            with self.edit() as document:
                if document.is_new:
                    self.write(document, document.dump())
        return self.load()

    def save(self, config: AppConfig) -> None:
        """Store *config*, its secrets encrypted.

        Writes what differs from what this manager loaded or saved last, so that what
        other processes wrote meanwhile stays; all of it if it loaded nothing. Keys that
        this version does not know stay. The error names every invalid value; then
        nothing is written.
        """
        values = flatten(config)
        with self.edit() as document:
            known = {} if document.is_new else self._loaded
            for setting in make_table(asdict(config)).values():
                value = values.get(setting.path)
                if value is not None and value != known.get(setting.path):
                    document.put(setting, value)
            present = {path[:-1] for path in values}
            for gone in {path[:-1] for path in known} - present:
                document.remove(gone)
        self._loaded = values

    def get(self, name: str) -> Any:
        """Return one value by its dotted name, such as "smtp.password".

        Only that value need be valid. It is "" for a provider that was never given one.
        """
        return copy(self.read().get(name))

    def set(self, name: str, value: Any) -> None:
        """Check one value and store it at once; a number or list may be given as text.

        The error names an unknown setting, or what was expected. A login of one mail
        server is set for that one alone, unlike by the command.
        """
        with self.edit() as document:
            setting = document.find(name)
            document.put(setting, document.checked(setting, value))

    # What follows serves the commands and is no promise to other programs.

    def read(self) -> Document:
        """The document, and the keys that belong to it: readers take no lock."""
        while True:
            vault = read_vault(self.base_dir)
            data = read_file(self.config_path)
            if read_vault(self.base_dir).keys == vault.keys:
                break  # else a rotation went on meanwhile
        try:
            document = Document(self.base_dir, vault, data)
            with suppress(ConfigError):  # get() reports it
                self.log_dir = document.path_of("log_dir")
        finally:  # now: what this logs goes to the right directory
            tighten(self.base_dir)
        document.move_earlier_keys()
        document.warn()
        return document

    @contextmanager
    def edit(self) -> Iterator[Document]:
        """Change the configuration: what the block changes is written at its end.

        Every secret in plain text is encrypted, and a rotation that was stopped is
        finished. Nothing is written if the block raises, or changes nothing.
        """
        make_directory(self.base_dir)
        require_own(self.base_dir)
        with locked(self.base_dir):
            document = self.read()
            before = document.dump()
            yield document
            document.seal_plain_text()
            resealed = document.reseal()
            content = document.dump()
            if content != before:
                self.write(document, content)
            if resealed:
                document.vault.end_rotation()

    def write(self, document: Document, content: bytes) -> None:
        """Replace config.json. Hold the lock."""
        if document.cleared:
            backup = backup_path(self.config_path)
            write_file(backup, read_file(self.config_path) or b"")
            logger.warning(
                "cleared what cannot be read: %s; the old configuration is kept as %s",
                ", ".join(document.cleared),
                backup,
            )
        write_file(self.config_path, content)
        for change in document.changes:
            logger.info("%s", change)
        logger.info("stored the configuration %s", self.config_path)


def part_at(config: AppConfig, path: tuple[str, ...]) -> Any:
    """The dataclass at *path*; None for an agent or a provider that is not there."""
    part: Any = config
    for name in path:
        part = part.get(name) if isinstance(part, dict) else getattr(part, name)
    return part


# Masking and logging ==========================================================

ASTERISKS = "********"
SHORTEST_MASKED = 8  # characters: to mask a shorter one would garble ordinary words
LAST_FOUR_FROM = 20  # characters: of a shorter secret, its last four give too much away


class Masks:
    """The secrets that were seen, which leave the program only as asterisks."""

    def __init__(self) -> None:
        self._public: set[str] = set()  # what may be read: names, paths, commands
        self._forms: list[str] = []  # the longest first, so that no tail is left

    def leave_whole(self, *texts: str) -> None:
        """Never garble these: a secret that is a part of one is an ordinary word."""
        self._public.update(texts)

    def add(self, secret: str) -> None:
        """Mask a secret from now on, as it stands and as others may write it."""
        is_ordinary = any(secret in text for text in self._public)
        if len(secret) < SHORTEST_MASKED or is_ordinary or secret in self._forms:
            return
        as_url = (quote(secret), quote(secret, safe=""), quote_plus(secret))
        as_json = (json.dumps(secret), json.dumps(secret, ensure_ascii=False))
        quoted = (repr(secret), *as_json)
        unquoted = [text[1:-1] for text in quoted]
        forms = {secret, *as_url, *unquoted, *self._forms}
        self._forms = sorted(forms, key=len, reverse=True)

    def hide(self, text: str) -> str:
        for form in self._forms:
            text = text.replace(form, ASTERISKS)
        return text

    def hide_in(self, value: Any) -> Any:
        """*value* as JSON can hold it, every secret in its texts masked."""
        match value:
            case None | bool() | int():
                return value
            case float() if math.isfinite(value):
                return value
            case Mapping():
                names = [self.hide(str(name)) for name in value]
                parts = [self.hide_in(part) for part in value.values()]
                return dict(zip(names, parts, strict=True))
            case list() | tuple():
                return [self.hide_in(part) for part in value]
        return self.hide(str(value))


masks = Masks()
masks.leave_whole(*make_table({}), __file__)

HANDLER_NAME = "job_hunter"  # of both handlers, so that they are found again
LOG_BYTES = 5_000_000  # a file that has reached this size is full
LOG_FILES = 5  # so many of the newest stay
DAY = "%Y-%m-%d"
LOG_NAME = re.compile(r"run-(\d{4}-\d\d-\d\d)(?:\.(\d+))?\.log")
#: What every record has; all else is from `extra=`.
RECORD_FIELDS = {*vars(logging.makeLogRecord({})), "message", "asctime"}


def message_of(record: logging.LogRecord) -> str:
    """What a record says; a wrong number of arguments loses none of it."""
    with suppress(Exception):
        return record.getMessage()
    with suppress(Exception):
        return f"{record.msg!r} {record.args!r}"
    return f"{record.msg!r}, with arguments that cannot be shown"


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON, secrets masked."""

    def format(self, record: logging.LogRecord) -> str:
        now = datetime.fromtimestamp(record.created).astimezone()
        line: dict[str, Any] = {
            "timestamp": now.isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "event": message_of(record),
        }
        for name, value in vars(record).items():
            if name not in RECORD_FIELDS:
                line.setdefault(name, value)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(masks.hide_in(line))


def log_name(day: str, number: int) -> str:
    if number == 0:
        return f"run-{day}.log"
    return f"run-{day}.{number}.log"


def run_logs(directory: Path) -> list[tuple[str, int, Path]]:
    """The log files in *directory*, the oldest first: day, number and path."""
    found = []
    with suppress(OSError):  # there is no such directory yet
        for path in directory.iterdir():
            match = LOG_NAME.fullmatch(path.name)
            if match:
                found.append((match[1], int(match[2] or 0), path))
    return sorted(found)


class RunLog(logging.handlers.BaseRotatingHandler):
    """The log file of the day, or the next of its series once it is full.

    No file is ever renamed, so that several processes can write without a lock.
    """

    def __init__(self, manager: ConfigManager, level: int) -> None:
        self.manager = manager
        path = self.current()
        super().__init__(path, "a", "utf-8", delay=True)
        self.setLevel(level)
        self.setFormatter(JsonFormatter())
        self.problem = ""  # why it cannot be written

    def current(self) -> Path:
        """The file to write to now: the last of today's, or the next if it is full."""
        today = time.strftime(DAY)
        directory = self.manager.log_dir
        numbers = [n for day, n, _ in run_logs(directory) if day == today]
        number = max(numbers, default=0)
        path = directory / log_name(today, number)
        with suppress(OSError):  # there is none yet
            if path.stat().st_size >= LOG_BYTES:
                return directory / log_name(today, number + 1)
        return path

    def shouldRollover(self, _: logging.LogRecord) -> bool:  # noqa: N802
        path = Path(self.baseFilename)
        is_of_today = path.name.startswith(f"run-{time.strftime(DAY)}.")
        if path.parent != self.manager.log_dir or not is_of_today:
            return True
        try:
            return path.stat().st_size >= LOG_BYTES
        except OSError:  # somebody removed it
            return True

    def doRollover(self) -> None:  # noqa: N802
        self.close()
        self.baseFilename = str(self.current())

    def _open(self) -> Any:
        directory = Path(self.baseFilename).parent
        make_directory(directory)
        require_own(directory)
        stream = open(  # noqa: SIM115  # close() closes it
            self.baseFilename, "a", encoding="utf-8", opener=open_private
        )
        if directory.is_relative_to(self.manager.base_dir):  # elsewhere, others log too
            for _, _, path in run_logs(directory)[:-LOG_FILES]:
                with suppress(OSError):  # another process does the same
                    path.unlink()
        return stream

    def emit(self, record: logging.LogRecord) -> None:
        if not sys.is_finalizing():
            super().emit(record)

    def handleError(self, _: logging.LogRecord) -> None:  # noqa: N802
        error = sys.exc_info()[1]
        if not isinstance(error, (OSError, ConfigError)):  # an odd value in `extra=`
            print_error(f"warning: something could not be logged: {error!r}")
            return
        if not self.problem:
            print_error(f"warning: cannot write the log {self.baseFilename}: {error}")
        self.problem = str(error)


class TerminalLog(logging.Handler):
    """What is logged for a person, on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        print_error(f"{record.levelname.lower()}: {message_of(record)}")


def configure_logging(base_dir: Directory = None, verbosity: int = 0) -> None:
    """Write what get_logger's loggers and this program say to a file and a terminal.

    The file of the day, run-YYYY-MM-DD.log in `log_dir` (by default `logs` in
    *base_dir*), gets everything from DEBUG up, one JSON object a line. Standard error
    gets WARNING and up; with *verbosity* 1 INFO too, with 2 DEBUG. A file that has 5 MB
    is followed by the next of the day, and the newest five stay. The secrets of the
    settings that this process read, of eight characters or more, are masked. Called
    again, it replaces what it set up before. Other loggers are left alone, the root
    logger too.
    """
    manager = ConfigManager(base_dir)
    set_handlers(RunLog(manager, logging.DEBUG), verbosity)
    with suppress(ConfigError):  # load() reports it
        manager.read()  # for log_dir


def set_handlers(run_log: RunLog, verbosity: int) -> None:
    for handler in list(logger.handlers):
        if handler.name == HANDLER_NAME:
            logger.removeHandler(handler)
            handler.close()
    for handler in (run_log, TerminalLog(logging.WARNING - 10 * verbosity)):
        handler.set_name(HANDLER_NAME)
        logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False  # the root logger would print it again, unmasked
    logger.disabled = False  # as logging.config leaves it in other people's programs


def get_logger(name: str) -> logging.Logger:
    """Return the logger `job_hunter.<name>`, which configure_logging sets up."""
    return logger.getChild(name)


# Output =======================================================================
#
# Standard output carries what was asked for: the summary, a value. Everything else goes
# to standard error, questions too. Each line is masked, has escapes for what would move
# the cursor or does not fit the encoding, and is one write. An error is "[Command] what
# is wrong"; "hint: what to do" follows it. What to run begins as the program did.


def print_out(text: str) -> None:
    write_out(printable(masks.hide(text), sys.stdout))


def write_out(text: str) -> None:
    """Print what was asked for as it stands, neither masked nor escaped."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except UnicodeEncodeError as error:
        problem = f"{error.encoding} cannot encode it"
        raise ConfigError(problem, hint="set PYTHONIOENCODING=utf-8") from None
    except BrokenPipeError:  # the reader has seen what it wanted
        sys.exit(1)
    except OSError as error:
        raise ConfigError(f"standard output: {error.strerror or error}") from None


def print_error(text: str) -> None:
    if sys.stderr is None:
        return
    with suppress(OSError, ValueError):  # nobody is there to be told
        sys.stderr.write(printable(masks.hide(text), sys.stderr) + "\n")
        sys.stderr.flush()


def printable(text: str, stream: TextIO | None) -> str:
    """*text* with what moves the cursor, or *stream* cannot encode, as an escape."""
    shown = ""
    for character in text:
        if character.isprintable() or character == "\n":
            shown += character
        else:
            shown += ascii(character)[1:-1]
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return shown.encode(encoding, "backslashreplace").decode(encoding)


def command_line(base_dir: Path, *words: str) -> str:
    """What runs this program with *words*, when it is pasted into the same shell."""
    started_as = Path(sys.argv[0])
    itself = os.path.realpath(started_as) == os.path.realpath(__file__)
    script = str(started_as) if itself else __file__
    program = [*sys.orig_argv[:1], script]
    if started_as.stem == "job-hunter":
        program = ["job-hunter" if shutil.which("job-hunter") else str(started_as)]
    if "UV_RUN_RECURSION_DEPTH" in os.environ:  # `uv run` sets it, and `uvx` does not
        program = ["uv", "run", program[-1]]
    is_default = str(base_dir) == os.path.expanduser(DEFAULT_BASE_DIR)
    if is_default and not os.environ.get(BASE_DIR_VARIABLE):
        return shlex.join([*program, *words])
    return shlex.join([*program, "--base-dir", str(base_dir), *words])


def summarize(document: Document, given: set[str] | None = None) -> dict[str, Any]:
    """The rows of the summary and the paths below it, which `show --json` prints.

    *given* are the settings that setup asked for or was given now: what else is
    configured was already. Without it, there was no setup.
    """
    rows = []
    for name, state in document.states().items():
        setting = document.table[name]
        is_shown = state.status != "missing" or setting.shown_if_missing
        if setting.label and is_shown:
            status = state.status
            if status == "configured" and given is not None and name not in given:
                status = "[already configured]"
            row = {"name": name, "service": setting.label, "status": status}
            rows.append({**row, "value": shown_value(setting, state)})
    paths = {
        "configuration": document.path,
        "machine_key": document.vault.path,
        "database": path_in_effect(document, "db_path"),
        "log_dir": path_in_effect(document, "log_dir"),
    }
    shown = {name: masks.hide(str(path)) for name, path in paths.items()}
    return {"rows": rows, "paths": shown}


def path_in_effect(document: Document, name: str) -> str:
    try:
        return str(document.path_of(name))
    except ConfigError as error:
        return str(error)


def shown_value(setting: Setting, state: State) -> str:
    """A value in the summary: of a secret, at most its last four characters."""
    if state.problem or state.value == "":
        return ""
    text = as_text(state.value)
    if not setting.secret:
        return masks.hide(text)
    if len(text) < LAST_FOUR_FROM:
        return ASTERISKS
    return ASTERISKS + text[-4:]


def print_summary(summary: Mapping[str, Any]) -> None:
    lines = [("Service", "Status", "Value")]
    for row in summary["rows"]:
        value = row["value"].replace("\n", ", ")
        lines.append((row["service"], row["status"], value))
    service_width = max(len(service) for service, _, _ in lines)
    status_width = max(len(status) for _, status, _ in lines)
    value_width = max(len(value) for _, _, value in lines)
    rule = ("-" * service_width, "-" * status_width, "-" * min(value_width, 40))
    lines.insert(1, rule)
    for service, status, value in lines:
        columns = [service.ljust(service_width), status.ljust(status_width), value]
        print_out("  ".join(columns).rstrip())
    print_out("")
    paths = summary["paths"]
    print_out(f"Configuration: {paths['configuration']}")
    print_out(f"Machine key:   {paths['machine_key']}")
    print_out(f"Database:      {paths['database']}")
    print_out(f"Logs:          {paths['log_dir']}")


# Where answers come from: a person, a pipe, a variable or a file ==============

CTRL_Z = "\x1a"  # what Ctrl-Z types at a hidden question, where it stops nothing
LOCAL_FLAGS, CONTROL_CHARACTERS = 3, 6  # places in what termios.tcgetattr gives
LONGEST_INPUT = 4 * LONGEST_VALUE + 64  # bytes of a value, and what surrounds it


class Keyboard:
    """The terminal at which questions are asked.

    Nothing that is typed between two questions shows, and none of it is lost: getpass
    would throw it away.
    """

    def __enter__(self) -> Keyboard:
        self.visible = terminal_settings()
        self.set_echo(False)
        return self

    def __exit__(self, *_: object) -> None:
        self.set_echo(True)

    def set_echo(self, on: bool) -> None:
        """Show what is typed from now on, or hide it and let Ctrl-Z stop nothing."""
        if self.visible is None or sys.platform == "win32":
            return
        import termios

        settings = copy(self.visible)
        if not on:
            disabled = os.fpathconf(sys.stdin.fileno(), "PC_VDISABLE")
            characters = list(settings[CONTROL_CHARACTERS])
            characters[termios.VSUSP] = bytes([disabled])
            settings[CONTROL_CHARACTERS] = characters
            settings[LOCAL_FLAGS] &= ~termios.ECHO
        with suppress(termios.error):  # the terminal was closed
            termios.tcsetattr(sys.stdin.fileno(), termios.TCSADRAIN, settings)

    def read(self, prompt: str, hidden: bool) -> str:
        """One answer; EOFError if there is none any more."""
        try:
            if hidden and sys.platform == "win32":
                return getpass(prompt)
            if hidden and self.visible:
                return self.read_hidden(prompt)
            if hidden:  # standard input only looks like a terminal
                print_error("warning: what you type will be visible")
            self.set_echo(True)
            return read_visible(prompt)
        except BaseException:
            print_error("")  # what comes next begins a line of its own
            raise
        finally:
            self.set_echo(False)

    def read_hidden(self, prompt: str) -> str:
        """One line, byte by byte, so that what was typed behind it stays for later."""
        sys.stderr.write(printable(prompt, sys.stderr))
        sys.stderr.flush()
        line = b""
        while not line.endswith((b"\n", b"\r")):  # readline leaves \r in the terminal
            byte = os.read(sys.stdin.fileno(), 1)
            if not byte:
                raise EOFError
            line += byte
        print_error("")
        return line.decode(sys.stdin.encoding).replace(CTRL_Z, "")


def terminal_settings() -> list[Any] | None:
    """How the terminal on standard input is set; None where that cannot be told."""
    if sys.platform == "win32":
        return None
    import termios

    try:
        return termios.tcgetattr(sys.stdin.fileno())
    except (AttributeError, OSError, ValueError, termios.error):
        return None


def is_terminal() -> bool:
    """Whether somebody can be asked."""
    with suppress(AttributeError, ValueError):  # there is no stream, or it is closed
        return sys.stdin.isatty()
    return False


def read_visible(prompt: str) -> str:
    """What is typed at a visible prompt, or pasted, even in several lines."""
    with suppress(ImportError):  # Windows has none
        import readline

        readline.parse_and_bind("set enable-bracketed-paste on")
    # Python uses readline only with a prompt on standard output, which is for questions
    # if it is the terminal.
    shown = sys.stdout if sys.stdout and sys.stdout.isatty() else sys.stderr
    with redirect_stdout(shown):
        return input(printable(prompt, shown))


def read_stream(stream: Any) -> str:
    """What a file or a pipe holds; ValueError if it is no text or too long."""
    content = stream.read(LONGEST_INPUT + 1)
    if len(content) > LONGEST_INPUT:
        raise ValueError(f"expected at most {LONGEST_VALUE:,} characters")
    if isinstance(content, str):
        return content
    try:
        return str(content, "utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("expected UTF-8 text") from None


def read_standard_input() -> str:
    """All of standard input, whatever stream it is; ValueError if there is none."""
    if sys.stdin is None:
        raise ValueError("nothing was given: standard input is closed")
    with explained("standard input"):
        return read_stream(getattr(sys.stdin, "buffer", sys.stdin))


class FromVariable:
    """The text in a variable of a setting, or in the file that NAME_FILE names.

    It is read once, when this is made: a file may be a pipe. `name` is that of the one
    that was set, and `text` is "" if none was.
    """

    def __init__(self, setting: Setting) -> None:
        self.name = setting.variables[0]
        self.text = ""
        self.why_empty = "not set"
        self.problem = ""  # why it cannot be read
        try:
            for name in setting.variables:
                if first_set([name, f"{name}_FILE"]):
                    self.read(name)
                    break
        except (ConfigError, ValueError) as error:
            self.problem = str(error)

    def read(self, name: str) -> None:
        self.name = name
        self.text = clean(os.environ.get(name, ""))
        path = clean(os.environ.get(f"{name}_FILE", ""))
        if path and self.text:
            raise ValueError(f"{name}_FILE is set too; unset one of them")
        if path:
            self.name = f"{name}_FILE"
            self.why_empty = "the file that it names is empty"
            self.text = self.read_file(os.path.expanduser(path))

    def read_file(self, path: str) -> str:
        problem = "the file that it names cannot be read"  # its path may be the secret
        with explained(problem), open(path, "rb") as file:
            return clean(read_stream(file))

    def value(self, setting: Setting) -> Any:
        """The value that it gives a setting, "" if none; ValueError if it is wrong."""
        if self.problem:
            raise ValueError(self.problem)
        return setting.parse(self.text) if self.text else ""


def notes_on_models(
    document: Document, names: Container[str], asks_for_keys: bool
) -> Iterator[str]:
    """What the models of the settings *names* need besides what setup asks for."""
    rows = [row for row in document.model_settings() if row.name in names]
    models = [document.state(row).value for row in rows]
    for provider in dict.fromkeys(provider_of(model) for model in models):
        base_url = document.find(f"providers.{provider}.api_base")
        key = document.find(f"providers.{provider}.api_key")
        set_key = document.command("set", key.name)
        is_missing = document.state(key).status == "missing"
        if provider == "ollama":
            stored_url = document.state(base_url).value
            where = base_url_in_use(provider, stored_url).removeprefix("http://")
            yield f"Ensure Ollama is running at {where}"
        elif is_missing and provider not in PROVIDERS:
            yield f"note: if {provider} needs an API key, set it with: {set_key}"
        elif is_missing and not asks_for_keys and not first_set(key.variables):
            yield f"note: {key.label} is missing; set it with: {set_key}"


MENU = f"""\
LLM setup:
  1. fully_free (all Ollama)
       needs Ollama on this machine, and: ollama pull {DEFAULT_MODEL.partition("/")[2]}
  2. best_quality (Claude Sonnet for Writer+Research, Haiku for rest)
       needs an Anthropic API key
  3. custom
       you name the model of each agent"""

MENU_HELP = """\
Each of the seven agents thinks with a language model. Ollama runs models on
your own machine, free of charge (https://ollama.com/download); Claude writes
better, and Anthropic charges for it. With custom, you name any model of any
provider that LiteLLM knows; setup --model MODEL sets one for all agents."""


def check_menu(value: object) -> str:
    """A choice of the menu: its number, its name, or how the name begins."""
    text = check_text(value).lower()
    for number, name in enumerate([*PRESETS, "custom"], start=1):
        if text == str(number) or name.startswith(text):
            return name
    raise ValueError(f"expected 1, 2 or 3, or one of {', '.join(PRESETS)}, custom")


# The menu is asked like a setting, and stored nowhere.
MENU_QUESTION = Setting(
    "", check_menu, path=("preset",), question="Choice:", note=MENU, help=MENU_HELP
)


def prompt_for(setting: Setting, keep: Any) -> str:
    prompt = setting.question or f"{setting.label or setting.name}:"
    if setting.secret and "(hidden" not in prompt:
        prompt = prompt.removesuffix(":") + " (hidden):"
    if keep == "":
        return f"{prompt} "
    shown = ASTERISKS if setting.secret else as_text(keep).replace("\n", ", ")
    return f"{prompt} [{shown}] "


def ask(
    keyboard: Keyboard, setting: Setting, keep: Any = "", optional: bool = False
) -> Any:
    """One answer of a person, checked. Enter gives *keep*, or "" if it is optional."""
    if setting.note:
        print_error(setting.note)
    while True:
        try:
            text = keyboard.read(prompt_for(setting, keep), hidden=setting.secret)
            text = clean(text)
            if text == "?":
                print_error(setting.help)
                continue
            if text == "" and (keep != "" or optional):
                return keep
            return setting.parse(text)
        except (EOFError, OSError):  # OSError: the terminal is gone
            raise ConfigError("input ended") from None
        except UnicodeDecodeError:
            print_error("  Not accepted: expected UTF-8 text.")
        except ValueError as error:
            print_error(f"  Not accepted: {error}.")


def named_models(args: argparse.Namespace) -> dict[str, str]:
    """The models of --preset, over them those of --model: for all, then for single."""
    models = dict(PRESETS.get(args.preset, {}))
    for agent, model in args.model:
        if agent == "":
            models |= dict.fromkeys(AGENT_NAMES, model)
    return models | {agent: model for agent, model in args.model if agent}


class Setup:
    """Takes what is missing or invalid from a person, or from the environment."""

    def __init__(self, manager: ConfigManager, args: argparse.Namespace) -> None:
        self.manager = manager
        self.args = args
        self.given: set[str] = set()  # the settings asked for or given this time
        self.done: set[str] = set()  # those that setup does not ask for any more
        self.again: set[str] = set()  # those to ask for although they are configured
        self.is_custom = False  # whether each model is asked for, without the menu
        self.notes: set[str] = set()  # those that were printed
        self.named = named_models(args)

    def run(self) -> Document:
        """Set up, and return the configuration as it then is."""
        if self.args.non_interactive:
            return self.from_environment()
        self.from_terminal()
        return self.manager.read()

    # Both ways --------------------------------------------------------------

    def clear_unreadable(self, document: Document) -> None:
        """Make room for secrets that no key opens; a copy of the file keeps them."""
        unreadable = document.unreadable()
        if not unreadable:
            return
        document.vault.refuse_missing_external_key()
        logger.warning("%s", document.error_for(*unreadable))
        for setting in unreadable:
            document.clear(setting)

    def set_models(self, document: Document, models: Mapping[str, str]) -> None:
        for agent, model in models.items():
            setting = document.table[f"agents.{agent}.model"]
            document.put(setting, model)
            self.given.add(setting.name)
            self.done.add(setting.name)

    def complete_logins(self, document: Document) -> None:
        """Give IMAP the login of SMTP, if it has none."""
        for setting in list(document.table.values()):
            other = document.table.get(setting.same_for)
            if other and document.state(other).status == "missing":
                state = document.state(setting)
                if state.status == "configured" and fits(other, state.value):
                    document.put(other, state.value)
                    self.given.add(other.name)

    def print_notes(self, document: Document, names: Container[str]) -> None:
        for note in notes_on_models(document, names, asks_for_keys=True):
            if note not in self.notes:
                print_error(note)
            self.notes.add(note)

    # At a terminal ----------------------------------------------------------

    def from_terminal(self) -> None:
        document = self.manager.read()
        self.set_models(document, self.named)  # in memory, to see what is missing then
        if not is_terminal():
            self.refuse_to_ask(document)
        with self.manager.edit() as document:
            self.clear_unreadable(document)
            self.set_models(document, self.named)
            self.complete_logins(document)
            document.vault.fernet()  # now: later questions follow without a pause
        self.print_notes(document, self.given)
        if not self.next_question(document):
            document.valid_states()  # raises what is wrong and not asked for
            print_error("Everything is configured.")
            print_error(f"To change one value: {document.command('set')} NAME")
            again = document.command("setup", "--reconfigure")
            print_error(f"To be asked everything again: {again}\n")
        elif is_terminal():
            self.ask_questions()

    def refuse_to_ask(self, document: Document) -> None:
        """Raise if something must be asked for, where nobody can answer."""
        rows = [row for row in document.table.values() if row.question]
        must = [row for row in rows if row.required or row.must_be_chosen]
        if self.args.reconfigure or not all(map(document.is_answered, must)):
            variables = [row.variables[0] for row in rows if row.variables]
            raise ConfigError(
                "there is no terminal to ask questions on",
                hint=f"use setup --non-interactive with {', '.join(variables)}",
            )

    def ask_questions(self) -> None:
        print_error(
            f"Answers are saved in {self.manager.base_dir} as you go.\n"
            "Stop with Ctrl-C, and run setup again to go on. Answer ? for help."
        )
        try:
            with Keyboard() as keyboard:
                document = self.manager.read()
                while setting := self.next_question(document):
                    if setting.must_be_chosen and not self.is_custom:
                        self.ask_menu(keyboard, document)
                    else:
                        self.ask_for(keyboard, document, setting)
                    document = self.manager.read()
        except (ConfigError, KeyboardInterrupt, SystemExit):
            words = ["setup", "--reconfigure"] if self.args.reconfigure else ["setup"]
            go_on = command_line(self.manager.base_dir, *words)
            print_error("Setup is not finished; what you answered is saved.")
            print_error(f"To go on: {go_on}")
            raise

    def next_question(self, document: Document) -> Setting | None:
        for name, setting in document.table.items():
            is_asked_again = self.args.reconfigure or name in self.again
            is_due = is_asked_again or not document.is_answered(setting)
            if setting.question and name not in self.done and is_due:
                return setting
        return None

    def ask_menu(self, keyboard: Keyboard, document: Document) -> None:
        choice = ask(keyboard, MENU_QUESTION, keep=self.present_choice(document))
        if choice == "custom":
            self.is_custom = True
            return
        with self.manager.edit() as changed:
            self.set_models(changed, PRESETS[choice] | self.named)
        self.print_notes(changed, [row.name for row in model_rows(changed).values()])

    def present_choice(self, document: Document) -> str:
        """What the menu suggests: the preset that is stored, if any."""
        chosen = {}
        for agent, row in model_rows(document).items():
            state = document.state(row)
            if state.status == "configured":
                chosen[agent] = state.value
        if not chosen or self.again:
            return "fully_free"
        for name, models in PRESETS.items():
            if models == chosen:
                return name
        return "custom"

    def back_to_menu(self, document: Document) -> None:
        """Ask for the models again, for somebody who has no key for them."""
        self.is_custom = False
        self.named = {}
        self.again = {row.name for row in model_rows(document).values()}
        self.done -= self.again

    def ask_for(self, keyboard: Keyboard, document: Document, setting: Setting) -> None:
        """Ask for one value and store it. Enter keeps what is stored or suggested."""
        stored = document.state(setting).value
        keep = stored
        if setting.must_be_chosen:
            keep = self.suggested_model(document, setting)
        if keep == "" and self.is_avoidable(document, setting):
            answer = ask(keyboard, with_way_out(setting), optional=True)
            if answer == "":
                self.back_to_menu(document)
                return
        else:
            answer = ask(keyboard, setting, keep, optional=not setting.required)
        self.done.add(setting.name)
        self.given |= {setting.name, setting.same_for}
        is_kept = answer == stored and document.is_answered(setting)
        if answer != "" and not is_kept:  # what was kept, others may change meanwhile
            self.store(setting, answer, stored)

    def is_avoidable(self, document: Document, setting: Setting) -> bool:
        """Whether it is an API key that only models of the seven agents need."""
        if setting.path[0] != "providers":
            return False
        users = set()
        for row in document.model_settings():
            if provider_of(document.state(row).value) == setting.path[1]:
                users.add(row.path[1])
        return users <= set(AGENT_NAMES)

    def suggested_model(self, document: Document, setting: Setting) -> str:
        """The model that is chosen for an agent, else that of the agent before it."""
        stored = document.state(setting)
        if stored.status == "configured" and setting.name not in self.again:
            return str(stored.value)
        suggestion = DEFAULT_MODEL
        for row in model_rows(document).values():
            if row.name == setting.name:
                break
            suggestion = document.get(row.name)
        return suggestion

    def store(self, setting: Setting, answer: Any, former: Any) -> None:
        with self.manager.edit() as document:
            document.give(setting, answer)
            password = document.table["smtp.password"]
            is_other = setting.name == "smtp.username" and former not in ("", answer)
            if is_other and document.state(password).value:
                document.give(password, "")
                print_error(f"Removed the stored password, which belongs to {former}.")
        self.print_notes(document, [setting.name])

    # From the environment ---------------------------------------------------

    def from_environment(self) -> Document:
        """Store what the variables hold in one step, or name all that is wrong."""
        document = self.manager.read()
        self.set_models(document, self.models_for_environment(document))
        variables = {}
        for setting in document.table.values():
            if setting.variables and setting.used:
                # Now: a file may be a pipe, for which no other writer should wait.
                variables[setting.name] = FromVariable(setting)
        with self.manager.edit() as document:
            self.clear_unreadable(document)
            self.set_models(document, self.models_for_environment(document))
            self.complete_logins(document)
            values = self.values_to_take(document, variables)
            for name, value in values.items():
                document.give(document.table[name], value)
                self.given |= {name, document.table[name].same_for}
            document.valid_states()  # or nothing is stored
        self.print_notes(document, self.given)
        return document

    def values_to_take(
        self, document: Document, variables: Mapping[str, FromVariable]
    ) -> dict[str, Any]:
        """The wanted values of all variables, by setting; raises all that is wrong."""
        values = {}
        problems = []
        for name, setting in document.table.items():
            if name not in variables:
                continue
            variable = variables[name]
            try:
                values[name] = self.value_to_take(document, setting, variable)
            except ValueError as error:
                problems.append(f"{variable.name}: {error}")
        if problems:
            raise ConfigError(
                *problems,
                hint="set or correct each variable, or name a file that holds its value"
                f" in <VARIABLE>_FILE; or run: {document.command('setup')}",
            )
        return {name: value for name, value in values.items() if value != ""}

    def models_for_environment(self, document: Document) -> dict[str, str]:
        """The named models, over the default for those that were never chosen."""
        rows = model_rows(document).items()
        unset = [a for a, row in rows if document.state(row).status == "default"]
        return dict.fromkeys(unset, DEFAULT_MODEL) | self.named

    def value_to_take(
        self, document: Document, setting: Setting, variable: FromVariable
    ) -> Any:
        """The value to take from a variable, "" for none; ValueError if it is wrong."""
        state = document.state(setting)
        is_answered = document.is_answered(setting)
        is_stored = is_answered and state.status != "default"
        if is_stored and not self.args.reconfigure:
            self.warn_if_ignored(setting, state, variable)
            return ""
        value = variable.value(setting)
        if value == "" and setting.required and not is_answered:
            raise ValueError(self.why_missing(document, setting, variable))
        return value

    def warn_if_ignored(
        self, setting: Setting, state: State, variable: FromVariable
    ) -> None:
        """Say that a variable does not count, if it holds another value."""
        why = "a different value is stored (--reconfigure overrides it)"
        try:
            if variable.value(setting) in ("", state.value):
                return
        except ValueError as error:
            why = str(error)
        logger.warning("%s ignored: %s", variable.name, why)

    def why_missing(
        self, document: Document, setting: Setting, variable: FromVariable
    ) -> str:
        for one in (setting, document.table.get(setting.same_for, setting)):
            problem = document.state(one).problem
            if problem:
                return f"{variable.why_empty}, and {problem}"
        return variable.why_empty


def with_way_out(setting: Setting) -> Setting:
    """The question for an API key that Enter need not answer."""
    way_out = "(hidden; Enter to choose other models)"
    return replace(setting, question=setting.question.replace("(hidden)", way_out))


def model_rows(document: Document) -> dict[str, Setting]:
    """The settings of the seven agents' models, by agent."""
    return {agent: document.table[f"agents.{agent}.model"] for agent in AGENT_NAMES}


# check: whether the credentials work ==========================================

LONGEST_ANSWER = 4_000_000  # bytes: more than any list of models
MOST_PAGES = 20
LONGEST_QUOTE = 240  # characters of what a server said
TRUST_IT = (
    "if you trust it, append its certificate to a copy of your system's certificate"
    " bundle, and name that file in SSL_CERT_FILE"
)
CHECK_PROXY = "check the proxy variables, such as HTTPS_PROXY"
TRY_LATER = "wait a few minutes, then run check again"


class Result(Exception):
    """What came of testing a service, and what to do about it, a line each.

    `successors` has the models to use instead of those that a provider does not offer.
    """

    def __init__(self, outcome: str, what: str, *todo: str) -> None:
        super().__init__(what)
        self.outcome = outcome  # ok, failed, skipped or change
        self.what = what
        self.todo = todo
        self.successors: dict[str, str] = {}


def failure(what: str, *todo: str) -> Result:
    return Result("failed", what, *todo)


def shorten(said: object) -> str:
    """What a server said as one line: masked, since a cut would leave half a secret."""
    if isinstance(said, bytes):
        said = said.decode("utf-8", "replace")
    text = masks.hide(str(said))[:4000]
    # Every line of an SMTP reply may begin with a code such as 5.7.8.
    text = re.sub(r"(?m)^\d\.\d{1,3}\.\d{1,3} ?", "", text)
    text = re.sub(r"<http[^<>]*>|https?:[^]\s]{100,}", "", text)  # long links
    return " ".join(text.split())


def cite(said: str) -> str:
    if not said:
        return "no reason given"
    if len(said) > LONGEST_QUOTE:
        said = said[:LONGEST_QUOTE] + "..."
    return f'"{said}"'


class Service:
    """Something that check tries: one line of its output, and what to do below it."""

    title = ""
    place = ""  # its host and port, or its base URL
    place_settings = ""  # what to change if that is wrong
    host_setting = ""  # and if the host cannot be found

    def __init__(self, document: Document, tls: Any, timeout: float) -> None:
        self.document = document
        self.tls = tls  # an ssl.SSLContext
        self.timeout = timeout  # seconds

    def __str__(self) -> str:
        return f"{self.title} {self.place}".strip()

    def attempt(self) -> str:
        """Return what was proved; raise what went wrong."""
        raise NotImplementedError

    def explain(self, error: Exception) -> Result:
        """What went wrong on the network, which is alike for all services."""
        import socket
        import ssl

        check_place = f"check the network, and {self.place_settings}"
        match error:
            case Result():
                return error
            case TimeoutError():
                longer = "or give it more time with --timeout"
                return failure("did not answer in time", f"{check_place}, {longer}")
            case socket.gaierror():
                todo = f"check the network, and {self.host_setting}"
                return failure("cannot find the host", todo)
            case ConnectionRefusedError():
                return failure("refuses the connection", check_place)
            case (
                ssl.SSLEOFError()
                | ssl.SSLZeroReturnError()
                | ConnectionError()
                | EOFError()
            ):
                what = "closed the connection unexpectedly"
                return failure(what, f"{TRY_LATER}, or check {self.place_settings}")
            case ssl.SSLError():
                return self.explain_tls(error)
            case OSError():
                what = f"cannot be reached: {error.strerror or error}"
                return failure(what, check_place)
        return self.bug(error)

    def bug(self, error: Exception) -> Result:
        logger.error("unexpected failure while testing %s", self, exc_info=error)
        return failure(
            f"could not be tested: an error in job_hunter ({type(error).__name__})",
            "the log has the whole error",
        )

    def explain_tls(self, error: Any) -> Result:
        """What is wrong with TLS there; the codes are OpenSSL's X509_V_ERR_..."""
        match getattr(error, "verify_code", None):
            case None:
                return failure("does not speak TLS", f"check {self.place_settings}")
            case 9:
                what = "has a certificate that is not yet valid"
                return failure(what, "check the date and time of this machine")
            case 10:
                what = "has a certificate that has expired"
                return failure(what, "tell whoever runs it, or check the clock here")
            case 62 | 64:
                what = "has a certificate for another host"
                return failure(what, f"check {self.place_settings}")
            case 18 | 19 | 20 | 21:
                what = "has a certificate from an unknown authority"
                return failure(what, TRUST_IT)
        what = f"has an invalid certificate: {error.verify_message}"
        return failure(what, "tell whoever runs the server")


#: Words, in lower case, in what mail servers say to a login that they refuse, and the
#: kind of advice that fits. The first that is found counts: special ones stand first.
REPLY_KINDS = {
    "web browser": "browser",
    "web login": "browser",
    "webalert": "browser",
    "not enabled for imap": "access",
    "access is disabled": "access",
    "is disabled for": "access",
    "too many": "later",
    "limit": "later",
    "quota": "later",
    "temporar": "later",
    "[unavailable]": "later",
    "try again": "later",
    "password": "password",
    "credentials": "password",
    "authenticationfailed": "password",
    "authentication failed": "password",
    "authenticate failed": "password",
    "login failed": "password",
}


class MailServer(Service):
    """A mail server, at which check logs in and does nothing else."""

    section = ""  # where its settings stand: smtp or imap
    usual_ports = ""

    def __init__(self, document: Document, tls: Any, timeout: float) -> None:
        super().__init__(document, tls, timeout)
        section = self.section
        self.title = section.upper()
        self.host = document.get(f"{section}.host")
        self.port = document.get(f"{section}.port")
        self.username = document.get(f"{section}.username")
        self.password = document.get(f"{section}.password")
        self.place = f"{self.host}:{self.port}"
        ports = f"(usually {self.usual_ports})"
        self.host_setting = f"{section}.host"
        self.place_settings = f"{section}.host and {section}.port {ports}"

    def attempt(self) -> str:
        if not (self.username and self.password):
            give = f"set them with: {self.document.command('setup')}"
            raise failure("no user name or password is stored", give)
        self.log_in()
        return f"logged in as {self.username}"

    def log_in(self) -> None:
        raise NotImplementedError

    def explain(self, error: Exception) -> Result:
        match error:
            case UnicodeEncodeError(encoding="ascii"):
                advice = self.advice("password")
                return failure("accepts only ASCII in a login", *advice)
        return super().explain(error)

    def refused(self, said: str, kind: str = "") -> Result:
        """The failure of a login; the server's words may tell more than *kind*."""
        for words, kind_of_words in REPLY_KINDS.items():
            if words in said.lower():
                kind = kind_of_words
                break
        what = f"refused the login of {self.username}: {cite(said)}"
        return failure(what, *self.advice(kind))

    def advice(self, kind: str) -> list[str]:
        """What to do about a refused login; nothing, if its kind is not known."""
        set_username = self.document.command("set", f"{self.section}.username")
        set_password = self.document.command("set", f"{self.section}.password")
        match kind:
            case "browser" if is_google(self.host):
                return ["log in to https://mail.google.com with a web browser first"]
            case "browser":
                return ["log in to your account with a web browser first"]
            case "access":
                place = "the settings of your mail account"
                return [f"turn on {self.title} in {place}, or ask its administrator to"]
            case "later":
                others = "close other mail programs that use this account"
                return [f"{others}; {TRY_LATER}"]
            case "password" if is_google(self.host):
                make = f"make an app password at {APP_PASSWORD_PAGE}"
                return [
                    f"turn on 2-Step Verification, {make},",
                    f"then: {set_password}",
                ]
            case "password":
                return ["correct the login:", set_username, set_password]
        return []

    def turned_away(self, said: object) -> Result:
        """The failure of a connection that the server ends, or answers strangely."""
        if isinstance(said, str):  # in the words of Python's library
            what = f"does not answer as an {self.title} server"
            return failure(what, f"check {self.place_settings}")
        what = f"refused the connection: {cite(shorten(said))}"
        return failure(what, f"{TRY_LATER}, or check {self.place_settings}")

    def no_login(self) -> Result:
        what = "offers no encrypted login with a password, so the password was not sent"
        return failure(what, f"check {self.place_settings}")


class Smtp(MailServer):
    section = "smtp"
    usual_ports = "587, or 465"

    def log_in(self) -> None:
        server = self.connect()
        with closing(server):
            server.ehlo_or_helo_if_needed()
            if "PLAIN" in server.esmtp_features.get("auth", "").split():
                # Or smtplib would try a refused login again in other ways.
                server.esmtp_features["auth"] = "PLAIN"
            server.login(self.username, self.password)

    def connect(self) -> Any:
        """Connect with TLS from the first byte on port 465, else with STARTTLS."""
        import smtplib

        # With this name, smtplib need not look up the one of this machine.
        options: Any = {"local_hostname": "[127.0.0.1]", "timeout": self.timeout}
        if self.port == 465:
            return smtplib.SMTP_SSL(self.host, self.port, context=self.tls, **options)
        server = smtplib.SMTP(self.host, self.port, **options)
        try:
            server.starttls(context=self.tls)
        except BaseException:
            server.close()
            raise
        return server

    def explain(self, error: Exception) -> Result:
        import smtplib

        match error:
            case smtplib.SMTPAuthenticationError(smtp_code=code, smtp_error=said):
                kind = "password" if code in (534, 535) else ""
                return self.refused(shorten(said), "later" if code < 500 else kind)
            case smtplib.SMTPResponseException(smtp_error=said):
                return self.turned_away(said)
            case smtplib.SMTPServerDisconnected(__context__=TimeoutError() as timeout):
                return super().explain(timeout)
            case smtplib.SMTPServerDisconnected():
                return super().explain(EOFError())
            case smtplib.SMTPException():  # it offers no STARTTLS, or no login
                return self.no_login()
        return super().explain(error)


class Imap(MailServer):
    section = "imap"
    usual_ports = "993"

    def log_in(self) -> None:
        server = self.connect()
        with closing(server.socket()):
            if "LOGINDISABLED" in server.capabilities:
                raise self.no_login()
            server.login(self.username, self.password)

    def connect(self) -> Any:
        import imaplib

        options: Any = {"ssl_context": self.tls, "timeout": self.timeout}
        try:
            return imaplib.IMAP4_SSL(self.host, self.port, **options)
        except imaplib.IMAP4.abort:
            raise
        except imaplib.IMAP4.error as error:
            said = error.args[0]
            greeting = said.removeprefix(b"* BYE") if isinstance(said, bytes) else said
            raise self.turned_away(greeting) from None

    def explain(self, error: Exception) -> Result:
        import imaplib

        match error:
            case imaplib.IMAP4.abort():
                # In front of the arrow is the command in which it happened.
                return self.explain_end(str(error).rpartition(" => ")[2])
            case imaplib.IMAP4.error(args=(bytes(said), *_)):
                return self.refused(shorten(said))
            case imaplib.IMAP4.error():  # such as LOGIN command error: BAD [b'...']
                sentence = str(error).partition("[b'")[2].removesuffix("']")
                return self.refused(shorten(sentence))
        return super().explain(error)

    def explain_end(self, said: str) -> Result:
        """Why the connection ended, in the words of imaplib or of the server."""
        if said.startswith("socket error"):
            return super().explain(EOFError())
        if said.startswith("unexpected response"):
            return self.turned_away(said)
        return failure(f"ended the connection: {cite(shorten(said))}", TRY_LATER)


#: Words in the names of models that are not for conversation.
NOT_FOR_CHAT = set(
    "audio banana dall embed embedding embeddings guard image imagen live moderation"
    " music ocr orpheus realtime robotics safeguard sora speech transcribe tts veo"
    " vision voice voxtral whisper".split()
)
#: Words that tell the families of a provider's models apart.
FAMILIES = set(
    "codex fable flash haiku instant large lite medium mini mythos nano opus pro small"
    " sonnet tiny turbo".split()
)
#: Words that say how finished a model is, which its successor need not have.
STAGES = {"beta", "exp", "experimental", "latest", "preview"}


def words_of(model: str) -> set[str]:
    """The words of a model's name: claude-3-5-sonnet-20241022 has claude and sonnet."""
    return set(re.findall("(?<![a-z0-9])[a-z]{2,}", model.lower()))


def without_date(model: str) -> str:
    return re.sub(r"-\d{4}.*", "", model)


def version_of(model: str) -> list[float]:
    """The numbers in a model's name that are no sizes: llama-3.3-70b has 3.3."""
    numbers = r"(?<![\d.])\d+(?:\.\d+)?(?![\d.]*[bkx])"
    name = without_date(model).lower()
    return [float(number) for number in re.findall(numbers, name)]


def size_of(model: str) -> float:
    """The size in a model's name, in thousand millions: llama-3.3-70b has 70."""
    sizes = re.findall(r"(\d+(?:\.\d+)?)b\b", model.lower())
    return float(sizes[0]) if sizes else 0.0


def nearest_models(model: str, offered: Iterable[str]) -> list[str]:
    """The models of *offered* for conversation, the nearest to *model* first.

    Those with the same words come first; of these the same model, also under a longer
    name, then finished ones, those of the nearest size, undated ones and the newest.
    """
    words = words_of(model) - STAGES
    undated = without_date(model)

    def distance(other: str) -> tuple[float, ...]:
        different_words = words ^ (words_of(other) - STAGES)
        return (
            len(different_words),
            not f"{other}-".startswith(f"{undated}-"),
            other != undated,
            bool(words_of(other) & STAGES),
            abs(size_of(other) - size_of(model)),
            without_date(other) != other,
        )

    for_chat = [other for other in offered if not words_of(other) & NOT_FOR_CHAT]
    newest_first = sorted(for_chat, key=lambda o: (version_of(o), o), reverse=True)
    return sorted(newest_first, key=distance)


def successor(model: str, offered: Iterable[str]) -> str:
    """The nearest of the same family; "" if there is none."""
    words = words_of(model) - STAGES
    if not words:
        return ""
    for other in nearest_models(model, offered):
        is_same_family = words & FAMILIES == words_of(other) & FAMILIES
        if is_same_family and words <= words_of(other):
            return other
    return ""


def is_listed(model: str, offered: Iterable[str]) -> bool:
    """Whether a provider offers a model, be it under an alias that it does not list."""
    dated = re.compile(re.escape(model) + r"-(\d{8}|\d{4}-\d\d-\d\d|\d{3,4})")
    if model.endswith("-latest") or model in offered:
        return True
    return any(dated.fullmatch(other) for other in offered)


def reason_in(content: bytes) -> str:
    """The sentence with which a provider explains a refusal; "" if it gives none."""
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        return ""
    match answer:
        case {"error": {"message": str(said)}} | [{"error": {"message": str(said)}}]:
            return shorten(said)
        case {"error": str(said)} | {"message": str(said)} | {"detail": str(said)}:
            return shorten(said)
    return ""


def host_of(url: str) -> str:
    with suppress(ValueError):
        return urlsplit(url).hostname or ""
    return ""


def is_near(host: str) -> bool:
    """Whether a host is this machine, in a private network, or a name without a dot."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host[:1].isalpha() and "." not in host
    return (getattr(address, "ipv4_mapped", None) or address).is_private


class ModelServer(Service):
    """A provider, which is asked for the models that it offers."""

    def __init__(self, document: Document, tls: Any, timeout: float, name: str) -> None:
        super().__init__(document, tls, timeout)
        self.name = name
        self.provider = find_provider(name)
        self.title = self.provider.title
        self.place = base_url_in_use(name, document.get(f"providers.{name}.api_base"))
        key = document.find(f"providers.{name}.api_key")
        in_variable = os.environ.get(first_set(key.variables), "")  # as LiteLLM has it
        self.key = document.get(key.name) or in_variable
        masks.add(self.key)
        self.set_key = document.command("set", key.name)
        url_variable = base_url_variables(name)[0]
        self.place_settings = f"providers.{name}.api_base or {url_variable}"
        self.host_setting = self.place_settings
        self.agents: dict[str, list[str]] = {}  # by the model that they use

    def attempt(self) -> str:
        self.require_key()
        if not self.place:
            set_url = self.document.command("set", f"providers.{self.name}.api_base")
            todo = f"if it needs one, set it with: {set_url}"
            raise Result("skipped", "has no base URL", todo)
        self.refuse_unusable_url()
        if self.proxy():
            self.place_settings += ", and the proxy variables (a proxy is in use)"
            self.host_setting = self.place_settings
        offered = self.offered()
        missing = {}
        for model in self.agents:
            name = model.partition("/")[2].removesuffix(":latest")
            if not is_listed(name, offered):
                missing[model] = name
        if missing:
            raise self.not_offered(missing, offered)
        return f"offers {', '.join(self.agents)}"

    def proxy(self) -> str:
        """The proxy through which it is asked; "" if there is none."""
        from urllib import request

        url = urlsplit(self.place)
        if request.proxy_bypass(url.netloc):
            return ""
        return request.getproxies().get(url.scheme, "")

    def require_key(self) -> None:
        give = f"set it with: {self.set_key}"
        if self.provider.needs_key and not self.key:
            if self.place != self.provider.base_url:
                give += " (any word will do for a server that needs none)"
            raise failure(f"needs the {self.title} API key", give)
        try:
            check_key(self.name, True, self.key)
        except ValueError as error:
            raise failure(f"has an unusable API key: {error}", give) from None

    def not_offered(self, missing: Mapping[str, str], offered: list[str]) -> Result:
        """The failure of models that are not offered, and what to choose instead."""
        if not offered:
            return failure("lists no models", f"check {self.place_settings}")
        successors = {}
        todo = []
        names = []
        for model, name in missing.items():
            new = successor(name, offered)
            if new:
                successors[model] = f"{model.partition('/')[0]}/{new}"
                names.append(f"{name} (the nearest is {new})")
                continue
            names.append(name)
            agents = self.agents[model]
            five = ", ".join(nearest_models(name, offered)[:5]) or "none for chat"
            change = self.document.command("set", f"agents.{agents[0]}.model")
            todo.append(f"it offers {five}")
            todo.append(f"choose a model for {', '.join(agents)}: {change}")
        result = failure(f"does not offer {', '.join(names)}", *todo)
        result.successors = successors
        return result

    def refuse_unusable_url(self) -> None:
        """Raise if it is no URL, or if a key would go unencrypted to the internet."""
        try:
            url = urlsplit(check_url(self.place))
        except ValueError as error:
            place = f"check {self.place_settings}"
            raise failure(f"has no usable base URL: {error}", place) from None
        if url.scheme == "https" or not self.key:
            return
        what = "not contacted: your key would be sent unencrypted"
        if not is_near(url.hostname or ""):
            raise failure(what, f"use an https:// base URL: {self.place_settings}")
        proxy = self.proxy()
        if not proxy:
            return
        if "://" not in proxy:
            proxy = f"//{proxy}"
        if not is_near(host_of(proxy)):
            todo = f"name {url.hostname} in the variable NO_PROXY"
            raise failure(f"{what}, through a proxy", todo)

    def offered(self) -> list[str]:
        """The models in the provider's list, by the names that it gives them."""
        names: list[str] = []
        page = first = self.place + self.provider.models_path
        for _ in range(MOST_PAGES):
            answer = self.fetch(page)
            names += self.names_in(answer)  # which fails, if it is no list of them
            if not lookup(answer, "has_more"):
                break
            separator = "&" if "?" in first else "?"
            last = quote(str(answer.get("last_id")))
            page = f"{first}{separator}after_id={last}"
        return names

    def names_in(self, answer: Any) -> Iterator[str]:
        """The names in a page of the list; raises a failed Result if it is none."""
        match answer:
            case {"data": list(items)} | {"models": list(items)} | list(items):
                for item in items:
                    match item:
                        case {"id": str(name)} | {"name": str(name)}:
                            name = name.removeprefix("models/").removesuffix(":latest")
                            model = f"{self.name}/{name}"
                            if normal_model(model) == model:  # or it cannot be stored
                                yield name
            case _:
                raise failure("did not return a list of models", self.check_place())

    def fetch(self, url: str) -> Any:
        """What the JSON at *url* says; None if it is not JSON. Raises a Result."""
        from urllib import request
        from urllib.error import HTTPError

        class StayHere(request.HTTPRedirectHandler):
            """A key is sent to nobody whom a server names."""

            def redirect_request(self, *_: object, **__: object) -> None:
                return None

        headers = {"User-Agent": f"job_hunter/{__version__}"}
        if self.key:
            for name, value in self.provider.headers:
                headers[name] = value.format(key=self.key)
        opener = request.build_opener(StayHere, request.HTTPSHandler(context=self.tls))
        asked = request.Request(url, headers=headers)  # noqa: S310  # http or https
        try:
            with opener.open(asked, timeout=self.timeout) as answer:
                return json.loads(answer.read(LONGEST_ANSWER))
        except (ValueError, RecursionError):
            return None
        except HTTPError as error:
            with error:
                said = reason_in(error.read(LONGEST_ANSWER))
                location = shorten(error.headers.get("Location", "").partition("?")[0])
                raise self.refusal(error.code, said, location) from None

    def explain(self, error: Exception) -> Result:
        from http.client import HTTPException
        from urllib.error import URLError

        match error:
            case ConnectionError():  # RemoteDisconnected is an HTTPException too
                return super().explain(error)
            case HTTPException():
                what = f"sent an invalid answer ({type(error).__name__})"
                return failure(what, f"check {self.place_settings}")
            case URLError(reason=OSError() as reason):
                if "Tunnel connection" in str(reason):
                    what = f"cannot be reached through the proxy: {reason}"
                    return failure(what, CHECK_PROXY)
                return super().explain(reason)
        return super().explain(error)

    def check_place(self) -> str:
        """What to do where something else than the list of models answers."""
        own = self.provider.base_url
        usually_ends = own == "" or own.endswith("/v1")
        if usually_ends and not urlsplit(self.place).path:
            return f"check {self.place_settings}; base URLs usually end in /v1"
        return f"check {self.place_settings}"

    def refusal(self, code: int, said: str, location: str) -> Result:
        """What an HTTP status other than 200 means, with the reason that it gives."""
        place = self.check_place()
        # Gemini and xAI answer 400 to a wrong key.
        is_about_key = code == 400 and "api key" in said.lower()
        if code in (401, 402, 403) or is_about_key:
            return self.denial(code, cite(said))
        if 300 <= code < 400:
            where = f"to {location}" if location else "elsewhere"
            return failure(f"redirects {where}, where nothing was sent", place)
        if code >= 500:
            what = f"is overloaded or down (HTTP {code}): {cite(said)}"
            return failure(what, TRY_LATER)
        match code:
            case 404 if self.name not in PROVIDERS:
                return Result("skipped", "has no list of models")
            case 407:
                what = "cannot be reached: the proxy requires a login"
                return failure(what, CHECK_PROXY)
            case 429:
                return failure(f"reports too many requests: {cite(said)}", TRY_LATER)
        what = f"has no list of models (HTTP {code}: {cite(said)})"
        return failure(what, place, f"or the key may be wrong: {self.set_key}")

    def denial(self, code: int, said: str) -> Result:
        """The refusal of a key, or of what its owner may do with it."""
        owner = self.see_owner()
        renew = f"then set another key: {self.set_key}"
        if code == 402:
            return failure(f"asks for payment: {said}", owner)
        if not self.key:
            return failure(f"requires a key: {said}", owner, f"set it: {self.set_key}")
        if code == 403:
            return failure(f"denied access: {said}", owner, renew)
        return failure(f"refused the key: {said}", owner, renew)

    def see_owner(self) -> str:
        if self.place == self.provider.base_url and self.provider.needs_key:
            return f"see {self.provider.key_page}"
        return f"ask whoever runs {self.place}"


THIS_MACHINE = ("localhost", "127.0.0.1", "::1", "0.0.0.0")  # noqa: S104  # for Ollama


class Ollama(ModelServer):
    """Ollama, which needs no key and offers what was pulled."""

    def not_offered(self, missing: Mapping[str, str], offered: list[str]) -> Result:
        names = list(missing.values())
        todo = [f"pull it: ollama pull {shlex.quote(name)}" for name in names]
        if offered:
            todo.append(f"or choose what is pulled: {', '.join(offered[:10])}")
        return failure(f"has not pulled {', '.join(names)}", *todo)

    def explain(self, error: Exception) -> Result:
        from urllib.error import URLError

        match error:
            case URLError(reason=ConnectionRefusedError()):
                start = "start it: ollama serve"
                is_local = urlsplit(self.place).hostname in THIS_MACHINE
                if is_local and not shutil.which("ollama"):
                    start = "install it: https://ollama.com/download"
                return failure(
                    "is not running", start, f"or check {self.place_settings}"
                )
        return super().explain(error)


def services_in_use(document: Document, timeout: float) -> list[Service]:
    """The mail servers, and the providers of the models in use."""
    import ssl

    tls = ssl.create_default_context()  # which reads SSL_CERT_FILE, if it can
    file = os.environ.get("SSL_CERT_FILE")
    if file:
        with explained(f"SSL_CERT_FILE={file} must name a PEM certificate file"):
            tls.load_verify_locations(file)
    services: dict[str, ModelServer] = {}
    for setting in document.model_settings():
        model = document.state(setting).value
        name = provider_of(model)
        if name not in services:
            kind = Ollama if name == "ollama" else ModelServer
            services[name] = kind(document, tls, timeout, name)
        services[name].agents.setdefault(model, []).append(setting.path[1])
    mail = [Smtp(document, tls, timeout), Imap(document, tls, timeout)]
    return [*mail, *services.values()]


def attempt_all(
    services: Sequence[Service], timeout: float
) -> Iterator[tuple[Service, Result]]:
    """Try all services at once; give each as it finishes, with what came of it."""
    finished: queue.SimpleQueue[tuple[Service, Result]] = queue.SimpleQueue()

    def attempt(service: Service) -> None:
        try:
            finished.put((service, Result("ok", service.attempt())))
        except Exception as error:
            try:
                finished.put((service, service.explain(error)))
            except Exception as bug:  # even what explains may be broken
                finished.put((service, service.bug(bug)))

    for service in services:
        threading.Thread(target=attempt, args=[service], daemon=True).start()
    waiting = list(services)
    deadline = time.monotonic() + timeout
    while waiting:
        try:
            found = finished.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        waiting.remove(found[0])
        yield found
    for service in waiting:
        yield service, service.explain(TimeoutError())


# Commands, and the program that runs them =====================================


def cmd_setup(args: argparse.Namespace, manager: ConfigManager) -> None:
    setup = Setup(manager, args)
    document = setup.run()
    manager.ensure_dirs()
    print_summary(summarize(document, setup.given))
    document.valid_states()  # raises what is wrong with a value that is not asked for
    if document.get("mailing_address") == "":
        logger.warning(
            "no mailing address (MAILING_ADDRESS): CAN-SPAM requires one in each mail"
        )
    models = {document.get(row.name) for row in model_rows(document).values()}
    words = ["check"]
    if models & {SONNET, HAIKU}:
        words.append("--fix")
        print_error("\nAnthropic has retired these Claude models; --fix replaces them.")
    print_error(f"\nNext: {document.command(*words)}")


def cmd_show(args: argparse.Namespace, manager: ConfigManager) -> None:
    document = manager.read()
    summary = summarize(document)
    if args.json:
        write_out(json.dumps(summary, indent=2))  # its values are masked already
    else:
        print_summary(summary)
    if document.vault.old_key:
        finish = document.command("rotate-key")
        logger.warning("a key rotation is not finished; to finish it: %s", finish)
    problems = []
    for name, state in document.states().items():
        setting = document.table[name]
        title = setting.label or name
        if state.problem:
            problem = str(state.problem).replace(name, title, 1)
            problems.append(ConfigError(problem, hint=state.problem.hint))
        elif state.status == "missing" and setting.required:
            hint = f"run: {document.command('setup')}"
            problems.append(ConfigError(f"{title}: missing", hint=hint))
    raise_problems(problems)


def cmd_get(args: argparse.Namespace, manager: ConfigManager) -> None:
    document = manager.read()
    setting = document.find(args.name)
    value = document.get(setting.name)
    if setting.default_path:
        value = str(document.path_of(setting.name))
    if value == "":
        raise ConfigError(f"{setting.name} is not set")
    write_out(as_text(value))


def cmd_set(args: argparse.Namespace, manager: ConfigManager) -> None:
    document = manager.read()
    setting = document.find(args.name)
    if setting.secret and any(args.value):
        raise ConfigError(
            "other users can see a secret on the command line",
            hint="type it at a hidden prompt, or pipe it in:"
            f" {document.command('set', setting.name)}",
            status=2,
        )
    if setting.secret:
        document.vault.refuse_missing_external_key()  # before somebody types it
        document.refuse_other_key()
    if args.value:
        value = document.checked(setting, " ".join(args.value))
    elif is_terminal():
        with Keyboard() as keyboard:
            value = ask(keyboard, setting)
    else:
        try:
            text = read_standard_input()
        except ValueError as error:
            raise ConfigError(f"{setting.name}: {error}") from None
        value = document.checked(setting, text)
    with manager.edit() as document:
        also_changed = document.give(setting, value)
    tell_other(also_changed)
    for note in notes_on_models(document, [setting.name], asks_for_keys=False):
        print_error(note)
    note_login(document, setting)


def cmd_unset(args: argparse.Namespace, manager: ConfigManager) -> None:
    manager.read().find(args.name)  # an unknown name makes no directory
    also_changed = ""
    with manager.edit() as document:
        setting = document.find(args.name)
        other = document.same_of_other_server(setting)
        document.reset(setting)
        if other and document.reset(other):
            also_changed = other.name
    tell_other(also_changed)


def note_login(document: Document, setting: Setting) -> None:
    """Say that another mail server gets the stored login from now on."""
    section, _, column = setting.name.partition(".")
    if column != "host" or not document.changes:
        return
    other = document.table["imap.host" if section == "smtp" else "smtp.host"]
    host, other_host = document.state(setting).value, document.state(other).value
    if is_google(host) != is_google(other_host):
        change = document.command("set", other.name)
        print_error(f"note: {other.name} is still {other_host}; to change it: {change}")
    username, password = f"{section}.username", f"{section}.password"
    if document.state(document.table[password]).value:
        print_error(f"note: {username} and {password} did not change; to change them:")
        print_error(f"  {document.command('set', username)}")
        print_error(f"  {document.command('set', password)}")


def tell_other(name: str) -> None:
    if name:
        print_error(f"also changed {name}, which had no value of its own")


def cmd_check(args: argparse.Namespace, manager: ConfigManager) -> None:
    document = manager.read()
    document.valid_states()
    services = services_in_use(document, args.timeout)
    places = ", ".join(map(str, services))
    print_error(f"Testing {places}. It may take up to {args.timeout:g} seconds.")
    failed: list[str] = []
    successors: dict[str, str] = {}
    for service, result in attempt_all(services, args.timeout):
        successors |= result.successors
        if args.fix and result.successors and not result.todo:
            result.outcome = "change"
        print_out(f"{result.outcome:<7} {service}: {result.what}")
        for line in result.todo:
            print_out(f"        {line}")
        if result.outcome == "failed":
            failed.append(service.title)
    if args.fix:
        change_models(manager, successors)
    to_fix = successors and not args.fix
    fix = document.command("check", "--fix")
    if failed:
        raise ConfigError(
            f"failed: {', '.join(failed)}",
            hint=f"to use the nearest models: {fix}" if to_fix else "",
        )


def change_models(manager: ConfigManager, successors: Mapping[str, str]) -> None:
    """Change every agent's model that has a successor, in one write."""
    if not successors:
        return
    changed = []
    with manager.edit() as document:
        for setting in document.model_settings():
            old = document.state(setting).value
            if old in successors:
                new = successors[old]
                document.put(setting, new)
                changed.append(f"{setting.path[1]}: {old} -> {new}")
    for line in changed:
        print_out(line)


def mask_logins() -> None:
    """Mask the passwords in the URLs of proxies and of base URLs."""
    for variable, text in os.environ.items():
        if variable.lower().endswith(("_proxy", "_api_base", "_base_url")):
            with suppress(ValueError):
                masks.add(urlsplit(text).password or "")


def cmd_run(args: argparse.Namespace, manager: ConfigManager) -> None:
    words = args.words
    if words[0] == "--":
        words = words[1:]
    if not words or not words[0]:
        raise ConfigError("there is no command to run", status=2)
    document = manager.read()
    environment = dict(os.environ)
    for variable, text in variables_to_hand_out(document).items():
        environment[variable] = text
        environment.pop(f"{variable}_FILE", None)
    if args.base_dir:
        environment[BASE_DIR_VARIABLE] = str(manager.base_dir)
    command = without_credentials(words[0])
    try:
        if os.sep not in words[0] and not shutil.which(words[0], os.F_OK):
            raise FileNotFoundError  # which a directory that cannot be read would hide
        execute(words, environment)
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(f"{command}: there is no such command", status=127) from None
    except OSError as error:
        raise ConfigError(f"{command}: {error.strerror}", status=126) from None


def variables_to_hand_out(document: Document) -> dict[str, str]:
    """What is stored, by variable; says what is set otherwise and what is missing."""
    found = {}
    for name, state in document.valid_states().items():
        setting = document.table[name]
        if not setting.variables:
            continue
        is_stored = state.status == "configured"
        if first_set(setting.variables):
            if is_stored:
                warn_of_differences(setting, state.value)
        elif is_stored:
            found[setting.variables[0]] = as_text(state.value)
        elif setting.required and setting.path[0] == "providers":
            files = [f"{name}_FILE" for name in setting.variables]
            if not first_set(files):
                logger.warning("%s is neither stored nor set", setting.variables[0])
    return found


def warn_of_differences(setting: Setting, value: Any) -> None:
    """Name each variable that is set to something else than what is stored."""
    for variable in setting.variables:
        text = os.environ.get(variable, "")
        with suppress(ValueError):  # it is empty, or no such value
            if not clean(text) or setting.parse(text) == value:
                continue
        differs = "%s differs from what is stored; the command gets the variable"
        logger.warning(differs, variable)


def execute(words: list[str], environment: Mapping[str, str]) -> NoReturn:
    """Become another program; raises OSError if it cannot be run."""
    if sys.platform == "win32":
        import subprocess

        sys.exit(subprocess.run(words, env=environment, check=False).returncode)
    # Python ignores it, and so would the other program.
    ignored = signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        os.execvpe(words[0], words, environment)
    finally:
        signal.signal(signal.SIGPIPE, ignored)


def cmd_rotate_key(_: argparse.Namespace, manager: ConfigManager) -> None:
    document = manager.read()
    vault = document.vault
    unreadable = document.unreadable()
    if unreadable:
        raise document.error_for(*unreadable)
    if not any(document.all_tokens()):
        raise ConfigError(
            "there is nothing to rotate: no secret is encrypted yet",
            hint=f"run: {document.command('setup')}",
        )
    if is_same_file(vault.path, vault.old_path):
        raise ConfigError(
            f"{vault.path} is {vault.old_path}, where a rotation keeps the old key",
            hint="give the machine key another name first",
        )
    if vault.is_external and vault.old_key in (None, vault.key):
        key = shlex.quote(str(vault.path))
        old_key = shlex.quote(str(vault.old_path))
        # It can be run again if a step of it fails, and destroys no key.
        raise ConfigError(
            f"{KEY_FILE_VARIABLE} names the machine key, so it is not changed here",
            hint="to change it yourself, run:"
            f" test -e {old_key} || (umask 077; cp {key} {old_key});"
            f" cmp -s {key} {old_key} && head -c {MACHINE_KEY_BYTES} /dev/urandom"
            f" > {key}; {KEY_FILE_VARIABLE}={key} {document.command('rotate-key')}",
        )
    with manager.edit() as document:  # whose end finishes a rotation that was begun
        if document.vault.old_key in (None, document.vault.key):
            document.vault.begin_rotation()
    print_error("There is a new machine key, and the secrets are encrypted with it.")


# The command line -------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """argparse, which here repeats no credential that was put in the wrong place."""

    def error(self, message: str) -> NoReturn:
        super().error(without_credentials(message))


def parse_agent_model(text: str) -> tuple[str, str]:
    """An agent ("" for all) and its model, from AGENT=MODEL or MODEL."""
    agent, equals, model = text.partition("=")
    if not equals:
        agent, model = "", text
    elif agent not in AGENT_NAMES:
        agents = ", ".join(AGENT_NAMES)
        raise argparse.ArgumentTypeError(f"expected one of {agents} before the =")
    (setting,) = declared(AgentConfig, name=agent)
    try:
        return agent, setting.parse(model)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def parse_seconds(text: str) -> float:
    with suppress(ValueError):
        if 0 < float(text) <= 86_400:
            return float(text)
    raise argparse.ArgumentTypeError("expected a number above 0, up to 86400")


PROGRAM_HELP = """\
Set up and protect the configuration of a job-hunting outreach agent: a Gmail
account, the models of seven agents, the API keys that these need, and a mailing
address. Secrets are stored encrypted.

Run this first:  job_hunter.py setup
Then test it:    job_hunter.py check"""

PROGRAM_EPILOG = f"""\
variables:
  {BASE_DIR_VARIABLE}  the base directory, instead of ~/.outreach-agent
  {KEY_FILE_VARIABLE}  the file of the machine key, instead of .key there"""

SETUP_HELP = """\
Ask for what is missing, store it encrypted, and print a summary.

Each answer is saved as it is given: stop with Ctrl-C, and run setup again to
go on. With --non-interactive, it asks nothing and takes the values from
variables: GMAIL_USERNAME, GMAIL_APP_PASSWORD, MAILING_ADDRESS, and for each
provider that the models use, <PROVIDER>_API_KEY and <PROVIDER>_API_BASE. A
variable with _FILE added to its name, such as GMAIL_APP_PASSWORD_FILE, names
the file that holds the value."""

SETUP_EXAMPLES = f"""\
examples:
  job_hunter.py setup
  job_hunter.py setup --model {EXAMPLE_MODEL}
  job_hunter.py setup --non-interactive --preset best_quality"""

SHOW_HELP = """\
Print the summary: what is configured, with secrets masked.

Exit status 1 if something required is missing, invalid or unreadable."""

GET_HELP = """\
Print one value: secrets in plain text, lists and numbers as JSON.

Exit status 1 if it is not set."""

SET_HELP = """\
Validate and store one value.

Without VALUE it is asked for, or read from standard input. A secret is never
taken from the command line, where other users can see it. A new login of SMTP
is one of IMAP too, unless that has a login of its own."""

SET_EXAMPLES = f"""\
examples:
  job_hunter.py set agents.writer.model {EXAMPLE_MODEL}
  pass show gmail | job_hunter.py set smtp.password"""

UNSET_HELP = "Reset one value to its default."

CHECK_HELP = """\
Test the credentials: log in to the mail servers, ask for the models.

It sends no mail and spends no tokens. Exit status 1 if anything fails."""

RUN_HELP = """\
Run a command with the stored credentials in its environment.

They have the names that setup reads; a variable that is already set wins. The
exit status is that of the command."""

ROTATE_HELP = """\
Make a new machine key and encrypt every secret with it.

If it is interrupted, the secrets stay readable; run it again to finish it. The
former machine key is kept as a .bak file."""


def make_parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument(
        "--base-dir",
        metavar="DIR",
        help="the base directory (default: ~/.outreach-agent)",
    )
    common.add_argument(
        "-v", "--verbose", action="count", help="show what is done; -vv shows more"
    )
    shared: dict[str, Any] = {
        "parents": [common],
        "formatter_class": argparse.RawDescriptionHelpFormatter,
        "allow_abbrev": False,
    }
    prog = "job_hunter.py"
    if Path(sys.argv[0]).stem == "job-hunter":
        prog = "job-hunter"
    parser = Parser(
        prog=prog,
        description=PROGRAM_HELP,
        epilog=PROGRAM_EPILOG,
        **shared,
    )
    parser.add_argument(
        "--version", action="version", version=f"job_hunter {__version__}"
    )
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", dest="command"
    )

    def add(name: str, run: Callable[..., None], text: str, epilog: str) -> Parser:
        """Add a command: the first line of *text* stands in the list of commands."""
        title = text.partition("\n")[0]
        command = commands.add_parser(
            name, help=title, description=text, epilog=epilog, **shared
        )
        command.set_defaults(run=run)
        return command

    setup = add("setup", cmd_setup, SETUP_HELP, SETUP_EXAMPLES)
    setup.add_argument(
        "--non-interactive", action="store_true", help="ask nothing; use variables"
    )
    setup.add_argument(
        "--preset", choices=PRESETS, default="", help="set the models of all agents"
    )
    setup.add_argument(
        "--model",
        metavar="[AGENT=]MODEL",
        type=parse_agent_model,
        action="append",
        default=[],
        help="set the model of all agents, or of one; may be repeated",
    )
    setup.add_argument(
        "--reconfigure",
        action="store_true",
        help="ask everything again, or let variables win over what is stored",
    )

    show = add("show", cmd_show, SHOW_HELP, "example:\n  job_hunter.py show --json")
    show.add_argument("--json", action="store_true", help="print it as JSON")

    agents = ", ".join(AGENT_NAMES)
    title = f"settings, and their other names (AGENT is one of\n{agents}):"
    names = f"{title}\n{list_names()}"
    example = "example:\n  job_hunter.py get agents.writer.model"
    get = add("get", cmd_get, GET_HELP, f"{example}\n\n{names}")
    get.add_argument("name", metavar="NAME", help="the setting")

    set_ = add("set", cmd_set, SET_HELP, f"{SET_EXAMPLES}\n\n{names}")
    set_.add_argument("name", metavar="NAME", help="the setting")
    set_.add_argument("value", metavar="VALUE", nargs="*", default=[], help="its value")

    example = "example:\n  job_hunter.py unset smtp.port"
    unset = add("unset", cmd_unset, UNSET_HELP, f"{example}\n\n{names}")
    unset.add_argument("name", metavar="NAME", help="the setting")

    check = add("check", cmd_check, CHECK_HELP, "example:\n  job_hunter.py check --fix")
    check.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=parse_seconds,
        default=15.0,
        help="give up after this many seconds (default: 15)",
    )
    check.add_argument(
        "--fix",
        action="store_true",
        help="change each model that its provider no longer offers to the nearest",
    )

    example = "example:\n  job_hunter.py run -- python my_agent.py"
    run = add("run", cmd_run, RUN_HELP, example)
    run.add_argument("words", metavar="COMMAND", nargs=argparse.PARSER)

    add(
        "rotate-key",
        cmd_rotate_key,
        ROTATE_HELP,
        "example:\n  job_hunter.py rotate-key",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program with *argv* (by default, the arguments of the process).

    Returns the exit status: 0 done, 1 failed, 2 wrong usage, 126 or 127 if `run` cannot
    run or find the command, 130 interrupted, 128 + n ended by signal n. What failed is
    printed on standard error.
    """
    parser = make_parser()
    try:
        args = parser.parse_args(argv, argparse.Namespace(base_dir=None, verbose=0))
    except SystemExit as end:  # --help, --version or wrong usage
        return int(end.code or 0)
    if args.command is None:
        parser.print_help(sys.stderr)
        return 2
    with logging_kept(), signals_raised():
        return run_command(args)


def writes(args: argparse.Namespace) -> bool:
    """Whether a command changes something; one that only reads creates nothing."""
    if args.run == cmd_check:
        return bool(args.fix)
    return args.run not in (cmd_show, cmd_get, cmd_run)


def run_command(args: argparse.Namespace) -> int:
    """Run one command, and print its error."""
    run_log = None
    try:
        require_cryptography()
        if args.base_dir is not None and not clean(args.base_dir):
            what = "--base-dir: the name of the directory is empty"
            raise ConfigError(what, status=2)
        manager = ConfigManager(args.base_dir)
        masks.leave_whole(str(manager.base_dir), *sys.orig_argv[:1])
        mask_logins()
        # Of a command that only reads, the log has unexpected failures alone.
        run_log = RunLog(manager, logging.DEBUG if writes(args) else logging.ERROR)
        set_handlers(run_log, args.verbose)
        args.run(args, manager)
        return 0
    except ConfigError as error:
        problem = error
    except KeyboardInterrupt:
        problem = ConfigError("interrupted", status=128 + signal.SIGINT)
    except SystemExit as end:  # a signal, or a standard output that nobody reads
        return int(end.code or 0)
    except Exception as error:
        logger.exception("unexpected failure of %s", args.command)
        what = f"Something went wrong: {type(error).__name__}: {error}"
        if run_log and not run_log.problem:
            what = f"Something went wrong. Full error logged to {run_log.baseFilename}"
        problem = ConfigError(what)
    sentences = "\n  ".join(problem.problems)
    print_error(f"[{args.command.capitalize()}] {sentences}")
    if problem.hint:
        print_error(f"hint: {problem.hint}")
    return problem.status


@contextmanager
def logging_kept() -> Iterator[None]:
    """Leave the logging of the process as it was."""
    handlers, level = logger.handlers, logger.level
    propagate, disabled = logger.propagate, logger.disabled
    logger.handlers = []
    try:
        yield
    finally:
        for handler in logger.handlers:
            handler.close()
        logger.handlers = handlers
        logger.setLevel(level)
        logger.propagate = propagate
        logger.disabled = disabled


ENDING_SIGNALS = ("SIGTERM", "SIGHUP", "SIGQUIT")


@contextmanager
def signals_raised() -> Iterator[None]:
    """Let signals end the program as exceptions, with terminal and files in order."""

    def end(number: int, _: object) -> NoReturn:
        sys.exit(128 + number)

    handled = []
    if threading.current_thread() is threading.main_thread():
        names = [name for name in ENDING_SIGNALS if hasattr(signal, name)]
        numbers = [getattr(signal, name) for name in names]
        handled = [n for n in numbers if signal.getsignal(n) is signal.SIG_DFL]
    for number in handled:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, signal.SIG_DFL)


def run_as_program() -> NoReturn:
    """Run main() as the whole process, which a signal ends as it ends others."""
    status = main()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream:
                stream.flush()
        except OSError:  # nobody reads it: let Python not try again at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    names = ("SIGINT", *ENDING_SIGNALS)
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    if status - 128 in numbers:  # so that a script that called this stops too
        signal.signal(status - 128, signal.SIG_DFL)
        os.kill(os.getpid(), status - 128)
    sys.exit(status)


if __name__ == "__main__":
    run_as_program()
