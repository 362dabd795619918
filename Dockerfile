# One image for every part of the service: `docker run notifier worker --lanes urgent`, `… intake`, `… beat`.
#
# It contains only Python, its libraries and the packages: no shell and no package manager.

# An exact version. Append @sha256:… to pin it to a digest.
ARG PYTHON_IMAGE=docker.io/library/python:3.12.12-slim-trixie

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /source
RUN command -v strip >/dev/null \
    || (apt-get update -qq && apt-get install -qq -y --no-install-recommends binutils)

# The packages change rarely, the source often. pip installs only files whose hash is in the lock file.
COPY requirements/production.txt requirements/build.txt requirements/
RUN python -m venv --without-pip /opt/notifier \
    && pip --python /opt/notifier/bin/python install --no-compile --require-hashes --no-deps -r requirements/production.txt \
    && pip install --require-hashes --no-deps -r requirements/build.txt

# Half of the packages' size is never used: debug symbols, C sources, stubs, tests, Twilio's products other than messages, the syntax
# colours of hundreds of languages, lists of installed files. Python itself loses its tests, editor, installer and SQLite.
COPY deploy/repack_locales.py deploy/
RUN cd /opt/notifier/lib/python3*/site-packages \
    && find twilio/rest -mindepth 1 -maxdepth 1 -type d ! -name api -exec rm -r {} + \
    && find . -type d \( -name test -o -name tests -o -name docs \) -prune -exec rm -r {} + \
    && rm -r sqlalchemy/testing \
    && find pygments/lexers -name '[a-z]*.py' ! -name python.py ! -name special.py -delete \
    && find . -type f \( -name '*.pyi' -o -name '*.c' -o -name '*.h' -o -name '*.pyx' -o -name '*.pxd' \) -delete \
    && find . -type f \( -path '*.dist-info/RECORD' -o -path './flower/*.map' -o -name '*.po' \) -delete \
    && /opt/notifier/bin/python /source/deploy/repack_locales.py \
    && find . /usr/local/lib -type f -name '*.so*' ! -path '*.libs/*' -exec strip --strip-unneeded {} + \
    && cd /usr/local/lib/python3* \
    && rm -rf test idlelib tkinter turtledemo turtle.py lib2to3 pydoc_data ensurepip sqlite3 config-* \
        lib-dynload/_sqlite3* lib-dynload/_tkinter* lib-dynload/_test*

COPY pyproject.toml README.md LICENSE notifier.toml ./
COPY templates templates
COPY migrations migrations
COPY notifier notifier
RUN pip wheel --no-deps --no-build-isolation --no-index --wheel-dir /wheels . \
    && pip --python /opt/notifier/bin/python install --no-compile --no-deps --no-index /wheels/*.whl

# Compile only what the programs import. It is done here because the root of a container is often read-only.
COPY deploy/image-root.sh deploy/
RUN cd / \
    && /opt/notifier/bin/python -c 'from notifier.dev.forking import IMPORTS, import_all; import_all(IMPORTS)' \
    && /opt/notifier/bin/python -m compileall -q /opt/notifier/lib/python3*/site-packages/notifier \
    && rm -rf /usr/local/lib/python3*/site-packages \
    && sh /source/deploy/image-root.sh /image /opt/notifier /usr/local/bin/python3* /usr/local/bin/python /usr/local/lib \
    && mkdir -p /ours/opt/notifier/bin && mv /image/opt/notifier/bin/notifier /ours/opt/notifier/bin/ \
    && cd /image/opt/notifier/lib/python3* && mkdir -p "/ours/$(pwd | cut -d/ -f3-)/site-packages" \
    && mv site-packages/notifier site-packages/notifier-*.dist-info "/ours/$(pwd | cut -d/ -f3-)/site-packages/"


FROM scratch
LABEL org.opencontainers.image.title="notifier" org.opencontainers.image.licenses="MIT"
COPY --from=build /image /
COPY --from=build /ours /

# Examples that run as they are; mount your own over them. The migrations are inside the package.
WORKDIR /srv/notifier
COPY notifier.toml ./
COPY templates templates

# `notifier health` uses the metrics port inside the container. NOTIFIER_METRICS_HOST=0.0.0.0 opens the port to others.
ENV PATH=/opt/notifier/bin:/usr/local/bin \
    HOME=/srv/notifier \
    LANG=C.UTF-8 \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    NOTIFIER_TEMPLATES=/srv/notifier/templates \
    NOTIFIER_METRICS_PORT=9300 \
    NOTIFIER_LOG_FORMAT=json
# Numbers, because Kubernetes' runAsNonRoot knows no names. The image also runs as any other user.
USER 10001:10001

# Python is process 1 and handles SIGTERM itself; nothing here leaves orphans, so no init is needed.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 CMD ["notifier", "health"]
ENTRYPOINT ["notifier"]
CMD ["--help"]
