FROM python:3.13.5-slim AS build
RUN python -m venv /venv
COPY requirements.txt .
RUN /venv/bin/pip install --no-cache-dir --require-hashes -r requirements.txt

FROM python:3.13.5-slim
# For SQLite files, where no DATABASE_URL is set: a named volume takes over the owner of the folder it is mounted on.
RUN useradd --uid 10001 --no-create-home ledger && install -d -o ledger -g ledger /data
COPY --from=build /venv /venv
WORKDIR /app
COPY shared shared
COPY command_service command_service
COPY projection_service projection_service
ENV PATH=/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    HOST=0.0.0.0 PORT=8080 DATA_DIR=/data LOG_FORMAT=json
USER ledger
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=20s --retries=5 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ[\"PORT\"]}/livez', timeout=2)"]
CMD ["python", "-m", "command_service"]
