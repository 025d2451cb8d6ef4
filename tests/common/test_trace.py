"""One utterance through three processes, and its trace in a collector."""

import asyncio
from contextlib import ExitStack

from voicemesh.codec.v1 import codec_pb2

from tests.common.otlp_sink import Sink, otlp_sink
from tests.common.service import Stub, dialled, process

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
CALL = "voicemesh.codec.v1.CodecService/Decode"


async def spoken(address: str) -> None:
    """One utterance whose turn began with the caller."""
    async with dialled(address) as channel:
        call = Stub(channel).Decode()
        start = codec_pb2.DecodeStart(trace={"traceparent": CALLER})
        await call.write(codec_pb2.DecodeRequest(epoch=3, start=start))
        await call.read()
        await call.done_writing()
        await call.read()


def through_three_processes(sink: Sink) -> None:
    with ExitStack() as running:
        following = ""
        for _ in range(3):
            flags = ("--next", following) if following else ()
            _, following = running.enter_context(process("--otlp-endpoint", sink.endpoint, *flags))
        asyncio.run(spoken(following))


def test_the_trace_of_one_utterance_through_three_processes_arrives_whole() -> None:
    with otlp_sink() as sink:
        through_three_processes(sink)
        utterances = {span.span_id: span for span in sink.wait_for(3, "codec.decode")}
        calls = {span.span_id: span for span in sink.wait_for(3, CALL)}
    assert {span.trace_id for span in utterances.values()} == {CALLER.split("-")[1]}
    assert len({span.instance for span in utterances.values()}) == 3
    (first,) = (span for span in utterances.values() if span.parent_id == CALLER.split("-")[2])
    (second,) = (span for span in utterances.values() if span.parent_id == first.span_id)
    (third,) = (span for span in utterances.values() if span.parent_id == second.span_id)
    for span in (first, second, third):
        (link,) = span.links
        assert calls[link].instance == span.instance
        assert (span.attributes["voicemesh.epoch"], span.attributes["voicemesh.finish_reason"]) == (3, "COMPLETED")
