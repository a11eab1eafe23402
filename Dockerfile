# The app, on a CPU or on NVIDIA GPUs (run with --gpus all). Listens on port 7860; reads the weights beside it.
#   docker build -t markovgen . && docker run --rm -p 7860:7860 markovgen
FROM python:3.12-slim

RUN useradd --create-home --uid 1000 app
WORKDIR /app
COPY requirements.txt pyproject.toml README.md ./
RUN pip install --no-cache-dir -r requirements.txt
COPY app.py ./
COPY assets assets
COPY weights weights
COPY markovgen_app markovgen_app

USER app
ENV MARKOVGEN_HOST=0.0.0.0 PYTHONUNBUFFERED=1
EXPOSE 7860
HEALTHCHECK --start-period=120s CMD python -c "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7860/')"
CMD ["python", "app.py"]
