# docker build -t convene . && docker run -p 8000:8000 -v convene:/data convene
# The weights are fetched while the image is built, so that a container needs no network.
FROM python:3.11-slim-bookworm

RUN useradd --system --create-home --uid 10001 convene
WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY requirements/default.txt requirements/default.txt
RUN pip install --no-cache-dir --require-hashes --only-binary :all: -r requirements/default.txt
COPY src src
RUN pip install --no-cache-dir --no-deps --no-build-isolation . \
    && mkdir -p /data /cache && chown convene /data /cache

USER convene
ENV CONVENE_HOST=0.0.0.0 CONVENE_DATA_DIR=/data CONVENE_CACHE_DIR=/cache
RUN convene models pull smollm2-135m && convene models pull all-minilm-l6-v2

VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=2)"]
ENTRYPOINT ["convene"]
CMD ["serve"]
