"""`voicemesh serve`: the services of this machine, several under a supervisor or one in this very process.

Reads each service's configuration the way the service itself will, so that a wrong value, a taken port or a missing
model is told before anything has started. Flags given here stand over file and environment.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from cli.addresses import DEFAULT_PORTS, Target
from cli.errors import CommandError, UsageError

if TYPE_CHECKING:
    from cli.ports import Wanted
    from cli.supervisor import ChildSpec
    from common.config import ServiceConfig

SERVICES = ("gateway", "brain", "tts_lm", "codec")
GROUPS: Mapping[str, tuple[str, ...]] = {"all": SERVICES, "speech": ("tts_lm", "codec")}
# A flag of ours → the services whose field it sets. The codec keeps its own dtype: reduced precision there is asked for
# by VOICEMESH_CODEC_DTYPE, never implied.
_FLAGS: Mapping[str, tuple[str, ...]] = {
    "config": SERVICES,
    "host": SERVICES,
    "model": ("tts_lm", "codec"),
    "device": ("tts_lm", "codec"),
    "dtype": ("tts_lm",),
}
_PORT_FIELDS = ("port", "metrics_port", "http_port")
_KILL_GRACE_S = 5.0
"""What a service may take beyond its own drain deadline before it is killed."""


@dataclass(frozen=True)
class Plan:
    """One service as it will be started: its flags, and the configuration that they, file and environment give."""

    service: str
    flags: tuple[str, ...]
    config: ServiceConfig

    @property
    def arguments(self) -> tuple[str, ...]:
        """What `python` is given."""
        return ("-m", f"services.{self.service}", *self.flags)

    @property
    def names_model(self) -> bool:
        """Whether flags, environment or file say which speech model."""
        return self.service in _FLAGS["model"] and "model" in self.config.model_fields_set

    def with_flags(self, **values: object) -> Plan:
        """The same with more flags, which stand over those before."""
        more = [part for name, value in values.items() for part in (f"--{name.replace('_', '-')}", str(value))]
        return plan(self.service, [*self.flags, *more])


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("serve", help="start the services of this machine")
    parser.add_argument("what", choices=(*GROUPS, *SERVICES), help="all four, the two of speech, or one")
    parser.add_argument("--config", metavar="FILE", help="YAML or TOML with a section for each service")
    parser.add_argument("--model", metavar="DIR_OR_ID", help="speech model (default: voices/mini, else random weights)")
    parser.add_argument("--brain", metavar="BACKEND", help="offline, openai:URL, vllm:ID or transformers:ID")
    parser.add_argument("--device", help="cpu or cuda, of talker and codec")
    parser.add_argument("--dtype", help="of the talker: auto, float32, bfloat16 or int8")
    parser.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    parser.add_argument(
        "--speech-processes",
        type=int,
        choices=(1, 2),
        help="talker and codec in one process or in two (default: one on a GPU, where they share its context)",
    )
    parser.add_argument("--ports", choices=("default", "free"), default="default", help="free: any that are not taken")
    parser.set_defaults(run=run_serve)


def run_serve(args: argparse.Namespace) -> int:
    """Exit code of the supervisor; serving one service, this process becomes it and never returns."""
    from cli.ports import refuse_taken

    services = GROUPS.get(args.what, (args.what,))
    plans = [plan(service, _given_flags(service, args)) for service in services]
    plans = _with_models(plans)
    if args.ports == "free":
        plans = [_on_free_ports(each) for each in plans]
    else:
        refuse_taken([wanted for each in plans for wanted in wanted_ports(each)])
    return _supervise(plans, processes(plans, args.speech_processes)) if args.what in GROUPS else _become(plans[0])


def plan(service: str, flags: Sequence[str]) -> Plan:
    """Read a service's configuration as it will; UsageError says what is wrong with it."""
    from common.config import ConfigError, ServiceConfig, load

    try:
        module = importlib.import_module(f"services.{service}.config")
    except ModuleNotFoundError as error:
        raise CommandError(f"the service {service} is not part of this installation: {error}") from error
    kinds = [kind for kind in vars(module).values() if _is_config_of(kind, service, ServiceConfig)]
    try:
        return Plan(service, tuple(flags), load(kinds[0], flags))
    except ConfigError as error:
        raise UsageError(f"{service}: {error}") from error


def wanted_ports(each: Plan) -> list[Wanted]:
    """Every port that the service will listen on."""
    from cli.ports import Wanted

    config = each.config
    wanted = [Wanted(each.service, config.host, config.port)]
    if config.telemetry.metrics_port:
        wanted.append(Wanted(f"metrics of {each.service}", config.host, config.telemetry.metrics_port))
    fields = config.model_dump()
    if fields.get("http") and fields["http_port"]:
        wanted.append(Wanted(f"HTTP of {each.service}", config.host, fields["http_port"]))
    return wanted


def _is_config_of(kind: Any, service: str, base: type[ServiceConfig]) -> bool:
    return isinstance(kind, type) and issubclass(kind, base) and kind.service == service


def _given_flags(service: str, args: argparse.Namespace) -> list[str]:
    flags = [
        part
        for name, services in _FLAGS.items()
        if service in services and getattr(args, name) is not None
        for part in (f"--{name}", getattr(args, name))
    ]
    return [*flags, "--backend", args.brain] if service == "brain" and args.brain is not None else flags


def _with_models(plans: Sequence[Plan]) -> list[Plan]:
    """Every speech stage with a model that is there: the default where none was named, fetched where it is a hub id."""
    from cli.default_model import default_model
    from cli.hub import directory_of
    from cli.supervisor import say

    named = {each.service: str(each.config.model_dump()["model"]) for each in plans if each.names_model}
    unnamed = [each.service for each in plans if each.service in _FLAGS["model"] and not each.names_model]
    directories = {service: directory_of(model) for service, model in named.items()}
    if unnamed:
        directory, notice = default_model()
        if notice:
            say(notice)
        directories |= dict.fromkeys(unnamed, directory)
    # tts_lm finds an id by itself, and keeps it to tell which model speaks.
    return [
        each.with_flags(model=directories[each.service])
        if each.service in unnamed or (each.service == "codec" and each.service in named)
        else each
        for each in plans
    ]


def _on_free_ports(each: Plan) -> Plan:
    from cli.ports import free_ports

    fields = [name for name in _PORT_FIELDS if name in type(each.config).model_fields]
    return each.with_flags(**dict(zip(fields, free_ports(each.config.host, len(fields)), strict=True)))


def _become(each: Plan) -> NoReturn:
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *each.arguments])


def processes(plans: Sequence[Plan], speech_processes: int | None = None) -> list[tuple[Plan, ...]]:
    """Which services share a process; unless told, talker and codec do where both are on a GPU."""
    speech = tuple(each for each in plans if each.service in GROUPS["speech"])
    on_gpu = all(str(each.config.model_dump()["device"]).startswith("cuda") for each in speech)
    together = speech_processes == 1 or (speech_processes is None and on_gpu)
    return [speech, *((each,) for each in plans if each not in speech)] if together else [(each,) for each in plans]


def _child(members: tuple[Plan, ...], addresses: Mapping[str, str]) -> ChildSpec:
    from cli.supervisor import ChildSpec

    if len(members) == 1:
        (each,) = members
        return ChildSpec(each.service, each.arguments, addresses, drains_first=each.service == "gateway")
    talker, codec = members
    arguments = ("-m", "cli.speech", *talker.flags, "--", *codec.flags)
    return ChildSpec("speech", arguments, addresses, services=tuple(each.service for each in members))


def _supervise(plans: Sequence[Plan], groups: Sequence[tuple[Plan, ...]]) -> int:
    from cli.supervisor import supervise

    addresses = {
        Target(each.service, ()).variable: f"{_dialled(each.config.host)}:{each.config.port}" for each in plans
    }
    specs = [_child(members, addresses) for members in groups]
    deadline_s = max(each.config.drain_deadline_s for each in plans) + _KILL_GRACE_S
    return asyncio.run(supervise(specs, deadline_s, welcome(addresses)))


def welcome(addresses: Mapping[str, str]) -> str:
    """What to do next: said on standard error, where a person looks and no program reads."""
    service, example = "gateway", "say 'Hello there.' --out hello.wav"
    if Target(service, ()).variable not in addresses:
        service, example = "tts_lm", "codes 'Hello there.'"
    elif Target("brain", ()).variable in addresses:
        example = "chat"
    target = Target(service, ())
    if addresses[target.variable] != f"127.0.0.1:{DEFAULT_PORTS[service]}":
        example += f" {target.flag} {addresses[target.variable]}"
    return f"all READY; Ctrl-C ends them. In another terminal: voicemesh {example}"


def _dialled(host: str) -> str:
    """What one dials to reach a server that listens on `host`."""
    everywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}
    host = everywhere.get(host, host)
    return f"[{host}]" if ":" in host else host
