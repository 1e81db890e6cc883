# One image for every role: docker run openmrs-passport cdc run --hospital kigali
# The locked dependencies first: they change seldom, so that their layer is kept
# (passport/__init__.py says the version).
FROM python:3.12-slim AS build
RUN pip install --no-cache-dir uv==0.13.9
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never UV_PROJECT_ENVIRONMENT=/opt/passport
WORKDIR /src
COPY pyproject.toml uv.lock README.md LICENSE ./
COPY passport/__init__.py passport/
RUN uv sync --locked --no-dev --extra portal --extra otel --no-install-project
COPY config/default.yaml config/known-concepts.tsv config/mapping.yaml config/
COPY cli cli
COPY passport passport
COPY openmrs openmrs
COPY meaning meaning
COPY cdc cdc
COPY consumers consumers
COPY destinations destinations
COPY reconcile reconcile
COPY legacy_import legacy_import
COPY portal portal
RUN uv sync --locked --no-dev --extra portal --extra otel --no-editable

FROM python:3.12-slim
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin passport
COPY --from=build /opt/passport /opt/passport
ENV PATH=/opt/passport/bin:$PATH PYTHONUNBUFFERED=1 PASSPORT_HEALTH__HOST=0.0.0.0 PASSPORT_HEALTH__PORT=8080
USER 10001
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
  CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8080/readyz', timeout=4)"]
ENTRYPOINT ["passport"]
CMD ["--help"]
