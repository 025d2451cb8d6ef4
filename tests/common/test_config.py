from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pytest
from pydantic import Field, SecretStr

from common.config import ConfigError, ServiceConfig, load
from common.flags import parser_of


class CodecConfig(ServiceConfig):
    """Turns frames into sound."""

    service: ClassVar[str] = "codec"

    port: Annotated[int, Field(ge=0, le=65535, description="Port to listen on; 0 takes a free one.")] = 50053
    max_slots: Annotated[int, Field(ge=1, le=4096, description="Utterances decoded at once.")] = 16
    ramp_frames: Annotated[tuple[int, ...], Field(description="Sizes of the first packets.")] = (1, 2, 4)
    dtype: Annotated[Literal["float32", "bfloat16"], Field(description="Of the weights.")] = "float32"
    token: Annotated[SecretStr, Field(description="What callers show.")] = SecretStr("")


def loaded(*flags: str, **environ: str) -> CodecConfig:
    return load(CodecConfig, flags, environ=environ)


def written(tmp_path: Path, text: str, name: str = "mesh.yaml") -> str:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_each_source_overrules_the_one_before(tmp_path: Path) -> None:
    path = written(tmp_path, "codec: {max_slots: 2, log_level: DEBUG, drain_deadline_s: 5}")
    config = loaded(
        "--config", path, "--max-slots", "4", VOICEMESH_CODEC_MAX_SLOTS="3", VOICEMESH_CODEC_LOG_LEVEL="ERROR"
    )
    assert (config.max_slots, config.log_level, config.drain_deadline_s, config.port) == (4, "ERROR", 5.0, 50053)


def test_the_common_section_is_for_every_service_and_the_own_one_overrules_it(tmp_path: Path) -> None:
    path = written(tmp_path, "common: {log_level: DEBUG, host: 0.0.0.0}\ncodec: {host: 127.0.0.2}")
    config = loaded("--config", path)
    assert (config.log_level, config.host) == ("DEBUG", "127.0.0.2")


def test_toml_is_read_as_yaml_is(tmp_path: Path) -> None:
    path = written(tmp_path, "[codec]\nmax_slots = 2\nramp_frames = [1, 4]\n", "mesh.toml")
    config = loaded("--config", path)
    assert (config.max_slots, config.ramp_frames) == (2, (1, 4))


def test_sections_of_other_services_are_theirs(tmp_path: Path) -> None:
    path = written(tmp_path, "tts_lm: {something: 1}\ncodec: {max_slots: 2}")
    assert loaded("--config", path).max_slots == 2


def test_callers_may_say_where_the_service_is() -> None:
    config = loaded(VOICEMESH_CODEC_ADDRESS="127.0.0.1:50053", VOICEMESH_BRAIN_ANYTHING="1", HOME="/")
    assert config == CodecConfig()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("codec: {max_slot: 2}", r"Unknown key in section codec of .*: max_slot\. Did you mean max_slots\?"),
        ("common: {max_slots: 2}", r"Unknown key in section common of .*: max_slots\. Did you mean max_streams\?"),
        ("codecs: {max_slots: 2}", r"Unknown section of .*: codecs\. Did you mean codec\?"),
        ("codec: 3", "must hold keys and values"),
        ("- codec", "must hold sections"),
        ("codec: {", "neither YAML nor TOML"),
        ("codec: {max_slots: many}", "max_slots: Input should be a valid integer"),
    ],
)
def test_a_wrong_file_stops_the_start(tmp_path: Path, text: str, sentence: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(ConfigError, match=sentence):
        loaded("--config", path)


def test_a_file_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match=r"/nowhere/mesh\.yaml cannot be read: No such file"):
        loaded("--config", "/nowhere/mesh.yaml")


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        (
            {"VOICEMESH_CODEC_MAX_SLOT": "2"},
            r"variable: VOICEMESH_CODEC_MAX_SLOT\. Did you mean VOICEMESH_CODEC_MAX_SLOTS\?",
        ),
        ({"VOICEMESH_CODEC_QQQQ": "2"}, r"Unknown environment variable: VOICEMESH_CODEC_QQQQ\.$"),
        ({"VOICEMESH_CODEC_MAX_SLOTS": "0"}, "max_slots: Input should be greater than or equal to 1"),
        ({"VOICEMESH_CODEC_RAMP_FRAMES": "[1,"}, "VOICEMESH_CODEC_RAMP_FRAMES is not JSON"),
    ],
)
def test_a_wrong_environment_stops_the_start(environ: dict[str, str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        loaded(**environ)


def test_an_unknown_flag_stops_the_start_even_when_it_is_nearly_right(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        loaded("--max-slot", "2")
    assert stopped.value.code == 2
    assert "--max-slot" in capsys.readouterr().err


@pytest.mark.parametrize("written_as", ["1,3", "[1, 3]", "1, 3,"])
def test_lists_may_be_written_with_commas(written_as: str) -> None:
    assert loaded(VOICEMESH_CODEC_RAMP_FRAMES=written_as).ramp_frames == (1, 3)
    assert loaded("--ramp-frames", written_as).ramp_frames == (1, 3)


def test_an_empty_value_of_an_optional_field_means_absent() -> None:
    assert loaded(VOICEMESH_CODEC_OTLP_ENDPOINT="").otlp_endpoint is None


def test_switches_have_a_no() -> None:
    assert loaded("--no-reflection").reflection is False
    assert loaded("--reflection", VOICEMESH_CODEC_REFLECTION="false").reflection is True


def test_nothing_can_be_changed_later() -> None:
    with pytest.raises(ValueError, match="frozen"):
        CodecConfig().max_slots = 3


def test_a_configuration_in_code_does_not_read_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VOICEMESH_CODEC_MAX_SLOTS", "3")
    monkeypatch.setenv("MAX_SLOTS", "4")
    assert CodecConfig().max_slots == 16
    assert load(CodecConfig, []).max_slots == 3


def test_secrets_are_masked_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    loaded(VOICEMESH_CODEC_TOKEN="hunter2").log_once()
    (record,) = caplog.records
    assert "hunter2" not in str(vars(record))
    assert vars(record)["config"]["max_slots"] == 16


def test_tls_files_go_together(tmp_path: Path) -> None:
    path = written(tmp_path, "", "server.pem")
    with pytest.raises(ConfigError, match="tls_certificate_file and tls_key_file go together"):
        loaded("--tls-certificate-file", path)
    with pytest.raises(ConfigError, match="tls_client_ca_file needs tls_certificate_file"):
        loaded("--tls-client-ca-file", path)
    with pytest.raises(ConfigError, match=r"tls_key_file: Path does not point to a file"):
        loaded("--tls-certificate-file", path, "--tls-key-file", "/nowhere")


def test_help_says_what_a_field_is_with_its_range_and_default() -> None:
    shown = " ".join(parser_of(CodecConfig, "codec").format_help().split())
    assert "Turns frames into sound." in shown
    assert "--max-slots SLOTS Utterances decoded at once. (default 16, at least 1, at most 4096)" in shown
    assert "--dtype DTYPE Of the weights. (default float32, one of float32, bfloat16)" in shown
    assert "--no-reflection" in shown


@pytest.mark.parametrize(
    ("port", "flags", "expected"), [(0, (), 0), (50053, (), 51053), (65000, (), 0), (50053, ("--metrics-port", "7"), 7)]
)
def test_metrics_stand_beside_the_port(port: int, flags: tuple[str, ...], expected: int) -> None:
    assert loaded("--port", str(port), *flags).telemetry.metrics_port == expected
    assert loaded("--port", str(port), "--no-metrics").telemetry.metrics_port is None


class PublicConfig(CodecConfig):
    faces_strangers: ClassVar[bool] = True


@pytest.mark.parametrize(
    ("config", "answers"),
    [
        (CodecConfig(host="0.0.0.0"), True),
        (PublicConfig(host="127.0.0.1"), True),
        (PublicConfig(host="::1"), True),
        (PublicConfig(host="0.0.0.0"), False),
        (PublicConfig(host="0.0.0.0", reflection=True, channelz=True), True),
        (CodecConfig(reflection=False, channelz=False), False),
    ],
)
def test_strangers_see_no_insides_unless_it_is_configured(config: ServiceConfig, answers: bool) -> None:
    assert (config.answers_reflection, config.answers_channelz) == (answers, answers)


def test_every_common_field_says_what_it_is() -> None:
    for name, field in ServiceConfig.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name
