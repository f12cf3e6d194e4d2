# docker build -t ditochatbackend . && docker run -p 8080:8080 -v ditochat:/data ditochatbackend

# socket.io-client, which the demo page loads.
FROM node:22-bookworm-slim AS client
WORKDIR /src
COPY package.json package-lock.json ./
RUN npm ci --omit=dev --ignore-scripts --no-audit --no-fund --loglevel=error

# An environment with the server and what it needs, complete in one folder.
FROM python:3.13-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY requirements/ requirements/
# Two environments: what builds the package stays behind.
RUN python -m venv --without-pip /opt/ditochat \
 && pip --python /opt/ditochat/bin/python install --quiet --require-hashes --only-binary :all: -r requirements/runtime.txt \
 && python -m venv /opt/build \
 && /opt/build/bin/pip install --quiet --require-hashes --only-binary :all: -r requirements/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY server/ server/
COPY static-demo/ static-demo/
COPY --from=client /src/node_modules/socket.io-client/dist/socket.io.min.js \
                   /src/node_modules/socket.io-client/dist/socket.io.esm.min.js static-demo/vendor/
RUN /opt/build/bin/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir /wheels . \
 && pip --python /opt/ditochat/bin/python install --quiet --no-deps --no-index /wheels/*.whl

FROM python:3.13-slim-bookworm
# What runs the server cannot change it; an image to develop with gives it to the user below.
ARG OWNER=0:0
COPY --from=build --chown=$OWNER /opt/ditochat /opt/ditochat
# A number, not a name: only of a number can Kubernetes tell that it is not root's.
RUN install -d -m 0700 -o 10001 -g 10001 /data
USER 10001:10001
# Nothing else is written to: the root file system may be read-only.
VOLUME /data
ENV PATH=/opt/ditochat/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    DATA_DIR=/data
EXPOSE 8080
# Alive, not ready: an engine that restarts what is unhealthy should not do so while Redis is away. The server is asked
# at ADDR: set that, not --addr.
HEALTHCHECK --interval=30s --timeout=5s --start-period=15s --retries=3 CMD ["ditochat", "healthcheck"]
# Clients get DRAIN_SECONDS to move away: give `docker stop` more than its 10 s, with --stop-timeout.
STOPSIGNAL SIGTERM
ENTRYPOINT ["ditochat"]
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="ditochatbackend" \
      org.opencontainers.image.description="A realtime chat backend for JavaScript frontends" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
