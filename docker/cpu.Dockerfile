# The service for a CPU, without PyTorch: OpenVINO runs compiled models. Dockerfile beside it has PyTorch, for a GPU and
# for what converts, calibrates and trains.
#
#   docker build -f docker/cpu.Dockerfile -t prunepool .
#
# The layers go from what changes least to what changes most: a change of the code alone rebuilds the last two.
ARG PYTHON=3.11

# What the service needs, in a virtual environment without pip.
FROM python:${PYTHON}-slim-bookworm AS dependencies
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
RUN python -m venv --without-pip /opt/venv
COPY docker/cpu.lock ./
RUN pip --python /opt/venv/bin/python install --quiet --require-hashes -r cpu.lock && \
    pip --python /opt/venv/bin/python check

# The package itself, as the few files that it adds to that environment. Models are in the volume, and not there again.
FROM python:${PYTHON}-slim-bookworm AS package
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
RUN python -m venv /opt/venv && /opt/venv/bin/pip install --quiet hatchling
COPY pyproject.toml README.md LICENSE ./
COPY service service
COPY model_store model_store
RUN /opt/venv/bin/pip install --quiet --no-deps --no-build-isolation --prefix /package . && \
    rm -r /package/lib/python*/site-packages/prunepool/packaged_models

FROM python:${PYTHON}-slim-bookworm AS cpu
LABEL org.opencontainers.image.title="prunepool" \
      org.opencontainers.image.description="Vision Transformer inference where every request chooses how many tokens to spend" \
      org.opencontainers.image.licenses="Apache-2.0"
# A new volume takes a folder's owner from the image: /converted keeps what OpenVINO prepared, for a faster start.
RUN useradd --uid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin prunepool && \
    install --directory --owner 10001 --group 10001 /converted
# The root file system may be read-only: whatever wants to write a cache finds /tmp, which is then a tmpfs.
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    PRUNEPOOL_HOST=0.0.0.0 \
    PRUNEPOOL_PORT=8000 \
    PRUNEPOOL_MODEL_STORE=/models \
    PRUNEPOOL_CPU_OPENVINO_FOLDER=/converted \
    PRUNEPOOL_LOG_FORMAT=json
COPY --from=dependencies /opt/venv /opt/venv
COPY --chown=10001:10001 model_store /models
COPY --from=package /package /opt/venv
USER 10001:10001
WORKDIR /tmp
VOLUME /models
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["python", "-c", "\
import http.client, os, sys; \
here = http.client.HTTPConnection('127.0.0.1', int(os.environ['PRUNEPOOL_PORT']), timeout=4); \
here.request('GET', '/readyz'); \
sys.exit(here.getresponse().status != 200)"]
ENTRYPOINT ["prunepool"]
CMD ["serve"]
