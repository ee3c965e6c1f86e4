# The service in a container; docs/service.md, "In a container", says how to run it.
FROM python:3.13-slim AS build

# An index of packages beside the default one, such as one with builds of torch for CPUs, which are a tenth of the size.
ARG EXTRA_INDEX_URL=""
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/modiste
WORKDIR /src

# Dependencies are a layer of their own: a change of the code leaves it as it is.
COPY constraints.txt pyproject.toml ./
RUN python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
        > requirements.txt \
    && /opt/modiste/bin/pip install ${EXTRA_INDEX_URL:+--extra-index-url "$EXTRA_INDEX_URL"} \
        -c constraints.txt -r requirements.txt

COPY . .
RUN /opt/modiste/bin/pip install --no-deps .


FROM python:3.13-slim

# Files outside keep their owner by number, so the number is fixed.
RUN groupadd --gid 10001 modiste \
    && useradd --uid 10001 --gid modiste --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin modiste \
    && install --directory --owner=modiste --group=modiste /cache /catalog /gallery
COPY --from=build /opt/modiste /opt/modiste

# The root filesystem may be read-only: what is written goes to /gallery, /cache and /tmp.
# The service encodes one photo a thread, and threads of libraries would only fight over the cores.
ENV HF_HOME=/cache/huggingface \
    MALLOC_ARENA_MAX=2 \
    MODISTE_CACHE=/cache \
    MODISTE_GALLERY=/gallery \
    MODISTE_HOST=0.0.0.0 \
    MODISTE_PORT=8000 \
    OMP_NUM_THREADS=1 \
    PATH=/opt/modiste/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1

USER 10001:10001
WORKDIR /gallery
VOLUME ["/gallery", "/cache"]
EXPOSE 8000

# Without a proxy, whatever the environment says: the question stays in the container.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-c", "import os, urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:' + os.environ['MODISTE_PORT'] + '/readyz', timeout=4)"]

ENTRYPOINT ["modiste", "serve"]
