#!/usr/bin/env python3
# /// script
# requires-python = ">=3.11"
# dependencies = ["cryptography>=44"]
# ///
"""Set up and guard the configuration of a job-hunting outreach agent.

`setup` asks for a Gmail account, the language models of seven agents, the API keys that
these need and a postal address, and keeps them in ~/.outreach-agent, the secrets
encrypted. The agents import this file to load them:

    config = job_hunter.ConfigManager().load()
"""

from __future__ import annotations

import os
import sys

if sys.version_info < (3, 11):  # noqa: UP036  # before anything that an older Python cannot import
    sys.exit(
        "[Setup] job_hunter needs Python 3.11 or newer, and this is Python"
        f" {sys.version.split()[0]}: install one from python.org, or use: uv run job_hunter.py"
    )

import argparse
import errno
import json
import logging
import queue
import re
import shlex
import shutil
import signal
import stat
import threading
import time
from base64 import b64encode, urlsafe_b64encode
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, redirect_stdout, suppress
from copy import copy
from dataclasses import InitVar, asdict, dataclass, field, fields
from datetime import datetime
from difflib import get_close_matches
from functools import cache, partial
from getpass import getpass
from inspect import getdoc
from itertools import chain, count
from math import isfinite
from os.path import abspath, exists, expanduser, isdir, isfile, realpath
from pathlib import Path
from select import select
from textwrap import wrap
from typing import Any, TextIO
from unicodedata import category, east_asian_width
from urllib.parse import quote, quote_plus, unquote

if (
    __name__ != "__main__"
):  # for get_type_hints; the program imports it only when it must
    with suppress(ImportError):  # import_fernet() says what to do about it
        from cryptography.fernet import Fernet

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
SONNET = "anthropic/claude-3-5-sonnet-20241022"
HAIKU = "anthropic/claude-3-haiku-20240307"

#: The model of every agent, by preset.
PRESETS: dict[str, dict[str, str]] = {
    "fully_free": dict.fromkeys(AGENT_NAMES, DEFAULT_MODEL),
    "best_quality": dict.fromkeys(AGENT_NAMES, HAIKU)
    | {"writer": SONNET, "research": SONNET},
}

Directory = (
    str | os.PathLike[str] | None
)  # a base directory; None stands for the default one

logger = logging.getLogger("job_hunter")


class ConfigError(Exception):
    """The configuration cannot be read, written or used.

    `problems` holds every problem found, one sentence each, with its place; `hint` says
    what to do, or is empty. Neither ever contains a secret.
    """

    def __init__(self, *problems: str, hint: str = "", status: int = 1) -> None:
        super().__init__(*problems)
        self.problems = problems
        self.hint = hint
        self.status = status  # the exit status

    def __str__(self) -> str:
        return hide("\n".join(self.problems))


# Providers ===========================================================================


@dataclass(frozen=True)
class Provider:
    """Who serves a model; what is not said here follows from the name, as LiteLLM derives it."""

    title: str
    url: str  # its base URL; another one can be named in a variable: see services
    page: str = ""  # where a key is made, without https://; empty if it needs none
    path: str = "/models"  # below the base URL: the list of the models that it offers
    key_header: str = "Authorization: Bearer {}"
    key_start: str = ""  # a pattern: how its keys begin
    key_form: str = "a key"  # the same in words
    bare: tuple[str, ...] = ()  # how models begin that stand without "provider/"


OLLAMA = Provider("Ollama", "http://localhost:11434", path="/api/tags")
PROVIDERS: dict[str, Provider] = {
    "anthropic": Provider(
        "Anthropic",
        "https://api.anthropic.com",
        "console.anthropic.com/settings/keys",
        path="/v1/models?limit=1000",
        key_header="x-api-key: {}",
        key_start="sk-ant-",
        key_form="a key that begins with sk-ant-",
        bare=("claude",),
    ),
    "openai": Provider(
        "OpenAI",
        "https://api.openai.com/v1",
        "platform.openai.com/api-keys",
        key_start="(?!sk-ant-)sk-",
        key_form="a key that begins with sk- (sk-ant- is Anthropic's)",
        bare=("gpt", "chatgpt", "o1", "o3", "o4"),
    ),
    "gemini": Provider(
        "Gemini",
        "https://generativelanguage.googleapis.com/v1beta",
        "aistudio.google.com/apikey",
        path="/openai/models",
    ),
    "groq": Provider("Groq", "https://api.groq.com/openai/v1", "console.groq.com/keys"),
    "mistral": Provider(
        "Mistral", "https://api.mistral.ai/v1", "console.mistral.ai/api-keys"
    ),
    "deepseek": Provider(
        "DeepSeek", "https://api.deepseek.com", "platform.deepseek.com/api_keys"
    ),
    "openrouter": Provider(  # its plain list is given without a key
        "OpenRouter",
        "https://openrouter.ai/api/v1",
        "openrouter.ai/settings/keys",
        "/models/user",
    ),
    "xai": Provider("xAI", "https://api.x.ai/v1", "console.x.ai"),
    "ollama": OLLAMA,
    "ollama_chat": OLLAMA,
}


def provider_of(model: str) -> str:
    """The name of a model's provider: what stands before the first `/`, or "" if nobody's."""
    if "/" in model:
        return model.partition("/")[0]
    return next(
        (name for name, row in PROVIDERS.items() if model.startswith(row.bare)), ""
    )


# Checks ==============================================================================
#
# Each gives the form to store, or raises ValueError with what it expected, not naming the value.

Check = Callable[[Any], Any]

BLANK = (
    r"[\s\u200b-\u200f\u2060\ufeff]"  # no-break spaces too, and zero-width characters
)
CONTROL = r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]"
APP_PASSWORD = "[A-Za-z]{16}"  # as Google makes them
APP_PASSWORD_PAGE = "https://myaccount.google.com/apppasswords"


def trim(text: str) -> str:
    return re.sub(f"^{BLANK}+|{BLANK}+$", "", text)


def check_text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("expected text")
    text = trim(value)
    if re.search(CONTROL, text):
        raise ValueError("expected one line of text, without control characters")
    return text


def check_lines(value: object) -> str:
    lines = value.replace("\t", " ").splitlines() if isinstance(value, str) else [value]
    return "\n".join(map(check_text, lines))


def check_form(pattern: str, expected: str, value: object) -> str:
    text = check_text(value)
    if not re.fullmatch(pattern, text):
        raise ValueError(f"expected {expected}")
    return text


def check_number(low: int, high: int, value: object) -> int:
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"expected a whole number from {low} to {high}")
    return value


def check_names(value: object) -> list[str]:
    if not isinstance(value, list):
        raise ValueError("expected a list of names")
    return [check_text(name) for name in value]


def check_model(value: object) -> str:
    model = check_form(r"[^\s/]+(/[^\s/]+)*", f"a model string such as {HAIKU}", value)
    if not provider_of(model):
        meant = next(filter(model.startswith, PROVIDERS), "ollama")
        raise ValueError(f"expected a model with its provider, such as {meant}/{model}")
    return model


def check_app_password(value: object) -> str:
    text = check_text(value)
    letters = re.sub(BLANK, "", text)  # Google shows abcd efgh ijkl mnop
    return letters if re.fullmatch(APP_PASSWORD, letters) else text


check_email = partial(
    check_form, r"[^\s@<>,;]+@[^\s@<>,;]+\.[^\s@<>,;]+", "an e-mail address"
)
check_host = partial(
    check_form, r"[^\s/@:]+|[\da-fA-F.]*(:[\da-fA-F.]*){2,}", "a host name only"
)
check_port = partial(check_number, 1, 65535)
BACKOFF = "exponential|linear|constant"
check_backoff = partial(check_form, BACKOFF, BACKOFF.replace("|", " or "))


# The schema, whose metadata is the table of settings =================================


@dataclass(frozen=True, eq=False)
class Setting:
    """One value of the configuration: a row of the table, which every command reads."""

    path: tuple[str, ...]  # where it stands in config.json
    default: Any
    check: Check
    label: str = ""  # the service in the summary
    question: str = ""  # what a person is asked, in exactly these words; else the label
    variable: str = ""  # the environment variable; NAME_FILE names a file that holds it
    note: str = ""  # told before the question: where the credential is made
    secret: bool = False
    provider: str = (
        ""  # whose key it is: required as soon as an agent's model is one of its models
    )
    twin: str = ""  # of a mail login, always required: the same of the other server
    place: str = ""  # the path below the base directory that "" stands for
    is_model: bool = False
    rank: int = 5  # the order of the questions and of the summary

    @property
    def name(self) -> str:
        return ".".join(self.path)

    def parse(self, text: str) -> Any:
        """The value of an answer, which is text; ValueError as of check, or if it is empty."""
        value: Any = trim(text)
        if not value:
            raise ValueError("expected a value; nothing was given")
        if self.secret:
            remember(value)
        if isinstance(self.default, int) and re.fullmatch("[0-9]{1,9}", value):
            value = int(value)
        elif isinstance(self.default, list):
            value = re.findall(r'[^\s,"\[\]]+', value)  # as JSON, or the names alone
        value = self.check(value)
        if self.check is check_app_password and not re.fullmatch(APP_PASSWORD, value):
            logger.warning(
                "%s: not 16 letters, as Google makes them; check it", self.label
            )
        return value

    def problem(self, error: ValueError, value: object) -> str:
        found = "" if self.secret or value == "" else f", found {describe(value)}"
        return f"{self.name}: {error}{found}"


def describe(value: object) -> str:
    """How a message names a value that was found."""
    kinds = {"dict": "an object", "list": "a list"}
    text = kinds.get(type(value).__name__) or json.dumps(
        value, ensure_ascii=False, default=repr
    )
    # Never a part of what is too long: it may be a secret in the wrong place.
    return text if len(text) <= 60 else f"something of {len(text)} characters"


def setting(check: Check, default: Any = "", **columns: Any) -> Any:
    """Declare a field of the schema; its metadata is its row of the table of settings."""
    row = {"check": check, **columns}
    return field(
        default_factory=partial(copy, default),
        repr="secret" not in columns,
        metadata=row,
    )


def api_key(name: str) -> Any:
    provider = PROVIDERS[name]
    return setting(
        partial(
            check_form,
            f"{provider.key_start}[!-~]+",
            f"{provider.key_form}, without spaces",
        ),
        label=f"{provider.title} API key",
        variable=f"{name.upper()}_API_KEY",
        note=f"Get one at https://{provider.page}",
        secret=True,
        provider=name,
        rank=3,
    )


app_password = partial(
    setting,
    check_app_password,
    note=f"Get one at {APP_PASSWORD_PAGE}",
    secret=True,
    rank=1,
)


@dataclass
class Value:
    """What a configuration says of one setting."""

    value: Any  # checked, in plain text; the default if missing or invalid, None if unreadable
    status: str  # configured, default, missing, invalid or unreadable
    error: ConfigError | None = None  # of what is invalid or unreadable


Values = Mapping[Setting, Value]
Answers = Mapping[Setting, Any]


@dataclass
class AgentConfig:
    """What one agent needs: its LiteLLM model string."""

    model: str = (
        DEFAULT_MODEL  # its row of the table has the agent's name: see agent_setting
    )


@dataclass
class SmtpConfig:
    """The server that sends mail (TLS first on port 465, STARTTLS on others), and its login."""

    host: str = setting(check_host, "smtp.gmail.com", label="SMTP server")
    port: int = setting(check_port, 587, label="SMTP port")
    username: str = setting(
        check_email,
        label="Gmail address",
        question="Gmail address for sending:",
        variable="GMAIL_USERNAME",
        twin="imap.username",
        rank=0,
    )
    password: str = app_password(
        label="Gmail App Password", variable="GMAIL_APP_PASSWORD", twin="imap.password"
    )


@dataclass
class ImapConfig:
    """The server that receives mail (TLS from the first byte), and its login."""

    host: str = setting(check_host, "imap.gmail.com", label="IMAP server")
    port: int = setting(check_port, 993, label="IMAP port")
    username: str = setting(
        check_email, label="Gmail address (IMAP)", twin="smtp.username", rank=0
    )
    password: str = app_password(
        label="Gmail App Password (IMAP)", twin="smtp.password"
    )


@dataclass
class AppConfig:
    """The whole configuration, secrets in plain text (and left out of its repr).

    `agents` has the seven of AGENT_NAMES, or more. "" as a path is the default place.
    """

    agents: dict[str, AgentConfig] = field(
        default_factory=lambda: {name: AgentConfig() for name in AGENT_NAMES}
    )
    smtp: SmtpConfig = field(default_factory=SmtpConfig)
    imap: ImapConfig = field(default_factory=ImapConfig)
    max_retries: int = setting(partial(check_number, 0, 100), 3)
    backoff_strategy: str = setting(check_backoff, "exponential")
    llm_fallback_chain: list[str] = setting(check_names, ["claude", "openai", "ollama"])
    db_path: str = setting(check_text, place="outreach.db")
    log_dir: str = setting(check_text, place="logs")
    resume_dir: str = setting(check_text, place="resume")
    venues_dir: str = setting(check_text, place="venues")
    mailing_address: str = setting(
        check_lines,
        label="Mailing address",
        question="Physical mailing address (required for CAN-SPAM):",
        variable="MAILING_ADDRESS",
        rank=4,
    )
    anthropic_api_key: str = api_key("anthropic")
    openai_api_key: str = api_key("openai")
    gemini_api_key: str = api_key("gemini")
    groq_api_key: str = api_key("groq")
    mistral_api_key: str = api_key("mistral")
    deepseek_api_key: str = api_key("deepseek")
    openrouter_api_key: str = api_key("openrouter")
    xai_api_key: str = api_key("xai")
    # What load() found, by name, and where: save() writes what differs from it. As an InitVar
    # it is no field, but dataclasses.replace() hands it on.
    loaded: InitVar[Any] = ("", {})

    def __post_init__(self, loaded: Any) -> None:
        vars(self)["loaded"] = loaded

    def api_key_for(self, agent: str) -> str:
        """Return the key that a LiteLLM call takes for the model of *agent*.

        It is "" if that needs none, or none is stored. Raises KeyError for an unknown agent.
        """
        row = key_setting(self.agents[agent].model)
        return getattr(self, row.name) if row else ""


@cache
def agent_setting(agent: str) -> Setting:
    """The row of an agent's model, seven or not; always the same object, as rows have no equal."""
    path, label = ("agents", agent, "model"), f"{agent} model"
    return Setting(path, DEFAULT_MODEL, check_model, label, is_model=True, rank=2)


def settings_of(part: Any, *path: str) -> list[Setting]:
    """The rows that a part of the schema declares, which stands at *path*."""
    rows = [row for row in fields(part) if row.metadata]
    return [
        Setting((*path, row.name), getattr(part, row.name), **row.metadata)
        for row in rows
    ]


MODELS = [agent_setting(agent) for agent in AGENT_NAMES]
MAIL = [*settings_of(SmtpConfig(), "smtp"), *settings_of(ImapConfig(), "imap")]
TABLE = [
    *MODELS,
    *MAIL,
    *settings_of(AppConfig()),
]  # every setting that all configurations have
SETTINGS = {row.name: row for row in TABLE}  # by the dotted name, as in the file
ASKED = [row for row in TABLE if row.variable]
SECRETS = [row for row in TABLE if row.secret]
VARIABLES = ", ".join(row.variable for row in ASKED)


def key_setting(model: str) -> Setting | None:
    """The setting that holds the key for a model, or None if it needs none that is kept here."""
    return SETTINGS.get(f"{provider_of(model)}_api_key")


def is_needed(row: Setting, values: Values) -> bool:
    """Whether a setting is required, as a login or for the model of an agent."""
    keys = (key_setting(value.value) for one, value in values.items() if one.is_model)
    return bool(row.twin) or row in keys


def is_answered(row: Setting, values: Values) -> bool:
    """Whether a setting is configured, and of a mail login its twin too."""
    return all(
        values[one].status == "configured" for one in (row, SETTINGS.get(row.twin, row))
    )


def refuse(values: Iterable[Value]) -> None:
    """Raise the errors of all *values* as one, with what to do about the first."""
    errors = [value.error for value in values if value.error]
    if errors:
        raise ConfigError(*dict.fromkeys(map(str, errors)), hint=errors[0].hint)


# Files ===============================================================================

BASE_DIR_VARIABLE = "JOB_HUNTER_BASE_DIR"
CONFIG_FILE = "config.json"
KEY_FILE = ".key"
NEXT_KEY_FILE = ".key.new"  # only while the key is rotated
LOCK_FILE = ".lock"
TEMPORARY_FILE = ".writing"  # only while a file is written
#: What belongs to this program below the base directory.
OURS = (
    "config.json*",
    ".key*",
    ".lock",
    "logs",
    "logs/run-????-??-??.log*",
    "resume",
    "venues",
)

MOVE_AWAY = "move it away, then run the command again"
WHAT_TO_DO = {
    errno.ENOSPC: "free some space on that disk, then run the command again",
    errno.EACCES: "check the owner and the mode of the file and of its directory",
    errno.EEXIST: MOVE_AWAY,
    errno.ENOTDIR: MOVE_AWAY,
    errno.EROFS: "make that file system writable, or choose another base directory with --base-dir",
}


@contextmanager
def os_errors(place: object) -> Iterator[None]:
    """Turn an error of the operating system into a ConfigError that names *place*."""
    try:
        yield
    except OSError as error:
        hint = WHAT_TO_DO.get(error.errno or 0, "")
        raise ConfigError(f"{place}: {error.strerror or error}", hint=hint) from error


def base_directory(base_dir: Directory = None) -> Path:
    """The absolute base directory: *base_dir*, else what the variable says, else the default."""
    chosen = expanduser(
        base_dir or os.environ.get(BASE_DIR_VARIABLE) or "~/.outreach-agent"
    )
    if chosen.startswith("~"):
        raise ConfigError(
            f"{chosen}: no such home directory", hint="set HOME, or give --base-dir"
        )
    with os_errors(chosen):  # a relative one, in a working directory that is gone
        return Path(abspath(chosen))


def is_inside(path: Path, base: Path) -> bool:
    """Whether *path* is the base directory or leads to something in it."""
    return Path(realpath(path)).is_relative_to(realpath(base))


def tighten(base: Path) -> None:
    """Let no other user at what is ours in *base*; the mode of nothing else is ever changed."""
    if sys.platform == "win32":
        return
    with os_errors(base):
        paths = (base, *chain(*map(base.glob, OURS)))
    for path in paths:
        with suppress(
            OSError
        ):  # it is just removed, or its file system cannot be written
            found = path.stat()
            mode = stat.S_IMODE(found.st_mode)
            ours = found.st_uid == os.geteuid() and (isfile(path) or isdir(path))
            if (
                ours
                and mode & 0o077
                and not mode & stat.S_ISVTX
                and is_inside(path, base)
            ):
                path.chmod(mode & 0o700)
                logger.warning(
                    "%s was open to other users (mode %04o); tightened", path, mode
                )


def make_private(path: Path, mode: int) -> None:
    """Set the mode of what was just made; what root makes belongs to its directory's owner."""
    if sys.platform != "win32":
        path.chmod(mode)
        if os.geteuid() == 0:
            owner = path.parent.stat()
            os.chown(path, owner.st_uid, owner.st_gid)


def make_directory(path: Path) -> None:
    if not isdir(path):
        make_directory(path.parent)
        with os_errors(path):
            path.mkdir(0o700, exist_ok=True)  # others may make it at the same moment
            make_private(path, 0o700)


def open_private(path: str, flags: int) -> int:
    """The opener of open(): regular files only; a new one is this user's alone from the start."""
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ConfigError(f"{path}: not a regular file", hint=MOVE_AWAY)
        return os.open(path, flags, 0o600)
    descriptor = os.open(path, flags, 0o600)
    make_private(Path(path), 0o600)
    return descriptor


def read_file(path: Path) -> bytes | None:
    with (
        os_errors(path),
        suppress(FileNotFoundError),
        open(path, "rb", opener=open_private) as f,
    ):
        return f.read()
    return None


def write_file(path: Path, content: bytes) -> None:
    """Replace *path* by *content*, atomically and durably. The caller holds the lock."""
    path = Path(realpath(path))  # a link stays, what it leads to is replaced
    temporary = path.parent / TEMPORARY_FILE
    with os_errors(path):
        temporary.unlink(missing_ok=True)  # of a write that failed or was killed
        with open(temporary, "xb", opener=open_private) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        if sys.platform != "win32":  # where a directory cannot be opened
            descriptor = os.open(path.parent, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)


@contextmanager
def locked(base: Path) -> Iterator[None]:
    """Hold the lock of a base directory, which the system frees when the file is closed."""
    path = base / LOCK_FILE
    with os_errors(path), open(path, "ab", opener=open_private) as file:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)  # waits for 10 seconds
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


# Vault: how secrets are protected ====================================================

SECRET_MARK = "__encrypted__:"
MACHINE_KEY_BYTES = 32
KDF_SALT = b"ingot-v1-static-salt"
KDF_ITERATIONS = (
    600_000  # OWASP Password Storage Cheat Sheet (2023) for PBKDF2-HMAC-SHA256
)

derived: dict[bytes, Fernet] = {}  # by machine key
deriving = (
    threading.RLock()
)  # reentrant: an agent's signal handler may derive in the middle of it


def import_fernet() -> type[Fernet]:
    """The class Fernet; ConfigError says what to do if cryptography cannot be imported."""
    try:
        from cryptography.fernet import Fernet
    except Exception as error:  # whatever is broken in it
        script = shlex.quote(__file__)
        raise ConfigError(
            f"cannot import the package cryptography ({error}); make an environment that has it:"
            " python3 -m venv .venv && .venv/bin/pip install 'cryptography>=44', and start the"
            f" program with .venv/bin/python {script}; or with: uv run {script}"
        ) from None
    return Fernet


def derive(machine_key: bytes) -> Fernet:
    """The Fernet of a machine key, derived once in a process however many threads ask for it."""
    with deriving:
        if machine_key not in derived:
            fernet = import_fernet()
            from cryptography.hazmat.primitives.hashes import SHA256
            from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC

            kdf = PBKDF2HMAC(
                SHA256(), length=32, salt=KDF_SALT, iterations=KDF_ITERATIONS
            )
            derived[machine_key] = fernet(urlsafe_b64encode(kdf.derive(machine_key)))
        return derived[machine_key]


class Vault:
    """The machine keys of a base directory: each may open a token, the first one seals."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.path = base / KEY_FILE
        self.next_path = base / NEXT_KEY_FILE
        self.keys: dict[Path, bytes] = {}
        # The next one first: it becomes the machine key, and read afterwards, it would be gone.
        for path in (self.next_path, self.path):
            key = read_file(path)
            if key is not None and len(key) != MACHINE_KEY_BYTES:
                problem = (
                    f"{path}: expected {MACHINE_KEY_BYTES} bytes, found {len(key)}"
                )
                raise ConfigError(
                    problem, hint=f"restore it from a copy, or {MOVE_AWAY}"
                )
            if key:
                self.keys[path] = key

    def open(self, token: str) -> str | None:
        """The text in a token, with or without its mark; None if no key opens it."""
        for fernet in map(derive, self.keys.values()):
            from cryptography.fernet import InvalidToken

            with suppress(
                InvalidToken, ValueError
            ):  # ValueError: not ASCII, or not text inside
                data = fernet.decrypt(token.removeprefix(SECRET_MARK))
                text = data.decode("utf-8", "surrogatepass")
                remember(text)
                return text
        return None

    def unreadable(self, place: str) -> ConfigError:
        how = "does not fit" if self.keys else "is missing"
        problem = f"{place} cannot be decrypted: the machine key {self.path} {how}"
        return ConfigError(
            problem, hint=f"restore it, or run {command(self.base, 'setup')}"
        )

    def seal(self, plaintext: str) -> str:
        remember(plaintext)
        return (
            self.fernet()
            .encrypt(plaintext.encode("utf-8", "surrogatepass"))
            .decode("ascii")
        )

    def fernet(self) -> Fernet:
        """What encrypts. The caller, of seal() too, holds the lock: a machine key may be made."""
        if not self.keys:
            import_fernet()  # or a machine key would be made that nothing can use
            self.make_key(self.path)
        return derive(next(iter(self.keys.values())))

    def make_key(self, path: Path) -> None:
        """Make a key where there is none; this vault seals with it from now on."""
        if path not in self.keys:
            machine_key = os.urandom(MACHINE_KEY_BYTES)
            write_file(path, machine_key)
            self.keys = {path: machine_key, **self.keys}
            logger.info("made the machine key %s", path)


def get_fernet(base_dir: Directory = None) -> Fernet:
    """Return the Fernet of the machine key in *base_dir*, which is made if there is none.

    Raises ConfigError if that of the stored secrets is damaged, missing or another one.
    """
    with ConfigManager(base_dir).edit() as document:
        document.refuse_other_key()
        return document.vault.fernet()


def encrypt_secret(plaintext: str, base_dir: Directory = None) -> str:
    """Encrypt any text with the machine key in *base_dir*, which is made if there is none.

    Returns a bare Fernet token, without the mark of config.json; raises as get_fernet does.
    """
    with ConfigManager(base_dir).edit() as document:
        document.refuse_other_key()
        return document.vault.seal(plaintext)


def decrypt_secret(token: str, base_dir: Directory = None) -> str:
    """Return the text in a token of encrypt_secret. Never makes a machine key.

    Raises ConfigError if there is no machine key in *base_dir* or the token was not made with it.
    """
    vault = Vault(base_directory(base_dir))
    plaintext = vault.open(token)
    if plaintext is None:
        raise vault.unreadable("the token")
    return plaintext


# Document: config.json in memory =====================================================


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file, with no name twice and no NaN; without a file, the defaults."""

    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        built: dict[str, Any] = {}
        for name, part in pairs:
            if name in built:
                raise ValueError(f"{describe(name)} comes twice in one object")
            built[name] = part
        return built

    def number(text: str) -> float:
        if not isfinite(float(text)):
            raise ValueError(f"{text} is not a JSON number")
        return float(text)

    data = read_file(path)
    if data is None:
        return asdict(
            AppConfig(agents={})
        )  # a model that stands there counts as chosen
    strict = partial(
        json.loads, object_pairs_hook=build, parse_float=number, parse_constant=number
    )
    try:
        content = strict(data.decode("utf-8-sig"))
        if isinstance(content, dict):
            return content
        raise ValueError(f"expected an object, found {describe(content)}")
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"{path}: {error}", hint=f"fix it in an editor, or {MOVE_AWAY}"
        ) from None


@dataclass
class Document:
    """The values of config.json: checked and in plain text outside, sealed and JSON inside."""

    content: dict[str, Any]
    vault: Vault
    keep_old: bool = False  # whether the file is to be copied before it is written

    def dump(self) -> bytes:
        text = json.dumps(self.content, indent=2, ensure_ascii=False)
        # What UTF-8 has no form for, a lone surrogate, is kept as the escape that it came from.
        return f"{text}\n".encode("utf-8", "backslashreplace")

    def settings(self) -> dict[str, Setting]:
        agents = self.content.get("agents")
        agents = agents if isinstance(agents, dict) else {}
        rows = [
            agent_setting(name)
            for name, agent in agents.items()
            if isinstance(agent, dict)
        ]
        return SETTINGS | {row.name: row for row in rows}

    def holder(self, row: Setting, make: bool = False) -> Any:
        """The object that a setting stands in: by default an empty one, which *make* keeps."""
        node: Any = self.content
        for depth, name in enumerate(row.path[:-1], 1):
            node = node.setdefault(name, {}) if make else node.get(name, {})
            if not isinstance(node, dict):
                place = ".".join(row.path[:depth])
                problem = f"{place}: expected an object, found {describe(node)}"
                raise ConfigError(problem, hint=f"edit {self.vault.base / CONFIG_FILE}")
        return node

    def stored(self, row: Setting) -> Any:
        """What stands in the file for a setting, trimmed; None if there is nothing."""
        stored = self.holder(row).get(row.path[-1])
        return (trim(stored) or None) if isinstance(stored, str) else stored

    def value(self, row: Setting) -> Value:
        try:
            stored = self.stored(row)
        except ConfigError as error:
            return Value(row.default, "invalid", error)
        if stored is None:
            return Value(row.default, "default" if row.default else "missing")
        text = stored
        if row.secret and f"{stored}".startswith(SECRET_MARK):
            text = self.vault.open(stored)
        if text is None:
            return Value(None, "unreadable", self.vault.unreadable(row.name))
        try:
            value = row.check(text)
        except ValueError as error:
            hint = f"fix it with {command(self.vault.base, 'set', row.name)}"
            return Value(
                row.default,
                "invalid",
                ConfigError(row.problem(error, stored), hint=hint),
            )
        if (
            value == row.default and not row.is_model
        ):  # a new file has every other default
            return Value(value, "default")
        return Value(value, "configured")

    def values(self) -> dict[Setting, Value]:
        return {row: self.value(row) for row in self.settings().values()}

    def put(self, row: Setting, value: Any) -> None:
        """Store a checked value, a secret sealed; the token of one that did not change stays."""
        holder, key = self.holder(row, make=True), row.path[-1]
        if row.secret:
            self.refuse_other_key()
            token = self.secrets(sealed=True).get(row)
            if token and self.vault.open(token) == value:
                return
            value = value and SECRET_MARK + self.vault.seal(value)
        holder[key] = value

    def put_for_account(self, row: Setting, value: Any) -> Setting | None:
        """Store a value, for the other mail server too unless it has its own; give that setting."""
        twin = SETTINGS.get(row.twin)
        if twin and self.value(twin).value not in (self.value(row).value or "", ""):
            twin = None
        for one in filter(None, (row, twin)):
            self.put(one, value)
        return twin

    def secrets(self, sealed: bool) -> dict[Setting, str]:
        """What stands in the file for secrets: the tokens, or what was written there by hand."""
        found = {}
        for row in SECRETS:
            with suppress(ConfigError):  # value() speaks of it
                text = self.stored(row)
                if isinstance(text, str) and text.startswith(SECRET_MARK) == sealed:
                    found[row] = text
        return found

    def unreadable(self) -> list[Setting]:
        tokens = self.secrets(sealed=True)
        return [row for row, token in tokens.items() if self.vault.open(token) is None]

    def refuse_other_key(self) -> None:
        """Raise if no stored secret can be opened: none may be sealed with another key."""
        tokens = self.secrets(sealed=True)
        if tokens and len(self.unreadable()) == len(tokens):
            raise self.vault.unreadable("the stored secrets")

    def seal_anew(self, node: Any, place: str = "") -> Any:
        """*node*, every secret in it sealed with the next key; what no key opens stays."""
        if isinstance(node, dict):
            return {
                name: self.seal_anew(part, f"{place}.{name}")
                for name, part in node.items()
            }
        if isinstance(node, list):
            return [self.seal_anew(part, place) for part in node]
        if isinstance(node, str) and trim(node).startswith(SECRET_MARK):
            text = self.vault.open(trim(node))
            if text is not None:
                return SECRET_MARK + self.vault.seal(text)
            logger.warning("%s cannot be decrypted; it stays as it is", place[1:])
        return node


# ConfigManager: the base directory, where documents are read and changed =============


class ConfigManager:
    """Reads and writes the configuration in one base directory.

    *base_dir* is by default what JOB_HUNTER_BASE_DIR names, or ~/.outreach-agent. The attributes
    `base_dir` and `config_path` are the absolute paths of it and of the configuration file. Making
    a manager touches no file. Methods raise ConfigError for what cannot be read, used or written.
    """

    warned = False  # of secrets in plain text

    def __init__(self, base_dir: Directory = None) -> None:
        self.base_dir = base_directory(base_dir)
        self.config_path = self.base_dir / CONFIG_FILE
        self.command = partial(command, self.base_dir)

    def ensure_dirs(self) -> None:
        """Make the base directory and those of logs, resumes and venues, for this user alone."""
        make_directory(self.base_dir)
        for name in ("log_dir", "resume_dir", "venues_dir"):
            make_directory(self.place(name))

    def get_db_path(self) -> Path:
        """Return the absolute path of the agents' database: `db_path`, or the default place."""
        return self.place("db_path")

    def load(self) -> AppConfig:
        """Return the configuration, secrets in plain text; the defaults if there is no file.

        Creates nothing. Raises ConfigError with every problem of the file, each with its place.
        """
        values = self.read().values()
        refuse(values.values())
        config = AppConfig()
        for row, value in values.items():
            if row.is_model:
                config.agents[row.path[1]] = AgentConfig(value.value)
            else:
                part = getattr(config, row.path[0]) if row.path[1:] else config
                setattr(part, row.path[-1], copy(value.value))
        vars(config)["loaded"] = (realpath(self.base_dir), values)
        return config

    def load_or_create(self) -> AppConfig:
        """Return the configuration as load() does; store the defaults if there is no file."""
        config = self.load()
        if not exists(self.config_path):
            self.save(config)
        return config

    def save(self, config: AppConfig) -> None:
        """Store *config*, its secrets encrypted.

        Of a configuration that load() gave, only what was changed since is written, so that
        nothing is lost that another process wrote meanwhile. Keys of the file that this version
        does not know stay. Raises ConfigError with every invalid value, and then writes nothing.
        """
        values = Document(asdict(config), Vault(self.base_dir)).values()
        refuse(values.values())
        here = realpath(self.base_dir)
        there, loaded = vars(config)["loaded"]
        with self.edit() as document:
            known = loaded if there == here and exists(self.config_path) else {}
            before = {row.path: value.value for row, value in known.items()}
            for row, value in values.items():
                if before.get(row.path, ...) != value.value:
                    document.put(row, value.value)
            for row in known:
                if row.name not in SETTINGS and row.path[1] not in config.agents:
                    document.content.get("agents", {}).pop(row.path[1], None)
        vars(config)["loaded"] = (here, values)

    def get(self, name: str) -> Any:
        """Return one value by its dotted name, such as "smtp.password"; only that need be valid."""
        value = self.read().value(self.find(name))
        refuse([value])
        return copy(value.value)

    def set(self, name: str, value: Any) -> None:
        """Check one value and store it at once; text is taken for a number or a list too.

        Raises ConfigError for an unknown name (with the nearest) and for an invalid value. A
        login of one mail server is set for that one alone, unlike by the command.
        """
        row = self.find(name)
        try:
            checked = (
                row.parse(value)
                if value and isinstance(value, str)
                else row.check(value)
            )
        except ValueError as error:
            raise ConfigError(row.problem(error, value)) from None
        with self.edit() as document:
            document.put(row, checked)

    # What follows serves the commands below and is no promise to other programs.

    def place(self, name: str) -> Path:
        """The absolute path that a setting stands for, ~ expanded, relative to the base one."""
        return Path(
            abspath(self.base_dir / expanduser(self.get(name) or SETTINGS[name].place))
        )

    def log_path(self) -> Path:
        """The log file of today, which can be told even if the configuration cannot be read."""
        try:
            directory = self.place("log_dir")
        except ConfigError:
            directory = self.base_dir / SETTINGS["log_dir"].place
        return directory / time.strftime("run-%Y-%m-%d.log")

    def find(self, name: str) -> Setting:
        """The row of the table with this name; if there is none, the error names the nearest."""
        rows = self.read().settings()
        if name not in rows:
            asked, equals, value = name.partition("=")  # which may be a secret
            (nearest,) = get_close_matches(asked.lower(), rows, n=1, cutoff=0)
            hint = f"did you mean {nearest}?"
            if equals:
                words = [nearest] if rows[nearest].secret else [nearest, value]
                hint = f"name and value are two words: {self.command('set', *words)}"
            raise ConfigError(
                f"there is no setting {describe(asked)}", hint=hint, status=2
            )
        return rows[name]

    def read(self) -> Document:
        """The document, and the keys that open it, of one moment: readers take no lock."""
        vault = Vault(self.base_dir)
        document = Document(read_object(self.config_path), vault)
        if vault.keys != Vault(self.base_dir).keys:  # a rotation went on meanwhile
            return self.read()
        tighten(self.base_dir)
        plain = document.secrets(sealed=False)
        for text in plain.values():
            remember(text)
        if plain and not self.warned:
            self.warned = True
            names = ", ".join(row.name for row in plain)
            logger.warning("%s: in plain text until the next write", names)
        return document

    @contextmanager
    def edit(self) -> Iterator[Document]:
        """What the block changes is written, every secret sealed, a begun rotation completed."""
        make_directory(self.base_dir)
        with locked(self.base_dir):
            document = self.read()
            before = document.dump()
            yield document
            for row, text in document.secrets(sealed=False).items():
                document.put(row, text)
            vault = document.vault
            rotating = vault.next_path in vault.keys
            if rotating:
                document.content = document.seal_anew(document.content)
            after = document.dump()
            if after != before:
                if document.keep_old:
                    self.back_up()
                write_file(self.config_path, after)
                logger.info("stored the configuration %s", self.config_path)
            if rotating:  # by now the next key opens every secret
                with os_errors(vault.next_path):
                    os.replace(vault.next_path, vault.path)

    def back_up(self) -> None:
        """Keep a copy of the file, named after this second, or the next that has no copy yet."""
        for t in count(time.time()):
            path = self.base_dir / time.strftime(
                "config.json.%Y%m%d-%H%M%S.bak", time.localtime(t)
            )
            if not exists(path):
                break
        write_file(path, read_file(self.config_path) or b"")
        logger.warning("the old configuration is kept as %s", path)


# Masking and logging =================================================================

LOG_BYTES = 5_000_000
LOG_FILES = 5
ASTERISKS = "********"
SHORTEST_MASKED = 4  # characters: to mask less would garble ordinary words
LAST_FOUR_FROM = (
    20  # characters: the last four of a shorter secret would give too much of it away
)

#: Every secret that was seen, as others may print it; the longest first, so that no tail is left.
masks: list[str] = []


def remember(secret: str) -> None:
    """From now on *secret* leaves the program only as asterisks."""
    if len(secret.strip()) < SHORTEST_MASKED or secret in masks:
        return
    data = secret.encode("utf-8", "surrogatepass")
    url = (quote(data), quote(data, safe=""), quote_plus(data))
    written = map(repr, (secret, data, *url, b64encode(data), urlsafe_b64encode(data)))
    quoted = (*written, json.dumps(secret), json.dumps(secret, ensure_ascii=False))
    # Without the quotes, and the b before those of bytes.
    forms = {secret, *masks, *(form.removeprefix("b")[1:-1] for form in quoted)}
    masks[:] = sorted(forms, key=len, reverse=True)


def hide(text: str) -> str:
    for form in [*masks]:  # which another thread may change
        text = text.replace(form, ASTERISKS)
    return text


def masked(value: Any) -> Any:
    """*value* as JSON can hold it, every known secret in its texts masked."""
    if isinstance(value, Mapping):
        return {masked(str(name)): masked(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [masked(part) for part in value]
    if value is None or (isinstance(value, (int, float)) and isfinite(value)):
        return value
    return hide(str(value))


ORDINARY = {
    *vars(logging.makeLogRecord({})),
    "message",
    "asctime",
}  # what every record has


class RunLog(logging.Handler):
    """The log file of the day, which is opened anew for every line: others may write it too."""

    failed = False  # to say so once is enough

    def __init__(self, base: Path, level: int) -> None:
        super().__init__(level)
        self.base = base
        self.directory = base / SETTINGS["log_dir"].place

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "timestamp": datetime.fromtimestamp(record.created)
            .astimezone()
            .isoformat(),
            "level": record.levelname,
            "logger": masked(record.name),
            "event": masked(record.getMessage()),
        }
        if record.exc_info:
            line["exception"] = masked(
                logging.Formatter().formatException(record.exc_info)
            )
        extra = {
            name: value for name, value in vars(record).items() if name not in ORDINARY
        }
        # Left of extra for the order, right of it so that extra replaces nothing.
        return json.dumps(line | masked(extra) | line, ensure_ascii=False)

    def emit(self, record: logging.LogRecord) -> None:
        path = self.directory / time.strftime("run-%Y-%m-%d.log")
        try:
            line = f"{self.format(record)}\n".encode("utf-8", "backslashreplace")
            if not exists(path):
                make_directory(self.directory)
                ours = {*self.directory.glob("run-????-??-??.log*")} - {
                    path
                }  # made meanwhile
                with suppress(OSError):  # another process just does the same
                    for oldest in sorted(ours, key=os.path.getmtime)[: 1 - LOG_FILES]:
                        if is_inside(
                            self.directory, self.base
                        ):  # elsewhere nothing is deleted
                            oldest.unlink()
            # Unbuffered: the line is appended in one piece, and tell() is where it ends.
            with open(path, "ab", buffering=0, opener=open_private) as file:
                file.write(line)
                end = file.tell()
            if end % LOG_BYTES < len(
                line
            ):  # it crossed the limit: just one process wrote it
                os.rename(path, f"{path}.{time.time_ns()}")
            elif end > LOG_BYTES:  # another process is about to rename it: let it
                time.sleep(0.01)
        except Exception as error:
            if not self.failed:
                tell(f"warning: cannot write the log {path}: {error}")
            self.failed = True


class TerminalLog(logging.Handler):
    """Standard error, for a person."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(Exception):  # what cannot be formatted, the log file speaks of
            tell(f"{record.levelname.lower()}: {record.getMessage()}")


def configure_logging(base_dir: Directory = None, verbosity: int = 0) -> None:
    """Send the log of this process to the log file of the day and to standard error.

    The file, `run-YYYY-MM-DD.log` in `log_dir` (by default `logs` in *base_dir*), gets all from
    DEBUG up, a JSON object a line. Standard error gets WARNING and up; with *verbosity* 1 INFO,
    with 2 DEBUG too. Secrets that this process read, encrypted or decrypted are masked in both,
    whichever library logs them. Called again, it replaces what it set up before.
    """
    start_logging(ConfigManager(base_dir), verbosity)


def start_logging(
    manager: ConfigManager, verbosity: int, file_level: int = logging.DEBUG
) -> None:
    for row in SECRETS:  # of a program that was started by run
        remember(trim(os.environ.get(row.variable, "")))
    root = logging.getLogger()
    root.setLevel(logging.DEBUG)
    others = [
        one for one in root.handlers if not isinstance(one, (RunLog, TerminalLog))
    ]
    file = RunLog(manager.base_dir, file_level)
    root.handlers = [*others, file, TerminalLog(logging.WARNING - 10 * verbosity)]
    file.directory = (
        manager.log_path().parent
    )  # last, as reading the configuration may log


def get_logger(name: str) -> logging.Logger:
    """Return the logger *name*; what it says goes where configure_logging says."""
    return logging.getLogger(name)


# Output ==============================================================================
#
# Standard output carries what was asked for: the summary, a value. All else, questions too, is
# standard error. Every line is masked, its control characters are escapes, and it fits the
# encoding. An error is "[Command] what is wrong"; where something can be done about it, "hint:
# what to do" follows. What to run begins as the program was started.


def say(text: str, stream: TextIO | None = None) -> None:
    """Print on standard output, or on another stream; nowhere if the program has none."""
    print(printable(hide(text), stream or sys.stdout), file=stream, flush=True)


def tell(text: str) -> None:
    """Print on standard error; if that is gone, nobody is there to be told."""
    try:
        if sys.stderr:
            say(text, sys.stderr)
    except OSError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), 2
        )  # or Python would try once more to write it


def printable(text: str, stream: TextIO | None) -> str:
    """*text* with what moves the cursor, or *stream* cannot encode, as an escape."""
    shown = (c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return "".join(shown).encode(encoding, "backslashreplace").decode(encoding)


def command(base: Path, *words: str) -> str:
    """What runs this program with *words*, pasted into the same shell, for a base directory."""
    script = sys.argv[0] if realpath(sys.argv[0]) == realpath(__file__) else __file__
    program = [sys.orig_argv[0], script]
    if Path(sys.argv[0]).stem == "job-hunter":
        program = ["job-hunter" if shutil.which("job-hunter") else sys.argv[0]]
    if "UV" in os.environ:  # set by uv run, which chooses the Python
        program = ["uv", "run", script]
    with suppress(ConfigError):  # there may be no default one
        if base == base_directory():
            return shlex.join([*program, *words])
    return shlex.join([*program, "--base-dir", str(base), *words])


def width(text: str) -> int:
    """The number of columns that *text* takes on a terminal: two for some characters, or none."""
    return sum(
        1 + (east_asian_width(c) in "WF") - (category(c) in ("Mn", "Me")) for c in text
    )


def padded(text: str, columns: int) -> str:
    return text + " " * (columns - width(text))


def summary(manager: ConfigManager, values: Values, given: Answers) -> dict[str, Any]:
    """The rows of the summary, and the paths below it; *given* is what setup took now."""
    rows = []
    for row, value in sorted(values.items(), key=lambda item: item[0].rank):
        status = value.status
        if not row.label or (
            row.provider and status == "missing" and not is_needed(row, values)
        ):
            continue
        if (
            row.twin
            and not row.variable
            and value.value == values[SETTINGS[row.twin]].value
        ):
            continue  # IMAP, which says only what SMTP says
        shown = "" if value.error else str(value.value)
        if row.secret and shown:
            shown = ASTERISKS + (shown[-4:] if len(shown) >= LAST_FOUR_FROM else "")
        if status == "configured" and row not in given:
            status = "[already configured]"
        shown = hide(shown)
        rows.append(
            {"name": row.name, "service": row.label, "status": status, "value": shown}
        )
    database = values[SETTINGS["db_path"]].error or manager.get_db_path()
    paths = {
        "configuration": manager.config_path,
        "database": database,
        "log": manager.log_path(),
    }
    return {
        "rows": rows,
        "paths": {name: hide(f"{path}") for name, path in paths.items()},
    }


def print_summary(found: Mapping[str, Any]) -> None:
    """Print the rows in columns, where a value that is too long goes on under itself."""
    rows = [
        ["Service", "Status", "Value"],
        *([*row.values()][1:] for row in found["rows"]),
    ]
    rows = [[printable(c.replace("\n", ", "), sys.stdout) for c in row] for row in rows]
    first, second, third = (
        max(map(width, column)) for column in zip(*rows, strict=True)
    )
    screen = shutil.get_terminal_size(
        (sys.maxsize, 0)
    ).columns  # that much without a terminal
    third = max(10, min(third, screen - first - second - 4))
    rows.insert(1, ["-" * first, "-" * second, "-" * third])
    for row in rows:
        limit = third if width(row[2]) <= max(third, len(row[2])) else third // 2
        for piece in wrap(row[2], limit) or [""]:
            say(f"{padded(row[0], first)}  {padded(row[1], second)}  {piece}".rstrip())
            row[:2] = "", ""
    say("")
    for name, path in found["paths"].items():
        say(f"{name.capitalize()}: ".ljust(15) + path)


# Where answers come from: a person, a pipe, a variable or a file =====================

LONGEST_INPUT = 65_536  # bytes: more than any value has


class Suspended(BaseException):
    """Ctrl-Z, while a question is asked."""


def suspend(*_: object) -> None:
    raise Suspended


def ask(row: Setting, keep: Any = "") -> Any:
    """One answer of a person, checked. Enter gives *keep*, unless that is empty."""
    read = getpass if row.secret else read_visible
    prompt = row.question or f"{row.label or row.name}{' (hidden)' * row.secret}:"
    if keep:
        prompt += f" [{ASTERISKS if row.secret else keep}]".replace("\n", ", ")
    if row.note:
        tell(row.note)
    while True:
        try:
            with handling(suspend, "SIGTSTP"):
                text = trim(read(f"{prompt} "))
            return keep if keep and not text else row.parse(text)
        except ValueError as error:
            tell(f"  Not accepted: {error}.")
        except Suspended:
            tell("")
            os.kill(
                os.getpid(), signal.SIGSTOP
            )  # the terminal is in order; after fg, ask again
        except (EOFError, OSError):
            tell("")
            raise ConfigError(
                "the input ended before the question was answered"
            ) from None


def read_visible(prompt: str) -> str:
    """What is typed, or pasted in several lines, at a visible prompt; with arrow keys if it can."""
    with suppress(ImportError):  # Windows has none
        import readline

        readline.parse_and_bind("set enable-bracketed-paste on")
    # Standard output is for the summary alone, unless it is the terminal: then it can be edited.
    shown = sys.stdout if sys.stdout and sys.stdout.isatty() else sys.stderr
    with redirect_stdout(shown):
        text = input(printable(prompt, shown))
    if sys.platform != "win32":
        # The lines behind the first, of a terminal that does not bracket what is pasted.
        while select([sys.stdin], [], [], 0.05)[0]:
            more = os.read(sys.stdin.fileno(), 4096)
            if not more:
                break
            text += "\n" + more.decode(sys.stdin.encoding, "replace")
    return text


@contextmanager
def handling(handler: Callable[..., None], *names: str) -> Iterator[None]:
    """Handle the signals of these names: those that there are, and that nobody else handles."""
    ours = [
        n
        for n in signal.Signals
        if n.name in names and signal.getsignal(n) is signal.SIG_DFL
    ]
    ours = ours if threading.current_thread() is threading.main_thread() else []
    for number in ours:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def read_limited(stream: Any) -> str:
    """What a file or a pipe holds; ValueError if it is no UTF-8 text or more than any value."""
    content = stream.read(LONGEST_INPUT + 1)
    if len(content) > LONGEST_INPUT:
        raise ValueError(f"expected at most {LONGEST_INPUT:,} bytes")
    return trim(str(content, "utf-8-sig"))


def from_variable(row: Setting) -> Any:
    """The value in the variable of *row*, or in the file that NAME_FILE names; "" if unset."""
    name = f"{row.variable}_FILE"
    file = os.environ.get(name)
    text = trim(os.environ.get(row.variable, ""))
    if text and file:
        raise ValueError(f"{name} is set too; unset one of them")
    if file:
        with (
            os_errors(name),
            open(file, "rb") as opened,
        ):  # its name may be the secret itself
            text = read_limited(opened)
    return row.parse(text) if text or file else ""


def tell_what_models_need(given: Answers) -> None:
    """What chosen models need besides a key that is kept here: once a provider."""
    for name in dict.fromkeys(
        provider_of(value) for row, value in given.items() if row.is_model
    ):
        if PROVIDERS.get(name) is OLLAMA:
            tell("Ensure Ollama is running at localhost:11434")
        elif name not in PROVIDERS:
            tell(f"note: the key of {name} must be in the environment of the agents")


LLM_MENU = """LLM setup:
  1. fully_free (all Ollama)
  2. best_quality (Claude Sonnet for Writer+Research, Haiku for rest)
  3. custom"""


def check_choice(text: str) -> str:
    choice = {"1": "fully_free", "2": "best_quality", "3": "custom"}.get(text, text)
    return check_form(
        "fully_free|best_quality|custom", "a number from 1 to 3, or a name", choice
    )


LLM_CHOICE = Setting(
    ("preset",), "", check_choice, question="Choice:", note=LLM_MENU, rank=2
)


@dataclass
class Setup:
    """Takes what is missing or invalid from a person, or from the environment."""

    manager: ConfigManager
    args: argparse.Namespace
    given: dict[Setting, Any] = field(default_factory=dict)  # this time
    greeted: bool = False

    def models(self, preset: str) -> dict[Setting, str]:
        """The models of a preset, if it is one, and over them those of --model."""
        models = PRESETS.get(preset, {}) | dict(self.args.model)
        return {agent_setting(agent): model for agent, model in models.items()}

    def put(self, document: Document, answers: Answers) -> None:
        for row in document.unreadable():  # makes room for new ones; a copy keeps these
            document.holder(row)[row.path[-1]] = ""
            document.keep_old = True
        for row, answer in answers.items():
            document.put_for_account(row, answer)
        self.given.update(answers)

    def store(self, answers: Answers) -> None:
        with self.manager.edit() as document:
            self.put(document, answers)

    def from_terminal(self) -> None:
        if not self.manager.read().unreadable():
            self.store({})  # encrypts at once what stands in plain text
        for row in sorted([*ASKED, LLM_CHOICE], key=lambda row: row.rank):
            if row is LLM_CHOICE:
                self.ask_for_models()
            else:
                self.ask_for(row)

    def ask_for_models(self) -> None:
        values = self.manager.read().values()
        chosen = {
            row.path[1]: values[row].value for row in MODELS if is_answered(row, values)
        }
        named = {*chosen, *dict(self.args.model)}
        self.store(self.models(self.args.preset))
        if not self.args.preset and (self.args.reconfigure or len(named) < len(MODELS)):
            present = (
                name for name, models in PRESETS.items() if chosen in ({}, models)
            )
            choice = self.question(LLM_CHOICE, next(present, "custom"))
            self.store(self.models(choice))
            if choice == "custom":
                for row in MODELS:
                    self.ask_for(row)
        tell_what_models_need(self.given)

    def ask_for(self, row: Setting) -> None:
        """Ask for a value, if it is wanted after the answers before it."""
        values = self.manager.read().values()
        answered, unused = (
            is_answered(row, values),
            row.provider and not is_needed(row, values),
        )
        if unused or (answered and not self.args.reconfigure):
            return
        keep = values[row].value
        answer = self.question(row, keep)
        answers = {} if answered and answer == keep else {row: answer}
        if row.name == "smtp.username" and keep not in ("", answer):
            answers[SETTINGS["smtp.password"]] = ""  # which is another account's
        self.store(
            answers
        )  # but not what was kept: others may have changed it meanwhile
        self.given[row] = answer

    def question(self, row: Setting, keep: Any) -> Any:
        """Ask; before the first question, say what is needed and what becomes of the answers."""
        if not (sys.stdin and sys.stdin.isatty()):
            hint = f"use setup --non-interactive with {VARIABLES}; or pipe one value into set"
            raise ConfigError("there is no terminal to ask questions at", hint=hint)
        if not self.greeted:
            self.greeted = True
            tell(
                "You need a Gmail account with 2-Step Verification, and an app password for it."
            )
            tell(
                f"Each answer is kept in {self.manager.base_dir} at once: Ctrl-C is safe."
            )
        return ask(row, keep)

    def from_environment(self) -> None:
        """Store what the variables hold in one step, or say all that is wrong and store nothing."""
        with self.manager.edit() as document:
            unset = [row for row in MODELS if document.value(row).status == "default"]
            self.put(
                document,
                dict.fromkeys(unset, DEFAULT_MODEL) | self.models(self.args.preset),
            )
            values = document.values()
            refuse(values[row] for row in MODELS)  # they decide which keys are needed
            problems = list(filter(None, [self.take(row, values) for row in ASKED]))
            if problems:
                hint = f"set them, or NAME_FILE variables; or run {self.manager.command('setup')}"
                raise ConfigError(*problems, hint=hint)
            self.put(document, self.given)
        tell_what_models_need(self.given)

    def take(self, row: Setting, values: Values) -> str:
        """Take a value from its variable, if it is wanted; return what is wrong with it, or ""."""
        needed, answered = is_needed(row, values), is_answered(row, values)
        wanted = self.args.reconfigure or not answered
        try:
            given = from_variable(row)
            if needed and not given and not answered:
                raise ValueError(values[row].error or "not set")
        except (ConfigError, ValueError) as error:
            if wanted and (needed or not row.provider):
                return f"{row.variable}: {error}"
            logger.warning("%s is not used: %s", row.variable, error)
            return ""
        if given and wanted:
            self.given[row] = given
        elif given not in ("", values[row].value):
            logger.warning(
                "%s is not used: another is stored; see --reconfigure", row.variable
            )
        return ""


# check: whether the credentials work =================================================

LONGEST_ANSWER = 8_000_000  # bytes: a page of models, or all that a mail server says
MOST_PAGES = 20
BASE_URL = (
    r"https?://([^\s/@:]+|\[[^\s/@]+\])(:\d+)?(/[^\s@]*)?"  # without user and password
)
THIS_MACHINE = r"https?://(localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1\])(:|/|$)"
#: What a provider says of a request that it refuses, wherever in its JSON.
REASON = r'"(?:message|error|detail)"\s*:\s*"((?:[^"\\]|\\.)+)"'

UNEXPECTED_ANSWER = (
    "gave an unexpected answer ({quote}); try again later, or check {fix}"
)
REFUSED = "refused the name {login.username} or its app password ({quote})"
CORRECT = (
    "correct them with {program} set {name}.username or {program} set {name}.password"
)
#: What goes wrong, and what to do: the first row whose pattern is found in "TITLE ADDRESS ERROR"
#: and, on a line of its own, what was said. ERROR are the classes of the exception and the one
#: behind it. {quote} is the beginning of what was said; the other {words} are attributes of the
#: service. What check itself finds out is a ConfigError, which says what to do.
ADVICE = {
    # Answers of providers; Ollama has no key
    "^(?!Ollama).*://.*\nHTTP (401|400.*(?i:api key))": "refused the key ({quote}); make a new one"
    " at https://{provider.page}, then run {program} set {name}_api_key",
    "^(?!Ollama).*://.*\nHTTP 40[23]": "forbids it ({quote}); check https://{provider.page}",
    "\nHTTP 3": "{quote}, where no key was sent; check {fix}",
    "\nHTTP 407": "is behind a proxy that wants a login ({quote}); check the proxy variables",
    "\nHTTP (429|5)": "gets too many requests, or is out of order ({quote}); try again later",
    "\nHTTP": "has no list of models there ({quote}); check {fix}",
    # The network
    "TimeoutError.*\n": "did not answer in time; check {fix}, or give it longer with --timeout",
    "gaierror.*\n|UnicodeError(?s:.*)idna": "cannot be found; check the network, and {fix}",
    "^Ollama .*ConnectionRefused": "is not running; start it (ollama serve), or check {fix}",
    "ConnectionRefused.*\n": "cannot be reached: the connection is refused; check {fix}",
    r"Connection\w*Error|BrokenPipeError|ServerDisconnected|SSLEOFError|socket error: EOF": "hung"
    " up in the middle; try again later, or check {fix}",
    r"CertVerif.*\n.*mismatch": "has a certificate that is for another host; check {fix}",
    r"CertVerif.*\n.*(self.signed|unable to)": "has a certificate that is from an unknown"
    " authority; if you trust it, name its file in SSL_CERT_FILE",
    r"CertVerif.*\n.*has expired": "has a certificate that has expired; tell whoever runs it, or"
    " check the clock of this machine",
    "SSLCertVerificationError": "has no valid certificate ({quote}); tell whoever runs the server",
    "SSLError.*\n": "does not speak TLS ({quote}); check {fix}",
    # Logins to mail servers: imaplib.IMAP4.error, unless it is in imaplib's own words
    r"IMAP4\.(abort|error.*\n(\* |no CAPA|server not|command|\w+ command err))": UNEXPECTED_ANSWER,
    "not enabled for IMAP": "refused the login ({quote}); switch IMAP on in the account's settings",
    r"\[OVERQUOTA\]": "refused the login ({quote}); make room in the mailbox",
    # It is not the password: other codes of RFC 5530, other replies than 534 and 535
    r"IMAP4\.error.*\n\[(?!AUTHENTICATIONFAILED|\w*ALERT)|SMTPAuthenticationError.*\n"
    r"(?!53[45](?!.*disabled))": "refused the login ({quote}); try again later, or ask its owner",
    r"(?i)^\w+ (\S+\.)?(gmail|google(mail)?)\.com:.*(SMTPAuth|IMAP4\.error)": f"{REFUSED}; switch"
    f" 2-Step Verification on, make one at {APP_PASSWORD_PAGE}, then run"
    " {program} set {name}.password",
    r"SMTPAuthenticationError|IMAP4\.error": f"{REFUSED}; {CORRECT}",
    "^[^/]*UnicodeEncodeError.*\nascii": f"takes only ASCII in name and password; {CORRECT}",
    # What is left
    "SMTPResponseException|HTTPException|OverflowError": UNEXPECTED_ANSWER,
    "SMTPException": "offers no safe login ({quote}), so none was sent; check {fix}",
    "OSError": "cannot be reached ({quote}); check the network, and {fix}",
    "://.*Error'": "gave no list of models; try again, or check {fix}",
    "": "could not be tried ({quote}); the log has the whole error",
}


@dataclass
class Service:
    """What check tries: a line of its output."""

    name: str  # as settings begin with it
    title: str
    address: str  # and what it is set by
    fix: str  # what changes the address
    command: Callable[..., str]  # what a person can run
    tls: Any  # an ssl.SSLContext
    timeout: float

    def why(self, error: BaseException) -> str:
        """What went wrong, and what to do about it."""
        parts = (
            str(x, "utf-8", "replace") if isinstance(x, bytes) else f"{x}"
            for x in error.args
        )
        said = " ".join(hide(" ".join(parts)).splitlines())
        if isinstance(error, ConfigError):
            return said
        text = f"{self.title} {self.address} {type(error).__mro__} {error.__context__!r}\n{said}"
        pattern = next(pattern for pattern in ADVICE if re.search(pattern, text))
        if not pattern:
            logger.error("unexpected failure of a check", exc_info=error)
        return ADVICE[pattern].format(
            quote=said[:150], program=self.command(), **vars(self)
        )


def limited(server: Any, line: bytes) -> bytes:
    """A line of a mail server, whose lines must come to an end some time."""
    server.talk = getattr(server, "talk", 0) + len(line)
    if server.talk > LONGEST_ANSWER:
        raise OverflowError("too long an answer")
    return line


@dataclass
class MailServer(Service):
    login: SmtpConfig | ImapConfig

    def attempt(self) -> str:
        """Give what was proved, or raise."""
        login = self.login
        remember(
            f"\0{login.username}\0{login.password}"
        )  # as AUTH PLAIN sends it, in base64
        if not (login.username and login.password):
            needed = "the Gmail address and the Gmail App Password"
            raise ConfigError(f"needs {needed}; run {self.command('setup')}")
        getattr(self, self.name)(login)  # smtp or imap, below
        return f"logged in as {login.username}"

    def smtp(self, login: SmtpConfig) -> None:
        import smtplib

        tls_first = login.port == 465

        class Server(smtplib.SMTP_SSL if tls_first else smtplib.SMTP):  # type: ignore[misc]
            def getreply(self) -> Any:
                self.file: Any
                if not self.file:
                    self.file = self.sock.makefile("rb")
                    read = self.file.readline
                    self.file.readline = lambda size: limited(self, read(size))
                return super().getreply()

        options = {"context": self.tls} if tls_first else {}
        # With an address it need not look up the name of this machine.
        server = Server(
            login.host, login.port, "[127.0.0.1]", timeout=self.timeout, **options
        )
        with closing(server):
            if not tls_first:
                server.starttls(context=self.tls)
            server.ehlo_or_helo_if_needed()
            if "PLAIN" in server.esmtp_features.get(
                "auth", ""
            ):  # or a refused one is tried again
                server.esmtp_features["auth"] = "PLAIN"
            server.login(login.username, login.password)

    def imap(self, login: ImapConfig) -> None:
        import imaplib

        class Server(imaplib.IMAP4_SSL):
            def readline(self) -> bytes:
                return limited(self, super().readline())

        server = Server(
            login.host, login.port, ssl_context=self.tls, timeout=self.timeout
        )
        with server.socket():
            offered = " ".join(server.capabilities)
            if re.search("LOGINDISABLED|^(?!.*AUTH=PLAIN).*OAUTH", offered):
                raise ConfigError(
                    f"takes no password login ({offered}); check {self.fix}"
                )
            server.login(login.username, login.password)


@dataclass
class Models(Service):
    """A provider, which is asked for the models that it offers."""

    provider: Provider
    url: str
    key: str
    used: dict[str, list[str]]  # by model: the agents that use it

    def attempt(self) -> str:
        if self.provider.page and not self.key:
            raise ConfigError(
                f"needs the {self.title} API key; run {self.command('setup')}"
            )
        offered, problems = self.offered(), []
        for model, agents in self.used.items():
            wanted = model.split("/", 1)[-1].removesuffix(":latest")
            if wanted in offered:
                continue
            problem = f"does not offer {wanted} ({', '.join(agents)})"
            # Without its date, or another one of that day would be near.
            nearest = get_close_matches(
                re.sub(r"-\d{4}.*", "", wanted), offered, n=1, cutoff=0.0
            )
            if self.provider is OLLAMA:
                problem += f"; run: ollama pull {shlex.quote(wanted)}"
            elif nearest:
                other = f"{provider_of(model)}/{nearest[0]}"
                run = (
                    self.command("set", agent_setting(agent).name, other)
                    for agent in agents
                )
                problem += f"; the nearest is {nearest[0]}: run {' && '.join(run)}"
            problems.append(problem)
        if problems:
            raise ConfigError("; and ".join(problems))
        return f"offers all configured models ({', '.join(self.used)})"

    def offered(self) -> list[str]:
        if not re.fullmatch(BASE_URL, self.url):
            raise ConfigError(
                f"needs an address like {self.provider.url}, without a login"
            )
        if self.key and not re.match(f"https:|{THIS_MACHINE}", self.url):
            raise ConfigError(
                "is sent no key over plain http; set an address with https"
            )
        names: list[str] = []
        page = first = self.url + self.provider.path
        for _ in range(MOST_PAGES):
            answer = json.loads(self.fetch(page))
            for item in answer["models" if self.provider is OLLAMA else "data"]:
                name = item.get("id") or item["name"]
                names.append(name.removeprefix("models/").removesuffix(":latest"))
            if not answer.get("has_more"):
                break
            page = f"{first}&after_id={answer['last_id']}"
        return names

    def fetch(self, url: str) -> bytes:
        from http.client import HTTPException
        from urllib.request import (
            HTTPHandler,
            HTTPSHandler,
            OpenerDirector,
            ProxyHandler,
            Request,
        )

        headers = {
            "User-Agent": f"job_hunter/{__version__}",
            "anthropic-version": "2023-06-01",
        }
        asked = Request(url, headers=headers)  # noqa: S310
        if self.key:
            asked.add_header(*self.provider.key_header.format(self.key).split(": "))
        proxy = ProxyHandler({} if re.match(THIS_MACHINE, url) else None)
        opener = (
            OpenerDirector()
        )  # without what follows redirects: a key goes to nobody else
        for handler in (proxy, HTTPHandler(), HTTPSHandler(context=self.tls)):
            opener.add_handler(handler)
        with opener.open(asked, timeout=self.timeout) as answer:
            content: bytes = answer.read(LONGEST_ANSWER)
        if answer.status == 200:
            return content
        said = re.findall(REASON, content.decode("utf-8", "replace"))
        if answer.headers["Location"]:
            said = ["redirects to", answer.headers["Location"]]
        raise HTTPException(f"HTTP {answer.status}", *said)


def services(manager: ConfigManager, timeout: float) -> Iterator[MailServer | Models]:
    """The services that the configuration uses; says which models it cannot ask for."""
    import ssl

    config, tls = manager.load(), ssl.create_default_context()
    file = os.environ.get("SSL_CERT_FILE")
    if file:
        with os_errors(
            f"cannot use SSL_CERT_FILE={file} as a file of certificates (PEM)"
        ):
            tls.load_verify_locations(file)
    shared = manager.command, tls, timeout
    ports = {
        "smtp": " (465: TLS from the first byte, other ports: STARTTLS)",
        "imap": "",
    }
    for name, about in ports.items():
        login = getattr(config, name)
        address, fix = (
            f"{login.host}:{login.port}",
            f"{name}.host and {name}.port{about}",
        )
        yield MailServer(name, name.upper(), address, fix, *shared, login)
    used: Any = defaultdict(
        partial(defaultdict, list)
    )  # by provider and model: the agents
    for agent, part in config.agents.items():
        used[provider_of(part.model).removesuffix("_chat")][part.model].append(agent)
    for name, models in used.items():
        provider = PROVIDERS.get(name)
        if not provider:
            for model in models:
                say(
                    f"skipped {model}: its key must be in the environment of the agents"
                )
            continue
        ends = ("API_BASE", "BASE_URL", "HOST")[: 3 if provider is OLLAMA else 2]
        variables = [f"{name.upper()}_{end}" for end in ends]
        variable = next(filter(os.environ.get, variables), variables[0])
        url = (os.environ.get(variable) or provider.url).rstrip("/")
        if "://" not in url:  # OLLAMA_HOST may be a host alone
            url = f"http://{url}" if ":" in url else f"http://{url}:11434"
        address, fix = f"{url} ({variable})", f"{variable} and the proxy variables"
        key = getattr(config, f"{name}_api_key", "")
        yield Models(
            name, provider.title, address, fix, *shared, provider, url, key, models
        )


def cmd_check(args: argparse.Namespace, manager: ConfigManager) -> None:
    """Prove that the credentials work: log in to the mail servers, ask for the models.

    No mail is sent and no token spent. Exit status 1 if any fails. Other base URLs are set as
    for LiteLLM (OPENAI_API_BASE, …); proxy variables and SSL_CERT_FILE are honoured.
    """
    # Logins in URLs, such as HTTPS_PROXY=http://user:password@host, are masked as well.
    login_in_url = r"(?m)(?:^|/)([^\s/@]*:([^\s/]+))@|//([^\s/@:]+)@"
    for found in re.findall(login_in_url, "\n".join(os.environ.values())):
        for secret in (*found, *map(unquote, found)):
            remember(secret)
    waiting, failed = [*services(manager, args.timeout)], []
    finished: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def attempt(service: MailServer | Models) -> None:
        try:
            finished.put((service, service.attempt()))
        except Exception as error:
            finished.put((service, error))

    for service in waiting:
        threading.Thread(target=attempt, args=[service], daemon=True).start()
    deadline = time.monotonic() + args.timeout
    while waiting:
        service, result = waiting[0], TimeoutError()
        with suppress(queue.Empty):  # when time is up
            service, result = finished.get(
                timeout=max(0.0, deadline - time.monotonic())
            )
        if service not in waiting:
            continue  # it was given up, and answers late
        waiting.remove(service)
        where = f"{service.title} {service.address}"
        if isinstance(result, Exception):
            failed.append(service.title)
            say(f"failed  {where}: {service.why(result)}")
        else:
            say(f"ok      {where}: {result}")
    if failed:
        raise ConfigError(f"failed: {', '.join(failed)}")


# Commands, and the program that runs them ============================================


def cmd_setup(args: argparse.Namespace, manager: ConfigManager) -> None:
    """Ask for what is missing and store it encrypted; then print a summary."""
    import_fernet()  # if the package is missing, that is said before the first question
    manager.ensure_dirs()
    before = manager.read()
    for row in before.unreadable():
        logger.warning(
            "%s; setup goes on without it", before.vault.unreadable(row.label)
        )
    setup = Setup(manager, args)
    if args.non_interactive:
        setup.from_environment()
    else:
        setup.from_terminal()
    after = manager.read().values()
    if not after[SETTINGS["mailing_address"]].value:
        logger.warning(
            "MAILING_ADDRESS is not set; CAN-SPAM requires a physical mailing address"
        )
    print_summary(summary(manager, after, setup.given))
    refuse(after.values())  # of what setup does not ask for
    tell(f"\nNext: {manager.command('check')}")


def cmd_show(args: argparse.Namespace, manager: ConfigManager) -> None:
    """Print the summary, changing nothing; exit status 1 if something is missing or unusable."""
    values = manager.read().values()
    found = summary(manager, values, values)
    if args.json:
        print(json.dumps(found, indent=2))  # noqa: T201  # its values are masked already
    else:
        print_summary(found)
    shown = {row["name"] for row in found["rows"]}
    for row, value in values.items():
        if value.error and row.name in shown:  # named as in the table
            value.error = ConfigError(
                f"{row.label}: {value.error}", hint=value.error.hint
            )
        elif value.status == "missing" and row.name in shown and is_needed(row, values):
            hint = f"run {manager.command('setup')}"
            value.error = ConfigError(f"{row.label}: missing", hint=hint)
    refuse(values.values())


def cmd_get(args: argparse.Namespace, manager: ConfigManager) -> None:
    """Print one value alone: secrets in the clear, what is not text as JSON.

    NAME is dotted, as in config.json: smtp.host, agents.writer.model, anthropic_api_key.
    Exit status 1, and nothing printed, if it is not set.
    """
    row = manager.find(args.name)
    value = str(manager.place(row.name)) if row.place else manager.get(row.name)
    if value == "":
        sys.exit(1)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    print(text)  # noqa: T201  # neither masked nor escaped: it was asked for


def change(manager: ConfigManager, row: Setting, value: Any) -> None:
    with manager.edit() as document:
        twin = document.put_for_account(row, value)
    if twin:
        tell(f"{twin.name} was the same and has been changed too")


def cmd_set(args: argparse.Namespace, manager: ConfigManager) -> None:
    """Check one value as setup would, and store it.

    Without VALUE it is asked for, or read from standard input if that is no terminal; a secret
    only so, at a hidden prompt, since a command line is seen by others:

        pass show gmail | python job_hunter.py set smtp.password
    """
    row = manager.find(args.name)
    text = " ".join(args.value)
    if row.secret and text:
        hint = f"type it at a hidden prompt, or pipe it into: {manager.command('set', row.name)}"
        raise ConfigError(
            "a secret on the command line is seen by others", hint=hint, status=2
        )
    if not text and sys.stdin and sys.stdin.isatty():
        value = ask(row)
    else:
        try:
            with os_errors("standard input"):
                text = text or read_limited(sys.stdin.buffer)
            value = row.parse(text)
        except ValueError as error:
            raise ConfigError(row.problem(error, text)) from None
    change(manager, row, value)
    tell_what_models_need({row: value})


def cmd_unset(args: argparse.Namespace, manager: ConfigManager) -> None:
    """Put the default of one value back."""
    row = manager.find(args.name)
    change(manager, row, row.default)


def cmd_run(args: argparse.Namespace, manager: ConfigManager) -> None:
    """Run COMMAND with the stored credentials in its environment, under the names that setup reads.

    A variable that is set already wins. The exit status is the command's. Write -- before a
    command that begins with -.
    """
    words = args.words[args.words[0] == "--" :]  # without it
    if not "".join(words):
        raise ConfigError("there is no command to run", status=2)
    values = manager.read().values()
    refuse(values.values())
    unset = [row for row in ASKED if not os.environ.get(row.variable)]
    stored = {row.variable: values[row].value for row in unset if values[row].value}
    if args.base_dir:
        stored[BASE_DIR_VARIABLE] = str(manager.base_dir)
    with os_errors(words[0]):
        if sys.platform == "win32":
            import subprocess

            sys.exit(
                subprocess.run(words, env=os.environ | stored, check=False).returncode
            )
        for number in (
            signal.SIGPIPE,
            signal.SIGXFSZ,
        ):  # Python ignores these, and it would too
            signal.signal(number, signal.SIG_DFL)
        os.execvpe(words[0], words, os.environ | stored)  # noqa: S606


def cmd_rotate_key(_: argparse.Namespace, manager: ConfigManager) -> None:
    """Make a new machine key and encrypt every secret with it.

    Wherever it is stopped, the secrets stay readable; run it again to be sure that it was
    done. A copy of the old configuration can only be read with a copy of the old key.
    """
    document = manager.read()
    refuse(map(document.value, document.unreadable()))
    if not document.vault.keys:
        raise ConfigError(
            "there is nothing to rotate", hint=f"run {manager.command('setup')}"
        )
    with (
        manager.edit() as document
    ):  # at any moment, the old or the next key opens a secret
        document.vault.make_key(document.vault.next_path)
    tell("There is a new machine key, and every secret is encrypted with it.")


def agent_model(text: str) -> tuple[str, str]:
    agent, _, model = text.partition("=")
    try:
        if agent not in AGENT_NAMES:
            raise ValueError(
                f"expected AGENT=MODEL, AGENT one of {', '.join(AGENT_NAMES)}"
            )
        return agent, check_model(model)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{error}; for example writer={HAIKU}"
        ) from None


def seconds(text: str) -> float:
    if 0 < float(text) <= 86_400:
        return float(text)
    raise ValueError  # of which argparse makes its message


def make_parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument(
        "--base-dir", metavar="DIR", help="instead of ~/.outreach-agent"
    )
    common.add_argument(
        "-v", "--verbose", action="count", help="say what is done; -vv in detail"
    )
    look = argparse.RawDescriptionHelpFormatter
    options: dict[str, Any] = {
        "formatter_class": look,
        "parents": [common],
        "allow_abbrev": False,
    }
    parser = argparse.ArgumentParser(description=__doc__, **options)
    parser.add_argument(
        "--version", action="version", version=f"job_hunter {__version__}"
    )
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", dest="command"
    )

    def add(name: str, run: Callable[..., None]) -> Any:
        text = str(getdoc(run))
        sub = commands.add_parser(
            name, help=text.partition("\n")[0], description=text, **options
        )
        sub.set_defaults(run=run)
        return sub.add_argument

    arg = add("setup", cmd_setup)
    text = f"ask nothing: take {VARIABLES}, or the files that NAME_FILE variables name"
    arg("--non-interactive", action="store_true", help=text)
    arg("--preset", choices=PRESETS, default="", help="set the models of all agents")
    text = "set the model of one agent, over the preset; may be given several times"
    arg(
        "--model",
        metavar="AGENT=MODEL",
        type=agent_model,
        action="append",
        default=[],
        help=text,
    )
    text = (
        "ask all again, Enter keeping a value; or let variables win over what is stored"
    )
    arg("--reconfigure", action="store_true", help=text)
    add("show", cmd_show)(
        "--json", action="store_true", help="print it as JSON, for programs"
    )
    dotted = {"metavar": "NAME", "help": "a dotted name, such as agents.writer.model"}
    add("get", cmd_get)("name", **dotted)
    arg = add("set", cmd_set)
    arg("name", **dotted)
    arg("value", metavar="VALUE", nargs="*", help="the value, if it is no secret")
    add("unset", cmd_unset)("name", **dotted)
    text = "for all of it, above 0 and up to a day (default: 15)"
    add("check", cmd_check)(
        "--timeout", metavar="SECONDS", type=seconds, default=15.0, help=text
    )
    add("run", cmd_run)(
        "words", metavar="COMMAND", nargs=argparse.PARSER, help=f"gets {VARIABLES}"
    )
    add("rotate-key", cmd_rotate_key)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program with *argv* (by default, the arguments of the process).

    Returns the exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted, 128 + n by signal n.
    """
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    args = argparse.Namespace(command="job-hunter", base_dir=None, verbose=0)
    try:
        try:
            parser = make_parser()
            parser.parse_args(argv, args)
            if "run" not in args:
                parser.print_help(sys.stderr)
                return 2
            manager = ConfigManager(args.base_dir)
            # Reading commands create nothing, but for an unexpected failure.
            reads = args.command in ("show", "get", "check", "run")
            start_logging(
                manager, args.verbose, logging.ERROR if reads else logging.DEBUG
            )
            # A signal ends it as an exception does, with terminal and files in order.
            with handling(
                lambda n, _: sys.exit(128 + n), "SIGTERM", "SIGHUP", "SIGQUIT"
            ):
                args.run(args, manager)
            return 0
        finally:
            print(end="", flush=True)  # noqa: T201  # here, where it is noticed if nobody takes it
    except SystemExit as error:  # --help, --version, wrong usage, or a signal
        return int(error.code or 0)
    except ConfigError as error:
        problem = error
    except KeyboardInterrupt:
        tell("")
        problem = ConfigError("interrupted", status=130)
    except UnicodeEncodeError as e:  # a value that was asked for
        problem = ConfigError(f"{e.encoding} cannot encode it", hint="set PYTHONUTF8=1")
    except (
        OSError
    ) as error:  # files are spoken of by ConfigError: this is standard output
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if isinstance(error, BrokenPipeError):  # the reader has seen what it wanted
            return 1
        problem = ConfigError(f"standard output: {error.strerror or error}")
    except Exception:
        logger.exception("unexpected failure of %s", args.command)
        log = ConfigManager(args.base_dir).log_path()
        problem = ConfigError(f"Something went wrong. Full error logged to {log}")
    finally:
        root.handlers = handlers
        root.setLevel(level)
    tell(f"[{args.command.capitalize()}] " + "\n  ".join(problem.problems))
    if problem.hint:
        tell(f"hint: {problem.hint}")
    return problem.status


if __name__ == "__main__":
    sys.exit(main())
