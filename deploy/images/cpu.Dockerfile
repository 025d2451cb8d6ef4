# syntax=docker/dockerfile:1.9
# All four services for CPUs, with the mini voice and nothing to fetch: `make images`. Context: the repository's root.
ARG PYTHON=3.11.14

FROM python:${PYTHON}-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /app
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH
# torch alone first: the largest layer, and it changes least. Without TORCH_INDEX pip takes the build for CUDA, which
# runs on CPUs too and is several times as large.
ARG TORCH_INDEX=
COPY constraints.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} --constraint constraints.txt torch
COPY pyproject.toml ./
RUN --mount=type=cache,target=/root/.cache/pip \
    python -c "import tomllib; print(*tomllib.load(open('pyproject.toml','rb'))['project']['dependencies'],sep='\n')" > wanted.txt \
    && pip install --constraint constraints.txt --requirement wanted.txt "setuptools>=80" "grpcio-tools==1.85.1" \
    && rm wanted.txt
COPY . .
RUN pip install --no-deps --no-build-isolation --editable . \
    && python -m compileall -q cli common services gen

FROM python:${PYTHON}-slim-bookworm
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    VOICEMESH_TTS_LM_MODEL=/app/voices/mini VOICEMESH_CODEC_MODEL=/app/voices/mini
WORKDIR /app
# Kernels are compiled for the processor that they run on: `voicemesh tune --build-only`, before tts_lm starts.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
RUN groupadd --gid 10001 voicemesh && useradd --uid 10001 --gid 10001 --home-dir /scratch --create-home voicemesh
COPY --from=build /opt/venv /opt/venv
COPY --from=build /app /app
USER 10001:10001
EXPOSE 50050 50051 50052 50053 8080 51050 51051 51052 51053
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "-m", "cli"]
CMD ["serve", "all"]
