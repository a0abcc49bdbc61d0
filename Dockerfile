# Sluice in a container: the local engine, its store and its workers under one command.
#
#   docker build -t sluice .
#   docker run --rm --init --read-only --tmpfs /tmp --network host sluice
#
# The demo inside listens on loopback, hence --network host. Publishing ports instead means
# listening on 0.0.0.0, which `sluice up` refuses without TLS or tokens: mount a configuration
# of your own that has `listen` and either of them,
#
#   docker run --rm --init --read-only --tmpfs /tmp -p 8000:8000 -p 8001:8001 \
#     -v ./gateway:/etc/sluice:ro -v sluice:/var/lib/sluice sluice
#
# or, on a network that you trust, repeat the command with the flag that forces it:
#
#   docker run … sluice up /etc/sluice --data /var/lib/sluice --insecure-bind
#
# The tag below moves with security fixes; pin it to a digest of your registry for repeatable
# builds. Python packages are pinned by hash already.

FROM python:3.11-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
WORKDIR /build
RUN python -m venv /opt/sluice
# Third-party packages first: this layer is built again only when the pins change.
COPY constraints.txt ./
RUN /opt/sluice/bin/pip install --require-hashes --requirement constraints.txt
COPY pyproject.toml README.md LICENSE ./
COPY feature_cache ./feature_cache
COPY serving ./serving
RUN /opt/sluice/bin/pip install --no-deps --no-build-isolation .

FROM python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="Sluice" \
      org.opencontainers.image.description="A low-latency model-serving gateway" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 sluice \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/sluice \
      --shell /usr/sbin/nologin sluice \
 && install --directory --owner 10001 --group 10001 --mode 0700 /var/lib/sluice
COPY --from=build /opt/sluice /opt/sluice
COPY configs/demo/gateway.yaml /etc/sluice/
COPY configs/demo/models /etc/sluice/models
COPY configs/demo/features /etc/sluice/features
COPY configs/demo/artifacts /etc/sluice/artifacts
COPY configs/demo/data/people.parquet /etc/sluice/data/
COPY configs/demo/example-request.json /etc/sluice/
# Nothing is written outside the data directory, so the root file system may be read-only.
ENV PATH=/opt/sluice/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    SLUICE_HEALTH_URL=http://127.0.0.1:8002/readyz
USER 10001:10001
WORKDIR /var/lib/sluice
VOLUME ["/var/lib/sluice"]
EXPOSE 8000 8001 8002
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request as u; u.urlopen(os.environ['SLUICE_HEALTH_URL'], timeout=2)"]
ENTRYPOINT ["sluice"]
CMD ["up", "/etc/sluice", "--data", "/var/lib/sluice"]
