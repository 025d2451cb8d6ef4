"""Configuration of a service: one frozen object, from defaults < file < environment < flags.

Each service subclasses `ServiceConfig` in its `config.py` and writes fields: a unit in the name, a range, a one-line
description. From those come the environment variables (`VOICEMESH_<SERVICE>_<FIELD>`), the flags and their help. A name
that means nothing stops the start, wherever it stands, with a sentence. No other module reads the environment.
"""

from __future__ import annotations

import difflib
import json
import logging
import os
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NoReturn, TypeVar, get_args, get_origin

import yaml
from pydantic import Field, FilePath, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from common.flags import flag_of, parser_of
from common.telemetry import TelemetrySettings

SERVICES = ("gateway", "brain", "tts_lm", "codec")
PREFIX = "VOICEMESH_"
Config = TypeVar("Config", bound="ServiceConfig")
logger = logging.getLogger(__name__)


class ConfigError(Exception):
    """The configuration is wrong; the message says what, where, and what was probably meant."""


class ServiceConfig(BaseSettings):
    """What every service can be told. Subclasses set `service` and `default_port`, and add their own fields."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, validate_default=True, protected_namespaces=())
    service: ClassVar[str] = ""
    faces_strangers: ClassVar[bool] = False
    """Whether callers come from outside the mesh: what shows our insides is then off beyond loopback."""

    host: Annotated[str, Field(description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="Port to listen on; 0 takes a free one.")] = 0
    max_streams: Annotated[int, Field(ge=1, le=100_000, description="Streams served at once; more are refused.")] = 1024
    max_request_bytes: Annotated[
        int, Field(ge=1024, le=16 * 1024 * 1024, description="Largest request message taken.")
    ] = 4 * 1024 * 1024
    drain_deadline_s: Annotated[
        float, Field(ge=0, le=3600, description="How long running streams may go on after SIGTERM.")
    ] = 30.0
    reflection: Annotated[
        bool | None,
        Field(description="Answer gRPC reflection; absent: yes, but not to strangers beyond this machine."),
    ] = None
    channelz: Annotated[
        bool | None,
        Field(description="Answer channelz; absent: yes, but not to strangers beyond this machine."),
    ] = None
    tls_certificate_file: Annotated[
        FilePath | None, Field(description="PEM chain of this server; with it the port speaks TLS.")
    ] = None
    tls_key_file: Annotated[FilePath | None, Field(description="PEM private key of the certificate.")] = None
    tls_client_ca_file: Annotated[
        FilePath | None, Field(description="PEM of who signs callers; with it only those get in (mTLS).")
    ] = None
    log_level: Annotated[
        str, Field(pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="Least severe log written.")
    ] = "INFO"
    metrics: Annotated[bool, Field(description="Serve Prometheus metrics over HTTP.")] = True
    metrics_port: Annotated[
        int | None,
        Field(ge=0, le=65535, description="Port of the metrics; absent: port + 1000, or a free one when port is 0."),
    ] = None
    otlp_endpoint: Annotated[
        str | None,
        Field(
            pattern="^https?://",
            description="OTLP collector, as http://HOST:4317; absent: OTEL_EXPORTER_OTLP_*.",
        ),
    ] = None
    otlp_protocol: Annotated[
        Literal["grpc", "http/protobuf"] | None,
        Field(description="How that collector is spoken to; absent: OTEL_EXPORTER_OTLP_PROTOCOL, else grpc."),
    ] = None
    trace_ratio: Annotated[
        float | None,
        Field(
            ge=0,
            le=1,
            description="Share of traces kept where the caller has not decided; absent: OTEL_TRACES_SAMPLER.",
        ),
    ] = None

    @model_validator(mode="after")
    def _tls_files_belong_together(self) -> ServiceConfig:
        if (self.tls_certificate_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_certificate_file and tls_key_file go together")
        if self.tls_client_ca_file is not None and self.tls_certificate_file is None:
            raise ValueError("tls_client_ca_file needs tls_certificate_file")
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what `load` merged: the order of the sources is ours, and visible there."""
        return (init_settings,)

    @property
    def answers_reflection(self) -> bool:
        """Whether reflection is served."""
        return self._shows_insides if self.reflection is None else self.reflection

    @property
    def answers_channelz(self) -> bool:
        """Whether channelz is served."""
        return self._shows_insides if self.channelz is None else self.channelz

    @property
    def _shows_insides(self) -> bool:
        return (
            not self.faces_strangers or self.host == "localhost" or self.host.startswith("127.") or self.host == "::1"
        )

    @property
    def telemetry(self) -> TelemetrySettings:
        """What `common.telemetry` needs of this."""
        beside = self.port + 1000 if 0 < self.port <= 64535 else 0
        port = beside if self.metrics_port is None else self.metrics_port
        return TelemetrySettings(
            service=self.service,
            otlp_endpoint=self.otlp_endpoint,
            otlp_protocol=self.otlp_protocol,
            trace_ratio=self.trace_ratio,
            metrics_host=self.host,
            metrics_port=port if self.metrics else None,
        )

    def log_once(self) -> None:
        """One line with the effective configuration; secrets are masked by their types."""
        logger.info("configuration", extra={"config": self.model_dump(mode="json")})


def load(
    config: type[Config],
    flags: Sequence[str] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
) -> Config:
    """Merge file (`--config`), environment and flags over the defaults. ConfigError says what is wrong in one sentence.

    `flags` None means those of this process; `--help` prints the fields and exits, as argparse does.
    """
    given = vars(parser_of(config, f"python -m services.{config.service}").parse_args(flags))
    path = given.pop("config", None)
    values: dict[str, Any] = {}
    if path is not None:
        values |= _from_file(config, Path(path))
    values |= _from_environment(config, os.environ if environ is None else environ)
    values |= {name: _text(config.model_fields[name], value, flag_of(name)) for name, value in given.items()}
    try:
        return config(**values)
    except ValidationError as error:
        raise ConfigError(_sentence(error)) from None


def load_or_exit(config: type[Config], flags: Sequence[str] | None = None) -> Config:
    """`load` for a `__main__`: a wrong configuration is a sentence on standard error and exit code 2."""
    try:
        return load(config, flags)
    except ConfigError as error:
        _exit(str(error))


def _from_file(config: type[ServiceConfig], path: Path) -> dict[str, Any]:
    """The service's own section over the common one. Sections of other services are theirs to check."""
    try:
        text = path.read_text(encoding="utf-8")
        document = tomllib.loads(text) if path.suffix == ".toml" else yaml.safe_load(text) or {}
    except OSError as error:
        raise ConfigError(f"The configuration file {path} cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"The configuration file {path} is neither YAML nor TOML: {' '.join(str(error).split())}."
        ) from None
    if not isinstance(document, dict):
        raise ConfigError(f"The configuration file {path} must hold sections: common, {', '.join(SERVICES)}.")
    _refuse_unknown(document, ("common", *SERVICES), f"section of {path}", "{}")
    values: dict[str, Any] = {}
    for section, fields in (("common", ServiceConfig.model_fields), (config.service, config.model_fields)):
        part = document.get(section) or {}
        if not isinstance(part, dict):
            raise ConfigError(f"The section {section} of {path} must hold keys and values.")
        _refuse_unknown(part, fields, f"key in section {section} of {path}", "{}")
        values |= part
    return values


def _from_environment(config: type[ServiceConfig], environ: Mapping[str, str]) -> dict[str, Any]:
    prefix = f"{PREFIX}{config.service.upper()}_"
    given = {key[len(prefix) :].lower(): value for key, value in environ.items() if key.upper().startswith(prefix)}
    given.pop("address", None)  # how callers find this service, not how it is configured
    _refuse_unknown(given, config.model_fields, "environment variable", prefix + "{}", upper=True)
    return {name: _text(config.model_fields[name], value, prefix + name.upper()) for name, value in given.items()}


def _refuse_unknown(
    given: Mapping[str, Any], known: Mapping[str, Any] | Sequence[str], what: str, shape: str, upper: bool = False
) -> None:
    for name in given:
        if name in known:
            continue
        near = difflib.get_close_matches(str(name), list(known), n=1)
        shown, *hint = [shape.format(word.upper() if upper else word) for word in (str(name), *near)]
        raise ConfigError(f"Unknown {what}: {shown}." + (f" Did you mean {hint[0]}?" if hint else ""))


def _text(field: FieldInfo, value: Any, where: str) -> Any:
    """Text of a flag or variable, as pydantic wants it: collections are JSON, or for plain sequences
    comma-separated."""
    if not isinstance(value, str):
        return value
    if value == "" and type(None) in get_args(field.annotation):
        return None
    kind = get_origin(field.annotation) or field.annotation
    if kind not in (list, tuple, dict, set, frozenset):
        return value
    if not value.lstrip().startswith(("[", "{")) and kind is not dict:
        return [part.strip() for part in value.split(",") if part.strip()]
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{where} is not JSON: {error}.") from None


def _sentence(error: ValidationError) -> str:
    parts = []
    for fault in error.errors(include_url=False, include_context=False, include_input=False):
        where = ".".join(str(part) for part in fault["loc"]) or "configuration"
        parts.append(f"{where}: {fault['msg'].removeprefix('Value error, ')}")
    return "The configuration is wrong: " + "; ".join(parts) + "."


def _exit(sentence: str) -> NoReturn:
    print(sentence, file=sys.stderr)
    sys.exit(2)
