# wamrl on CPUs, with everything that scripts/setup.sh installs:
#   docker build -t wamrl .
#   docker run --rm wamrl quickstart point --smoke
#   docker run --rm -v "$PWD/runs:/work/runs" wamrl quickstart    # keeps the run folder
ARG BASE=debian:bookworm-slim
FROM ${BASE}

RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 python3-venv \
    libegl1 libegl-mesa0 libgl1 libgl1-mesa-dri libopengl0 \
    && rm -rf /var/lib/apt/lists/*
COPY . /wamrl
RUN PIP_NO_CACHE_DIR=1 bash /wamrl/scripts/setup.sh

ENV PATH=/wamrl/.venv/bin:$PATH MUJOCO_GL=egl GOMP_SPINCOUNT=2000
WORKDIR /work
ENTRYPOINT ["wamrl"]
CMD ["--help"]
