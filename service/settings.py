"""Settings of the service: from the command line, the environment and a file, in this order."""

from __future__ import annotations

import ipaddress
import json
import os
import tomllib
from collections.abc import Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import pydantic_settings
from limits import parse as parse_rate
from pydantic import BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic.dataclasses import dataclass
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from data.catalog import CatalogError
from data.columns import check_mapping, parse_mapping
from service.job_options import Source
from service.keys import KeyFileError, read_keys

PREFIX = "MODISTE_"
# By these the machine itself reaches the service; no page of another site can have one of them as its address.
LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")
_MOST_SHOWN = 100
# What a settings file says, while it is read.
_file: ContextVar[Mapping[str, Any]] = ContextVar("_file", default={})  # noqa: B039 - never changed


class SettingsError(ValueError):
    """A setting that the service cannot run with; the message names it, what was wanted and what came."""


def _parts(value: Any) -> Any:
    """A list from the environment: JSON, or text with commas."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except ValueError as error:
            raise ValueError(
                f"should be a JSON list, or names with commas between them; {value[:_MOST_SHOWN]!r} came"
            ) from error
    return [part.strip() for part in value.split(",") if part.strip()]


def _nothing(value: Any) -> Any:
    """None for `none` and for an empty text: neither TOML nor an environment has a word for it."""
    return None if isinstance(value, str) and value.strip().lower() in ("", "none") else value


def _mapping(value: Any) -> Any:
    return parse_mapping(value) if isinstance(value, str) else value


Names = Annotated[list[str], NoDecode, BeforeValidator(_parts)]
Optional = BeforeValidator(_nothing)


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class CatalogSource(Source):
    """A catalog that a refresh may read; its map may be the text of `modiste index --map` too."""

    map: Annotated[dict[str, str] | None, BeforeValidator(_mapping)] = None

    @field_validator("map")
    @classmethod
    def _check_map(cls, value: dict[str, str] | None) -> dict[str, str] | None:
        if value is not None:
            check_mapping(value)
        return value


class Settings(BaseSettings):
    """What the service runs with; `Settings.read` collects it."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    gallery: Path = Field(description="Folder of the gallery that is served.")
    catalogs: dict[str, CatalogSource] = Field(
        {},
        description="Catalogs that a refresh job may read, by name; each has a `path`, maybe a `format` and a `map`.",
    )
    encoders: Names = Field(
        [],
        description="Folders of encoders that a migrate job may be asked for, by their last part, besides those that "
        "`modiste encoders` lists.",
    )
    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    keys_file: Annotated[Path | None, Optional] = Field(
        None, description="File of the API keys, written by `modiste key`; without a key only loopback is served."
    )
    trusted_hosts: Names = Field(
        list(LOCAL_HOSTS),
        validate_default=True,
        description="Names in the `Host` header that are answered, besides loopback's and `host` itself; "
        "`*.shop.example` is every name below it, and `*` is any name.",
    )
    cors_origins: Names = Field(
        [],
        description="Origins of web pages that may ask, such as `https://shop.example`; none unless listed.",
    )
    rate_limit: Annotated[str | None, Optional] = Field(
        "100/second", description="Requests that one key may make, such as `600/minute`; `none` is no limit."
    )
    max_body_mb: int = Field(25, ge=1, le=1024, description="Largest body of a request, megabytes.")
    max_photos: int = Field(16, ge=1, le=256, description="Most photos in one request.")
    deadline_s: float = Field(10, gt=0, le=600, description="Seconds after which a request is given up.")
    explain_deadline_s: float = Field(60, gt=0, le=600, description="The same of an explanation, which takes longer.")
    lanes: Annotated[int | None, Optional] = Field(
        None, ge=1, le=256, description="Photos that are encoded at the same time; `none` is the encoder's own number."
    )
    places: int = Field(16, ge=0, le=10_000, description="Requests that may wait; one more is refused.")
    decode_seconds: float = Field(5, gt=0, le=600, description="Seconds that one photo may take to decode.")
    decode_memory_mb: int = Field(1024, ge=256, description="Memory of a process that decodes photos, megabytes.")
    decode_photos: int = Field(5000, ge=1, description="Photos after which a process that decodes them is replaced.")
    image_cache_mb: int = Field(64, ge=0, description="Memory for photos that are ready to be sent, megabytes.")
    freshness_s: float = Field(
        5, ge=0.1, le=3600, description="Seconds after which a commit of another process is seen, at most."
    )
    recall_interval_s: float = Field(
        600, ge=0, description="Seconds between two comparisons of the index with exact search; 0 is never."
    )
    log_format: Literal["json", "text"] = Field("json", description="`json` (a line an event) or `text`.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least level that is logged: `debug`, `info`, `warning` or `error`."
    )

    @classmethod
    def read(cls, path: Path | None = None, **overrides: Any) -> Settings:
        """The settings.

        Args:
            path: A TOML file; None takes the one that MODISTE_CONFIG names, if it does.
            overrides: Settings that win over the environment, which wins over the file. None counts as not given.

        Raises:
            SettingsError: A setting is missing, unknown or not as it should be, or the file cannot be read.
        """
        if path is None and os.environ.get(PREFIX + "CONFIG"):
            path = Path(os.environ[PREFIX + "CONFIG"])
        given = {name: value for name, value in overrides.items() if value is not None}
        content = {} if path is None else _content(path)
        token = _file.set(content)
        try:
            return cls(**given)
        except ValidationError as error:
            raise SettingsError(_sentence(error, given, path)) from error
        except pydantic_settings.SettingsError as error:
            raise SettingsError(
                f"The environment has a setting that is no JSON: {error}. See docs/service.md."
            ) from error
        finally:
            _file.reset(token)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - what pydantic-settings calls it with
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Where settings come from; the first one wins."""
        return init_settings, env_settings, InitSettingsSource(settings_cls, init_kwargs=dict(_file.get()))

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the service."""
        return is_loopback(self.host)

    @field_validator("trusted_hosts")
    @classmethod
    def _complete_hosts(cls, value: list[str], info: Any) -> list[str]:
        for pattern in value:
            name = pattern.removeprefix("*.")
            if pattern != "*" and (not name or "*" in name or "/" in name):
                raise ValueError(
                    f"should be names such as shop.example, *.shop.example for all below one, or *; {pattern!r} came"
                )
        host = str(info.data.get("host", ""))
        # 0.0.0.0 and :: are every address of the machine, and nobody's name.
        own = [] if host in ("", "0.0.0.0", "::") else [host]
        return list(dict.fromkeys(_bracketed(name.lower()) for name in (*value, *LOCAL_HOSTS, *own)))

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, value: list[str]) -> list[str]:
        for origin in value:
            scheme, _, host = origin.partition("://")
            if scheme not in ("http", "https") or not host or set(host) & set("/*"):
                raise ValueError(f"should be origins such as https://shop.example, without a path; {origin!r} came")
        return [origin.lower() for origin in value]

    @field_validator("rate_limit")
    @classmethod
    def _check_rate(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                parse_rate(value)
            except ValueError as error:
                raise ValueError(f"should be a number and a time, such as 100/second; {value!r} came") from error
        return value

    @model_validator(mode="after")
    def _check_keys(self) -> Self:
        try:
            keys = [] if self.keys_file is None else read_keys(self.keys_file)
        except KeyFileError as error:
            raise ValueError(str(error)) from error
        if not keys and not self.is_loopback:
            raise ValueError(
                f"Host {self.host} can be reached from other machines, and Modiste listens on loopback only until "
                f"there is a key: `modiste key add NAME --scope read --keys {self.keys_file or 'FILE'}`, "
                "or leave the host at 127.0.0.1."
            )
        return self


def is_loopback(host: str) -> bool:
    """Whether an address, or a name, is this machine's own and no other can reach it."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def settings_table() -> list[tuple[str, str, str, str]]:
    """Name, environment variable, default and description of every setting, in order."""
    return [
        (name, (PREFIX + name).upper(), _default(field), str(field.description))
        for name, field in Settings.model_fields.items()
    ]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "must be given"
    match field.default:
        case None | [] | {}:
            return "none"
        case list(values):
            return ", ".join(values)
        case value:
            return str(value)


def _bracketed(host: str) -> str:
    """A host as it stands in a `Host` header: an IPv6 address has brackets."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _content(path: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(f"The settings file {path} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"The settings file {path} is no TOML: {error}.") from error
    for name in content:
        if name not in Settings.model_fields:
            known = ", ".join(Settings.model_fields)
            raise SettingsError(f"The settings file {path} has {name!r}, which is no setting. There are: {known}.")
    return content


def _sentence(error: ValidationError, given: Mapping[str, Any], path: Path | None) -> str:
    """The first thing that is wrong: the setting, what was wanted, what came and from where."""
    first = error.errors(include_url=False)[0]
    if not first["loc"]:
        return str(first["msg"]).removeprefix("Value error, ")
    name, *below = map(str, first["loc"])
    variable = (PREFIX + name).upper()
    setting = ".".join([name, *(part for part in below if part != "[key]")])
    if first["type"] == "missing" and not below:
        meaning = Settings.model_fields[name].description
        return f"The setting {setting!r} must be given: {meaning} Set {variable}, or {name} in the settings file."
    if name not in Settings.model_fields:
        return f"There is no setting {name!r}. There are: {', '.join(Settings.model_fields)}."
    if name in given:
        place = "the command line"
    elif any(key.upper() == variable or key.upper().startswith(variable + "__") for key in os.environ):
        place = variable
    else:
        place = str(path)
    return f"The setting {setting!r} {_complaint(first)}, from {place}."


def _complaint(error: Mapping[str, Any]) -> str:
    """What was wanted, and what came."""
    if isinstance(cause := error.get("ctx", {}).get("error"), CatalogError):
        return f"is not as it should be: {str(cause).rstrip('.')}"
    if error["type"] == "value_error":
        return str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "missing":
        return "is missing"
    if error["type"] == "unexpected_keyword_argument":
        return "is no setting of a catalog; those are path, format and map"
    wanted = str(error["msg"]).removeprefix("Input ")
    came = repr(error["input"])
    came = came if len(came) <= _MOST_SHOWN else came[:_MOST_SHOWN] + "..."
    return f"{wanted[:1].lower()}{wanted[1:]}; {came} came"
