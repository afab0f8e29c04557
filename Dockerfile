# docker build -t memorygan-studio .
# docker run --rm -p 7860:7860 memorygan-studio               on the processor
# docker run --rm --gpus all -p 7860:7860 memorygan-studio    on an NVIDIA GPU
#
# No CUDA base image: torch's wheels bring their own CUDA libraries, and the driver comes from the host through
# the NVIDIA Container Toolkit.
FROM python:3.12-slim-bookworm

# Spaces and many clusters run containers as user 1000. Everything the program writes lies under this home.
RUN useradd --create-home --uid 1000 --user-group studio
WORKDIR /home/studio/app

# Before the code, so that a change of code does not download torch again.
COPY requirements.lock ./
RUN pip install --no-cache-dir --disable-pip-version-check --root-user-action=ignore -r requirements.lock

COPY --chown=studio:studio . .
# WORKDIR made this folder as root.
RUN chown studio:studio /home/studio/app
# By number, so that a cluster can tell it is not root without looking inside the image.
USER 1000

ENV HOME=/home/studio \
    HF_HOME=/home/studio/.cache/huggingface \
    PYTHONUNBUFFERED=1 \
    GRADIO_ANALYTICS_ENABLED=False \
    GRADIO_SERVER_NAME=0.0.0.0 \
    GRADIO_SERVER_PORT=7860 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility

EXPOSE 7860

# The first minutes belong to loading the weights. It asks wherever the program listens, and needs no curl.
HEALTHCHECK --interval=30s --timeout=10s --start-period=180s --retries=3 CMD ["python", "-m", "app.probe"]

CMD ["python", "-m", "app"]
