# One image for every part of the service: `docker run notifier worker --lanes urgent`, `… intake`, `… beat`.

FROM python:3.12-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /source
RUN python -m venv /opt/notifier

# The packages change seldom, the source often: two layers. Nothing is installed that the lock file has no hash of.
COPY requirements/production.txt requirements/build.txt requirements/
RUN /opt/notifier/bin/pip install --require-hashes --no-deps -r requirements/production.txt \
    && pip install --require-hashes --no-deps -r requirements/build.txt

COPY pyproject.toml README.md LICENSE notifier.toml ./
COPY templates templates
COPY migrations migrations
COPY notifier notifier
RUN pip wheel --no-deps --no-build-isolation --no-index --wheel-dir /wheels . \
    && /opt/notifier/bin/pip install --no-deps --no-index /wheels/*.whl


FROM python:3.12-slim
LABEL org.opencontainers.image.title="notifier" org.opencontainers.image.licenses="MIT"
RUN useradd --system --uid 10001 --home-dir /srv/notifier --create-home --shell /usr/sbin/nologin notifier
COPY --from=build /opt/notifier /opt/notifier

# Examples to run with as they are, and the places to mount your own over. Migrations are inside the package.
WORKDIR /srv/notifier
COPY notifier.toml ./
COPY templates templates

ENV PATH=/opt/notifier/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    NOTIFIER_TEMPLATES=/srv/notifier/templates \
    NOTIFIER_LOG_FORMAT=json
USER notifier

# Python is process 1 and handles SIGTERM itself; nothing here leaves orphans, so no init is needed.
STOPSIGNAL SIGTERM
ENTRYPOINT ["notifier"]
CMD ["--help"]
