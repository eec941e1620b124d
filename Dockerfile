# One image for every role: worker (the default), the one-shot set-up, the simulator.
FROM python:3.13-slim AS build
WORKDIR /src
RUN python -m venv /venv
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY requirements.lock .
RUN /venv/bin/pip install --require-hashes -r requirements.lock
COPY . .
RUN /venv/bin/pip install --no-deps --no-build-isolation .

FROM python:3.13-slim
RUN useradd --uid 10001 --create-home orderwatch
COPY --from=build /venv /venv
COPY --chown=10001:10001 config.yaml /app/config.yaml
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /app
USER 10001
CMD ["orderwatch", "worker"]
