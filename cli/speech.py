"""`python -m cli.speech TTS_LM_FLAG… -- CODEC_FLAG…`: both speech stages in one process, each behind its own port.

On a GPU they then share one CUDA context: their kernels interleave on streams instead of taking turns by time slices,
and the driver's memory is paid for once. On CPU two processes are better: each has an interpreter of its own.
"""

from __future__ import annotations

import sys

from common.config import load_or_exit
from common.serving import run_services
from services.codec.__main__ import builder as codec_builder
from services.codec.config import CodecConfig
from services.tts_lm.__main__ import builder as tts_lm_builder
from services.tts_lm.config import TtsLmConfig


def main(arguments: list[str]) -> int:
    cut = arguments.index("--")
    talker, codec = load_or_exit(TtsLmConfig, arguments[:cut]), load_or_exit(CodecConfig, arguments[cut + 1 :])
    return run_services([(talker, tts_lm_builder(talker)), (codec, codec_builder(codec))])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
