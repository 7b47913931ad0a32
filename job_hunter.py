#!/usr/bin/env python3
# /// script
# requires-python = ">=3.11"
# dependencies = ["cryptography>=44"]
# ///
"""Set up and guard the configuration of a job-hunting outreach agent.

usage: python job_hunter.py [--base-dir DIR] COMMAND [ARGUMENT ...]

commands:
  setup            ask for what is missing and store it, secrets encrypted
  show             print what is configured, secrets masked
  check            prove that the credentials work: log in, ask for the models
  get NAME         print one value
  set NAME [VALUE] store one value
  unset NAME       put the default of one value back
  run COMMAND ...  run a command with the credentials in its environment
  rotate-key       make a new machine key and encrypt every secret with it

options:
  --base-dir DIR   the base directory, where everything is kept; by default
                   what JOB_HUNTER_BASE_DIR says, or ~/.outreach-agent
  --version        print the version
  -h, --help       print this; after a command, what that command takes

Agents import it: config = job_hunter.ConfigManager().load()
It needs Python 3.11 or newer and the package cryptography.
"""

from __future__ import annotations

import os
import sys

if sys.version_info < (3, 11):  # noqa: UP036  # before anything that an older Python cannot import
    OUTDATED = "[Setup] job_hunter needs Python 3.11 or newer, and this is Python %d.%d: install one from python.org"
    if __name__ == "__main__":
        sys.exit(OUTDATED % sys.version_info[:2])
    raise ImportError(OUTDATED % sys.version_info[:2])
if __name__ == "__main__" and sys.argv[1:] in (["-h"], ["--help"]):  # before anything that takes time
    try:
        sys.exit(print(__doc__, end="", flush=True))  # noqa: T201
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python would try once more at its end
        sys.exit(1 if isinstance(error, BrokenPipeError) else f"[Help] standard output: {error.strerror}")

if __name__ == "__main__":  # Ctrl-C before main() is there to answer it is no traceback either
    sys.excepthook = lambda kind, *rest: None if kind is KeyboardInterrupt else sys.__excepthook__(kind, *rest)

# What only some commands need is imported where it is needed: most of them take less time than such an import.
import errno
import json
import re
import stat
import time
import types
from _thread import RLock
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout, suppress
from functools import cache, lru_cache, partial, reduce
from os.path import basename, dirname, exists, expanduser, join

TYPE_CHECKING = False  # as in typing
if TYPE_CHECKING:
    import logging
    import ssl
    from argparse import Namespace
    from dataclasses import dataclass
    from pathlib import Path
    from typing import Any, NoReturn, TextIO

    from cryptography.fernet import Fernet

    Directory = str | os.PathLike[str] | None
    Document = Mapping[str, Any]  # config.json as it is stored
    Node = tuple[Any, Any, Any]  # an object or a list in it: the node that holds it or None, its name there, itself
    Keys = Sequence[bytes]  # the machine keys that may open a secret
    Check = Callable[[Any], Any]  # of a value: see Field
    Values = Mapping[str, "Value"]  # of all fields, by their names
    Changes = Mapping["Field", Any]  # checked values to store
    Arguments = Mapping[str, Mapping[str, Any]]  # what argparse's add_argument takes, by the names of the arguments
else:

    def dataclass(cls: type) -> type:
        """Give a class what the program needs of a dataclass; _make_dataclasses makes it a real one."""

        def __init__(self: Any, *values: Any, **named: Any) -> None:  # noqa: N807
            for name, value in (*zip(cls.__annotations__, values, strict=False), *named.items()):
                setattr(self, name, value)

        cls.__init__ = __init__
        return cls


__all__ = [
    "AGENT_NAMES",
    "PRESETS",
    "AgentConfig",
    "AppConfig",
    "ConfigError",
    "ConfigManager",
    "ImapConfig",
    "SmtpConfig",
    "configure_logging",
    "decrypt_secret",
    "encrypt_secret",
    "get_fernet",
    "get_logger",
    "main",
]
__version__ = "0.1.0"

# =====================================================================================
# Constants and presets
# =====================================================================================

AGENT_NAMES = ("orchestrator", "scout", "research", "matcher", "writer", "outreach", "analyst")
DEFAULT_MODEL = "ollama/llama3.1"
SONNET = "anthropic/claude-3-5-sonnet-20241022"
HAIKU = "anthropic/claude-3-haiku-20240307"

#: The model of every agent, by preset.
PRESETS: dict[str, dict[str, str]] = {
    "fully_free": dict.fromkeys(AGENT_NAMES, DEFAULT_MODEL),
    "best_quality": dict.fromkeys(AGENT_NAMES, HAIKU) | {"writer": SONNET, "research": SONNET},
}
LLM_MENU = {
    "fully_free": "fully_free (all Ollama)",
    "best_quality": "best_quality (Claude Sonnet for Writer+Research, Haiku for rest)",
    "custom": "custom",
}

BASE_DIR_VARIABLE = "JOB_HUNTER_BASE_DIR"
CONFIG_FILE = "config.json"
KEY_FILE = ".key"
NEXT_KEY_FILE = ".key.new"  # only while the key is rotated
LOCK_FILE = ".lock"  # only where a directory cannot be locked
NOT_BLOCKING = getattr(os, "O_NONBLOCK", 0)  # or a named pipe in the place of a file would stop the program
TEMPORARY = ".tmp"  # behind the name of a file that is being written; what a killed process left is removed
SECRET_MARK = "__encrypted__:"  # noqa: S105
MACHINE_KEY_BYTES = 32
KDF_SALT = b"ingot-v1-static-salt"
KDF_ITERATIONS = 600_000  # OWASP Password Storage Cheat Sheet (2023) for PBKDF2-HMAC-SHA256

#: How a person runs this program.
PROGRAM = "job-hunter" if basename("".join(sys.argv[:1])).startswith("job-hunter") else "python job_hunter.py"
KEY_PREFIX = "sk-ant-"  # known to everybody: to mask them would only garble what is said about them
LOG_BYTES = 5_000_000
LOG_FILES = 5
SHORTEST_MASKED = 4  # characters: to mask less would garble ordinary words
LAST_FOUR_FROM = 20  # characters: the last four of a shorter secret would give too much of it away

_program = PROGRAM  # as the messages say it: with --base-dir if that was given, or what they say would act elsewhere

# =====================================================================================
# The schema, which is also the table of fields
# =====================================================================================


class ConfigError(Exception):
    """The configuration cannot be read, written or used.

    `problems` holds every problem found, one sentence each, with its place; `hint` says
    what to do, or is empty. Neither ever contains a secret.
    """

    def __init__(self, *problems: str, hint: str = "") -> None:
        super().__init__(*problems)
        self.problems = problems
        self.hint = hint

    def __str__(self) -> str:
        return "\n".join(self.problems)


class UsageError(ConfigError):
    """What was asked for makes no sense: exit status 2."""


@dataclass
class Provider:
    """Who serves a model: a row for what stands before the `/` of a model string."""

    names: tuple[str, ...]  # what stands before the "/"
    title: str
    url: str  # its base URL
    url_variable: str  # the variable that gives another base URL
    list_path: str  # below the base URL: the list of the models that it offers
    headers: Mapping[str, str]  # {key} stands for the key
    list_name: str = "data"  # the member of the answer that holds the list
    model_name: str = "id"  # the member of its items that names a model
    bare: tuple[str, ...] = ()  # how the names of models begin that stand without "provider/"
    note: str = ""  # said when one of its models is chosen
    start: str = ""  # what to do if nothing answers at its URL
    get_model: str = ""  # how to get a model that it does not offer; by default, choose another


@dataclass
class Field:
    """One value of the configuration: a row of the table of fields.

    Every command reads what it needs to know of a value from here. `check` takes a value
    and gives it back in the form to store, or raises ValueError with what it expected,
    never naming the value.
    """

    check: Check
    label: str = ""  # the service in the summary
    question: str = ""  # asked by setup, in exactly these words
    variable: str = ""  # the environment variable; NAME_FILE names a file that holds it
    page: str = ""  # where the credential is made
    secret: bool = False
    required: bool = False
    provider: str = ""  # the title of a provider: required as soon as an agent's model is one of its models
    twin: str = ""  # the field that the same answer fills
    doubt: Callable[[str], str] | None = None  # a warning about a value that is accepted, or ""
    place: str = ""  # the path below the base directory that "" stands for
    path: tuple[str, ...] = ()  # where it stands in the configuration: filled in by _placed
    name: str = ""  # the path, dotted
    default: Any = ""


# What surrounds a pasted value: white space of any kind, no-break spaces too, and zero-width characters.
BLANKS = (
    "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009"
    "\u200a\u200b\u200c\u200d\u200e\u200f\u2028\u2029\u202f\u205f\u2060\u3000\ufeff"
)
CONTROL = r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]"


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("expected text")
    text = value.strip(BLANKS)
    if not text.isprintable() and re.search(CONTROL, text):  # the first spares most commands the compiling
        raise ValueError("expected text without control characters")
    return text


def _lines(value: object) -> str:
    lines = re.split(r"\r\n|\r|\n", value.replace("\t", " ")) if isinstance(value, str) else [value]
    return "\n".join(map(_text, lines)).strip()


def _pattern(pattern: str, expected: str) -> Check:
    def check(value: object) -> str:
        text = _text(value)
        if not re.fullmatch(pattern, text):
            raise ValueError(f"expected {expected}")
        return text

    return check


def _whole_number(low: int, high: int) -> Check:
    def check(value: object) -> int:
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"expected a whole number from {low} to {high}")
        return value

    return check


def _list_of_names(value: object) -> list[str]:
    names = [_text(name) for name in value] if isinstance(value, list) else [""]
    if not all(names):
        raise ValueError("expected a list of names")
    return names


def _app_password(value: object) -> str:
    text = _text(value)
    letters = text.translate(dict.fromkeys(map(ord, BLANKS)))  # Google shows it as four groups: abcd efgh ijkl mnop
    return text if _doubtful_app_password(letters) else letters


def _doubtful_app_password(text: str) -> str:
    if re.fullmatch("[A-Za-z]{16}", text):
        return ""
    return "stored, but one that Google made has 16 letters; if mail is refused, make a new one"


_model = _pattern(r"[^\s/]+(/[^\s/]+)*", "a model string such as anthropic/claude-3-haiku-20240307")
_anthropic_key = _pattern("sk-ant-[!-~]+", "a key that begins with sk-ant-, without spaces")
_openai_key = _pattern("sk-(?!ant-)[!-~]+", "a key that begins with sk- (but sk-ant- is Anthropic's), without spaces")
_email = _pattern(r"[^\s@<>,;]+@[^\s@<>,;]+\.[^\s@<>,;]+", "an e-mail address such as name@gmail.com")
_host = _pattern(r"[^\s/@]+", "a host name")
_port = _whole_number(1, 65535)

#: The providers that are known, in the order in which a model is looked for.
PROVIDERS = (
    Provider(
        ("ollama", "ollama_chat"),
        "Ollama",
        url="http://localhost:11434",
        url_variable="OLLAMA_HOST",
        list_path="/api/tags",
        headers={},
        list_name="models",
        model_name="name",
        note="Ensure Ollama is running at localhost:11434",
        start="start it with: ollama serve",
        get_model="ollama pull {}",
    ),
    Provider(
        ("anthropic",),
        "Anthropic",
        url="https://api.anthropic.com",
        url_variable="ANTHROPIC_BASE_URL",
        list_path="/v1/models?limit=1000",
        headers={"x-api-key": "{key}", "anthropic-version": "2023-06-01"},
        bare=("claude",),
    ),
    Provider(
        ("openai",),
        "OpenAI",
        url="https://api.openai.com/v1",
        url_variable="OPENAI_BASE_URL",
        list_path="/models",
        headers={"Authorization": "Bearer {key}"},
        bare=("gpt", "chatgpt", "o1", "o3", "o4"),
    ),
)


def _row(check: Check, **columns: Any) -> Any:
    """Declare a field of the schema, which is its row of the table."""
    return Field(check, **columns)


def _part(factory: Callable[[], Any]) -> Any:
    """Declare a part of the schema that is itself made of parts."""
    return partial(factory)


@dataclass
class AgentConfig:
    """What one agent needs: its LiteLLM model string."""

    model: str = _row(_model, default=DEFAULT_MODEL, label="{} model", question="Model for {}:")


@dataclass
class SmtpConfig:
    """The server that sends mail (STARTTLS, or TLS from the first byte on port 465), and its login."""

    host: str = _row(_host, default="smtp.gmail.com", label="SMTP server")
    port: int = _row(_port, default=587)
    username: str = _row(
        _email,
        label="Gmail address",
        question="Gmail address for sending:",
        variable="GMAIL_USERNAME",
        required=True,
        twin="imap.username",
    )
    password: str = _row(
        _app_password,
        label="Gmail App Password",
        question="Gmail App Password",
        variable="GMAIL_APP_PASSWORD",
        page="https://myaccount.google.com/apppasswords",
        secret=True,
        required=True,
        twin="imap.password",
        doubt=_doubtful_app_password,
    )


@dataclass
class ImapConfig:
    """The server that receives mail (TLS from the first byte), and its login."""

    host: str = _row(_host, default="imap.gmail.com", label="IMAP server")
    port: int = _row(_port, default=993)
    username: str = _row(_email, label="Gmail address (IMAP)", required=True)
    password: str = _row(
        _app_password,
        label="Gmail App Password (IMAP)",
        page="https://myaccount.google.com/apppasswords",
        secret=True,
        required=True,
        doubt=_doubtful_app_password,
    )


@dataclass
class AppConfig:
    """The whole configuration, secrets in plain text (and left out of its repr).

    `agents` always has the seven of AGENT_NAMES. "" as a path stands for the default
    place under the base directory: see ConfigManager.get_db_path and ensure_dirs.
    """

    agents: dict[str, AgentConfig] = _part(lambda: {name: AgentConfig() for name in AGENT_NAMES})
    smtp: SmtpConfig = _part(SmtpConfig)
    imap: ImapConfig = _part(ImapConfig)
    max_retries: int = _row(_whole_number(0, 100), default=3)
    backoff_strategy: str = _row(
        _pattern("exponential|linear|constant", "one of exponential, linear, constant"), default="exponential"
    )
    llm_fallback_chain: list[str] = _row(_list_of_names, default=["claude", "openai", "ollama"])
    db_path: str = _row(_text, place="outreach.db")
    log_dir: str = _row(_text, place="logs")
    resume_dir: str = _row(_text, place="resume")
    venues_dir: str = _row(_text, place="venues")
    mailing_address: str = _row(
        _lines,
        label="Mailing address",
        question="Physical mailing address (required for CAN-SPAM):",
        variable="MAILING_ADDRESS",
    )
    anthropic_api_key: str = _row(
        _anthropic_key,
        label="Anthropic API key",
        question="Anthropic API key",
        variable="ANTHROPIC_API_KEY",
        page="https://console.anthropic.com/settings/keys",
        secret=True,
        provider="Anthropic",
    )
    openai_api_key: str = _row(
        _openai_key,
        label="OpenAI API key",
        question="OpenAI API key",
        variable="OPENAI_API_KEY",
        page="https://platform.openai.com/api-keys",
        secret=True,
        provider="OpenAI",
    )

    def __post_init__(self) -> None:
        # Where load() found what, by name, so that save() writes there only what was changed since.
        self._loaded: tuple[str, dict[str, Any]] = ("", {})

    def __setstate__(self, state: dict[str, Any]) -> None:
        # In another process, which may never have read these secrets itself.
        config: Any = self
        vars(config).update(state)
        for row in SECRETS:
            with suppress(AttributeError):  # made by another version, or no text
                _mask(reduce(getattr, row.path, config))


def _rows_of(schema: type, *path: str) -> Iterator[Field]:
    """The rows of a class of the schema that stands at *path*."""
    for name, row in vars(schema).items():
        if isinstance(row, Field):
            yield _placed(row, *path, name)


def _placed(row: Field, *path: str) -> Field:
    texts = {"label": row.label.format(*path[-2:]), "question": row.question.format(*path[-2:])}
    return Field(**{**vars(row), "path": path, "name": ".".join(path), **texts})


@cache
def _agent_row(agent: str) -> Field:
    return _placed(AGENT_MODEL, "agents", agent, "model")


AGENT_MODEL: Field = vars(AgentConfig)["model"]
#: The table: every field that all configurations have, by its dotted name, in the order of the file.
FIELDS: dict[str, Field] = {
    row.name: row
    for row in (
        *map(_agent_row, AGENT_NAMES),
        *_rows_of(SmtpConfig, "smtp"),
        *_rows_of(ImapConfig, "imap"),
        *_rows_of(AppConfig),
    )
}
ASKED = tuple(row for row in FIELDS.values() if row.variable)
OTHER_FIELDS = tuple(row for row in FIELDS.values() if row.path[0] != "agents")
SECRETS = tuple(row for row in FIELDS.values() if row.secret)
VARIABLES = ", ".join(row.variable for row in ASKED)


@cache
def _make_dataclasses() -> None:
    """Make dataclasses of the schema: at import, or when the program itself first needs a whole configuration."""
    import dataclasses
    from copy import copy

    for schema in (AgentConfig, SmtpConfig, ImapConfig, AppConfig):
        for name, row in list(vars(schema).items()):
            if isinstance(row, Field):
                factory: Callable[[], Any] = partial(copy, row.default)  # a list must be copied
                setattr(schema, name, dataclasses.field(default_factory=factory, repr=not row.secret))
            elif isinstance(row, partial):
                setattr(schema, name, dataclasses.field(default_factory=row))
        del schema.__init__
        dataclasses.dataclass(schema)


if __name__ != "__main__":
    _make_dataclasses()


def _is_model(row: Field) -> bool:
    return row.path[0] == "agents"


def _provider_of(model: str) -> Provider | None:
    """The known provider of a LiteLLM model string, or None."""
    before, slash, _ = model.partition("/")
    for provider in PROVIDERS:
        if before in provider.names if slash else model.startswith(provider.bare):
            return provider
    return None


def _key_of(provider: Provider) -> Field | None:
    return next((row for row in SECRETS if row.provider == provider.title), None)


# =====================================================================================
# Encryption
# =====================================================================================

_fernets: dict[bytes, Fernet] = {}
_derivation = RLock()  # a signal handler may derive in the middle of a derivation


def _fernet_class() -> type[Fernet]:
    try:
        from cryptography.fernet import Fernet
    except ImportError:
        install = f'{sys.executable or "python"} -m pip install "cryptography>=44"'
        raise ConfigError(f"the package cryptography is not installed; install it: {install}") from None
    return Fernet


def _derive(machine_key: bytes) -> Fernet:
    """The Fernet of a machine key, derived once in a process however many threads ask for it."""
    with _derivation:
        if machine_key not in _fernets:
            fernet_class = _fernet_class()
            from base64 import urlsafe_b64encode

            from cryptography.hazmat.primitives.hashes import SHA256
            from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

            kdf = PBKDF2HMAC(SHA256(), length=32, salt=KDF_SALT, iterations=KDF_ITERATIONS)
            _fernets[machine_key] = fernet_class(urlsafe_b64encode(kdf.derive(machine_key)))
        return _fernets[machine_key]


def _encrypt(plaintext: str, machine_key: bytes) -> str:
    _mask(plaintext)
    return _derive(machine_key).encrypt(plaintext.encode("utf-8", "surrogatepass")).decode("ascii")


def _decrypt(token: str, machine_keys: Keys) -> str | None:
    """The text in *token*, or None if no key of *machine_keys* opens it."""
    for fernet in map(_derive, machine_keys):
        from cryptography.fernet import InvalidToken  # only now: without a key the package may be missing

        with suppress(InvalidToken, ValueError):  # ValueError: not ASCII, or not text inside
            plaintext = fernet.decrypt(token).decode("utf-8", "surrogatepass")
            _mask(plaintext)
            return plaintext
    return None


def get_fernet(base_dir: Directory = None) -> Fernet:
    """Return the Fernet of the machine key in *base_dir* (by default, the base directory).

    As it can encrypt, a machine key is made where there is none. Raises ConfigError if the
    machine key is damaged, or is missing although the configuration holds secrets made with it.
    """
    return _derive(_machine_key_of(_base_directory(base_dir)))


def encrypt_secret(plaintext: str, base_dir: Directory = None) -> str:
    """Encrypt any text with the machine key in *base_dir*, which is made if there is none.

    Returns a bare Fernet token, without the mark that it has in config.json. Raises
    ConfigError as get_fernet does.
    """
    return _encrypt(plaintext, _machine_key_of(_base_directory(base_dir)))


def decrypt_secret(token: str, base_dir: Directory = None) -> str:
    """Return the text in a token of encrypt_secret. Never makes a machine key.

    Raises ConfigError if there is no machine key in *base_dir* or the token was not made with it.
    """
    base = _base_directory(base_dir)
    machine_keys = _machine_keys(base)
    plaintext = _decrypt(token, machine_keys)
    if plaintext is None:
        raise ConfigError(
            _why_unreadable(base, machine_keys), hint=f"restore the machine key as {join(base, KEY_FILE)}"
        )
    return plaintext


def _why_unreadable(base: str, machine_keys: Keys) -> str:
    if not machine_keys:
        return f"cannot be decrypted: the machine key {join(base, KEY_FILE)} is missing"
    return f"cannot be decrypted: made with another machine key than {join(base, KEY_FILE)}, or damaged"


# The machine key ---------------------------------------------------------------------


def _read_key(path: str) -> bytes | None:
    machine_key = _read_file(path)
    if machine_key is not None and len(machine_key) != MACHINE_KEY_BYTES:
        raise ConfigError(
            f"{path}: expected {MACHINE_KEY_BYTES} bytes, found {len(machine_key)}",
            hint=f"restore it from a copy; or move it away and run {_program} setup to enter the secrets again",
        )
    return machine_key


def _machine_keys(base: str) -> Keys:
    """The keys that may open a secret: during a rotation the next one, and the machine key, if there is one."""
    # In this order, as the next key becomes the machine key: read afterwards, it would be gone.
    found = [_read_key(join(base, name)) for name in (NEXT_KEY_FILE, KEY_FILE)]
    return tuple(machine_key for machine_key in found if machine_key is not None)


def _machine_key_of(base: str) -> bytes:
    """The machine key, made if there is none."""
    machine_keys = _machine_keys(base)
    if machine_keys:
        return machine_keys[-1]
    with _locked(base):
        _refuse_other_key(base, _read_document(join(base, CONFIG_FILE)), _machine_keys(base))
        return _machine_key_for_encryption(base)


def _refuse_other_key(base: str, document: Document, machine_keys: Keys) -> None:
    """Where secrets are stored whose key is gone or another one, to make or to use a key would hide that."""
    tokens = _tokens(document)
    if tokens and all(_decrypt(token, machine_keys) is None for token in tokens):
        raise ConfigError(f"the stored secrets {_why_unreadable(base, machine_keys)}", hint=_restore_hint(base))


def _machine_key_for_encryption(base: str) -> bytes:
    """The machine key, made if there is none. The caller holds the lock."""
    machine_keys = _machine_keys(base)
    if machine_keys:
        return machine_keys[-1]
    _fernet_class()  # without it no machine key is needed
    machine_key = os.urandom(MACHINE_KEY_BYTES)
    _write_file(join(base, KEY_FILE), machine_key)
    _log().info("made the machine key %s", join(base, KEY_FILE))
    return machine_key


def _finish_rotation(base: str) -> None:
    """End a rotation, as rotate_key or, if that was stopped, as whoever next holds the lock.

    The configuration says how: if a secret in it needs the next key, that key becomes the
    machine key; else the rotation had changed nothing yet, and the next key is dropped.
    """
    machine_key = _read_key(join(base, NEXT_KEY_FILE))
    if machine_key is None:
        return
    tokens = _tokens(_read_document(join(base, CONFIG_FILE)))
    if not tokens or any(_decrypt(token, [machine_key]) is not None for token in tokens):
        _write_file(join(base, KEY_FILE), machine_key)
    with _blaming(join(base, NEXT_KEY_FILE)):
        os.unlink(join(base, NEXT_KEY_FILE))
        _flush_directory(base)


def _restore_hint(base: str) -> str:
    again = f"run {_program} setup to enter the secrets again"
    return f"restore {join(base, KEY_FILE)} from where the configuration came from, or {again}"


# =====================================================================================
# Storage
# =====================================================================================

WHAT_TO_DO = {
    errno.ENOSPC: "free some space on that disk, then run the command again",
    errno.EDQUOT: "free some space in your quota, then run the command again",
    errno.EACCES: "check whom the file and its directory belong to, and their modes",
    errno.EPERM: "check whom the file and its directory belong to, and their modes",
    errno.EROFS: "make that file system writable, or choose another base directory with --base-dir",
}


def _base_directory(base_dir: Directory = None) -> str:
    """The absolute base directory: *base_dir*, else what the variable says, else ~/.outreach-agent."""
    chosen = expanduser(base_dir or os.environ.get(BASE_DIR_VARIABLE) or join("~", ".outreach-agent"))
    if chosen.startswith("~"):
        raise ConfigError(f"{chosen}: that home directory is not known", hint="set HOME, or give --base-dir DIR")
    with _blaming(chosen):  # a relative one, in a working directory that is gone
        return os.path.abspath(chosen)


@contextmanager
def _blaming(path: str) -> Iterator[None]:
    """Turn an error of the operating system into a ConfigError that names *path*."""
    try:
        yield
    except OSError as error:
        hint = WHAT_TO_DO.get(error.errno or 0, "")
        raise ConfigError(f"{path}: {error.strerror or error}", hint=hint) from error


def _tighten(path: str, found: os.stat_result, mode: int) -> None:
    """Take from *path* what others may do with it and say so."""
    loose = stat.S_IMODE(found.st_mode)
    if os.name == "nt" or not loose & 0o077:
        return
    try:
        os.chmod(path, mode)
    except FileNotFoundError:  # a log that is dropped just now
        return
    except OSError as error:
        _warn_once("%s is open to other users (mode %04o) and cannot be tightened: %s", path, loose, error.strerror)
    else:
        _log().warning("%s was open to other users (mode %04o); it is now %04o", path, loose, mode)


def _make_directory(path: str, ours: bool = True) -> None:
    """Make *path*, and what is missing above it, for this user alone; tighten it if it is *ours*."""
    with _blaming(path):
        try:
            found = os.stat(path)
        except FileNotFoundError:
            if dirname(path) != path:
                _make_directory(dirname(path), ours=False)
            with suppress(FileExistsError):
                os.mkdir(path, 0o700)
                os.chmod(path, 0o700)  # adds what an unusual umask took
            found = os.stat(path)
    if not stat.S_ISDIR(found.st_mode):
        raise ConfigError(f"{path}: not a directory", hint="move that file away, or choose another --base-dir")
    if ours:
        _refuse_shared(path, found)
        _tighten(path, found, 0o700)


def _refuse_shared(path: str, found: os.stat_result) -> None:
    """Neither a public directory such as /tmp nor another user's may become the base directory."""
    if _is_shared(path, found):
        raise ConfigError(f"{path}: is shared by all users", hint="choose a directory of your own with --base-dir")
    if sys.platform != "win32" and os.geteuid() not in (0, found.st_uid):
        raise ConfigError(f"{path}: belongs to another user", hint="choose a directory of your own with --base-dir")


def _is_shared(path: str, found: os.stat_result) -> bool:
    return bool(found.st_mode & stat.S_ISVTX) or path == dirname(path)


def _read_file(path: str) -> bytes | None:
    """The content of a regular file, or None if there is none; it is tightened if others may read it."""
    with _blaming(path):
        try:
            descriptor = os.open(path, os.O_RDONLY | NOT_BLOCKING | getattr(os, "O_BINARY", 0))
        except FileNotFoundError:
            return None
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            os.close(descriptor)
            raise ConfigError(f"{path}: not a regular file", hint="move it away, then run the command again")
        with open(descriptor, "rb") as file:
            _tighten(path, found, 0o600)
            return file.read()


def _write_file(path: str, content: bytes) -> None:
    """Replace *path* by *content*, atomically and durably. The caller holds the lock."""
    path = os.path.realpath(path)  # a link stays, what it points to is replaced
    temporary = path + TEMPORARY
    with _blaming(path):
        _remove(temporary)
        try:
            with open(temporary, "xb", opener=_open_private) as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            _replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                _remove(temporary)
            raise
        _flush_directory(dirname(path))


def _replace(source: str, target: str) -> None:
    """os.replace, which Windows refuses while somebody reads *target*: that is soon over."""
    for _ in range(50 if os.name == "nt" else 0):
        with suppress(PermissionError):
            return os.replace(source, target)
        time.sleep(0.02)
    return os.replace(source, target)


def _remove(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


def _open_private(path: str, flags: int) -> int:
    """Open for open(): what is created is for this user alone from the first moment, under any umask."""
    descriptor = os.open(path, flags | NOT_BLOCKING, 0o600)
    if os.name != "nt" and stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.fchmod(descriptor, 0o600)
    return descriptor


def _flush_directory(path: str) -> None:
    if os.name == "nt":  # a directory cannot be opened there
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _locked(base: str) -> Iterator[None]:
    """Hold the one lock of *base*, which is made if there is none: read, change and replace happen under it."""
    _make_directory(base)
    with _blaming(base):
        lock = _lock(base)
    try:
        with _blaming(base):
            for name in os.listdir(base):
                if name.startswith((CONFIG_FILE, KEY_FILE)) and name.endswith(TEMPORARY):
                    _remove(join(base, name))
        _finish_rotation(base)
        yield
    finally:
        with suppress(OSError):  # nothing was written through it
            _unlock(lock)


def _lock(directory: str, wait: bool = True) -> int:
    """Take the lock of a directory, held until _unlock; if another has it, *wait* for it or raise BlockingIOError."""
    if sys.platform == "win32":
        import msvcrt

        lock = os.open(join(directory, LOCK_FILE), os.O_RDWR | os.O_CREAT, 0o600)
        while True:
            try:
                msvcrt.locking(lock, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
                return lock
            except OSError:  # it gives up after ten seconds
                if not wait:
                    os.close(lock)
                    raise BlockingIOError from None
    else:
        import fcntl

        how = fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB
        lock = os.open(directory, os.O_RDONLY)  # the directory itself: nothing is left behind
        try:
            fcntl.flock(lock, how)
        except OSError as error:
            os.close(lock)
            if error.errno != errno.EBADF:
                raise
            lock = _open_private(join(directory, LOCK_FILE), os.O_RDWR | os.O_CREAT)  # NFS locks what can be written
            fcntl.flock(lock, how)
        return lock


def _unlock(lock: int) -> None:
    try:
        if sys.platform != "win32":
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_UN)  # or it would stay locked if the descriptor cannot be closed
    finally:
        os.close(lock)


# JSON --------------------------------------------------------------------------------


def _read_document(path: str) -> dict[str, Any]:
    """The object in a configuration file; the empty one if there is no file."""
    content = _read_file(path)
    if content is None:
        return {}
    with _blaming(dirname(path)):
        found = os.stat(dirname(path))
    if not _is_shared(dirname(path), found):  # such a directory stays as it is
        _tighten(dirname(path), found, 0o700)
    twice = object()  # what stands for a part whose name comes twice in its object

    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        built = dict(pairs)
        if len(built) < len(pairs):
            built.clear()
            for name, part in pairs:
                built[name] = twice if name in built else part
        return built

    try:
        document = json.loads(content.decode("utf-8-sig"), object_pairs_hook=build)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        problem = f"line {line}: not UTF-8 text"
    except json.JSONDecodeError as error:
        problem = f"line {error.lineno} column {error.colno}: {error.msg}"
    except RecursionError:
        problem = "nested too deeply"
    except ValueError as error:
        problem = f"a number that cannot be read: {error}"
    else:
        if not isinstance(document, dict):
            problem = f"expected an object, found {_found(document)}"
        else:
            problem = "; ".join(
                _dotted(node, name)
                + (" is named twice" if part is twice else f": {_found(part)} is no number to be kept")
                for node, name, part in _leaves(document)
                if part is twice or (isinstance(part, float) and not abs(part) < float("inf"))
            )
            if not problem:
                return document
    raise ConfigError(f"{path}: {problem}", hint=f"mend it in an editor; or move it away and run {_program} setup")


def _leaves(document: Document) -> Iterator[tuple[Node, Any, Any]]:
    """Every value in the document that is neither an object nor a list: the node that holds it, its name there, itself.

    Without recursion, which would end at a depth that JSON may have.
    """
    nodes: deque[Node] = deque([(None, "", document)])
    while nodes:
        node = nodes.popleft()
        holder = node[2]
        for name, part in holder.items() if isinstance(holder, dict) else enumerate(holder):
            if isinstance(part, (dict, list)):
                nodes.append((node, name, part))
            else:
                yield node, name, part


def _dotted(node: Node, name: object) -> str:
    """The dotted place of a part: its *name*, and before it those of the nodes that lead to it."""
    place = [str(name)]
    above, name, _ = node
    while above:
        place.insert(0, str(name))
        above, name, _ = above
    return ".".join(place)


def _serialize(document: Document) -> bytes:
    try:
        text = json.dumps(document, indent=2, ensure_ascii=False)
    except RecursionError as error:
        raise ConfigError(f"the configuration cannot be written: {error}") from None
    # What UTF-8 has no form for, a lone surrogate, is kept as the escape that it came from.
    return f"{text}\n".encode("utf-8", "backslashreplace")


def _problem(row: Field, error: ValueError, value: object) -> str:
    """What is wrong with a value, with its place, and what was found unless that is a secret or nothing."""
    return f"{row.name}: {error}" + ("" if row.secret or value == "" else f", found {_found(value)}")


def _found(value: object) -> str:
    """How a message names a value that was found."""
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    text = _masked_in(json.dumps(value, ensure_ascii=False, default=repr))
    # A part of what is too long is never shown: it may be a secret in the wrong place, and a part is not masked.
    return text if len(text) <= 60 else f"something of {len(text)} characters"


# Values ------------------------------------------------------------------------------


@dataclass
class Value:
    """What a configuration says of one field."""

    row: Field
    value: Any  # checked, a secret in plain text; the default where there is none
    status: str  # configured, default, missing, invalid or unreadable
    problem: str = ""


def _rows(document: Document) -> Iterator[Field]:
    """The table for this document: further agents than the seven are configured as they are."""
    yield from FIELDS.values()
    agents = document.get("agents")
    for name, agent in agents.items() if isinstance(agents, dict) else ():
        if name not in AGENT_NAMES and isinstance(agent, dict) and "model" in agent:
            yield _agent_row(name)


def _examine(row: Field, document: Document, machine_keys: Keys, base: str) -> Value:
    try:
        stored = _holder(document, row).get(row.path[-1], row)  # itself where there is none
    except ConfigError as error:
        return Value(row, row.default, "invalid", str(error))
    if stored is row:
        return Value(row, row.default, "missing" if row.default == "" else "default")
    if type(stored) is type(row.default) and stored == row.default:  # to Python, 3.0 and True are equal to 3 and 1
        status = "missing" if row.default == "" else "configured" if _is_model(row) else "default"
        return Value(row, row.default, status)
    plaintext = stored
    if row.secret and isinstance(stored, str):
        token = _token(stored)
        if token is not None:
            plaintext = _decrypt(token, machine_keys)
        if plaintext is None:
            return Value(row, "", "unreadable", f"{row.name}: {_why_unreadable(base, machine_keys)}")
        _mask(plaintext)
    try:
        value = row.check(plaintext)
        return Value(row, value, "missing" if value == "" else "configured")  # "" is what is left of blanks
    except ValueError as error:
        return Value(row, row.default, "invalid", _problem(row, error, stored))


def _examine_all(document: Document, machine_keys: Keys, base: str) -> dict[str, Value]:
    return {row.name: _examine(row, document, machine_keys, base) for row in _rows(document)}


def _holder(document: Document, row: Field, make: bool = False) -> Any:
    """The object that a field stands in: if there is none, an empty one, which *make* puts there."""
    node: Any = document
    for depth, name in enumerate(row.path[:-1], 1):
        node = node.setdefault(name, {}) if make else node.get(name, {})
        if not isinstance(node, dict):
            place = ".".join(row.path[:depth])
            raise ConfigError(f"{place}: expected an object, found {_found(node)}", hint="mend it in an editor")
    return node


def _stored(document: Document, row: Field) -> Any:
    """What the document holds for a field, or None."""
    with suppress(ConfigError):
        return _holder(document, row).get(row.path[-1])
    return None


def _token(stored: object) -> str | None:
    """The token in what is stored of a secret, or None if that is empty or stands in plain text."""
    return stored[len(SECRET_MARK) :] if isinstance(stored, str) and stored.startswith(SECRET_MARK) else None


def _encrypted(document: Document) -> Iterator[tuple[str, Any, Any, str]]:
    """Every encrypted secret, of keys too that this version does not know: dotted place, holder, name there, token."""
    for node, name, part in _leaves(document):
        token = _token(part)
        if token is not None:
            place = _dotted(node, name)
            row = FIELDS.get(place)
            if row is None or row.secret:
                yield place, node[2], name, token


def _tokens(document: Document) -> list[str]:
    return [token for *_, token in _encrypted(document)]


def _plain_secrets(document: Document) -> dict[Field, str]:
    """Every secret that stands in plain text, edited by hand."""
    stored = {row: _stored(document, row) for row in SECRETS}
    return {row: text for row, text in stored.items() if text and isinstance(text, str) and _token(text) is None}


def _from_text(row: Field, text: str) -> Any:
    """The value that a person, a variable or a pipe gives as text, checked; ValueError says what was expected."""
    if row.secret:
        _mask(text)
    value: Any = text.strip(BLANKS)
    if isinstance(row.default, int) and re.fullmatch("[+-]?[0-9]{1,20}", value):
        value = int(value)
    elif isinstance(row.default, list) and not value.startswith("["):
        value = [name for name in re.split(r"[\s,]+", value) if name]
    elif isinstance(row.default, list):  # as get prints it
        with suppress(ValueError, RecursionError):
            value = json.loads(value)
    value = row.check(value)
    if row.secret:
        _mask(value)
    return value


def _is_needed(row: Field, values: Values) -> bool:
    """Whether this field is required, by itself or for the model of an agent."""
    used = (_provider_of(value.value) for value in values.values() if _is_model(value.row))
    return row.required or row.provider in {provider.title for provider in used if provider}


def _is_answered(row: Field, values: Values) -> bool:
    """Whether this field, and the one that the same answer fills, have a valid value."""
    return all(values[filled.name].status == "configured" for filled in _with_twin(row))


def _with_twin(row: Field) -> list[Field]:
    """The fields that one answer fills."""
    return [row, FIELDS[row.twin]] if row.twin else [row]


class ConfigManager:
    """Reads and writes the configuration in one base directory.

    *base_dir* is the base directory; by default the one that the variable
    JOB_HUNTER_BASE_DIR names, or ~/.outreach-agent. Making a manager touches no file.
    Every method raises ConfigError for what cannot be read, is invalid, or cannot be written.
    """

    def __init__(self, base_dir: Directory = None) -> None:
        self._base = _base_directory(base_dir)
        self._config = join(self._base, CONFIG_FILE)
        self._kept = False  # whether what cannot be read any more has been copied

    @property
    def base_dir(self) -> Path:
        """The absolute path of the base directory."""
        return _as_path(self._base)

    @property
    def config_path(self) -> Path:
        """The absolute path of the configuration file."""
        return _as_path(self._config)

    def ensure_dirs(self) -> None:
        """Make the base directory and those of logs, resumes and venues, for this user alone (mode 0700)."""
        _make_directory(self._base)
        for name in ("log_dir", "resume_dir", "venues_dir"):
            directory = self.place(name)
            _make_directory(directory, ours=directory.startswith(join(self._base, "")))

    def get_db_path(self) -> Path:
        """Return the absolute path of the agents' database; a `db_path` in the configuration wins."""
        return _as_path(self.place("db_path"))

    def load(self) -> AppConfig:
        """Return the configuration, secrets in plain text; the defaults if there is no file. Creates nothing.

        Raises ConfigError with every problem of the file, each with its place.
        """
        from copy import copy

        _make_dataclasses()
        document, machine_keys = self._read()
        config = AppConfig()
        loaded = {}
        problems = []
        for row in _rows(document):
            value = _examine(row, document, machine_keys, self._base)
            loaded[row.name] = value.value
            if value.problem:
                problems.append(value)
            elif _is_model(row):
                config.agents[row.path[1]] = AgentConfig(value.value)
            else:
                *parents, last = row.path
                setattr(reduce(getattr, parents, config), last, copy(value.value))
        self.refuse_problems(problems)
        config._loaded = (self._base, loaded)
        return config

    def load_or_create(self) -> AppConfig:
        """Return the configuration as load() does, after storing the defaults if there is no file yet."""
        config = self.load()
        if not exists(self._config):
            self.save(config)
        return config

    def save(self, config: AppConfig) -> None:
        """Store *config*, its secrets encrypted.

        Of a configuration that load() gave, only what was changed since is written, so that
        nothing is lost that another process wrote meanwhile. Keys of the file that this version
        does not know stay. Raises ConfigError with every invalid value, and then writes nothing.
        """
        values: dict[Field, Any] = {}
        problems = []
        for row in (*map(_agent_row, config.agents), *OTHER_FIELDS):
            value = config.agents[row.path[1]].model if _is_model(row) else reduce(getattr, row.path, config)
            try:
                values[row] = value if value == row.default == "" else row.check(value)
            except ValueError as error:
                problems.append(_problem(row, error, value))
        if problems:
            raise ConfigError(*problems)
        loaded_from, known = config._loaded
        self.update(values, known=known if loaded_from == self._base else {})
        config._loaded = (self._base, {row.name: value for row, value in values.items()})

    def get(self, name: str) -> Any:
        """Return one value by its dotted name, such as "smtp.password"; only that one need be valid."""
        value = self.value(self.find(name))
        self.refuse_problems([value])
        return value.value[:] if isinstance(value.value, list) else value.value

    def set(self, name: str, value: Any) -> None:
        """Check one value and store it at once; text is taken for a number or a list too.

        Raises ConfigError for an unknown name (with the nearest) and for an invalid value.
        """
        row = self.find(name)
        try:
            checked = _from_text(row, value) if isinstance(value, str) else row.check(value)
        except ValueError as error:
            raise ConfigError(_problem(row, error, value)) from None
        self.update({row: checked})

    # What follows serves the commands below and is no promise to other programs.

    def place(self, name: str) -> str:
        """The absolute path that db_path, log_dir, resume_dir or venues_dir stands for."""
        return os.path.abspath(join(self._base, expanduser(self.get(name) or FIELDS[name].place)))

    def find(self, name: str) -> Field:
        """The row of the table with this dotted name; UsageError with the nearest if there is none."""
        document = _read_document(self._config)  # a broken file is spoken of before a value is asked for
        rows = {row.name: row for row in _rows(document)}
        if name in rows:
            return rows[name]
        import difflib

        name = name.partition("=")[0]  # what follows may be a secret
        near = [other for other in rows if other.startswith(f"{name}.")]
        near = near or difflib.get_close_matches(name, rows, n=1, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else f"the names are: {', '.join(FIELDS)}"
        raise UsageError(f"{_found(name)} is not the name of a value", hint=hint)

    def value(self, row: Field) -> Value:
        """What the file says of one field. What is no secret needs no key, which may be damaged."""
        document, machine_keys = self._read() if row.secret else (_read_document(self._config), ())
        return _examine(row, document, machine_keys, self._base)

    def examine(self) -> dict[str, Value]:
        """What the file says of every field, by name. Raises ConfigError only if it cannot be read at all."""
        document, machine_keys = self._read()
        return _examine_all(document, machine_keys, self._base)

    def update(
        self,
        changed: Changes | Callable[[Values], Changes],
        *,
        setup: bool = False,
        known: Mapping[str, Any] | None = None,
    ) -> None:
        """Store checked values in one step under the lock, and encrypt what stands in plain text.

        What to change may be a function of what is stored, which is asked under the lock.
        Secrets that cannot be read any more stop it, but not in *setup*: a copy of the old file
        is kept. Values that are still as in *known* (by the names of their fields) are passed
        over, unless there is no file.
        """
        with _locked(self._base):
            document = _read_document(self._config)
            machine_keys = _machine_keys(self._base) if _tokens(document) else ()
            before = _serialize(document)
            if callable(changed):
                changed = changed(_examine_all(document, machine_keys, self._base))
            if known and document:
                changed = {row: value for row, value in changed.items() if known.get(row.name) != value}
            changed = {**_plain_secrets(document), **changed}
            if not setup and (not machine_keys or any(row.secret for row in changed)):
                _refuse_other_key(self._base, document, machine_keys)
            lost = setup and any(_decrypt(token, machine_keys) is None for token in _tokens(document))
            if changed and not document:
                document["agents"] = {}  # their models are for setup, or for the caller, to choose
                changed = {row: row.default for row in OTHER_FIELDS} | changed
            for row, value in changed.items():
                holder, name = _holder(document, row, make=True), row.path[-1]
                token = _token(holder.get(name))
                if not row.secret or not value:
                    holder[name] = value
                elif token is None or _decrypt(token, machine_keys) != value:
                    holder[name] = SECRET_MARK + _encrypt(value, _machine_key_for_encryption(self._base))
            after = _serialize(document)
            if after == before:
                return
            if lost:
                self._keep_copy()
            _write_file(self._config, after)
        _log().info("stored the configuration %s", self._config)

    def rotate_key(self) -> int:
        """Make a new machine key and encrypt every secret with it; return how many there are.

        The next key is stored beside the present one, then the secrets, then the next key
        becomes the machine key: wherever that stops, one of the two opens every secret.
        """
        self.update({})  # encrypts what stands in plain text; refuses if the key of the secrets is missing
        with _locked(self._base):
            document = _read_document(self._config)
            machine_keys = _machine_keys(self._base)
            if not machine_keys:
                missing = f"there is no machine key {join(self._base, KEY_FILE)} to rotate"
                raise ConfigError(missing, hint=f"run {_program} setup first")
            opened = [
                (place, node, name, _decrypt(token, machine_keys)) for place, node, name, token in _encrypted(document)
            ]
            why = _why_unreadable(self._base, machine_keys)
            unreadable = [f"{place}: {why}" for place, *_, plaintext in opened if plaintext is None]
            if unreadable:
                raise ConfigError(*unreadable, hint=_restore_hint(self._base))
            _write_file(join(self._base, KEY_FILE), machine_keys[-1])  # where that fails, nothing has changed yet
            machine_key = os.urandom(MACHINE_KEY_BYTES)
            _write_file(join(self._base, NEXT_KEY_FILE), machine_key)
            try:
                for _, node, name, plaintext in opened:
                    node[name] = SECRET_MARK + _encrypt(plaintext or "", machine_key)
                if opened:
                    _write_file(self._config, _serialize(document))
            finally:
                _finish_rotation(self._base)
        _log().info("made a new machine key %s", join(self._base, KEY_FILE))
        return len(opened)

    def refuse_problems(self, values: Iterable[Value]) -> None:
        """Raise ConfigError if any of *values* has a problem, with every problem once."""
        problems = {value.problem: value for value in values if value.problem}
        if problems:
            raise ConfigError(*problems, hint=self.hint_for(problems.values()))

    def hint_for(self, values: Iterable[Value]) -> str:
        """What to do about values that cannot be used."""
        if any(value.status == "unreadable" for value in values):
            return _restore_hint(self._base)
        return f"mend it with {_program} set, or in an editor: {self._config}"

    def _keep_copy(self) -> None:
        if self._kept:
            return
        from itertools import count

        names = (time.strftime("%Y%m%d-%H%M%S", time.localtime(moment)) for moment in count(time.time()))
        kept = next(path for path in (f"{self._config}.{name}.bak" for name in names) if not exists(path))
        _write_file(kept, _read_file(self._config) or b"")
        self._kept = True
        _log().warning("the old configuration is kept as %s", kept)

    def _read(self) -> tuple[dict[str, Any], Keys]:
        """The document and, if it holds secrets, the keys for them, of one moment: readers take no lock."""
        machine_keys: Keys = ()
        while True:
            document = _read_document(self._config)
            secret = any(_token(_stored(document, row)) is not None for row in SECRETS)
            before, machine_keys = machine_keys, _machine_keys(self._base) if secret else ()
            if before == machine_keys:
                break
        for row in _plain_secrets(document):
            _warn_once("%s stands in plain text in %s; it is encrypted at the next write", row.name, self._config)
        return document, machine_keys


def _as_path(path: str) -> Path:
    from pathlib import Path

    return Path(path)


# =====================================================================================
# Logging
# =====================================================================================

_masked: dict[str, str] = {}  # the pattern of every secret, by the secret: only ever added to
_handlers: list[logging.Handler] = []  # what logging was started with
_start_logging_once: Callable[[], None] | None = None
_starting_logging = RLock()
_warned: set[tuple[object, ...]] = set()


def _renew_locks() -> None:
    """In a forked process: the thread that held a lock is not there to release it."""
    global _derivation, _starting_logging
    _derivation, _starting_logging = RLock(), RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_locks)


def _mask(secret: str) -> None:
    """From now on *secret* leaves the program only as asterisks, however often it was escaped on the way."""
    for text in {secret, *secret.splitlines()}:  # a traceback may put something before every line
        if len(text) >= SHORTEST_MASKED and text not in _masked and text != KEY_PREFIX:
            _masked[text] = "".join(map(_any_form, re.findall(r"\\+|[^\\]", text)))


def _masked_in(text: str) -> str:
    return _mask_pattern(len(_masked)).sub("********", text)


# Without a lock: a finalizer or a signal handler that logs while the pattern is made would wait for it for ever.
@lru_cache(maxsize=1)
def _mask_pattern(_: int) -> re.Pattern[str]:
    """The pattern of all secrets, made anew when there are more of them."""
    longest_first = sorted(_masked, key=len, reverse=True)
    return re.compile("|".join(_masked[secret] for secret in longest_first) or "(?!)")


def _any_form(piece: str) -> str:
    """A pattern of *piece*, a character or a run of backslashes, as itself and as repr, JSON, bytes or a URL show it.

    Backslashes, which escaping doubles, are taken from the first of a run on: to try each would take far too long.
    """
    if piece[0] == "\\":
        return rf"(?:(?<!\\)\\{{{len(piece)},}}|(?:%5[Cc]){{{len(piece)}}})"
    if piece.isascii() and (piece.isalnum() or piece in "-._~"):
        return re.escape(piece)
    utf_8 = piece.encode("utf-8", "surrogatepass")
    forms = {piece, repr(piece)[1:-1], ascii(piece)[1:-1], json.dumps(piece)[1:-1], repr(utf_8)[2:-1]}
    forms |= {f"u{ord(piece):04x}", "".join(f"%{byte:02X}" for byte in utf_8), piece.replace(" ", "+")}
    pattern = "|".join(re.escape(form.lstrip("\\")).replace(r"\\", r"\\+") for form in sorted(forms))
    return rf"(?:(?<!\\)\\+)?(?i:{pattern})"


def _safe(value: Any) -> Any:
    """*value* as JSON can hold it, every known secret in it masked."""
    if isinstance(value, str):
        return _masked_in(value)
    if value is None or isinstance(value, int) or (isinstance(value, float) and abs(value) < float("inf")):
        return value
    if isinstance(value, Mapping):
        return {_safe(str(name)): _safe(part) for name, part in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_safe(part) for part in value]
    return _safe(repr(value))


def get_logger(name: str) -> logging.Logger:
    """Return the logger *name*; what it says goes where configure_logging says."""
    import logging

    return logging.getLogger(name)


def _log() -> logging.Logger:
    """The logger of this module. In the program, logging starts with its first use: most commands need none."""
    global _start_logging_once
    with _starting_logging:
        start, _start_logging_once = _start_logging_once, None
        if start:
            start()
    return get_logger("job_hunter")


def _warn_once(message: str, *details: object) -> None:
    """Log a warning, but in one process only once."""
    if (message, *details) not in _warned:
        _warned.add((message, *details))  # before it is logged: to start logging may warn of the same
        _log().warning(message, *details)


def _log_directory(base: str) -> str:
    """Where the logs of this base directory go, which can be told even if the configuration cannot be read."""
    try:
        return ConfigManager(base).place("log_dir")
    except Exception:  # whatever is wrong there, it must not keep it from being logged
        return join(base, FIELDS["log_dir"].place)


def _log_path(directory: str) -> str:
    return join(directory, f"run-{time.strftime('%Y-%m-%d')}.log")


def configure_logging(base_dir: Directory = None, verbosity: int = 0) -> None:
    """Send the log of this process to the log file of the day and to standard error.

    The file, `logs/run-YYYY-MM-DD.log` under *base_dir*, gets everything from DEBUG up as one
    JSON object a line; it is made when there is something to log. Standard error gets
    WARNING and up; with *verbosity* 1 INFO too, with 2 DEBUG too. Secrets that this process
    read, encrypted or decrypted are masked in both, whichever library logs them.
    Called again, it replaces what it set up before.
    """
    _start_logging(_base_directory(base_dir), verbosity)


def _start_logging(base: str, verbosity: int, only_failures: bool = False) -> None:
    import logging

    ordinary = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

    class JsonLine(logging.Formatter):
        default_time_format = "%Y-%m-%dT%H:%M:%S"
        default_msec_format = "%s.%03d"

        def format(self, record: logging.LogRecord) -> str:
            zone = self.formatTime(record, "%z")  # as +0100
            moment = f"{self.formatTime(record)}{zone[:3]}:{zone[3:]}"
            line: dict[str, Any] = {"timestamp": moment, "level": record.levelname}
            line |= {"logger": _safe(record.name), "event": _safe(record.getMessage())}
            for extra in vars(record).keys() - ordinary:
                name = _safe(f"{extra}_" if extra in line else extra)
                try:
                    line[name] = _safe(vars(record)[extra])
                except Exception:
                    line[name] = "<unprintable>"
            if record.exc_info:
                line["exception"] = _safe(self.formatException(record.exc_info))
            if record.stack_info:
                line["stack"] = _safe(record.stack_info)
            return json.dumps(line, ensure_ascii=False)

    class RunLog(logging.Handler):
        """The file of the day, for this user alone; its directory never holds more than LOG_FILES of them.

        It is opened anew for every line: another process may have begun the next one meanwhile.
        """

        directory = join(base, FIELDS["log_dir"].place)  # until it is known what the configuration says
        looked = False  # whether there are too many
        told = False  # that the file cannot be written

        def emit(self, record: logging.LogRecord) -> None:
            path = _log_path(self.directory)
            try:
                line = f"{self.format(record)}\n".encode("utf-8", "backslashreplace")
                with suppress(FileNotFoundError, BlockingIOError):  # there is none yet, or others just roll it over
                    if os.path.getsize(path) + len(line) >= LOG_BYTES:
                        self.roll_over(path, len(line))
                if not (self.looked and exists(path)):
                    _make_directory(self.directory, ours=False)
                    others = [other for _, other in _run_logs(self.directory) if other != path]
                    for other in others[: 1 - LOG_FILES]:
                        _remove(other)
                    self.looked = True
                with open(path, "ab", opener=_open_private) as file:
                    file.write(line)
                self.told = False
            except (OSError, ConfigError) as error:
                if not self.told:  # once is enough: the next record is likely to fail too
                    _tell(f"warning: cannot write the log {path}: {error}")
                self.told = True
            except Exception as error:
                _tell(f"warning: cannot log what {record.name} says: {error}")

        def roll_over(self, path: str, more: int) -> None:
            from logging.handlers import RotatingFileHandler  # only now: it takes long to import

            lock = _lock(self.directory, wait=False)  # who logs while it holds the lock would wait for itself
            try:
                if os.path.getsize(path) + more >= LOG_BYTES:  # still: no other process has done it meanwhile
                    RotatingFileHandler(path, backupCount=LOG_FILES - 1, delay=True).doRollover()
            finally:
                _unlock(lock)

    class Terminal(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            with suppress(Exception):  # what cannot be formatted, the log file speaks of
                _tell(f"{record.levelname.lower()}: {record.getMessage()}")

    for row in SECRETS:  # of a program that the command run started
        with suppress(ValueError):
            _from_text(row, os.environ.get(row.variable, ""))
    file = RunLog()
    file.setFormatter(JsonLine())
    file.setLevel(logging.ERROR if only_failures else logging.DEBUG)
    terminal = Terminal()
    terminal.setLevel(logging.WARNING - 10 * verbosity)
    root = logging.getLogger()
    while _handlers:
        root.removeHandler(_handlers.pop())
    root.setLevel(logging.DEBUG)
    for handler in (file, terminal):
        _handlers.append(handler)
        root.addHandler(handler)
    file.directory = _log_directory(base)
    for found, path in _run_logs(file.directory):
        _tighten(path, found, 0o600)
    if file.directory.startswith(join(base, "")):
        with suppress(OSError):  # there is none yet, or the first line will say what is wrong
            _tighten(file.directory, os.stat(file.directory), 0o700)


def _run_logs(directory: str) -> list[tuple[os.stat_result, str]]:
    """The run logs in *directory*, those first that were written longest ago."""
    logs = []
    with suppress(OSError), os.scandir(directory) as entries:  # there may be no such directory
        for entry in entries:
            if re.fullmatch(r"run-\d{4}-\d\d-\d\d\.log(\.\d+)?", entry.name):
                with suppress(FileNotFoundError):  # another process drops it just now, or a link leads nowhere
                    found = entry.stat()
                    if stat.S_ISREG(found.st_mode):
                        logs.append((found, entry.path))
    return sorted(logs, key=lambda log: log[0].st_mtime)


# =====================================================================================
# Output
# =====================================================================================

# The rules of what is printed:
# - Standard output carries what was asked for: the summary, a value. All else, questions too, is standard error.
# - Every line is masked, its control characters are shown as escapes, and it fits the encoding of the stream.
# - An error is "[Command] what is wrong"; where a person can do something about it, "hint: what to do" follows.


def _print(text: str) -> None:
    """Print on standard output, masked."""
    _write(_safe(text), sys.stdout)


def _tell(text: str) -> None:
    """Print on standard error, masked; if that is gone, nobody is there to be told."""
    try:
        _write(_safe(text), sys.stderr)
    except OSError:
        _discard(2)


def _discard(descriptor: int) -> None:
    """Let what is left for a standard stream vanish, or Python would try once more at its end to write it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def _write(text: str, stream: TextIO | None) -> None:
    if stream is None:  # the program was started with that stream closed
        return
    stream.write("\n".join(_printable(line, stream) for line in text.split("\n")) + "\n")
    stream.flush()


def _printable(line: str, stream: TextIO | None) -> str:
    """*line* with everything as an escape that would move the cursor or that *stream* cannot encode."""
    line = "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in line
    )
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return line.encode(encoding, "backslashreplace").decode(encoding)


def _width(text: str) -> int:
    """The number of columns that *text* takes on a terminal."""
    if text.isascii():
        return len(text)
    from unicodedata import category, east_asian_width

    return sum(
        0 if category(character) in ("Mn", "Me") else 2 if east_asian_width(character) in "WF" else 1
        for character in text
    )


def _summary(values: Values, asked: Collection[Field] | None = None) -> list[dict[str, str]]:
    """The lines of the summary; after setup, *asked* has the fields that were asked for this time."""
    lines = []
    for value in sorted(values.values(), key=lambda value: _rank(value.row)):
        row = value.row
        if not row.label or _repeats(value, values):
            continue
        status, shown = value.status, _shown(value)
        port = values.get(f"{row.path[0]}.port") if row.path[-1] == "host" else None
        if port:
            status = next(word for word in ("invalid", "configured", "default") if word in (status, port.status))
            shown = "" if status == "invalid" else f"{shown}:{port.value}"
        if status == "missing" and row.provider and not _is_needed(row, values):
            status = "not needed"
        if status == "configured" and asked is not None and row not in asked:
            status = "[already configured]"
        lines.append(_safe({"name": row.name, "service": row.label, "status": status, "value": shown}))
    return lines


def _rank(row: Field) -> int:
    """The order of questions and of the summary: the mail account, models, keys, the address, the servers."""
    return 0 if row.required else 1 if _is_model(row) else 2 if row.provider else 3 if row.question else 4


def _repeats(value: Value, values: Values) -> bool:
    """Whether a field says only what the one says whose answer fills it too."""
    return any(
        (values[first.name].value, values[first.name].status) == (value.value, value.status)
        for first in FIELDS.values()
        if first.twin == value.row.name
    )


def _shown(value: Value) -> str:
    if value.status in ("missing", "invalid", "unreadable"):
        return ""
    if value.row.secret:
        return "********" + (value.value[-4:] if len(value.value) >= LAST_FOUR_FROM else "")
    return str(value.value).replace("\n", ", ")


def _print_table(lines: Sequence[Mapping[str, str]]) -> None:
    """Print the summary in columns; on a terminal that is too narrow for them, in blocks."""
    rows = [["Service", "Status", "Value"]]
    for line in lines:
        rows.append([_printable(line[cell], sys.stdout) for cell in ("service", "status", "value")])
    widths = [max(map(_width, column)) for column in zip(*rows, strict=True)]
    screen = _screen_width()
    if screen and sum(widths) + 4 > screen:
        for service, *cells in rows[1:]:
            _print(service)
            for cell in cells:
                for piece in _pieces(cell, screen - 2):
                    _print(f"  {piece}")
        return
    rows.insert(1, ["-" * width for width in widths])
    for row in rows:
        cells = [cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)]
        _print("  ".join(cells).rstrip())


def _screen_width() -> int:
    """The columns of the terminal that standard output is, or 0."""
    if sys.stdout is None or not sys.stdout.isatty():
        return 0
    import shutil

    return shutil.get_terminal_size().columns


def _pieces(text: str, width: int) -> Iterator[str]:
    """*text* in pieces of at most *width* columns."""
    piece = ""
    for character in text:
        if piece and _width(piece + character) > width:
            yield piece
            piece = ""
        piece += character
    if piece:
        yield piece


def _print_summary(manager: ConfigManager, values: Values, asked: Collection[Field] | None = None) -> None:
    _print_table(_summary(values, asked))
    _print(f"\nConfiguration: {manager._config}")
    database = values["db_path"]
    _print(f"Database:      {database.problem or manager.place('db_path')}")
    _print(f"Log:           {_log_path(_log_directory(manager._base))}")


# =====================================================================================
# The wizard
# =====================================================================================


def _ask_everything(manager: ConfigManager, args: Namespace) -> set[Field]:
    """Ask for what is missing or invalid, one question at a time, and store each answer as it is given.

    Returns the fields that were asked for.
    """
    asked: set[Field] = set()
    manager.update({}, setup=True)  # encrypts at once what was written by hand in plain text
    questions = sorted(ASKED, key=_rank)
    for row in questions:
        if row.required:
            _ask_for(row, manager, args.reconfigure, asked)
    _ask_for_models(manager, args, asked)
    for row in questions:
        if not row.required:
            _ask_for(row, manager, args.reconfigure, asked)
    return asked


def _ask_for(row: Field, manager: ConfigManager, reconfigure: bool, asked: set[Field]) -> None:
    values = manager.examine()
    value = values[row.name]
    needed = not row.provider or _is_needed(row, values)
    if _is_answered(row, values) and not (reconfigure and needed):
        return
    if not needed and value.status == "missing":
        return
    keep = value.value or (None if needed else "")
    answer = _ask(row, row.question, keep)
    asked.add(row)
    if answer != value.value or not _is_answered(row, values):
        manager.update(dict.fromkeys(_with_twin(row), answer), setup=True)


def _ask(row: Field, question: str, keep: Any = None) -> Any:
    """One answer, checked. Enter gives *keep*, unless that is None."""
    if row.page:
        _tell(f"Make one at {row.page}")
    prompt = f"{question} "
    if row.secret:
        enter = "; Enter keeps the present one" if keep else "; not needed now: Enter drops it" if keep == "" else ""
        prompt = f"{question} (hidden{enter}): "
    elif keep:
        prompt += f"[{keep}] ".replace("\n", ", ")
    while True:
        try:
            text = _typed(_read_hidden if row.secret else _read_visible, prompt)
            if not text and keep is not None:
                return keep
            return _accept(row, text)
        except UnicodeDecodeError:
            _tell("  Not accepted: expected text in the encoding of this terminal.")
        except ValueError as error:
            _tell(f"  Not accepted: {error}.")


def _accept(row: Field, text: str) -> Any:
    """The checked value of an answer or a variable; ValueError says what was expected."""
    if not text:
        raise ValueError("expected a value, found none")
    value = _from_text(row, text)
    doubt = row.doubt(value) if row.doubt else ""
    if doubt:
        _log().warning("%s: %s", row.label, doubt)
    return value


def _typed(read: Callable[[str], str], prompt: str) -> str:
    """What a person types at a prompt, without what surrounds it."""
    if sys.stdin is None or not sys.stdin.isatty():
        raise ConfigError("there is no terminal to ask questions at", hint=_unattended_hint())
    try:
        return read(prompt).strip(BLANKS)
    except (EOFError, OSError):
        _tell("")
        problem = "the input ended before the question was answered; what was answered is kept"
        raise ConfigError(problem, hint=_unattended_hint()) from None


def _read_hidden(prompt: str) -> str:
    """What is typed at a hidden prompt: never shown, whatever happens."""
    import getpass
    import warnings

    prompt = _printable(prompt, sys.stderr)
    with warnings.catch_warnings(), _handling(["SIGCONT"], lambda *_: _hide_again(prompt)):
        warnings.simplefilter("error", getpass.GetPassWarning)
        try:
            return getpass.getpass(prompt)
        except getpass.GetPassWarning:
            raise ConfigError("this terminal cannot hide what is typed", hint=_unattended_hint()) from None


def _hide_again(prompt: str) -> None:
    """After Ctrl-Z and `fg` at a hidden prompt: the shell has switched the echo on."""
    import termios

    with suppress(OSError, termios.error):  # the terminal is gone
        attributes = termios.tcgetattr(sys.stdin)
        attributes[3] &= ~termios.ECHO
        termios.tcsetattr(sys.stdin, termios.TCSAFLUSH, attributes)
        os.write(2, prompt.encode())


@contextmanager
def _handling(names: Iterable[str], handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Handle the signals of these names, those that there are here and that nobody else handles."""
    import signal
    import threading

    ours = [number for number in signal.Signals if number.name in names and signal.getsignal(number) is signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread():
        ours = []
    for number in ours:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def _read_visible(prompt: str) -> str:
    """What is typed at a visible prompt, with the arrow keys where there is readline."""
    with suppress(ImportError, AttributeError):  # not every substitute on Windows has all of it
        import readline

        readline.set_auto_history(False)
    # Standard output is for the summary alone, unless it is the terminal: then its prompt can be edited.
    shown = sys.stdout if sys.stdout is not None and sys.stdout.isatty() else sys.stderr
    with redirect_stdout(shown):
        return input(_printable(prompt, shown))


def _unattended_hint() -> str:
    setup = f"run {_program} setup --non-interactive with these variables set: {VARIABLES}"
    return f"without a terminal, {setup}; or pipe one value into {_program} set NAME"


# Models ------------------------------------------------------------------------------


def _ask_for_models(manager: ConfigManager, args: Namespace, asked: set[Field]) -> None:
    models = [value for value in manager.examine().values() if _is_model(value.row)]
    given = _models(args.preset, args.model)
    unanswered = [value for value in models if value.status != "configured" and value.row not in given]
    if not args.preset and (args.reconfigure or unanswered):
        present = any(value.status == "configured" for value in models if value.row.path[1] in AGENT_NAMES)
        choice = "custom"  # goes on where it was interrupted
        if args.reconfigure or not present:
            choice = _ask_in_menu(keep=present)
            asked.update(value.row for value in models)
            if choice == "custom":
                unanswered = [value for value in models if value.row not in given]
        if choice in ("", "custom"):
            for value in unanswered:
                _ask_for(value.row, manager, True, asked)
        given = _models(choice, args.model)
    manager.update(given, setup=True)
    asked.update(given)
    _say_what_models_need(asked, manager.examine())


def _models(preset: str | None, single: Sequence[tuple[str, str]] = ()) -> dict[Field, str]:
    """The models that --preset, or the menu, and --model give."""
    models = PRESETS.get(preset or "", {}) | dict(single)
    return {_agent_row(agent): model for agent, model in models.items()}


def _ask_in_menu(keep: bool) -> str:
    """The preset, or "custom"; "" to keep the present models, if *keep*."""
    _tell("LLM setup:")
    answers = {"": "" if keep else next(iter(LLM_MENU))}
    for number, (name, line) in enumerate(LLM_MENU.items(), 1):
        _tell(f"  {number}. {line}")
        answers |= {str(number): name, name: name}
    while True:
        with suppress(KeyError, UnicodeDecodeError):
            answer = _typed(_read_visible, "Choice [Enter keeps the present models]: " if keep else "Choice [1]: ")
            return answers[answer.lower().rstrip(".")]
        _tell(f"  Not accepted: expected a number from 1 to {len(LLM_MENU)}, or a name.")


def _say_what_models_need(chosen: Collection[Field], values: Values) -> None:
    """What the models need that were chosen, besides a key that is kept here."""
    said = {""}
    for value in values.values():
        if value.row not in chosen or not _is_model(value.row):
            continue
        provider = _provider_of(value.value)
        if provider is None:
            agent = value.row.path[1]
            _log().warning("%s: the key for %s must be in the environment of that agent", agent, value.value)
        elif provider.note not in said:
            said.add(provider.note)
            _tell(provider.note)


# From the environment ----------------------------------------------------------------


def _take_from_environment(manager: ConfigManager, args: Namespace) -> set[Field]:
    """Store what the variables hold, in one step; or say everything that is missing or invalid, and store nothing.

    Returns the fields that were stored.
    """
    given: dict[Field, str | ValueError] = {}
    for row in ASKED:  # before the lock is held: a file may take long to read
        try:
            given[row] = _variable(row)
        except ValueError as error:
            given[row] = error
    changed: dict[Field, Any] = {}

    def decide(values: Values) -> Changes:
        changed.update(_answers_in_environment(given, values, args))
        return changed

    manager.update(decide, setup=True)
    after = manager.examine()
    _say_what_models_need(changed, after)
    for row in ASKED:
        if after[row.name].status == "missing" and not row.provider:
            _log().warning("%s is not set: %s", row.variable, row.question.rstrip(":"))
    return set(changed)


def _answers_in_environment(given: Mapping[Field, str | ValueError], values: Values, args: Namespace) -> Changes:
    """What to store of the models and of what the variables held; ConfigError with all that is missing or invalid."""
    models = {row: model for row, model in _models("fully_free").items() if values[row.name].status == "default"}
    models |= _models(args.preset, args.model)
    planned = {**values} | {row.name: Value(row, model, "configured") for row, model in models.items()}
    changed: dict[Field, Any] = {**models}
    problems = [value.problem for value in planned.values() if value.problem and _is_model(value.row)]
    for row, text in given.items():
        try:
            answer = _answer_in_environment(row, text, planned, args.reconfigure)
        except ValueError as error:
            problems.append(f"{row.variable}: {error}")
            continue
        if answer is not None:
            changed |= dict.fromkeys(_with_twin(row), answer)
    if problems:
        hint = f"set the variables (or NAME_FILE, naming a file) and --preset, or run {_program} setup at a terminal"
        raise ConfigError(*problems, hint=hint)
    return changed


def _answer_in_environment(row: Field, text: str | ValueError, values: Values, reconfigure: bool) -> Any:
    """The value to store for *row*, or None for what is stored already; ValueError if it is missing or invalid."""
    if isinstance(text, ValueError):
        raise text
    value = values[row.name]
    answered = _is_answered(row, values)
    if text and (reconfigure or not answered):
        return _accept(row, text)
    if answered:
        with suppress(ValueError):
            text = _from_text(row, text)
        if text not in ("", value.value):
            _log().warning("%s differs from the stored value and is not used; --reconfigure uses it", row.variable)
        return None
    if value.status == "configured":  # only its twin is not
        return value.value
    if value.status == "unreadable" and not _is_needed(row, values):
        _log().warning("the %s cannot be read and no model needs it: it is dropped", row.label)
        return ""
    if _is_needed(row, values) or value.problem:
        missing = "its file is empty" if os.environ.get(f"{row.variable}_FILE") else "not set"
        raise ValueError(missing + (f" ({value.status} as stored)" if value.problem else ""))
    return None


def _variable(row: Field) -> str:
    """What the variable of *row* holds, or the file that NAME_FILE names; "" if unset."""
    text = os.environ.get(row.variable, "")
    file = os.environ.get(f"{row.variable}_FILE", "")
    if text and file:
        raise ValueError(f"{row.variable}_FILE is set too; unset one of them")
    if file:
        try:
            with open(file, encoding="utf-8-sig") as opened:
                text = opened.read()
        except OSError as error:
            # The name is not shown: it may be the secret itself, given in the wrong place.
            raise ValueError(f"cannot read the file that {row.variable}_FILE names: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ValueError(f"expected UTF-8 text in the file that {row.variable}_FILE names") from None
    text = text.strip(BLANKS)
    if row.secret:
        _mask(text)
    return text


# =====================================================================================
# Trying the credentials
# =====================================================================================


class Refused(Exception):  # noqa: N818  # what it says of a service, as in the lines of check
    """A service does not do what the configuration needs: one sentence a problem, with what to do about it."""


Trial = Callable[[float], str]  # takes a time-out in seconds; gives what was proved, or raises
Result = tuple[str, str, tuple[str, ...]]  # the title of a trial, what was proved, the problems


def _trials(config: AppConfig) -> dict[str, Trial]:
    """How to try every service that *config* uses, by its title."""
    urls = {provider.url_variable for provider in PROVIDERS}
    for name, text in os.environ.items():
        if name in urls or name.lower().endswith("_proxy"):  # it may hold a password
            for password in re.findall(r"(?:^|/)[^\s/:@]*:([^\s/]\S*)@", text):
                _mask(password)
    trials: dict[str, Trial] = {
        f"SMTP {config.smtp.host}:{config.smtp.port}": partial(_try_smtp, config.smtp),
        f"IMAP {config.imap.host}:{config.imap.port}": partial(_try_imap, config.imap),
    }
    for provider in PROVIDERS:
        used = {name: agent.model for name, agent in config.agents.items() if _provider_of(agent.model) is provider}
        if used:
            trials[provider.title] = partial(_try_provider, provider, used, config)
    return trials


def _results(trials: Mapping[str, Trial], timeout: float) -> Iterator[Result]:
    """Try everything at once; give what came of each as it finishes, and last what did not finish in time."""
    import queue
    from threading import Thread

    finished: queue.SimpleQueue[Result] = queue.SimpleQueue()

    def attempt(title: str, trial: Trial) -> None:
        try:
            finished.put((title, trial(timeout), ()))
        except Exception as error:
            finished.put((title, "", error.args if isinstance(error, Refused) else (_explain(error),)))

    # Before the threads: if the program ended while one makes it, OpenSSL would be taken from under it.
    with suppress(OSError):  # which each service speaks of
        _tls()
    deadline = time.monotonic() + timeout
    for title, trial in trials.items():
        Thread(target=attempt, args=(title, trial), daemon=True).start()
    waiting = dict.fromkeys(trials)
    with suppress(queue.Empty):
        while waiting:
            result = finished.get(timeout=max(0.0, deadline - time.monotonic()))
            del waiting[result[0]]
            yield result
    for title in waiting:
        yield title, "", (_explain(TimeoutError()),)


@cache
def _tls() -> ssl.SSLContext:
    """How all services are spoken to. To read the trusted certificates takes long, and once is enough."""
    import ssl

    return ssl.create_default_context()


def _try_smtp(smtp: SmtpConfig, timeout: float) -> str:
    import smtplib

    _need_login(smtp, "smtp")
    context = _tls()
    if smtp.port == 465:
        server: smtplib.SMTP = smtplib.SMTP_SSL(smtp.host, smtp.port, "[127.0.0.1]", timeout=timeout, context=context)
    else:
        server = smtplib.SMTP(smtp.host, smtp.port, "[127.0.0.1]", timeout=timeout)
    try:
        if smtp.port != 465:
            server.starttls(context=context)
        server.ehlo_or_helo_if_needed()
        if "PLAIN" in server.esmtp_features.get("auth", "").split():
            server.user, server.password = smtp.username, smtp.password
            server.auth("PLAIN", server.auth_plain)  # login() would try a refused password once more in another way
        else:
            server.login(smtp.username, smtp.password)
        with suppress(OSError):  # it has been proved: how the server says good-bye does not matter
            server.quit()
    except smtplib.SMTPAuthenticationError as error:
        if error.smtp_code in (421, 454):
            raise
        raise _login_refused("smtp", error) from None
    finally:
        server.close()
    return f"logged in as {smtp.username}"


def _try_imap(imap: ImapConfig, timeout: float) -> str:
    import imaplib

    _need_login(imap, "imap")
    try:
        server = imaplib.IMAP4_SSL(imap.host, imap.port, ssl_context=_tls(), timeout=timeout)
    except imaplib.IMAP4.error as error:
        if "BYE" in str(error):
            raise Refused(f"is busy ({_reply(error)}); try again later") from None
        raise
    try:
        if "AUTH=PLAIN" in server.capabilities:
            server.authenticate("PLAIN", lambda _: f"\0{imap.username}\0{imap.password}".encode())
        else:
            server.login(imap.username, imap.password)
    except imaplib.IMAP4.error as error:
        if isinstance(error, imaplib.IMAP4.abort) or re.search("command error|illegal in state", str(error)):
            raise  # no NO to the login, which alone speaks of the password
        if re.search(r"\[(UNAVAILABLE|INUSE|LIMIT|SERVERBUG|CONTACTADMIN)\]", str(error)):  # RFC 5530: not the login
            raise Refused(f"cannot let anybody in now ({_reply(error)}); try again later") from None
        raise _login_refused("imap", error) from None
    finally:
        with suppress(OSError):
            server.shutdown()
    return f"logged in as {imap.username}"


def _need_login(login: SmtpConfig | ImapConfig, section: str) -> None:
    from base64 import b64encode

    missing = [f"{section}.{name}" for name in ("username", "password") if not getattr(login, name)]
    if missing:
        raise Refused(f"{' and '.join(missing)} not set; run {_program} setup")
    for name in ("username", "password"):
        if not getattr(login, name).isascii():
            raise Refused(f"takes no {name} with characters beyond ASCII; run {_program} set {section}.{name}")
    for sent in (login.password, f"\0{login.username}\0{login.password}"):  # a server may repeat it
        _mask(b64encode(sent.encode()).decode())


def _login_refused(section: str, error: Exception) -> Refused:
    page = FIELDS[f"{section}.password"].page
    return Refused(
        f"the server refused the user name or the app password ({_reply(error)}); switch 2-Step Verification on,"
        f" make a new app password at {page}, then run {_program} set {section}.password"
    )


def _try_provider(provider: Provider, models: Mapping[str, str], config: AppConfig, timeout: float) -> str:
    """Ask for the list of models and look for those that the agents (*models*: by agent) use."""
    row = _key_of(provider)
    key = getattr(config, row.name) if row else ""
    if row and not key:
        raise Refused(f"{row.name} is not set; run {_program} setup")
    offered = _offered(provider, {name: text.format(key=key) for name, text in provider.headers.items()}, timeout)
    problems = []
    for model in dict.fromkeys(models.values()):
        name = model.partition("/")[2] if "/" in model else model
        if name not in offered and f"{name}:latest" not in offered:
            users = [agent for agent in models if models[agent] == model]
            other = _other_model(provider, name, model, users, offered)
            problems.append(f"does not offer {name} ({', '.join(users)}){other}")
    if problems:
        raise Refused(*problems)
    return f"offers all configured models ({', '.join(dict.fromkeys(models.values()))})"


def _other_model(provider: Provider, name: str, model: str, users: Sequence[str], offered: Sequence[str]) -> str:
    """What to do about a model that is not offered."""
    from difflib import SequenceMatcher
    from shlex import quote

    if provider.get_model:
        return f"; run: {provider.get_model.format(quote(name))}"
    if not offered:
        return ""

    words = set(re.findall("[a-z]+", name))  # the family counts more than a date: sonnet is nearer to sonnet

    def likeness(other: str) -> tuple[int, float]:
        return len(words & set(re.findall("[a-z]+", other))), SequenceMatcher(None, name, other).ratio()

    nearest = max(offered, key=likeness)
    model = quote(model[: len(model) - len(name)] + nearest)  # it is the server that says how it is called
    commands = [f"{_program} set agents.{agent}.model {model}" for agent in users]
    return f"; the nearest is {nearest}: run {' && '.join(commands)}"


def _offered(provider: Provider, headers: Mapping[str, str], timeout: float) -> list[str]:
    """The names of all models that *provider* lists, page by page."""
    url = _base_url(provider) + provider.list_path
    names: list[str] = []
    page = url
    while True:
        answer = _get_json(provider, page, headers, timeout)
        try:
            names += [str(item[provider.model_name]) for item in answer[provider.list_name]]
            last = str(answer["last_id"]) if answer.get("has_more") else ""
        except (TypeError, KeyError, AttributeError):
            raise Refused(f"did not answer with a list of models; check {provider.url_variable}") from None
        before, page = page, f"{url}&after_id={last}"
        if not last or page == before:
            return names


def _base_url(provider: Provider) -> str:
    """Where *provider* is: its variable may name a host alone, as OLLAMA_HOST does."""
    from urllib.parse import urlsplit

    given = os.environ.get(provider.url_variable, "").strip() or provider.url
    default = urlsplit(provider.url)
    with suppress(ValueError):  # no number as the port
        url = urlsplit(given if "://" in given else f"{default.scheme}://{given}")
        if not url.port and "://" not in given and default.port:
            url = url._replace(netloc=f"{url.netloc}:{default.port}")
        if url.scheme in ("http", "https") and url.hostname and not re.search(r"\s", given):
            # What a server listens on is no address to ask.
            return url.geturl().rstrip("/").replace("//0.0.0.0", "//127.0.0.1")
    raise Refused(f"has no usable address: {provider.url_variable} is {given}; set it to one as {provider.url}")


def _get_json(provider: Provider, url: str, headers: Mapping[str, str], timeout: float) -> Any:
    from socket import gaierror
    from urllib.error import HTTPError, URLError
    from urllib.request import Request, urlopen

    request = Request(url, headers={"User-Agent": f"job_hunter/{__version__}"})  # noqa: S310
    for name, text in headers.items():
        request.add_unredirected_header(name, text)  # a key goes to nobody else
    try:
        with urlopen(request, timeout=timeout, context=_tls()) as answer:  # noqa: S310
            content = answer.read(32_000_000).strip()
    except HTTPError as error:
        error.close()
        raise Refused(_http_status(provider, error.code)) from None
    except URLError as error:
        unreached = isinstance(error.reason, (ConnectionRefusedError, gaierror)) or type(error.reason) is OSError
        if unreached and _proxied(request):
            raise Refused(f"cannot be reached through the proxy ({error.reason}); check the proxy variables") from None
        if isinstance(error.reason, ConnectionRefusedError) and provider.start:
            what_to_do = f"{provider.start}, or check {provider.url_variable}"
            raise Refused(f"is not running: nothing listens at {_base_url(provider)}; {what_to_do}") from None
        raise
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        if content[:1] in (b"", b"{"):  # of which the end is missing
            raise EOFError from None
        other = f"check {provider.url_variable} and the proxy variables"
        raise Refused(f"answered with something else than JSON; {other}") from None


def _proxied(request: Any) -> bool:
    from urllib.parse import urlsplit

    return bool(request.host != urlsplit(request.full_url).netloc or getattr(request, "_tunnel_host", None))


def _http_status(provider: Provider, status: int) -> str:
    row = _key_of(provider)
    if status in (401, 403) and row:
        return f"refused the key (HTTP {status}); make a new one at {row.page}, then run {_program} set {row.name}"
    if status == 429:
        return f"gets too many requests (HTTP {status}); wait a minute and try again"
    if status >= 500:
        return f"is out of order (HTTP {status}); try again later"
    return f"has no list of models at {_base_url(provider)} (HTTP {status}); check {provider.url_variable}"


def _reply(error: BaseException) -> str:
    """What the server said, as one short line."""
    said = error.args[-1] if error.args else ""
    text = _masked_in(said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said))
    text = " ".join(text.removeprefix("b'").removesuffix("'").split())
    return text if len(text) <= 150 else f"{text[:150]}…"


def _explain(error: BaseException) -> str:
    """What went wrong between here and a service, and what to do about it."""
    import imaplib
    import smtplib
    import socket
    import ssl
    from http.client import HTTPException, IncompleteRead

    cause = getattr(error, "reason", None)  # urllib wraps what happens while it connects
    error = cause if isinstance(cause, BaseException) else error
    if isinstance(error, smtplib.SMTPServerDisconnected) and isinstance(error.__context__, TimeoutError):
        error = error.__context__
    later = "try again later, or check host and port"
    other = "something else than expected is listening there; check host, port and proxy"
    if isinstance(error, imaplib.IMAP4.abort) and "EOF" in str(error):
        error = EOFError()
    explanations: list[tuple[type[BaseException] | tuple[type[BaseException], ...], str]] = [
        (TimeoutError, "did not answer in time; check host, port and network, or give it longer with --timeout"),
        (
            ssl.SSLCertVerificationError,
            f"has a certificate that is not trusted ({getattr(error, 'verify_message', '')});"
            " check the host, or name the authority to trust in SSL_CERT_FILE",
        ),
        ((ssl.SSLEOFError, ssl.SSLZeroReturnError), f"hung up in the middle; {later}"),
        (ssl.SSLError, f"does not speak TLS ({getattr(error, 'reason', '')}); check host and port"),
        (socket.gaierror, "has a host name that cannot be found; check its spelling and the network"),
        (ConnectionRefusedError, "is not there: nothing listens at that address; check host and port"),
        (
            (smtplib.SMTPServerDisconnected, ConnectionError, EOFError, IncompleteRead),
            f"hung up in the middle; {later}",
        ),
        (smtplib.SMTPResponseException, f"answered {_smtp_answer(error)}; {later}"),
        (smtplib.SMTPException, f"cannot log in safely: {error}; check host and port"),
        (imaplib.IMAP4.error, f"answered as no IMAP server does ({_reply(error)}); {other}"),
        (HTTPException, f"answered as no HTTP server does; {other}"),
    ]
    for kinds, explanation in explanations:
        if isinstance(error, kinds):
            return explanation
    if isinstance(error, OSError):
        return f"cannot be reached: {error.strerror or error}; check the network"
    _log().error("unexpected failure of a trial", exc_info=error)
    return f"could not be tried ({type(error).__name__}); the log has the whole error"


def _smtp_answer(error: BaseException) -> str:
    code = getattr(error, "smtp_code", 0)
    return f"{code} {_reply(error)}" if code > 0 else "as no SMTP server does"


# =====================================================================================
# Commands
# =====================================================================================


def cmd_setup(args: Namespace, manager: ConfigManager) -> int:
    """Ask for what is missing and store it encrypted; then print a summary."""
    _fernet_class()  # if the package is missing, that is said before the first question
    manager.ensure_dirs()
    before = manager.examine()
    askable = {filled for row in FIELDS.values() if row.question for filled in _with_twin(row)}
    manager.refuse_problems(
        value
        for name, value in before.items()
        if value.row not in askable or not value.problem.startswith(f"{name}:")  # it is no question that is wrong
    )
    unreadable = [name for name, value in before.items() if value.status == "unreadable"]
    if unreadable:
        _log().warning("%s", before[unreadable[0]].problem)
        _log().warning("these secrets cannot be read and are needed again: %s", ", ".join(unreadable))
    asked = (_take_from_environment if args.non_interactive else _ask_everything)(manager, args)
    _print_summary(manager, manager.examine(), asked)
    _tell(f"\nNext: {_program} check proves that all this works.")
    return 0


def _agent_and_model(text: str) -> tuple[str, str]:
    from argparse import ArgumentTypeError

    agent, _, model = text.partition("=")
    if agent not in AGENT_NAMES:
        raise ArgumentTypeError(f"{agent!r} is not an agent; the agents are {', '.join(AGENT_NAMES)}")
    try:
        return agent, _model(model)
    except ValueError as error:
        raise ArgumentTypeError(f"{agent}: {error}") from None


SETUP_ARGUMENTS: Arguments = {
    "--non-interactive": {
        "action": "store_true",
        "help": f"ask nothing; take the values from {VARIABLES}, or from the files that NAME_FILE variables name",
    },
    "--preset": {"choices": PRESETS, "help": "set the models of all agents"},
    "--model": {
        "metavar": "AGENT=MODEL",
        "type": _agent_and_model,
        "action": "append",
        "default": [],
        "help": "set the model of one agent, over the preset; may be given several times",
    },
    "--reconfigure": {
        "action": "store_true",
        "help": "ask every question again, Enter keeping the present value; with --non-interactive,"
        " let the variables win",
    },
}


def cmd_show(args: Namespace, manager: ConfigManager) -> int:
    """Print the summary, changing nothing; exit status 1 if something required is missing or unusable."""
    values = manager.examine()
    if args.json:
        _write(json.dumps(_summary(values), indent=2), sys.stdout)  # its values are masked: what holds them is JSON
    else:
        _print_summary(manager, values)
    problems = dict.fromkeys(value.problem for value in values.values() if value.problem)
    hint = manager.hint_for(values.values()) if problems else f"run {_program} setup"
    missing = [
        value.row.name for value in values.values() if value.status == "missing" and _is_needed(value.row, values)
    ]
    if missing:
        problems[f"missing: {', '.join(missing)}"] = None
    if problems:
        raise ConfigError(*problems, hint=hint)
    return 0


SHOW_ARGUMENTS: Arguments = {"--json": {"action": "store_true", "help": "print the same rows as JSON, for programs"}}


def cmd_get(args: Namespace, manager: ConfigManager) -> int:
    """Print one value alone: secrets in the clear, what is not text as JSON.

    NAME is dotted, as in config.json: smtp.host, agents.writer.model, anthropic_api_key.
    """
    value = manager.get(args.name)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if sys.stdout is None:
        raise ConfigError("standard output is closed")
    try:
        sys.stdout.write(f"{text}\n")  # neither masked nor escaped: it was asked for
        sys.stdout.flush()
    except UnicodeEncodeError as error:
        raise ConfigError(f"{error.encoding} has no form for this value", hint="set PYTHONIOENCODING=utf-8") from None
    return 0


NAME_ARGUMENT: Arguments = {
    "name": {"metavar": "NAME", "help": "the dotted name of a value, such as agents.writer.model"}
}


def cmd_set(args: Namespace, manager: ConfigManager) -> int:
    """Check one value as setup would, and store it.

    Without VALUE it is asked for, or read from standard input if that is no terminal. A
    secret is only ever taken so, at a hidden prompt, since a command line is seen by others:

        printf %s "$NEW_PASSWORD" | python job_hunter.py set smtp.password
    """
    row = manager.find(args.name)
    if row.secret and args.value:
        hint = f"run {_program} set {row.name} and type it at the hidden prompt, or pipe it in"
        raise UsageError("a secret is not taken from the command line, where others can see it", hint=hint)
    if not args.value and sys.stdin is not None and sys.stdin.isatty():
        value = _ask(row, row.question or (row.label or row.name) + ("" if row.secret else ":"))
    else:
        text = " ".join(args.value).strip(BLANKS) if args.value else _read_piped(row)
        try:
            value = _accept(row, text)
        except ValueError as error:
            raise ConfigError(_problem(row, error, text)) from None
    manager.update({row: value})
    _say_what_is_left(row, value, manager)
    return 0


SET_ARGUMENTS: Arguments = {
    **NAME_ARGUMENT,
    "value": {"metavar": "VALUE", "nargs": "*", "default": [], "help": "the value, if it is no secret"},
}


def _read_piped(row: Field) -> str:
    with _blaming("standard input"):
        content = sys.stdin.buffer.read() if sys.stdin is not None else b""
    try:
        return content.decode("utf-8-sig").strip(BLANKS)
    except UnicodeDecodeError:
        raise ConfigError(f"{row.name}: expected UTF-8 text on standard input") from None


def _say_what_is_left(row: Field, value: Any, manager: ConfigManager) -> None:
    """After one value was set: what else it makes necessary."""
    provider = _provider_of(value) if _is_model(row) else None
    key = _key_of(provider) if provider else None
    if row.twin and manager.value(FIELDS[row.twin]).value != value:
        _tell(f"{row.twin} is still another one; if it is the same account, run {_program} set {row.twin}")
    if key and manager.value(key).status == "missing":
        _tell(f"{value} needs {key.name}, which is not set; run {_program} set {key.name}")


def cmd_unset(args: Namespace, manager: ConfigManager) -> int:
    """Put the default of one value back."""
    row = manager.find(args.name)
    if manager.value(row).status not in ("missing", "default"):
        manager.update({row: row.default})
    return 0


def cmd_check(args: Namespace, manager: ConfigManager) -> int:
    """Prove that the credentials work: log in to the mail servers, ask the providers for the models.

    Every service that the configuration uses is tried, all at once; no mail is sent and no
    token spent. Exit status 1 if any fails. ANTHROPIC_BASE_URL, OPENAI_BASE_URL, OLLAMA_HOST,
    the proxy variables and SSL_CERT_FILE are honoured.
    """
    config = manager.load()
    trials = _trials(config)
    failed = []
    for title, proved, problems in _results(trials, args.timeout):
        for problem in problems:
            _print(f"failed  {title}: {problem}")
        if problems:
            failed.append(title)
        else:
            _print(f"ok      {title}: {proved}")
    for model in dict.fromkeys(agent.model for agent in config.agents.values() if not _provider_of(agent.model)):
        _print(f"skipped {model}: its key is not kept here; it must be in the environment of the agents")
    if failed:
        raise ConfigError(f"{len(failed)} of {len(trials)} services failed: {', '.join(failed)}")
    return 0


def _seconds(text: str) -> float:
    from argparse import ArgumentTypeError

    with suppress(ValueError):
        if 0 < float(text) <= 86_400:
            return float(text)
    raise ArgumentTypeError(f"expected a number of seconds above 0, a day at most, found {text!r}")


CHECK_ARGUMENTS: Arguments = {
    "--timeout": {
        "metavar": "SECONDS",
        "type": _seconds,
        "default": 15.0,
        "help": "for the whole of it (default: 15)",
    }
}


def cmd_run(args: Namespace, manager: ConfigManager) -> int:
    """Run COMMAND with the stored credentials in its environment, under the names that setup reads.

    A variable that is set already wins; for NAME_FILE, what that file holds is given as
    NAME. The exit status is the command's; 127 if there is no such command, 126 if it
    cannot be run. Write -- before a command that begins with -.
    """
    command = args.words[1:] if args.words[:1] == ["--"] else args.words
    if not command:
        raise UsageError("there is no command to run", hint=f"for example: {_program} run -- python agent.py")
    values = manager.examine()
    manager.refuse_problems(values[row.name] for row in ASKED)
    environment = dict(os.environ)
    unset = []
    for row in ASKED:
        if os.environ.get(row.variable):
            continue
        try:
            given = _variable(row)
            text = _from_text(row, given) if given else values[row.name].value
        except ValueError as error:
            if _is_needed(row, values):
                raise ConfigError(f"{row.variable}: {error}") from None
            _log().warning("%s: %s", row.variable, error)
            continue
        environment.pop(f"{row.variable}_FILE", None)  # or the command would see both
        if text:
            environment[row.variable] = os.fsdecode(text.encode())  # UTF-8, whatever the locale
        elif _is_needed(row, values):
            unset.append(row.variable)
    if unset:
        _log().warning("neither stored nor set: %s", ", ".join(unset))
    try:
        if not command[0]:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return _become(command, environment)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        hint = "check its spelling and PATH" if missing else "check its mode and its first line"
        _report("Run", ConfigError(f"{command[0]}: {error.strerror}", hint=hint))
        return 127 if missing else 126


def _become(command: Sequence[str], environment: Mapping[str, str]) -> int:
    """Replace this process by *command*; where that cannot be, run it and return its exit status."""
    import signal

    if sys.platform != "win32":
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores these, and a new program would inherit that
            signal.signal(number, signal.SIG_DFL)
        os.execvpe(command[0], list(command), environment)  # noqa: S606
    import subprocess

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the command alone
    return subprocess.run(command, env=environment, check=False).returncode  # noqa: S603


RUN_ARGUMENTS: Arguments = {
    "words": {"metavar": "COMMAND ...", "nargs": "...", "help": f"the command to run; it gets {VARIABLES}"}
}


def cmd_rotate_key(_: Namespace, manager: ConfigManager) -> int:
    """Make a new machine key and encrypt every secret with it.

    Wherever it is stopped, the secrets stay readable; run it again to be sure that it was
    done. A copy of the old configuration can only be read with a copy of the old key.
    """
    count = manager.rotate_key()
    _tell(f"There is a new machine key; secrets encrypted with it: {count}.")
    return 0


@dataclass
class Command:
    """A row of the table of commands."""

    run: Callable[[Namespace, ConfigManager], int]
    arguments: Arguments = types.MappingProxyType({})
    writes: bool = False
    usage: str | None = None


COMMANDS = {
    "setup": Command(cmd_setup, SETUP_ARGUMENTS, writes=True),
    "show": Command(cmd_show, SHOW_ARGUMENTS),
    "get": Command(cmd_get, NAME_ARGUMENT),
    "set": Command(cmd_set, SET_ARGUMENTS, writes=True),
    "unset": Command(cmd_unset, NAME_ARGUMENT, writes=True),
    "check": Command(cmd_check, CHECK_ARGUMENTS),
    "run": Command(cmd_run, RUN_ARGUMENTS, usage="%(prog)s [-h] [--base-dir DIR] [-v] [--] COMMAND ..."),
    "rotate-key": Command(cmd_rotate_key, writes=True),
}

# =====================================================================================
# The program
# =====================================================================================


def _directory(text: str) -> str:
    if not text:
        from argparse import ArgumentTypeError

        raise ArgumentTypeError("expected the name of a directory")
    return text


def _parse_arguments(argv: Sequence[str] | None) -> Namespace:
    import argparse

    # Its words are not translated here: to look for translations takes longer than all other parsing.
    argparse._ = str  # type: ignore[attr-defined]

    class Parser(argparse.ArgumentParser):
        title = "job_hunter"
        color = False

        def error(self, message: str) -> NoReturn:
            _report(self.title, UsageError(message, hint=" ".join(self.format_usage().split())))
            self.exit(2)

    class Program(Parser):
        def format_help(self) -> str:
            return f"{__doc__}"

    layout = partial(argparse.RawDescriptionHelpFormatter, width=80)  # to find the width takes 5 ms
    base_dir = argparse.ArgumentParser(add_help=False, formatter_class=layout)
    base_dir.add_argument("--base-dir", metavar="DIR", type=_directory, help="the base directory, for all that is kept")
    program = Program(
        parents=[base_dir], usage="%(prog)s [--base-dir DIR] COMMAND ...", formatter_class=layout, allow_abbrev=False
    )
    program.color = False  # Python 3.14 colours help and usage unless told so here
    program.add_argument("--version", action="version", version=f"job_hunter {__version__}")
    program.add_argument("words", metavar="COMMAND [ARGUMENT ...]", nargs=argparse.REMAINDER)
    args = program.parse_args(argv)
    if not args.words:
        program.print_help(sys.stderr)
        program.exit(2)
    args.command, *words = args.words
    if args.command not in COMMANDS:
        program.error(f"there is no command {args.command!r}; the commands are: {', '.join(COMMANDS)}")
    command = COMMANDS[args.command]
    description = command.run.__doc__ or ""
    if sys.version_info < (3, 13):  # from there on the compiler does it
        description = description.replace("\n    ", "\n")
    # Only the parser of the one command is made: to make all takes longer than most commands.
    parser = Parser(
        prog=f"{program.prog} {args.command}",
        usage=command.usage,
        description=description,
        formatter_class=layout,
        parents=[base_dir],
        allow_abbrev=False,
    )
    parser.color = False
    parser.title = args.command.capitalize()
    parser.add_argument("-v", "--verbose", action="count", default=0, help="say what is done; -vv in every detail")
    for name, options in command.arguments.items():
        parser.add_argument(name, **options)
    return parser.parse_args(words, args)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program with *argv* (by default, the arguments of the process) and return the exit status.

    0 done, 1 failed, 2 wrong usage, 130 interrupted.
    """
    try:
        status = _main(argv)
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:  # files are spoken of by ConfigError: this is standard output
        _discard(1)
        if not isinstance(error, BrokenPipeError):  # the reader has gone: it has seen what it wanted
            _report("job_hunter", ConfigError(f"standard output: {error.strerror or error}"))
        return 1
    return status


def _main(argv: Sequence[str] | None) -> int:
    global _program, _start_logging_once
    name = "job_hunter"
    try:
        args = _parse_arguments(argv)
        name = args.command.capitalize()
        if args.base_dir:
            from shlex import quote

            _program = f"{PROGRAM} --base-dir {quote(args.base_dir)}"
        command = COMMANDS[args.command]
        with _handling(["SIGTERM", "SIGHUP", "SIGQUIT"], _stop) if command.writes else nullcontext():
            manager = ConfigManager(args.base_dir)
            _start_logging_once = partial(_start_logging, manager._base, args.verbose, only_failures=not command.writes)
            return command.run(args, manager)
    except SystemExit as stop:  # --help, --version, wrong usage, or a signal
        return int(stop.code or 0)
    except ConfigError as error:
        _report(name, error)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        _tell("")
        _report(name, ConfigError("interrupted", hint="what was stored is kept; run it again to go on"))
        return 130
    except OSError:
        raise
    except Exception:
        _log().exception("unexpected failure of %s", name)
        path = _log_path(_log_directory(_base_directory(args.base_dir)))
        _tell(f"[{name}] Something went wrong. Full error logged to {path}")
        return 1
    finally:
        _program = PROGRAM
        _start_logging_once = None


def _report(name: str, error: ConfigError) -> None:
    if len(error.problems) == 1:
        _tell(f"[{name}] {error}")
    else:
        _tell(f"[{name}] {len(error.problems)} problems:")
        for problem in error.problems:
            _tell(f"  {problem}")
    if error.hint:
        _tell(f"hint: {error.hint}")


def _stop(number: int, _: object) -> None:
    """Let a signal end the program as an exception does: the terminal and the files are left in order."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
